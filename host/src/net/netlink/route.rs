//! rtnetlink(7): interfaces, addresses, routes, neighbours and rules. All can be looked at; interfaces, addresses and routes can
//! be made and changed, but for those of the outside.

use super::request::{Answer, Request, What};
use crate::abi::{Errno, Result};
use crate::net::Namespace;
use crate::net::interfaces::{ADDRESS, Interfaces, LINK, LO, NEIGHBOUR, ROUTE, RULE, Record};
use crate::net::links::change::{Manner, Networks};
use crate::net::links::source;
use linux_raw_sys::net as n;
use netlink_packet_core::{
    Emitable, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use std::cmp::Reverse;
use std::net::IpAddr;

/// RTM_MAX.
const LAST_TYPE: u16 = 123;
/// What is asked with, as opposed to told, set or deleted: the type's low two bits.
const GET: u16 = 2;
const LOCAL: u32 = 255;
/// RTM_NEWNSID.
const NAMESPACE: u16 = 88;

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
pub(super) fn answer(
    network: &Namespace,
    admin: bool,
    request: &Request<'_>,
    networks: Option<&dyn Networks>,
) -> Result<Answer> {
    let kind = request.header.message_type;
    if kind > LAST_TYPE {
        return Err(Errno::EOPNOTSUPP);
    }
    let Some(family) = request.payload().first().copied() else { return Ok(Answer::Done) };
    if kind % 4 != GET {
        return if admin { change(network, request, networks) } else { Err(Errno::EPERM) };
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
        (NAMESPACE, Message::GetNsId(wanted)) => number(&wanted, networks),
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
    let interfaces = network.interfaces();
    let found = interfaces.records().iter().find(|record| match (&record.message, name) {
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

/// Does what a request says.
fn change(network: &Namespace, request: &Request<'_>, networks: Option<&dyn Networks>) -> Result<Answer> {
    let has = |flag: u16| request.header.flags & flag != 0;
    let manner = Manner { create: has(NLM_F_CREATE), new: has(NLM_F_EXCL), replace: has(NLM_F_REPLACE) };
    match parsed(request)? {
        Message::NewLink(wanted) => network.set_link(&wanted, manner, networks),
        Message::SetLink(wanted) => network.set_link(&wanted, Manner::default(), networks),
        Message::DelLink(gone) => network.delete_link(&gone),
        Message::NewAddress(wanted) => network.add_address(&wanted, manner),
        Message::DelAddress(gone) => network.delete_address(&gone),
        Message::NewRoute(wanted) => network.add_way(&wanted, manner),
        Message::DelRoute(gone) => network.delete_way(&gone),
        _ => Err(Errno::EOPNOTSUPP),
    }
    .map(|()| Answer::Done)
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
            && !matches!(route.header.kind, RouteType::Multicast | RouteType::Anycast | RouteType::Throw)
    });
    let metric = |route: &RouteMessage| {
        let said = |attribute: &RouteAttribute| match attribute {
            RouteAttribute::Priority(metric) => Some(*metric),
            _ => None,
        };
        route.attributes.iter().find_map(said).unwrap_or(0)
    };
    candidates.max_by_key(|route| {
        (table(route) == LOCAL, route.header.destination_prefix_length, Reverse(metric(route)))
    })
}

fn has_source(way: &RouteMessage) -> bool {
    way.attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::PrefSource(_)))
}

/// The number that a network calls another by: none, as nobody gives any (RTM_NEWNSID).
fn number(wanted: &NsidMessage, networks: Option<&dyn Networks>) -> Result<Answer> {
    let networks = networks.ok_or(Errno::EINVAL)?;
    let found = wanted.attributes.iter().find_map(|attribute| match attribute {
        NsidAttribute::Pid(pid) => Some(networks.of_process(*pid)),
        NsidAttribute::Fd(fd) => Some(networks.of_file(*fd as i32)),
        _ => None,
    });
    found.ok_or(Errno::EINVAL)??;
    let mut answer = NsidMessage::default();
    answer.attributes = vec![NsidAttribute::Id(-1)];
    Ok(Answer::One(NAMESPACE, emitted(&Message::NewNsId(answer))))
}

/// A message without its header.
fn emitted(message: &Message) -> Vec<u8> {
    let mut payload = vec![0; message.buffer_len()];
    message.emit(&mut payload);
    payload
}

/// The answer to RTM_GETROUTE: the way to an address.
fn route(network: &Namespace, wanted: &RouteMessage) -> Result<Answer> {
    let to = destination(wanted).ok_or(Errno::EINVAL)?;
    let interfaces = network.interfaces();
    let best = way_to(&interfaces, to).ok_or(Errno::ENETUNREACH)?;
    match best.header.kind {
        RouteType::BlackHole => return Err(Errno::EINVAL),
        RouteType::Unreachable => return Err(Errno::EHOSTUNREACH),
        RouteType::Prohibit => return Err(Errno::EACCES),
        _ => {}
    }
    let mut found = best.clone();
    found.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
    found.attributes.retain(|attribute| {
        !matches!(attribute, RouteAttribute::Destination(_) | RouteAttribute::Priority(_))
    });
    found.attributes.insert(0, RouteAttribute::Destination(to.into()));
    let own = source(&interfaces, best, to).filter(|_| !has_source(best));
    found.attributes.extend(own.map(|own| RouteAttribute::PrefSource(own.into())));
    if best.header.kind == RouteType::Local {
        for attribute in &mut found.attributes {
            if let RouteAttribute::Oif(index) = attribute {
                *index = LO;
            }
        }
    }
    Ok(Answer::One(ROUTE, emitted(&Message::NewRoute(found))))
}
