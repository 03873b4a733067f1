//! Mounts of a user namespace: what may be mounted, and what stays as it was given.

use super::{chmod, chown, make, mapped, owner, root, set_all};
use crate::mounts::{mount, umount};
use crate::process::execute;
use crate::setid::copy_of_self;
use crate::sys::{self, c, report};

const NEWNS: i32 = libc::CLONE_NEWNS;
const BIND: u64 = libc::MS_BIND;
const CHANGE: u64 = libc::MS_REMOUNT | libc::MS_BIND;

/// A scratch directory with a place to mount at, in mounts of the case's own.
fn place(name: &str) {
    sys::scratch(name);
    chmod(".", 0o777);
    for name in ["at", "other", "third"] {
        report(name, sys!(libc::SYS_mkdirat, libc::AT_FDCWD, c(name).as_ptr(), 0o777));
    }
}

fn private(what: &str, body: impl FnOnce() -> i32) {
    sys::in_child(what, || {
        report("mounts", sys!(libc::SYS_unshare, NEWNS));
        report("private", mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, ""));
        body()
    });
}

pub(super) fn file_systems() {
    place("users-systems");
    root("mounts alone", NEWNS, || {
        for kind in ["tmpfs", "ramfs", "proc", "devtmpfs", "nosuch"] {
            report(kind, mount("none", "at", kind, 0, ""));
        }
        report("bind", mount("/", "other", "", BIND, ""));
        report("deep bind", mount("/proc", "third", "", BIND | libc::MS_REC, ""));
        report("away", umount("third", libc::MNT_DETACH));
        report("by force", umount("other", libc::MNT_FORCE));
        0
    });
    root("processes", NEWNS | libc::CLONE_NEWPID, || {
        sys::in_child("init", || {
            report("proc", mount("none", "at", "proc", 0, ""));
            println!("{}", std::fs::read_link("at/self").unwrap_or_default().display());
            0
        });
        0
    });
    root("not one's own", 0, || {
        report("tmpfs", mount("none", "at", "tmpfs", 0, ""));
        report("umount", umount("/proc", 0));
        report("chroot", sys!(libc::SYS_chroot, c("at").as_ptr()));
        0
    });
    sys::unscratch();
}

pub(super) fn memory() {
    place("users-memory");
    root("of one", NEWNS, || {
        report("mount", mount("none", "at", "tmpfs", 0, "mode=755"));
        println!("{}", owner("at"));
        report("unknown owner", mount("none", "other", "tmpfs", 0, "uid=5"));
        report("known owner", mount("none", "other", "tmpfs", 0, "uid=0,gid=0"));
        report("make", make("at/file", 0o644));
        println!("{}", owner("at/file"));
        report("to an unknown", chown("at/file", 5, 5));
        let name = c("at/null");
        report(
            "a device",
            sys!(libc::SYS_mknodat, libc::AT_FDCWD, name.as_ptr(), libc::S_IFCHR | 0o666, 0x103),
        );
        report("more room", mount("none", "at", "", libc::MS_REMOUNT, "size=1m"));
        report("read-only", mount("none", "at", "", libc::MS_REMOUNT | libc::MS_RDONLY, ""));
        report("make", make("at/more", 0o644));
        0
    });
    mapped("of many", NEWNS, "0 100000 10", || {
        report("groups", sys!(libc::SYS_setresgid, 0, 0, 0));
        report("root", set_all(0));
        report("mount", mount("none", "at", "tmpfs", 0, ""));
        copy_of_self("at/setuid", 0o4755);
        let run = || -execute("at/setuid", &["abi", "--child", "ids"], &[]) as i32;
        sys::in_child("set-uid", || {
            report("user", set_all(5));
            run()
        });
        report("mount", mount("none", "other", "tmpfs", 0, "uid=3,gid=4,mode=700"));
        println!("{}", owner("other"));
        0
    });
    // What those made inside is worth nothing outside.
    private("from outside", || {
        let (read_end, write_end) = sys::pipe(0);
        let pid = sys::fork(|| {
            super::enter(NEWNS, 0, 0);
            report("mount", mount("none", "at", "tmpfs", 0, ""));
            copy_of_self("at/setuid", 0o4755);
            chmod("at", 0o777);
            sys::flush();
            sys::write(write_end, b"r");
            sys::forever()
        });
        sys::read(read_end, 1);
        let at = format!("/proc/{pid}/cwd/at");
        let null = c(&format!("{at}/null"));
        report(
            "a device",
            sys!(libc::SYS_mknodat, libc::AT_FDCWD, null.as_ptr(), libc::S_IFCHR | 0o666, 0x103),
        );
        report("opened", sys::open(&format!("{at}/null"), libc::O_RDWR, 0).min(0));
        let file = sys::open(&format!("{at}/setuid"), libc::O_PATH, 0);
        sys::in_child("set-uid", || {
            report("user", set_all(1000));
            let words = [c("abi"), c("--child"), c("ids")];
            let mut argv: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
            argv.push(std::ptr::null());
            sys::flush();
            let empty = [std::ptr::null::<libc::c_char>()];
            let path = c("");
            -sys!(libc::SYS_execveat, file, path.as_ptr(), argv.as_ptr(), empty.as_ptr(), libc::AT_EMPTY_PATH)
                as i32
        });
        sys::end(pid);
        0
    });
    sys::unscratch();
}

pub(super) fn locked() {
    place("users-locked");
    report("below", make("at/below", 0o644));
    private("outside", || {
        report("hide", mount("none", "at", "tmpfs", 0, ""));
        report("above", make("at/above", 0o644));
        root("inside", NEWNS, || {
            report("umount", umount("at", 0));
            report("lazily", umount("at", libc::MNT_DETACH));
            report("move", mount("at", "other", "", libc::MS_MOVE, ""));
            report("bind what is below", mount(".", "other", "", BIND, ""));
            report("bind all", mount(".", "other", "", BIND | libc::MS_REC, ""));
            report("below", sys::open("other/at/below", libc::O_RDONLY, 0).min(0));
            report("of the copy", umount("other/at", libc::MNT_DETACH));
            report("the copy", umount("other", libc::MNT_DETACH));
            report("bind the mount", mount("at", "third", "", BIND, ""));
            report("its copy", umount("third", 0));
            report("over it", mount("none", "at", "tmpfs", 0, ""));
            report("one's own", umount("at", 0));
            report("above", sys::open("at/above", libc::O_RDONLY, 0).min(0));
            // In mounts that are copied once more by who owns them already nothing is locked anew.
            report("own mount", mount("none", "other", "tmpfs", 0, ""));
            report("once more", sys!(libc::SYS_unshare, NEWNS));
            report("own mount", umount("other", 0));
            report("locked still", umount("at", 0));
            report("users and mounts", sys!(libc::SYS_unshare, NEWNS | libc::CLONE_NEWUSER));
            report("lost", umount("at", 0));
            0
        });
        0
    });
    sys::unscratch();
}

/// What is hidden stays so for who has opened what it is in, whatever becomes of the mounts.
pub(super) fn hidden() {
    place("users-hidden");
    report("below", make("at/below", 0o644));
    let opened = |name: &str| sys::open(name, libc::O_RDONLY | libc::O_DIRECTORY, 0);
    let look = |what: &str, dir: i64| {
        for name in ["at/below", "at/above"] {
            report(what, sys!(libc::SYS_openat, dir, c(name).as_ptr(), libc::O_RDONLY, 0).min(0));
        }
    };
    private("outside", || {
        report("hide", mount("none", "at", "tmpfs", 0, ""));
        report("above", make("at/above", 0o644));
        root("inside", NEWNS, || {
            let here = opened(".");
            report("bind all", mount(".", "other", "", BIND | libc::MS_REC, ""));
            let copy = opened("other");
            look("the copy", copy);
            report("the copy", umount("other", libc::MNT_DETACH));
            look("of what has gone", copy);
            look("here", here);
            report("once more", sys!(libc::SYS_unshare, NEWNS));
            look("of mounts that have ended", here);
            0
        });
        0
    });
    sys::unscratch();
}

pub(super) fn flags() {
    place("users-flags");
    let all = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    private("outside", || {
        report("mount", mount("none", "at", "tmpfs", all | libc::MS_NOATIME, ""));
        report("bind", mount(".", "other", "", BIND, ""));
        report("less", mount("none", "other", "", CHANGE | libc::MS_RDONLY, ""));
        root("inside", NEWNS, || {
            let change =
                |what: &str, place: &str, flags: u64| report(what, mount("none", place, "", flags, ""));
            for (what, taken) in [
                ("writable", libc::MS_RDONLY),
                ("set-uid", libc::MS_NOSUID),
                ("devices", libc::MS_NODEV),
                ("programs", libc::MS_NOEXEC),
                ("times", libc::MS_NOATIME),
            ] {
                change(
                    what,
                    "at",
                    CHANGE
                        | (all | libc::MS_NOATIME) & !taken
                        | if taken == libc::MS_NOATIME { libc::MS_RELATIME } else { 0 },
                );
            }
            change("the same", "at", CHANGE | all | libc::MS_NOATIME);
            change("the file system", "at", libc::MS_REMOUNT | all | libc::MS_NOATIME);
            report("bind", mount("at", "third", "", BIND, ""));
            change("writable by another name", "third", CHANGE | (all & !libc::MS_RDONLY) | libc::MS_NOATIME);
            report("write", make("third/x", 0o644));
            change("writable", "other", CHANGE);
            change("more", "other", CHANGE | libc::MS_RDONLY | libc::MS_NOSUID);
            change("less again", "other", CHANGE | libc::MS_RDONLY);
            report("write", make("other/x", 0o644));
            0
        });
        0
    });
    sys::unscratch();
}

/// What may not be written where it was given may not be by another mount of it either.
pub(super) fn another() {
    place("users-another");
    private("outside", || {
        report("read-only", mount("none", "/proc", "", CHANGE | libc::MS_RDONLY, ""));
        root("inside", NEWNS | libc::CLONE_NEWPID, || {
            sys::in_child("init", || {
                report("writable", mount("none", "at", "proc", 0, ""));
                report("read-only", mount("none", "at", "proc", libc::MS_RDONLY, ""));
                report("writable after all", mount("none", "at", "", CHANGE, ""));
                report("and so", mount("none", "at", "", CHANGE | libc::MS_RDONLY | libc::MS_NOATIME, ""));
                report("less of it", mount("none", "at", "", CHANGE | libc::MS_RDONLY | libc::MS_NOSUID, ""));
                println!(
                    "{}",
                    sys::show(sys!(libc::SYS_faccessat, libc::AT_FDCWD, c("at/self/comm").as_ptr(), 2))
                );
                0
            });
            0
        });
        0
    });
    sys::unscratch();
}

pub(super) fn propagation() {
    place("users-shared");
    sys::in_child("outside", || {
        report("mounts", sys!(libc::SYS_unshare, NEWNS));
        report("private", mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, ""));
        report("mount", mount("none", "at", "tmpfs", 0, ""));
        report("shared", mount("none", "at", "", libc::MS_SHARED, ""));
        sys!(libc::SYS_mkdirat, libc::AT_FDCWD, c("at/in").as_ptr(), 0o777);
        sys!(libc::SYS_mkdirat, libc::AT_FDCWD, c("at/out").as_ptr(), 0o777);
        let (made, make_it) = sys::pipe(0);
        let (ready, go) = sys::pipe(0);
        let pid = sys::fork(|| {
            super::become_user(1000);
            super::enter(NEWNS, 0, 1000);
            report("inside", mount("none", "at/in", "tmpfs", 0, ""));
            report("a file", make("at/in/x", 0o644));
            sys::flush();
            sys::write(make_it, b"m");
            sys::read(ready, 1);
            report("there", sys::open("at/out/y", libc::O_RDONLY, 0).min(0));
            report("what came is not locked", umount("at/out", 0));
            0
        });
        sys::read(made, 1);
        report("not here", sys::open("at/in/x", libc::O_RDONLY, 0).min(0));
        report("outside", mount("none", "at/out", "tmpfs", 0, ""));
        report("a file", make("at/out/y", 0o644));
        sys::flush();
        sys::write(go, b"g");
        println!("{}", sys::wait(pid));
        report("here still", sys::open("at/out/y", libc::O_RDONLY, 0).min(0));
        0
    });
    sys::unscratch();
}

pub(super) fn root_of_all() {
    place("users-root");
    private("outside", || {
        root("inside", NEWNS, pivoted);
        0
    });
    sys::unscratch();
}

fn pivoted() -> i32 {
    report("new root", mount("none", "at", "tmpfs", 0, ""));
    sys!(libc::SYS_mkdirat, libc::AT_FDCWD, c("at/old").as_ptr(), 0o777);
    let here = std::env::current_dir().unwrap_or_default();
    report("pivot", sys!(libc::SYS_pivot_root, c("at").as_ptr(), c("at/old").as_ptr()));
    report("chdir", sys!(libc::SYS_chdir, c("/").as_ptr()));
    println!("{}", std::path::Path::new(&format!("/old{}", here.display())).exists());
    report("old", umount("/old", libc::MNT_DETACH));
    println!("{:?}", std::fs::read_dir("/").map(Iterator::count).map_err(|error| error.raw_os_error()));
    report("once more", sys!(libc::SYS_unshare, libc::CLONE_NEWUSER));
    0
}
