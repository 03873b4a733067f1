//! What is not local, by sockets of the host: a socket that sends there has two, and hears both.

use super::{State, UdpSocket, Window};
use crate::abi::{Errno, Result};
use crate::mm::{IoDst, IoSrc};
use crate::net::inet::endpoint::{shown, unspecified};
use crate::net::message::{MSG_PEEK, MSG_TRUNC};
use crate::net::outside::Outside;
use crate::net::{Address, Received};
use crate::sync::LockGuard;
use linux_raw_sys::net as n;
use std::net::SocketAddr;
use std::sync::Arc;

/// Switches that mean something to a socket of the host.
const TOLD: [u32; 3] = [n::SO_REUSEADDR, n::SO_REUSEPORT, n::SO_BROADCAST];

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

    /// Tells the socket of the host what was set.
    pub(super) fn tell_outside(&self, name: u32) {
        let Some(outside) = self.state.lock().outside.clone() else { return };
        let off = TOLD.contains(&name).then(|| (n::SOL_SOCKET, name, vec![0; 4]));
        let told = self.told().into_iter().find(|told| told.1 == name).or(off);
        if let Some((level, name, value)) = told {
            // What the host does not do is done without.
            let _ = outside.set_option(level, name, &value);
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
        for (level, name, value) in self.told() {
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
