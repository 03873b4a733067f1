//! Queues, and what comes with a datagram.

use super::{State, UdpSocket};
use crate::abi::{Errno, Result};
use crate::mm::IoDst;
use crate::net::inet::endpoint::shown;
use crate::net::inet::ip::{self, IpOptions};
use crate::net::message::{MSG_ERRQUEUE, MSG_PEEK, MSG_TRUNC};
use crate::net::namespace::Memory;
use crate::net::outside::Outside;
use crate::net::{Address, Control, How, Received};
use linux_raw_sys::general as c;
use linux_raw_sys::net as n;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const IN: u32 = c::POLLIN | c::POLLRDNORM;
/// What a datagram counts against a buffer beside its bytes (SKB_TRUESIZE of one that is short).
const OVERHEAD: usize = 576;
/// Most failures that wait to be read.
const FAILURES: usize = 64;
/// The loopback interface's number.
const LOOPBACK: i32 = 1;
/// SO_EE_ORIGIN_ICMP and _ICMP6, and what they call an unreachable port.
const ICMP: [u8; 3] = [2, 3, 3];
const ICMP6: [u8; 3] = [3, 1, 4];

/// A datagram on its way, or waiting to be read.
pub(super) struct Datagram {
    pub(super) bytes: Box<[u8]>,
    pub(super) from: SocketAddr,
    pub(super) to: IpAddr,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    /// CLOCK_REALTIME, ns.
    pub(super) time: u64,
}

/// What there was to be received.
enum Taken {
    Received(Received),
    /// Nothing within: it is for the host's socket to say.
    Outside(Arc<Outside>),
}

/// What came back of a datagram that nobody took.
pub(super) struct Failure {
    pub(super) datagram: Datagram,
    pub(super) to: SocketAddr,
}

impl State {
    pub(super) fn keep_failure(&mut self, failure: Failure, memory: &Memory) {
        if self.failures.len() >= FAILURES {
            memory.give_back(failure.datagram.bytes);
        } else {
            self.failures.push_back(failure);
        }
    }
}

impl UdpSocket {
    /// Queues what came, if there is room.
    pub(super) fn queue(&self, datagram: Datagram) {
        let limit = self.core.options.lock().receive_buffer as usize;
        let mut state = self.state.lock();
        if state.used > limit || self.network.memory.is_spent() {
            drop(state);
            self.network.memory.give_back(datagram.bytes);
            return;
        }
        state.used += datagram.bytes.len() + OVERHEAD;
        state.queue.push_back(datagram);
        drop(state);
        self.core.wait.notify(IN);
    }

    pub(super) fn take(&self, dst: &mut IoDst<'_>, how: How) -> Result<Received> {
        if how.flags & MSG_ERRQUEUE != 0 {
            return self.take_failure(dst);
        }
        match dst.held(|dst| self.take_queued(dst, how))? {
            Taken::Received(received) => Ok(received),
            Taken::Outside(outside) => self.take_outside(&outside, dst, how.flags),
        }
    }

    fn take_queued(&self, dst: &mut IoDst<'_>, how: How) -> Result<Taken> {
        let stamped = how.details && self.core.options.lock().is_on(n::SO_TIMESTAMP_OLD);
        let mut state = self.state.lock();
        if let Some(errno) = state.error.take() {
            return Err(errno);
        }
        let Some(first) = state.queue.front() else {
            return match state.outside.clone() {
                Some(outside) => Ok(Taken::Outside(outside)),
                None if state.shut.0 => Ok(Taken::Received(Received::default())),
                None => Err(Errno::EAGAIN),
            };
        };
        let full = first.bytes.len();
        let want = full.min(dst.remaining());
        let copied = if want == 0 { Ok(0) } else { dst.write_bytes(&first.bytes[..want]) };
        if dst.has_missed() {
            return Err(Errno::EFAULT);
        }
        let mut received = Received {
            full,
            from: Address::Inet(shown(self.v6, first.from)),
            control: if how.details { comes_with(first, &state.ip, self.v6, stamped) } else { Vec::new() },
            flags: if want < full { MSG_TRUNC } else { 0 },
            ..Received::default()
        };
        if how.flags & MSG_PEEK == 0
            && let Some(gone) = state.queue.pop_front()
        {
            state.used -= full + OVERHEAD;
            drop(state);
            self.network.memory.give_back(gone.bytes);
        }
        received.count =
            copied.and_then(|count| if count < want { Err(Errno::EFAULT) } else { Ok(count) })?;
        Ok(Taken::Received(received))
    }

    /// What came back of a datagram, with why (ip(7), IP_RECVERR).
    fn take_failure(&self, dst: &mut IoDst<'_>) -> Result<Received> {
        let mut state = self.state.lock();
        let Failure { datagram, to } = state.failures.pop_front().ok_or(Errno::EAGAIN)?;
        state.error = state.failures.front().map(|_| Errno::ECONNREFUSED);
        drop(state);
        let full = datagram.bytes.len();
        let want = full.min(dst.remaining());
        let copied = if want == 0 { Ok(0) } else { dst.write_bytes(&datagram.bytes[..want]) };
        self.network.memory.give_back(datagram.bytes);
        let mut error = Errno::ECONNREFUSED.0.to_ne_bytes().to_vec();
        error.extend(if to.is_ipv4() { ICMP } else { ICMP6 });
        error.extend([0; 9]);
        let offender = SocketAddr::new(to.ip(), 0);
        error.extend(Address::Inet(shown(self.v6, offender)).raw().bytes());
        let (level, kind) = match self.v6 {
            true => (ip::IPV6, ip::name::IPV6_RECVERR),
            false => (ip::IP, ip::name::IP_RECVERR),
        };
        Ok(Received {
            count: copied?,
            full,
            from: Address::Inet(shown(self.v6, to)),
            flags: MSG_ERRQUEUE | if want < full { MSG_TRUNC } else { 0 },
            control: vec![Control { level: level as i32, kind: kind as i32, data: error }],
            ..Received::default()
        })
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let failed = state.failures.drain(..).map(|failure| failure.datagram);
        for datagram in state.queue.drain(..).chain(failed) {
            self.network.memory.give_back(datagram.bytes);
        }
    }
}

/// The control messages that were asked for.
fn comes_with(datagram: &Datagram, wanted: &IpOptions, v6: bool, stamped: bool) -> Vec<Control> {
    let mut all = Vec::new();
    let mut add = |level: u32, kind: u32, data: Vec<u8>| {
        all.push(Control { level: level as i32, kind: kind as i32, data });
    };
    if stamped {
        let parts = [datagram.time / 1_000_000_000, datagram.time % 1_000_000_000 / 1000];
        add(n::SOL_SOCKET, n::SO_TIMESTAMP_OLD, parts.iter().flat_map(|part| part.to_ne_bytes()).collect());
    }
    if v6 && wanted.is_on(ip::IPV6, ip::name::IPV6_RECVPKTINFO) {
        let ip = match datagram.to {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        add(ip::IPV6, ip::name::IPV6_PKTINFO, [&ip.octets()[..], &LOOPBACK.to_ne_bytes()].concat());
    }
    let int = |byte: u8| i32::from(byte).to_ne_bytes().to_vec();
    match datagram.to {
        IpAddr::V4(to) => {
            if wanted.is_on(ip::IP, ip::name::IP_PKTINFO) {
                let to = to.octets();
                add(ip::IP, ip::name::IP_PKTINFO, [&LOOPBACK.to_ne_bytes()[..], &to, &to].concat());
            }
            if wanted.is_on(ip::IP, ip::name::IP_RECVTTL) {
                add(ip::IP, ip::name::IP_TTL, int(datagram.ttl));
            }
            if wanted.is_on(ip::IP, ip::name::IP_RECVTOS) {
                add(ip::IP, ip::name::IP_TOS, vec![datagram.tos]);
            }
        }
        IpAddr::V6(_) => {
            if wanted.is_on(ip::IPV6, ip::name::IPV6_RECVHOPLIMIT) {
                add(ip::IPV6, ip::name::IPV6_HOPLIMIT, int(datagram.ttl));
            }
            if wanted.is_on(ip::IPV6, ip::name::IPV6_RECVTCLASS) {
                add(ip::IPV6, ip::name::IPV6_TCLASS, int(datagram.tos));
            }
        }
    }
    all
}
