//! Netlink sockets (netlink(7)): what there is of the network, told in messages.
//!
//! | module | what |
//! |---|---|
//! | here | the socket: its port, its queue |
//! | `request` | messages in, answers out |
//! | `route` | rtnetlink(7): interfaces, addresses, routes |
//! | `diag` | sock_diag(7): sockets |
//! | `generic` | generic netlink's controller |
//! | `ops` | what it does as a socket |
//!
//! A request is answered when it is sent; a long answer is put together as it is read. Nobody is told of changes who does not
//! ask: groups can be joined, and stay silent.

mod diag;
mod generic;
mod ops;
mod request;
mod route;
pub(super) use route::way_to;

use super::namespace::Chunk;
use super::options::Options;
use super::{Core, Family, Kind, Making, Namespace, Pair, Peer, Socket};
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::sync::{Lock, Rank};
use linux_raw_sys::general as c;
use linux_raw_sys::net as n;
use request::Dump;
use std::collections::VecDeque;
use std::sync::Arc;

/// AF_NETLINK.
pub(super) const FAMILY: Family = Family { domain: n::AF_NETLINK as u16, make, pair };

/// NETLINK_ROUTE, NETLINK_SOCK_DIAG, NETLINK_KOBJECT_UEVENT: which says nothing, as no device comes or goes.
const ROUTE: i32 = 0;
const SOCK_DIAG: i32 = 4;
const UEVENT: i32 = 15;
/// NETLINK_GENERIC.
const GENERIC: i32 = 16;
/// Protocols have smaller numbers (MAX_LINKS).
const PROTOCOLS: i32 = 32;
/// What a message counts against SO_RCVBUF beside its bytes.
const OVERHEAD: usize = 512;

#[derive(Default)]
struct State {
    /// Its number, once it has one.
    port: Option<u32>,
    /// Groups that it wants to hear of: a bit for each.
    groups: u32,
    /// Whom it sends to that says nothing else.
    remote: Option<(u32, u32)>,
    queue: VecDeque<Chunk>,
    used: usize,
    /// An answer that is not told to its end.
    dump: Option<Dump>,
    error: Option<Errno>,
    /// Options of the level SOL_NETLINK that are on or off: a bit for each.
    switches: u32,
}

/// A netlink socket.
struct NetlinkSocket {
    core: Core,
    network: Arc<Namespace>,
    protocol: i32,
    /// Who made it may change the network.
    admin: bool,
    state: Lock<State>,
}

fn make(making: &Making<'_>) -> Result<Arc<dyn Socket>> {
    let kind = match making.kind {
        n::SOCK_RAW => Kind::Raw,
        n::SOCK_DGRAM => Kind::Datagram,
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    if !(0..PROTOCOLS).contains(&making.protocol)
        || !matches!(making.protocol, ROUTE | SOCK_DIAG | UEVENT | GENERIC)
    {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let cred = making.by.cred;
    let core =
        Core::new(kind, n::AF_NETLINK as u16, making.protocol as u16, cred.uid.effective, Options::default());
    Ok(Arc::new(NetlinkSocket {
        core,
        network: making.network.clone(),
        protocol: making.protocol,
        admin: cred.has_in(&making.network.owner, Caps::NET_ADMIN),
        state: Lock::new(Rank::Netlink, State::default()),
    }))
}

fn pair(making: &Making<'_>, _: Peer) -> Result<Pair> {
    make(making).and(Err(Errno::EOPNOTSUPP))
}

impl NetlinkSocket {
    /// Takes the number `wanted`, or one that is free: the process's, if it can be had.
    fn take_port(&self, state: &mut State, wanted: u32, process: i32) -> Result<()> {
        let mut ports = self.network.netlink.lock();
        let protocol = self.protocol as u16;
        let mut port = if wanted == 0 { process as u32 } else { wanted };
        while !ports.insert((protocol, port)) {
            if wanted != 0 {
                return Err(Errno::EADDRINUSE);
            }
            // Such numbers are no process's.
            port = (self.network.random.word() as u32) | 1 << 31;
        }
        state.port = Some(port);
        Ok(())
    }

    /// Queues an answer, if there is room.
    fn queue(&self, state: &mut State, bytes: Vec<u8>) {
        let limit = self.core.options.lock().receive_buffer as usize;
        if state.used > limit || self.network.memory.is_spent() {
            state.error = Some(Errno::ENOBUFS);
            return;
        }
        state.used += bytes.len() + OVERHEAD;
        state.queue.push_back(self.network.memory.copy_of(&bytes));
    }

    /// The next message to be read, if there is one; an answer goes on.
    fn refill(&self, state: &mut State) {
        if state.queue.is_empty()
            && let Some(mut dump) = state.dump.take()
        {
            let (bytes, over) = dump.next();
            if !over {
                state.dump = Some(dump);
            }
            self.queue(state, bytes);
        }
    }

    fn notify(&self) {
        self.core.wait.notify(c::POLLIN | c::POLLRDNORM | c::POLLERR);
    }

    fn forget(&self) {
        let mut state = self.state.lock();
        let (port, queue) = (state.port.take(), std::mem::take(&mut state.queue));
        (state.used, state.dump) = (0, None);
        drop(state);
        drop(queue);
        if let Some(port) = port {
            self.network.netlink.lock().remove(&(self.protocol as u16, port));
        }
    }
}

impl Drop for NetlinkSocket {
    fn drop(&mut self) {
        self.forget();
    }
}
