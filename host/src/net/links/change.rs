//! What programs may do to interfaces (rtnetlink(7), netdevice(7)). Those of the outside stay as they are.

use super::link::{Assigned, Kind};
use super::ways::{Way, edge, width};
use crate::abi::{Errno, Result};
use crate::net::Namespace;
use crate::net::interfaces::{Interface, Interfaces, MAIN, family};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::RouteMessage;
use std::net::IpAddr;
use std::sync::Arc;

/// How a request is meant that makes something (NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE).
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// It may be made.
    pub create: bool,
    /// It must not be there.
    pub new: bool,
    /// What is there goes.
    pub replace: bool,
}

/// How networks are found that a message names.
pub trait Networks {
    /// That of a process.
    ///
    /// # Errors
    /// ESRCH, EPERM.
    fn of_process(&self, pid: u32) -> Result<Arc<Namespace>>;

    /// That of a descriptor.
    ///
    /// # Errors
    /// EBADF, EINVAL, EPERM.
    fn of_file(&self, fd: i32) -> Result<Arc<Namespace>>;
}

/// What is to be done to an interface.
#[derive(Default, PartialEq)]
pub(super) struct Wishes {
    pub(super) name: Option<String>,
    pub(super) mtu: Option<u32>,
    pub(super) queue: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) hardware: Option<Vec<u8>>,
    pub(super) up: Option<bool>,
    pub(super) to: Option<u64>,
    pub(super) kind: Option<InfoKind>,
    pub(super) peer: Option<LinkMessage>,
    /// Something that is not to be had.
    pub(super) other: bool,
}

fn wishes(message: &LinkMessage, networks: Option<&dyn Networks>) -> Result<Wishes> {
    let mut wishes = Wishes::default();
    let find = |result: Option<Result<Arc<Namespace>>>| -> Result<u64> {
        Ok(result.ok_or(Errno::EINVAL)??.links.number)
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => wishes.name = Some(name.clone()),
            LinkAttribute::Mtu(mtu) => wishes.mtu = Some(*mtu),
            LinkAttribute::TxQueueLen(len) => wishes.queue = Some(*len),
            LinkAttribute::Group(group) => wishes.group = Some(*group),
            LinkAttribute::Address(address) => wishes.hardware = Some(address.clone()),
            LinkAttribute::NetNsPid(pid) => wishes.to = Some(find(networks.map(|all| all.of_process(*pid)))?),
            LinkAttribute::NetNsFd(fd) => wishes.to = Some(find(networks.map(|all| all.of_file(*fd)))?),
            LinkAttribute::LinkInfo(all) => {
                for info in all {
                    match info {
                        LinkInfo::Kind(kind) => wishes.kind = Some(kind.clone()),
                        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))) => {
                            wishes.peer = Some(peer.clone())
                        }
                        _ => {}
                    }
                }
            }
            // What is of filters only, and how many queues there are.
            LinkAttribute::ExtMask(_) | LinkAttribute::NumTxQueues(_) | LinkAttribute::NumRxQueues(_) => {}
            _ => wishes.other = true,
        }
    }
    let (flags, mask) = (message.header.flags, message.header.change_mask);
    // Without a mask all are meant; but of those only one is a program's to say here.
    let all = mask.is_empty() && !flags.is_empty();
    if all || mask.contains(LinkFlags::Up) {
        wishes.up = Some(flags.contains(LinkFlags::Up));
    }
    if !all && mask.intersects(!LinkFlags::Up) {
        wishes.other = true;
    }
    Ok(wishes)
}

/// A hardware address that is one's own.
///
/// # Errors
/// EINVAL, EADDRNOTAVAIL.
pub(super) fn mac(hardware: &[u8]) -> Result<[u8; 6]> {
    let own: [u8; 6] = hardware.try_into().map_err(|_| Errno::EINVAL)?;
    // One for many is no one's.
    if own[0] & 1 != 0 || own == [0; 6] { Err(Errno::EADDRNOTAVAIL) } else { Ok(own) }
}

impl Namespace {
    /// RTM_NEWLINK, RTM_SETLINK: makes an interface, or changes one.
    ///
    /// # Errors
    /// ENODEV, EEXIST, EINVAL, EOPNOTSUPP, EADDRNOTAVAIL, ENOBUFS; EPERM for another's network.
    pub fn set_link(
        &self,
        message: &LinkMessage,
        manner: Manner,
        networks: Option<&dyn Networks>,
    ) -> Result<()> {
        let mut wanted = wishes(message, networks)?;
        // Whoever is named is looked for before anything is held.
        let peer = match wanted.peer.take() {
            Some(peer) => (peer.header.index, wishes(&peer, networks)?),
            None => (0, Wishes::default()),
        };
        let index = message.header.index;
        let random = || self.random_mac();
        self.links.edit(|nets, number| {
            let net = nets.net(number)?;
            if net.is_outer(index, wanted.name.as_deref()) {
                return outer_link(net.outer(), index, &wanted, manner);
            }
            match net.find(index, wanted.name.as_deref()) {
                Some(_) if manner.new => Err(Errno::EEXIST),
                Some(_) if manner.replace || wanted.kind.is_some() => Err(Errno::EOPNOTSUPP),
                Some(found) => nets.change(number, found, &wanted),
                None if !manner.create => Err(Errno::ENODEV),
                None => {
                    let to = wanted.to.take().unwrap_or(number);
                    nets.make(to, number, (index, &wanted), &peer, random)
                }
            }
        })
    }

    /// RTM_DELLINK: takes an interface away, with its other end.
    ///
    /// # Errors
    /// ENODEV, EINVAL, EOPNOTSUPP.
    pub fn delete_link(&self, message: &LinkMessage) -> Result<()> {
        let name = wishes(message, None)?.name;
        let index = message.header.index;
        if index == 0 && name.is_none() {
            return Err(Errno::EINVAL);
        }
        self.links.edit(|nets, number| {
            let net = nets.net(number)?;
            if net.is_outer(index, name.as_deref()) {
                return Err(Errno::EOPNOTSUPP);
            }
            let index = net.find(index, name.as_deref()).ok_or(Errno::ENODEV)?;
            if net.links.get(&index).is_some_and(|link| link.kind == Kind::Loopback) {
                return Err(Errno::EOPNOTSUPP);
            }
            let gone = net.forget(index);
            if let Some(gone) = gone {
                nets.cut(&gone);
            }
            nets.show(number);
            Ok(())
        })
    }

    /// Switches an interface on or off (SIOCSIFFLAGS).
    ///
    /// # Errors
    /// ENODEV; EOPNOTSUPP for the outside's.
    pub fn switch_link(&self, name: &str, up: bool) -> Result<()> {
        self.change_by_name(name, &Wishes { up: Some(up), ..Wishes::default() })
    }

    /// Sets how long packets may be (SIOCSIFMTU).
    ///
    /// # Errors
    /// ENODEV, EINVAL; EOPNOTSUPP for the outside's.
    pub fn set_mtu(&self, name: &str, mtu: u32) -> Result<()> {
        self.change_by_name(name, &Wishes { mtu: Some(mtu), ..Wishes::default() })
    }

    /// Sets how many packets may wait (SIOCSIFTXQLEN).
    ///
    /// # Errors
    /// ENODEV; EOPNOTSUPP for the outside's.
    pub fn set_queue(&self, name: &str, queue: u32) -> Result<()> {
        self.change_by_name(name, &Wishes { queue: Some(queue), ..Wishes::default() })
    }

    /// Gives an interface another name (SIOCSIFNAME).
    ///
    /// # Errors
    /// ENODEV, EEXIST, EINVAL; EOPNOTSUPP for the outside's.
    pub fn rename_link(&self, name: &str, new: &str) -> Result<()> {
        self.change_by_name(name, &Wishes { name: Some(new.to_owned()), ..Wishes::default() })
    }

    fn change_by_name(&self, name: &str, wanted: &Wishes) -> Result<()> {
        self.links.edit(|nets, number| {
            let net = nets.net(number)?;
            if net.is_outer(0, Some(name)) {
                return Err(Errno::EOPNOTSUPP);
            }
            let index = net.find(0, Some(name)).ok_or(Errno::ENODEV)?;
            nets.change(number, index, wanted)
        })
    }

    /// RTM_NEWADDR.
    ///
    /// # Errors
    /// EINVAL, ENODEV, EEXIST, ENOBUFS; EOPNOTSUPP for the outside's.
    pub fn add_address(&self, message: &AddressMessage, manner: Manner) -> Result<()> {
        let own = assigned(message)?;
        let index = message.header.index;
        self.links.edit(|nets, number| {
            if nets.net(number)?.is_outer(index, None) {
                return Err(Errno::EOPNOTSUPP);
            }
            nets.has_room(number, 4)?;
            nets.assign(number, index, own, manner)
        })
    }

    /// RTM_DELADDR.
    ///
    /// # Errors
    /// EADDRNOTAVAIL, ENODEV, EINVAL; EOPNOTSUPP for the outside's.
    pub fn delete_address(&self, message: &AddressMessage) -> Result<()> {
        let gone = assigned(message)?;
        let index = message.header.index;
        self.links.edit(|nets, number| {
            let net = nets.net(number)?;
            if net.is_outer(index, None) {
                return Err(Errno::EOPNOTSUPP);
            }
            let link = net.links.get(&index).ok_or(Errno::ENODEV)?;
            let same = |own: &Assigned| own.ip == gone.ip && own.prefix == gone.prefix;
            let at = link.addresses.iter().position(same).ok_or(Errno::EADDRNOTAVAIL)?;
            net.unassign(index, at);
            nets.show(number);
            Ok(())
        })
    }

    /// RTM_NEWROUTE.
    ///
    /// # Errors
    /// EEXIST, ENOENT, EINVAL, ENODEV, ENETDOWN, ENETUNREACH, ENOBUFS; EOPNOTSUPP for what leads by the outside's interfaces.
    pub fn add_way(&self, message: &RouteMessage, manner: Manner) -> Result<()> {
        let way = asked(message)?;
        self.links.edit(|nets, number| {
            nets.has_room(number, 1)?;
            nets.lead(number, way, manner)?;
            nets.show(number);
            Ok(())
        })
    }

    /// RTM_DELROUTE.
    ///
    /// # Errors
    /// ESRCH where there is none such; EINVAL.
    pub fn delete_way(&self, message: &RouteMessage) -> Result<()> {
        let wanted = asked(message)?;
        self.links.edit(|nets, number| {
            let net = nets.net(number)?;
            let found = net.ways.iter().filter_map(Way::of).find(|way| way.is_meant_by(&wanted));
            let found = found.ok_or(Errno::ESRCH)?;
            net.drop_ways(|way| *way == found);
            nets.show(number);
            Ok(())
        })
    }

    /// A hardware address that nobody has given (eth_random_addr).
    fn random_mac(&self) -> [u8; 6] {
        let mut own = [0; 6];
        own.copy_from_slice(&self.random.word().to_ne_bytes()[..6]);
        own[0] = own[0] & 0xfe | 2;
        own
    }
}

/// What is asked of an interface of the outside: to be switched on, it is if it is.
fn outer_link(outer: Option<&Interfaces>, index: u32, wanted: &Wishes, manner: Manner) -> Result<()> {
    let same = |link: &Interface| match index {
        0 => wanted.name.as_deref() == Some(&link.name),
        index => link.index == index,
    };
    let link = outer.and_then(|all| all.links().find(same)).ok_or(Errno::ENODEV)?;
    if manner.new && wanted.kind.is_some() {
        return Err(Errno::EEXIST);
    }
    let only_up = *wanted == Wishes { up: Some(true), name: wanted.name.clone(), ..Wishes::default() };
    let named = index == 0 || wanted.name.is_none();
    if only_up && named && link.flags & LinkFlags::Up.bits() != 0 { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
}

/// The address that a message is about.
fn assigned(message: &AddressMessage) -> Result<Assigned> {
    let (mut local, mut peer, mut label, mut broadcast) = (None, None, None, None);
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => peer = Some(*ip),
            AddressAttribute::Label(text) => label = Some(text.clone()),
            AddressAttribute::Broadcast(ip) => broadcast = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let v4 = message.header.family == family(IpAddr::from([0; 4]));
    // Of IPv4 it is the own address that must be said; of IPv6 it is the other where nobody is at the end.
    let ip = if v4 { local } else { local.or(peer) }.ok_or(Errno::EINVAL)?;
    let peer = peer.unwrap_or(ip);
    let prefix = message.header.prefix_len;
    if ip.is_ipv4() != v4 || peer.is_ipv4() != v4 || prefix > width(ip) || ip.is_multicast() && !v4 {
        return Err(Errno::EINVAL);
    }
    let scope = match ip {
        IpAddr::V4(_) => message.header.scope,
        IpAddr::V6(ip) if ip.is_loopback() => AddressScope::Host,
        IpAddr::V6(ip) if ip.is_unicast_link_local() => AddressScope::Link,
        IpAddr::V6(_) => AddressScope::Universe,
    };
    let no_way = flags.contains(AddressFlags::Noprefixroute);
    Ok(Assigned { ip, peer, prefix, scope, broadcast, label, secondary: false, no_way })
}

/// The way that a message is about.
fn asked(message: &RouteMessage) -> Result<Way> {
    let mut way = Way::of(message).ok_or(Errno::EAFNOSUPPORT)?;
    if way.prefix > width(way.to) {
        return Err(Errno::EINVAL);
    }
    if way.table == 0 {
        way.table = MAIN.into();
    }
    // Bits beyond the prefix mean nothing.
    if edge(way.to, way.prefix, false) == way.to { Ok(way) } else { Err(Errno::EINVAL) }
}
