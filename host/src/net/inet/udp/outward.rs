//! What is not local, by sockets of the host: a socket that sends there has two, and hears both.

use super::{State, UdpSocket, Window};
use crate::abi::{Errno, Result};
use crate::mm::{IoDst, IoSrc};
use crate::net::inet::endpoint::{shown, unspecified};
use crate::net::links::Home;
use crate::net::message::{MSG_PEEK, MSG_TRUNC};
use crate::net::outside::Outside;
use crate::net::toward::{self, Toward};
use crate::net::{Address, Received};
use crate::sync::LockGuard;
use linux_raw_sys::net as n;
use std::net::SocketAddr;
use std::sync::Arc;

/// Switches that mean something to a socket of the host.
const TOLD: [u32; 2] = [n::SO_REUSEADDR, n::SO_REUSEPORT];

/// Most sockets of the host that one of ours has beside its own: the oldest goes.
const PEERS: usize = 64;

impl UdpSocket {
    /// What a socket of the host is to be told: level, number, value.
    pub(super) fn told(&self) -> Vec<(u32, u32, Vec<u8>)> {
        let options = *self.core.options.lock();
        let on = TOLD.iter().filter(|name| options.is_on(**name));
        let mut told: Vec<_> = on.map(|name| (n::SOL_SOCKET, *name, 1_i32.to_ne_bytes().to_vec())).collect();
        // What programs are shown is twice of what they have asked for.
        for (fixed, name, size) in [
            (options.fixed.0, n::SO_RCVBUF, options.receive_buffer),
            (options.fixed.1, n::SO_SNDBUF, options.send_buffer),
        ] {
            if fixed {
                told.push((n::SOL_SOCKET, name, (size / 2).to_ne_bytes().to_vec()));
            }
        }
        told
    }

    /// Tells the sockets of the host what was set.
    pub(super) fn tell_outside(&self, name: u32) {
        let ways = self.state.lock().ways();
        if ways.is_empty() {
            return;
        }
        if matches!(name, n::SO_BINDTODEVICE | n::SO_BINDTOIFINDEX) {
            let device = self.core.options.lock().device.to_ne_bytes();
            for way in ways {
                // Where a warden connects it is not for programs to say.
                let _ = way.set_option(n::SOL_SOCKET, n::SO_BINDTOIFINDEX, &device);
            }
            return;
        }
        let off = TOLD.contains(&name).then(|| (n::SOL_SOCKET, name, vec![0; 4]));
        let told = self.told().into_iter().find(|told| told.1 == name).or(off);
        if let Some((level, name, value)) = told {
            for way in ways {
                // What the host does not do is done without.
                let _ = way.set_option(level, name, &value);
            }
        }
    }

    /// The published port that a datagram goes out by: one that is not local, or to somebody outside who was heard.
    pub(super) fn window(&self, state: &State, to: SocketAddr, local: bool) -> Option<Arc<Window>> {
        let port = state.hold.as_ref()?.port();
        let window = self.network.window(port, to.ip())?;
        let known = window.has_heard(to) || (!local && Outside::may_send(to).is_ok());
        known.then_some(window)
    }

    /// The socket of the host by which `to` can be reached, made if there is none so far.
    fn way_to(&self, state: &mut State, to: SocketAddr) -> Result<Arc<Outside>> {
        if let Some(outside) = &state.outside {
            if state.permitted != Some(to) {
                Outside::may_send(to)?;
                state.permitted = Some(to);
            }
            return Ok(outside.clone());
        }
        let Some(way) = &self.network.outside else { return Err(Errno::ENETUNREACH) };
        if state.bound.is_some_and(|bound| bound.is_loopback()) {
            // From a loopback address there is no way.
            return Err(Errno::EINVAL);
        }
        let outside = Outside::new(&way.watch, &self.core, to)?;
        for (level, name, value) in self.told_first(state) {
            // What the host does not do is done without.
            let _ = outside.set_option(level, name, &value);
        }
        if let Some(hold) = &state.hold {
            let bound = outside.bind(SocketAddr::new(unspecified(to.is_ipv6()), hold.port()));
            // A port that was not asked for need not be the same on both sides.
            if hold.is_bound() {
                bound?;
            }
        }
        let outside = Arc::new(outside);
        (state.outside, state.permitted) = (Some(outside.clone()), Some(to));
        Ok(outside)
    }

    /// connect(2) to what is not local.
    pub(super) fn associate_outside(&self, state: &mut State, remote: SocketAddr) -> Result<()> {
        let outside = self.way_to(state, remote)?;
        outside.connect(remote)?;
        state.remote = Some(remote);
        state.local = outside.name(false).ok().or(state.local);
        // Nobody within is heard.
        if let (Some(hold), Some(local)) = (&state.hold, state.local) {
            hold.associate(local.ip(), remote);
        }
        Ok(())
    }

    pub(super) fn send_outside(
        &self,
        mut state: LockGuard<'_, State>,
        src: &mut IoSrc<'_>,
        to: SocketAddr,
        more: u32,
    ) -> Result<usize> {
        let outside = self.way_to(&mut state, to)?;
        let connected = state.remote == Some(to);
        drop(state);
        let want = src.remaining();
        match outside.send(src, (!connected).then_some(to), more) {
            Ok(count) if count < want => Err(Errno::EMSGSIZE),
            result => result,
        }
    }

    /// Where a datagram goes if not by a socket of the host that others go by, too.
    pub(super) fn toward(&self, state: &State, to: SocketAddr) -> Option<Toward> {
        let local = || !matches!(self.network.home(to.ip()), Home::Outside);
        match self.network.resolver(to) {
            Some(resolver) => Some(resolver),
            // A port of its own on the host is not to be had by way of a warden that makes sockets.
            None if self.network.is_guarded() && !local() => {
                let own_way = state.outside.is_some() && !self.network.is_walled();
                (!own_way).then_some(Toward::World)
            }
            None => {
                let host = self.network.host_loopback(to).filter(|_| local())?;
                let from = state.local.unwrap_or(SocketAddr::new(unspecified(to.is_ipv6()), 0));
                self.network.udp.receiver(from, to).is_none().then_some(host)
            }
        }
    }

    /// The socket of the host that reaches `to` alone, made if there is none so far.
    fn peer(&self, to: SocketAddr, toward: Toward) -> Result<Arc<Outside>> {
        if let Some((_, peer)) = self.state.lock().peers.iter().find(|(known, _)| *known == to) {
            return Ok(peer.clone());
        }
        // Everybody is nobody that a socket could be connected to, unless it is asked for.
        crate::net::inet::reaches(&self.network, &self.core, to.ip())?;
        let Some(way) = &self.network.outside else { return Err(Errno::ENETUNREACH) };
        let (peer, _) = toward::connect(way, &self.core, to, toward, self.process)?;
        for (level, name, value) in self.told() {
            // What the host does not do is done without.
            let _ = peer.set_option(level, name, &value);
        }
        let peer = Arc::new(peer);
        let mut state = self.state.lock();
        let gone = (state.peers.len() >= PEERS).then(|| state.peers.remove(0));
        state.peers.push((to, peer.clone()));
        drop(state);
        drop(gone);
        Ok(peer)
    }

    /// connect(2) by a socket of the host that reaches one alone.
    pub(super) fn associate_toward(&self, remote: SocketAddr, toward: Toward) -> Result<()> {
        let peer = self.peer(remote, toward)?;
        let mut state = self.state.lock();
        state.peers.retain(|(known, _)| *known == remote);
        state.remote = Some(remote);
        let ip = peer.name(false).map_or(unspecified(remote.is_ipv6()), |name| name.ip());
        // Nobody within is heard.
        if let Some(hold) = &state.hold {
            hold.associate(ip, remote);
            state.local = Some(SocketAddr::new(ip, hold.port()));
        }
        Ok(())
    }

    pub(super) fn send_toward(
        &self,
        src: &mut IoSrc<'_>,
        to: SocketAddr,
        toward: Toward,
        more: u32,
    ) -> Result<usize> {
        self.ready(&mut self.state.lock())?;
        let peer = self.peer(to, toward)?;
        let want = src.remaining();
        if want == 0 && self.network.resolver(to).is_some() {
            // No question; whoever serves it would take it for the end.
            return Ok(0);
        }
        match peer.send(src, None, more) {
            Ok(count) if count < want => Err(Errno::EMSGSIZE),
            result => result,
        }
    }

    /// What the first has that has something.
    pub(super) fn take_first(
        &self,
        peers: &[Arc<Outside>],
        dst: &mut IoDst<'_>,
        flags: u32,
    ) -> Result<Received> {
        for peer in peers {
            match self.take_outside(peer, dst, flags) {
                Err(Errno::EAGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::EAGAIN)
    }

    fn hear(&self, outside: &Outside, peek: bool) -> Result<(Vec<u8>, SocketAddr)> {
        let way = self.network.outside.as_ref().ok_or(Errno::EAGAIN)?;
        outside.receive_datagram(peek, &way.outer)
    }

    pub(super) fn take_outside(
        &self,
        outside: &Outside,
        dst: &mut IoDst<'_>,
        flags: u32,
    ) -> Result<Received> {
        let (bytes, from) = self.hear(outside, flags & MSG_PEEK != 0)?;
        let want = bytes.len().min(dst.remaining());
        let count = if want == 0 { 0 } else { dst.write_bytes(&bytes[..want])? };
        if count < want {
            return Err(Errno::EFAULT);
        }
        Ok(Received {
            count,
            full: bytes.len(),
            from: Address::Inet(shown(self.v6, from)),
            flags: if want < bytes.len() { MSG_TRUNC } else { 0 },
            ..Received::default()
        })
    }
}
