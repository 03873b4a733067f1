//! rtnetlink(7): interfaces, addresses, routes, neighbours and rules. They can be looked at; changing them is not supported,
//! but for switching on what is on, and for giving a new network's loopback interface the address that it has.

use super::request::{Answer, Request, What};
use crate::abi::{Errno, Result};
use crate::net::Namespace;
use crate::net::interfaces::{ADDRESS, Interfaces, LINK, LO, NEIGHBOUR, ROUTE, RULE, Record};
use linux_raw_sys::net as n;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use std::net::{IpAddr, Ipv4Addr};

/// RTM_MAX.
const LAST_TYPE: u16 = 123;
/// What is asked with, as opposed to told, set or deleted: the type's low two bits.
const GET: u16 = 2;
/// RTM_SETLINK.
const SET_LINK: u16 = 19;
const LOCAL: u32 = 255;

/// Which records a long answer consists of.
pub(super) struct Wanted {
    kind: u16,
    family: u8,
}

impl Wanted {
    pub(super) fn holds(&self, record: &Record) -> bool {
        let family = record.payload.first().copied().unwrap_or(0);
        record.kind == self.kind && (self.family == 0 || self.kind == LINK || family == self.family)
    }
}

/// Answers a request (rtnetlink_rcv_msg).
pub(super) fn answer(network: &Namespace, admin: bool, request: &Request<'_>) -> Result<Answer> {
    let kind = request.header.message_type;
    if kind > LAST_TYPE {
        return Err(Errno::EOPNOTSUPP);
    }
    let Some(family) = request.payload().first().copied() else { return Ok(Answer::Done) };
    if kind % 4 != GET {
        return if admin { change(network, request) } else { Err(Errno::EPERM) };
    }
    let told = kind - GET;
    if request.is_dump() {
        return match told {
            LINK | ADDRESS | ROUTE | NEIGHBOUR | RULE => Ok(Answer::Many(What::Records(
                network.interfaces().records().clone(),
                Wanted { kind: told, family },
            ))),
            _ => Err(Errno::EOPNOTSUPP),
        };
    }
    match (told, parsed(request)?) {
        (LINK, Message::GetLink(wanted)) => link(network, &wanted),
        (ROUTE, Message::GetRoute(wanted)) => route(network, &wanted),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

fn parsed(request: &Request<'_>) -> Result<Message> {
    match NetlinkMessage::<Message>::deserialize(request.bytes).map(|message| message.payload) {
        Ok(NetlinkPayload::InnerMessage(message)) => Ok(message),
        _ => Err(Errno::EINVAL),
    }
}

/// The interface that a message names, by number or else by name.
fn link(network: &Namespace, wanted: &LinkMessage) -> Result<Answer> {
    let name = wanted.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    });
    let found = network.interfaces().records().iter().find(|record| match (&record.message, name) {
        (Message::NewLink(link), _) if wanted.header.index > 0 => link.header.index == wanted.header.index,
        (Message::NewLink(link), Some(name)) => {
            link.attributes.iter().any(|own| matches!(own, LinkAttribute::IfName(own) if own == name))
        }
        _ => false,
    });
    match found {
        Some(record) => Ok(Answer::One(LINK, record.payload.clone())),
        None if wanted.header.index == 0 && name.is_none() => Err(Errno::EINVAL),
        None => Err(Errno::ENODEV),
    }
}

/// Switching on an interface that is on changes nothing, and is what programs do first. Nothing else can be done.
fn change(network: &Namespace, request: &Request<'_>) -> Result<Answer> {
    let wanted = match parsed(request)? {
        Message::NewLink(wanted) | Message::SetLink(wanted) => wanted,
        Message::NewAddress(wanted) if is_loopbacks(&wanted) => {
            return network.claim_loopback().map(|()| Answer::Done);
        }
        _ => return Err(Errno::EOPNOTSUPP),
    };
    let up = LinkFlags::Up;
    let only_up = wanted.header.change_mask == up && wanted.header.flags == up;
    let named = |name: &str| {
        wanted.attributes.iter().any(|own| matches!(own, LinkAttribute::IfName(own) if own == name))
    };
    let known = network.interfaces().links().find(|link| match wanted.header.index {
        0 => named(&link.name),
        index => link.index == index,
    });
    let known = known.ok_or(Errno::ENODEV)?;
    let more = wanted.attributes.iter().any(|own| !matches!(own, LinkAttribute::IfName(_)));
    let there = request.header.message_type == SET_LINK || wanted.header.index > 0 || named(&known.name);
    if there && only_up && !more && known.flags & n_up() != 0 {
        Ok(Answer::Done)
    } else {
        Err(Errno::EOPNOTSUPP)
    }
}

/// Whether an address is what the loopback interface has: 127.0.0.1/8.
fn is_loopbacks(wanted: &AddressMessage) -> bool {
    let own = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let local = wanted.attributes.iter().any(|it| matches!(it, AddressAttribute::Local(ip) if *ip == own));
    wanted.header.index == LO && wanted.header.prefix_len == 8 && local
}

fn n_up() -> u32 {
    LinkFlags::Up.bits()
}

fn address(of: &RouteAddress) -> Option<IpAddr> {
    match of {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn destination(message: &RouteMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(to) => address(to),
        _ => None,
    })
}

/// Whether a way leads to an address.
fn leads_to(route: &RouteMessage, to: IpAddr) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let prefix = u32::from(route.header.destination_prefix_length);
    let family = u8::from(route.header.address_family);
    let same = u32::from(family) == if to.is_ipv4() { n::AF_INET } else { n::AF_INET6 };
    let to_net = destination(route);
    same && match to_net {
        None => prefix == 0,
        Some(net) => prefix == 0 || (bits(net) ^ bits(to)).leading_zeros() >= prefix,
    }
}

/// The way to an address: what is local before what is not, the narrowest before others.
pub(in crate::net) fn way_to(interfaces: &Interfaces, to: IpAddr) -> Option<&RouteMessage> {
    let table = |route: &RouteMessage| u32::from(route.header.table);
    let candidates = interfaces.routes().filter(|route| {
        leads_to(route, to)
            && matches!(route.header.kind, RouteType::Unicast | RouteType::Local | RouteType::Broadcast)
    });
    candidates.max_by_key(|route| (table(route) == LOCAL, route.header.destination_prefix_length))
}

fn route(network: &Namespace, wanted: &RouteMessage) -> Result<Answer> {
    let to = destination(wanted).ok_or(Errno::EINVAL)?;
    let best = way_to(network.interfaces(), to).ok_or(Errno::ENETUNREACH)?;
    let mut found = best.clone();
    found.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
    found.attributes.retain(|attribute| {
        !matches!(attribute, RouteAttribute::Destination(_) | RouteAttribute::Priority(_))
    });
    found.attributes.insert(0, RouteAttribute::Destination(to.into()));
    let message = Message::NewRoute(found);
    let mut payload = vec![0; netlink_packet_core::Emitable::buffer_len(&message)];
    netlink_packet_core::Emitable::emit(&message, &mut payload);
    Ok(Answer::One(ROUTE, payload))
}
