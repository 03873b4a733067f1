//! Namespaces as files: what they say, and entering them (setns(2)).

use super::{getpid, hostname, inside, link};
use crate::mounts::mount;
use crate::sys::{self, c, forever, in_child, report, report_ok, show};
use std::fs;

const NS_GET_USERNS: i64 = 0xb701;
const NS_GET_PARENT: i64 = 0xb702;
const NS_GET_NSTYPE: i64 = 0xb703;
const NS_GET_OWNER_UID: i64 = 0xb704;

fn open(pid: i64, name: &str) -> i64 {
    let path = format!("/proc/{}/ns/{name}", if pid == 0 { "self".to_owned() } else { pid.to_string() });
    sys::open(&path, libc::O_RDONLY | libc::O_CLOEXEC, 0)
}

fn setns(fd: i64, kind: i32) -> i64 {
    sys!(libc::SYS_setns, fd, kind)
}

fn inode(fd: i64) -> (u32, u64) {
    // A whole struct stat of either architecture.
    let mut stat = [0_u64; 18];
    report_ok("fstat", sys!(libc::SYS_fstat, fd, stat.as_mut_ptr()));
    let mode = if cfg!(target_arch = "x86_64") { stat[3] as u32 } else { stat[2] as u32 };
    (mode, stat[1])
}

pub(super) fn files() {
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "time", "uts", "user"] {
        let fd = open(0, name);
        let (mode, number) = inode(fd);
        let link = fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default();
        let by_fd = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
        println!(
            "{name} {mode:o} {} {}",
            link.to_string_lossy() == format!("{name}:[{number}]"),
            link == by_fd
        );
        println!("kind {:#x}", sys!(libc::SYS_ioctl, fd, NS_GET_NSTYPE));
        let mut stat = [0_u64; 15];
        sys!(libc::SYS_fstatfs, fd, stat.as_mut_ptr());
        println!("on {:#x}", stat[0]);
        report("unknown", sys!(libc::SYS_ioctl, fd, 0xb7ff));
        report("read", sys::read(fd, 1).0);
        let parent = sys!(libc::SYS_ioctl, fd, NS_GET_PARENT);
        println!("parent {}", if parent < 0 { show(parent) } else { "there".to_owned() });
        if name != "user" {
            let owner = sys!(libc::SYS_ioctl, fd, NS_GET_USERNS);
            println!("owner's kind {:#x}", sys!(libc::SYS_ioctl, owner, NS_GET_NSTYPE));
            let mut uid = 77_u32;
            report("owner", sys!(libc::SYS_ioctl, owner, NS_GET_OWNER_UID, &raw mut uid));
            println!("{uid}");
            report("of no user", sys!(libc::SYS_ioctl, fd, NS_GET_OWNER_UID, &raw mut uid));
        }
        sys::close(fd);
    }
    report_ok("again", sys::open("/proc/self/ns/../ns/uts", libc::O_RDONLY, 0));
    report("no directory", sys::open("/proc/self/ns/uts/x", libc::O_RDONLY, 0));
    in_child("another's", || {
        report("setresuid", sys!(libc::SYS_setresuid, 1000, 1000, 1000));
        println!("{:?}", fs::read_link("/proc/1/ns/uts").map_err(|e| e.raw_os_error()).is_err());
        report("open", open(1, "uts"));
        0
    });
}

/// A child with namespaces of its own, which says when it has them.
fn elsewhere(flags: i32, body: impl FnOnce()) -> i64 {
    let (read_end, write_end) = sys::pipe(0);
    let pid = sys::fork(|| {
        report("unshare", sys!(libc::SYS_unshare, flags));
        body();
        sys::flush();
        sys::write(write_end, b"r");
        forever()
    });
    sys::read(read_end, 1);
    sys::close(read_end);
    sys::close(write_end);
    pid
}

fn set_hostname(name: &str) {
    report("sethostname", sys!(libc::SYS_sethostname, c(name).as_ptr(), name.len()));
}

pub(super) fn by_file() {
    let other = elsewhere(libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET, || {
        set_hostname("elsewhere");
        sys!(libc::SYS_shmget, 777_111, 4096, libc::IPC_CREAT | 0o600);
    });
    in_child("entered", || {
        let fd = open(other, "uts");
        report("as another kind", setns(fd, libc::CLONE_NEWIPC));
        report("as it is", setns(fd, libc::CLONE_NEWUTS));
        println!("{}", hostname());
        report("whatever it is", setns(open(other, "ipc"), 0));
        report_ok("what is there", sys!(libc::SYS_shmget, 777_111, 4096, 0));
        report("network", setns(open(other, "net"), libc::CLONE_NEWNET));
        let same = |name: &str| link(&other.to_string(), name) == link("self", name);
        println!("{:?}", ["uts", "ipc", "net", "mnt", "pid"].map(same));
        0
    });
    in_child("not its own user", || {
        report("user", setns(open(0, "user"), 0));
        report("nothing", setns(-1, 0));
        report("no namespace", setns(sys::open("/dev/null", libc::O_RDONLY, 0), 0));
        report("unknown", setns(open(0, "uts"), 4));
        report("time", setns(open(0, "time"), libc::CLONE_NEWTIME));
        0
    });
    in_child("without the right", || {
        let fds = ["uts", "ipc", "net", "mnt", "pid"].map(|name| open(0, name));
        report("setresuid", sys!(libc::SYS_setresuid, 1000, 1000, 1000));
        println!("{:?}", fds.map(|fd| show(setns(fd, 0))));
        0
    });
    sys::end(other);
}

pub(super) fn mounts() {
    sys::scratch("setns");
    let here = std::env::current_dir().unwrap_or_default().to_string_lossy().into_owned();
    let other = elsewhere(libc::CLONE_NEWNS, || {
        report("private", mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, ""));
        report("mount", mount("none", &here, "tmpfs", 0, ""));
        report_ok("a file", sys::open(&format!("{here}/there"), libc::O_CREAT, 0o600));
    });
    in_child("entered", || {
        let there = || fs::metadata(format!("{here}/there")).is_ok();
        println!("before {}", there());
        report("enter", setns(open(other, "mnt"), libc::CLONE_NEWNS));
        println!("after {} at {:?}", there(), std::env::current_dir().ok());
        0
    });
    in_child("with another's root", || {
        let thread = std::thread::spawn(forever);
        report("enter", setns(open(other, "mnt"), libc::CLONE_NEWNS));
        i32::from(thread.is_finished())
    });
    sys::end(other);
    sys::unscratch();
}

pub(super) fn pids() {
    in_child("pids", || {
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWPID));
        println!("not yet {}", show(open(0, "pid_for_children")));
        let init = sys::fork(forever);
        in_child("beside", || {
            report("again", setns(open(init, "pid"), libc::CLONE_NEWPID));
            println!("born there {}", sys::fork(|| 0) > 0);
            println!("{}", sys::describe(sys::wait4(-1, 0).1));
            0
        });
        sys::end(init);
        0
    });
    let holder = elsewhere(libc::CLONE_NEWPID, || {
        sys::fork(|| {
            // Nobody else knows it, and it would outlive all of this.
            sys!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            forever()
        });
    });
    in_child("from outside", || {
        report("enter", setns(open(holder, "pid_for_children"), 0));
        println!("where it was {}", getpid() > 1);
        let child = sys::fork(|| {
            println!("{} of {}", getpid(), sys!(libc::SYS_getppid));
            report("up again", setns(open(0, "pid"), 0));
            0
        });
        println!("{}", sys::wait(child));
        report("back", setns(open(0, "pid"), libc::CLONE_NEWPID));
        println!("seen here {}", sys::fork(|| 0) > 2);
        println!("{}", sys::describe(sys::wait4(-1, 0).1));
        0
    });
    sys::end(holder);
    inside("upwards", 0, || {
        report("parent", sys!(libc::SYS_ioctl, open(0, "pid"), NS_GET_PARENT));
        let above = open(0, "pid");
        let child = sys::fork(|| {
            report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWPID));
            sys::wait(sys::fork(|| {
                report("above", setns(above, 0));
                let parent = sys!(libc::SYS_ioctl, above, NS_GET_PARENT);
                println!("{}", show(parent));
                0
            }));
            0
        });
        println!("{}", sys::wait(child));
        0
    });
}

pub(super) fn by_pidfd() {
    let flags = libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWNS;
    let other = elsewhere(flags, || set_hostname("pidfd"));
    in_child("entered", || {
        let fd = sys!(libc::SYS_pidfd_open, other, 0);
        report("nothing", setns(fd, 0));
        report("unknown", setns(fd, libc::CLONE_FS));
        report("its own user", setns(fd, libc::CLONE_NEWUSER));
        let before = hostname();
        report("not all", setns(fd, libc::CLONE_NEWUTS | libc::CLONE_NEWUSER));
        println!("none then {}", hostname() == before);
        report("all", setns(fd, flags | libc::CLONE_NEWPID));
        println!("{}", hostname());
        let same = |name: &str| {
            let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).ok();
            link(&other.to_string()) == link("self")
        };
        println!("{:?}", ["uts", "ipc", "net", "mnt", "pid"].map(same));
        0
    });
    in_child("without the right", || {
        let fd = sys!(libc::SYS_pidfd_open, other, 0);
        report("setresuid", sys!(libc::SYS_setresuid, 1000, 1000, 1000));
        report("enter", setns(fd, libc::CLONE_NEWUTS));
        0
    });
    let fd = sys!(libc::SYS_pidfd_open, other, 0);
    sys::end(other);
    in_child("gone", || {
        report("enter", setns(fd, libc::CLONE_NEWUTS));
        0
    });
}

/// Entering while those who are there end: it works or it does not, and nothing is left.
pub(super) fn races() {
    for round in 0..60 {
        in_child_quietly(|| {
            let (read_end, write_end) = sys::pipe(0);
            let holder = sys::fork(|| {
                report_only_bad(sys!(libc::SYS_unshare, libc::CLONE_NEWPID), &[0]);
                let init = sys::fork(|| {
                    sys::fork(forever);
                    if round % 2 == 0 { forever() } else { 0 }
                });
                sys::write(write_end, &init.to_ne_bytes());
                let ended = sys::wait(init);
                i32::from(!["killed by 9", "exited 0"].contains(&ended.as_str()))
            });
            let init = sys::read(read_end, 8).1.try_into().map_or(0, i64::from_ne_bytes);
            let fd = sys!(libc::SYS_pidfd_open, init, 0);
            let killer = sys::fork(|| {
                super::sleep_ms(round % 3);
                sys!(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, 0, 0);
                0
            });
            // Until nobody can be born there any more.
            while enter_and_fork(fd) {}
            i32::from(
                ["exited 0", "exited 0"]
                    != [sys::wait(killer), sys::wait(holder)].each_ref().map(String::as_str),
            )
        });
    }
    println!("over");
}

/// Whether a child could be made in the pid namespace of a process, if that was still there to be entered.
fn enter_and_fork(fd: i64) -> bool {
    let entered = setns(fd, libc::CLONE_NEWPID | libc::CLONE_NEWUTS);
    report_only_bad(entered, &[0, -i64::from(libc::ESRCH), -i64::from(libc::EBADF)]);
    let child = sys!(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0);
    if child == 0 {
        forever();
    }
    report_only_bad(child.min(0), &[0, -i64::from(libc::ENOMEM)]);
    // Who is there is waited for: the end of the namespace waits for it, too.
    if child > 0 {
        sys!(libc::SYS_kill, child, libc::SIGKILL);
        sys::wait4(child, 0);
    }
    entered == 0 && child > 0
}

fn in_child_quietly(body: impl FnOnce() -> i32) {
    let ended = sys::wait(sys::fork(body));
    if ended != "exited 0" {
        println!("{ended}");
    }
}

fn report_only_bad(result: i64, good: &[i64]) {
    if !good.contains(&result) {
        report("bad", result);
    }
}
