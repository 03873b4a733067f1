//! What programs may do to interfaces (rtnetlink(7), netdevice(7)). Those of the outside stay as they are.

use super::Nets;
use super::link::{Assigned, End, Kind, Link, is_name};
use super::ways::{Way, covers, edge, width};
use crate::abi::{Errno, Result};
use crate::net::Namespace;
use crate::net::interfaces::{Interface, Interfaces, MAIN, family};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteScope, RouteType};
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
struct Wishes {
    name: Option<String>,
    mtu: Option<u32>,
    queue: Option<u32>,
    group: Option<u32>,
    hardware: Option<Vec<u8>>,
    up: Option<bool>,
    to: Option<u64>,
    kind: Option<InfoKind>,
    peer: Option<LinkMessage>,
    /// Something that is not to be had.
    other: bool,
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

fn mac(hardware: &[u8]) -> Result<[u8; 6]> {
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

impl Nets {
    /// Makes an interface in the network `to`, for a program in the network `of`.
    fn make(
        &mut self,
        to: u64,
        of: u64,
        (index, wanted): (u32, &Wishes),
        (peer_index, said): &(u32, Wishes),
        random: impl Fn() -> [u8; 6],
    ) -> Result<()> {
        match wanted.kind {
            Some(InfoKind::Dummy) => {
                self.has_room(to, 1)?;
                let at = self.place(to, index, Kind::Dummy, wanted, &random)?;
                self.finish(to, at, wanted)
            }
            Some(InfoKind::Veth) => {
                let there = said.to.unwrap_or(of);
                self.has_room(to, 1)?;
                self.has_room(there, 2)?;
                let peer = self.place(there, *peer_index, Kind::Veth(None), said, &random)?;
                let at = match self.place(
                    to,
                    index,
                    Kind::Veth(Some(End { net: there, index: peer })),
                    wanted,
                    &random,
                ) {
                    Ok(at) => at,
                    Err(errno) => {
                        self.net(there)?.forget(peer);
                        return Err(errno);
                    }
                };
                if let Some(link) = self.net(there)?.links.get_mut(&peer) {
                    link.kind = Kind::Veth(Some(End { net: to, index: at }));
                }
                self.finish(there, peer, said)?;
                self.finish(to, at, wanted)
            }
            Some(_) | None => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Puts a new interface into a network.
    fn place(
        &mut self,
        to: u64,
        index: u32,
        kind: Kind,
        wanted: &Wishes,
        random: &impl Fn() -> [u8; 6],
    ) -> Result<u32> {
        let net = self.net(to)?;
        if index > i32::MAX as u32 {
            return Err(Errno::EINVAL);
        }
        if net.is_outer(index, None) || net.links.contains_key(&index) {
            return Err(Errno::EBUSY);
        }
        let taken = |name: &str| net.is_outer(0, Some(name)) || net.find(0, Some(name)).is_some();
        let name = match &wanted.name {
            Some(name) if !is_name(name) => return Err(Errno::EINVAL),
            Some(name) if taken(name) => return Err(Errno::EEXIST),
            Some(name) => name.clone(),
            None => {
                let stem = if kind == Kind::Dummy { "dummy" } else { "veth" };
                let mut names = (0..).map(|number: u32| format!("{stem}{number}"));
                names.find(|name| !taken(name)).ok_or(Errno::ENOBUFS)?
            }
        };
        let hardware = match &wanted.hardware {
            Some(hardware) => mac(hardware)?,
            None => random(),
        };
        let mut link = Link::new(name, kind, hardware);
        link.set_mtu(wanted.mtu)?;
        let index = if index > 0 { index } else { net.next() };
        link.queue = wanted.queue.unwrap_or(link.queue);
        link.group = wanted.group.unwrap_or(link.group);
        net.links.insert(index, link);
        Ok(index)
    }

    /// Switches a new interface on, where that was said along.
    fn finish(&mut self, net: u64, index: u32, wanted: &Wishes) -> Result<()> {
        if wanted.up == Some(true) {
            self.net(net)?.switch(index, true);
        }
        self.show_all(net);
        Ok(())
    }

    /// Changes an interface.
    fn change(&mut self, number: u64, index: u32, wanted: &Wishes) -> Result<()> {
        if wanted.other {
            return Err(Errno::EOPNOTSUPP);
        }
        if wanted.up == Some(true) {
            self.has_room(number, 8)?;
        }
        let number = match wanted.to {
            Some(to) if to != number => {
                self.carry(number, index, to, wanted.name.as_deref())?;
                to
            }
            _ => number,
        };
        let net = self.net(number)?;
        let index =
            net.find(index, None).or_else(|| net.find(0, wanted.name.as_deref())).ok_or(Errno::ENODEV)?;
        if let Some(name) = &wanted.name {
            let other = net.find(0, Some(name)).is_some_and(|other| other != index);
            if !is_name(name) {
                return Err(Errno::EINVAL);
            }
            if other || net.is_outer(0, Some(name)) {
                return Err(Errno::EEXIST);
            }
        }
        let Some(link) = net.links.get_mut(&index) else { return Err(Errno::ENODEV) };
        if let Some(hardware) = &wanted.hardware {
            link.hardware = mac(hardware)?;
        }
        link.set_mtu(wanted.mtu)?;
        if let Some(name) = &wanted.name {
            // Labels are of the name.
            for own in &mut link.addresses {
                own.label = own.label.take().map(|label| label.replacen(&link.name, name, 1));
            }
            link.name.clone_from(name);
        }
        link.queue = wanted.queue.unwrap_or(link.queue);
        link.group = wanted.group.unwrap_or(link.group);
        if let Some(up) = wanted.up {
            net.switch(index, up);
        }
        self.show_all(number);
        Ok(())
    }

    /// Takes an interface to another network (dev_change_net_namespace): it is down there, and has no address.
    fn carry(&mut self, from: u64, index: u32, to: u64, name: Option<&str>) -> Result<()> {
        self.has_room(to, 1)?;
        let link = self.net(from)?.links.get(&index).ok_or(Errno::ENODEV)?.clone();
        if link.kind == Kind::Loopback {
            return Err(Errno::EINVAL);
        }
        let there = self.net(to)?;
        let name = name.unwrap_or(&link.name);
        if there.find(0, Some(name)).is_some() || there.is_outer(0, Some(name)) {
            return Err(Errno::EEXIST);
        }
        let taken = there.links.contains_key(&index) || there.is_outer(index, None);
        let new = if taken { there.next() } else { index };
        let end = End { net: to, index: new };
        there
            .links
            .insert(new, Link { name: name.to_owned(), up: false, addresses: Vec::new(), ..link.clone() });
        self.net(from)?.forget(index);
        if let Some(other) = link.kind.other()
            && let Some(other) = self.net(other.net)?.links.get_mut(&other.index)
        {
            other.kind = Kind::Veth(Some(end));
        }
        self.show_all(from);
        self.show_all(to);
        Ok(())
    }

    /// Gives an interface an address.
    fn assign(&mut self, number: u64, index: u32, mut own: Assigned, manner: Manner) -> Result<()> {
        let net = self.net(number)?;
        let link = net.links.get_mut(&index).ok_or(Errno::ENODEV)?;
        let v4 = own.ip.is_ipv4();
        let same = |known: &Assigned| known.ip == own.ip && (!v4 || known.prefix == own.prefix);
        if link.addresses.iter().any(same) {
            let is_new = manner.new || !manner.replace;
            return if is_new { Err(Errno::EEXIST) } else { Ok(()) };
        }
        let beside = |known: &Assigned| {
            v4 && known.ip.is_ipv4() && known.prefix == own.prefix && covers((known.ip, known.prefix), own.ip)
        };
        own.secondary = link.addresses.iter().any(beside);
        if v4 && own.label.is_none() {
            own.label = Some(link.name.clone());
        }
        link.add(own.clone());
        net.add_ways(index, &own);
        self.show(number);
        Ok(())
    }

    /// Adds a way (fib_table_insert).
    fn lead(&mut self, number: u64, mut way: Way, manner: Manner) -> Result<()> {
        let net = self.net(number)?;
        if !matches!(
            way.kind,
            RouteType::Unicast
                | RouteType::Local
                | RouteType::Broadcast
                | RouteType::BlackHole
                | RouteType::Unreachable
                | RouteType::Prohibit
        ) {
            return Err(Errno::EINVAL);
        }
        let silent = matches!(way.kind, RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit);
        if let Some(index) = way.index {
            if net.is_outer(index, None) {
                return Err(Errno::EOPNOTSUPP);
            }
            let link = net.links.get(&index).ok_or(Errno::ENODEV)?;
            if !link.up {
                return Err(Errno::ENETDOWN);
            }
        }
        if let Some(gateway) = way.gateway {
            // Who passes it on is to be reached without anybody who does.
            let near = |link: &Link| {
                let near = |own: &Assigned| covers((own.ip, own.prefix), gateway) && own.ip != gateway;
                link.up && link.addresses.iter().any(near)
            };
            let mut links = net.links.iter().filter(|(index, _)| way.index.is_none_or(|own| own == **index));
            let found = links.find(|(_, link)| near(link)).map(|(&index, _)| index);
            way.index = Some(found.ok_or(Errno::ENETUNREACH)?);
        }
        if way.index.is_none() && !silent {
            return Err(Errno::ENODEV);
        }
        if let Some(from) = way.from {
            let has = net.links.values().flat_map(|link| &link.addresses).any(|own| own.ip == from);
            if !has {
                return Err(Errno::EINVAL);
            }
        }
        if way.to.is_ipv6() && way.metric.unwrap_or(0) == 0 {
            way.metric = Some(1024);
        }
        if way.protocol == RouteProtocol::Unspec {
            way.protocol = RouteProtocol::Boot;
        }
        if way.to.is_ipv6() {
            way.scope = RouteScope::Universe;
        }
        let known = net.ways.iter().filter_map(Way::of).find(|known| known.is_like(&way));
        match known {
            Some(_) if manner.new => return Err(Errno::EEXIST),
            Some(known) if manner.replace => net.drop_ways(|way| *way == known),
            Some(known) if known == way => return Err(Errno::EEXIST),
            None if !manner.create => return Err(Errno::ENOENT),
            Some(_) | None => {}
        }
        net.insert(&way);
        Ok(())
    }
}

impl Link {
    fn set_mtu(&mut self, mtu: Option<u32>) -> Result<()> {
        let Some(mtu) = mtu else { return Ok(()) };
        let (least, most) = self.kind.mtus();
        if mtu < least || (most > 0 && mtu > most) || mtu > i32::MAX as u32 {
            return Err(Errno::EINVAL);
        }
        self.mtu = mtu;
        Ok(())
    }
}
