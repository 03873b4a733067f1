//! Options, names and waits that are seldom used.

use super::room::{option, set_option};
use super::{connect, named, receive, send, socket, socketpair};
use crate::sys::{self, fork, report, wait, write};

const SO_PEERGROUPS: i32 = 59;

pub(super) fn levels() {
    let (a, _) = socketpair(libc::SOCK_STREAM);
    let (mut value, mut len) = (1_i32, 4_u32);
    for level in [libc::IPPROTO_TCP, libc::IPPROTO_IP, 999] {
        report("setsockopt", sys!(libc::SYS_setsockopt, a, level, 1, &raw const value, 4));
        report("getsockopt", sys!(libc::SYS_getsockopt, a, level, 1, &raw mut value, &raw mut len));
    }
    for name in [libc::SO_RCVLOWAT, libc::SO_SNDLOWAT, libc::SO_NO_CHECK] {
        println!("{name} is {}", option(a, name));
        for value in [7, 0, -1] {
            report("set", set_option(a, name, value));
            println!("{name} is {}", option(a, name));
        }
    }
}

pub(super) fn least() {
    let (a, b) = socketpair(libc::SOCK_STREAM);
    set_option(b, libc::SO_RCVLOWAT, 4);
    write(a, b"ab");
    receive("at once", b, 10, libc::MSG_DONTWAIT);
    write(a, b"ab");
    let pid = fork(|| {
        let parent = sys!(libc::SYS_getppid);
        sys::until_asleep(parent, parent);
        i32::from(write(a, b"cdef") != 4)
    });
    receive("four or more", b, 10, 0);
    println!("{}", wait(pid));
    write(a, b"ab");
    receive("no more than asked for", b, 2, 0);
    write(a, b"ab");
    receive("looking does not wait", b, 10, libc::MSG_PEEK);
}

pub(super) fn peers() {
    let (_a, _) = socketpair(libc::SOCK_STREAM);
    let lonely = socket(libc::SOCK_STREAM);
    let groups = [5_u32, 6, 7];
    sys!(libc::SYS_setgroups, 3, groups.as_ptr());
    let (server, address) = named(libc::SOCK_STREAM, "peers");
    report("listen", sys!(libc::SYS_listen, server, 5));
    let client = socket(libc::SOCK_STREAM);
    connect("connect", client, &address);
    for room in [12_u32, 64, 8, 0] {
        let (mut got, mut len) = ([0_u32; 16], room);
        report("SO_PEERGROUPS", {
            let into = got.as_mut_ptr();
            sys!(libc::SYS_getsockopt, client, libc::SOL_SOCKET, SO_PEERGROUPS, into, &raw mut len)
        });
        println!("{len} {:?}", &got[..4]);
    }
    println!("nobody {}", sys::show(option(lonely, SO_PEERGROUPS)));
}

pub(super) fn abstract_types() {
    let (_stream, address) = named(libc::SOCK_STREAM, "types");
    let datagram = socket(libc::SOCK_DGRAM);
    connect("of another type", datagram, &address);
    report("bind", sys!(libc::SYS_bind, datagram, address.as_ptr(), address.len()));
    let sender = socket(libc::SOCK_DGRAM);
    connect("of this type", sender, &address);
    report("send", send(sender, b"x", 0));
    receive("received", datagram, 10, 0);
    let packets = socket(libc::SOCK_SEQPACKET);
    connect("of a third type", packets, &address);
    connect("not listening", socket(libc::SOCK_STREAM), &address);
}

pub(super) fn interrupted() {
    extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    sys::handle(libc::SIGUSR1, nothing, libc::SA_RESTART);
    let pid = sys!(libc::SYS_getpid);
    let during = |what: &str, call: &dyn Fn() -> i64| {
        let child = fork(|| {
            sys::until_asleep(pid, pid);
            sys!(libc::SYS_kill, pid, libc::SIGUSR1);
            0
        });
        report(what, call());
        println!("{}", wait(child));
    };
    let (a, b) = socketpair(libc::SOCK_STREAM);
    let long = [1000_i64, 0];
    for name in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        let from = long.as_ptr();
        report("timeout", sys!(libc::SYS_setsockopt, b, libc::SOL_SOCKET, name, from, 16));
    }
    let mut byte = 0_u8;
    let into = (&raw mut byte) as u64;
    during("recv", &|| sys!(libc::SYS_recvfrom, b, into, 1, 0, 0, 0));
    during("read", &|| sys!(libc::SYS_read, b, into, 1));
    while send(b, &[0; 4096], libc::MSG_DONTWAIT) > 0 {}
    during("send", &|| send(b, b"x", 0));
    let past = [-1_i64, 0];
    for time in [past, [0, -1], [0, 1_000_000]] {
        let from = time.as_ptr();
        report("timeout", sys!(libc::SYS_setsockopt, a, libc::SOL_SOCKET, libc::SO_RCVTIMEO, from, 16));
    }
    while sys!(libc::SYS_recvfrom, a, [0_u8; 4096].as_mut_ptr(), 4096, libc::MSG_DONTWAIT, 0, 0) > 0 {}
    report("at once", sys!(libc::SYS_recvfrom, a, into, 1, 0, 0, 0));
}

pub(super) fn faults() {
    let page = sys::memory(8192);
    sys!(libc::SYS_munmap, page + 4096, 4096);
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        let (a, b) = socketpair(kind);
        write(a, b"hello");
        report("room enough", sys!(libc::SYS_read, b, page + 4088, 100));
        write(a, b"hello");
        report("half of it", sys!(libc::SYS_read, b, page + 4094, 100));
        receive("what is left", b, 100, libc::MSG_DONTWAIT);
        write(a, b"one");
        write(a, b"two");
        report("the second", sys!(libc::SYS_read, b, page + 4093, 100));
        receive("what is left", b, 100, libc::MSG_DONTWAIT);
        report("sent from nowhere", sys!(libc::SYS_write, a, page + 4094, 5));
        receive("nothing", b, 100, libc::MSG_DONTWAIT);
    }
}
