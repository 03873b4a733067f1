//! Mounts and mount namespaces. Each case works in a namespace of its own, on a file system of its own.

mod limits;
mod trees;

use crate::Case;
use crate::sys::{self, c, in_child, report, report_ok};
use std::fs;

pub(crate) const CASES: &[Case] = &[
    ("mounts_new", new),
    ("mounts_flags", flags),
    ("mounts_limits", limits::limits),
    ("mounts_bind", bind),
    ("mounts_move", relocate),
    ("mounts_unmount", unmount),
    ("mounts_propagation", propagation),
    ("mounts_slave", slave),
    ("mounts_across_namespaces", across),
    ("mounts_pivot", pivot),
    ("mounts_chroot", chroot),
    ("mounts_moved_out", moved_out),
    ("mounts_errors", errors),
    ("mounts_privilege", privilege),
    ("mounts_names_busy", busy_names),
    ("mounts_in_proc", in_proc),
    ("mounts_trees", trees::detached),
    ("mounts_steps", trees::steps),
    ("mounts_picked", trees::picked),
    ("mounts_attributes", trees::attributes),
    ("mounts_numbers", trees::numbers),
];

const BIND: u64 = libc::MS_BIND;
const REC: u64 = libc::MS_REC;

pub(crate) fn mount(source: &str, place: &str, fstype: &str, flags: u64, data: &str) -> i64 {
    let (source, place, fstype, data) = (c(source), c(place), c(fstype), c(data));
    sys!(libc::SYS_mount, source.as_ptr(), place.as_ptr(), fstype.as_ptr(), flags, data.as_ptr())
}

pub(crate) fn umount(place: &str, flags: i32) -> i64 {
    sys!(libc::SYS_umount2, c(place).as_ptr(), flags)
}

fn touch(path: &str) -> i64 {
    sys::close(sys::open(path, libc::O_CREAT | libc::O_WRONLY, 0o644))
}

pub(crate) fn mkdir(path: &str) -> i64 {
    sys!(libc::SYS_mkdirat, libc::AT_FDCWD, c(path).as_ptr(), 0o755)
}

/// Runs a body in a directory `base` of its own tmpfs, in a namespace where nothing is shared.
pub(crate) fn apart(body: impl FnOnce()) {
    sys::scratch("mounts");
    in_child("apart", || {
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWNS));
        report("private", mount("", "/", "", REC | libc::MS_PRIVATE, ""));
        report("tmpfs", mount("base", ".", "tmpfs", 0, "mode=755"));
        let here = std::env::current_dir().unwrap_or_default();
        let _entered = std::env::set_current_dir(&here);
        body();
        0
    });
    sys::unscratch();
}

/// Prints what is mounted below the working directory, and what this says of it.
fn show(what: &str) {
    let base = std::env::current_dir().unwrap_or_default().to_string_lossy().into_owned();
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    println!("{what}");
    // Kernels list them in different orders.
    let mut below: Vec<(&str, Vec<&str>)> = text
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            Some((words.get(4)?.strip_prefix(&base)?, words))
        })
        .collect();
    below.sort_by_key(|(place, _)| *place);
    let mut groups: Vec<&str> = Vec::new();
    for (place, words) in below {
        let known = ["ro", "rw", "nosuid", "nodev", "noexec", "noatime"];
        let options: Vec<&str> = words[5].split(',').filter(|option| known.contains(option)).collect();
        let mut fields = String::new();
        for field in words.iter().skip(6).take_while(|word| **word != "-") {
            let (kind, group) = field.split_once(':').unwrap_or((field, ""));
            let index = groups.iter().position(|known| *known == group).unwrap_or_else(|| {
                groups.push(group);
                groups.len() - 1
            });
            match group {
                "" => fields.push_str(&format!(" {kind}")),
                _ => fields.push_str(&format!(" {kind}:{index}")),
            }
        }
        let fstype = words.iter().skip_while(|word| **word != "-").nth(1).unwrap_or(&"");
        println!("  {place:?} {} {}{fields} {fstype}", words[3], options.join(","));
    }
}

fn names(path: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .map(|entries| {
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}

fn new() {
    apart(|| {
        for name in ["a", "b", "p", "r"] {
            mkdir(name);
        }
        touch("a/below");
        report("tmpfs", mount("source", "a", "tmpfs", 0, "size=1m,mode=700"));
        println!("{:?}", names("a"));
        touch("a/inside");
        report("on top", mount("source", "a", "tmpfs", 0, ""));
        println!("{:?}", names("a"));
        report("proc", mount("proc", "p", "proc", 0, ""));
        println!("{}", fs::read_link("p/self").is_ok_and(|own| own.to_string_lossy().parse::<i64>().is_ok()));
        report("ramfs", mount("x", "r", "ramfs", 0, ""));
        report("unknown", mount("x", "b", "no-such-type", 0, ""));
        report("bad option", mount("x", "b", "tmpfs", 0, "nonsense=1"));
        report("on a file", mount("x", "a/none", "tmpfs", 0, ""));
        show("mounted");
        let mount_line = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        println!(
            "{}",
            mount_line
                .lines()
                .filter(|line| line.starts_with("source ") && line.contains("size=1024k"))
                .count()
        );
        report("away", umount("a", 0));
        println!("{:?}", names("a"));
        report("away", umount("a", 0));
        println!("{:?}", names("a"));
        report("none left", umount("a", 0));
    });
}

fn flags() {
    apart(|| {
        mkdir("m");
        let all = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_RDONLY;
        report("mount", mount("x", "m", "tmpfs", all, ""));
        show("all flags");
        report("create", sys::open("m/f", libc::O_CREAT, 0o600).min(0));
        report("remount", mount("", "m", "", libc::MS_REMOUNT | libc::MS_NODEV | libc::MS_NOEXEC, ""));
        show("remounted");
        report_ok("create", sys::open("m/f", libc::O_CREAT, 0o755));
        report_ok(
            "device",
            sys!(libc::SYS_mknodat, -100, c("m/null").as_ptr(), libc::S_IFCHR | 0o666, 0x103),
        );
        report("open it", sys::open("m/null", 0, 0).min(0));
        let argv = [0_i64];
        report("execute", sys!(libc::SYS_execve, c("m/f").as_ptr(), argv.as_ptr(), argv.as_ptr()));
        report("bind", mount("m", "m", "", BIND, ""));
        report("bind ro", mount("", "m", "", BIND | libc::MS_REMOUNT | libc::MS_RDONLY, ""));
        show("one of two");
        report("create", sys::open("m/g", libc::O_CREAT, 0o600).min(0));
        let mut stat = [0_u64; 15];
        sys!(libc::SYS_statfs, c("m").as_ptr(), stat.as_mut_ptr());
        println!("read-only {} devices {}", stat[10] & 1, stat[10] >> 2 & 1);
        report("away", umount("m", 0));
        report_ok("create", sys::open("m/g", libc::O_CREAT, 0o600));
        report("not a mount", mount("", "m/sub", "", libc::MS_REMOUNT, ""));
        mkdir("m/sub");
        report("not a mount", mount("", "m/sub", "", libc::MS_REMOUNT, ""));
    });
}

fn bind() {
    apart(|| {
        for name in ["a", "a/sub", "b", "c", "d"] {
            mkdir(name);
        }
        touch("a/file");
        touch("target");
        report("below", mount("x", "a/sub", "tmpfs", 0, ""));
        touch("a/sub/inside");
        report("bind", mount("a", "b", "", BIND, ""));
        println!("{:?} {:?}", names("b"), names("b/sub"));
        report("rbind", mount("a", "c", "", BIND | REC, ""));
        println!("{:?} {:?}", names("c"), names("c/sub"));
        report("a file", mount("a/file", "target", "", BIND, ""));
        sys::write(sys::open("target", libc::O_WRONLY, 0), b"text");
        println!("{:?}", fs::read_to_string("a/file").ok());
        show("bound");
        report("a directory on a file", mount("a", "target", "", BIND, ""));
        report("a file on a directory", mount("a/file", "d", "", BIND, ""));
        report("nothing", mount("none", "d", "", BIND, ""));
        report("no name", mount("", "d", "", BIND, ""));
        report("onto itself", mount("d", "d", "", BIND, ""));
        report("unbindable", mount("", "d", "", libc::MS_UNBINDABLE, ""));
        report("cannot", mount("d", "b", "", BIND, ""));
        mkdir("all");
        report("without it", mount(".", "all", "", BIND | REC, ""));
        show("recursive");
        let up = fs::canonicalize("c/sub/..").map(|path| path.ends_with("c"));
        println!("{up:?}");
    });
}

fn relocate() {
    apart(|| {
        for name in ["a", "b", "c"] {
            mkdir(name);
        }
        mount("x", "a", "tmpfs", 0, "");
        mkdir("a/sub");
        mount("y", "a/sub", "tmpfs", 0, "");
        report("move", mount("a", "b", "", libc::MS_MOVE, ""));
        show("moved");
        report("below itself", mount("b", "b/sub", "", libc::MS_MOVE, ""));
        report("no mount", mount("c", "a", "", libc::MS_MOVE, ""));
        touch("file");
        report("onto a file", mount("b", "file", "", libc::MS_MOVE, ""));
        report("share", mount("", "b", "", libc::MS_SHARED, ""));
        report("from a shared one", mount("b/sub", "a", "", libc::MS_MOVE, ""));
        report("the shared one", mount("b", "a", "", libc::MS_MOVE, ""));
        show("moved again");
    });
}

fn unmount() {
    apart(|| {
        mkdir("a");
        mount("x", "a", "tmpfs", 0, "");
        mkdir("a/sub");
        report("no mount", umount("a/sub", 0));
        report("nothing", umount("b", 0));
        report("bad flags", umount("a", 64));
        let fd = sys::open("a/file", libc::O_CREAT | libc::O_RDWR, 0o600);
        report("in use", umount("a", 0));
        report("force", umount("a", libc::MNT_FORCE));
        report("expire in use", umount("a", libc::MNT_EXPIRE));
        mount("y", "a/sub", "tmpfs", 0, "");
        report("covered", umount("a", 0));
        report("lazily", umount("a", libc::MNT_DETACH));
        show("gone");
        report("still there", sys::write(fd, b"x"));
        report("close", sys::close(fd));
        mount("x", "a", "tmpfs", 0, "");
        report("expire", umount("a", libc::MNT_EXPIRE));
        report("expire", umount("a", libc::MNT_EXPIRE));
        report("expire and force", umount("a", libc::MNT_EXPIRE | libc::MNT_FORCE));
        mount("x", "a", "tmpfs", 0, "");
        report("a link", sys!(libc::SYS_symlinkat, c("a").as_ptr(), libc::AT_FDCWD, c("l").as_ptr()));
        report("not followed", umount("l", libc::UMOUNT_NOFOLLOW));
        report("followed", umount("l", 0));
        mount("x", "a", "tmpfs", 0, "");
        mkdir("a/work");
        report("enter", sys!(libc::SYS_chdir, c("a/work").as_ptr()));
        report("busy", umount("..", 0));
        report("lazily", umount("..", libc::MNT_DETACH));
        let mut name = [0_u8; 64];
        sys!(libc::SYS_getcwd, name.as_mut_ptr(), 64);
        println!("{}", String::from_utf8_lossy(&name).trim_end_matches('\0'));
        report_ok("create", sys::open("file", libc::O_CREAT, 0o600));
        report("up", sys!(libc::SYS_chdir, c("../../..").as_ptr()));
        println!("{:?}", names("."));
    });
}

fn propagation() {
    apart(|| {
        for name in ["a", "b", "c"] {
            mkdir(name);
        }
        mount("x", "a", "tmpfs", 0, "");
        report("share", mount("", "a", "", libc::MS_SHARED, ""));
        report("bind", mount("a", "b", "", BIND, ""));
        mkdir("a/sub");
        report("in one", mount("y", "a/sub", "tmpfs", 0, ""));
        touch("b/sub/file");
        println!("{:?}", names("a/sub"));
        show("in both");
        report("away in the other", umount("b/sub", 0));
        show("away");
        report("private", mount("", "b", "", libc::MS_PRIVATE, ""));
        mount("y", "a/sub", "tmpfs", 0, "");
        show("in one");
        report("two kinds", mount("", "a", "", libc::MS_PRIVATE | libc::MS_SHARED, ""));
        report("no mount", mount("", "c", "", libc::MS_SHARED, ""));
    });
}

fn slave() {
    apart(|| {
        for name in ["a", "b", "c", "d"] {
            mkdir(name);
        }
        mount("x", "a", "tmpfs", 0, "");
        mkdir("a/one");
        mkdir("a/two");
        mount("", "a", "", libc::MS_SHARED, "");
        mount("a", "b", "", BIND, "");
        report("slave", mount("", "b", "", libc::MS_SLAVE, ""));
        report("shared slave", mount("a", "c", "", BIND, ""));
        mount("", "c", "", libc::MS_SLAVE, "");
        mount("", "c", "", libc::MS_SHARED, "");
        report("its peer", mount("c", "d", "", BIND, ""));
        show("before");
        report("from above", mount("y", "a/one", "tmpfs", 0, ""));
        report("from below", mount("z", "c/two", "tmpfs", 0, ""));
        show("after");
        report("away", umount("a/one", 0));
        show("away");
        report("the master goes", mount("", "a", "", libc::MS_PRIVATE, ""));
        show("without");
        report("a slave of nobody", mount("", "a", "", libc::MS_SLAVE, ""));
        show("the same");
    });
}

fn across() {
    apart(|| {
        for name in ["a", "a/one", "a/two", "b"] {
            mkdir(name);
        }
        mount("x", "a", "tmpfs", 0, "");
        mount("y", "b", "tmpfs", 0, "");
        mkdir("a/one");
        mkdir("b/one");
        mount("", "a", "", libc::MS_SHARED, "");
        let (go, went) = (sys::pipe(0), sys::pipe(0));
        let pid = sys::fork(|| {
            report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWNS));
            report("shared", mount("z", "a/one", "tmpfs", 0, ""));
            report("private", mount("z", "b/one", "tmpfs", 0, ""));
            sys::flush();
            sys::write(went.1, b"x");
            sys::read(go.0, 1);
            show("inside");
            0
        });
        sys::read(went.0, 1);
        show("outside");
        report("away", umount("a/one", 0));
        sys::write(go.1, b"x");
        println!("{}", sys::wait(pid));
    });
}

fn pivot() {
    apart(|| {
        mkdir("root");
        mount("x", "root", "tmpfs", 0, "");
        mkdir("root/old");
        mkdir("root/bin");
        let pivot = |new: &str, old: &str| sys!(libc::SYS_pivot_root, c(new).as_ptr(), c(old).as_ptr());
        report("no mount", pivot("root/bin", "root/old"));
        report("not below", pivot("root", "."));
        report("nothing", pivot("root", "root/none"));
        report("the root itself", pivot("/", "/"));
        report("pivot", pivot("root", "root/old"));
        println!("{:?}", names("/"));
        println!("{}", names("/old").len() > 3);
        report("enter", sys!(libc::SYS_chdir, c("/").as_ptr()));
        report("the old one away", umount("/old", libc::MNT_DETACH));
        println!("{:?} {:?}", names("/old"), names("/"));
        mkdir("next");
        mount("y", "next", "tmpfs", 0, "");
        mkdir("next/new");
        report("enter", sys!(libc::SYS_chdir, c("next").as_ptr()));
        report("onto itself", pivot(".", "."));
        report("away", umount(".", libc::MNT_DETACH));
        println!("{:?}", names("/"));
    });
}

fn chroot() {
    apart(|| {
        mkdir("jail");
        mkdir("jail/in");
        mount("x", "jail/in", "tmpfs", 0, "");
        report("chroot", sys!(libc::SYS_chroot, c("jail").as_ptr()));
        report("enter", sys!(libc::SYS_chdir, c("/").as_ptr()));
        println!("{:?}", names("/"));
        println!("{:?}", names("/.."));
        report("mount", mount("y", "/in", "tmpfs", 0, ""));
        report("away", umount("/in", 0));
        report("the root is no mount", umount("/", 0));
    });
}

/// A directory that leaves the part of its file system that is mounted does not lead to the rest of it.
fn moved_out() {
    apart(|| {
        for name in ["a", "a/b", "a/b/c", "a/b/c/d", "m"] {
            mkdir(name);
        }
        touch("a/out");
        report("bind", mount("a/b", "m", "", BIND, ""));
        let base = std::env::current_dir().unwrap_or_default();
        let look = |path: &str| {
            report_ok(&format!("open {path}"), sys::open(path, libc::O_RDONLY, 0));
        };
        let _entered = std::env::set_current_dir("m/c");
        look("../../m/c");
        let at = |name: &str| c(&format!("{}/{name}", base.display()));
        report("rename", sys!(libc::SYS_renameat, -1, at("a/b/c").as_ptr(), -1, at("a/c").as_ptr()));
        ["..", "../out", ".", "d", "d/..", "d/../..", "/"].iter().for_each(|path| look(path));
        report("back", sys!(libc::SYS_renameat, -1, at("a/c").as_ptr(), -1, at("a/b/c").as_ptr()));
        look("..");
        look("../c/d/../..");
    });
}

fn errors() {
    apart(|| {
        mkdir("a");
        touch("f");
        report("no place", mount("x", "none", "tmpfs", 0, ""));
        report("a file", mount("x", "f", "tmpfs", 0, ""));
        report("bad place", sys!(libc::SYS_mount, c("x").as_ptr(), 8, c("tmpfs").as_ptr(), 0, 0));
        report("bad type", sys!(libc::SYS_mount, c("x").as_ptr(), c("a").as_ptr(), 8, 0, 0));
        report("no type", sys!(libc::SYS_mount, c("x").as_ptr(), c("a").as_ptr(), 0, 0, 0));
        report("no source", sys!(libc::SYS_mount, 0, c("a").as_ptr(), c("tmpfs").as_ptr(), 0, 0));
        report("bind of nothing", sys!(libc::SYS_mount, 0, c("a").as_ptr(), 0, BIND, 0));
        report("the old magic", mount("x", "a", "tmpfs", 0xc0ed_0000, ""));
        report("unshare nothing known", sys!(libc::SYS_unshare, 1));
    });
}

fn privilege() {
    apart(|| {
        mkdir("a");
        in_child("a user", || {
            sys!(libc::SYS_setresuid, 65534, 65534, 65534);
            report("mount", mount("x", "a", "tmpfs", 0, ""));
            report("umount", umount("a", 0));
            report("pivot_root", sys!(libc::SYS_pivot_root, c("a").as_ptr(), c("a").as_ptr()));
            for flag in [libc::CLONE_NEWNS, libc::CLONE_NEWUTS, libc::CLONE_NEWIPC, libc::CLONE_NEWNET] {
                report("unshare", sys!(libc::SYS_unshare, flag));
            }
            0
        });
    });
}

/// On directories that nobody made, below each other.
fn in_proc() {
    apart(|| {
        let count = |path: &str| fs::read_dir(path).map_or(-1, |entries| entries.count() as i64);
        report("mount", mount("x", "/proc/sys/kernel/random", "tmpfs", 0, ""));
        println!(
            "{} {}",
            count("/proc/sys/kernel/random"),
            fs::metadata("/proc/sys/kernel/hostname").is_ok()
        );
        report("above", mount("x", "/proc/sys/kernel", "tmpfs", 0, ""));
        println!("{}", count("/proc/sys/kernel"));
        report("again", mount("x", "/proc/sys/kernel", "tmpfs", 0, ""));
        println!("{}", touch("/proc/sys/kernel/f") >= 0);
        for path in
            ["/proc/sys/kernel", "/proc/sys/kernel", "/proc/sys/kernel/random", "/proc/sys/kernel/random"]
        {
            report("umount", umount(path, 0));
        }
        println!("{}", fs::metadata("/proc/sys/kernel/random/uuid").is_ok());
    });
}

fn busy_names() {
    apart(|| {
        mkdir("a");
        mkdir("b");
        mount("x", "a", "tmpfs", 0, "");
        report("rmdir", sys!(libc::SYS_unlinkat, libc::AT_FDCWD, c("a").as_ptr(), libc::AT_REMOVEDIR));
        report("rename", sys!(libc::SYS_renameat, -100, c("a").as_ptr(), -100, c("c").as_ptr()));
        touch("a/f");
        report("over mounts", sys!(libc::SYS_linkat, -100, c("a/f").as_ptr(), -100, c("b/f").as_ptr(), 0));
        report("over mounts", sys!(libc::SYS_renameat, -100, c("a/f").as_ptr(), -100, c("b/f").as_ptr()));
        report("away", umount("a", 0));
        report("rmdir", sys!(libc::SYS_unlinkat, libc::AT_FDCWD, c("a").as_ptr(), libc::AT_REMOVEDIR));
    });
}
