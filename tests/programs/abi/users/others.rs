//! What belongs to a user namespace, entering one, and looking up out of one.

use super::{become_user, enter, ids, root, user};
use crate::sys::{self, c, in_child, put, report, show};

const NS_GET_USERNS: i64 = 0xb701;
const NS_GET_PARENT: i64 = 0xb702;
const NS_GET_OWNER_UID: i64 = 0xb704;

fn namespace(pid: &str, name: &str) -> i64 {
    sys::open(&format!("/proc/{pid}/ns/{name}"), libc::O_RDONLY, 0)
}

fn setns(fd: i64, kind: i32) -> i64 {
    sys!(libc::SYS_setns, fd, kind)
}

fn link(pid: &str, name: &str) -> String {
    std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap_or_default().display().to_string()
}

fn fd_link(fd: i64) -> String {
    std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default().display().to_string()
}

/// Somebody of the user 1000 who is root in a user namespace of his, with namespaces of `flags`.
fn inmate(flags: i32) -> i64 {
    let (read_end, write_end) = sys::pipe(0);
    let pid = sys::fork(|| {
        become_user(1000);
        enter(flags, 0, 1000);
        sys::flush();
        sys::write(write_end, b"r");
        sys::forever()
    });
    sys::read(read_end, 1);
    pid
}

pub(super) fn owned() {
    let flags = libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET | libc::CLONE_NEWNS;
    root("with namespaces", flags, || {
        report("hostname", sys!(libc::SYS_sethostname, c("inside").as_ptr(), 6));
        for name in ["uts", "ipc", "net", "mnt"] {
            let fd = namespace("self", name);
            let owner = sys!(libc::SYS_ioctl, fd, NS_GET_USERNS);
            println!("{name} {}", fd_link(owner) == link("self", "user"));
        }
        report("of processes", sys!(libc::SYS_ioctl, namespace("self", "pid"), NS_GET_USERNS));
        let own = namespace("self", "user");
        report("above", sys!(libc::SYS_ioctl, own, NS_GET_USERNS));
        report("parent", sys!(libc::SYS_ioctl, own, NS_GET_PARENT));
        let mut uid = 77_u32;
        report("owner", sys!(libc::SYS_ioctl, own, NS_GET_OWNER_UID, &raw mut uid));
        println!("{uid}");
        let socket = sys!(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0);
        let mut address = [0_u8; 16];
        (address[0], address[3]) = (libc::AF_INET as u8, 80);
        report("a low port", sys!(libc::SYS_bind, socket, address.as_ptr(), 16));
        0
    });
    root("without", 0, || {
        report("hostname", sys!(libc::SYS_sethostname, c("inside").as_ptr(), 6));
        let socket = sys!(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0);
        let mut address = [0_u8; 16];
        (address[0], address[3]) = (libc::AF_INET as u8, 80);
        report("a low port", sys!(libc::SYS_bind, socket, address.as_ptr(), 16));
        report("a user more", sys!(libc::SYS_unshare, libc::CLONE_NEWUSER));
        0
    });
    root("nested", 0, || {
        let outer = namespace("self", "user");
        let (read_end, write_end) = sys::pipe(0);
        let pid = sys::fork(|| {
            sys!(libc::SYS_unshare, libc::CLONE_NEWUSER);
            sys::write(write_end, b"r");
            let mut uid = 77_u32;
            report("the outer", sys!(libc::SYS_ioctl, outer, NS_GET_OWNER_UID, &raw mut uid));
            println!("{uid}");
            report("enter the outer", setns(outer, 0));
            sys::flush();
            sys::write(write_end, b"r");
            sys::forever()
        });
        sys::read(read_end, 1);
        sys::read(read_end, 1);
        let inner = namespace(&pid.to_string(), "user");
        let parent = sys!(libc::SYS_ioctl, inner, NS_GET_PARENT);
        println!("parent {}", fd_link(parent) == fd_link(outer));
        let mut uid = 77_u32;
        report("owner", sys!(libc::SYS_ioctl, inner, NS_GET_OWNER_UID, &raw mut uid));
        println!("{uid}");
        sys::end(pid);
        0
    });
}

pub(super) fn entered() {
    let pid = inmate(libc::CLONE_NEWUTS);
    let other = pid.to_string();
    in_child("by root", || {
        report("hostname first", setns(namespace(&other, "uts"), 0));
        let fd = namespace(&other, "user");
        report("as another kind", setns(fd, libc::CLONE_NEWUTS));
        report("enter", setns(fd, libc::CLONE_NEWUSER));
        println!("{:?}", ids());
        report("once more", setns(fd, 0));
        report("become root", sys!(libc::SYS_setresuid, 0, 0, 0));
        report("back", setns(namespace("1", "user"), 0));
        0
    });
    user("by its owner", || {
        let (fd, uts) = (namespace(&other, "user"), namespace(&other, "uts"));
        report("what belongs to it", setns(uts, 0));
        report("enter", setns(fd, 0));
        println!("{:?}", ids());
        report("what belongs to it", setns(uts, 0));
        report("hostname", sys!(libc::SYS_sethostname, c("entered").as_ptr(), 7));
        0
    });
    in_child("by another", || {
        let fd = namespace(&other, "user");
        become_user(1001);
        report("open", namespace(&other, "user").min(0));
        report("enter", setns(fd, 0));
        0
    });
    user("by a thread", || {
        let thread = std::thread::spawn(sys::forever);
        report("enter", setns(namespace(&other, "user"), 0));
        i32::from(thread.is_finished())
    });
    // Its owner has gone, it has not.
    let fd = namespace(&other, "user");
    sys::end(pid);
    user("when all have left", || {
        report("enter", setns(fd, 0));
        println!("{:?}", ids());
        report("below", sys!(libc::SYS_unshare, libc::CLONE_NEWUSER));
        0
    });
}

pub(super) fn entered_all() {
    let all = libc::CLONE_NEWUSER | libc::CLONE_NEWUTS | libc::CLONE_NEWNS | libc::CLONE_NEWIPC;
    let pid = inmate(all & !libc::CLONE_NEWUSER);
    user("by its owner", || {
        let fd = sys!(libc::SYS_pidfd_open, pid, 0);
        report("but for the user", setns(fd, libc::CLONE_NEWUTS | libc::CLONE_NEWNS));
        report("all", setns(fd, all));
        let other = pid.to_string();
        println!("{:?}", ["user", "uts", "mnt", "ipc"].map(|name| link(&other, name) == link("self", name)));
        println!("{:?}", ids());
        0
    });
    user("by a sister", || {
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWUSER));
        let fd = sys!(libc::SYS_pidfd_open, pid, 0);
        report("all", setns(fd, all));
        0
    });
    sys::end(pid);
}

/// What of a process can be reached.
fn reaches(pid: &str) {
    for name in ["mem", "environ", "maps", "auxv"] {
        println!("{name} {}", show(sys::open(&format!("/proc/{pid}/{name}"), libc::O_RDONLY, 0).min(0)));
    }
    for name in ["root", "cwd", "exe", "fd/0", "ns/user"] {
        let read = std::fs::read_link(format!("/proc/{pid}/{name}"));
        println!("{name} {:?}", read.map(|_| ()).map_err(|error| error.raw_os_error()));
    }
    let number: i64 = pid.parse().unwrap_or(0);
    let (mut byte, at) = ([0_u8; 1], sys::memory(4096));
    let (own, their) = ([byte.as_mut_ptr() as u64, 1], [at as u64, 1]);
    report("copy", sys!(libc::SYS_process_vm_readv, number, own.as_ptr(), 1, their.as_ptr(), 1, 0).min(0));
    report("attach", sys!(libc::SYS_ptrace, libc::PTRACE_SEIZE, number, 0, 0));
    report("limit", sys!(libc::SYS_prlimit64, number, 7, 0, 0));
    report("priority", sys!(libc::SYS_setpriority, 0, number, 19));
}

pub(super) fn upwards() {
    // A process of the same user who has not left the first namespace.
    let (read_end, write_end) = sys::pipe(0);
    let pid = sys::fork(|| {
        become_user(1000);
        sys::memory(4096);
        sys::flush();
        sys::write(write_end, b"r");
        sys::forever()
    });
    sys::read(read_end, 1);
    let other = pid.to_string();
    root("of the same user", 0, || {
        reaches(&other);
        0
    });
    root("init", 0, || {
        reaches("1");
        0
    });
    user("as before", || {
        report("attach", sys!(libc::SYS_ptrace, libc::PTRACE_SEIZE, pid, 0, 0));
        0
    });
    sys::end(pid);
}

pub(super) fn traced() {
    let pid = inmate(0);
    let other = pid.to_string();
    user("its owner", || {
        reaches(&other);
        0
    });
    in_child("another user", || {
        become_user(1001);
        reaches(&other);
        0
    });
    user("a sister", || {
        enter(0, 0, 1000);
        reaches(&other);
        0
    });
    user("from inside", || {
        report("enter", setns(namespace(&other, "user"), 0));
        reaches(&other);
        0
    });
    sys::end(pid);
}

pub(super) fn system() {
    root("root", libc::CLONE_NEWNS, || {
        let time = [1_000_000_000_i64, 0];
        report("clock", sys!(libc::SYS_clock_settime, libc::CLOCK_REALTIME, time.as_ptr()));
        report("name", put("/proc/sys/kernel/hostname", "x"));
        report("swap", sys!(libc::SYS_swapon, c("/dev/null").as_ptr(), 0));
        report("reboot", sys!(libc::SYS_reboot, 0xfee1_dead_u32, 672_274_793, 0, 0));
        let trusted =
            sys!(libc::SYS_setxattr, c("/tmp").as_ptr(), c("trusted.x").as_ptr(), c("x").as_ptr(), 1, 0);
        report("trusted", trusted);
        report("oom", put("/proc/self/oom_score_adj", "-1000"));
        0
    });
}
