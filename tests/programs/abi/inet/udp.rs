//! Datagrams.

use super::{
    ANY6, LOCAL, LOCAL6, bind, connect, mapped, option, pending_error, poll, port, receive, send,
    set_nonblocking, set_option, shutdown, socket, told, until, up, v4, v6, words,
};
use crate::sys::{self, close, fork, report, report_read, wait, write};

fn udp() -> i64 {
    socket(libc::AF_INET, libc::SOCK_DGRAM)
}

fn udp6() -> i64 {
    socket(libc::AF_INET6, libc::SOCK_DGRAM)
}

/// A socket bound at 127.0.0.1, and its address.
fn bound() -> (i64, Vec<u8>) {
    up();
    let fd = udp();
    let result = bind(fd, &v4(LOCAL, 0));
    if result != 0 {
        report("bind", result);
    }
    (fd, v4(LOCAL, port(fd)))
}

pub(super) fn send_to(fd: i64, bytes: &[u8], flags: i32, address: &[u8]) -> i64 {
    sys!(libc::SYS_sendto, fd, bytes.as_ptr(), bytes.len(), flags, address.as_ptr(), address.len())
}

pub(super) fn receive_from(what: &str, fd: i64, len: usize, flags: i32, ports: &[(&str, u16)]) {
    let (mut bytes, mut name, mut size) = (vec![0_u8; len], vec![0_u8; 128], 128_u32);
    let (into, from) = (bytes.as_mut_ptr(), name.as_mut_ptr());
    let result = sys!(libc::SYS_recvfrom, fd, into, len, flags, from, &raw mut size);
    bytes.truncate(usize::try_from(result).unwrap_or(0));
    name.truncate(size as usize);
    let name = if result < 0 { String::new() } else { words(&name, ports) };
    println!("{what}: {} {:?} {name}", sys::show(result), String::from_utf8_lossy(&bytes));
}

pub(super) fn datagrams() {
    let (a, to_a) = bound();
    let b = udp();
    poll("fresh", b);
    report("nowhere", send(b, b"x", 0));
    report("send", send_to(b, b"one", 0, &to_a));
    report("empty", send_to(b, b"", 0, &to_a));
    report("three", send_to(b, b"three", 0, &to_a));
    println!("has a port {}", port(b) != 0);
    println!("{}", words(&told(libc::SYS_getsockname, b).1, &[("its own", port(b))]));
    let ports = [("b", port(b))];
    until(a, libc::POLLIN);
    poll("to be read", a);
    receive_from("peek", a, 10, libc::MSG_PEEK, &ports);
    receive_from("cut", a, 2, 0, &ports);
    receive_from("empty", a, 10, 0, &ports);
    receive_from("whole length", a, 2, libc::MSG_TRUNC, &ports);
    receive_from("none", a, 10, libc::MSG_DONTWAIT, &ports);
    report("wait for it", {
        let pid = fork(|| i32::from(send_to(b, b"later", 0, &to_a) != 5));
        receive_from("later", a, 10, 0, &ports);
        println!("{}", wait(pid));
        0
    });
    report("send", send_to(b, b"read", 0, &to_a));
    report_read("read", a, 20);
    report("send", send_to(b, b"kept", 0, &to_a));
    report("read nothing", sys::read(a, 0).0);
    report("to nowhere", sys!(libc::SYS_recvfrom, a, 8, 10, 0, 0, 0));
    receive_from("gone", a, 10, libc::MSG_DONTWAIT, &ports);
    report("from nowhere", sys!(libc::SYS_sendto, b, 8, 10, 0, to_a.as_ptr(), to_a.len()));
    report("listen", super::listen(a, 1));
    report("accept", super::accept(a));
    report("urgent", send_to(b, b"x", libc::MSG_OOB, &to_a));
    receive_from("urgent", a, 10, libc::MSG_OOB | libc::MSG_DONTWAIT, &ports);
}

pub(super) fn sizes() {
    let (a, to_a) = bound();
    let b = udp();
    for len in [65_507, 65_508, 65_535, 65_536, 100_000] {
        report("send", send_to(b, &vec![b'x'; len], 0, &to_a));
    }
    until(a, libc::POLLIN);
    println!("{}", sys::read(a, 100_000).0);
    receive("one only", a, 10, libc::MSG_DONTWAIT);
    let six = udp6();
    report("bind", bind(six, &v6(LOCAL6, 0)));
    let to_six = v6(LOCAL6, port(six));
    for len in [65_527, 65_528] {
        report("send", send_to(udp6(), &vec![b'x'; len], 0, &to_six));
    }
    println!("{}", sys::read(six, 100_000).0);
    let count = |request: u64, fd: i64| {
        let mut value = -1_i32;
        sys!(libc::SYS_ioctl, fd, request, &raw mut value);
        value
    };
    send_to(b, b"twelve bytes", 0, &to_a);
    send_to(b, b"more", 0, &to_a);
    until(a, libc::POLLIN);
    println!("{} {}", count(libc::FIONREAD, a), count(libc::TIOCOUTQ, b));
}

pub(super) fn addresses() {
    let (a, to_a) = bound();
    let b = udp();
    for len in [0, 1, 2, 8, 15] {
        report("short", send_to(b, b"x", 0, &to_a[..len]));
    }
    report("of the other family", send_to(b, b"x", 0, &v6(LOCAL6, 5)));
    report("of none", send_to(b, b"x", 0, &[&[0, 0][..], &to_a[2..]].concat()));
    report("port 0", send_to(b, b"x", 0, &v4(LOCAL, 0)));
    report("to any", send_to(b, b"any", 0, &v4([0; 4], port(a))));
    let six = udp6();
    report("mapped", send_to(six, b"mapped", 0, &v6(mapped(LOCAL), port(a))));
    report("of the older family", send_to(six, b"older", 0, &to_a));
    report("of none", send_to(six, b"x", 0, &[&[0, 0][..], &to_a[2..]].concat()));
    report("strange", send_to(six, b"x", 0, &[&[77, 0][..], &to_a[2..]].concat()));
    report("short", send_to(six, b"x", 0, &v6(LOCAL6, 5)[..20]));
    for _ in 0..4 {
        receive_from("got", a, 20, libc::MSG_DONTWAIT, &[("b", port(b)), ("six", port(six))]);
    }
    let any = udp6();
    report("bind", bind(any, &v6(ANY6, 0)));
    report("send", send_to(b, b"four", 0, &v4(LOCAL, port(any))));
    report("send", send_to(six, b"six", 0, &v6(LOCAL6, port(any))));
    for _ in 0..2 {
        receive_from("got", any, 20, libc::MSG_DONTWAIT, &[("b", port(b)), ("six", port(six))]);
    }
    let elsewhere = udp();
    report("bind", bind(elsewhere, &v4([127, 5, 5, 5], 0)));
    report("send", send_to(elsewhere, b"elsewhere", 0, &to_a));
    receive_from("got", a, 20, libc::MSG_DONTWAIT, &[("elsewhere", port(elsewhere))]);
    report("send", send_to(b, b"x", 0, &v4([127, 5, 5, 5], port(elsewhere))));
    receive_from("got", elsewhere, 20, libc::MSG_DONTWAIT, &[("b", port(b))]);
}

pub(super) fn connected() {
    let (a, to_a) = bound();
    let (b, to_b) = bound();
    let (c, _) = bound();
    report("connect", connect(a, &to_b));
    println!("{}", words(&told(libc::SYS_getpeername, a).1, &[("b", port(b))]));
    report("send", send(a, b"hello", 0));
    receive_from("got", b, 10, 0, &[("a", port(a))]);
    report("from another", send_to(c, b"unheard", 0, &to_a));
    report("from the peer", send_to(b, b"heard", 0, &to_a));
    receive_from("got", a, 10, 0, &[("b", port(b))]);
    receive("nothing", a, 10, libc::MSG_DONTWAIT);
    report("elsewhere", send_to(a, b"elsewhere", 0, &v4(LOCAL, port(c))));
    receive_from("got", c, 10, 0, &[("a", port(a))]);
    report("another peer", connect(a, &v4(LOCAL, port(c))));
    report("send", write(a, b"to c"));
    report_read("got", c, 10);
    report("none", connect(a, &[0; 16]));
    report("send", send(a, b"x", 0));
    report("getpeername", told(libc::SYS_getpeername, a).0);
    report("port 0", connect(a, &v4(LOCAL, 0)));
    report("getpeername", told(libc::SYS_getpeername, a).0);
    let fresh = udp();
    report("connect", connect(fresh, &v4([0; 4], port(b))));
    println!("{}", words(&told(libc::SYS_getsockname, fresh).1, &[("its own", port(fresh))]));
    println!("{}", words(&told(libc::SYS_getpeername, fresh).1, &[("b", port(b))]));
    report("none", connect(fresh, &[0; 16]));
    println!("{}", words(&told(libc::SYS_getsockname, fresh).1, &[("its own", port(fresh))]));
    report("short", connect(fresh, &to_b[..8]));
    report("wrong", connect(fresh, &v6(LOCAL6, 5)));
}

pub(super) fn refused() {
    let (gone, nobody) = bound();
    close(gone);
    let a = udp();
    report("unconnected", send_to(a, b"x", 0, &nobody));
    report("hears nothing", send_to(a, b"x", 0, &nobody));
    println!("{}", pending_error(a));
    report("connect", connect(a, &nobody));
    report("send", send(a, b"x", 0));
    until(a, libc::POLLERR);
    poll("refused", a);
    report("send", send(a, b"x", 0));
    report("send", send(a, b"x", 0));
    until(a, libc::POLLERR);
    receive("receive", a, 10, 0);
    receive("receive", a, 10, libc::MSG_DONTWAIT);
    report("send", send(a, b"x", 0));
    until(a, libc::POLLERR);
    println!("{} {}", pending_error(a), pending_error(a));
    let b = udp();
    report("RECVERR", set_option(b, libc::IPPROTO_IP, libc::IP_RECVERR, 1));
    report("send", send_to(b, b"came back", 0, &nobody));
    until(b, libc::POLLERR);
    poll("failed", b);
    let (mut bytes, mut name, mut control) = ([0_u8; 20], [0_u8; 16], [0_u8; 64]);
    let into = [bytes.as_mut_ptr() as u64, 20];
    let mut message =
        [name.as_mut_ptr() as u64, 16, into.as_ptr() as u64, 1, control.as_mut_ptr() as u64, 64, 0];
    report("errors", sys!(libc::SYS_recvmsg, b, message.as_mut_ptr(), libc::MSG_ERRQUEUE));
    println!("{:?} {}", String::from_utf8_lossy(&bytes), name[..] == nobody[..]);
    println!("{:?} control {} flags {:#x}", &control[8..48], message[5], message[6]);
    report("no more", sys!(libc::SYS_recvmsg, b, message.as_mut_ptr(), libc::MSG_ERRQUEUE));
    poll("told", b);
    println!("{}", pending_error(b));
}

pub(super) fn ends() {
    let (a, to_a) = bound();
    let b = udp();
    report("shutdown", shutdown(b, libc::SHUT_WR));
    report("connect", connect(b, &to_a));
    report("shutdown", shutdown(b, libc::SHUT_WR));
    report("send", send(b, b"x", 0));
    report("a signal", write(b, b"x"));
    poll("shut", b);
    let pid = fork(|| {
        report_read("woken", a, 10);
        0
    });
    sys::until_asleep(pid, pid);
    shutdown(a, libc::SHUT_RD);
    println!("{}", wait(pid));
    poll("shut", a);
    let (a, to_a) = bound();
    set_nonblocking(a, true);
    report("read", sys::read(a, 5).0);
    let time = [0_i64, 30_000];
    set_nonblocking(a, false);
    let name = libc::SO_RCVTIMEO;
    report("timeout", sys!(libc::SYS_setsockopt, a, libc::SOL_SOCKET, name, time.as_ptr(), 16));
    report("read", sys::read(a, 5).0);
    let c = udp();
    report("buffer", set_option(a, libc::SOL_SOCKET, libc::SO_RCVBUF, 3000));
    let mut all = 0;
    while send_to(c, &[b'x'; 1000], 0, &to_a) == 1000 && all < 100 {
        all += 1;
    }
    let mut got = 0;
    while sys::read(a, 2000).0 > 0 {
        got += 1;
    }
    println!("{all} sent, some lost {}", got < all && got > 0);
    report("the port", bind(udp(), &to_a));
    close(a);
    report("free at once", bind(udp(), &to_a));
}

pub(super) fn shared_ports() {
    up();
    let with = |option: i32| {
        let fd = udp();
        report("option", set_option(fd, libc::SOL_SOCKET, option, 1));
        fd
    };
    let one = with(libc::SO_REUSEADDR);
    report("bind", bind(one, &v4(LOCAL, 0)));
    let at = v4(LOCAL, port(one));
    report("without", bind(udp(), &at));
    let two = with(libc::SO_REUSEADDR);
    report("with", bind(two, &at));
    report("send", send_to(udp(), b"the last gets it", 0, &at));
    receive("one", one, 20, libc::MSG_DONTWAIT);
    receive("two", two, 20, libc::MSG_DONTWAIT);
    close(two);
    report("send", send_to(udp(), b"the first again", 0, &at));
    receive("one", one, 20, libc::MSG_DONTWAIT);
    let any = with(libc::SO_REUSEADDR);
    report("bind", bind(any, &v4([0; 4], port(one))));
    report("send", send_to(udp(), b"exactly", 0, &at));
    report("send", send_to(udp(), b"any", 0, &v4([127, 0, 0, 9], port(one))));
    receive("one", one, 20, libc::MSG_DONTWAIT);
    receive("any", any, 20, libc::MSG_DONTWAIT);
    let group: Vec<i64> = (0..3).map(|_| with(libc::SO_REUSEPORT)).collect();
    report("bind", bind(group[0], &v4(LOCAL, 0)));
    let at = v4(LOCAL, port(group[0]));
    report("bind", bind(group[1], &at));
    report("bind", bind(group[2], &at));
    let sender = udp();
    for _ in 0..9 {
        send_to(sender, b"x", 0, &at);
    }
    let mut counts: Vec<i32> = group
        .iter()
        .map(|fd| {
            set_nonblocking(*fd, true);
            (0..20).take_while(|_| sys::read(*fd, 5).0 == 1).count() as i32
        })
        .collect();
    counts.sort_unstable();
    println!("one sender, one receiver: {counts:?}");
}

/// Receives with control messages and shows them.
fn with_control(what: &str, fd: i64, room: u64) {
    let (mut bytes, mut control) = ([0_u8; 20], [0_u8; 128]);
    let into = [bytes.as_mut_ptr() as u64, 20];
    let mut message = [0, 0, into.as_ptr() as u64, 1, control.as_mut_ptr() as u64, room, 0];
    let result = sys!(libc::SYS_recvmsg, fd, message.as_mut_ptr(), 0);
    println!("{what}: {} {:?} flags {:#x}", sys::show(result), &control[..message[5] as usize], message[6]);
}

pub(super) fn control() {
    let (a, to_a) = bound();
    for name in [libc::IP_PKTINFO, libc::IP_RECVTTL, libc::IP_RECVTOS] {
        report("option", set_option(a, libc::IPPROTO_IP, name, 1));
    }
    let b = udp();
    report("send", send_to(b, b"x", 0, &to_a));
    with_control("got", a, 128);
    report("TOS", set_option(b, libc::IPPROTO_IP, libc::IP_TOS, 0x20));
    report("TTL", set_option(b, libc::IPPROTO_IP, libc::IP_TTL, 9));
    report("send", send_to(b, b"x", 0, &to_a));
    with_control("got", a, 128);
    report("send", send_to(b, b"x", 0, &to_a));
    with_control("cut", a, 40);
    report("send", send_to(b, b"x", 0, &to_a));
    with_control("none", a, 0);
    let byte = *b"y";
    let vector = [byte.as_ptr() as u64, 1];
    let asked = |control: &[u64], len: u64| {
        let message = [to_a.as_ptr() as u64, 16, vector.as_ptr() as u64, 1, control.as_ptr() as u64, len, 0];
        sys!(libc::SYS_sendmsg, b, message.as_ptr(), 0)
    };
    // cmsghdr: len, level and type; then the data.
    report("ttl", asked(&[20, 2 << 32, 33], 24));
    with_control("got", a, 128);
    report("ttl 0", asked(&[20, 2 << 32, 0], 24));
    report("tos", asked(&[20, 1 << 32, 0x40], 24));
    with_control("got", a, 128);
    let from = u64::from(u32::from_ne_bytes([127, 6, 6, 6])) << 32;
    report("from", asked(&[28, 8 << 32, from, 0], 32));
    with_control("got", a, 128);
    report("short", asked(&[20, 8 << 32, from], 24));
    report("unknown", asked(&[20, 99 << 32, 0], 24));
    let six = udp6();
    report("bind", bind(six, &v6(ANY6, 0)));
    for name in [libc::IPV6_RECVPKTINFO, libc::IPV6_RECVHOPLIMIT, libc::IPV6_RECVTCLASS] {
        report("option", set_option(six, libc::IPPROTO_IPV6, name, 1));
    }
    report("send", send_to(udp6(), b"x", 0, &v6(LOCAL6, port(six))));
    with_control("got", six, 128);
    report("send", send_to(b, b"x", 0, &v4(LOCAL, port(six))));
    with_control("of the older", six, 128);
    classes(six);
}

/// What control messages say of a datagram's class and hops: an int, of which -1 is no number of hops in particular.
fn classes(six: i64) {
    let (to, byte, from) = (v6(LOCAL6, port(six)), *b"z", udp6());
    let vector = [byte.as_ptr() as u64, 1];
    for (kind, value, len) in
        [(67_u64, 0x40_u32, 20), (67, 256, 20), (67, 1, 17), (52, 9, 20), (52, u32::MAX, 20)]
    {
        let control = [len, kind << 32 | 41, u64::from(value)];
        let message = [to.as_ptr() as u64, 28, vector.as_ptr() as u64, 1, control.as_ptr() as u64, 24, 0];
        let sent = sys!(libc::SYS_sendmsg, from, message.as_ptr(), 0);
        report("class or hops", sent);
        if sent > 0 {
            with_control("got", six, 128);
        }
    }
}

pub(super) fn joined() {
    let (a, to_a) = bound();
    let b = udp();
    report("more", send_to(b, b"one ", libc::MSG_MORE, &to_a));
    report("more", send_to(b, b"two ", libc::MSG_MORE, &to_a));
    receive("not yet", a, 30, libc::MSG_DONTWAIT);
    report("done", send(b, b"three", 0));
    receive("all", a, 30, libc::MSG_DONTWAIT);
    report("cork", set_option(b, libc::IPPROTO_UDP, 1, 1));
    println!("{}", option(b, libc::IPPROTO_UDP, 1));
    report("send", send_to(b, b"in ", 0, &to_a));
    report("send", send_to(b, b"parts", 0, &to_a));
    receive("not yet", a, 30, libc::MSG_DONTWAIT);
    report("uncork", set_option(b, libc::IPPROTO_UDP, 1, 0));
    receive("all", a, 30, libc::MSG_DONTWAIT);
    report("segments", set_option(b, libc::IPPROTO_UDP, 103, 4));
    println!("{}", option(b, libc::IPPROTO_UDP, 103));
    report("send", send_to(b, b"abcdefghij", 0, &to_a));
    for _ in 0..4 {
        receive("part", a, 30, libc::MSG_DONTWAIT);
    }
    report("unknown", set_option(b, libc::IPPROTO_UDP, 99, 4));
    report("unknown", option(b, libc::IPPROTO_UDP, 99));
}

pub(super) fn many() {
    // Two take turns; then messages in bundles.
    let (a, to_a) = bound();
    let (b, to_b) = bound();
    report("connect", connect(a, &to_b));
    report("connect", connect(b, &to_a));
    let pid = fork(|| {
        for _ in 0..500 {
            let (_, bytes) = sys::read(b, 100);
            write(b, &bytes);
        }
        0
    });
    let mut wrong = 0;
    for round in 0..500_u32 {
        write(a, &round.to_ne_bytes());
        wrong += i32::from(sys::read(a, 100).1 != round.to_ne_bytes());
    }
    println!("{wrong} wrong, {}", wait(pid));
    let one = *b"bundle";
    let vectors = [one.as_ptr() as u64, 6];
    let header = [0_u64, 0, vectors.as_ptr() as u64, 1, 0, 0, 0, 0];
    let mut three = [header, header, header].concat();
    report("sendmmsg", sys!(libc::SYS_sendmmsg, a, three.as_mut_ptr(), 3, 0));
    println!("{} {} {}", three[7], three[15], three[23]);
    let mut got = [[0_u8; 10]; 4];
    let into: Vec<[u64; 2]> = got.iter_mut().map(|part| [part.as_mut_ptr() as u64, 10]).collect();
    let mut four: Vec<u64> =
        into.iter().flat_map(|vector| [0, 0, vector.as_ptr() as u64, 1, 0, 0, 0, 0]).collect();
    until(b, libc::POLLIN);
    report("recvmmsg", sys!(libc::SYS_recvmmsg, b, four.as_mut_ptr(), 4, libc::MSG_DONTWAIT, 0));
    println!("{} {} {} {:?}", four[7], four[15], four[23], String::from_utf8_lossy(&got[2]));
}
