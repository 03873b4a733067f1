//! What is for many: broadcasts, and what is sent to groups.
//!
//! What goes out by the loopback interface is heard inside and nowhere else, whatever IP_MULTICAST_LOOP says, as on Linux.
//! What goes out by another goes to the host's network, and is heard by those inside who have joined there, too.

use super::{State, UdpSocket};
use crate::abi::{Errno, Result};
use crate::mm::IoSrc;
use crate::net::Answer;
use crate::net::inet::datagram::Datagram;
use crate::net::inet::endpoint::source;
use crate::net::inet::multicast::{self, routed};
use crate::net::inet::{ip, is_many, may_go_by, reaches};
use crate::net::interfaces::LO;
use crate::net::links::Home;
use linux_raw_sys::net as n;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What the loopback interface's network calls everybody.
const LOOPBACK_BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

impl UdpSocket {
    /// The interface by which something for many goes out; `None` for what is for one.
    ///
    /// # Errors
    /// ENETUNREACH, EACCES for broadcasts that were not asked for (SO_BROADCAST).
    pub(super) fn out_for_many(&self, state: &State, to: SocketAddr) -> Result<Option<u32>> {
        if !is_many(to.ip()) {
            return Ok(None);
        }
        let out = self.way_out(state, to).ok_or(Errno::ENETUNREACH)?;
        // (It has no IPv6 route for groups.)
        if out == LO && to.is_ipv6() {
            return Err(Errno::ENETUNREACH);
        }
        reaches(&self.network, &self.core, to.ip())?;
        Ok(Some(out))
    }

    fn way_out(&self, state: &State, to: SocketAddr) -> Option<u32> {
        let device = self.core.options.lock().device;
        let asked = match to {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => v6.scope_id(),
            _ => device,
        };
        let chosen = || state.groups.out(to.is_ipv6()).filter(|_| to.ip().is_multicast());
        let own = || self.own_address(state).and_then(|own| multicast::interface_of(&self.network, own));
        match to.ip() {
            IpAddr::V4(LOOPBACK_BROADCAST) => Some(LO),
            _ if asked != 0 => Some(asked),
            ip => chosen().or_else(own).or_else(|| routed(&self.network, ip)),
        }
    }

    /// The address that it is bound to, if that is one that can be sent from.
    pub(super) fn own_address(&self, state: &State) -> Option<IpAddr> {
        state.local.map(|local| local.ip()).filter(|ip| !ip.is_unspecified() && !is_many(*ip))
    }

    /// Where what is for one arrives, or what goes `out` by an interface for many.
    ///
    /// # Errors
    /// ENETUNREACH where it does not get there by the device that it is bound to.
    pub(super) fn home(&self, to: IpAddr, out: Option<u32>) -> Result<Home> {
        match out {
            Some(LO) => return Ok(Home::Here),
            Some(_) => return Ok(Home::Outside),
            None => {}
        }
        reaches(&self.network, &self.core, to)?;
        let home = self.network.home(to);
        may_go_by(self.core.options.lock().device, matches!(home, Home::Here))?;
        Ok(home)
    }

    /// The address from which one without an own one sends.
    pub(super) fn source(&self, to: IpAddr) -> IpAddr {
        match self.network.home(to) {
            Home::There(_, from) | Home::Lost(Some(from)) => from,
            Home::Here | Home::Lost(None) | Home::Outside => source(to),
        }
    }

    /// Puts a datagram into the queues of all whom it is for.
    pub(super) fn deliver_to_all(&self, src: &IoSrc<'_>, datagram: Datagram, to: SocketAddr, interface: u32) {
        let (network, from, group) = (&self.network, datagram.from, to.ip());
        let joins = group.is_multicast();
        if !joins || network.joined.wants(group, interface, from.ip()) {
            for receiver in network.udp.receivers(from, to, interface) {
                if joins && !receiver.hears_group((group, interface), from.ip()) {
                    continue;
                }
                let bytes = network.memory.copy_of(&datagram.bytes);
                receiver.queue(Datagram { bytes, ..datagram });
                src.give_way();
            }
        }
        drop(datagram);
    }

    fn hears_group(&self, at: (IpAddr, u32), from: IpAddr) -> bool {
        self.state.lock().groups.hears(&self.network, self.core.ino, at, from)
    }

    /// Lets those inside hear what goes out to a group by an interface other than loopback.
    ///
    /// # Errors
    /// EFAULT.
    pub(super) fn copy_inside(
        &self,
        state: &State,
        src: &IoSrc<'_>,
        to: SocketAddr,
        out: u32,
    ) -> Result<Option<Datagram>> {
        let (level, name, ttl) = match to {
            SocketAddr::V4(_) => (ip::IP, ip::name::IP_MULTICAST_LOOP, ip::name::IP_MULTICAST_TTL),
            SocketAddr::V6(_) => (ip::IPV6, ip::name::IPV6_MULTICAST_LOOP, ip::name::IPV6_MULTICAST_HOPS),
        };
        if state.ip.value(level, name) == 0 {
            return Ok(None);
        }
        let has =
            |known: &&crate::net::interfaces::Own| known.index == out && known.ip.is_ipv4() == to.is_ipv4();
        let own = self.own_address(state);
        let own = own.or_else(|| self.network.interfaces().addresses().find(|it| has(&it)).map(|it| it.ip));
        let (Some(own), Some(hold)) = (own, &state.hold) else { return Ok(None) };
        let from = SocketAddr::new(own, hold.port());
        if self.network.udp.receivers(from, to, out).is_empty() {
            return Ok(None);
        }
        let len = src.remaining();
        let mut bytes = self.network.memory.take(len);
        if len > 0 && src.peek().read_bytes(&mut bytes).is_ok_and(|count| count < len) {
            return Err(Errno::EFAULT);
        }
        let (tos, ttl) = (0, state.ip.value(level, ttl) as u8);
        Ok(Some(Datagram { bytes, from, to: to.ip(), tos, ttl, time: crate::time::realtime_ns() }))
    }

    /// setsockopt(2) of what a socket of the host hears of where there is one: groups, and how far what is sent to them goes.
    pub(super) fn set_told(&self, set: impl FnOnce(&mut State) -> Result<()>) -> Result<()> {
        let mut state = self.state.lock();
        let outside = state.outside.clone();
        let told = |state: &State| outside.as_ref().map(|_| self.told_of_groups(state));
        let before = told(&state);
        set(&mut state)?;
        let after = told(&state);
        drop(state);
        if let (Some(outside), Some(before), Some(after)) = (&outside, before, after) {
            for (level, name, value) in multicast::changes(&before, &after) {
                // What the host does not do is done without.
                let _ = outside.set_option(level, name, &value);
            }
        }
        Ok(())
    }

    fn told_of_groups(&self, state: &State) -> Vec<(u32, u32, Vec<u8>)> {
        state.groups.told(&self.network, self.core.ino, &state.ip)
    }

    /// getsockopt(2) of what has to do with groups.
    pub(super) fn group_option(&self, level: u32, name: u32) -> Result<Answer> {
        self.state.lock().groups.get(level, name).map(Answer::Value).ok_or(Errno::ENOPROTOOPT)
    }

    /// What a socket of the host is told as soon as there is one.
    pub(super) fn told_first(&self, state: &State) -> Vec<(u32, u32, Vec<u8>)> {
        let mut told = self.told();
        told.extend(self.told_of_groups(state));
        let device = self.core.options.lock().device;
        if device != 0 {
            told.push((n::SOL_SOCKET, n::SO_BINDTOIFINDEX, device.to_ne_bytes().to_vec()));
        }
        told
    }
}
