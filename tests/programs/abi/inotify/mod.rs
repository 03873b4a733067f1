//! inotify(7): watches, the queue, and which events come of what (`changes`, `uses`).

mod changes;
mod queue;
mod uses;

use crate::Case;
use crate::sys::{self, c, close, fork, in_child, open, report, report_ok, wait};
use std::collections::BTreeMap;

pub(crate) const CASES: &[Case] = &[
    ("inotify_errors", errors),
    ("inotify_permission", permission),
    ("inotify_descriptors", descriptors),
    ("inotify_masks", masks),
    ("inotify_oneshot", oneshot),
    ("inotify_links", links),
    ("inotify_limits", limits),
    ("inotify_fdinfo", fdinfo),
    ("inotify_shared", shared),
    ("inotify_names", changes::names),
    ("inotify_rename", changes::rename),
    ("inotify_exchange", changes::exchange),
    ("inotify_replaced", changes::replaced),
    ("inotify_attributes", changes::attributes),
    ("inotify_deleted", changes::deleted),
    ("inotify_deleted_open", changes::deleted_open),
    ("inotify_deleted_dir", changes::deleted_dir),
    ("inotify_made_again", changes::made_again),
    ("inotify_open", uses::open_and_close),
    ("inotify_bytes", uses::bytes),
    ("inotify_sizes", uses::sizes),
    ("inotify_copies", uses::copies),
    ("inotify_listed", uses::listed),
    ("inotify_unlinked", uses::unlinked),
    ("inotify_mapped", uses::mapped),
    ("inotify_executed", uses::executed),
    ("inotify_special", uses::special),
    ("inotify_device", uses::device),
    ("inotify_layout", queue::layout),
    ("inotify_merged", queue::merged),
    ("inotify_short", queue::short),
    ("inotify_ready", queue::ready),
    ("inotify_waits", queue::waits),
    ("inotify_interrupted", queue::interrupted),
    ("inotify_overflow", queue::overflow),
];

/// Everything that can be asked for.
const ALL: u32 = libc::IN_ALL_EVENTS;

const NAMES: &[(u32, &str)] = &[
    (libc::IN_ACCESS, "access"),
    (libc::IN_MODIFY, "modify"),
    (libc::IN_ATTRIB, "attrib"),
    (libc::IN_CLOSE_WRITE, "close-write"),
    (libc::IN_CLOSE_NOWRITE, "close-nowrite"),
    (libc::IN_OPEN, "open"),
    (libc::IN_MOVED_FROM, "moved-from"),
    (libc::IN_MOVED_TO, "moved-to"),
    (libc::IN_CREATE, "create"),
    (libc::IN_DELETE, "delete"),
    (libc::IN_DELETE_SELF, "delete-self"),
    (libc::IN_MOVE_SELF, "move-self"),
    (libc::IN_UNMOUNT, "unmount"),
    (libc::IN_Q_OVERFLOW, "overflow"),
    (libc::IN_IGNORED, "ignored"),
    (libc::IN_ISDIR, "isdir"),
];

/// One event as it was read.
struct Event {
    wd: i32,
    mask: u32,
    cookie: u32,
    name: String,
}

/// Takes a buffer apart.
fn parse(bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut rest = bytes;
    while rest.len() >= 16 {
        let word = |at: usize| u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        let end = 16 + word(12) as usize;
        let name = rest[16..end].split(|byte| *byte == 0).next().unwrap_or_default();
        events.push(Event {
            wd: word(0) as i32,
            mask: word(4),
            cookie: word(8),
            name: String::from_utf8_lossy(name).into_owned(),
        });
        rest = &rest[end..];
    }
    assert!(rest.is_empty(), "a part of an event");
    events
}

/// An inotify instance, and what its watches are for.
struct Watcher {
    fd: i64,
    labels: BTreeMap<i64, String>,
    /// Cookies in the order in which they came: their numbers differ from run to run.
    cookies: Vec<u32>,
}

impl Watcher {
    fn new() -> Watcher {
        let fd = sys!(libc::SYS_inotify_init1, libc::IN_NONBLOCK | libc::IN_CLOEXEC);
        assert!(fd >= 0, "inotify_init1: {}", sys::show(fd));
        Watcher { fd, labels: BTreeMap::new(), cookies: vec![0] }
    }

    /// One with a watch for everything on each of the names.
    fn on(names: &[&str]) -> Watcher {
        let mut watcher = Watcher::new();
        for name in names {
            watcher.add(name, ALL);
        }
        watcher
    }

    fn add(&mut self, name: &str, mask: u32) -> i64 {
        let wd = add(self.fd, name, mask);
        if wd >= 0 {
            self.labels.insert(wd, name.to_owned());
        }
        wd
    }

    fn remove(&self, wd: i64) -> i64 {
        sys!(libc::SYS_inotify_rm_watch, self.fd, wd)
    }

    /// Takes all events that there are.
    fn take(&self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let (result, bytes) = sys::read(self.fd, 4096);
            if result <= 0 {
                assert_eq!(sys::show(result), "EAGAIN");
                return events;
            }
            events.extend(parse(&bytes));
        }
    }

    /// Prints all events that there are.
    fn show(&mut self, what: &str) {
        println!("{what}:");
        for event in self.take() {
            let bits: Vec<&str> =
                NAMES.iter().filter(|(bit, _)| event.mask & bit != 0).map(|(_, name)| *name).collect();
            let other = event.mask & !NAMES.iter().fold(0, |all, (bit, _)| all | bit);
            assert_eq!(other, 0, "bits that mean nothing");
            let known = self.cookies.iter().position(|cookie| *cookie == event.cookie);
            let cookie = known.unwrap_or_else(|| {
                self.cookies.push(event.cookie);
                self.cookies.len() - 1
            });
            let none = String::from("?");
            let label = self.labels.get(&i64::from(event.wd)).unwrap_or(&none);
            let mut line = format!("  {label} {}", bits.join("|"));
            if !event.name.is_empty() {
                line += &format!(" {:?}", event.name);
            }
            if cookie != 0 {
                line += &format!(" #{cookie}");
            }
            println!("{line}");
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        close(self.fd);
    }
}

fn add(fd: i64, name: &str, mask: u32) -> i64 {
    sys!(libc::SYS_inotify_add_watch, fd, c(name).as_ptr(), mask)
}

/// A new file with something in it.
fn make(name: &str) {
    std::fs::write(name, "0123456789").expect("a file");
}

fn mkdir(name: &str) {
    std::fs::create_dir(name).expect("a directory");
}

fn unlink(name: &str) {
    std::fs::remove_file(name).expect("a name less");
}

fn errors() {
    sys::scratch("inotify-errors");
    make("file");
    mkdir("dir");
    std::os::unix::fs::symlink("dir", "link").expect("a link");
    for flags in [1, libc::O_RDWR, -1, libc::IN_NONBLOCK << 1] {
        report("init1", sys!(libc::SYS_inotify_init1, flags));
    }
    let watcher = Watcher::new();
    let fd = watcher.fd;
    for mask in [0, 0x1000, ALL | 0x0010_0000, ALL | 0x0800_0000] {
        report(&format!("mask {mask:#x}"), add(fd, "file", mask));
        // The mask is looked at first.
        report("and no descriptor", add(99, "file", mask));
    }
    report("no descriptor", add(99, "file", ALL));
    let file = open("file", libc::O_RDONLY, 0);
    report("another descriptor", add(file, "file", ALL));
    let path = open("file", libc::O_PATH, 0);
    report("a handle", add(path, "file", ALL));
    report("add and create", add(fd, "file", ALL | libc::IN_MASK_ADD | libc::IN_MASK_CREATE));
    report("add and create elsewhere", add(file, "file", ALL | libc::IN_MASK_ADD | libc::IN_MASK_CREATE));
    report("missing", add(fd, "missing", ALL));
    report("empty", add(fd, "", ALL));
    report("below a file", add(fd, "file/x", ALL));
    report("no name", sys!(libc::SYS_inotify_add_watch, fd, 0, ALL));
    report("a long name", add(fd, &"x".repeat(300), ALL));
    report("only a directory", add(fd, "file", ALL | libc::IN_ONLYDIR));
    report("a link is none", add(fd, "link", ALL | libc::IN_ONLYDIR | libc::IN_DONT_FOLLOW));
    report("a link leads to one", add(fd, "link", ALL | libc::IN_ONLYDIR));
    report("which is this one", add(fd, "dir", libc::IN_ONLYDIR));
    report("bits of events only", add(fd, "file", libc::IN_UNMOUNT | libc::IN_ISDIR));
    report("made already", add(fd, "file", ALL | libc::IN_MASK_CREATE));
    report("not yet", add(fd, "link", ALL | libc::IN_MASK_CREATE | libc::IN_DONT_FOLLOW));
    report("remove nothing", watcher.remove(99));
    report("remove zero", watcher.remove(0));
    report("remove -1", watcher.remove(-1));
    report("remove from no descriptor", sys!(libc::SYS_inotify_rm_watch, 99, 1));
    report("remove from a file", sys!(libc::SYS_inotify_rm_watch, file, 1));
    report("write", sys::write(fd, b"x"));
    report("pread", sys!(libc::SYS_pread64, fd, 0, 0, 0));
    report("lseek", sys!(libc::SYS_lseek, fd, 5, libc::SEEK_SET));
    report("ftruncate", sys!(libc::SYS_ftruncate, fd, 0));
    report("ioctl", sys!(libc::SYS_ioctl, fd, libc::TCGETS, 0));
    report("flags", sys!(libc::SYS_fcntl, fd, libc::F_GETFL));
    report("closed by exec", sys!(libc::SYS_fcntl, fd, libc::F_GETFD));
    let name = std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("its name");
    println!("{}", name.display());
    sys::unscratch();
}

fn permission() {
    use std::os::unix::fs::PermissionsExt;
    sys::scratch("inotify-permission");
    for (name, mode) in [("writable", 0o622), ("readable", 0o644), ("neither", 0o611)] {
        make(name);
        std::fs::set_permissions(name, PermissionsExt::from_mode(mode)).expect("its permissions");
    }
    mkdir("closed");
    make("closed/file");
    for (name, mode) in [("closed", 0o755), ("closed/file", 0o644), ("closed", 0o711), (".", 0o711)] {
        std::fs::set_permissions(name, PermissionsExt::from_mode(mode)).expect("its permissions");
    }
    in_child("as somebody else", || {
        report("setresuid", sys!(libc::SYS_setresuid, 65534, 65534, 65534));
        let watcher = Watcher::new();
        for name in ["writable", "readable", "neither", "closed", "closed/file", "."] {
            report_ok(name, add(watcher.fd, name, ALL));
        }
        0
    });
    sys::unscratch();
}

fn descriptors() {
    sys::scratch("inotify-descriptors");
    for name in ["a", "b", "c"] {
        make(name);
    }
    let mut watcher = Watcher::new();
    report("a", watcher.add("a", ALL));
    report("b", watcher.add("b", ALL));
    report("a again", watcher.add("a", ALL));
    report("remove a", watcher.remove(1));
    report("again", watcher.remove(1));
    watcher.show("a has ended");
    report("c", watcher.add("c", ALL));
    report("a", watcher.add("a", ALL));
    report("remove b", watcher.remove(2));
    report("b", watcher.add("b", ALL));
    sys::write(open("b", libc::O_WRONLY | libc::O_CLOEXEC, 0), b"x");
    watcher.show("numbers are not used again");
    // Another instance has numbers of its own.
    let other = Watcher::new();
    report("elsewhere", add(other.fd, "b", ALL));
    close(other.fd);
    report("closed", add(other.fd, "b", ALL));
    sys::unscratch();
}

fn masks() {
    sys::scratch("inotify-masks");
    make("file");
    let mut watcher = Watcher::new();
    watcher.add("file", libc::IN_OPEN);
    let touch = || {
        let fd = open("file", libc::O_RDWR, 0);
        sys::read(fd, 1);
        sys::write(fd, b"x");
        close(fd);
    };
    touch();
    watcher.show("open");
    report("replaced", watcher.add("file", libc::IN_ACCESS | libc::IN_CLOSE_WRITE));
    touch();
    watcher.show("access, close");
    report("added", watcher.add("file", libc::IN_MODIFY | libc::IN_MASK_ADD));
    touch();
    watcher.show("and modify");
    report("nothing", watcher.add("file", libc::IN_ONLYDIR | libc::IN_IGNORED));
    report("nothing", watcher.add("file", libc::IN_ISDIR));
    touch();
    watcher.show("nothing");
    let mut other = Watcher::on(&["file"]);
    touch();
    watcher.show("still nothing");
    other.show("all");
    sys::unscratch();
}

fn oneshot() {
    sys::scratch("inotify-oneshot");
    make("file");
    let mut watcher = Watcher::new();
    report("once", watcher.add("file", ALL | libc::IN_ONESHOT));
    let touch = || drop(std::fs::read("file"));
    touch();
    watcher.show("one event");
    report("it has ended", watcher.remove(1));
    report("once more", watcher.add("file", libc::IN_CLOSE_NOWRITE | libc::IN_ONESHOT));
    touch();
    touch();
    watcher.show("the one asked for");
    report("once", watcher.add("file", libc::IN_OPEN | libc::IN_ONESHOT));
    report("for ever", watcher.add("file", libc::IN_OPEN));
    touch();
    touch();
    watcher.show("replaced");
    report("once", watcher.add("file", libc::IN_ACCESS | libc::IN_MASK_ADD | libc::IN_ONESHOT));
    touch();
    watcher.show("added");
    report("in a directory", watcher.add(".", libc::IN_CREATE | libc::IN_ONESHOT));
    make("first");
    make("second");
    watcher.show("the first");
    sys::unscratch();
}

fn links() {
    sys::scratch("inotify-links");
    make("one");
    mkdir("dir");
    std::fs::hard_link("one", "dir/two").expect("a link");
    std::os::unix::fs::symlink("one", "link").expect("a link");
    let mut watcher = Watcher::new();
    report("one", watcher.add("one", ALL));
    report("two", watcher.add("dir/two", ALL));
    report("through a link", watcher.add("link", ALL));
    report("the link", watcher.add("link", ALL | libc::IN_DONT_FOLLOW));
    report("the directory", watcher.add("dir", ALL));
    drop(std::fs::read("one"));
    watcher.show("by one name");
    drop(std::fs::read("dir/two"));
    watcher.show("by the other");
    drop(std::fs::read("link"));
    drop(std::fs::read_link("link"));
    watcher.show("through the link");
    std::fs::hard_link("dir/two", "dir/three").expect("a link");
    watcher.show("a third name");
    unlink("link");
    watcher.show("a link less");
    sys::unscratch();
}

fn setting(name: &str) -> usize {
    let text = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).expect("a setting");
    text.trim().parse().expect("a number")
}

fn limits() {
    println!("watches {}", setting("max_user_watches") >= 8192);
    let most = setting("max_user_instances");
    // Of a user who has none.
    in_child("instances", || {
        let own = 100_000 + sys!(libc::SYS_getpid);
        report("setresuid", sys!(libc::SYS_setresuid, own, own, own));
        let many = [1_u64 << 20, 1 << 20];
        sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, many.as_ptr(), 0);
        let all: Vec<i64> = (0..=most).map(|_| sys!(libc::SYS_inotify_init1, 0)).collect();
        let given = all.iter().filter(|fd| **fd >= 0).count();
        let last = all.last().copied().unwrap_or_default();
        println!("as many as allowed {}, then {}", given == most || last == -24, sys::show(last));
        close(all[0]);
        report_ok("one less, one more", sys!(libc::SYS_inotify_init1, 0));
        0
    });
}

fn fdinfo() {
    use std::os::unix::fs::MetadataExt;
    sys::scratch("inotify-fdinfo");
    make("file");
    mkdir("dir");
    let mut watcher = Watcher::new();
    watcher.add("file", libc::IN_MODIFY | libc::IN_ATTRIB);
    watcher.add("dir", ALL | libc::IN_ONLYDIR);
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", watcher.fd)).expect("fdinfo");
    for line in text.lines().filter(|line| line.starts_with("inotify ")) {
        let field = |name: &str| {
            let value = line.split(' ').find_map(|word| word.strip_prefix(name)).unwrap_or("none");
            u64::from_str_radix(value, 16).unwrap_or(u64::MAX)
        };
        let wd = field("wd:");
        let meta = std::fs::metadata(&watcher.labels[&(wd as i64)]).expect("its attributes");
        let dev = u64::from(libc::major(meta.dev())) << 20 | u64::from(libc::minor(meta.dev()));
        println!(
            "wd {wd} ino {} sdev {} mask {:#x}",
            field("ino:") == meta.ino(),
            field("sdev:") == dev,
            field("mask:")
        );
    }
    sys::unscratch();
}

fn shared() {
    sys::scratch("inotify-shared");
    make("file");
    let mut watcher = Watcher::on(&["file"]);
    let second = sys!(libc::SYS_dup, watcher.fd);
    let pid = fork(|| {
        report("the child's", add(second, ".", libc::IN_CREATE));
        make("made");
        0
    });
    println!("{}", wait(pid));
    watcher.labels.insert(2, String::from("."));
    watcher.show("of both");
    let first = std::mem::replace(&mut watcher.fd, second);
    close(first);
    make("again");
    watcher.show("one descriptor less");
    // Closed with watches: nothing is left of them.
    drop(watcher);
    make("file");
    let mut watcher = Watcher::on(&["file"]);
    watcher.show("a new one");
    sys::unscratch();
}
