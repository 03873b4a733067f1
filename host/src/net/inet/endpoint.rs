//! Addresses as sockets are given them, and show them.

use crate::abi::{Errno, Result};
use crate::net::address::{INET, family_of};
use linux_raw_sys::net as n;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// SIN6_LEN_RFC2133: the shortest IPv6 address; the scope may be missing.
const INET6_LEAST: usize = 24;

/// The address that the bytes say, of the socket's own family.
///
/// # Errors
/// EINVAL if it is too short, EAFNOSUPPORT for another family.
pub(in crate::net) fn parse(v6: bool, raw: &[u8]) -> Result<SocketAddr> {
    let least = if v6 { INET6_LEAST } else { INET };
    if raw.len() < least {
        return Err(Errno::EINVAL);
    }
    let wanted = if v6 { n::AF_INET6 } else { n::AF_INET };
    if family_of(raw).map(u32::from) != Some(wanted) {
        return Err(Errno::EAFNOSUPPORT);
    }
    let part = |at: usize| std::array::from_fn(|i| raw.get(at + i).copied().unwrap_or(0));
    let port = u16::from_be_bytes([raw[2], raw[3]]);
    if !v6 {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(part(4))), port));
    }
    let bytes: [u8; 16] = std::array::from_fn(|i| raw[8 + i]);
    let ip = Ipv6Addr::from(bytes);
    if let Some(v4) = ip.to_ipv4_mapped() {
        return Ok(SocketAddr::new(IpAddr::V4(v4), port));
    }
    Ok(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, u32::from_ne_bytes(part(24)))))
}

/// An address as a socket shows it: an IPv6 socket has no others.
pub(in crate::net) fn shown(v6: bool, address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v6 => SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port()),
        SocketAddr::V6(scoped) => {
            // A scope means something with link-local addresses only.
            let scope = if scoped.ip().is_unicast_link_local() { scoped.scope_id() } else { 0 };
            SocketAddr::V6(SocketAddrV6::new(*scoped.ip(), scoped.port(), 0, scope))
        }
        other => other,
    }
}

/// No address of a socket's family.
pub(in crate::net) fn unspecified(v6: bool) -> IpAddr {
    if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) }
}

/// Where a connection to an address goes: to oneself, if it is none.
pub(super) fn target(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    }
}

/// Whom connect(2) means by these bytes.
///
/// # Errors
/// As [`parse`]; ENETUNREACH for an IPv4 address of a socket that has IPV6_V6ONLY.
pub(super) fn peer(v6: bool, only_v6: bool, raw: &[u8]) -> Result<SocketAddr> {
    let address = parse(v6, raw)?;
    let ip = target(address.ip());
    if only_v6 && ip.is_ipv4() {
        return Err(Errno::ENETUNREACH);
    }
    // As it is where it is one: with its scope.
    Ok(match address {
        SocketAddr::V6(v6) if ip == address.ip() => SocketAddr::V6(v6),
        _ => SocketAddr::new(ip, address.port()),
    })
}

/// The address that a socket without one has on its way to `remote`, which is local.
pub(super) fn source(remote: IpAddr) -> IpAddr {
    match remote {
        IpAddr::V4(v4) if v4.is_loopback() || super::is_many(remote) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        // To an address of an interface one goes from there.
        own => own,
    }
}

#[cfg(test)]
mod tests {
    use super::{parse, shown};
    use crate::abi::Errno;
    use crate::net::Address;

    #[test]
    fn mapped_addresses_are_ipv4_ones() {
        let mapped = Address::Inet("[::ffff:127.0.0.2]:80".parse().expect("an address")).raw();
        let canonical = parse(true, mapped.bytes()).expect("an address");
        assert_eq!(canonical.to_string(), "127.0.0.2:80");
        assert_eq!(shown(true, canonical).to_string(), "[::ffff:127.0.0.2]:80");
        assert_eq!(parse(false, mapped.bytes()), Err(Errno::EAFNOSUPPORT));
        assert_eq!(parse(true, &mapped.bytes()[..23]), Err(Errno::EINVAL));
        assert!(parse(true, &mapped.bytes()[..24]).is_ok());
    }
}
