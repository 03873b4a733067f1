//! The uts, ipc and network namespaces.

use super::{hostname, link};
use crate::sys::{self, c, in_child, report, report_ok};
use std::fs;

pub(super) fn uts() {
    let before = (hostname(), link("self", "uts"));
    in_child("another name", || {
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWUTS));
        println!("the same at first {} number {}", hostname() == before.0, link("self", "uts") != before.1);
        report("set", sys!(libc::SYS_sethostname, c("inside").as_ptr(), 6));
        println!("{} {:?}", hostname(), fs::read_to_string("/proc/sys/kernel/hostname").ok());
        in_child("inherited", || i32::from(hostname() != "inside"));
        0
    });
    println!("kept {}", (hostname(), link("self", "uts")) == before);
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
    let before = [link("self", "uts"), link("self", "ipc"), link("self", "mnt")];
    let flags = libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::SIGCHLD;
    sys::flush();
    let pid = sys!(libc::SYS_clone, flags, 0, 0, 0, 0);
    if pid == 0 {
        let after = [link("self", "uts"), link("self", "ipc"), link("self", "mnt")];
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

/// What brings a new network up, and asks for nothing else (bubblewrap).
pub(super) fn loopback() {
    in_child("loopback", || {
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWNET));
        let fd = sys!(libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE);
        let ask = |kind: u16, flags: u16, body: &[u8]| {
            let len = 16 + body.len() as u32;
            let mut message =
                [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8]].concat();
            message.extend_from_slice(body);
            sys::write(fd, &message);
            let (_, answer) = sys::read(fd, 4096);
            let error =
                answer.get(16..20).and_then(|word| word.try_into().ok()).map_or(1, i32::from_ne_bytes);
            report(&format!("request {kind}"), error.into());
        };
        // RTM_NEWADDR (AF_INET, /8, permanent, of this host), IFA_LOCAL and IFA_ADDRESS.
        let address = [2, 8, 0x80, 254, 1, 0, 0, 0, 8, 0, 2, 0, 127, 0, 0, 1, 8, 0, 1, 0, 127, 0, 0, 1];
        ask(20, 0x605, &address);
        ask(20, 0x605, &address);
        // RTM_NEWLINK: up.
        ask(16, 5, &[0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        let server = sys!(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0);
        let place: [u8; 16] = [2, 0, 4, 1, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        report("bind", sys!(libc::SYS_bind, server, place.as_ptr(), 16));
        report("listen", sys!(libc::SYS_listen, server, 1));
        let client = sys!(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0);
        report("connect", sys!(libc::SYS_connect, client, place.as_ptr(), 16));
        0
    });
}
