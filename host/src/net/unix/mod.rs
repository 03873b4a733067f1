//! Unix-domain sockets (unix(7)).
//!
//! A socket's queue holds what was sent to it; sending locks the receiver only, and charges the sender ([`charge`]).
//! Peers know each other weakly: when the last descriptor of one goes, the other is told.
//!
//! | module | what |
//! |---|---|
//! | here | the socket, its names and options |
//! | `connect` | listen, connect, accept, shutdown, and the end |
//! | `names` | names in the file system, and abstract ones |
//! | `send`, `receive` | messages on their way |
//! | `urgent` | what was sent with MSG_OOB |
//! | [`charge`] | how much may be on its way |
//! | `ops` | what an open socket does as a file |
//! | [`tables`] | which there are |
//!
//! Lock order: never two sockets at once, but for a listener and the socket that it is given, which nobody else knows
//! of. Messages are dropped without a lock: they hold files, and tell their sender.

mod charge;
mod connect;
mod names;
mod ops;
mod receive;
mod send;
pub mod tables;
mod urgent;

use crate::abi::{Errno, Result};
use crate::net::options::{BUFFER, Options};
use crate::net::waiters::Waiters;
use crate::net::{Core, Family, Kind, Making, Namespace, Pair, Peer, Socket};
use crate::sync::{Lock, Rank};
use crate::vfs::{Flight, Inode};
use linux_raw_sys::general as c;
use linux_raw_sys::net as n;
use send::Message;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, OnceLock, Weak};

const IN: u32 = c::POLLIN | c::POLLRDNORM;
const OUT: u32 = c::POLLOUT | c::POLLWRNORM | c::POLLWRBAND;

/// Something was shut down, which wakes everybody; alone it is what the owner of the socket has done itself.
const SHUT: u32 = c::POLLHUP | c::POLLRDHUP | c::POLLERR | OUT;

/// AF_UNIX.
const DOMAIN: u16 = n::AF_UNIX as u16;

/// Unix-domain sockets.
pub(super) const FAMILY: Family = Family { domain: DOMAIN, make, pair };

fn make_one(making: &Making<'_>) -> Result<Arc<UnixSocket>> {
    if making.protocol != 0 && making.protocol != i32::from(DOMAIN) {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let kind = match making.kind {
        n::SOCK_STREAM => Kind::Stream,
        // SOCK_RAW is SOCK_DGRAM for Unix sockets (unix(7)).
        n::SOCK_DGRAM | n::SOCK_RAW => Kind::Datagram,
        n::SOCK_SEQPACKET => Kind::SeqPacket,
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    Ok(UnixSocket::new(kind, making.by.cred.uid.effective, making.flight, making.network))
}

fn make(making: &Making<'_>) -> Result<Arc<dyn Socket>> {
    Ok(make_one(making)?)
}

fn pair(making: &Making<'_>, peer: Peer) -> Result<Pair> {
    let (a, b) = (make_one(making)?, make_one(making)?);
    UnixSocket::connect_pair(&a, &b, &peer);
    Ok((a, b))
}

/// `sun_path`: a name, or a zero byte and an abstract name.
pub type Name = Arc<[u8]>;

#[derive(Default)]
enum Role {
    #[default]
    Fresh,
    Listening {
        backlog: usize,
        pending: VecDeque<Arc<UnixSocket>>,
    },
    /// Also when the peer has gone: then both directions are shut, but for datagrams.
    Connected {
        peer: Weak<UnixSocket>,
    },
}

#[derive(Default)]
struct State {
    role: Role,
    name: Option<Name>,
    peer_name: Option<Name>,
    /// Who connected, or was connected to; of a listener, who listens (SO_PEERCRED).
    peer_creds: Option<Peer>,
    queue: VecDeque<Message>,
    /// The urgent byte that was sent last, until it was received: its number ([`Message::urgent`]).
    urgent: Option<u64>,
    /// How many there were.
    urgencies: u64,
    /// Senders of datagrams who found the queue full.
    stalled: Stalled,
    read_shut: bool,
    write_shut: bool,
    /// Waits to be accepted.
    pending: bool,
    error: Option<Errno>,
}

impl State {
    /// Whether it is connected to `other`.
    fn is_peer(&self, other: &UnixSocket) -> bool {
        matches!(&self.role, Role::Connected { peer } if std::ptr::eq(peer.as_ptr(), other))
    }

    /// Whether `sender` may send datagrams to it, or connect: a connected socket hears its peer only.
    fn hears(&self, sender: &UnixSocket) -> bool {
        !matches!(self.role, Role::Connected { .. }) || self.is_peer(sender)
    }
}

/// A socket.
pub struct UnixSocket {
    me: Weak<UnixSocket>,
    core: Core,
    /// What is on its way to any socket of the sandbox.
    flight: Arc<Flight>,
    /// Whose abstract names it can have and find.
    network: Arc<Namespace>,
    state: Lock<State>,
    /// The inode that has its name, where that is a file's.
    place: OnceLock<Arc<dyn Inode>>,
    /// What was sent and has not been received, as [`charge`] counts.
    sent: AtomicU32,
    /// SO_SNDBUF.
    send_buffer: AtomicU32,
    /// Somebody has found no room to send.
    no_space: AtomicBool,
    /// SO_PASSCRED: it is told who sent.
    pass_creds: AtomicBool,
}

impl UnixSocket {
    /// An unconnected socket.
    fn new(kind: Kind, uid: u32, flight: &Arc<Flight>, network: &Arc<Namespace>) -> Arc<UnixSocket> {
        let socket = Arc::new_cyclic(|me| UnixSocket {
            me: me.clone(),
            core: Core::new(kind, DOMAIN, 0, uid, Options::default()),
            flight: flight.clone(),
            network: network.clone(),
            state: Lock::new(Rank::UnixSocket, State::default()),
            place: OnceLock::new(),
            sent: AtomicU32::new(0),
            send_buffer: AtomicU32::new(BUFFER),
            no_space: AtomicBool::new(false),
            pass_creds: AtomicBool::new(false),
        });
        network.unix.add(socket.core.ino, &socket.me);
        socket
    }

    /// Connects two sockets with each other.
    fn connect_pair(a: &Arc<UnixSocket>, b: &Arc<UnixSocket>, creds: &Peer) {
        for (one, other) in [(a, b), (b, a)] {
            let mut state = one.state.lock();
            state.role = Role::Connected { peer: Arc::downgrade(other) };
            state.peer_creds = Some(creds.clone());
        }
    }

    /// A reference to itself.
    ///
    /// # Errors
    /// EBADF while it is being closed.
    fn arc(&self) -> Result<Arc<UnixSocket>> {
        self.me.upgrade().ok_or(Errno::EBADF)
    }

    /// Gives it a name.
    ///
    /// # Errors
    /// EINVAL if it has one.
    fn set_name(&self, name: &[u8]) -> Result<()> {
        let mut state = self.state.lock();
        if state.name.is_some() {
            return Err(Errno::EINVAL);
        }
        state.name = Some(name.into());
        Ok(())
    }

    /// Its name.
    fn known_name(&self) -> Option<Name> {
        self.state.lock().name.clone()
    }

    /// The peer's name.
    ///
    /// # Errors
    /// ENOTCONN.
    fn known_peer_name(&self) -> Result<Option<Name>> {
        let state = self.state.lock();
        let Role::Connected { peer } = &state.role else { return Err(Errno::ENOTCONN) };
        let (peer, known) = (peer.upgrade(), state.peer_name.clone());
        drop(state);
        // It may have got one since.
        Ok(known.or_else(|| peer.and_then(|peer| peer.known_name())))
    }
}

/// Senders that wait for room.
type Stalled = Waiters<UnixSocket>;

/// Lets senders try again.
fn wake(stalled: &Stalled) {
    for sender in stalled.iter() {
        sender.core.wait.notify(OUT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::IoSrc;
    use crate::net::Outgoing;

    pub(super) fn fresh(kind: Kind) -> Arc<UnixSocket> {
        UnixSocket::new(kind, 0, &Arc::default(), &Namespace::new(None))
    }

    pub(super) fn pair(kind: Kind) -> (Arc<UnixSocket>, Arc<UnixSocket>) {
        let (a, b) = (fresh(kind), fresh(kind));
        UnixSocket::connect_pair(&a, &b, &Peer::default());
        (a, b)
    }

    pub(super) fn send(socket: &UnixSocket, bytes: &[u8]) -> Result<usize> {
        socket.send_to(&mut IoSrc::kernel(bytes), None, &mut Outgoing::default())
    }

    pub(super) fn writable(socket: &UnixSocket) -> bool {
        socket.poll() & c::POLLOUT != 0
    }
}
