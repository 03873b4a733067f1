//! The other namespaces that a task can have of its own: uts, ipc, network.

use crate::sys::{self, c, in_child, report, report_ok};
use std::fs;

/// The host's name as uname(2) has it.
fn hostname() -> String {
    let mut names = [0_u8; 390];
    sys!(libc::SYS_uname, names.as_mut_ptr());
    String::from_utf8_lossy(&names[65..130]).trim_end_matches('\0').to_owned()
}

fn link(name: &str) -> String {
    let text = fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default();
    text.to_string_lossy().into_owned()
}

pub(super) fn uts() {
    let before = (hostname(), link("uts"));
    in_child("another name", || {
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWUTS));
        println!("the same at first {} number {}", hostname() == before.0, link("uts") != before.1);
        report("set", sys!(libc::SYS_sethostname, c("inside").as_ptr(), 6));
        println!("{} {:?}", hostname(), fs::read_to_string("/proc/sys/kernel/hostname").ok());
        in_child("inherited", || i32::from(hostname() != "inside"));
        0
    });
    println!("kept {}", (hostname(), link("uts")) == before);
}

pub(super) fn ipc() {
    let id = sys!(libc::SYS_shmget, libc::IPC_PRIVATE, 4096, 0o600);
    let mut info = [0_u64; 16];
    in_child("another", || {
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWIPC));
        report("not here", sys!(libc::SYS_shmctl, id, libc::IPC_STAT, info.as_mut_ptr()));
        report_ok("its own", sys!(libc::SYS_shmget, libc::IPC_PRIVATE, 4096, 0o600));
        0
    });
    report("kept", sys!(libc::SYS_shmctl, id, libc::IPC_STAT, info.as_mut_ptr()));
    sys!(libc::SYS_shmctl, id, libc::IPC_RMID, 0);
}

pub(super) fn net() {
    let bind = || {
        let fd = sys!(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0);
        let mut address = [0_u8; 12];
        address[0] = libc::AF_UNIX as u8;
        address[3..].copy_from_slice(b"abi-netns");
        sys!(libc::SYS_bind, fd, address.as_ptr(), address.len())
    };
    report("bind", bind());
    report("taken", bind());
    in_child("another", || {
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWNET));
        report("free", bind());
        0
    });
}

pub(super) fn cloned() {
    let before = [link("uts"), link("ipc"), link("mnt")];
    let flags = libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::SIGCHLD;
    sys::flush();
    let pid = sys!(libc::SYS_clone, flags, 0, 0, 0, 0);
    if pid == 0 {
        let after = [link("uts"), link("ipc"), link("mnt")];
        println!("all others {}", before.iter().zip(&after).all(|(one, other)| one != other));
        sys::flush();
        sys::exit(5);
    }
    println!("{}", sys::wait(pid));
    report(
        "with a shared root",
        sys!(libc::SYS_clone, libc::CLONE_NEWNS | libc::CLONE_FS | libc::SIGCHLD, 0, 0, 0, 0),
    );
}
