//! Urgent data (MSG_OOB) on connections.

use super::{accept, listener, pair, send, set_option, tcp};
use crate::sockets::urgent;
use crate::sys::{report, show};

/// Two ends that keep nothing back.
fn quick() -> (i64, i64) {
    let (a, b, _) = pair();
    set_option(a, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
    (a, b)
}

pub(super) fn bytes() {
    urgent::bytes(quick);
}

pub(super) fn waits() {
    urgent::waits(quick);
}

pub(super) fn signals() {
    urgent::signals(quick);
}

pub(super) fn chance() {
    urgent::chance(quick);
}

pub(super) fn states() {
    let mut byte = [0_u8; 1];
    let mut take = |fd: i64, flags: i32| {
        show(sys!(libc::SYS_recvfrom, fd, byte.as_mut_ptr(), 1, libc::MSG_OOB | flags, 0, 0))
    };
    let fresh = tcp();
    println!("fresh: {}", take(fresh, 0));
    report("sent", send(fresh, b"x", libc::MSG_OOB));
    let (server, address) = listener(5);
    println!("listening: {}", take(server, 0));
    report("in line", set_option(server, libc::SOL_SOCKET, libc::SO_OOBINLINE, 1));
    let client = tcp();
    report("connect", super::connect(client, &address));
    let accepted = accept(server);
    report("sent", send(client, b"y", libc::MSG_OOB));
    println!("inherited: {}", take(accepted, 0));
    report("sent", send(accepted, b"z", libc::MSG_OOB));
    let linger = [1_i32, 0];
    sys!(libc::SYS_setsockopt, accepted, libc::SOL_SOCKET, libc::SO_LINGER, linger.as_ptr(), 8);
    crate::sys::close(accepted);
    println!("reset: {}", take(client, libc::MSG_PEEK));
    println!("reset: {}", take(client, libc::MSG_TRUNC));
}
