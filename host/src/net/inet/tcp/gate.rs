//! Listeners of the host, whose connections arrive at listeners of ours.
//!
//! There are two kinds: the one that a listener of ours has that can be reached at an address of the host's, and those of
//! published ports, which lead to whoever listens inside when somebody comes. Connections are taken while the listener
//! inside has room, by whoever hears of them: the poller, or the program that has just made room.

use super::{Role, State, TcpSocket, outward};
use crate::abi::{Errno, Result};
use crate::hostfd::HostFd;
use crate::hostsys::socket as host;
use crate::net::Kind;
use crate::net::Namespace;
use crate::net::inet::ports::Claim;
use crate::net::outside::{Outside, Watch, parsed, reserve};
use crate::sync::Wake;
use linux_raw_sys::general as c;
use linux_raw_sys::net as n;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// Most connections taken in one go: others have something to say, too.
const BURST: usize = 64;

/// Whom connections are for.
pub(in crate::net) enum Leads {
    /// This listener.
    To(Weak<TcpSocket>),
    /// Whoever listens at this port.
    Inside {
        /// The network.
        network: Weak<Namespace>,
        /// The port.
        port: u16,
        /// Of the two families' loopback addresses the one they are for.
        v6: bool,
    },
}

/// A listener of the host.
pub(in crate::net) struct Gate {
    fd: HostFd,
    watch: Arc<dyn Watch>,
    leads: Leads,
    /// There may be connections that were not taken for want of room.
    more: AtomicBool,
}

/// What the poller rings.
struct Bell(Weak<Gate>);

impl Wake for Bell {
    fn wake(&self) {
        if let Some(gate) = self.0.upgrade() {
            gate.take();
        }
    }
}

impl Gate {
    /// Opens a listener of the host, which listens.
    ///
    /// # Errors
    /// ENOMEM, ENOSPC.
    pub(in crate::net) fn open(fd: HostFd, watch: &Arc<dyn Watch>, leads: Leads) -> Result<Arc<Gate>> {
        let gate = Arc::new(Gate { fd, watch: watch.clone(), leads, more: AtomicBool::new(false) });
        gate.ring()?;
        Ok(gate)
    }

    /// Has the poller say, once more, whether anybody waits.
    fn ring(self: &Arc<Self>) -> Result<()> {
        self.watch.watch_edges(self.fd.raw(), Arc::new(Bell(Arc::downgrade(self))))
    }

    /// Tells the listener of the host an option.
    pub(super) fn tell(&self, level: u32, name: u32, value: &[u8]) {
        // What the host does not do is done without.
        let _ = host::set_option(&self.fd, level, name, value);
    }

    /// A listener inside has room again.
    pub(in crate::net) fn has_room(self: &Arc<Self>) {
        if self.more.load(Ordering::Acquire) {
            self.take();
        }
    }

    /// Who a connection would be for now.
    fn listener(&self) -> Option<Arc<TcpSocket>> {
        match &self.leads {
            Leads::To(listener) => listener.upgrade(),
            Leads::Inside { network, port, v6 } => {
                let network = network.upgrade()?;
                let loopback = match v6 {
                    false => IpAddr::V4(Ipv4Addr::LOCALHOST),
                    true => IpAddr::V6(Ipv6Addr::LOCALHOST),
                };
                network.tcp.listener(&network, SocketAddr::new(loopback, *port))
            }
        }
    }

    /// Takes connections while there is room for them; where nobody listens they are reset.
    fn take(self: &Arc<Self>) {
        for _ in 0..BURST {
            // Said before the room is looked at: who makes room then looks here.
            self.more.store(true, Ordering::SeqCst);
            let listener = self.listener();
            if listener.as_ref().is_some_and(|listener| listener.is_crowded()) {
                return;
            }
            self.more.store(false, Ordering::SeqCst);
            let (fd, peer) = match host::accept(&self.fd) {
                Ok(taken) => taken,
                // Who has gone meanwhile is none.
                Err(Errno::ECONNABORTED) => continue,
                Err(errno) => {
                    self.more.fetch_or(errno != Errno::EAGAIN, Ordering::SeqCst);
                    return;
                }
            };
            match (listener, parsed(&peer)) {
                (Some(listener), Some(peer)) => self.welcome(&listener, fd, peer),
                _ => reset(&fd),
            }
        }
        self.more.store(true, Ordering::SeqCst);
        // It was watched before: it can be again.
        let _ = self.ring();
    }

    /// Queues a connection to be accepted.
    fn welcome(&self, listener: &TcpSocket, fd: HostFd, peer: SocketAddr) {
        let Some(local) = host::name(&fd).ok().and_then(|raw| parsed(&raw)) else { return };
        let named = match &self.leads {
            // The host itself is not heard.
            Leads::To(_) if from_the_host(listener, local, peer) => return reset(&fd),
            Leads::To(_) => None,
            Leads::Inside { port, .. } => {
                let bound = listener.state.lock().local.map(|bound| bound.ip());
                let ip = bound.filter(|ip| !ip.is_unspecified()).unwrap_or(local.ip());
                Some(SocketAddr::new(ip, *port))
            }
        };
        let (socket, told) = listener.accepted_by(peer, named.unwrap_or(local));
        for (level, name, value) in &told {
            let _ = host::set_option(&fd, *level, *name, value);
        }
        let Ok(outside) = Outside::accepted(fd, &self.watch, &socket.core, named) else { return };
        let outside = Arc::new(outside);
        socket.state.lock().role = Role::Outside(outside.clone());
        if !listener.enqueue(&socket) {
            outside.reset();
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.watch.unwatch_edges(self.fd.raw());
    }
}

/// Closing the descriptor tells the other end that nobody is here.
fn reset(fd: &HostFd) {
    let _ = host::set_option(fd, n::SOL_SOCKET, n::SO_LINGER, &[1_i32.to_ne_bytes(), [0; 4]].concat());
}

/// Whether a connection comes from the host itself.
fn from_the_host(listener: &TcpSocket, local: SocketAddr, peer: SocketAddr) -> bool {
    peer.ip().is_loopback() || peer.ip() == local.ip() || listener.network.is_local(peer.ip())
}

impl TcpSocket {
    /// Lets those in who come from outside, if they are to reach it.
    pub(super) fn open_gate(&self, state: &mut State) -> Result<Option<Arc<Gate>>> {
        let (Some(way), Some(bound)) = (&self.network.outside, state.bound) else { return Ok(None) };
        let door = match state.door.take() {
            // It has listened before.
            None if self.network.faces_outside(bound.ip()) => {
                reserve(Kind::Stream, bound, self.only_v6(state), &state.told)?
            }
            door => door,
        };
        let Some(door) = door else { return Ok(None) };
        Gate::open(door.listen()?, &way.watch, Leads::To(self.me.clone())).map(Some)
    }

    /// Whether it has no room for another connection. One that does not listen has room: who comes is turned away.
    fn is_crowded(&self) -> bool {
        matches!(&self.state.lock().role, Role::Listening(listener) if listener.is_full())
    }

    /// A socket for a connection of the host's that it is to accept, and what its socket of the host is to be told.
    fn accepted_by(&self, peer: SocketAddr, local: SocketAddr) -> (Arc<TcpSocket>, outward::Told) {
        let state = self.state.lock();
        let (ip, tcp, told) = (state.ip.clone(), state.tcp.clone(), state.told.clone());
        let claim: Claim = self.claim(&state, local.ip());
        drop(state);
        let state =
            State { ip, tcp, told: told.clone(), local: Some(local), remote: Some(peer), ..State::default() };
        let options = *self.core.options.lock();
        let socket = TcpSocket::with(&self.network, self.v6, self.core.uid, options, state);
        let hold = self.network.tcp.share(local.port(), claim, peer, socket.me.clone());
        socket.state.lock().hold = Some(hold);
        (socket, told)
    }

    /// Queues a connection; false if it does not listen any more.
    fn enqueue(&self, socket: &Arc<TcpSocket>) -> bool {
        let mut state = self.state.lock();
        let Role::Listening(listener) = &mut state.role else { return false };
        listener.accepted.push_back(socket.clone());
        drop(state);
        self.core.wait.notify(c::POLLIN | c::POLLRDNORM);
        true
    }
}
