//! Datagrams that wait to be read, and what comes with them.

use super::endpoint::shown;
use super::ip::{self, IpOptions};
use crate::abi::{Errno, Result};
use crate::mm::IoDst;
use crate::net::message::MSG_TRUNC;
use crate::net::namespace::Chunk;
use crate::net::{Address, Control, Received};
use linux_raw_sys::general as c;
use linux_raw_sys::net as n;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What a datagram counts against a buffer beside its bytes (SKB_TRUESIZE of one that is short).
const OVERHEAD: usize = 576;
/// The loopback interface's number.
const LOOPBACK: i32 = 1;

/// A datagram on its way, or waiting to be read.
pub(super) struct Datagram {
    pub(super) bytes: Chunk,
    pub(super) from: SocketAddr,
    pub(super) to: IpAddr,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    /// CLOCK_REALTIME, ns.
    pub(super) time: u64,
}

impl Datagram {
    /// Copies it to a program, with what comes with it: what is to be told once it is taken.
    ///
    /// # Errors
    /// EFAULT where memory has to be brought in first: it is not taken.
    pub(super) fn give(
        &self,
        dst: &mut IoDst<'_>,
        v6: bool,
        control: Vec<Control>,
    ) -> Result<Result<Received>> {
        let full = self.bytes.len();
        let want = full.min(dst.remaining());
        let copied = if want == 0 { Ok(0) } else { dst.write_bytes(&self.bytes[..want]) };
        if dst.has_missed() {
            return Err(Errno::EFAULT);
        }
        let whole = copied.and_then(|count| if count < want { Err(Errno::EFAULT) } else { Ok(count) });
        Ok(whole.map(|count| Received {
            count,
            full,
            from: Address::Inet(shown(v6, self.from)),
            control,
            flags: if want < full { MSG_TRUNC } else { 0 },
            ..Received::default()
        }))
    }
}

/// Those that wait, oldest first.
#[derive(Default)]
pub(super) struct Waiting {
    all: VecDeque<Datagram>,
    used: usize,
}

impl Waiting {
    /// What they count against SO_RCVBUF.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn first(&self) -> Option<&Datagram> {
        self.all.front()
    }

    pub(super) fn push(&mut self, datagram: Datagram) {
        self.used += datagram.bytes.len() + OVERHEAD;
        self.all.push_back(datagram);
    }

    pub(super) fn pop(&mut self) -> Option<Datagram> {
        let gone = self.all.pop_front()?;
        self.used -= gone.bytes.len() + OVERHEAD;
        Some(gone)
    }
}

/// What poll(2) says holds of a socket of datagrams, some of whose ends (to read, to write) are shut.
pub(super) fn events(waiting: &Waiting, shut: (bool, bool)) -> u32 {
    let mut events = c::POLLOUT | c::POLLWRNORM | c::POLLWRBAND;
    if !waiting.is_empty() || shut.0 {
        events |= c::POLLIN | c::POLLRDNORM;
    }
    if shut.0 {
        events |= c::POLLRDHUP;
    }
    if shut == (true, true) {
        events |= c::POLLHUP;
    }
    events
}

/// The control messages that were asked for.
pub(super) fn comes_with(datagram: &Datagram, wanted: &IpOptions, v6: bool, stamped: bool) -> Vec<Control> {
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
                // What was for many is answered from an address of one's own.
                let own = if super::is_many(to.into()) { Ipv4Addr::LOCALHOST } else { to };
                let parts = [&LOOPBACK.to_ne_bytes()[..], &own.octets(), &to.octets()];
                add(ip::IP, ip::name::IP_PKTINFO, parts.concat());
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
