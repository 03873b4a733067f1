//! Groups: which a socket has joined, and whose datagrams it then hears (ip(7), ipv6(7), netdevice(7)).
//!
//! An interface takes in what is sent to a group that any socket of the network has joined there, from sources that at least
//! one of them wants. Of the sockets that have the port, those hear it that have joined and want the source, and, unless they
//! have said otherwise (IP_MULTICAST_ALL), those that have not joined.

mod asked;

use super::ip;
use crate::abi::{Errno, Result};
use crate::net::interfaces::LO;
use crate::net::{Namespace, Value};
use crate::sync::{Lock, Rank};
pub(super) use asked::changes;
use asked::{Asked, ipv4, number};
use netlink_packet_route::route::RouteAttribute;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// net.ipv4.igmp_max_memberships and igmp_max_msf; the same of IPv6, where memory is the limit (net.core.optmem_max).
const MEMBERSHIPS: usize = 20;
const SOURCES: usize = 10;
const MEMBERSHIPS_V6: usize = 1024;
const SOURCES_V6: usize = 64;
/// What one is charged.
const COST: usize = 128;
/// Where everybody on a link listens, asked or not.
const ALL_HOSTS: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1));

/// Options of the level IPPROTO_IP.
const IP_MULTICAST_IF: u32 = 32;
const IP_ADD_MEMBERSHIP: u32 = 35;
const IP_DROP_MEMBERSHIP: u32 = 36;
const IP_UNBLOCK_SOURCE: u32 = 37;
const IP_BLOCK_SOURCE: u32 = 38;
const IP_ADD_SOURCE_MEMBERSHIP: u32 = 39;
const IP_DROP_SOURCE_MEMBERSHIP: u32 = 40;
const IP_MULTICAST_ALL: u32 = 49;
/// Of the level IPPROTO_IPV6.
const IPV6_MULTICAST_IF: u32 = 17;
const IPV6_JOIN_GROUP: u32 = 20;
const IPV6_LEAVE_GROUP: u32 = 21;
const IPV6_MULTICAST_ALL: u32 = 29;
/// Of both.
const MCAST_JOIN_GROUP: u32 = 42;
const MCAST_BLOCK_SOURCE: u32 = 43;
const MCAST_UNBLOCK_SOURCE: u32 = 44;
const MCAST_LEAVE_GROUP: u32 = 45;
const MCAST_JOIN_SOURCE_GROUP: u32 = 46;
const MCAST_LEAVE_SOURCE_GROUP: u32 = 47;

/// Whether an option is one of those that are kept here.
pub(super) fn knows(level: u32, name: u32) -> bool {
    match level {
        ip::IP => {
            matches!(name, IP_MULTICAST_IF | IP_ADD_MEMBERSHIP..=IP_DROP_SOURCE_MEMBERSHIP | IP_MULTICAST_ALL)
                || is_for_both(name)
        }
        ip::IPV6 => {
            matches!(name, IPV6_MULTICAST_IF | IPV6_JOIN_GROUP | IPV6_LEAVE_GROUP | IPV6_MULTICAST_ALL)
                || is_for_both(name)
        }
        _ => false,
    }
}

fn is_for_both(name: u32) -> bool {
    matches!(name, MCAST_JOIN_GROUP..=MCAST_LEAVE_SOURCE_GROUP)
}

/// What a stream says to them.
pub(super) fn refused_by_streams(level: u32, name: u32) -> Errno {
    match (level, name) {
        (ip::IP, IP_MULTICAST_IF) => Errno::EINVAL,
        (ip::IPV6, IPV6_MULTICAST_IF) => Errno::ENOPROTOOPT,
        _ => Errno::EPROTO,
    }
}

/// Whose datagrams are wanted.
#[derive(Clone, Debug, Default)]
struct Filter {
    /// Those of the sources listed, or all but those.
    include: bool,
    sources: Option<Vec<IpAddr>>,
}

impl Filter {
    fn allows(&self, from: IpAddr) -> bool {
        self.sources.iter().flatten().any(|source| *source == from) == self.include
    }
}

/// Who has joined what, in a network: group, interface, the socket's number.
pub struct Joined(Lock<BTreeMap<(IpAddr, u32, u64), Filter>>);

impl Default for Joined {
    fn default() -> Self {
        Joined(Lock::new(Rank::Groups, BTreeMap::new()))
    }
}

impl Joined {
    /// Whether an interface takes in what `from` sends to a group.
    pub(super) fn wants(&self, group: IpAddr, interface: u32, from: IpAddr) -> bool {
        let all = self.0.lock();
        let mut members = all.range((group, interface, 0)..=(group, interface, u64::MAX));
        group == ALL_HOSTS || members.any(|(_, filter)| filter.allows(from))
    }

    /// Whether a socket that has joined a group wants that; `None`: it has not.
    fn allows(&self, ino: u64, group: IpAddr, interface: u32, from: IpAddr) -> Option<bool> {
        self.0.lock().get(&(group, interface, ino)).map(|filter| filter.allows(from))
    }
}

/// One that a socket has joined.
#[derive(Clone, Copy)]
struct Membership {
    group: IpAddr,
    interface: u32,
    /// The address by which it was asked for.
    by: Ipv4Addr,
}

/// What a socket has to do with groups.
#[derive(Default)]
pub(super) struct Groups {
    all: Vec<Membership>,
    /// Where to send from: IP_MULTICAST_IF, also as an address, and IPV6_MULTICAST_IF.
    out: u32,
    by: Option<Ipv4Addr>,
    out_v6: u32,
    /// IP_MULTICAST_ALL, IPV6_MULTICAST_ALL are off.
    joined_only: [bool; 2],
}

/// Whose groups they are.
pub(super) struct Whose<'a> {
    pub(super) network: &'a Namespace,
    /// The socket's number.
    pub(super) ino: u64,
    /// SO_BINDTODEVICE.
    pub(super) device: u32,
}

/// The interface that has an address, which is an own one. (Loopback has no IPv6 route for groups.)
pub(super) fn interface_of(network: &Namespace, address: IpAddr) -> Option<u32> {
    if address.is_loopback() {
        return Some(LO).filter(|_| address.is_ipv4());
    }
    network.interfaces().addresses().find(|own| own.ip == address).map(|own| own.index)
}

fn exists(network: &Namespace, index: i32) -> Option<u32> {
    let index = u32::try_from(index).ok()?;
    network.interfaces().links().any(|link| link.index == index).then_some(index)
}

/// The interface by which what is said to a group goes out if nobody says which: that of the way there.
pub(super) fn routed(network: &Namespace, group: IpAddr) -> Option<u32> {
    let interfaces = network.interfaces();
    let way = crate::net::netlink::way_to(&interfaces, group)?;
    way.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

impl Groups {
    /// setsockopt(2) of what [`knows`] names.
    ///
    /// # Errors
    /// EINVAL, ENODEV, EADDRINUSE, EADDRNOTAVAIL, ENOBUFS, ENOMEM, EFAULT.
    pub(super) fn set(&mut self, whose: &Whose<'_>, level: u32, name: u32, value: &Value<'_>) -> Result<()> {
        match (level, name) {
            (ip::IP, IP_MULTICAST_IF) => return self.set_out(whose, value),
            (ip::IPV6, IPV6_MULTICAST_IF) => {
                let index = value.int()?;
                let other = whose.device != 0 && index as u32 != whose.device;
                if index != 0 && other {
                    return Err(Errno::EINVAL);
                }
                let known = if index == 0 { Some(0) } else { exists(whose.network, index) };
                self.out_v6 = known.ok_or(Errno::ENODEV)?;
                return Ok(());
            }
            (ip::IP, IP_MULTICAST_ALL) => {
                let all = match value.len {
                    1..4 => value.bytes::<1>()?[0].into(),
                    _ => value.int()?,
                };
                if !matches!(all, 0 | 1) {
                    return Err(Errno::EINVAL);
                }
                self.joined_only[0] = all == 0;
                return Ok(());
            }
            (ip::IPV6, IPV6_MULTICAST_ALL) => {
                self.joined_only[1] = value.int()? == 0;
                return Ok(());
            }
            _ => {}
        }
        let asked = Asked::new(level, name, value)?;
        if !asked.group.is_multicast() {
            return Err(Errno::EINVAL);
        }
        match name {
            IP_ADD_MEMBERSHIP | MCAST_JOIN_GROUP | IPV6_JOIN_GROUP => self.join(whose, &asked, false),
            IP_DROP_MEMBERSHIP | MCAST_LEAVE_GROUP | IPV6_LEAVE_GROUP => self.leave(whose, &asked),
            IP_ADD_SOURCE_MEMBERSHIP | MCAST_JOIN_SOURCE_GROUP => {
                match self.join(whose, &asked, true) {
                    Ok(()) | Err(Errno::EADDRINUSE) => {}
                    other => return other,
                }
                self.choose(whose, &asked, true, true)
            }
            IP_DROP_SOURCE_MEMBERSHIP | MCAST_LEAVE_SOURCE_GROUP => self.choose(whose, &asked, true, false),
            IP_BLOCK_SOURCE | MCAST_BLOCK_SOURCE => self.choose(whose, &asked, false, true),
            IP_UNBLOCK_SOURCE | MCAST_UNBLOCK_SOURCE => self.choose(whose, &asked, false, false),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn set_out(&mut self, whose: &Whose<'_>, value: &Value<'_>) -> Result<()> {
        let (by, index) = match value.len {
            12.. => {
                let bytes = value.bytes::<12>()?;
                (ipv4(&bytes, 4), number(&bytes, 8))
            }
            8.. => (ipv4(&value.bytes::<8>()?, 4), 0),
            _ => (ipv4(&value.bytes::<4>()?, 0), 0),
        };
        if index == 0 && by.is_unspecified() {
            (self.out, self.by) = (0, None);
            return Ok(());
        }
        let known =
            if index == 0 { interface_of(whose.network, by.into()) } else { exists(whose.network, index) };
        let known = known.ok_or(Errno::EADDRNOTAVAIL)?;
        if whose.device != 0 && whose.device != known {
            return Err(Errno::EINVAL);
        }
        (self.out, self.by) = (known, Some(by));
        Ok(())
    }

    /// getsockopt(2) of the same; `None` for those that can only be set.
    pub(super) fn get(&self, level: u32, name: u32) -> Option<Vec<u8>> {
        let int = |value: i32| Some(value.to_ne_bytes().to_vec());
        match (level, name) {
            (ip::IP, IP_MULTICAST_IF) => Some(self.by.unwrap_or(Ipv4Addr::UNSPECIFIED).octets().to_vec()),
            (ip::IPV6, IPV6_MULTICAST_IF) => int(self.out_v6 as i32),
            (ip::IP, IP_MULTICAST_ALL) => int((!self.joined_only[0]).into()),
            (ip::IPV6, IPV6_MULTICAST_ALL) => int((!self.joined_only[1]).into()),
            _ => None,
        }
    }

    fn interface(whose: &Whose<'_>, asked: &Asked) -> Option<u32> {
        match (asked.index, asked.by) {
            (0, by) if !by.is_unspecified() => interface_of(whose.network, by.into()),
            (0, _) => routed(whose.network, asked.group),
            (index, _) => exists(whose.network, index),
        }
    }

    fn join(&mut self, whose: &Whose<'_>, asked: &Asked, include: bool) -> Result<()> {
        let v4 = asked.group.is_ipv4();
        let same = |known: &&Membership| known.group == asked.group;
        // Of IPv6 any will do where none in particular is asked for.
        if !v4 && asked.index == 0 && self.all.iter().any(|known| same(&known)) {
            return Err(Errno::EADDRINUSE);
        }
        let interface = Self::interface(whose, asked).ok_or(Errno::ENODEV)?;
        if self.all.iter().filter(same).any(|known| known.interface == interface) {
            return Err(Errno::EADDRINUSE);
        }
        let count = self.all.iter().filter(|known| known.group.is_ipv4() == v4).count();
        if v4 && count >= MEMBERSHIPS {
            return Err(Errno::ENOBUFS);
        }
        if !v4 && count >= MEMBERSHIPS_V6 {
            return Err(Errno::ENOMEM);
        }
        whose.network.memory.charge(COST)?;
        self.all.push(Membership { group: asked.group, interface, by: asked.by });
        let filter = Filter { include, sources: None };
        whose.network.joined.0.lock().insert((asked.group, interface, whose.ino), filter);
        Ok(())
    }

    fn leave(&mut self, whose: &Whose<'_>, asked: &Asked) -> Result<()> {
        let none_said = asked.index == 0 && asked.by.is_unspecified();
        let interface = Self::interface(whose, asked);
        if asked.group.is_ipv4() && none_said && interface.is_none() {
            return Err(Errno::ENODEV);
        }
        let at = self.all.iter().position(|known| {
            let here = match interface {
                Some(interface) if asked.group.is_ipv4() || !none_said => known.interface == interface,
                Some(_) => true,
                None => none_said || known.by == asked.by,
            };
            known.group == asked.group && here
        });
        let gone = self.all.remove(at.ok_or(Errno::EADDRNOTAVAIL)?);
        Self::forget(whose.network, whose.ino, &gone);
        Ok(())
    }

    fn forget(network: &Namespace, ino: u64, gone: &Membership) {
        let filter = network.joined.0.lock().remove(&(gone.group, gone.interface, ino));
        let sources = filter.and_then(|filter| filter.sources).map_or(0, |sources| sources.len());
        network.memory.pay_back((1 + sources) * COST);
    }

    /// Adds a source to those that are wanted (`include`), or are not, or takes it away (ip_mc_source).
    fn choose(&mut self, whose: &Whose<'_>, asked: &Asked, include: bool, add: bool) -> Result<()> {
        let source = asked.source.ok_or(Errno::EINVAL)?;
        let interface = Self::interface(whose, asked).ok_or(Errno::ENODEV)?;
        let most = if source.is_ipv4() { SOURCES } else { SOURCES_V6 };
        let mut joined = whose.network.joined.0.lock();
        let filter = joined.get_mut(&(asked.group, interface, whose.ino)).ok_or(Errno::EINVAL)?;
        if filter.include != include {
            // One that names nobody may change its mind.
            if filter.sources.is_some() {
                return Err(Errno::EINVAL);
            }
            filter.include = include;
        }
        if !add {
            let sources = filter.sources.as_mut().ok_or(Errno::EADDRNOTAVAIL)?;
            let at = sources.iter().position(|known| *known == source).ok_or(Errno::EADDRNOTAVAIL)?;
            if include && sources.len() == 1 {
                drop(joined);
                return self.leave(whose, &Asked { index: interface as i32, ..*asked });
            }
            sources.remove(at);
            drop(joined);
            whose.network.memory.pay_back(COST);
            return Ok(());
        }
        let sources = filter.sources.get_or_insert_default();
        if sources.len() >= most {
            return Err(Errno::ENOBUFS);
        }
        if sources.contains(&source) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        whose.network.memory.charge(COST)?;
        sources.push(source);
        Ok(())
    }

    /// Leaves all.
    pub(super) fn leave_all(&mut self, network: &Namespace, ino: u64) {
        for gone in std::mem::take(&mut self.all) {
            Self::forget(network, ino, &gone);
        }
    }

    /// Whether a socket hears what `from` sends to a group, come in by an interface.
    pub(super) fn hears(
        &self,
        network: &Namespace,
        ino: u64,
        (group, interface): (IpAddr, u32),
        from: IpAddr,
    ) -> bool {
        let joined = network.joined.allows(ino, group, interface, from);
        joined.unwrap_or(!self.joined_only[usize::from(group.is_ipv6())])
    }

    /// The interface by which a group is sent to, as far as the socket has said.
    pub(super) fn out(&self, v6: bool) -> Option<u32> {
        Some(if v6 { self.out_v6 } else { self.out }).filter(|index| *index != 0)
    }

    /// Where it sends from to a group, as far as the socket has said.
    pub(super) fn sends_from(&self, to: IpAddr) -> Option<IpAddr> {
        self.by.filter(|by| !by.is_unspecified() && to.is_multicast()).map(IpAddr::V4)
    }
}

#[cfg(test)]
mod tests {
    use super::Filter;
    use std::net::IpAddr;

    #[test]
    fn filters_name_those_who_are_wanted_or_are_not() {
        let [one, other] = [[127, 0, 0, 1], [127, 0, 0, 2]].map(IpAddr::from);
        let filter = |include, sources| Filter { include, sources };
        assert!(filter(false, None).allows(one) && !filter(true, None).allows(one));
        let some = Some(vec![one]);
        assert!(filter(true, some.clone()).allows(one) && !filter(true, some.clone()).allows(other));
        assert!(!filter(false, some.clone()).allows(one) && filter(false, some).allows(other));
    }
}
