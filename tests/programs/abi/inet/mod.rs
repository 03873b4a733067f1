//! Internet sockets on the loopback interface.

use crate::Case;
use crate::sys::{self, close, report};

mod ends;
mod groups;
mod names;
mod options;
mod pings;
mod ports;
mod streams;
mod udp;
mod urgent;

pub(crate) const CASES: &[Case] = &[
    ("inet_kinds", names::kinds),
    ("inet_addresses", names::addresses),
    ("inet_names", names::names),
    ("inet_mapped", names::mapped),
    ("inet_accepted_names", names::accepted),
    ("inet_ports", ports::ports),
    ("inet_ports_reused", ports::reused),
    ("inet_ports_of_both", ports::both_versions),
    ("inet_ports_waited_for", ports::waited_for),
    ("inet_ports_shared", ports::shared),
    ("inet_ports_privileged", ports::privileged),
    ("inet_listeners_chosen", ports::chosen),
    ("tcp_echo", streams::echo),
    ("tcp_echo_v6", streams::echo_v6),
    ("tcp_flags", streams::flags),
    ("tcp_vectors", streams::vectors),
    ("tcp_much", streams::much),
    ("tcp_full", streams::full),
    ("tcp_ready", streams::ready),
    ("tcp_edges", streams::edges),
    ("tcp_timeouts", streams::timeouts),
    ("tcp_blocked", streams::blocked),
    ("tcp_sendfile", streams::sendfile),
    ("tcp_refused", ends::refused),
    ("tcp_nonblocking", ends::nonblocking),
    ("tcp_states", ends::states),
    ("tcp_half_closed", ends::half_closed),
    ("tcp_closed", ends::closed),
    ("tcp_unread", ends::unread),
    ("tcp_lingering", ends::lingering),
    ("tcp_shutdowns", ends::shutdowns),
    ("tcp_both_closed", ends::both_closed),
    ("tcp_listener_gone", ends::listener_gone),
    ("tcp_listener_shut", ends::listener_shut),
    ("tcp_disconnected", ends::disconnected),
    ("tcp_again", ends::again),
    ("tcp_errors", ends::errors),
    ("tcp_children", ends::children),
    ("tcp_by_the_thousand", ends::by_the_thousand),
    ("udp_datagrams", udp::datagrams),
    ("udp_sizes", udp::sizes),
    ("udp_addresses", udp::addresses),
    ("udp_connected", udp::connected),
    ("udp_refused", udp::refused),
    ("udp_ends", udp::ends),
    ("udp_shared_ports", udp::shared_ports),
    ("udp_control", udp::control),
    ("udp_joined", udp::joined),
    ("udp_many", udp::many),
    ("group_memberships", groups::memberships),
    ("group_ways", groups::ways),
    ("group_heard", groups::heard),
    ("group_sources", groups::sources),
    ("group_version_6", groups::of_version_6),
    ("group_broadcasts", groups::broadcasts),
    ("inet_devices", groups::devices),
    ("inet_tables_of_pings", groups::tables),
    ("ping_kinds", pings::kinds),
    ("ping_echo", pings::echo),
    ("ping_errors", pings::errors),
    ("ping_names", pings::names),
    ("raw_pings", pings::raw_sockets),
    ("raw_pings_v6", pings::raw_sockets_v6),
    ("tcp_options", options::tcp),
    ("tcp_socket_options", options::socket),
    ("ip_options", options::ip),
    ("ipv6_options", options::ipv6),
    ("tcp_inherited_options", options::inherited),
    ("tcp_info", options::info),
    ("tcp_ioctls", options::ioctls),
    ("tcp_urgent", urgent::bytes),
    ("tcp_urgent_waits", urgent::waits),
    ("tcp_urgent_signals", urgent::signals),
    ("tcp_urgent_by_chance", urgent::chance),
    ("tcp_urgent_states", urgent::states),
];

const LOCAL: [u8; 4] = [127, 0, 0, 1];

/// Switches the loopback interface on, where there is one to be switched.
pub(crate) fn up() {
    let fd = sys!(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0);
    let mut request = [0_u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16..18].copy_from_slice(&(libc::IFF_UP as u16 | libc::IFF_RUNNING as u16).to_ne_bytes());
    sys!(libc::SYS_ioctl, fd, libc::SIOCSIFFLAGS, request.as_ptr());
    close(fd);
}

fn v4(ip: [u8; 4], port: u16) -> Vec<u8> {
    let family = (libc::AF_INET as u16).to_ne_bytes();
    [&family[..], &port.to_be_bytes(), &ip, &[0; 8]].concat()
}

fn v6(ip: [u16; 8], port: u16) -> Vec<u8> {
    let family = (libc::AF_INET6 as u16).to_ne_bytes();
    let ip: Vec<u8> = ip.iter().flat_map(|part| part.to_be_bytes()).collect();
    [&family[..], &port.to_be_bytes(), &[0; 4], &ip, &[0; 4]].concat()
}

const LOCAL6: [u16; 8] = [0, 0, 0, 0, 0, 0, 0, 1];
const ANY6: [u16; 8] = [0; 8];

fn mapped(ip: [u8; 4]) -> [u16; 8] {
    let pair = |at: usize| u16::from_be_bytes([ip[at], ip[at + 1]]);
    [0, 0, 0, 0, 0, 0xffff, pair(0), pair(2)]
}

fn socket(domain: i32, kind: i32) -> i64 {
    sys!(libc::SYS_socket, domain, kind, 0)
}

fn tcp() -> i64 {
    socket(libc::AF_INET, libc::SOCK_STREAM)
}

fn tcp6() -> i64 {
    socket(libc::AF_INET6, libc::SOCK_STREAM)
}

fn bind(fd: i64, address: &[u8]) -> i64 {
    sys!(libc::SYS_bind, fd, address.as_ptr(), address.len())
}

fn connect(fd: i64, address: &[u8]) -> i64 {
    sys!(libc::SYS_connect, fd, address.as_ptr(), address.len())
}

fn listen(fd: i64, backlog: i32) -> i64 {
    sys!(libc::SYS_listen, fd, backlog)
}

fn accept(fd: i64) -> i64 {
    sys!(libc::SYS_accept4, fd, 0, 0, 0)
}

fn shutdown(fd: i64, how: i32) -> i64 {
    sys!(libc::SYS_shutdown, fd, how)
}

fn send(fd: i64, bytes: &[u8], flags: i32) -> i64 {
    sys!(libc::SYS_sendto, fd, bytes.as_ptr(), bytes.len(), flags | libc::MSG_NOSIGNAL, 0, 0)
}

fn receive(what: &str, fd: i64, len: usize, flags: i32) {
    let mut bytes = vec![0_u8; len];
    let result = sys!(libc::SYS_recvfrom, fd, bytes.as_mut_ptr(), len, flags, 0, 0);
    bytes.truncate(usize::try_from(result).unwrap_or(0));
    println!("{what}: {} {:?}", sys::show(result), String::from_utf8_lossy(&bytes));
}

/// The address that a call tells of: getsockname, getpeername or accept4.
fn told(number: i64, fd: i64) -> (i64, Vec<u8>) {
    let (mut address, mut len) = (vec![0_u8; 128], 128_u32);
    let result = sys!(number, fd, address.as_mut_ptr(), &raw mut len, 0);
    address.truncate(len as usize);
    (result, address)
}

fn port_of(address: &[u8]) -> u16 {
    address.get(2..4).map_or(0, |port| u16::from_be_bytes([port[0], port[1]]))
}

/// The port that a socket has.
fn port(fd: i64) -> u16 {
    port_of(&told(libc::SYS_getsockname, fd).1)
}

/// An address in words, with the port by the name that it goes by here: numbers vary.
fn words(address: &[u8], ports: &[(&str, u16)]) -> String {
    let port = port_of(address);
    let known = ports.iter().find(|(_, known)| *known == port).map_or("another port", |(name, _)| name);
    let port = if port == 0 { "no port" } else { known };
    format!("{} bytes {:?} of {port}", address.len(), address.get(4..).unwrap_or_default())
}

/// A listener at 127.0.0.1, and its address.
fn listener(backlog: i32) -> (i64, Vec<u8>) {
    up();
    let fd = tcp();
    let result = bind(fd, &v4(LOCAL, 0));
    if result != 0 {
        report("bind", result);
    }
    let result = listen(fd, backlog);
    if result != 0 {
        report("listen", result);
    }
    (fd, v4(LOCAL, port(fd)))
}

/// Two ends of a connection, and who accepted it.
fn pair() -> (i64, i64, i64) {
    let (server, address) = listener(5);
    let client = tcp();
    let result = connect(client, &address);
    if result != 0 {
        report("connect", result);
    }
    (client, accept(server), server)
}

fn set_option(fd: i64, level: i32, name: i32, value: i32) -> i64 {
    sys!(libc::SYS_setsockopt, fd, level, name, &raw const value, 4)
}

fn option(fd: i64, level: i32, name: i32) -> i64 {
    let (mut value, mut len) = (-1_i32, 4_u32);
    match sys!(libc::SYS_getsockopt, fd, level, name, &raw mut value, &raw mut len) {
        0 => i64::from(value),
        errno => errno,
    }
}

fn pending_error(fd: i64) -> String {
    match option(fd, libc::SOL_SOCKET, libc::SO_ERROR) {
        0 => "none".to_owned(),
        errno => sys::show(-errno),
    }
}

fn set_nonblocking(fd: i64, on: bool) {
    sys!(libc::SYS_fcntl, fd, libc::F_SETFL, if on { libc::O_NONBLOCK } else { 0 });
}

/// What poll says holds, of everything it can say, within a second of asking.
fn poll(what: &str, fd: i64) {
    let all = 0x3fff & !libc::POLLNVAL as u64;
    let mut asked = (fd as u32 as u64) | all << 32;
    let result = sys!(libc::SYS_ppoll, &raw mut asked, 1, [0_i64; 2].as_ptr(), 0, 8);
    println!("{what}: {} {:#x}", sys::show(result), asked >> 48);
}

/// Waits until poll says one of `events`.
fn until(fd: i64, events: i16) {
    let mut asked = (fd as u32 as u64) | (events as u16 as u64) << 32;
    let result = sys!(libc::SYS_ppoll, &raw mut asked, 1, [5_i64, 0].as_ptr(), 0, 8);
    if result != 1 {
        println!("{events:#x} does not come: {}", sys::show(result));
    }
}
