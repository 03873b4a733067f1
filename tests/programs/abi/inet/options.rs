//! Options and ioctls.

use super::{accept, listener, option, pair, set_option, tcp6};
use crate::sys::{self, close, report, report_read, write};

const SOCKET: i32 = libc::SOL_SOCKET;
const TCP: i32 = libc::IPPROTO_TCP;
const IP: i32 = libc::IPPROTO_IP;
const IPV6: i32 = libc::IPPROTO_IPV6;

/// Sets an option to each of some values, and says what becomes of it.
fn each(fd: i64, level: i32, name: i32, values: &[i32]) {
    println!("{level} {name}: {}", sys::show(option(fd, level, name)));
    for value in values {
        report("set", set_option(fd, level, name, *value));
        println!("{value}: {}", sys::show(option(fd, level, name)));
    }
}

pub(super) fn tcp() {
    let fd = tcp_socket();
    each(fd, TCP, libc::TCP_NODELAY, &[5, 0, -1]);
    each(fd, TCP, libc::TCP_CORK, &[5, 0]);
    each(fd, TCP, libc::TCP_KEEPIDLE, &[1, 32_767, 32_768, 0, -1]);
    each(fd, TCP, libc::TCP_KEEPINTVL, &[1, 32_767, 32_768, 0]);
    each(fd, TCP, libc::TCP_KEEPCNT, &[1, 127, 128, 0]);
    each(fd, TCP, libc::TCP_SYNCNT, &[1, 127, 128, 0]);
    each(fd, TCP, libc::TCP_LINGER2, &[5, 0, -5, 1_000_000]);
    each(fd, TCP, libc::TCP_DEFER_ACCEPT, &[1, 5, 0]);
    each(fd, TCP, libc::TCP_USER_TIMEOUT, &[1000, 0, -1]);
    each(fd, TCP, libc::TCP_MAXSEG, &[87, 88, 1000, 32_767, 32_768, -1]);
    each(fd, TCP, libc::TCP_WINDOW_CLAMP, &[0, 10, 5000]);
    each(fd, TCP, libc::TCP_QUICKACK, &[]);
    each(fd, TCP, 9999, &[1]);
    for name in [&b"reno"[..], b"cubic\0\0", b"nonsense", b""] {
        report("congestion", {
            sys!(libc::SYS_setsockopt, fd, TCP, libc::TCP_CONGESTION, name.as_ptr(), name.len())
        });
        let (mut text, mut len) = ([7_u8; 20], 20_u32);
        report(
            "is",
            sys!(libc::SYS_getsockopt, fd, TCP, libc::TCP_CONGESTION, text.as_mut_ptr(), &raw mut len),
        );
        println!("{len} {:?}", &text[..len as usize]);
    }
    let one = 1_i32;
    for len in [0_i64, 3, 8, -1] {
        report("length", sys!(libc::SYS_setsockopt, fd, TCP, libc::TCP_NODELAY, &raw const one, len));
    }
    report("nowhere", sys!(libc::SYS_setsockopt, fd, TCP, libc::TCP_NODELAY, 8, 4));
    for room in [0_u32, 1, 3, 9, u32::MAX] {
        let (mut value, mut len) = ([7_u8; 12], room);
        let result = sys!(libc::SYS_getsockopt, fd, TCP, libc::TCP_KEEPCNT, value.as_mut_ptr(), &raw mut len);
        println!("{} {len} {value:?}", sys::show(result));
    }
}

fn tcp_socket() -> i64 {
    super::tcp()
}

pub(super) fn socket_options(fd: i64) {
    for name in [
        libc::SO_REUSEADDR,
        libc::SO_REUSEPORT,
        libc::SO_KEEPALIVE,
        libc::SO_BROADCAST,
        libc::SO_OOBINLINE,
        libc::SO_DONTROUTE,
        libc::SO_TIMESTAMP,
    ] {
        each(fd, SOCKET, name, &[5, 0]);
    }
    each(fd, SOCKET, libc::SO_RCVLOWAT, &[0, 100]);
    each(fd, SOCKET, libc::SO_SNDLOWAT, &[5]);
    each(fd, SOCKET, libc::SO_PRIORITY, &[6, 0]);
    for name in [libc::SO_TYPE, libc::SO_ERROR, libc::SO_ACCEPTCONN, libc::SO_PROTOCOL, libc::SO_DOMAIN] {
        each(fd, SOCKET, name, &[1]);
    }
    each(fd, SOCKET, 9999, &[1]);
    report("no such level", set_option(fd, 9999, 1, 1));
    report("no such level", option(fd, 9999, 1));
}

pub(super) fn socket_all(fd: i64) {
    socket_options(fd);
    for name in [libc::SO_SNDBUF, libc::SO_RCVBUF] {
        for value in [0, 5000, 100_000] {
            report("set", set_option(fd, SOCKET, name, value));
            println!("buffer {}", option(fd, SOCKET, name));
        }
    }
    let (mut linger, mut len) = ([7_i32; 2], 8_u32);
    report("linger", {
        sys!(libc::SYS_getsockopt, fd, SOCKET, libc::SO_LINGER, linger.as_mut_ptr(), &raw mut len)
    });
    println!("{linger:?}");
    let (mut creds, mut len) = ([7_i32; 3], 12_u32);
    report("peer", {
        sys!(libc::SYS_getsockopt, fd, SOCKET, libc::SO_PEERCRED, creds.as_mut_ptr(), &raw mut len)
    });
    println!("{creds:?}");
}

pub(super) fn socket() {
    socket_all(tcp_socket());
    socket_all(tcp6());
}

pub(super) fn ip() {
    for fd in [tcp_socket(), tcp6()] {
        each(fd, IP, libc::IP_TOS, &[0, 8, 0x10, 0x13, 255, 256]);
        each(fd, IP, libc::IP_TTL, &[0, 1, 255, 256, -1]);
        each(fd, IP, libc::IP_MTU_DISCOVER, &[0, 2, 3, 5, 6, -1]);
        each(fd, IP, libc::IP_RECVERR, &[1, 0]);
        each(fd, IP, libc::IP_FREEBIND, &[1, 0]);
        each(fd, IP, libc::IP_TRANSPARENT, &[1, 0]);
        each(fd, IP, libc::IP_MINTTL, &[1, 256, 0]);
        each(fd, IP, libc::IP_BIND_ADDRESS_NO_PORT, &[1, 0]);
        each(fd, IP, libc::IP_MULTICAST_TTL, &[5]);
        each(fd, IP, 9999, &[1]);
        each(fd, IP, libc::IP_MTU, &[]);
        let value = 8_u8;
        report("a byte", sys!(libc::SYS_setsockopt, fd, IP, libc::IP_TOS, &raw const value, 1));
        let (mut got, mut len) = ([7_u8; 4], 1_u32);
        report("a byte", sys!(libc::SYS_getsockopt, fd, IP, libc::IP_TOS, got.as_mut_ptr(), &raw mut len));
        println!("{len} {got:?}");
        report("nothing", sys!(libc::SYS_setsockopt, fd, IP, libc::IP_TOS, &raw const value, 0));
        println!("{}", option(fd, IP, libc::IP_TOS));
    }
    let (fd, _, _) = pair();
    each(fd, IP, libc::IP_MTU, &[]);
}

pub(super) fn ipv6() {
    let fd = tcp6();
    each(fd, IPV6, libc::IPV6_V6ONLY, &[5, 0]);
    each(fd, IPV6, libc::IPV6_UNICAST_HOPS, &[0, 1, 255, 256, -1, -2]);
    each(fd, IPV6, libc::IPV6_TCLASS, &[0, 1, 252, 256, -1]);
    each(fd, IPV6, libc::IPV6_RECVPKTINFO, &[1, 0]);
    each(fd, IPV6, libc::IPV6_RECVHOPLIMIT, &[1, 0]);
    each(fd, IPV6, libc::IPV6_RECVTCLASS, &[1, 0]);
    each(fd, IPV6, libc::IPV6_RECVERR, &[1, 0]);
    each(fd, IPV6, libc::IPV6_MTU_DISCOVER, &[0, 2, 6]);
    each(fd, IPV6, libc::IPV6_MTU, &[]);
    each(fd, IPV6, 9999, &[1]);
    report("of the older", option(tcp_socket(), IPV6, libc::IPV6_V6ONLY));
    report("of the older", set_option(tcp_socket(), IPV6, libc::IPV6_V6ONLY, 1));
    let short = 1_i16;
    report("short", sys!(libc::SYS_setsockopt, fd, IPV6, libc::IPV6_V6ONLY, &raw const short, 2));
}

pub(super) fn inherited() {
    let (server, address) = listener(5);
    let set = [
        (SOCKET, libc::SO_KEEPALIVE, 1),
        (SOCKET, libc::SO_REUSEADDR, 1),
        (SOCKET, libc::SO_RCVBUF, 30_000),
        (SOCKET, libc::SO_SNDBUF, 40_000),
        (SOCKET, libc::SO_OOBINLINE, 1),
        (SOCKET, libc::SO_RCVLOWAT, 7),
        (TCP, libc::TCP_NODELAY, 1),
        (TCP, libc::TCP_KEEPIDLE, 77),
        (TCP, libc::TCP_USER_TIMEOUT, 777),
        (IP, libc::IP_TOS, 8),
        (IP, libc::IP_TTL, 77),
    ];
    for (level, name, value) in set {
        report("set", set_option(server, level, name, value));
    }
    let client = tcp_socket();
    report("connect", super::connect(client, &address));
    let accepted = accept(server);
    for (level, name, _) in set {
        println!("{level} {name}: {}", option(accepted, level, name));
        println!("and here: {}", option(client, level, name).min(0));
    }
    println!(
        "{} {}",
        option(accepted, SOCKET, libc::SO_ACCEPTCONN),
        option(server, SOCKET, libc::SO_ACCEPTCONN)
    );
}

/// The state that TCP_INFO says.
fn state(fd: i64) -> u8 {
    let (mut info, mut len) = ([0_u8; 64], 64_u32);
    sys!(libc::SYS_getsockopt, fd, TCP, libc::TCP_INFO, info.as_mut_ptr(), &raw mut len);
    info[0]
}

pub(super) fn info() {
    println!("fresh {}", state(tcp_socket()));
    let (a, b, server) = pair();
    println!("listening {}, connected {} {}", state(server), state(a), state(b));
    super::shutdown(a, libc::SHUT_WR);
    super::until(b, libc::POLLRDHUP);
    println!("half closed {}", state(b));
    super::shutdown(b, libc::SHUT_WR);
    super::until(a, libc::POLLHUP);
    println!("closed {} {}", state(a), state(b));
    let (mut info, mut len) = ([0_u8; 8], 3_u32);
    report("cut", sys!(libc::SYS_getsockopt, server, TCP, libc::TCP_INFO, info.as_mut_ptr(), &raw mut len));
    println!("{len}");
}

pub(super) fn ioctls() {
    let count = |fd: i64, request: u64| {
        let mut value = -1_i32;
        match sys!(libc::SYS_ioctl, fd, request, &raw mut value) {
            0 => i64::from(value),
            errno => errno,
        }
    };
    let fd = tcp_socket();
    println!("fresh {} {}", count(fd, libc::FIONREAD), count(fd, libc::TIOCOUTQ));
    let (a, b, server) = pair();
    println!("listening {}", sys::show(count(server, libc::FIONREAD)));
    println!("listening {}", sys::show(count(server, libc::TIOCOUTQ)));
    write(a, b"seven b");
    super::until(b, libc::POLLIN);
    println!("to be read {}", count(b, libc::FIONREAD));
    report_read("read", b, 3);
    println!("to be read {}", count(b, libc::FIONREAD));
    close(a);
    println!("closed {}", count(b, libc::FIONREAD));
    let on = 1_i32;
    report("FIONBIO", sys!(libc::SYS_ioctl, server, libc::FIONBIO, &raw const on));
    report("accept", accept(server));
    println!("{:#o}", sys!(libc::SYS_fcntl, server, libc::F_GETFL));
    report("nothing", super::socket(libc::AF_INET, 7));
    println!("{:o}", mode(server));
}

/// The type and mode that fstat says.
fn mode(fd: i64) -> u32 {
    let mut stat = [0_u32; 64];
    sys!(libc::SYS_fstat, fd, stat.as_mut_ptr());
    if cfg!(target_arch = "x86_64") { stat[6] } else { stat[4] }
}
