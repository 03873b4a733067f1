//! Pings, by sockets for them (icmp(7)) and by raw ones (raw(7)).

use super::{
    ANY6, LOCAL, LOCAL6, bind, connect, option, poll, port, set_nonblocking, set_option, shutdown, told,
    until, up, v4, v6, words,
};
use crate::sys::{self, close, report};

const ICMP: i32 = libc::IPPROTO_ICMP;
const ICMPV6: i32 = libc::IPPROTO_ICMPV6;
const GROUPS: &str = "/proc/sys/net/ipv4/ping_group_range";

fn ping() -> i64 {
    sys!(libc::SYS_socket, libc::AF_INET, libc::SOCK_DGRAM, ICMP)
}

fn ping6() -> i64 {
    sys!(libc::SYS_socket, libc::AF_INET6, libc::SOCK_DGRAM, ICMPV6)
}

fn raw() -> i64 {
    sys!(libc::SYS_socket, libc::AF_INET, libc::SOCK_RAW, ICMP)
}

fn raw6() -> i64 {
    sys!(libc::SYS_socket, libc::AF_INET6, libc::SOCK_RAW, ICMPV6)
}

/// Lets some groups ping while `body` runs.
fn with_groups(range: &str, body: impl FnOnce()) {
    up();
    let before = std::fs::read_to_string(GROUPS).unwrap_or_default();
    if let Err(error) = std::fs::write(GROUPS, range) {
        println!("{GROUPS}: {error}");
    }
    body();
    let _ = std::fs::write(GROUPS, before);
}

/// A request, with an identifier and a number, and these bytes in it; an IPv4 one is made whole.
fn request(kind: u8, carried: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0, 0x12, 0x34, 0, 9][..], carried].concat();
    let pairs = message
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let sum: u32 = pairs.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

fn send_to(fd: i64, bytes: &[u8], flags: i32, address: &[u8]) -> i64 {
    sys!(libc::SYS_sendto, fd, bytes.as_ptr(), bytes.len(), flags, address.as_ptr(), address.len())
}

/// What comes: its type, whether the identifier is `ident`, its number, and what it carries.
fn hear(what: &str, fd: i64, len: usize, flags: i32, ident: u16) {
    let (mut bytes, mut name, mut size) = (vec![0_u8; len], vec![0_u8; 128], 128_u32);
    let result = sys!(
        libc::SYS_recvfrom,
        fd,
        bytes.as_mut_ptr(),
        len,
        flags | libc::MSG_DONTWAIT,
        name.as_mut_ptr(),
        &raw mut size
    );
    bytes.truncate(usize::try_from(result).unwrap_or(0));
    name.truncate(size as usize);
    let from = if result < 0 { String::new() } else { words(&name, &[]) };
    let said = match &bytes[..] {
        [kind, code, _, _, high, low, number @ ..] if bytes.len() >= 8 => format!(
            "type {kind} code {code} own {} number {:?} {:?}",
            u16::from_be_bytes([*high, *low]) == ident,
            &number[..2],
            String::from_utf8_lossy(&number[2..])
        ),
        other => format!("{other:?}"),
    };
    println!("{what}: {} {said} {from}", sys::show(result));
}

pub(super) fn kinds() {
    with_groups("1 0", || {
        report("nobody may", ping());
        report("nobody may", ping6());
    });
    with_groups("0 0", || {
        for (domain, protocol) in [(libc::AF_INET, ICMPV6), (libc::AF_INET6, ICMP)] {
            report("of the other family", sys!(libc::SYS_socket, domain, libc::SOCK_DGRAM, protocol));
        }
        report("stream", sys!(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, ICMP));
        report("raw without protocol", sys!(libc::SYS_socket, libc::AF_INET, libc::SOCK_RAW, 0));
        for (what, fd) in [("ping", ping()), ("ping6", ping6()), ("raw", raw()), ("raw6", raw6())] {
            let of = |name| option(fd, libc::SOL_SOCKET, name);
            println!(
                "{what}: {} type {} protocol {} domain {}",
                fd >= 0,
                of(libc::SO_TYPE),
                of(libc::SO_PROTOCOL),
                of(libc::SO_DOMAIN)
            );
            poll("fresh", fd);
            report("listen", super::listen(fd, 1));
            report("accept", super::accept(fd));
            close(fd);
        }
        sys::in_child("of another group", || {
            sys!(libc::SYS_setgroups, 0, 0);
            sys!(libc::SYS_setresgid, 1000, 1000, 1000);
            sys!(libc::SYS_setresuid, 1000, 1000, 1000);
            report("ping", ping());
            report("raw", raw());
            report("raw6", raw6());
            0
        });
        sys::in_child("with a group that may", || {
            sys!(libc::SYS_setgroups, 1, [0_u32].as_ptr());
            sys!(libc::SYS_setresgid, 1000, 1000, 1000);
            sys!(libc::SYS_setresuid, 1000, 1000, 1000);
            println!("ping: {}", ping() >= 0);
            0
        });
    });
}

pub(super) fn echo() {
    with_groups("0 0", || {
        let fd = ping();
        report("send", send_to(fd, &request(8, b"hello"), 0, &v4(LOCAL, 7)));
        let ident = port(fd);
        println!("has an identifier {}", ident != 0);
        until(fd, libc::POLLIN);
        poll("to be read", fd);
        hear("peek", fd, 100, libc::MSG_PEEK, ident);
        hear("cut", fd, 10, libc::MSG_TRUNC, ident);
        hear("gone", fd, 100, 0, ident);
        report("to another of its own", send_to(fd, &request(8, b""), 0, &v4([127, 3, 2, 1], 0)));
        hear("from there", fd, 100, 0, ident);
        report("to nobody in particular", send_to(fd, &request(8, b"x"), 0, &v4([0; 4], 0)));
        hear("from oneself", fd, 100, 0, ident);
        report("long", send_to(fd, &request(8, &[b'x'; 60_000]), 0, &v4(LOCAL, 0)));
        hear("long", fd, 20, libc::MSG_TRUNC, ident);
        report("connect", connect(fd, &v4(LOCAL, 0)));
        report("peer", told(libc::SYS_getpeername, fd).0);
        report("send", super::send(fd, &request(8, b"there"), 0));
        hear("connected", fd, 100, 0, ident);
        let fd = ping6();
        report("send", send_to(fd, &request(128, b"hello"), 0, &v6(LOCAL6, 0)));
        hear("of IPv6", fd, 100, 0, port(fd));
        set_nonblocking(fd, true);
        hear("none", fd, 100, 0, port(fd));
    });
}

pub(super) fn errors() {
    with_groups("0 0", || {
        let (fd, to) = (ping(), v4(LOCAL, 0));
        report("nowhere", super::send(fd, &request(8, b""), 0));
        report("short", send_to(fd, &request(8, b"")[..7], 0, &to));
        report("empty", send_to(fd, b"", 0, &to));
        report("an answer", send_to(fd, &request(0, b""), 0, &to));
        report("a redirect", send_to(fd, &request(5, b""), 0, &to));
        let mut coded = request(8, b"");
        coded[1] = 1;
        report("with a code", send_to(fd, &coded, 0, &to));
        report("urgent", send_to(fd, &request(8, b""), libc::MSG_OOB, &to));
        report("short address", send_to(fd, &request(8, b""), 0, &to[..12]));
        report("another family", send_to(fd, &request(8, b""), 0, &v6(LOCAL6, 0)));
        report("too long", send_to(fd, &request(8, &[0; 65_528]), 0, &to));
        report("too long for a packet", send_to(fd, &request(8, &[0; 65_510]), 0, &to));
        report("from nowhere", sys!(libc::SYS_sendto, fd, 8, 10, 0, to.as_ptr(), to.len()));
        hear("urgent", fd, 10, libc::MSG_OOB, 0);
        hear("errors", fd, 10, libc::MSG_ERRQUEUE, 0);
        report("shutdown", shutdown(fd, 2));
        report("connect", connect(fd, &to));
        report("shutdown", shutdown(fd, 1));
        report("send", super::send(fd, &request(8, b""), 0));
        let fd = ping6();
        report("mapped", send_to(fd, &request(128, b""), 0, &v6(super::mapped(LOCAL), 0)));
        report("another family", send_to(fd, &request(128, b""), 0, &to));
        report("of IPv4", send_to(fd, &request(8, b""), 0, &v6(LOCAL6, 0)));
    });
}

pub(super) fn names() {
    with_groups("0 0", || {
        let (a, b) = (ping(), ping());
        println!("{}", words(&told(libc::SYS_getsockname, a).1, &[]));
        report("bind", bind(a, &v4([127, 0, 0, 2], 4321)));
        println!("{}", words(&told(libc::SYS_getsockname, a).1, &[("its own", 4321)]));
        report("twice", bind(a, &v4(LOCAL, 4322)));
        report("taken", bind(b, &v4([127, 0, 0, 2], 4321)));
        report("not here", bind(b, &v4([192, 0, 2, 1], 0)));
        report("send", send_to(a, &request(8, b"bound"), 0, &v4(LOCAL, 0)));
        hear("bound", a, 100, 0, 4321);
        report("any", bind(b, &v4([0; 4], 0)));
        println!("has an identifier {}", port(b) != 0);
        report("connect", connect(b, &v4([127, 0, 0, 9], 5)));
        println!("{}", words(&told(libc::SYS_getpeername, b).1, &[("five", 5)]));
        let c = ping6();
        report("of IPv6", bind(c, &v6(ANY6, 4321)));
        println!("{}", words(&told(libc::SYS_getsockname, c).1, &[("its own", 4321)]));
        let d = raw();
        println!("{}", words(&told(libc::SYS_getsockname, d).1, &[("the protocol", 1)]));
        report("bind", bind(d, &v4([127, 0, 0, 3], 77)));
        println!(
            "{}",
            words(&told(libc::SYS_getsockname, d).1, &[("the protocol", 1), ("what was said", 77)])
        );
    });
}

/// A packet that a raw socket reads: what of its header does not vary, and what is in it.
fn packet(what: &str, fd: i64) {
    let mut bytes = vec![0_u8; 200];
    let result = sys!(libc::SYS_recvfrom, fd, bytes.as_mut_ptr(), 200, libc::MSG_DONTWAIT, 0, 0);
    let Ok(len) = usize::try_from(result) else { return report(what, result) };
    let (header, message) = bytes[..len].split_at(20.min(len));
    println!(
        "{what}: {len} bytes, {:#x} {:?} {:?} {:?}: type {} and {:?}",
        header[0],
        &header[2..4],
        &header[8..10],
        &header[12..],
        message[0],
        String::from_utf8_lossy(&message[8..])
    );
}

pub(super) fn raw_sockets() {
    up();
    let fd = raw();
    report("send", send_to(fd, &request(8, b"hello"), 0, &v4(LOCAL, 0)));
    let mut count = 0_i32;
    report("bytes", sys!(libc::SYS_ioctl, fd, libc::FIONREAD, &raw mut count));
    println!("{count}");
    packet("the request", fd);
    packet("the answer", fd);
    packet("no more", fd);
    let mut broken = request(8, b"broken");
    broken[9] ^= 1;
    report("broken", send_to(fd, &broken, 0, &v4(LOCAL, 0)));
    packet("the request", fd);
    packet("no answer", fd);
    // ICMP_FILTER of SOL_RAW: answers only.
    report("filter", set_option(fd, 255, 1, !1));
    report("filter", option(fd, 255, 1));
    report("send", send_to(fd, &request(8, b"filtered"), 0, &v4(LOCAL, 0)));
    packet("the answer", fd);
    packet("no more", fd);
    let other = raw();
    report("bind", bind(other, &v4([127, 0, 0, 2], 0)));
    report("send", send_to(fd, &request(8, b"to all"), 0, &v4(LOCAL, 0)));
    packet("not to that address", other);
    report("send", send_to(fd, &request(8, b"to it"), 0, &v4([127, 0, 0, 2], 0)));
    packet("to that address", other);
    let connected = raw();
    report("connect", connect(connected, &v4([127, 0, 0, 4], 0)));
    report("send", super::send(connected, &request(8, b"connected"), 0));
    packet("from there", connected);
    packet("no more", connected);
    report("an answer that nobody asked for", send_to(fd, &request(0, b"why"), 0, &v4(LOCAL, 0)));
    report("filter of the other family", set_option(fd, 58, 1, 0));
}

pub(super) fn raw_sockets_v6() {
    up();
    let fd = raw6();
    report("checksum", set_option(fd, 255, 7, 2));
    report("send", send_to(fd, &request(128, b"hello"), 0, &v6(LOCAL6, 0)));
    hear("the request", fd, 100, 0, 0x1234);
    hear("the answer", fd, 100, 0, 0x1234);
    hear("no more", fd, 100, 0, 0x1234);
    let mut filter = [u32::MAX; 8];
    filter[4] = !2;
    report("filter", sys!(libc::SYS_setsockopt, fd, 58, 1, filter.as_ptr(), 32));
    report("send", send_to(fd, &request(128, b"filtered"), 0, &v6(LOCAL6, 0)));
    hear("the answer", fd, 100, 0, 0x1234);
    hear("no more", fd, 100, 0, 0x1234);
}
