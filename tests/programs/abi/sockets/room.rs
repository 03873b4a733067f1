//! How much goes into a socket, and what is heard of a peer's end.

use super::{connect, named, receive, send, socket, socketpair};
use crate::sys::{self, close, fork, report, wait, write};

pub(super) fn option(fd: i64, name: i32) -> i64 {
    let (mut value, mut len) = (-1_i32, 4_u32);
    let into = &raw mut value;
    match sys!(libc::SYS_getsockopt, fd, libc::SOL_SOCKET, name, into, &raw mut len) {
        0 => i64::from(value),
        errno => errno,
    }
}

pub(crate) fn set_option(fd: i64, name: i32, value: i32) -> i64 {
    sys!(libc::SYS_setsockopt, fd, libc::SOL_SOCKET, name, &raw const value, 4)
}

pub(super) fn count(fd: i64, request: u64) -> i64 {
    let mut value = -1_i32;
    match sys!(libc::SYS_ioctl, fd, request, &raw mut value) {
        0 => i64::from(value),
        errno => errno,
    }
}

/// What poll says holds, of everything it can say.
pub(super) fn poll(what: &str, fd: i64) {
    let all = 0x3fff & !libc::POLLNVAL as u64;
    let mut asked = (fd as u32 as u64) | all << 32;
    let result = sys!(libc::SYS_ppoll, &raw mut asked, 1, [0_i64; 2].as_ptr(), 0, 8);
    println!("{what}: {} {:#x}", sys::show(result), asked >> 48);
}

pub(super) fn room() {
    for buffer in [0, 1, 20_000] {
        let (a, b) = socketpair(libc::SOCK_STREAM);
        if buffer != 0 {
            report("SO_SNDBUF", set_option(a, libc::SO_SNDBUF, buffer));
        }
        println!("SO_SNDBUF is {}", option(a, libc::SO_SNDBUF));
        poll("empty", a);
        let all = vec![b'x'; 1 << 20];
        let mut taken = 0;
        let end = loop {
            match send(a, &all, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) {
                got if got > 0 => taken += got,
                end => break end,
            }
        };
        println!("sent {taken}, then {}", sys::show(end));
        println!("to be read {}", count(b, libc::FIONREAD));
        println!("charged more than that {}", count(a, libc::TIOCOUTQ) > taken);
        poll("full", a);
        poll("to be read", b);
        let (got, bytes) = sys::read(b, 1);
        println!("read {} {}", sys::show(got), bytes.len());
        poll("still full", a);
        while sys!(libc::SYS_recvfrom, b, all.as_ptr(), all.len(), libc::MSG_DONTWAIT, 0, 0) > 0 {}
        println!("nothing charged {}", count(a, libc::TIOCOUTQ));
        poll("empty again", a);
        close(a);
        close(b);
    }
}

pub(super) fn room_datagram() {
    for kind in [libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        let (a, b) = socketpair(kind);
        report("SO_SNDBUF", set_option(a, libc::SO_SNDBUF, 20_000));
        report("too long", send(a, &[0; 40_000], 0));
        report("just not", send(a, &[0; 39_968], libc::MSG_DONTWAIT));
        report("one more", send(a, b"x", libc::MSG_DONTWAIT));
        poll("full", a);
        println!("to be read {}", count(b, libc::FIONREAD));
        report("read", sys::read(b, 10).0);
        poll("empty", a);
        for part in [&b"one"[..], b"three", b""] {
            report("send", send(a, part, libc::MSG_DONTWAIT));
        }
        println!("to be read {}", count(b, libc::FIONREAD));
        close(b);
        println!("nothing charged {}", count(a, libc::TIOCOUTQ));
    }
    let server = named(libc::SOCK_DGRAM, "room");
    let client = socket(libc::SOCK_DGRAM);
    connect("connect", client, &server.1);
    let sent = (0..10_000).take_while(|_| send(client, b"x", libc::MSG_DONTWAIT) == 1).count();
    println!("refused in the end {}", (10..10_000).contains(&sent));
    poll("full", client);
    while sys!(libc::SYS_recvfrom, server.0, [0_u8; 4].as_mut_ptr(), 4, libc::MSG_DONTWAIT, 0, 0) > 0 {}
    poll("empty", client);
    // A sender that waits is woken.
    let sent = (0..10_000).take_while(|_| send(client, b"x", libc::MSG_DONTWAIT) == 1).count();
    let pid = fork(|| i32::from(send(client, b"late", 0) != 4));
    std::thread::sleep(std::time::Duration::from_millis(50));
    let mut seen = 0;
    while sys::read(server.0, 8).1 != b"late" {
        seen += 1;
    }
    println!("{} all seen {}", wait(pid), seen == sent);
}

pub(super) fn datagram_peers() {
    let (a, b) = socketpair(libc::SOCK_DGRAM);
    let server = named(libc::SOCK_DGRAM, "peers");
    let other = named(libc::SOCK_DGRAM, "others");
    close(b);
    report("peer gone", send(a, b"x", libc::MSG_NOSIGNAL));
    report("forgotten", send(a, b"x", libc::MSG_NOSIGNAL));
    connect("connect", a, &server.1);
    report("send", send(a, b"x", 0));
    connect("server elsewhere", server.0, &other.1);
    receive("what was there", server.0, 10, libc::MSG_DONTWAIT);
    report("not heard", send(a, b"x", 0));
    let third = socket(libc::SOCK_DGRAM);
    connect("nor connected", third, &server.1);
    report("sendto", {
        let to = &server.1;
        sys!(libc::SYS_sendto, third, b"x".as_ptr(), 1, 0, to.as_ptr(), to.len())
    });
    let (a, b) = socketpair(libc::SOCK_DGRAM);
    send(a, b"unread", 0);
    report("unspec", sys!(libc::SYS_connect, b, [0_u8; 16].as_ptr(), 16));
    println!("SO_ERROR {}", option(a, libc::SO_ERROR));
    receive("forgotten", b, 10, libc::MSG_DONTWAIT);
    for (what, how) in [("read", libc::SHUT_RD), ("write", libc::SHUT_WR)] {
        let (a, b) = socketpair(libc::SOCK_DGRAM);
        report(what, sys!(libc::SYS_shutdown, a, how));
        poll("itself", a);
        poll("the other", b);
        report("send", send(a, b"x", libc::MSG_NOSIGNAL));
        report("the other way", send(b, b"x", libc::MSG_NOSIGNAL));
        sys::in_child("a signal", || i32::from(write(b, b"x") < 0));
    }
}

pub(super) fn ends() {
    for kind in [libc::SOCK_STREAM, libc::SOCK_SEQPACKET] {
        let fresh = socket(kind);
        report("shutdown unconnected", sys!(libc::SYS_shutdown, fresh, libc::SHUT_RD));
        poll("fresh", fresh);
        let (a, b) = socketpair(kind);
        send(b, b"unread", 0);
        close(a);
        poll("reset", b);
        report("send", send(b, b"x", libc::MSG_NOSIGNAL));
        receive("receive", b, 10, 0);
        receive("again", b, 10, 0);
        sys::in_child("a signal", || i32::from(write(b, b"x") < 0));
        let (server, address) = named(kind, "ends");
        report("accept", sys!(libc::SYS_accept4, server, 0, 0, 0));
        report("listen", sys!(libc::SYS_listen, server, -1));
        poll("listening", server);
        println!("to be read {}", sys::show(count(server, libc::FIONREAD)));
        let waiting: Vec<i64> = (0..3).map(|_| socket(kind)).collect();
        waiting.iter().for_each(|fd| connect("connect", *fd, &address));
        connect("twice", waiting[0], &address);
        connect("itself", server, &address);
        let accepted = sys!(libc::SYS_accept4, server, 0, 0, 0);
        println!("listener of itself {}", {
            let (mut credentials, mut len) = ([0_i32; 3], 12_u32);
            let into = credentials.as_mut_ptr();
            sys!(libc::SYS_getsockopt, server, libc::SOL_SOCKET, libc::SO_PEERCRED, into, &raw mut len);
            i64::from(credentials[0]) == sys!(libc::SYS_getpid)
        });
        close(server);
        for fd in &waiting {
            poll("listener gone", *fd);
            receive("receive", *fd, 10, libc::MSG_DONTWAIT);
        }
        connect("nobody there", waiting[0], &address);
        close(accepted);
        receive("end", waiting[0], 10, 0);
        let (mut name, mut len) = ([0_u8; 110], 110_u32);
        report("getpeername", {
            let into = name.as_mut_ptr();
            sys!(libc::SYS_getpeername, waiting[0], into, &raw mut len)
        });
        println!("as it was {}", name[..len as usize] == address);
    }
    let server = named(libc::SOCK_DGRAM, "never");
    report("listen", sys!(libc::SYS_listen, server.0, 1));
    report("accept", sys!(libc::SYS_accept4, server.0, 0, 0, 0));
    // Who waits in accept gets an end.
    let (server, _) = named(libc::SOCK_STREAM, "accept");
    report("listen", sys!(libc::SYS_listen, server, 1));
    report("SO_RCVTIMEO", {
        let time = [0_i64, 20_000];
        sys!(libc::SYS_setsockopt, server, libc::SOL_SOCKET, libc::SO_RCVTIMEO, time.as_ptr(), 16)
    });
    report("accept", sys!(libc::SYS_accept4, server, 0, 0, 0));
}
