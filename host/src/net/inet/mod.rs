//! Internet sockets (ip(7), ipv6(7), tcp(7)).
//!
//! What stays inside never becomes packets: a connection between two sockets of one network is two buffers.
//!
//! | module | what |
//! |---|---|
//! | `endpoint` | addresses as sockets are given them |
//! | [`ports`] | who has which port, and may have it |
//! | [`tables`] | which sockets there are |
//! | `ip` | options of the levels IPPROTO_IP and IPPROTO_IPV6 |
//! | [`tcp`] | connections |
//! | [`udp`] | datagrams |
//! | [`multicast`] | groups |
//! | `datagram` | datagrams that wait to be read |
//! | [`icmp`] | pings |
//!
//! Addresses within are canonical: what an IPv6 socket calls `::ffff:127.0.0.1` is 127.0.0.1 here.

mod datagram;
mod endpoint;
pub(super) use endpoint::{parse, shown, unspecified};
pub mod icmp;
mod ip;
pub mod multicast;
pub mod ports;
pub mod tables;
pub mod tcp;
pub mod udp;

use super::{Core, Family, Making, Namespace, Pair, Peer, Socket, interfaces};
use crate::abi::{Errno, Result};
use crate::cred::{Caps, Cred};
use icmp::IcmpSocket;
use linux_raw_sys::net as n;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tcp::TcpSocket;
use udp::UdpSocket;

/// IPv4.
pub(super) const V4: Family = Family { domain: n::AF_INET as u16, make: make_v4, pair: pair_v4 };
/// IPv6.
pub(super) const V6: Family = Family { domain: n::AF_INET6 as u16, make: make_v6, pair: pair_v6 };

/// Protocols have smaller numbers (IPPROTO_MAX).
const PROTOCOLS: i32 = 263;
const TCP: i32 = 6;
const UDP: i32 = 17;
/// IPPROTO_UDP as a level of options.
const UDP_LEVEL: u32 = UDP as u32;

fn make(making: &Making<'_>, v6: bool) -> Result<Arc<dyn Socket>> {
    if !(0..PROTOCOLS).contains(&making.protocol) {
        return Err(Errno::EINVAL);
    }
    match making.kind {
        n::SOCK_STREAM if matches!(making.protocol, 0 | TCP) => Ok(TcpSocket::new(making, v6)),
        n::SOCK_DGRAM if matches!(making.protocol, 0 | UDP) => Ok(UdpSocket::new(making, v6)),
        n::SOCK_DGRAM if making.protocol == icmp_of(v6) => Ok(IcmpSocket::ping(making, v6)?),
        n::SOCK_STREAM | n::SOCK_DGRAM => Err(Errno::EPROTONOSUPPORT),
        n::SOCK_RAW if making.protocol == 0 => Err(Errno::EPROTONOSUPPORT),
        n::SOCK_RAW if !making.by.cred.has_in(&making.network.owner, Caps::NET_RAW) => Err(Errno::EPERM),
        n::SOCK_RAW if making.protocol == icmp_of(v6) => Ok(IcmpSocket::raw(making, v6)),
        n::SOCK_RAW => Err(Errno::EPROTONOSUPPORT),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

/// The protocol by which a family pings.
fn icmp_of(v6: bool) -> i32 {
    if v6 { icmp::PROTOCOL_V6 } else { icmp::PROTOCOL_V4 }
}

fn make_v4(making: &Making<'_>) -> Result<Arc<dyn Socket>> {
    make(making, false)
}

fn make_v6(making: &Making<'_>) -> Result<Arc<dyn Socket>> {
    make(making, true)
}

/// Internet sockets come alone; what is wrong otherwise is said first.
fn pair_v4(making: &Making<'_>, _: Peer) -> Result<Pair> {
    make_v4(making).and(Err(Errno::EOPNOTSUPP))
}

fn pair_v6(making: &Making<'_>, _: Peer) -> Result<Pair> {
    make_v6(making).and(Err(Errno::EOPNOTSUPP))
}

/// The address that a bind(2) says.
fn bind_address(v6: bool, raw: &[u8]) -> Result<SocketAddr> {
    match endpoint::parse(v6, raw) {
        // Zeroes all over are an old way to say INADDR_ANY.
        Err(Errno::EAFNOSUPPORT) if !v6 && raw[..2] == [0, 0] && raw[4..8] == [0; 4] => {
            Ok(SocketAddr::new(endpoint::unspecified(false), u16::from_be_bytes([raw[2], raw[3]])))
        }
        address => address,
    }
}

/// Whether a program may bind an address.
///
/// # Errors
/// EINVAL, EADDRNOTAVAIL, EACCES.
fn may_bind(
    network: &Namespace,
    cred: &Cred,
    only_v6: bool,
    address: SocketAddr,
    datagrams: bool,
) -> Result<()> {
    let ip = address.ip();
    if only_v6 && ip.is_ipv4() {
        return Err(Errno::EINVAL);
    }
    // A link is to be said where there could be several.
    if let SocketAddr::V6(v6) = address
        && datagrams
        && v6.ip().is_multicast()
        && v6.ip().segments()[0] & 0xf == 2
        && v6.scope_id() == 0
    {
        return Err(Errno::EINVAL);
    }
    let many = datagrams && is_many(ip);
    if !ip.is_unspecified() && !many && !network.is_local(ip) {
        return Err(Errno::EADDRNOTAVAIL);
    }
    let privileged = network.settings.unprivileged_ports.load(Ordering::Relaxed);
    let port = address.port();
    if port != 0 && u32::from(port) < privileged && !cred.has_in(&network.owner, Caps::NET_BIND_SERVICE) {
        return Err(Errno::EACCES);
    }
    Ok(())
}

/// Whether an address is one that several hear.
fn is_many(ip: IpAddr) -> bool {
    ip.is_multicast() || udp::is_broadcast(ip)
}

/// Whether what a socket that is bound to a device sends gets there: what is local goes by the loopback interface, and
/// nothing else does.
///
/// # Errors
/// ENETUNREACH.
fn may_go_by(device: u32, local: bool) -> Result<()> {
    let fits = device == 0 || local == (device == interfaces::LO);
    if fits { Ok(()) } else { Err(Errno::ENETUNREACH) }
}

/// Whether an address is local.
///
/// # Errors
/// EACCES for what everybody hears.
fn reaches(network: &Namespace, core: &Core, ip: IpAddr) -> Result<bool> {
    if udp::is_broadcast(ip) && !core.options.lock().is_on(n::SO_BROADCAST) {
        return Err(Errno::EACCES);
    }
    Ok(network.is_local(ip))
}
