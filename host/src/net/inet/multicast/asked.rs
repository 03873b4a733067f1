//! What options of groups ask for, and what a socket of the host is asked in turn.

use super::{
    Groups, IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP, IP_MULTICAST_IF, IPV6_MULTICAST_IF, MCAST_BLOCK_SOURCE,
    MCAST_JOIN_GROUP, MCAST_JOIN_SOURCE_GROUP, MCAST_LEAVE_GROUP, MCAST_LEAVE_SOURCE_GROUP,
    MCAST_UNBLOCK_SOURCE, Membership, is_for_both,
};
use crate::abi::{Errno, Result};
use crate::net::inet::ip::{self, IpOptions};
use crate::net::interfaces::LO;
use crate::net::{Address, Namespace, Value};
use linux_raw_sys::net as n;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// sizeof(struct group_req), sizeof(struct group_source_req), and where in them an address lies.
const GROUP_REQ: usize = 136;
const GROUP_SOURCE_REQ: usize = 264;
const GROUP_AT: usize = 8;
const SOURCE_AT: usize = 136;

/// What an option asks for.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) group: IpAddr,
    /// The interface's number; 0: none in particular.
    pub(super) index: i32,
    /// An address of the interface.
    pub(super) by: Ipv4Addr,
    pub(super) source: Option<IpAddr>,
}

pub(super) fn ipv4(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from(std::array::from_fn::<u8, 4, _>(|i| bytes.get(at + i).copied().unwrap_or(0)))
}

pub(super) fn number(bytes: &[u8], at: usize) -> i32 {
    i32::from_ne_bytes(std::array::from_fn(|i| bytes.get(at + i).copied().unwrap_or(0)))
}

/// An address of one family in a `struct sockaddr_storage`.
fn stored(bytes: &[u8], at: usize, v6: bool) -> Option<IpAddr> {
    let family = u32::from(u16::from_ne_bytes([bytes[at], bytes[at + 1]]));
    match (v6, family) {
        (false, n::AF_INET) => Some(ipv4(bytes, at + 4).into()),
        (true, n::AF_INET6) => {
            let octets: [u8; 16] = std::array::from_fn(|i| bytes[at + 8 + i]);
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

impl Asked {
    pub(super) fn new(level: u32, name: u32, value: &Value<'_>) -> Result<Asked> {
        let v6 = level == ip::IPV6;
        let none = Ipv4Addr::UNSPECIFIED;
        match (v6, name) {
            (_, name) if is_for_both(name) => Self::of_both(v6, name, value),
            (false, IP_ADD_MEMBERSHIP | IP_DROP_MEMBERSHIP) if value.len >= 12 => {
                let bytes = value.bytes::<12>()?;
                let (by, index) = (ipv4(&bytes, 4), number(&bytes, 8));
                Ok(Asked { group: ipv4(&bytes, 0).into(), index, by, source: None })
            }
            (false, IP_ADD_MEMBERSHIP | IP_DROP_MEMBERSHIP) => {
                let bytes = value.bytes::<8>()?;
                Ok(Asked { group: ipv4(&bytes, 0).into(), index: 0, by: ipv4(&bytes, 4), source: None })
            }
            (false, _) if value.len != 12 => Err(Errno::EINVAL),
            (false, _) => {
                let bytes = value.bytes::<12>()?;
                let source = Some(ipv4(&bytes, 8).into());
                Ok(Asked { group: ipv4(&bytes, 0).into(), index: 0, by: ipv4(&bytes, 4), source })
            }
            (true, _) => {
                let bytes = value.bytes::<20>()?;
                let octets: [u8; 16] = std::array::from_fn(|i| bytes[i]);
                Ok(Asked {
                    group: Ipv6Addr::from(octets).into(),
                    index: number(&bytes, 16),
                    by: none,
                    source: None,
                })
            }
        }
    }

    fn of_both(v6: bool, name: u32, value: &Value<'_>) -> Result<Asked> {
        let other_family = if v6 { Errno::EADDRNOTAVAIL } else { Errno::EINVAL };
        let mut bytes = [0; GROUP_SOURCE_REQ];
        let source = if matches!(name, MCAST_JOIN_GROUP | MCAST_LEAVE_GROUP) {
            bytes[..GROUP_REQ].copy_from_slice(&value.bytes::<GROUP_REQ>()?);
            None
        } else {
            bytes = value.bytes()?;
            Some(stored(&bytes, SOURCE_AT, v6).ok_or(Errno::EADDRNOTAVAIL)?)
        };
        let wrong = if source.is_some() { Errno::EADDRNOTAVAIL } else { other_family };
        let group = stored(&bytes, GROUP_AT, v6).ok_or(wrong)?;
        Ok(Asked { group, index: number(&bytes, 0), by: Ipv4Addr::UNSPECIFIED, source })
    }
}

impl Groups {
    /// What a socket of the host is to be told: level, name, value. What is on the loopback interface is nothing of its.
    pub(in crate::net::inet) fn told(
        &self,
        network: &Namespace,
        ino: u64,
        options: &IpOptions,
    ) -> Vec<(u32, u32, Vec<u8>)> {
        let mut told = Vec::new();
        for known in self.all.iter().filter(|known| known.interface != LO) {
            let joined = network.joined.0.lock();
            let filter = joined.get(&(known.group, known.interface, ino)).cloned().unwrap_or_default();
            drop(joined);
            let level = if known.group.is_ipv4() { ip::IP } else { ip::IPV6 };
            let request = |source: Option<IpAddr>| request(known, source);
            if !filter.include {
                told.push((level, MCAST_JOIN_GROUP, request(None)));
            }
            let name = if filter.include { MCAST_JOIN_SOURCE_GROUP } else { MCAST_BLOCK_SOURCE };
            for source in filter.sources.iter().flatten() {
                told.push((level, name, request(Some(*source))));
            }
        }
        if self.out > LO {
            let by = self.by.unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
            told.push((ip::IP, IP_MULTICAST_IF, [&[0; 4], &by[..], &self.out.to_ne_bytes()].concat()));
        }
        if self.out_v6 > LO {
            told.push((ip::IPV6, IPV6_MULTICAST_IF, self.out_v6.to_ne_bytes().to_vec()));
        }
        for (level, name) in [(ip::IP, ip::name::IP_MULTICAST_TTL), (ip::IPV6, ip::name::IPV6_MULTICAST_HOPS)]
        {
            told.push((level, name, options.value(level, name).to_ne_bytes().to_vec()));
        }
        // What is said to a group outside is not for the host itself, and those inside hear it from us.
        for (level, name) in
            [(ip::IP, ip::name::IP_MULTICAST_LOOP), (ip::IPV6, ip::name::IPV6_MULTICAST_LOOP)]
        {
            told.push((level, name, vec![0; 4]));
        }
        told
    }
}

/// What leads from what a socket of the host was told to what it is to be told now.
pub(in crate::net::inet) fn changes(
    before: &[(u32, u32, Vec<u8>)],
    after: &[(u32, u32, Vec<u8>)],
) -> Vec<(u32, u32, Vec<u8>)> {
    let gone = before.iter().filter(|told| !after.contains(told)).filter_map(|(level, name, value)| {
        let undone = match *name {
            MCAST_JOIN_GROUP => MCAST_LEAVE_GROUP,
            MCAST_JOIN_SOURCE_GROUP => MCAST_LEAVE_SOURCE_GROUP,
            MCAST_BLOCK_SOURCE => MCAST_UNBLOCK_SOURCE,
            // None in particular.
            IP_MULTICAST_IF if *level == ip::IP => return Some((*level, *name, vec![0; value.len()])),
            IPV6_MULTICAST_IF if *level == ip::IPV6 => return Some((*level, *name, vec![0; value.len()])),
            _ => return None,
        };
        Some((*level, undone, value.clone()))
    });
    let come = after.iter().filter(|told| !before.contains(told)).cloned();
    gone.chain(come).collect()
}

/// A `struct group_req`, or with a source a `struct group_source_req`.
fn request(known: &Membership, source: Option<IpAddr>) -> Vec<u8> {
    let mut bytes = known.interface.to_ne_bytes().to_vec();
    for ip in std::iter::once(known.group).chain(source) {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let start = bytes.len();
        bytes.extend_from_slice(Address::Inet(SocketAddr::new(ip, 0)).raw().bytes());
        bytes.resize(start + 128, 0);
    }
    bytes
}
