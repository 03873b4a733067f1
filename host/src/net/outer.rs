//! The network that the sandbox was started in, as it is when a program first asks for it: few do, and a container's is often
//! not ready before. The socket that it is read by is older than the jail.

use super::guard::Guard;
use super::interfaces::{Interfaces, Record};
use super::resolver::Resolvers;
use super::{Core, outside};
use crate::abi::{Errno, Result};
use crate::hostfd::HostFd;
use crate::hostsys::socket as host;
use crate::sync::{Lock, Rank};
use crate::warden::rules::Ports;
use linux_raw_sys::net as n;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleMessage;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

/// NETLINK_ROUTE.
const ROUTE: i32 = 0;
/// What one answer of the host's takes at most, and how many there are at most.
const ANSWER: usize = 64 << 10;
const ANSWERS: usize = 1024;

impl std::fmt::Debug for Outer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Outer").finish_non_exhaustive()
    }
}

/// What the host's network is, as far as programs see it.
pub struct Outer {
    /// What is asked. None: the host does not say what it has, or has said it.
    netlink: Lock<Option<HostFd>>,
    known: OnceLock<Known>,
    /// Whom names are asked of.
    pub resolvers: Resolvers,
    /// Groups whose members may ping there: first and last.
    pub ping_groups: Option<(u32, u32)>,
    /// Ports of the host's own loopback that lead there.
    pub host_loopback: Vec<Ports>,
    /// Who is asked before anything is reached.
    pub guard: Option<Arc<Guard>>,
    /// What of the host leads inside: the first network takes it.
    pub published: Lock<Vec<Published>>,
}

/// A port of the host that leads to one inside.
#[derive(Debug)]
pub struct Published {
    /// The socket of the host: a listener, or one for datagrams.
    pub fd: HostFd,
    /// TCP, or UDP.
    pub stream: bool,
    /// Whether the socket is an IPv6 one, and has no others.
    pub v6: bool,
    /// The port inside.
    pub port: u16,
}

struct Known {
    interfaces: Interfaces,
    addresses: Vec<IpAddr>,
}

impl Known {
    fn of(interfaces: Interfaces) -> Known {
        let addresses = interfaces.addresses().map(|own| own.ip).filter(|ip| !ip.is_loopback()).collect();
        Known { interfaces, addresses }
    }

    fn read(netlink: &HostFd) -> Result<Known> {
        let mut records = Vec::new();
        let mut answer = vec![0; ANSWER];
        for request in [
            Message::GetLink(LinkMessage::default()),
            Message::GetAddress(AddressMessage::default()),
            Message::GetRoute(RouteMessage::default()),
            Message::GetNeighbour(NeighbourMessage::default()),
            Message::GetRule(RuleMessage::default()),
        ] {
            dump(netlink, request, &mut answer, &mut records)?;
        }
        Ok(Known::of(Interfaces::of(records)))
    }
}

impl Outer {
    /// That of this thread. A host without netlink(7) has a network all the same.
    pub fn own() -> Outer {
        let netlink = host::socket(n::AF_NETLINK as u16, n::SOCK_RAW, ROUTE).ok();
        // struct sockaddr_nl: any port, no groups. The host's list of netlink sockets has those that are bound.
        let mut any = [0; 12];
        any[..2].copy_from_slice(&(n::AF_NETLINK as u16).to_ne_bytes());
        let netlink = netlink.filter(|netlink| host::bind(netlink, &any).is_ok());
        Outer {
            netlink: Lock::new(Rank::Outer, netlink),
            known: OnceLock::new(),
            resolvers: Resolvers::default(),
            ping_groups: None,
            host_loopback: Vec::new(),
            guard: None,
            published: Lock::new(Rank::Published, Vec::new()),
        }
    }

    /// Whether nothing outside is reached but by a warden.
    pub fn is_walled(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.walls())
    }

    fn known(&self) -> &Known {
        self.known.get_or_init(|| {
            let netlink = self.netlink.lock().take();
            let known = netlink.and_then(|netlink| Known::read(&netlink).ok());
            known.unwrap_or_else(|| Known::of(Interfaces::loopback()))
        })
    }

    /// Its interfaces, and the ways that lead from them.
    pub fn interfaces(&self) -> &Interfaces {
        &self.known().interfaces
    }

    /// Whether an address is one of its interfaces. What is sent there stays inside.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.known().addresses.contains(&ip)
    }

    /// Opens a port of the host that will lead to `port` inside.
    ///
    /// # Errors
    /// EADDRINUSE, EACCES, EADDRNOTAVAIL and others of the host.
    pub fn publish(&self, at: SocketAddr, stream: bool, port: u16) -> Result<()> {
        let (domain, kind) = match (at.is_ipv6(), stream) {
            (v6, true) => (domain(v6), n::SOCK_STREAM),
            (v6, false) => (domain(v6), n::SOCK_DGRAM),
        };
        let fd = host::socket(domain, kind, 0)?;
        let on = 1_i32.to_ne_bytes();
        if stream {
            host::set_option(&fd, n::SOL_SOCKET, n::SO_REUSEADDR, &on)?;
        }
        if at.is_ipv6() {
            host::set_option(&fd, outside::IPV6, outside::V6ONLY, &on)?;
        }
        host::bind(&fd, super::Address::Inet(at).raw().bytes())?;
        if stream {
            host::listen(&fd, Core::BACKLOG)?;
        }
        self.published.lock().push(Published { fd, stream, v6: at.is_ipv6(), port });
        Ok(())
    }
}

fn domain(v6: bool) -> u16 {
    if v6 { n::AF_INET6 as u16 } else { n::AF_INET as u16 }
}

/// All that the host says to a request, by way of `answer`. What this kernel does not understand of it is left out.
fn dump(netlink: &HostFd, request: Message, answer: &mut [u8], all: &mut Vec<Record>) -> Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(request));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    host::send_bytes(netlink, &bytes, &[], 0)?;
    for _ in 0..ANSWERS {
        // The first part is there once the request is sent, each other when the one before is received: EAGAIN is an error.
        let count = host::receive_bytes(netlink, answer, false, 0)?.count;
        if !parse(&answer[..count], all) {
            return Ok(());
        }
    }
    Err(Errno::EMSGSIZE)
}

/// Adds the messages of one answer; false: there will be no other.
fn parse(mut bytes: &[u8], all: &mut Vec<Record>) -> bool {
    while let Some(len) = bytes.first_chunk().map(|len| u32::from_ne_bytes(*len) as usize) {
        if len < 16 || len > bytes.len() {
            return false;
        }
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        match NetlinkMessage::<Message>::deserialize(&bytes[..len]).map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(message)) => {
                all.push(Record { kind, payload: bytes[16..len].to_vec(), message });
            }
            Ok(NetlinkPayload::Done(_) | NetlinkPayload::Error(_)) => return false,
            _ => {}
        }
        bytes = &bytes[bytes.len().min(len.next_multiple_of(4))..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::{Outer, parse};

    #[test]
    fn the_host_has_a_network() {
        let outer = Outer::own();
        assert!(outer.netlink.lock().is_some());
        let own: Vec<_> = outer.interfaces().addresses().map(|own| own.ip).collect();
        assert!(own.iter().all(|ip| outer.has(*ip) != ip.is_loopback()), "{own:?}");
        assert!(outer.netlink.lock().is_none(), "it is asked once");
    }

    #[test]
    fn nonsense_ends_a_dump() {
        let mut all = Vec::new();
        assert!(!parse(&[1, 0, 0, 0, 0, 0], &mut all));
        assert!(!parse(&[0xff; 64], &mut all));
        assert!(parse(&[], &mut all) && all.is_empty());
    }
}
