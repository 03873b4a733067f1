//! Where a datagram goes.

use super::receive::Failure;
use super::{State, UDP_SEGMENT, UdpSocket};
use crate::abi::{Errno, Result};
use crate::mm::IoSrc;
use crate::net::address::family_of;
use crate::net::inet::datagram::Datagram;
use crate::net::inet::endpoint::{parse, target};
use crate::net::inet::{UDP_LEVEL, ip, is_many};
use crate::net::interfaces::LO;
use crate::net::links::Home;
use crate::net::message::{MSG_MORE, MSG_OOB};
use crate::net::namespace::Chunk;
use crate::net::{Control, Outgoing};
use crate::sync::LockGuard;
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
        let out = self.out_for_many(&state, to)?;
        let near = out == Some(LO);
        if let Some(toward) = self.toward(&state, to).filter(|_| !near) {
            drop(state);
            return self.send_toward(src, to, toward, message.flags & MSG_MORE);
        }
        let home = self.home(to.ip(), out)?;
        self.ready(&mut state)?;
        if let Some(out) = out.filter(|_| !near) {
            return self.send_far(state, src, to, (out, message.flags & MSG_MORE));
        }
        if let Some(window) = self.window(&state, to, matches!(home, Home::Here)) {
            drop(state);
            return window.send(src, to, message.flags & MSG_MORE);
        }
        if matches!(home, Home::Outside) {
            return self.send_outside(state, src, to, message.flags & MSG_MORE);
        }
        self.send_inside(state, src, to, &wishes, message.flags & MSG_MORE != 0)
    }

    /// Sends to one or many inside, or holds it back for there is `more` to come.
    fn send_inside(
        &self,
        mut state: LockGuard<'_, State>,
        src: &mut IoSrc<'_>,
        to: SocketAddr,
        wishes: &Wishes,
        more: bool,
    ) -> Result<usize> {
        let len = src.remaining();
        let before = state.corked.as_ref().map_or(0, |corked| corked.bytes.len());
        let longest = if to.is_ipv4() { LONGEST_V4 } else { LONGEST_V6 };
        let segment = usize::from(wishes.segment.unwrap_or(state.segment));
        if before + len > longest || (segment > 0 && len > segment * SEGMENTS) {
            state.corked = None;
            return Err(if segment > 0 && before + len <= longest { Errno::EINVAL } else { Errno::EMSGSIZE });
        }
        let mut bytes = self.network.memory.take(len);
        if len > 0 && src.read_bytes(&mut bytes)? < len {
            return Err(Errno::EFAULT);
        }
        if state.corked.is_some() || state.cork || more {
            let corked = state.corked.get_or_insert_with(|| Corked { bytes: Vec::new(), to });
            corked.bytes.extend_from_slice(&bytes);
            drop(bytes);
            if state.cork || more {
                return Ok(len);
            }
            return self.uncork(src, state, wishes).map(|()| len);
        }
        let datagram = self.datagram(&state, to, wishes, bytes)?;
        drop(state);
        if segment == 0 || len <= segment {
            self.deliver(src, datagram, to);
        } else {
            self.deliver_parts(src, &datagram, to, segment);
        }
        Ok(len)
    }

    /// Sends to many outside, and to those inside who are among them.
    fn send_far(
        &self,
        state: LockGuard<'_, State>,
        src: &mut IoSrc<'_>,
        to: SocketAddr,
        (out, more): (u32, u32),
    ) -> Result<usize> {
        let inside = self.copy_inside(&state, src, to, out)?;
        let result = if self.network.links.is_made(out) {
            // Nobody else is there.
            drop(state);
            let len = src.remaining();
            src.advance(len);
            Ok(len)
        } else {
            self.send_outside(state, src, to, more)
        };
        if let Some(datagram) = inside {
            self.deliver_to_all(src, datagram, to, out);
        }
        result
    }

    /// Gives it a port, and says what is in the way of sending.
    pub(super) fn ready(&self, state: &mut State) -> Result<()> {
        self.autobind(state)?;
        match state.error.take() {
            Some(errno) => Err(errno),
            None if state.shut.1 => Err(Errno::EPIPE),
            None => Ok(()),
        }
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
        self.uncork(&IoSrc::kernel(&[]), state, &Wishes::default())
    }

    fn uncork(&self, src: &IoSrc<'_>, mut state: LockGuard<'_, State>, wishes: &Wishes) -> Result<()> {
        let Some(corked) = state.corked.take() else { return Ok(()) };
        let bytes = self.network.memory.copy_of(&corked.bytes);
        let datagram = self.datagram(&state, corked.to, wishes, bytes)?;
        drop(state);
        self.deliver(src, datagram, corked.to);
        Ok(())
    }

    fn datagram(&self, state: &State, to: SocketAddr, wishes: &Wishes, bytes: Chunk) -> Result<Datagram> {
        let chosen = || state.groups.sends_from(to.ip());
        let own = wishes.from.or_else(|| self.own_address(state)).or_else(chosen);
        let from = own.unwrap_or_else(|| self.source(to.ip()));
        if !self.network.is_local(from) || from.is_ipv4() != to.is_ipv4() {
            return Err(Errno::EINVAL);
        }
        let (level, tos, ttl) = match to {
            SocketAddr::V4(v4) if v4.ip().is_multicast() => {
                (ip::IP, ip::name::IP_TOS, ip::name::IP_MULTICAST_TTL)
            }
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
    fn deliver(&self, src: &IoSrc<'_>, datagram: Datagram, to: SocketAddr) {
        if is_many(to.ip()) {
            return self.deliver_to_all(src, datagram, to, LO);
        }
        let receiver = match self.network.home(to.ip()) {
            Home::Here => self.network.udp.receiver(datagram.from, to),
            Home::There(there, _) => there.udp.receiver(datagram.from, to),
            // Nobody says that it did not arrive.
            Home::Lost(_) | Home::Outside => return,
        };
        match receiver {
            Some(receiver) => receiver.queue(datagram),
            None => self.unreachable(datagram, to),
        }
    }

    /// UDP_SEGMENT: one send, several datagrams.
    fn deliver_parts(&self, src: &IoSrc<'_>, whole: &Datagram, to: SocketAddr, segment: usize) {
        for part in whole.bytes.chunks(segment) {
            let bytes = self.network.memory.copy_of(part);
            self.deliver(src, Datagram { bytes, ..*whole }, to);
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
            return;
        }
        state.error = Some(Errno::ECONNREFUSED);
        if wants {
            state.keep_failure(Failure { datagram, to });
        }
        drop(state);
        self.core.wait.notify(c::POLLERR | c::POLLIN | c::POLLOUT);
    }
}

/// Whether an address is one that everybody hears.
pub(in super::super) fn is_broadcast(ip: IpAddr) -> bool {
    ip == IpAddr::V4(Ipv4Addr::BROADCAST) || ip == IpAddr::V4(Ipv4Addr::new(127, 255, 255, 255))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::options::Options;
    use crate::net::{Core, Kind, Namespace};
    use crate::sync::{Lock, Rank};
    use std::sync::Arc;

    fn socket(network: &Arc<Namespace>, state: State) -> Arc<UdpSocket> {
        let (family, protocol) = (n::AF_INET as u16, crate::net::inet::UDP as u16);
        Arc::new_cyclic(|me| UdpSocket {
            me: me.clone(),
            core: Arc::new(Core::new(Kind::Datagram, family, protocol, 0, Options::default())),
            network: network.clone(),
            v6: false,
            process: 1,
            state: Lock::new(Rank::UdpSocket, state),
        })
    }

    /// What is in the way of sending, or of being received, takes nothing of the sockets' memory along.
    #[test]
    fn memory_goes_back_whatever_becomes_of_a_datagram() {
        let network = Namespace::new(None);
        let receiver = socket(&network, State::default());
        let ready = receiver.ready(&mut receiver.state.lock());
        assert_eq!(ready, Ok(()));
        let port = receiver.state.lock().local.map_or(0, |local| local.port());
        let nobody = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);
        for (to, segment) in [(SocketAddr::new(nobody.ip(), port), 100), (nobody, 100), (nobody, 0)] {
            let sender = socket(&network, State { remote: Some(to), segment, ..State::default() });
            let sent = sender.send_datagram(&mut IoSrc::kernel(&[7; 1000]), &Outgoing::default());
            assert_eq!(sent, Ok(1000));
        }
        assert_eq!((receiver.state.lock().queue.used() > 1000, network.memory.used()), (true, 1000));
        drop(receiver);
        assert_eq!(network.memory.used(), 0);
    }
}
