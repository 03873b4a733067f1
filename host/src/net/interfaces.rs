//! Interfaces of a network, their addresses, and the ways that lead from them: as rtnetlink(7) has them.
//!
//! They are the loopback interface, and those of the host's network where there is a way out, as they were at the start. They
//! are kept as the messages that say what they are; whoever wants to know one thing of one looks there.

use netlink_packet_core::Emitable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, State};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// RTM_NEWLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_NEWNEIGH, RTM_NEWRULE.
pub const LINK: u16 = 16;
/// See [`LINK`].
pub const ADDRESS: u16 = 20;
/// See [`LINK`].
pub const ROUTE: u16 = 24;
/// See [`LINK`].
pub const NEIGHBOUR: u16 = 28;
/// See [`LINK`].
pub const RULE: u16 = 32;

/// Tables of routes (ip-route(8)).
const LOCAL: u8 = 255;
const MAIN: u8 = 254;
const DEFAULT: u8 = 253;
/// The loopback interface's number, and its mtu.
pub(super) const LO: u32 = 1;
const MTU: u32 = 65_536;
const FOR_EVER: u32 = u32::MAX;

/// One message.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its type.
    pub kind: u16,
    /// What follows the header.
    pub payload: Vec<u8>,
    /// What that says.
    pub message: Message,
}

/// What there is.
#[derive(Clone, Debug)]
pub struct Interfaces {
    records: Arc<[Record]>,
}

/// One interface.
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `IFF_*`, as ioctl(2) has them.
    pub flags: u32,
    /// Bytes in a packet.
    pub mtu: u32,
    /// `ARPHRD_*`.
    pub hardware: u16,
    /// Its hardware address.
    pub address: Vec<u8>,
    /// Where all on its link listen.
    pub broadcast: Vec<u8>,
    /// Packets that may wait.
    pub queue: u32,
    /// Received and sent: bytes, packets, errors, dropped.
    pub received: [u64; 4],
    /// See `received`.
    pub sent: [u64; 4],
    /// Packets received for many.
    pub multicast: u64,
}

/// An address of an interface.
pub struct Own {
    /// The interface.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// Bits of it that are the network's.
    pub prefix: u8,
    /// `RT_SCOPE_*`.
    pub scope: u8,
    /// `IFA_F_*`.
    pub flags: u32,
    /// Its name (of IPv4 addresses).
    pub label: Option<String>,
    /// Where all on its link listen.
    pub broadcast: Option<Ipv4Addr>,
}

fn record(kind: u16, message: Message) -> Record {
    let mut payload = vec![0; message.buffer_len()];
    message.emit(&mut payload);
    Record { kind, payload, message }
}

impl Interfaces {
    /// The loopback interface and nothing else.
    pub fn loopback() -> Interfaces {
        let mut records = vec![record(LINK, Message::NewLink(lo()))];
        records.extend(addresses().map(|message| record(ADDRESS, Message::NewAddress(message))));
        records.extend(routes().map(|message| record(ROUTE, Message::NewRoute(message))));
        records.extend(rules().map(|message| record(RULE, Message::NewRule(message))));
        Interfaces { records: records.into() }
    }

    /// What these messages say.
    pub fn of(records: Vec<Record>) -> Interfaces {
        Interfaces { records: records.into() }
    }

    /// All messages.
    pub fn records(&self) -> &Arc<[Record]> {
        &self.records
    }

    /// The interfaces.
    pub fn links(&self) -> impl Iterator<Item = Interface> {
        self.records.iter().filter_map(|record| match &record.message {
            Message::NewLink(message) => Some(interface(message)),
            _ => None,
        })
    }

    /// Their addresses.
    pub fn addresses(&self) -> impl Iterator<Item = Own> {
        self.records.iter().filter_map(|record| match &record.message {
            Message::NewAddress(message) => own(message),
            _ => None,
        })
    }

    /// The ways.
    pub fn routes(&self) -> impl Iterator<Item = &RouteMessage> {
        self.records.iter().filter_map(|record| match &record.message {
            Message::NewRoute(message) => Some(message),
            _ => None,
        })
    }
}

fn interface(message: &LinkMessage) -> Interface {
    let mut known = Interface {
        index: message.header.index,
        name: String::new(),
        flags: message.header.flags.bits(),
        mtu: 0,
        hardware: message.header.link_layer_type.into(),
        address: Vec::new(),
        broadcast: Vec::new(),
        queue: 0,
        received: [0; 4],
        sent: [0; 4],
        multicast: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => known.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => known.mtu = *mtu,
            LinkAttribute::TxQueueLen(len) => known.queue = *len,
            LinkAttribute::Address(address) => known.address.clone_from(address),
            LinkAttribute::Broadcast(address) => known.broadcast.clone_from(address),
            LinkAttribute::Stats64(stats) => {
                known.received = [stats.rx_bytes, stats.rx_packets, stats.rx_errors, stats.rx_dropped];
                known.sent = [stats.tx_bytes, stats.tx_packets, stats.tx_errors, stats.tx_dropped];
                known.multicast = stats.multicast;
            }
            _ => {}
        }
    }
    known
}

fn own(message: &AddressMessage) -> Option<Own> {
    let (mut local, mut remote, mut label, mut broadcast) = (None, None, None, None);
    let mut flags = u32::from(message.header.flags.bits());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => remote = Some(*ip),
            AddressAttribute::Label(text) => label = Some(text.clone()),
            AddressAttribute::Broadcast(ip) => broadcast = Some(*ip),
            AddressAttribute::Flags(all) => flags = all.bits(),
            _ => {}
        }
    }
    Some(Own {
        index: message.header.index,
        // IPv6 has one address only.
        ip: local.or(remote)?,
        prefix: message.header.prefix_len,
        scope: message.header.scope.into(),
        flags,
        label,
        broadcast,
    })
}

fn lo() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = LO;
    message.header.link_layer_type = LinkLayerType::Loopback;
    message.header.flags = LinkFlags::Up | LinkFlags::Loopback | LinkFlags::Running | LinkFlags::LowerUp;
    message.attributes = vec![
        LinkAttribute::IfName("lo".to_owned()),
        LinkAttribute::TxQueueLen(1000),
        LinkAttribute::OperState(State::Unknown),
        LinkAttribute::Mtu(MTU),
        LinkAttribute::MinMtu(0),
        LinkAttribute::MaxMtu(0),
        LinkAttribute::Group(0),
        LinkAttribute::Promiscuity(0),
        LinkAttribute::NumTxQueues(1),
        LinkAttribute::NumRxQueues(1),
        LinkAttribute::Carrier(1),
        LinkAttribute::Qdisc("noqueue".to_owned()),
        LinkAttribute::CarrierChanges(0),
        LinkAttribute::CarrierUpCount(0),
        LinkAttribute::CarrierDownCount(0),
        LinkAttribute::ProtoDown(0),
        LinkAttribute::Address(vec![0; 6]),
        LinkAttribute::Broadcast(vec![0; 6]),
    ];
    message
}

fn addresses() -> impl Iterator<Item = AddressMessage> {
    let v4 = (IpAddr::V4(Ipv4Addr::LOCALHOST), 8, AddressFamily::Inet);
    let v6 = (IpAddr::V6(Ipv6Addr::LOCALHOST), 128, AddressFamily::Inet6);
    [v4, v6].into_iter().map(|(ip, prefix, family)| {
        let mut message = AddressMessage::default();
        message.header.family = family;
        message.header.prefix_len = prefix;
        message.header.flags = AddressHeaderFlags::Permanent;
        message.header.scope = AddressScope::Host;
        message.header.index = LO;
        let mut cache = CacheInfo::default();
        (cache.ifa_preferred, cache.ifa_valid) = (FOR_EVER, FOR_EVER);
        message.attributes = vec![AddressAttribute::Address(ip)];
        if ip.is_ipv4() {
            message.attributes.push(AddressAttribute::Local(ip));
            message.attributes.push(AddressAttribute::Label("lo".to_owned()));
        }
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Permanent));
        message.attributes.push(AddressAttribute::CacheInfo(cache));
        message
    })
}

fn routes() -> impl Iterator<Item = RouteMessage> {
    let v4 = |octets: [u8; 4]| IpAddr::from(octets);
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    [
        (v4([127, 0, 0, 0]), 8, LOCAL, RouteType::Local),
        (v4([127, 0, 0, 1]), 32, LOCAL, RouteType::Local),
        (v4([127, 255, 255, 255]), 32, LOCAL, RouteType::Broadcast),
        (v6, 128, MAIN, RouteType::Unicast),
        (v6, 128, LOCAL, RouteType::Local),
    ]
    .into_iter()
    .map(move |(to, prefix, table, kind)| {
        let mut message = RouteMessage::default();
        message.header.address_family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.destination_prefix_length = prefix;
        message.header.table = table;
        message.header.protocol = RouteProtocol::Kernel;
        message.header.scope = match kind {
            RouteType::Broadcast => RouteScope::Link,
            _ if to.is_ipv4() => RouteScope::Host,
            _ => RouteScope::Universe,
        };
        message.header.kind = kind;
        message.attributes =
            vec![RouteAttribute::Table(table.into()), RouteAttribute::Destination(to.into())];
        if to.is_ipv4() {
            message.attributes.push(RouteAttribute::PrefSource(v4([127, 0, 0, 1]).into()));
        } else {
            message.attributes.push(RouteAttribute::Priority(if table == MAIN { 256 } else { 0 }));
        }
        message.attributes.push(RouteAttribute::Oif(LO));
        message
    })
}

fn rules() -> impl Iterator<Item = RuleMessage> {
    let v4 = [(0, LOCAL), (32_766, MAIN), (32_767, DEFAULT)].map(|rule| (AddressFamily::Inet, rule));
    let v6 = [(0, LOCAL), (32_766, MAIN)].map(|rule| (AddressFamily::Inet6, rule));
    v4.into_iter().chain(v6).map(|(family, (priority, table))| {
        let mut message = RuleMessage::default();
        message.header.family = family;
        message.header.table = table;
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![
            RuleAttribute::Table(table.into()),
            RuleAttribute::SuppressPrefixLen(u32::MAX),
            RuleAttribute::Protocol(RouteProtocol::Kernel),
        ];
        if priority > 0 {
            message.attributes.push(RuleAttribute::Priority(priority));
        }
        message
    })
}

#[cfg(test)]
mod tests {
    use super::Interfaces;

    #[test]
    fn a_network_has_a_loopback_interface() {
        let lo = Interfaces::loopback();
        let names: Vec<_> = lo.links().map(|link| (link.index, link.name, link.mtu, link.flags)).collect();
        assert_eq!(names, [(1, "lo".to_owned(), 65_536, 0x1_0049)]);
        let all: Vec<_> = lo.addresses().map(|own| format!("{}/{}", own.ip, own.prefix)).collect();
        assert_eq!(all, ["127.0.0.1/8", "::1/128"]);
    }
}
