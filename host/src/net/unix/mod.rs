//! Unix-domain sockets (unix(7)).
//!
//! A socket's queue holds what was sent to it; sending locks the receiver only, and charges the sender ([`charge`]).
//! Peers know each other weakly: when the last descriptor of one goes, the other is told.
//!
//! | module | what |
//! |---|---|
//! | here | the socket, its names and options |
//! | `connect` | listen, connect, accept, shutdown, and the end |
//! | `send`, `receive` | messages on their way |
//! | [`charge`] | how much may be on its way |
//! | `ops` | what an open socket does as a file |
//!
//! Lock order: never two sockets at once. Messages are dropped without a lock: they hold files, and tell their sender.

mod charge;
mod connect;
mod ops;
mod receive;
mod send;

pub use charge::BUFFER;
pub use receive::Received;
pub use send::Extra;

use crate::abi::{Errno, Result};
use crate::sync::{Lock, WaitQueue};
use crate::vfs::File;
use linux_raw_sys::general as c;
use send::Message;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

const IN: u32 = c::POLLIN | c::POLLRDNORM;
const OUT: u32 = c::POLLOUT | c::POLLWRNORM | c::POLLWRBAND;

static NEXT_INO: AtomicU64 = AtomicU64::new(1 << 20);

/// `sun_path`: a name, or a zero byte and an abstract name.
pub type Name = Arc<[u8]>;

/// How messages keep together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes.
    Stream,
    /// Messages between any two sockets.
    Datagram,
    /// Messages between two connected sockets.
    SeqPacket,
}

/// Process, user and group of a sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Creds {
    /// Process.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

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
    peer_creds: Option<Creds>,
    queue: VecDeque<Message>,
    /// Senders of datagrams who found the queue full.
    stalled: Vec<Weak<UnixSocket>>,
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

/// Options that setsockopt(2) sets and this module does not look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// SO_PASSCRED.
    pub pass_creds: bool,
    /// SO_RCVTIMEO, ns; 0 for none.
    pub receive_timeout: u64,
    /// SO_SNDTIMEO, ns; 0 for none.
    pub send_timeout: u64,
    /// SO_RCVBUF. Nothing depends on it: senders pay.
    pub receive_buffer: u32,
    /// SO_PRIORITY.
    pub priority: i32,
    /// SO_MARK.
    pub mark: i32,
    /// SO_LINGER: whether, and seconds. Closing never waits here.
    pub linger: (bool, i32),
    /// Options that are on or off and mean something to other families only: a bit for each number.
    pub switches: u64,
}

/// A socket.
pub struct UnixSocket {
    me: Weak<UnixSocket>,
    /// How messages keep together.
    pub kind: Kind,
    ino: u64,
    state: Lock<State>,
    wait: WaitQueue,
    /// What was sent and has not been received, as [`charge`] counts.
    sent: AtomicU32,
    /// SO_SNDBUF.
    send_buffer: AtomicU32,
    /// Socket options.
    pub options: Lock<Options>,
}

impl UnixSocket {
    /// An unconnected socket.
    pub fn new(kind: Kind) -> Arc<UnixSocket> {
        Arc::new_cyclic(|me| UnixSocket {
            me: me.clone(),
            kind,
            ino: NEXT_INO.fetch_add(1, Ordering::Relaxed),
            state: Lock::default(),
            wait: WaitQueue::new(),
            sent: AtomicU32::new(0),
            send_buffer: AtomicU32::new(BUFFER),
            options: Lock::new(Options { receive_buffer: BUFFER, ..Options::default() }),
        })
    }

    /// An open file for it.
    pub fn file(self: Arc<Self>, flags: u32) -> Arc<File> {
        File::anon(self, c::O_RDWR | flags & c::O_NONBLOCK)
    }

    /// Two sockets connected to each other.
    pub fn pair(kind: Kind, creds: Creds) -> (Arc<UnixSocket>, Arc<UnixSocket>) {
        let (a, b) = (Self::new(kind), Self::new(kind));
        for (one, other) in [(&a, &b), (&b, &a)] {
            let mut state = one.state.lock();
            state.role = Role::Connected { peer: Arc::downgrade(other) };
            state.peer_creds = Some(creds);
        }
        (a, b)
    }

    /// A reference to itself.
    ///
    /// # Errors
    /// EBADF while it is being closed.
    pub fn arc(&self) -> Result<Arc<UnixSocket>> {
        self.me.upgrade().ok_or(Errno::EBADF)
    }

    /// Gives it a name.
    ///
    /// # Errors
    /// EINVAL if it has one.
    pub fn set_name(&self, name: &[u8]) -> Result<()> {
        let mut state = self.state.lock();
        if state.name.is_some() {
            return Err(Errno::EINVAL);
        }
        state.name = Some(name.into());
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> Option<Name> {
        self.state.lock().name.clone()
    }

    /// The peer's name.
    ///
    /// # Errors
    /// ENOTCONN.
    pub fn peer_name(&self) -> Result<Option<Name>> {
        let state = self.state.lock();
        let Role::Connected { peer } = &state.role else { return Err(Errno::ENOTCONN) };
        let (peer, known) = (peer.upgrade(), state.peer_name.clone());
        drop(state);
        // It may have got one since.
        Ok(known.or_else(|| peer.and_then(|peer| peer.name())))
    }

    /// Who connected, or was connected to; of a listener, who listens. Datagrams' connections have nobody.
    pub fn peer_creds(&self) -> Option<Creds> {
        self.state.lock().peer_creds
    }

    /// Whether it has a peer, or had one.
    pub fn is_connected(&self) -> bool {
        matches!(self.state.lock().role, Role::Connected { .. })
    }

    /// Whether it accepts connections.
    pub fn is_listening(&self) -> bool {
        matches!(self.state.lock().role, Role::Listening { .. })
    }

    /// The pending error, taken (SO_ERROR).
    pub fn take_error(&self) -> Option<Errno> {
        self.state.lock().error.take()
    }

    /// What is notified when anything about it changes; who waits for room to send waits here, too.
    pub fn queue(&self) -> &WaitQueue {
        &self.wait
    }
}

/// Lets senders try again.
fn wake(stalled: Vec<Weak<UnixSocket>>) {
    for sender in stalled.iter().filter_map(Weak::upgrade) {
        sender.wait.notify(OUT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::IoSrc;
    use crate::vfs::FileOps;

    pub(super) fn send(socket: &UnixSocket, bytes: &[u8]) -> Result<usize> {
        socket.send(&mut IoSrc::kernel(bytes), None, &mut Extra::default())
    }

    pub(super) fn writable(socket: &UnixSocket) -> bool {
        socket.poll() & c::POLLOUT != 0
    }
}
