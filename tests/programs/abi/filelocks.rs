//! Locks on files: who waits for whom, what one can lock, and who is told of it.

use crate::Case;
use crate::sys::{self, close, fork, open, pipe, read, report, wait, write};
use std::os::unix::fs::MetadataExt;

pub(crate) const CASES: &[Case] = &[
    ("filelocks_circle", circle),
    ("filelocks_long_circle", long_circle),
    ("filelocks_no_circle", no_circle),
    ("filelocks_ranges", ranges),
    ("filelocks_merge", merge),
    ("filelocks_arithmetic", arithmetic),
    ("filelocks_access", access),
    ("filelocks_everything", everything),
    ("filelocks_close", closing),
    ("filelocks_flock", flock_cases),
    ("filelocks_listed", listed),
    ("filelocks_fdinfo", fdinfo),
    ("filelocks_interrupted", interrupted),
    ("filelocks_closed_meanwhile", closed_meanwhile),
];

const RD: i32 = libc::F_RDLCK;
const WR: i32 = libc::F_WRLCK;
const UN: i32 = libc::F_UNLCK;

#[repr(C)]
#[derive(Clone, Copy)]
struct Lock {
    kind: i16,
    whence: i16,
    start: i64,
    len: i64,
    pid: i32,
}

fn lock_at(kind: i32, whence: i32, start: i64, len: i64) -> Lock {
    Lock { kind: kind as i16, whence: whence as i16, start, len, pid: 0 }
}

fn fcntl(fd: i64, command: i32, kind: i32, start: i64, len: i64) -> i64 {
    let lock = lock_at(kind, libc::SEEK_SET, start, len);
    sys!(libc::SYS_fcntl, fd, command, &raw const lock)
}

fn set(fd: i64, kind: i32, start: i64, len: i64) -> i64 {
    fcntl(fd, libc::F_SETLK, kind, start, len)
}

fn set_waiting(fd: i64, kind: i32, start: i64, len: i64) -> i64 {
    fcntl(fd, libc::F_SETLKW, kind, start, len)
}

fn flock(fd: i64, what: i32) -> i64 {
    sys!(libc::SYS_flock, fd, what)
}

/// What keeps a lock from being taken, in words.
fn in_the_way(fd: i64, command: i32, kind: i32, start: i64, len: i64) -> String {
    let mut lock = lock_at(kind, libc::SEEK_SET, start, len);
    let result = sys!(libc::SYS_fcntl, fd, command, &raw mut lock);
    let who = match lock.pid {
        -1 => "a description",
        0 => "nobody",
        pid if i64::from(pid) == sys!(libc::SYS_getppid) => "the parent",
        _ => "somebody",
    };
    let sort = ["read", "write", "none"].get(lock.kind as usize).copied().unwrap_or("?");
    format!("{} {sort} {}+{} of {who}", sys::show(result), lock.start, lock.len)
}

fn file() -> i64 {
    open("locked", libc::O_RDWR | libc::O_CREAT, 0o644)
}

/// `count` processes hold a byte each and wait for the next one's, one after the other; what the last is told.
fn around(count: i64) {
    sys::scratch("filelocks");
    let fd = file();
    let (ready, set_up) = pipe(0);
    let (start, go) = pipe(0);
    let hold = |number: i64| {
        let child = fork(|| {
            report("own", set(fd, WR, number, 1));
            write(set_up, b"x");
            read(start, 1);
            i32::from(set_waiting(fd, WR, number + 1, 1) != 0)
        });
        read(ready, 1);
        child
    };
    let children: Vec<i64> = (0..count - 1).map(hold).collect();
    report("own", set(fd, WR, count - 1, 1));
    for child in &children {
        // One after the other: who waits for whom is the same every time.
        sys::until_asleep(*child, *child);
    }
    write(go, &vec![0; children.len()]);
    children.iter().for_each(|child| until_waiting(*child));
    // Whoever closes the circle is told, and all others get theirs.
    if count > 12 {
        report("not waiting", set(fd, WR, 0, 1));
    } else {
        report("the last", set_waiting(fd, WR, 0, 1));
    }
    report("given back", set(fd, UN, 0, 0));
    for child in children.iter().rev() {
        println!("{}", wait(*child));
    }
    sys::unscratch();
}

/// Waits until a process waits for a lock.
fn until_waiting(pid: i64) {
    let waits = format!(" {pid} ");
    let listed = || std::fs::read_to_string("/proc/locks").unwrap_or_default();
    while !listed().lines().any(|line| line.contains("->") && line.contains(&waits)) {
        std::thread::yield_now();
    }
}

fn circle() {
    around(2);
    around(3);
}

fn long_circle() {
    around(9);
    around(14);
}

/// What looks like a circle and is none: locks of descriptions, which nobody looks for circles in.
fn no_circle() {
    sys::scratch("filelocks");
    let (first, second) = (file(), file());
    report("first", fcntl(first, libc::F_OFD_SETLK, WR, 0, 1));
    report("second", fcntl(second, libc::F_OFD_SETLK, WR, 1, 1));
    let child = fork(|| {
        report("waited", fcntl(first, libc::F_OFD_SETLKW, WR, 1, 1));
        0
    });
    sys::until_asleep(child, child);
    report("now", fcntl(second, libc::F_OFD_SETLK, WR, 0, 1));
    let back = fcntl(second, libc::F_OFD_SETLK, UN, 0, 0);
    println!("{} {}", wait(child), sys::show(back));
    // A process and a description do not wait for each other either, as far as anybody knows.
    report("own", set(second, WR, 10, 1));
    report("a description's", fcntl(first, libc::F_OFD_SETLK, WR, 10, 1));
    sys::unscratch();
}

fn ranges() {
    sys::scratch("filelocks");
    let fd = file();
    report("set", set(fd, WR, 10, 20));
    sys::in_child("child", || {
        println!("{}", in_the_way(fd, libc::F_GETLK, RD, 0, 0));
        report("before", set(fd, WR, 0, 10));
        report("the last byte", set(fd, WR, 29, 1));
        report("behind", set(fd, WR, 30, 0));
        println!("own {}", in_the_way(fd, libc::F_GETLK, WR, 30, 0));
        report("backwards", set(fd, RD, 10, -10));
        report("backwards into it", set(fd, RD, 11, -1));
        report("backwards too far", set(fd, RD, 5, -6));
        0
    });
    report("a hole", set(fd, UN, 15, 5));
    sys::in_child("child", || {
        println!("{}", in_the_way(fd, libc::F_GETLK, WR, 0, 0));
        println!("{}", in_the_way(fd, libc::F_GETLK, WR, 15, 5));
        println!("{}", in_the_way(fd, libc::F_GETLK, WR, 15, 6));
        0
    });
    sys::unscratch();
}

/// Locks that touch are one.
fn merge() {
    sys::scratch("filelocks");
    let fd = file();
    let seen = |what: &str| {
        sys::in_child(what, || {
            println!("{}", in_the_way(fd, libc::F_GETLK, WR, 0, 0));
            println!("{}", in_the_way(fd, libc::F_GETLK, WR, 25, 0));
            0
        });
    };
    for (start, len) in [(0, 10), (20, 10), (10, 10)] {
        report("read", set(fd, RD, start, len));
    }
    seen("one");
    report("write", set(fd, WR, 5, 15));
    seen("three");
    report("write", set(fd, WR, 0, 30));
    seen("one again");
    report("write", set(fd, WR, 30, 0));
    seen("to the end");
    report("read", set(fd, RD, 0, 0));
    seen("all read");
    sys::unscratch();
}

fn arithmetic() {
    sys::scratch("filelocks");
    let fd = file();
    write(fd, b"0123456789");
    let max = i64::MAX;
    for (whence, start, len) in [
        (libc::SEEK_SET, -1, 0),
        (libc::SEEK_SET, max, 0),
        (libc::SEEK_SET, max, 1),
        (libc::SEEK_SET, max, 2),
        (libc::SEEK_SET, 1, max),
        (libc::SEEK_SET, 2, max),
        (libc::SEEK_CUR, max, 1),
        (libc::SEEK_CUR, -10, 5),
        (libc::SEEK_CUR, -11, 5),
        (libc::SEEK_END, max - 10, 1),
        (libc::SEEK_END, max - 9, 1),
        (libc::SEEK_END, -10, 0),
        (libc::SEEK_SET, 0, i64::MIN),
        (libc::SEEK_SET, 5, -5),
        (libc::SEEK_SET, 5, -6),
        (3, 0, 0),
        (-1, 0, 0),
    ] {
        let lock = lock_at(WR, whence, start, len);
        let result = sys!(libc::SYS_fcntl, fd, libc::F_SETLK, &raw const lock);
        println!("{whence} {start} {len}: {}", sys::show(result));
        sys::in_child("seen", || {
            println!("{}", in_the_way(fd, libc::F_GETLK, WR, 0, 0));
            0
        });
        set(fd, UN, 0, 0);
    }
    report("kind 3", set(fd, 3, 0, 0));
    report("kind -1", set(fd, -1, 0, 0));
    let both_wrong = lock_at(9, 9, 0, 0);
    report("all wrong", sys!(libc::SYS_fcntl, fd, libc::F_SETLK, &raw const both_wrong));
    report("nowhere", sys!(libc::SYS_fcntl, fd, libc::F_SETLK, 0));
    println!("{}", in_the_way(fd, libc::F_GETLK, UN, 0, 0));
    println!("{}", in_the_way(fd, libc::F_GETLK, 7, 0, 0));
    sys::unscratch();
}

fn access() {
    sys::scratch("filelocks");
    close(file());
    for (name, flags) in [("read", libc::O_RDONLY), ("write", libc::O_WRONLY), ("neither", libc::O_ACCMODE)] {
        let fd = open("locked", flags, 0);
        report(&format!("{name}: read lock"), set(fd, RD, 0, 0));
        report(&format!("{name}: write lock"), set(fd, WR, 0, 0));
        report(&format!("{name}: unlock"), set(fd, UN, 0, 0));
        println!("{name}: {}", in_the_way(fd, libc::F_GETLK, WR, 0, 0));
        report(&format!("{name}: OFD read lock"), fcntl(fd, libc::F_OFD_SETLK, RD, 0, 0));
        report(&format!("{name}: shared"), flock(fd, libc::LOCK_SH));
        report(&format!("{name}: exclusive"), flock(fd, libc::LOCK_EX));
        report(&format!("{name}: given back"), flock(fd, libc::LOCK_UN));
        close(fd);
    }
    let fd = file();
    let mut lock = lock_at(WR, libc::SEEK_SET, 0, 0);
    lock.pid = 5;
    report("OFD with a pid", sys!(libc::SYS_fcntl, fd, libc::F_OFD_SETLK, &raw const lock));
    report("OFD test with a pid", sys!(libc::SYS_fcntl, fd, libc::F_OFD_GETLK, &raw const lock));
    let path = open("locked", libc::O_PATH, 0);
    report("handle", set(path, RD, 0, 0));
    report("handle, flock", flock(path, libc::LOCK_SH));
    sys::unscratch();
}

/// Every open file can be locked.
fn everything() {
    sys::scratch("filelocks");
    let (reader, writer) = pipe(0);
    report("write end", set(writer, WR, 0, 0));
    report("write end for reading", set(writer, RD, 0, 0));
    sys::in_child("child", || {
        println!("the other end: {}", in_the_way(reader, libc::F_GETLK, RD, 0, 0));
        report("read end", set(reader, RD, 0, 0));
        0
    });
    report("write end, flock", flock(writer, libc::LOCK_EX));
    report("read end, flock", flock(reader, libc::LOCK_SH | libc::LOCK_NB));
    close(writer);
    report("read end, then", flock(reader, libc::LOCK_SH | libc::LOCK_NB));
    let mut fds = [-1_i32; 2];
    sys!(libc::SYS_socketpair, libc::AF_UNIX, libc::SOCK_STREAM, 0, fds.as_mut_ptr());
    let (left, right) = (i64::from(fds[0]), i64::from(fds[1]));
    report("one socket", flock(left, libc::LOCK_EX | libc::LOCK_NB));
    report("the other", flock(right, libc::LOCK_EX | libc::LOCK_NB));
    report("socket, range", set(left, WR, 5, 5));
    // These share one inode on Linux, and so one lock.
    let event = sys!(libc::SYS_eventfd2, 0, 0);
    let epoll = sys!(libc::SYS_epoll_create1, 0);
    report("eventfd", flock(event, libc::LOCK_EX | libc::LOCK_NB));
    report("epoll", flock(epoll, libc::LOCK_EX | libc::LOCK_NB));
    report("eventfd, range", set(event, WR, 0, 0));
    sys::in_child("child", || {
        println!("{}", in_the_way(epoll, libc::F_GETLK, WR, 0, 0));
        0
    });
    close(sys!(libc::SYS_eventfd2, 0, 0));
    sys::in_child("after a close of another", || {
        println!("{}", in_the_way(epoll, libc::F_GETLK, WR, 0, 0));
        0
    });
    close(event);
    report("epoll, then", flock(epoll, libc::LOCK_EX | libc::LOCK_NB));
    let memory = sys!(libc::SYS_memfd_create, c"locked".as_ptr(), 0);
    report("memfd", flock(memory, libc::LOCK_EX | libc::LOCK_NB));
    report("directory", flock(open(".", libc::O_RDONLY, 0), libc::LOCK_EX | libc::LOCK_NB));
    report("directory, range", set(open(".", libc::O_RDONLY, 0), RD, 0, 0));
    report("/dev/null", flock(open("/dev/null", libc::O_RDWR, 0), libc::LOCK_SH | libc::LOCK_NB));
    report("/proc", flock(open("/proc/self/status", libc::O_RDONLY, 0), libc::LOCK_SH | libc::LOCK_NB));
    sys::unscratch();
}

fn closing() {
    sys::scratch("filelocks");
    let fd = file();
    report("set", set(fd, WR, 0, 0));
    let probe = |what: &str| {
        sys::in_child(what, || {
            println!("{}", in_the_way(fd, libc::F_GETLK, WR, 0, 0));
            0
        });
    };
    probe("held");
    close(open("locked", libc::O_RDONLY, 0));
    probe("after a close of another description");
    set(fd, WR, 0, 0);
    close(sys!(libc::SYS_dup, fd));
    probe("after a close of a duplicate");
    set(fd, WR, 0, 0);
    close(open("locked", libc::O_PATH, 0));
    probe("after a close of a handle");
    fcntl(fd, libc::F_OFD_SETLK, RD, 0, 0);
    close(sys!(libc::SYS_dup, fd));
    probe("a description's");
    sys::unscratch();
}

fn flock_cases() {
    sys::scratch("filelocks");
    let (one, two) = (file(), file());
    let no_wait = libc::LOCK_NB;
    report("shared", flock(one, libc::LOCK_SH));
    report("shared, too", flock(two, libc::LOCK_SH));
    report("upgraded", flock(one, libc::LOCK_EX | no_wait));
    // The attempt has cost the old one.
    report("alone then", flock(two, libc::LOCK_EX | no_wait));
    report("both", flock(one, libc::LOCK_SH | libc::LOCK_EX));
    report("neither", flock(one, 0));
    report("do not wait for nothing", flock(one, no_wait));
    report("what it was once", flock(one, 32 | libc::LOCK_EX));
    report("of nothing", flock(-1, libc::LOCK_SH));
    report("nothing of nothing", flock(-1, 77));
    let child = fork(|| {
        report("waited", flock(one, libc::LOCK_SH));
        0
    });
    sys::until_asleep(child, child);
    let downgraded = flock(two, libc::LOCK_SH);
    println!("{} {}", wait(child), sys::show(downgraded));
    sys::unscratch();
}

/// The lines of /proc/locks about a file, as far as they are the same everywhere.
fn lines_about(path: &str) -> Vec<String> {
    let inode = std::fs::metadata(path).map_or(0, |meta| meta.ino());
    let all = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let about = |line: &&str| line.contains(&format!(":{inode} "));
    let mut lines: Vec<String> = all.lines().filter(about).map(anonymized).collect();
    lines.sort();
    lines
}

fn anonymized(line: &str) -> String {
    let own = sys!(libc::SYS_getpid).to_string();
    let words = line.split(' ').skip(1).map(|word| match word {
        word if word == own => "ME",
        word if word.matches(':').count() == 2 => "PLACE",
        word if word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_digit()) => "OTHER",
        word => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

fn listed() {
    sys::scratch("filelocks");
    let fd = file();
    let other = file();
    set(fd, WR, 3, 5);
    set(fd, RD, 1000, 0);
    flock(fd, libc::LOCK_EX);
    fcntl(other, libc::F_OFD_SETLK, RD, 9, 1);
    let waiting = [
        fork(|| {
            set_waiting(fd, WR, 4, 1);
            0
        }),
        fork(|| {
            flock(other, libc::LOCK_SH);
            flock(other, libc::LOCK_UN);
            0
        }),
    ];
    waiting.iter().for_each(|child| sys::until_asleep(*child, *child));
    lines_about("locked").iter().for_each(|line| println!("{line}"));
    set(fd, UN, 0, 0);
    flock(fd, libc::LOCK_UN);
    waiting.iter().for_each(|child| println!("{}", wait(*child)));
    // The child's went with it.
    lines_about("locked").iter().for_each(|line| println!("{line}"));
    close(fd);
    close(other);
    println!("{:?}", lines_about("locked"));
    sys::unscratch();
}

fn fdinfo() {
    sys::scratch("filelocks");
    let (one, two) = (file(), file());
    set(one, WR, 0, 10);
    flock(one, libc::LOCK_SH);
    fcntl(two, libc::F_OFD_SETLK, RD, 20, 0);
    for fd in [one, two] {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        for line in info.lines().filter(|line| line.starts_with("lock:")) {
            println!("{}", anonymized(line));
        }
    }
    let event = sys!(libc::SYS_eventfd2, 0, 0);
    flock(event, libc::LOCK_EX);
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{event}")).unwrap_or_default();
    info.lines().filter(|line| line.starts_with("lock:")).for_each(|line| println!("{}", anonymized(line)));
    sys::unscratch();
}

/// A call on a descriptor.
type Call = fn(i64) -> i64;

fn interrupted() {
    extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    sys::scratch("filelocks");
    let (one, two) = (file(), file());
    fcntl(one, libc::F_OFD_SETLK, WR, 0, 0);
    flock(one, libc::LOCK_EX);
    for (name, flags) in [("once", 0), ("again", libc::SA_RESTART)] {
        let calls: [(&str, Call); 2] = [
            ("fcntl", |fd| fcntl(fd, libc::F_OFD_SETLKW, WR, 0, 0)),
            ("flock", |fd| flock(fd, libc::LOCK_SH)),
        ];
        for (call, wait_for) in calls {
            let child = fork(|| {
                sys::handle(libc::SIGUSR1, nothing, flags);
                report(&format!("{name} {call}"), wait_for(two));
                0
            });
            sys::until_asleep(child, child);
            sys!(libc::SYS_kill, child, libc::SIGUSR1);
            if flags != 0 {
                sys::until_asleep(child, child);
                sys!(libc::SYS_kill, child, libc::SIGKILL);
            }
            println!("{}", wait(child));
        }
    }
    // Nobody waits any more.
    println!("{:?}", lines_about("locked"));
    sys::unscratch();
}

/// A process's lock comes when the descriptor is closed that it was asked for with.
fn closed_meanwhile() {
    sys::scratch("filelocks");
    let ((ready, set_up), (start, go)) = (pipe(0), pipe(0));
    let child = fork(|| {
        let fd = file();
        report("the child's", set(fd, WR, 0, 1));
        write(set_up, b"x");
        read(start, 1);
        set(fd, UN, 0, 1);
        read(start, 1);
        println!("{}", in_the_way(fd, libc::F_GETLK, WR, 0, 1));
        0
    });
    read(ready, 1);
    let fd = file();
    let waits = std::thread::spawn(move || set_waiting(fd, WR, 0, 1));
    until_waiting(sys!(libc::SYS_getpid));
    close(fd);
    write(go, b"x");
    let granted = waits.join().unwrap_or_default();
    write(go, b"x");
    println!("{} {}", wait(child), sys::show(granted));
    sys::unscratch();
}
