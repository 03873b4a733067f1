//! sock_diag(7): which sockets there are. Those of the internet families; others are asked for in /proc/net.

use super::request::{Answer, Request, What};
use crate::abi::{Errno, Result};
use crate::net::Namespace;
use crate::net::inet::tables::{Row, tcp, udp};
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
        // As where nobody has the module.
        _ => return Err(Errno::ENOENT),
    };
    let Some(asked) = asked.first_chunk::<REQUEST>() else { return Err(Errno::EINVAL) };
    let rows = match asked[1] {
        6 => tcp(network),
        17 => udp(network),
        _ => return Err(Errno::ENOENT),
    };
    let states = u32::from_ne_bytes(std::array::from_fn(|i| asked[4 + i]));
    let ports = [8, 10].map(|at| u16::from_be_bytes([asked[at], asked[at + 1]]));
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
    let mut attribute = |kind: u16, value: u8| {
        bytes.extend(5_u16.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([value, 0, 0, 0]);
    };
    attribute(SHUTDOWN, 0);
    if row.v6 {
        attribute(V6ONLY, row.only_v6.into());
    }
    bytes
}

/// TCP_TIME_WAIT.
const TIME_WAIT: u8 = 6;
