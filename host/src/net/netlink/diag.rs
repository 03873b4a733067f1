//! sock_diag(7): which sockets there are, of the internet families and of AF_UNIX; others are asked for in /proc/net.

use super::request::{Answer, Request, What};
use crate::abi::{Errno, Result};
use crate::net::Namespace;
use crate::net::inet::tables::{Row, tcp, udp};
use crate::net::unix::tables::{self, by_ino, unix};
use crate::vfs::{major, minor};
use linux_raw_sys::net as n;
use std::net::{IpAddr, SocketAddr};

/// SOCK_DIAG_BY_FAMILY, and TCPDIAG_GETSOCK, which was before it.
const BY_FAMILY: u16 = 20;
/// sizeof(struct inet_diag_req_v2), and of its first part.
const REQUEST: usize = 56;
const LEAST: usize = 2;
/// INET_DIAG_SHUTDOWN, INET_DIAG_SKV6ONLY.
const SHUTDOWN: u16 = 8;
const V6ONLY: u16 = 11;

/// Answers a request.
pub(super) fn answer(network: &Namespace, request: &Request<'_>) -> Result<Answer> {
    if request.header.message_type != BY_FAMILY {
        return Err(Errno::EINVAL);
    }
    let asked = request.payload();
    if asked.len() < LEAST {
        return Err(Errno::EINVAL);
    }
    let v6 = match u32::from(asked[0]) {
        n::AF_INET => false,
        n::AF_INET6 => true,
        n::AF_UNIX => return of_unix(network, request),
        // As where nobody has the module.
        _ => return Err(Errno::ENOENT),
    };
    let Some(asked) = asked.first_chunk::<REQUEST>() else { return Err(Errno::EINVAL) };
    let states = u32::from_ne_bytes(std::array::from_fn(|i| asked[4 + i]));
    let ports = [8, 10].map(|at| u16::from_be_bytes([asked[at], asked[at + 1]]));
    // Of one socket more than its port is known.
    let port = (!request.is_dump()).then_some(ports[0]);
    let rows = match asked[1] {
        6 => tcp(network, port),
        17 => udp(network, port),
        _ => return Err(Errno::ENOENT),
    };
    let of_family = rows.into_iter().filter(|row| row.v6 == v6);
    if !request.is_dump() {
        let exact =
            |row: &Row| (row.local.port(), row.remote.map_or(0, |to| to.port())) == (ports[0], ports[1]);
        let mut of_family = of_family;
        let found = of_family.find(exact).ok_or(Errno::ENOENT)?;
        return Ok(Answer::One(BY_FAMILY, message(&found)));
    }
    let wanted = |row: &Row| {
        states & 1 << row.state != 0
            && (ports[0] == 0 || ports[0] == row.local.port())
            && (ports[1] == 0 || ports[1] == row.remote.map_or(0, |to| to.port()))
    };
    Ok(Answer::Many(What::Given(of_family.filter(wanted).map(|row| (BY_FAMILY, message(&row))).collect())))
}

/// sizeof(struct unix_diag_req).
const UNIX_REQUEST: usize = 24;
/// INET_DIAG_NOCOOKIE.
const NO_COOKIE: u64 = u64::MAX;
/// UDIAG_SHOW_*: what is asked for.
const SHOW_NAME: u32 = 1;
const SHOW_VFS: u32 = 2;
const SHOW_PEER: u32 = 4;
const SHOW_ICONS: u32 = 8;
const SHOW_RQLEN: u32 = 0x10;
const SHOW_UID: u32 = 0x40;

/// What is said of Unix sockets: of those in certain states, or of one by its number.
fn of_unix(network: &Namespace, request: &Request<'_>) -> Result<Answer> {
    let asked = request.payload();
    let Some(asked) = asked.first_chunk::<UNIX_REQUEST>() else { return Err(Errno::EINVAL) };
    let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|i| asked[at + i]));
    let (states, ino, show) = (word(4), word(8), word(12));
    if request.is_dump() {
        let all = unix(network).into_iter().filter(|row| states & 1 << row.standing as u32 != 0);
        return Ok(Answer::Many(What::Given(all.map(|row| (BY_FAMILY, unix_message(&row, show))).collect())));
    }
    if ino == 0 {
        return Err(Errno::EINVAL);
    }
    let row = by_ino(network, ino.into()).filter(|row| !row.pending).ok_or(Errno::ENOENT)?;
    let cookie = u64::from(word(16)) | u64::from(word(20)) << 32;
    if cookie != NO_COOKIE && cookie != row.ino {
        return Err(Errno::ESTALE);
    }
    Ok(Answer::One(BY_FAMILY, unix_message(&row, show)))
}

/// `struct unix_diag_msg`, and attributes.
fn unix_message(row: &tables::Row, show: u32) -> Vec<u8> {
    let ino = if row.pending { 0 } else { row.ino as u32 };
    let mut bytes = vec![n::AF_UNIX as u8, row.kind as u8, row.standing as u8, 0];
    bytes.extend(ino.to_ne_bytes());
    bytes.extend(row.ino.to_ne_bytes());
    let mut attribute = |kind: u16, value: &[u8]| push_attribute(&mut bytes, kind, value);
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
    if let Some(name) = row.name.as_ref().filter(|_| show & SHOW_NAME != 0) {
        // A path has its final zero.
        let end: &[u8] = if name.first() == Some(&0) { &[] } else { &[0] };
        attribute(0, &[&**name, end].concat());
    }
    if let Some((dev, ino)) = row.place.filter(|_| show & SHOW_VFS != 0) {
        // The device as the kernel itself packs it.
        attribute(1, &words(&[ino as u32, major(dev) << 20 | minor(dev)]));
    }
    if let Some(peer) = row.peer.filter(|_| show & SHOW_PEER != 0) {
        attribute(2, &words(&[peer as u32]));
    }
    if show & SHOW_ICONS != 0 && !row.waiting.is_empty() {
        // What has room in an attribute.
        let most = row.waiting.iter().take(ICONS_MAX).map(|ino| *ino as u32);
        attribute(3, &words(&most.collect::<Vec<_>>()));
    }
    if show & SHOW_RQLEN != 0 {
        attribute(4, &words(&[row.received, row.sent]));
    }
    if show & SHOW_UID != 0 {
        attribute(7, &words(&[row.uid]));
    }
    attribute(6, &[row.shut]);
    bytes
}

/// `struct rtattr` and a value.
fn push_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend((value.len() as u16 + 4).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// An attribute's length has 16 bits.
const ICONS_MAX: usize = 4096;

/// `struct inet_diag_msg`, and attributes.
fn message(row: &Row) -> Vec<u8> {
    let family = if row.v6 { n::AF_INET6 } else { n::AF_INET } as u8;
    // Who has closed is waited for: the timer's number is 3.
    let timer = if row.state == TIME_WAIT { 3 } else { 0 };
    let mut bytes = vec![family, row.state, timer, 0];
    let none = SocketAddr::new(crate::net::inet::unspecified(row.v6), 0);
    let ends = [row.local, row.remote.map_or(none, |to| crate::net::inet::shown(row.v6, to))];
    bytes.extend(ends.iter().flat_map(|end| end.port().to_be_bytes()));
    for end in ends {
        let mut words = [0; 16];
        match end.ip() {
            IpAddr::V4(ip) => words[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => words = ip.octets(),
        }
        bytes.extend(words);
    }
    // Any interface; the cookie is the number of its file.
    bytes.extend([0; 4]);
    bytes.extend(row.ino.to_ne_bytes());
    for word in [0, row.received, row.sent, row.uid, row.ino as u32] {
        bytes.extend(word.to_ne_bytes());
    }
    push_attribute(&mut bytes, SHUTDOWN, &[0]);
    if row.v6 {
        push_attribute(&mut bytes, V6ONLY, &[row.only_v6.into()]);
    }
    bytes
}

/// TCP_TIME_WAIT.
const TIME_WAIT: u8 = 6;
