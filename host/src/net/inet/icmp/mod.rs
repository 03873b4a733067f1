//! Sockets of ICMP: those that ping (icmp(7)), and raw ones (raw(7)), by which programs pinged before.
//!
//! Whatever is sent to an address of the network itself arrives at once: who asks is answered, and all raw sockets hear
//! both. Requests to others go by a ping socket of the host, where it lets us have one; other messages do not.
//!
//! | module | what |
//! |---|---|
//! | here | the socket: names, sending, queues |
//! | `message` | what is in a message |
//! | `outward` | what is not local |
//! | `ops` | what it does as a socket |
//!
//! Lock order: a socket's state, then ports; never the states of two sockets.

mod message;
mod ops;
mod outward;

use super::datagram::{Datagram, Waiting, comes_with};
use super::endpoint::{parse, peer, source, target, unspecified};
use super::ip::{self, IpOptions};
use super::multicast::Groups;
use super::ports::{Claim, Hold, Ports};
use super::tables::Row;
use super::{bind_address, reaches};
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::mm::{IoDst, IoSrc};
use crate::net::address::family_of;
use crate::net::links::Home;
use crate::net::message::{MSG_ERRQUEUE, MSG_OOB};
use crate::net::namespace::Chunk;
use crate::net::options::Options;
use crate::net::outside::Outside;
use crate::net::{Core, How, Kind, Making, Namespace, Outgoing, Received};
use crate::sync::{Lock, Rank};
use linux_raw_sys::general as c;
use linux_raw_sys::net as n;
use message::{Filter, HEADER, IP_HEADER, Meaning};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

const IN: u32 = c::POLLIN | c::POLLRDNORM;
/// Most bytes of a message with its IP header.
const LONGEST: usize = 65_535;
/// The hop limit of what the kernel itself sends.
const HOPS: u8 = 64;

/// The protocols, as socket(2) is told them.
pub(super) const PROTOCOL_V4: i32 = message::ICMP as i32;
pub(super) const PROTOCOL_V6: i32 = message::ICMPV6 as i32;

/// The sockets of ICMP of a network.
pub struct Sockets {
    /// Who pings by which identifier: those are its ports.
    pub(super) pings: Arc<Ports<IcmpSocket>>,
    /// The raw ones by their numbers as files; one leaves as it is dropped.
    raw: Lock<BTreeMap<u64, Weak<IcmpSocket>>>,
}

impl Sockets {
    /// The raw ones.
    pub(super) fn raw_ones(&self) -> Vec<Arc<IcmpSocket>> {
        self.raw.lock().values().filter_map(Weak::upgrade).collect()
    }
}

impl Default for Sockets {
    fn default() -> Self {
        Sockets { pings: Arc::default(), raw: Lock::new(Rank::RawSockets, BTreeMap::new()) }
    }
}

#[derive(Default)]
struct State {
    /// The identifier of one that pings.
    hold: Option<Hold<IcmpSocket>>,
    bound: Option<IpAddr>,
    remote: Option<SocketAddr>,
    /// Sockets of the host that ping others: by the identifier that its answers are to have here.
    outside: Vec<(u16, Arc<Outside>)>,
    queue: Waiting,
    shut: (bool, bool),
    ip: IpOptions,
    groups: Groups,
    filter: Filter,
}

/// A socket of ICMP.
pub struct IcmpSocket {
    me: Weak<IcmpSocket>,
    core: Arc<Core>,
    network: Arc<Namespace>,
    v6: bool,
    state: Lock<State>,
}

/// Whether somebody may ping without further rights (net.ipv4.ping_group_range).
fn may_ping(network: &Namespace, cred: &Cred) -> bool {
    let (first, last) = &network.settings.ping_groups;
    let range = first.load(Ordering::Relaxed)..=last.load(Ordering::Relaxed);
    range.contains(&cred.gid.effective) || cred.groups.iter().any(|group| range.contains(group))
}

impl IcmpSocket {
    /// One that pings.
    ///
    /// # Errors
    /// EACCES.
    pub(super) fn ping(making: &Making<'_>, v6: bool) -> Result<Arc<IcmpSocket>> {
        if !may_ping(making.network, making.by.cred) {
            return Err(Errno::EACCES);
        }
        Ok(Self::new(making, v6, Kind::Datagram))
    }

    /// A raw one.
    pub(super) fn raw(making: &Making<'_>, v6: bool) -> Arc<IcmpSocket> {
        let socket = Self::new(making, v6, Kind::Raw);
        socket.network.icmp.raw.lock().insert(socket.core.ino, socket.me.clone());
        socket
    }

    fn new(making: &Making<'_>, v6: bool, kind: Kind) -> Arc<IcmpSocket> {
        let (domain, protocol) = if v6 { (n::AF_INET6, PROTOCOL_V6) } else { (n::AF_INET, PROTOCOL_V4) };
        let uid = making.by.cred.uid.effective;
        let mut options = Options::default();
        // (INET_PROTOSW_REUSE.) Identifiers are shared unless somebody does not want that.
        options.turn_on(n::SO_REUSEADDR);
        Arc::new_cyclic(|me| IcmpSocket {
            me: me.clone(),
            core: Arc::new(Core::new(kind, domain as u16, protocol as u16, uid, options)),
            network: making.network.clone(),
            v6,
            state: Lock::new(Rank::IcmpSocket, State::default()),
        })
    }

    fn is_raw(&self) -> bool {
        self.core.kind == Kind::Raw
    }

    fn claim(&self, ip: IpAddr) -> Claim {
        // No identifier is for both families.
        Claim::new(&self.core, true, ip)
    }

    fn bind_to(&self, raw: &[u8]) -> Result<()> {
        let address = bind_address(self.v6, raw)?;
        let ip = address.ip();
        if ip.is_ipv6() != self.v6 || (!ip.is_unspecified() && !self.network.is_local(ip)) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let mut state = self.state.lock();
        if !self.is_raw() {
            if state.hold.is_some() {
                return Err(Errno::EINVAL);
            }
            let pings = &self.network.icmp.pings;
            state.hold = Some(pings.bind(&self.network, address.port(), self.claim(ip), self.me.clone())?);
        }
        state.bound = Some(ip);
        Ok(())
    }

    /// Gives one that pings an identifier, if it has none.
    fn autobind(&self, state: &mut State) -> Result<()> {
        if state.hold.is_none() && !self.is_raw() {
            let claim = self.claim(state.bound.unwrap_or(unspecified(self.v6)));
            let hold = self.network.icmp.pings.bind(&self.network, 0, claim, self.me.clone());
            state.hold = Some(hold.map_err(|_| Errno::EAGAIN)?);
        }
        Ok(())
    }

    /// connect(2): says where messages go that name no address, and, of a raw one, whose are heard.
    fn associate(&self, raw: &[u8]) -> Result<()> {
        let mut state = self.state.lock();
        self.autobind(&mut state)?;
        let remote = peer(self.v6, self.v6, raw)?;
        if remote.is_ipv6() != self.v6 {
            return Err(Errno::EINVAL);
        }
        reaches(&self.network, &self.core, remote.ip())?;
        state.remote = Some(remote);
        Ok(())
    }

    /// What others are told of it.
    pub(super) fn row(&self) -> Row {
        let state = self.state.lock();
        Row {
            v6: self.v6,
            only_v6: true,
            // TCP_ESTABLISHED, or TCP_CLOSE.
            state: if state.remote.is_some() { 1 } else { 7 },
            local: self.local(&state),
            // Raw sockets have no ports.
            remote: state
                .remote
                .map(|to| SocketAddr::new(to.ip(), if self.is_raw() { 0 } else { to.port() })),
            received: state.queue.used() as u32,
            sent: 0,
            uid: self.core.uid,
            ino: self.core.ino,
        }
    }

    /// Its name: of one that pings, the port is the identifier, of a raw one the protocol.
    fn local(&self, state: &State) -> SocketAddr {
        let port = match &state.hold {
            Some(hold) => hold.port(),
            None if self.is_raw() => self.core.protocol,
            None => 0,
        };
        let to = state.remote.map(|to| to.ip()).filter(|to| self.network.is_local(*to));
        let ip = state.bound.filter(|ip| !ip.is_unspecified()).or(to.map(source));
        SocketAddr::new(ip.unwrap_or(unspecified(self.v6)), port)
    }

    /// Where a message is to go.
    fn destination(&self, message: &Outgoing<'_>) -> Result<SocketAddr> {
        let Some(to) = message.to else {
            return self.state.lock().remote.ok_or(Errno::EDESTADDRREQ);
        };
        let raw = to.address.bytes();
        let to = match family_of(raw) {
            None => return Err(Errno::EINVAL),
            _ => parse(self.v6, raw)?,
        };
        if to.is_ipv6() != self.v6 {
            return Err(Errno::EINVAL);
        }
        Ok(match to {
            SocketAddr::V6(scoped) if !scoped.ip().is_unspecified() => SocketAddr::V6(scoped),
            _ => SocketAddr::new(target(to.ip()), 0),
        })
    }

    fn send_message(&self, src: &mut IoSrc<'_>, message: &Outgoing<'_>) -> Result<usize> {
        let len = src.remaining();
        let header = if self.v6 { 0 } else { IP_HEADER };
        if len > LONGEST || (self.is_raw() && len + header > LONGEST) {
            return Err(Errno::EMSGSIZE);
        }
        if !self.is_raw() && len < HEADER {
            return Err(Errno::EINVAL);
        }
        if message.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut bytes = self.network.memory.take(len);
        let (from, to, home) = self.filled(src, message, &mut bytes)?;
        match home {
            Home::Here => self.arrive(&self.network, from, to, bytes),
            Home::There(there, _) => self.arrive(&there, from, to, bytes),
            Home::Lost(_) => {}
            Home::Outside => self.send_outside(&bytes, to)?,
        }
        Ok(len)
    }

    /// Reads a message, and makes it what goes on the way: from where, to where, and where that is.
    fn filled(
        &self,
        src: &mut IoSrc<'_>,
        message: &Outgoing<'_>,
        bytes: &mut [u8],
    ) -> Result<(IpAddr, SocketAddr, Home)> {
        if !bytes.is_empty() && src.read_bytes(bytes)? < bytes.len() {
            return Err(Errno::EFAULT);
        }
        if !self.is_raw() && message::meaning(self.v6, bytes) != Meaning::Request {
            return Err(Errno::EINVAL);
        }
        let to = self.destination(message)?;
        reaches(&self.network, &self.core, to.ip())?;
        let home = self.network.home(to.ip());
        let usual = match home {
            Home::There(_, from) | Home::Lost(Some(from)) => from,
            Home::Here | Home::Lost(None) | Home::Outside => source(to.ip()),
        };
        let mut state = self.state.lock();
        if state.shut.1 {
            return Err(Errno::EPIPE);
        }
        self.autobind(&mut state)?;
        let from = state.bound.filter(|ip| !ip.is_unspecified()).unwrap_or(usual);
        if let Some(hold) = &state.hold {
            message::set_ident(bytes, hold.port());
        }
        let hold = state.hold.is_some();
        drop(state);
        // A raw socket of IPv4 has made its checksum itself.
        if bytes.len() >= HEADER && (hold || self.v6) {
            message::set_checksum(bytes, from, to.ip());
        }
        if !self.is_raw() && bytes.len() + if self.v6 { 0 } else { IP_HEADER } > LONGEST {
            return Err(Errno::EMSGSIZE);
        }
        Ok((from, to, home))
    }

    /// A message arrives where it was sent to, which is in the network `there`, and is answered.
    fn arrive(&self, there: &Namespace, from: IpAddr, to: SocketAddr, bytes: Chunk) {
        let state = self.state.lock();
        let (level, tos, ttl) = match self.v6 {
            true => (ip::IPV6, ip::name::IPV6_TCLASS, ip::name::IPV6_UNICAST_HOPS),
            false => (ip::IP, ip::name::IP_TOS, ip::name::IP_TTL),
        };
        let (tos, ttl) = (state.ip.value(level, tos) as u8, state.ip.value(level, ttl) as u8);
        drop(state);
        let time = crate::time::realtime_ns();
        let packet = Datagram { bytes, from: SocketAddr::new(from, 0), to: to.ip(), tos, ttl, time };
        let network = &self.network;
        hear(there, &packet);
        let whole = message::is_whole(&packet.bytes, from, packet.to);
        if whole && message::meaning(self.v6, &packet.bytes) == Meaning::Request {
            let reply = message::answer(&packet, network.memory.copy_of(&packet.bytes));
            hear(network, &reply);
        }
    }

    /// Queues what came, if there is room.
    fn queue(&self, packet: &Datagram) {
        let limit = self.core.options.lock().receive_buffer as usize;
        let mut state = self.state.lock();
        let from = packet.from.ip();
        let wanted = !self.is_raw()
            || (state.bound.is_none_or(|ip| ip.is_unspecified() || ip == packet.to)
                && state.remote.is_none_or(|remote| remote.ip() == from)
                && packet.bytes.first().is_none_or(|kind| state.filter.passes(self.v6, *kind)));
        if !wanted || state.queue.used() > limit || self.network.memory.is_spent() {
            return;
        }
        let header = if self.is_raw() && !self.v6 { &message::ip_header(packet)[..] } else { &[] };
        let mut bytes = self.network.memory.take(header.len() + packet.bytes.len());
        bytes[..header.len()].copy_from_slice(header);
        bytes[header.len()..].copy_from_slice(&packet.bytes);
        state.queue.push(Datagram { bytes, ..*packet });
        drop(state);
        self.core.wait.notify(IN);
    }

    fn take(&self, dst: &mut IoDst<'_>, how: How) -> Result<Received> {
        if how.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if how.flags & MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
        }
        self.fetch()?;
        dst.held(|dst| self.take_queued(dst, how))
    }

    fn take_queued(&self, dst: &mut IoDst<'_>, how: How) -> Result<Received> {
        let stamped = how.details && self.core.options.lock().is_on(n::SO_TIMESTAMP_OLD);
        let mut state = self.state.lock();
        let Some(first) = state.queue.first() else {
            return if state.shut.0 { Ok(Received::default()) } else { Err(Errno::EAGAIN) };
        };
        let control = if how.details { comes_with(first, &state.ip, self.v6, stamped) } else { Vec::new() };
        let given = first.give(dst, self.v6, control)?;
        if !how.peek()
            && let Some(gone) = state.queue.pop()
        {
            drop(state);
            drop(gone);
        }
        // One that pings does not tell how long a message was.
        given.map(|received| match self.is_raw() {
            true => received,
            false => Received { full: received.count, ..received },
        })
    }
}

/// Gives a message to all who hear it: raw sockets, and of an answer whoever asked.
fn hear(network: &Namespace, packet: &Datagram) {
    let v6 = packet.to.is_ipv6();
    let raw = network.icmp.raw_ones();
    for socket in raw.iter().filter(|socket| socket.v6 == v6) {
        socket.queue(packet);
    }
    if let Meaning::Reply(ident) = message::meaning(v6, &packet.bytes)
        && message::is_whole(&packet.bytes, packet.from.ip(), packet.to)
        && let Some(asker) = network.icmp.pings.receiver(packet.from, SocketAddr::new(packet.to, ident))
    {
        asker.queue(packet);
    }
}

impl Drop for IcmpSocket {
    fn drop(&mut self) {
        if self.core.kind == Kind::Raw {
            // What is taken out is dropped without the lock.
            let _taken = { self.network.icmp.raw.lock().remove(&self.core.ino) };
        }
    }
}
