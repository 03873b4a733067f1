//! Pings of what is not local, by ping sockets of the host: one for each identifier that a socket of ours uses. The host has
//! an identifier of its own for each, so what comes back is given ours.

use super::message::{self, Meaning};
use super::{Datagram, IcmpSocket};
use crate::abi::{Errno, Result};
use crate::hostsys::socket as host;
use crate::net::outside::{Outside, domain};
use linux_raw_sys::net as n;
use std::net::SocketAddr;
use std::sync::Arc;

/// Most sockets of the host that one of ours has: the oldest goes.
const MOST: usize = 8;
/// Most messages that are fetched at a time.
const AT_ONCE: usize = 16;

impl IcmpSocket {
    /// Sends a request to somebody outside.
    ///
    /// # Errors
    /// EACCES: rules say whom programs may talk to, and know no pings; the host does not let us ping (ping_group_range); or
    /// it is no request. ENETUNREACH, and the host's others.
    pub(super) fn send_outside(&self, message: &[u8], to: SocketAddr) -> Result<()> {
        if self.network.is_walled() || message::meaning(self.v6, message) != Meaning::Request {
            return Err(Errno::EACCES);
        }
        Outside::may_send(to)?;
        let way = self.way(message::ident(message), to)?;
        way.send_bytes(message, to).map(drop)
    }

    fn way(&self, ident: u16, to: SocketAddr) -> Result<Arc<Outside>> {
        if let Some((_, known)) = self.state.lock().outside.iter().find(|(known, _)| *known == ident) {
            return Ok(known.clone());
        }
        let Some(way) = &self.network.outside else { return Err(Errno::ENETUNREACH) };
        let fd = host::socket(domain(to), n::SOCK_DGRAM, self.core.protocol.into())?;
        let outside = Arc::new(Outside::unwatched(fd, &way.watch, self.v6));
        outside.hear_hops();
        outside.ring(self.core.clone())?;
        let mut state = self.state.lock();
        let gone = (state.outside.len() >= MOST).then(|| state.outside.remove(0));
        state.outside.push((ident, outside.clone()));
        drop(state);
        drop(gone);
        Ok(outside)
    }

    /// All sockets of the host that it has.
    pub(super) fn ways(&self) -> Vec<(u16, Arc<Outside>)> {
        self.state.lock().outside.clone()
    }

    /// Takes in what has come from outside.
    ///
    /// # Errors
    /// What the host has to say of what was sent, if nothing has come.
    pub(super) fn fetch(&self) -> Result<()> {
        for (ident, way) in self.ways() {
            for _ in 0..AT_ONCE {
                let (mut bytes, from, hops) = match way.receive_hops() {
                    Ok(got) => got,
                    Err(Errno::EAGAIN) => break,
                    Err(errno) if self.state.lock().queue.is_empty() => return Err(errno),
                    Err(_) => break,
                };
                if message::meaning(self.v6, &bytes) == Meaning::Other {
                    continue;
                }
                let to = self.local(&self.state.lock()).ip();
                message::set_ident(&mut bytes, ident);
                message::set_checksum(&mut bytes, from.ip(), to);
                self.take_in(bytes, from, to, hops);
            }
        }
        Ok(())
    }

    fn take_in(&self, bytes: Vec<u8>, from: SocketAddr, to: std::net::IpAddr, hops: u8) {
        let mut from = from;
        from.set_port(0);
        let counted = self.network.memory.copy_of(&bytes);
        let time = crate::time::realtime_ns();
        let packet = Datagram { bytes: counted, from, to, tos: 0, ttl: hops, time };
        self.queue(&packet);
    }
}
