//! Interfaces of a network, their addresses, and the ways that lead from them: as rtnetlink(7) has them.
//!
//! They are those of the host's network where there is a way out, as they were at the start, or else the loopback interface,
//! and what programs have made (`links`). They are kept as the messages that say what they are; whoever wants to know one thing
//! of one looks there.

use super::links::Links;
use netlink_packet_core::Emitable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteMessage, RouteProtocol};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use std::net::{IpAddr, Ipv4Addr};
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
pub(super) const LOCAL: u8 = 255;
pub(super) const MAIN: u8 = 254;
const DEFAULT: u8 = 253;
/// The loopback interface's number.
pub(super) const LO: u32 = 1;

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

/// The family of an address.
pub(super) fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

impl Record {
    /// One of a type.
    pub(super) fn new(kind: u16, message: Message) -> Record {
        let mut payload = vec![0; message.buffer_len()];
        message.emit(&mut payload);
        Record { kind, payload, message }
    }
}

impl Interfaces {
    /// The loopback interface and nothing else.
    pub fn loopback() -> Interfaces {
        Links::loopback()
    }

    /// Nothing.
    pub(super) fn none() -> Interfaces {
        Interfaces { records: Arc::from([]) }
    }

    /// The rules that every network has.
    pub(super) fn rules() -> impl Iterator<Item = Record> {
        rules().map(|message| Record::new(RULE, Message::NewRule(message)))
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
