//! An interface and its addresses, and the messages that tell of them.

use crate::net::interfaces::{ADDRESS, LINK, Record, family};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkMode, State,
};
use std::net::{IpAddr, Ipv4Addr};

/// How long an address is valid that nothing limits.
const FOR_EVER: u32 = u32::MAX;
/// The mtu of the loopback interface, and of others as they are made.
const LOOPBACK_MTU: u32 = 65_536;
const MTU: u32 = 1500;

/// What is at the end of something: a network's number, and that of an interface in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) net: u64,
    pub(super) index: u32,
}

/// What an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Loopback,
    /// What is sent by it is gone.
    Dummy,
    /// What is sent by it comes out at the other end, once there is one.
    Veth(Option<End>),
}

impl Kind {
    pub(super) fn other(self) -> Option<End> {
        match self {
            Kind::Veth(end) => end,
            Kind::Loopback | Kind::Dummy => None,
        }
    }

    /// The smallest and the largest mtu; 0 and 0 where all are.
    pub(super) fn mtus(self) -> (u32, u32) {
        match self {
            Kind::Loopback | Kind::Dummy => (0, 0),
            Kind::Veth(_) => (68, 65_535),
        }
    }
}

/// An interface.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) up: bool,
    /// It has been up before: it has something that packets would wait in.
    pub(super) used: bool,
    pub(super) mtu: u32,
    pub(super) queue: u32,
    pub(super) group: u32,
    pub(super) hardware: [u8; 6],
    pub(super) addresses: Vec<Assigned>,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assigned {
    pub(super) ip: IpAddr,
    /// Who is at the other end; itself, if nobody was said to be.
    pub(super) peer: IpAddr,
    pub(super) prefix: u8,
    pub(super) scope: AddressScope,
    pub(super) broadcast: Option<Ipv4Addr>,
    pub(super) label: Option<String>,
    /// There was one of its subnet before.
    pub(super) secondary: bool,
    /// No way to its subnet comes with it.
    pub(super) no_way: bool,
}

impl Link {
    /// A new one, which is down.
    pub(super) fn new(name: String, kind: Kind, hardware: [u8; 6]) -> Link {
        let mtu = if kind == Kind::Loopback { LOOPBACK_MTU } else { MTU };
        let (up, used, queue, group) = (false, false, 1000, 0);
        Link { name, kind, up, used, mtu, queue, group, hardware, addresses: Vec::new() }
    }

    pub(super) fn loopback() -> Link {
        Link::new("lo".to_owned(), Kind::Loopback, [0; 6])
    }

    /// The message that tells of it. `carrier`: there is somebody at its other end, which is in another network or not.
    pub(super) fn record(&self, index: u32, carrier: bool, elsewhere: bool) -> Record {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.link_layer_type = match self.kind {
            Kind::Loopback => LinkLayerType::Loopback,
            Kind::Dummy | Kind::Veth(_) => LinkLayerType::Ether,
        };
        message.header.flags = self.flags(carrier);
        let state = match self.kind {
            _ if !self.up => State::Down,
            Kind::Veth(_) if carrier => State::Up,
            Kind::Veth(_) => State::LowerLayerDown,
            Kind::Loopback | Kind::Dummy => State::Unknown,
        };
        let (least, most) = self.kind.mtus();
        let everybody = if self.kind == Kind::Loopback { 0 } else { 0xff };
        message.attributes = vec![
            LinkAttribute::IfName(self.name.clone()),
            LinkAttribute::TxQueueLen(self.queue),
            LinkAttribute::OperState(state),
            LinkAttribute::Mode(LinkMode::Default),
            LinkAttribute::Mtu(self.mtu),
            LinkAttribute::MinMtu(least),
            LinkAttribute::MaxMtu(most),
            LinkAttribute::Group(self.group),
            LinkAttribute::Promiscuity(0),
            LinkAttribute::NumTxQueues(1),
            LinkAttribute::NumRxQueues(1),
            LinkAttribute::Carrier(u8::from(carrier)),
            LinkAttribute::Qdisc(if self.up || self.used { "noqueue" } else { "noop" }.to_owned()),
            LinkAttribute::CarrierChanges(0),
            LinkAttribute::CarrierUpCount(0),
            LinkAttribute::CarrierDownCount(0),
            LinkAttribute::ProtoDown(0),
            LinkAttribute::Address(self.hardware.to_vec()),
            LinkAttribute::Broadcast(vec![everybody; 6]),
        ];
        message.attributes.extend(self.about(elsewhere));
        Record::new(LINK, Message::NewLink(message))
    }

    fn flags(&self, carrier: bool) -> LinkFlags {
        let own = match self.kind {
            Kind::Loopback => LinkFlags::Loopback,
            Kind::Dummy => LinkFlags::Broadcast | LinkFlags::Noarp,
            Kind::Veth(_) => LinkFlags::Broadcast | LinkFlags::Multicast,
        };
        match (self.up, carrier) {
            (true, true) => own | LinkFlags::Up | LinkFlags::Running | LinkFlags::LowerUp,
            (true, false) => own | LinkFlags::Up,
            (false, _) => own,
        }
    }

    /// What it is, and of which it is an end.
    fn about(&self, elsewhere: bool) -> Vec<LinkAttribute> {
        let kind = match self.kind {
            Kind::Loopback => return Vec::new(),
            Kind::Dummy => InfoKind::Dummy,
            Kind::Veth(_) => InfoKind::Veth,
        };
        let mut about = vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])];
        if let Some(end) = self.kind.other() {
            about.push(LinkAttribute::Link(end.index));
            if elsewhere {
                about.push(LinkAttribute::LinkNetNsId(0));
            }
        }
        about
    }
}

impl Assigned {
    /// One that nothing more is said of.
    pub(super) fn new(ip: IpAddr, prefix: u8, scope: AddressScope) -> Assigned {
        let (broadcast, label, secondary, no_way) = (None, None, false, false);
        Assigned { ip, peer: ip, prefix, scope, broadcast, label, secondary, no_way }
    }

    /// Those of the loopback interface.
    pub(super) fn loopbacks() -> [Assigned; 2] {
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let v6 = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
        let v4 = Assigned { label: Some("lo".to_owned()), ..Self::new(v4, 8, AddressScope::Host) };
        [v4, Self::new(v6, 128, AddressScope::Host)]
    }

    /// The message that tells of it.
    pub(super) fn record(&self, index: u32) -> Record {
        let mut message = AddressMessage::default();
        message.header.family = family(self.ip);
        message.header.prefix_len = self.prefix;
        message.header.scope = self.scope;
        message.header.index = index;
        let mut flags = AddressFlags::Permanent;
        flags.set(AddressFlags::Secondary, self.secondary);
        flags.set(AddressFlags::Noprefixroute, self.no_way);
        message.header.flags = AddressHeaderFlags::from_bits_retain(flags.bits() as u8);
        let mut cache = CacheInfo::default();
        (cache.ifa_preferred, cache.ifa_valid) = (FOR_EVER, FOR_EVER);
        message.attributes = vec![AddressAttribute::Address(self.peer)];
        if self.ip.is_ipv4() || self.peer != self.ip {
            message.attributes.push(AddressAttribute::Local(self.ip));
        }
        message.attributes.extend(self.broadcast.map(AddressAttribute::Broadcast));
        message.attributes.extend(self.label.clone().map(AddressAttribute::Label));
        message.attributes.push(AddressAttribute::Flags(flags));
        message.attributes.push(AddressAttribute::CacheInfo(cache));
        Record::new(ADDRESS, Message::NewAddress(message))
    }
}

/// The link-local address that an interface has of its hardware's (RFC 4291, appendix A).
pub(super) fn link_local(hardware: [u8; 6]) -> IpAddr {
    let [a, b, c, d, e, f] = hardware;
    let id = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    let mut octets = [0; 16];
    (octets[0], octets[1]) = (0xfe, 0x80);
    octets[8..].copy_from_slice(&id);
    IpAddr::from(octets)
}

/// Whether an interface may have a name (dev_valid_name).
pub(super) fn is_name(name: &str) -> bool {
    let bad = |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace() || byte == 0x0b;
    !name.is_empty() && name.len() < 16 && name != "." && name != ".." && !name.bytes().any(bad)
}

#[cfg(test)]
mod tests {
    use super::{Kind, Link, is_name, link_local};
    use crate::net::interfaces::LO;

    #[test]
    fn names_are_those_that_linux_takes() {
        assert!(["lo", "a", "veth-0123456789", "...", "ä"].iter().all(|name| is_name(name)));
        let bad = ["", ".", "..", "a/b", "a b", "a:1", "a\n", "0123456789abcdef"];
        assert!(!bad.iter().any(|name| is_name(name)));
    }

    #[test]
    fn link_local_addresses_are_made_of_the_hardwares() {
        let made = link_local([0x02, 0x42, 0xac, 0x11, 0x00, 0x02]);
        assert_eq!(made.to_string(), "fe80::42:acff:fe11:2");
    }

    #[test]
    fn what_is_down_does_not_run() {
        let mut link = Link::loopback();
        let flags = |link: &Link| match link.record(LO, true, false).message {
            netlink_packet_route::RouteNetlinkMessage::NewLink(link) => link.header.flags.bits(),
            _ => 0,
        };
        assert_eq!(flags(&link), 0x8);
        link.up = true;
        assert_eq!(flags(&link), 0x1_0049);
        let mut veth = Link { up: true, ..Link::new("v".to_owned(), Kind::Veth(None), [2; 6]) };
        veth.up = true;
        assert_eq!(veth.record(2, false, false).kind, super::LINK);
    }
}
