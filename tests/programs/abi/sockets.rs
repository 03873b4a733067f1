//! Unix sockets.

use crate::Case;
use crate::sys::{self, c, close, fork, report, report_read, wait, write};

pub(crate) const CASES: &[Case] = &[
    ("socket_pair", pair),
    ("socket_datagram_pair", datagram_pair),
    ("socket_unix_stream", unix_stream),
    ("socket_rights", rights),
    ("socket_errors", errors),
];

fn socketpair(kind: i32) -> (i64, i64) {
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
