//! Unix sockets.

use crate::Case;
use crate::sys::{self, c, close, fork, report, report_read, wait, write};
use room::{option, poll, set_option};

mod more;
pub(crate) mod pass;
pub(crate) mod room;
pub(crate) mod urgent;

pub(crate) const CASES: &[Case] = &[
    ("socket_pair", pair),
    ("socket_datagram_pair", datagram_pair),
    ("socket_unix_stream", unix_stream),
    ("socket_rights", rights),
    ("socket_errors", errors),
    ("socket_room", room::room),
    ("socket_room_datagram", room::room_datagram),
    ("socket_datagram_peers", room::datagram_peers),
    ("socket_ends", room::ends),
    ("socket_names", names),
    ("socket_options", options),
    ("socket_parts", parts),
    ("socket_credentials", credentials),
    ("socket_timeouts", timeouts),
    ("socket_nested", pass::nested),
    ("socket_circles", pass::circles),
    ("socket_circles_by_the_thousand", pass::circles_by_the_thousand),
    ("socket_too_many_files", pass::too_many),
    ("socket_room_for_control", pass::room_for_control),
    ("socket_sender_noted", pass::noted),
    ("socket_claims", pass::claims),
    ("socket_levels", more::levels),
    ("socket_least", more::least),
    ("socket_peers", more::peers),
    ("socket_abstract_types", more::abstract_types),
    ("socket_interrupted", more::interrupted),
    ("socket_faults", more::faults),
    ("socket_urgent", urgent::unix_bytes),
    ("socket_urgent_waits", urgent::unix_waits),
    ("socket_urgent_signals", urgent::unix_signals),
    ("socket_urgent_kinds", urgent::other_kinds),
    ("socket_urgent_by_chance", urgent::unix_chance),
];

pub(crate) fn socketpair(kind: i32) -> (i64, i64) {
    let mut fds = [-1_i32; 2];
    let result = sys!(libc::SYS_socketpair, libc::AF_UNIX, kind, 0, fds.as_mut_ptr());
    if result != 0 {
        report("socketpair", result);
    }
    (i64::from(fds[0]), i64::from(fds[1]))
}

fn send(fd: i64, bytes: &[u8], flags: i32) -> i64 {
    sys!(libc::SYS_sendto, fd, bytes.as_ptr(), bytes.len(), flags, 0, 0)
}

fn receive(what: &str, fd: i64, len: usize, flags: i32) {
    let mut bytes = vec![0_u8; len];
    let result = sys!(libc::SYS_recvfrom, fd, bytes.as_mut_ptr(), len, flags, 0, 0);
    bytes.truncate(usize::try_from(result).unwrap_or(0));
    println!("{what}: {} {:?}", sys::show(result), String::from_utf8_lossy(&bytes));
}

fn pair() {
    let (a, b) = socketpair(libc::SOCK_STREAM);
    report("write", write(a, b"one"));
    report("send", send(a, b"two", 0));
    receive("peek", b, 4, libc::MSG_PEEK);
    report_read("read", b, 10);
    receive("nothing", b, 10, libc::MSG_DONTWAIT);
    report("back", write(b, b"back"));
    report_read("read", a, 10);
    report("shutdown", sys!(libc::SYS_shutdown, a, libc::SHUT_WR));
    report_read("end", b, 10);
    report("write after shutdown", send(a, b"x", libc::MSG_NOSIGNAL));
    report("the other way", write(b, b"still"));
    report_read("read", a, 10);
    close(a);
    report("peer gone", send(b, b"x", libc::MSG_NOSIGNAL));
    report_read("end", b, 10);
}

fn datagram_pair() {
    let (a, b) = socketpair(libc::SOCK_DGRAM);
    send(a, b"first", 0);
    send(a, b"", 0);
    send(a, b"third", 0);
    receive("cut", b, 3, 0);
    receive("empty", b, 10, 0);
    receive("third", b, 10, 0);
    receive("none", b, 10, libc::MSG_DONTWAIT);
    let (a, b) = socketpair(libc::SOCK_SEQPACKET);
    send(a, b"packet", 0);
    receive("packet", b, 10, 0);
    close(a);
    receive("end", b, 10, 0);
}

fn address(path: &str) -> Vec<u8> {
    [&(libc::AF_UNIX as u16).to_ne_bytes(), path.as_bytes(), b"\0"].concat()
}

fn unix_stream() {
    sys::scratch("unix");
    let server = sys!(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0);
    let name = address("sock");
    let client = || sys!(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0);
    report("nobody", sys!(libc::SYS_connect, client(), name.as_ptr(), name.len()));
    report("bind", sys!(libc::SYS_bind, server, name.as_ptr(), name.len()));
    report("bind again", sys!(libc::SYS_bind, client(), name.as_ptr(), name.len()));
    report("not listening", sys!(libc::SYS_connect, client(), name.as_ptr(), name.len()));
    report("listen", sys!(libc::SYS_listen, server, 5));
    let pid = fork(|| {
        let own = client();
        report("connect", sys!(libc::SYS_connect, own, name.as_ptr(), name.len()));
        write(own, b"hello");
        report_read("answer", own, 20);
        0
    });
    let connection = sys!(libc::SYS_accept4, server, 0, 0, libc::SOCK_CLOEXEC);
    report_read("request", connection, 20);
    write(connection, b"bye");
    println!("{}", wait(pid));
    report_read("closed", connection, 20);
    let mut credentials = [0_i32; 3];
    let mut len = 12_u32;
    report("SO_PEERCRED", {
        let out = credentials.as_mut_ptr();
        sys!(libc::SYS_getsockopt, connection, libc::SOL_SOCKET, libc::SO_PEERCRED, out, &raw mut len)
    });
    println!("{}", i64::from(credentials[0]) == pid);
    println!("type {:o}", {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata("sock").map(|m| m.mode() & libc::S_IFMT).unwrap_or(0)
    });
    sys::unscratch();
}

fn rights() {
    let (a, b) = socketpair(libc::SOCK_STREAM);
    let (read_end, write_end) = sys::pipe(0);
    let byte = *b"x";
    let vector = [byte.as_ptr() as u64, 1];
    // cmsghdr: len, level, type, then the descriptor.
    let control = [20_u64, 1 | 1 << 32, write_end as u64];
    let message = [0_u64, 0, vector.as_ptr() as u64, 1, control.as_ptr() as u64, 24, 0];
    report("sendmsg", sys!(libc::SYS_sendmsg, a, message.as_ptr(), 0));
    close(write_end);
    let mut got = [0_u8; 4];
    let into = [got.as_mut_ptr() as u64, 4];
    let mut received = [0_u64; 4];
    let mut message = [0_u64, 0, into.as_ptr() as u64, 1, received.as_mut_ptr() as u64, 32, 0];
    report("recvmsg", sys!(libc::SYS_recvmsg, b, message.as_mut_ptr(), 0));
    println!("{:?} len {} kind {:#x}", got[0], received[0], received[1]);
    let passed = i64::from(received[2] as i32);
    report("write", write(passed, b"via"));
    report_read("read", read_end, 10);
    close(passed);
    report_read("end", read_end, 10);
}

fn errors() {
    report("bad family", sys!(libc::SYS_socket, 99, libc::SOCK_STREAM, 0));
    report("bad type", sys!(libc::SYS_socket, libc::AF_UNIX, 9, 0));
    report("not a socket", sys!(libc::SYS_listen, 0, 1));
    report("not open", sys!(libc::SYS_listen, 99, 1));
    let fd = sys!(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0);
    report("not connected", send(fd, b"x", libc::MSG_NOSIGNAL));
    report("accept", sys!(libc::SYS_accept4, fd, 0, 0, 0));
    let short = c("");
    report("no address", sys!(libc::SYS_connect, fd, short.as_ptr(), 1));
}

fn socket(kind: i32) -> i64 {
    sys!(libc::SYS_socket, libc::AF_UNIX, kind, 0)
}

/// A socket with an abstract name of its own, which is returned as an address.
fn named(kind: i32, name: &str) -> (i64, Vec<u8>) {
    let fd = socket(kind);
    let own = format!("\0{name}-{}", sys!(libc::SYS_getpid));
    let address = [&(libc::AF_UNIX as u16).to_ne_bytes(), own.as_bytes()].concat();
    report("bind", sys!(libc::SYS_bind, fd, address.as_ptr(), address.len()));
    (fd, address)
}

fn connect(what: &str, fd: i64, address: &[u8]) {
    report(what, sys!(libc::SYS_connect, fd, address.as_ptr(), address.len()));
}

fn names() {
    let (server, address) = named(libc::SOCK_STREAM, "names");
    report("listen", sys!(libc::SYS_listen, server, 1));
    let (client, own) = named(libc::SOCK_STREAM, "client");
    connect("connect", client, &address);
    let accepted = sys!(libc::SYS_accept4, server, 0, 0, 0);
    let (mut name, mut len, mut byte) = ([0_u8; 110], 110_u32, [0_u8; 4]);
    write(client, b"x");
    report("recvfrom", {
        let (into, from) = (byte.as_mut_ptr(), name.as_mut_ptr());
        sys!(libc::SYS_recvfrom, accepted, into, 4, 0, from, &raw mut len)
    });
    println!("the client's name {}", name[..len as usize] == own);
    write(accepted, b"y");
    len = 110;
    report("recvfrom", {
        let (into, from) = (byte.as_mut_ptr(), name.as_mut_ptr());
        sys!(libc::SYS_recvfrom, client, into, 4, 0, from, &raw mut len)
    });
    println!("the server's name {}", name[..len as usize] == address);
    let (a, b) = socketpair(libc::SOCK_DGRAM);
    write(a, b"x");
    len = 110;
    report("recvfrom", {
        let (into, from) = (byte.as_mut_ptr(), name.as_mut_ptr());
        sys!(libc::SYS_recvfrom, b, into, 4, 0, from, &raw mut len)
    });
    println!("no name: {len} bytes");
    len = 110;
    report("getsockname", {
        let into = name.as_mut_ptr();
        sys!(libc::SYS_getsockname, b, into, &raw mut len)
    });
    println!("{len} bytes");
    let (server, _) = named(libc::SOCK_DGRAM, "again");
    report("bind again", sys!(libc::SYS_bind, server, address.as_ptr(), address.len()));
    report("let bind", sys!(libc::SYS_bind, server, address.as_ptr(), 2));
}

fn options() {
    let fd = socket(libc::SOCK_STREAM);
    for name in [
        libc::SO_REUSEADDR,
        libc::SO_KEEPALIVE,
        libc::SO_BROADCAST,
        libc::SO_OOBINLINE,
        libc::SO_DONTROUTE,
        libc::SO_PRIORITY,
        libc::SO_PASSCRED,
    ] {
        println!("option {name}: {}", sys::show(option(fd, name)));
        report("set", set_option(fd, name, 5));
        println!("is {}", sys::show(option(fd, name)));
        report("reset", set_option(fd, name, 0));
        println!("is {}", sys::show(option(fd, name)));
    }
    for name in [libc::SO_SNDBUF, libc::SO_RCVBUF] {
        for value in [0, 5000, 100_000] {
            report("set", set_option(fd, name, value));
            println!("buffer {}", option(fd, name));
        }
        // Up to net.core.wmem_max, which is no small number, but any.
        for value in [1 << 20, -5] {
            report("set", set_option(fd, name, value));
            println!("large {}", option(fd, name) >= 2 * 212_992);
        }
    }
    let linger = [1_i32, 7];
    report("SO_LINGER", {
        let from = linger.as_ptr();
        sys!(libc::SYS_setsockopt, fd, libc::SOL_SOCKET, libc::SO_LINGER, from, 8)
    });
    let (mut got, mut len) = ([0_i32; 2], 8_u32);
    report("SO_LINGER", {
        let into = got.as_mut_ptr();
        sys!(libc::SYS_getsockopt, fd, libc::SOL_SOCKET, libc::SO_LINGER, into, &raw mut len)
    });
    println!("{got:?} {len}");
    report("unknown", set_option(fd, 9999, 1));
    sys::in_child("without privileges", || {
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        report("SO_SNDBUFFORCE", set_option(fd, libc::SO_SNDBUFFORCE, 5000));
        report("SO_PRIORITY", set_option(fd, libc::SO_PRIORITY, 7));
        0
    });
}

/// Sends a byte with a copy of descriptor 0.
fn send_file(fd: i64, byte: u8) {
    let vector = [(&raw const byte) as u64, 1];
    let control = [20_u64, 1 | 1 << 32, 0];
    let message = [0_u64, 0, vector.as_ptr() as u64, 1, control.as_ptr() as u64, 24, 0];
    report("send a file", sys!(libc::SYS_sendmsg, fd, message.as_ptr(), 0));
}

fn parts() {
    let (a, b) = socketpair(libc::SOCK_STREAM);
    report("nothing", write(a, b""));
    poll("nothing", b);
    report("read nothing", sys::read(b, 0).0);
    write(a, b"1");
    send_file(a, b'2');
    write(a, b"3");
    send_file(a, b'4');
    for _ in 0..3 {
        let (mut got, mut control) = ([0_u8; 9], [0_u64; 8]);
        let into = [got.as_mut_ptr() as u64, 9];
        let mut message = [0_u64, 0, into.as_ptr() as u64, 1, control.as_mut_ptr() as u64, 64, 0];
        let flags = libc::MSG_DONTWAIT;
        report("recvmsg", sys!(libc::SYS_recvmsg, b, message.as_mut_ptr(), flags));
        println!("{:?}, control {}", String::from_utf8_lossy(&got), message[5]);
    }
    let (a, b) = socketpair(libc::SOCK_SEQPACKET);
    write(a, b"packet");
    report("read nothing", sys::read(b, 0).0);
    receive("nothing", b, 0, 0);
    receive("gone", b, 10, libc::MSG_DONTWAIT);
}

fn credentials() {
    let (a, b) = socketpair(libc::SOCK_STREAM);
    report("SO_PASSCRED", set_option(b, libc::SO_PASSCRED, 1));
    write(a, b"mine");
    let pid = fork(|| i32::from(write(a, b"child's") != 7));
    println!("{}", wait(pid));
    for expected in [sys!(libc::SYS_getpid), pid] {
        let (mut got, mut control) = ([0_u8; 20], [0_i32; 16]);
        let into = [got.as_mut_ptr() as u64, 20];
        let mut message = [0_u64, 0, into.as_ptr() as u64, 1, control.as_mut_ptr() as u64, 64, 0];
        report("recvmsg", sys!(libc::SYS_recvmsg, b, message.as_mut_ptr(), 0));
        println!("{:?} right {}", String::from_utf8_lossy(&got), i64::from(control[4]) == expected);
    }
}

fn timeouts() {
    let timeout = |fd: i64, name: i32| {
        let time = [0_i64, 30_000];
        report("timeout", sys!(libc::SYS_setsockopt, fd, libc::SOL_SOCKET, name, time.as_ptr(), 16));
    };
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        let (a, b) = socketpair(kind);
        timeout(b, libc::SO_RCVTIMEO);
        timeout(a, libc::SO_SNDTIMEO);
        report("read", sys::read(b, 4).0);
        report("recv", sys!(libc::SYS_recvfrom, b, [0_u8; 4].as_mut_ptr(), 4, 0, 0, 0));
        let (mut byte, mut rest) = (0_u8, 0_u8);
        let vectors = [(&raw mut byte) as u64, 1, (&raw mut rest) as u64, 1];
        report("readv", sys!(libc::SYS_readv, b, vectors.as_ptr(), 2));
        while send(a, &[0; 4096], libc::MSG_DONTWAIT) == 4096 {}
        while send(a, b"x", libc::MSG_DONTWAIT) == 1 {}
        report("write", write(a, b"x"));
        report("send", send(a, b"x", 0));
        report("writev", sys!(libc::SYS_writev, a, vectors.as_ptr(), 2));
    }
    let (server, address) = named(libc::SOCK_STREAM, "timeouts");
    report("listen", sys!(libc::SYS_listen, server, 0));
    for what in ["first", "second", "third"] {
        let client = socket(libc::SOCK_STREAM);
        timeout(client, libc::SO_SNDTIMEO);
        connect(what, client, &address);
    }
}
