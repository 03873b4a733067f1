//! Changes of the book: what becomes of interfaces, addresses and ways.

use super::change::{Manner, Wishes, mac};
use super::link::{Assigned, End, Kind, Link, is_name};
use super::ways::{Way, covers};
use super::{Net, Nets};
use crate::abi::{Errno, Result};
use netlink_packet_route::link::InfoKind;
use netlink_packet_route::route::{RouteProtocol, RouteScope, RouteType};
use std::net::IpAddr;

impl Nets {
    /// Makes an interface in the network `to`, for a program in the network `of`.
    pub(super) fn make(
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
    pub(super) fn change(&mut self, number: u64, index: u32, wanted: &Wishes) -> Result<()> {
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
    pub(super) fn assign(
        &mut self,
        number: u64,
        index: u32,
        mut own: Assigned,
        manner: Manner,
    ) -> Result<()> {
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
    pub(super) fn lead(&mut self, number: u64, mut way: Way, manner: Manner) -> Result<()> {
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
            way.index = Some(net.near(gateway, way.index).ok_or(Errno::ENETUNREACH)?);
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

impl Net {
    /// The interface, or whether it is the one of that number, by which an address is reached without anybody who passes
    /// anything on.
    fn near(&self, ip: IpAddr, by: Option<u32>) -> Option<u32> {
        let near = |own: &Assigned| covers((own.ip, own.prefix), ip) && own.ip != ip;
        let mut links = self.links.iter().filter(|(index, _)| by.is_none_or(|own| own == **index));
        let found = links.find(|(_, link)| link.up && link.addresses.iter().any(near));
        found.map(|(&index, _)| index)
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
