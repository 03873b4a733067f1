//! Ways (ip-route(8)): those that come with addresses, and those that programs say.

use super::Net;
use super::link::{Assigned, Kind, Link, link_local};
use crate::net::interfaces::{Interfaces, LO, LOCAL, MAIN, ROUTE, Record, family};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::AddressScope;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RoutePreference, RouteProtocol, RouteScope, RouteType,
};
use std::net::{IpAddr, Ipv4Addr};

/// IP6_RT_PRIO_ADDRCONF.
const BY_ADDRESS: u32 = 256;

/// What is asked of a way when it is looked for or taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) table: u32,
    pub(super) to: IpAddr,
    pub(super) prefix: u8,
    pub(super) kind: RouteType,
    pub(super) metric: Option<u32>,
    pub(super) gateway: Option<IpAddr>,
    pub(super) index: Option<u32>,
    pub(super) from: Option<IpAddr>,
    pub(super) scope: RouteScope,
    pub(super) protocol: RouteProtocol,
}

pub(super) fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// Bits of an address.
pub(super) fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// Whether an address is of a subnet.
pub(super) fn covers((net, prefix): (IpAddr, u8), ip: IpAddr) -> bool {
    let same = (bits(net) ^ bits(ip)).leading_zeros() >= u32::from(prefix) || prefix == 0;
    net.is_ipv4() == ip.is_ipv4() && same
}

/// The first address of a subnet, or with `last` the last one.
pub(super) fn edge(ip: IpAddr, prefix: u8, last: bool) -> IpAddr {
    let host = u128::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    let whole = if last { bits(ip) | host } else { bits(ip) & !host };
    match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits((whole >> 96) as u32)),
        IpAddr::V6(_) => IpAddr::from(whole.to_be_bytes()),
    }
}

fn plain(of: &RouteAddress) -> Option<IpAddr> {
    match of {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

impl Way {
    /// What a message says; `None` if it is of no family of ours.
    pub(super) fn of(message: &RouteMessage) -> Option<Way> {
        let any = match u32::from(u8::from(message.header.address_family)) {
            linux_raw_sys::net::AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            linux_raw_sys::net::AF_INET6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let mut way = Way {
            table: message.header.table.into(),
            to: any,
            prefix: message.header.destination_prefix_length,
            kind: message.header.kind,
            metric: None,
            gateway: None,
            index: None,
            from: None,
            scope: message.header.scope,
            protocol: message.header.protocol,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Table(table) => way.table = *table,
                RouteAttribute::Destination(to) => way.to = plain(to)?,
                RouteAttribute::Gateway(by) => way.gateway = plain(by),
                RouteAttribute::PrefSource(from) => way.from = plain(from),
                RouteAttribute::Oif(index) => way.index = Some(*index),
                RouteAttribute::Priority(metric) => way.metric = Some(*metric),
                _ => {}
            }
        }
        Some(way)
    }

    /// The message that tells of it.
    pub(super) fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family(self.to);
        message.header.destination_prefix_length = self.prefix;
        message.header.table = u8::try_from(self.table).unwrap_or(252);
        message.header.protocol = self.protocol;
        message.header.scope = self.scope;
        message.header.kind = self.kind;
        let mut all = vec![RouteAttribute::Table(self.table)];
        if self.prefix > 0 {
            all.push(RouteAttribute::Destination(self.to.into()));
        }
        all.extend(self.metric.map(RouteAttribute::Priority));
        all.extend(self.from.map(|from| RouteAttribute::PrefSource(from.into())));
        all.extend(self.gateway.map(|by| RouteAttribute::Gateway(by.into())));
        all.extend(self.index.map(RouteAttribute::Oif));
        if self.to.is_ipv6() {
            all.push(RouteAttribute::Preference(RoutePreference::Medium));
        }
        message.attributes = all;
        message
    }

    /// One that the kernel makes with an address.
    fn kernel(to: IpAddr, prefix: u8, kind: RouteType, table: u8, index: u32) -> Way {
        let scope = match kind {
            _ if to.is_ipv6() => RouteScope::Universe,
            RouteType::Local => RouteScope::Host,
            _ => RouteScope::Link,
        };
        let metric = match kind {
            _ if to.is_ipv4() => None,
            RouteType::Local => Some(0),
            _ => Some(BY_ADDRESS),
        };
        let (table, protocol, index) = (table.into(), RouteProtocol::Kernel, Some(index));
        Way { table, to, prefix, kind, metric, gateway: None, index, from: None, scope, protocol }
    }

    /// Whether both are the same to ip-route(8), which a table holds once.
    pub(super) fn is_like(&self, other: &Way) -> bool {
        let metric = |way: &Way| way.metric.unwrap_or(0);
        (self.table, self.prefix, self.to) == (other.table, other.prefix, other.to)
            && metric(self) == metric(other)
    }

    /// Whether it is what is asked for to be taken away: what that says, it has.
    pub(super) fn is_meant_by(&self, wanted: &Way) -> bool {
        let said = |wanted: Option<IpAddr>, own: Option<IpAddr>| wanted.is_none() || wanted == own;
        (self.table, self.prefix, self.to) == (wanted.table, wanted.prefix, wanted.to)
            && (wanted.metric.is_none() || wanted.metric == self.metric)
            && said(wanted.gateway, self.gateway)
            && said(wanted.from, self.from)
            && (wanted.index.is_none() || wanted.index == self.index)
            && (wanted.kind == RouteType::Unspec || wanted.kind == self.kind)
            && (wanted.protocol == RouteProtocol::Unspec || wanted.protocol == self.protocol)
            && (self.to.is_ipv6() || wanted.scope == RouteScope::NoWhere || wanted.scope == self.scope)
    }
}

pub(super) fn record(message: &RouteMessage) -> Record {
    Record::new(ROUTE, Message::NewRoute(message.clone()))
}

/// The way to an address, and the interface that it goes by, if any.
pub(super) fn best(interfaces: &Interfaces, to: IpAddr) -> Option<(Option<u32>, &RouteMessage)> {
    let way = crate::net::netlink::way_to(interfaces, to)?;
    let index = way.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    Some((index, way))
}

/// The address from which one goes to another by a way.
pub(in crate::net) fn source(interfaces: &Interfaces, way: &RouteMessage, to: IpAddr) -> Option<IpAddr> {
    let said = Way::of(way)?;
    let (next, index) = (said.gateway.unwrap_or(to), said.index?);
    let own = || interfaces.addresses().filter(|own| own.index == index && own.ip.is_ipv4() == to.is_ipv4());
    let is_near = |ip: IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let near = || own().find(|own| covers((own.ip, own.prefix), next));
    let any = || own().find(|own| is_near(own.ip) == is_near(to));
    said.from.or_else(|| near().or_else(any).map(|own| own.ip))
}

impl Net {
    /// Adds the ways that come with an address (fib_add_ifaddr, addrconf_add).
    pub(super) fn add_ways(&mut self, index: u32, own: &Assigned) {
        let Some(link) = self.links.get(&index) else { return };
        let (up, loopback, width) = (link.up, link.kind == Kind::Loopback, width(own.ip));
        let net = edge(own.peer, own.prefix, false);
        let v4 = own.ip.is_ipv4();
        // One that is not the first of its subnet is of use to others only.
        let first = |known: &&Assigned| {
            !known.secondary && known.prefix == own.prefix && covers((known.ip, known.prefix), own.ip)
        };
        let first = link.addresses.iter().filter(|_| own.secondary).find(first).map_or(own.ip, |it| it.ip);
        let mut all = Vec::new();
        let mut add = |to, prefix, kind, table| {
            let from = v4.then_some(first);
            all.push(Way { from, ..Way::kernel(to, prefix, kind, table, index) });
        };
        if v4 || up {
            add(own.ip, width, RouteType::Local, LOCAL);
        }
        if up && v4 {
            if let Some(broadcast) = own.broadcast.filter(|ip| *ip != Ipv4Addr::BROADCAST) {
                add(IpAddr::V4(broadcast), 32, RouteType::Broadcast, LOCAL);
            }
            if !net.is_unspecified() && !own.secondary && (net != own.ip || own.prefix < 32) {
                match loopback {
                    _ if own.no_way => {}
                    true => add(net, own.prefix, RouteType::Local, LOCAL),
                    false => add(net, own.prefix, RouteType::Unicast, MAIN),
                }
                if own.prefix < 31 {
                    add(edge(own.peer, own.prefix, true), 32, RouteType::Broadcast, LOCAL);
                }
            }
        } else if up && !own.no_way && !loopback {
            add(net, own.prefix, RouteType::Unicast, MAIN);
        }
        for way in all {
            self.insert(&way);
        }
    }

    /// Adds a way unless it is there.
    pub(super) fn insert(&mut self, way: &Way) {
        let order = |way: &Way| {
            (
                way.to.is_ipv6(),
                way.table,
                bits(way.to),
                std::cmp::Reverse(way.prefix),
                way.metric.unwrap_or(0),
            )
        };
        let known = |own: &RouteMessage| Way::of(own).is_some_and(|own| own == *way);
        if self.ways.iter().any(known) {
            return;
        }
        let before = |own: &RouteMessage| Way::of(own).is_some_and(|own| order(&own) <= order(way));
        let at = self.ways.partition_point(before);
        self.ways.insert(at, way.message());
    }

    /// Takes away those ways for which the test holds.
    pub(super) fn drop_ways(&mut self, mut gone: impl FnMut(&Way) -> bool) {
        self.ways.retain(|way| !Way::of(way).is_some_and(|way| gone(&way)));
    }

    /// Takes away an address of an interface, and the ways that came with it (fib_del_ifaddr). What others need stays.
    pub(super) fn unassign(&mut self, index: u32, at: usize) {
        let Some(link) = self.links.get_mut(&index) else { return };
        let gone = link.addresses.remove(at);
        // The first of a subnet takes the others along (net.ipv4.conf.*.promote_secondaries is 0).
        let subnet = (gone.ip, gone.prefix);
        let with_it = |own: &Assigned| {
            !gone.secondary && own.secondary && own.prefix == subnet.1 && covers(subnet, own.ip)
        };
        let more: Vec<Assigned> = link.addresses.extract_if(.., |own| with_it(own)).collect();
        let left = link.addresses.clone();
        for gone in more.iter().chain([&gone]) {
            self.drop_ways(|way| {
                way.from == Some(gone.ip) || (way.index == Some(index) && way.to == gone.ip)
            });
            let net = edge(gone.peer, gone.prefix, false);
            self.drop_ways(|way| {
                way.index == Some(index)
                    && way.protocol == RouteProtocol::Kernel
                    && (way.to, way.prefix) == (net, gone.prefix)
                    && gone.ip.is_ipv6()
            });
        }
        for own in &left {
            self.add_ways(index, own);
        }
        // Without any nothing of IPv4 goes by it (fib_disable_ip).
        if gone.ip.is_ipv4() && !left.iter().any(|own| own.ip.is_ipv4()) {
            self.drop_ways(|way| way.index == Some(index) && way.to.is_ipv4());
        }
    }

    /// Switches an interface on or off.
    pub(super) fn switch(&mut self, index: u32, up: bool) {
        let Some(link) = self.links.get_mut(&index) else { return };
        if link.up == up {
            return;
        }
        link.up = up;
        link.used |= up;
        if up {
            link.come_up();
            let own = link.addresses.clone();
            let v6 = own.iter().any(|own| own.ip.is_ipv6()) && index != LO;
            for own in &own {
                self.add_ways(index, own);
            }
            if v6 {
                let all = IpAddr::from([0xff00, 0, 0, 0, 0, 0, 0, 0]);
                self.insert(&Way::kernel(all, 8, RouteType::Multicast, LOCAL, index));
            }
        } else {
            // IPv4's addresses stay, and are local still (fib_sync_down_dev).
            link.addresses.retain(|own| own.ip.is_ipv4());
            let stays = |way: &Way| way.scope == RouteScope::Host && way.prefix == 32 && way.to.is_ipv4();
            self.drop_ways(|way| way.index == Some(index) && !stays(way));
        }
    }

    /// Takes away an interface, with all that goes by it.
    pub(super) fn forget(&mut self, index: u32) -> Option<Link> {
        let gone = self.links.remove(&index);
        self.drop_ways(|way| way.index == Some(index));
        gone
    }
}

impl Link {
    /// Adds an address: of IPv6 those of wider scope come first.
    pub(super) fn add(&mut self, own: Assigned) {
        let scope = |own: &Assigned| u8::from(own.scope);
        let after = |known: &Assigned| known.ip.is_ipv6() && scope(known) > scope(&own);
        let at = self.addresses.iter().position(after).filter(|_| own.ip.is_ipv6());
        self.addresses.insert(at.unwrap_or(self.addresses.len()), own);
    }

    /// Gives it the addresses that come with its being up.
    fn come_up(&mut self) {
        if self.kind == Kind::Loopback {
            for own in Assigned::loopbacks() {
                let has = self.addresses.iter().any(|known| known.ip.is_ipv4() == own.ip.is_ipv4());
                if !has {
                    self.addresses.push(own);
                }
            }
        } else {
            let own = Assigned::new(link_local(self.hardware), 64, AddressScope::Link);
            if !self.addresses.iter().any(|known| known.ip == own.ip) {
                self.add(own);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{covers, edge};
    use std::net::IpAddr;

    #[test]
    fn subnets_have_edges() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(edge(ip("10.9.8.7"), 24, false), ip("10.9.8.0"));
        assert_eq!(edge(ip("10.9.8.7"), 24, true), ip("10.9.8.255"));
        assert_eq!(edge(ip("10.9.8.7"), 32, true), ip("10.9.8.7"));
        assert_eq!(edge(ip("10.9.8.7"), 0, false), ip("0.0.0.0"));
        assert_eq!(edge(ip("fd00::1:2"), 64, false), ip("fd00::"));
        assert!(covers((ip("10.0.0.0"), 8), ip("10.255.0.1")));
        assert!(!covers((ip("10.0.0.0"), 8), ip("11.0.0.1")));
        assert!(!covers((ip("::"), 0), ip("11.0.0.1")));
        assert!(covers((ip("0.0.0.0"), 0), ip("11.0.0.1")));
    }
}
