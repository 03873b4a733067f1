//! Queues, and what comes with a datagram.

use super::{State, UdpSocket};
use crate::abi::{Errno, Result};
use crate::mm::IoDst;
use crate::net::inet::datagram::{Datagram, comes_with};
use crate::net::inet::endpoint::shown;
use crate::net::inet::ip;
use crate::net::message::{MSG_ERRQUEUE, MSG_TRUNC};
use crate::net::outside::Outside;
use crate::net::{Address, Control, How, Received};
use linux_raw_sys::general as c;
use linux_raw_sys::net as n;
use std::net::SocketAddr;
use std::sync::Arc;

const IN: u32 = c::POLLIN | c::POLLRDNORM;
/// Most failures that wait to be read.
const FAILURES: usize = 64;
/// SO_EE_ORIGIN_ICMP and _ICMP6, and what they call an unreachable port.
const ICMP: [u8; 3] = [2, 3, 3];
const ICMP6: [u8; 3] = [3, 1, 4];

/// What there was to be received.
enum Taken {
    Received(Received),
    /// Nothing within: it is for the host's socket to say.
    Outside(Arc<Outside>),
    /// The same of several.
    Peers(Vec<Arc<Outside>>),
}

/// What came back of a datagram that nobody took.
pub(super) struct Failure {
    pub(super) datagram: Datagram,
    pub(super) to: SocketAddr,
}

impl State {
    pub(super) fn keep_failure(&mut self, failure: Failure) {
        if self.failures.len() < FAILURES {
            self.failures.push_back(failure);
        }
    }
}

impl UdpSocket {
    /// Queues what came, if there is room.
    pub(super) fn queue(&self, datagram: Datagram) {
        let limit = self.core.options.lock().receive_buffer as usize;
        let mut state = self.state.lock();
        if state.queue.used() > limit || self.network.memory.is_spent() {
            return;
        }
        state.queue.push(datagram);
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
            Taken::Peers(peers) => self.take_first(&peers, dst, how.flags),
        }
    }

    fn take_queued(&self, dst: &mut IoDst<'_>, how: How) -> Result<Taken> {
        let stamped = how.details && self.core.options.lock().is_on(n::SO_TIMESTAMP_OLD);
        let mut state = self.state.lock();
        if let Some(errno) = state.error.take() {
            return Err(errno);
        }
        let Some(first) = state.queue.first() else {
            if !state.peers.is_empty() {
                let mut ways = state.ways();
                // Nobody is always the first.
                state.turn = (state.turn + 1) % ways.len();
                ways.rotate_left(state.turn);
                return Ok(Taken::Peers(ways));
            }
            return match state.outside.clone() {
                Some(outside) => Ok(Taken::Outside(outside)),
                None if state.shut.0 => Ok(Taken::Received(Received::default())),
                None => Err(Errno::EAGAIN),
            };
        };
        let control = if how.details { comes_with(first, &state.ip, self.v6, stamped) } else { Vec::new() };
        let given = first.give(dst, self.v6, control)?;
        if !how.peek()
            && let Some(gone) = state.queue.pop()
        {
            drop(state);
            drop(gone);
        }
        given.map(Taken::Received)
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
        drop(datagram);
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
