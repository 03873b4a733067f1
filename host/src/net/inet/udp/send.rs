//! Where a datagram goes.

use super::receive::{Datagram, Failure};
use super::{State, UDP_SEGMENT, UdpSocket};
use crate::abi::{Errno, Result};
use crate::mm::IoSrc;
use crate::net::address::family_of;
use crate::net::inet::endpoint::{parse, source, target};
use crate::net::inet::{UDP_LEVEL, ip, reaches};
use crate::net::message::{MSG_MORE, MSG_OOB};
use crate::net::{Control, Outgoing};
use linux_raw_sys::general as c;
use linux_raw_sys::net as n;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Most bytes in a datagram: what a packet has, less its headers.
const LONGEST_V4: usize = 65_535 - 20 - 8;
const LONGEST_V6: usize = 65_535 - 8;
/// UDP_MAX_SEGMENTS.
const SEGMENTS: usize = 64;

/// A datagram that is not finished (MSG_MORE, UDP_CORK).
pub(super) struct Corked {
    bytes: Vec<u8>,
    to: SocketAddr,
}

/// What control messages say about a datagram.
#[derive(Default)]
struct Wishes {
    from: Option<IpAddr>,
    tos: Option<u8>,
    ttl: Option<u8>,
    segment: Option<u16>,
}

fn word(data: &[u8], at: usize) -> Result<i32> {
    let bytes = data.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map(i32::from_ne_bytes).ok_or(Errno::EINVAL)
}

/// A byte that is given as one, or as an int.
fn byte(data: &[u8]) -> Result<u8> {
    match data {
        [byte] => Ok(*byte),
        _ => u8::try_from(word(data, 0)?).map_err(|_| Errno::EINVAL),
    }
}

/// A byte that is given as an int, of which -1 is none in particular.
fn byte_or_none(data: &[u8]) -> Result<Option<u8>> {
    match word(data, 0)? {
        _ if data.len() != 4 => Err(Errno::EINVAL),
        -1 => Ok(None),
        value => u8::try_from(value).map(Some).map_err(|_| Errno::EINVAL),
    }
}

fn wishes(v6: bool, control: &[Control]) -> Result<Wishes> {
    let mut wishes = Wishes::default();
    for Control { level, kind, data } in control {
        match (*level as u32, *kind as u32) {
            (ip::IP, ip::name::IP_PKTINFO) if data.len() == 12 => {
                let octets: [u8; 4] = std::array::from_fn(|i| data[4 + i]);
                wishes.from = Some(IpAddr::from(octets)).filter(|ip| !ip.is_unspecified());
            }
            (ip::IP, ip::name::IP_TOS) => wishes.tos = Some(byte(data)?),
            (ip::IP, ip::name::IP_TTL) => match word(data, 0)? {
                ttl @ 1..=255 => wishes.ttl = Some(ttl as u8),
                _ => return Err(Errno::EINVAL),
            },
            (ip::IPV6, ip::name::IPV6_PKTINFO) if v6 && data.len() >= 20 => {
                let octets: [u8; 16] = std::array::from_fn(|i| data[i]);
                let ip = Ipv6Addr::from(octets);
                let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
                wishes.from = Some(ip).filter(|ip| !ip.is_unspecified());
            }
            // None in particular is all bits.
            (ip::IPV6, ip::name::IPV6_TCLASS) if v6 => {
                wishes.tos = Some(byte_or_none(data)?.unwrap_or(u8::MAX));
            }
            (ip::IPV6, ip::name::IPV6_HOPLIMIT) if v6 => wishes.ttl = byte_or_none(data)?,
            (UDP_LEVEL, UDP_SEGMENT) if data.len() == 2 => {
                wishes.segment = Some(u16::from_ne_bytes([data[0], data[1]]));
            }
            (UDP_LEVEL, _) => return Err(Errno::EINVAL),
            (ip::IPV6, _) if !v6 => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    Ok(wishes)
}

impl UdpSocket {
    /// Where a message is to go that names an address; `None`: where the connection says.
    fn named(&self, raw: &[u8]) -> Result<Option<SocketAddr>> {
        let address = match family_of(raw) {
            None => return Err(Errno::EINVAL),
            Some(0) if self.v6 => return Ok(None),
            // Of no family is taken for IPv4.
            Some(0) if raw.len() >= 16 => {
                let octets: [u8; 4] = std::array::from_fn(|i| raw[4 + i]);
                SocketAddr::new(IpAddr::from(octets), u16::from_be_bytes([raw[2], raw[3]]))
            }
            Some(family) if self.v6 && u32::from(family) == n::AF_INET => parse(false, raw)?,
            Some(family) if self.v6 && u32::from(family) != n::AF_INET6 => return Err(Errno::EINVAL),
            Some(_) => parse(self.v6, raw)?,
        };
        if address.port() == 0 {
            return Err(Errno::EINVAL);
        }
        Ok(Some(SocketAddr::new(target(address.ip()), address.port())))
    }

    pub(super) fn send_datagram(&self, src: &mut IoSrc<'_>, message: &Outgoing<'_>) -> Result<usize> {
        src.held(|src| self.send_at_once(src, message))
    }

    fn send_at_once(&self, src: &mut IoSrc<'_>, message: &Outgoing<'_>) -> Result<usize> {
        let len = src.remaining();
        if len > 0xffff {
            return Err(Errno::EMSGSIZE);
        }
        if message.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let named = match message.to {
            Some(to) => self.named(to.address.bytes())?,
            None => None,
        };
        let wishes = wishes(self.v6, &message.control)?;
        let mut state = self.state.lock();
        let to = self.destination(&state, named)?;
        let local = reaches(&self.network, &self.core, to.ip())?;
        self.autobind(&mut state)?;
        if let Some(errno) = state.error.take() {
            return Err(errno);
        }
        if state.shut.1 {
            return Err(Errno::EPIPE);
        }
        if let Some(window) = self.window(&state, to, local) {
            drop(state);
            return window.send(src, to, message.flags & MSG_MORE);
        }
        if !local {
            return self.send_outside(state, src, to, message.flags & MSG_MORE);
        }
        let before = state.corked.as_ref().map_or(0, |corked| corked.bytes.len());
        let longest = if to.is_ipv4() { LONGEST_V4 } else { LONGEST_V6 };
        let segment = usize::from(wishes.segment.unwrap_or(state.segment));
        if before + len > longest || (segment > 0 && len > segment * SEGMENTS) {
            state.corked = None;
            return Err(if segment > 0 && before + len <= longest { Errno::EINVAL } else { Errno::EMSGSIZE });
        }
        let mut bytes = self.network.memory.take(len);
        if len > 0 && src.read_bytes(&mut bytes)? < len {
            self.network.memory.give_back(bytes);
            return Err(Errno::EFAULT);
        }
        if state.corked.is_some() || state.cork || message.flags & MSG_MORE != 0 {
            let corked = state.corked.get_or_insert_with(|| Corked { bytes: Vec::new(), to });
            corked.bytes.extend_from_slice(&bytes);
            self.network.memory.give_back(bytes);
            if state.cork || message.flags & MSG_MORE != 0 {
                return Ok(len);
            }
            return self.uncork(state, &wishes).map(|()| len);
        }
        let datagram = self.datagram(&state, to, &wishes, bytes)?;
        drop(state);
        if segment == 0 || len <= segment {
            self.deliver(datagram, to);
        } else {
            self.deliver_parts(&datagram, to, segment);
        }
        Ok(len)
    }

    /// Where a message goes, named or not.
    fn destination(&self, state: &State, named: Option<SocketAddr>) -> Result<SocketAddr> {
        let corked = || state.corked.as_ref().map(|corked| corked.to);
        let to = named.or_else(corked).or(state.remote).ok_or(Errno::EDESTADDRREQ)?;
        if self.only_v6(state) && to.is_ipv4() { Err(Errno::ENETUNREACH) } else { Ok(to) }
    }

    /// Sends what was held back.
    pub(super) fn flush(&self) -> Result<()> {
        let state = self.state.lock();
        if state.corked.is_none() {
            return Ok(());
        }
        self.uncork(state, &Wishes::default())
    }

    fn uncork(&self, mut state: crate::sync::LockGuard<'_, State>, wishes: &Wishes) -> Result<()> {
        let Some(corked) = state.corked.take() else { return Ok(()) };
        let mut bytes = self.network.memory.take(corked.bytes.len());
        bytes.copy_from_slice(&corked.bytes);
        let datagram = self.datagram(&state, corked.to, wishes, bytes)?;
        drop(state);
        self.deliver(datagram, corked.to);
        Ok(())
    }

    fn datagram(&self, state: &State, to: SocketAddr, wishes: &Wishes, bytes: Box<[u8]>) -> Result<Datagram> {
        let own = state.local.map(|local| local.ip()).filter(|ip| !ip.is_unspecified());
        let from = wishes.from.or(own).unwrap_or(source(to.ip()));
        if !self.network.is_local(from) || from.is_ipv4() != to.is_ipv4() {
            self.network.memory.give_back(bytes);
            return Err(Errno::EINVAL);
        }
        let (level, tos, ttl) = match to {
            SocketAddr::V4(_) => (ip::IP, ip::name::IP_TOS, ip::name::IP_TTL),
            SocketAddr::V6(_) => (ip::IPV6, ip::name::IPV6_TCLASS, ip::name::IPV6_UNICAST_HOPS),
        };
        Ok(Datagram {
            bytes,
            from: SocketAddr::new(from, state.hold.as_ref().map_or(0, super::Hold::port)),
            to: to.ip(),
            tos: wishes.tos.unwrap_or(state.ip.value(level, tos) as u8),
            ttl: wishes.ttl.unwrap_or(state.ip.value(level, ttl) as u8),
            time: crate::time::realtime_ns(),
        })
    }

    /// Puts a datagram into the queue of whoever it is for.
    fn deliver(&self, datagram: Datagram, to: SocketAddr) {
        match self.network.udp.receiver(datagram.from, to) {
            Some(receiver) => receiver.queue(datagram),
            None => self.unreachable(datagram, to),
        }
    }

    /// UDP_SEGMENT: one send, several datagrams.
    fn deliver_parts(&self, whole: &Datagram, to: SocketAddr, segment: usize) {
        for part in whole.bytes.chunks(segment) {
            let mut bytes = self.network.memory.take(part.len());
            bytes.copy_from_slice(part);
            self.deliver(Datagram { bytes, ..*whole }, to);
        }
    }

    /// Nobody has the port: what an ICMP message tells.
    fn unreachable(&self, datagram: Datagram, to: SocketAddr) {
        let mut state = self.state.lock();
        let (level, name) = match self.v6 {
            true => (ip::IPV6, ip::name::IPV6_RECVERR),
            false => (ip::IP, ip::name::IP_RECVERR),
        };
        let wants = state.ip.is_on(level, name);
        if !wants && state.remote.is_none() {
            drop(state);
            self.network.memory.give_back(datagram.bytes);
            return;
        }
        state.error = Some(Errno::ECONNREFUSED);
        if wants {
            state.keep_failure(Failure { datagram, to }, &self.network.memory);
        } else {
            self.network.memory.give_back(datagram.bytes);
        }
        drop(state);
        self.core.wait.notify(c::POLLERR | c::POLLIN | c::POLLOUT);
    }
}

/// Whether an address is one that everybody hears.
pub(in super::super) fn is_broadcast(ip: IpAddr) -> bool {
    ip == IpAddr::V4(Ipv4Addr::BROADCAST) || ip == IpAddr::V4(Ipv4Addr::new(127, 255, 255, 255))
}
