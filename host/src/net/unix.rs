//! Unix-domain sockets (unix(7)).
//!
//! A socket's queue holds what was sent to it; sending locks the receiver only. Peers know each other weakly: when
//! the last descriptor of one goes, the other is told.
//!
//! Lock order: never two sockets at once.

use crate::abi::{Errno, Result};
use crate::mm::{IoDst, IoSrc};
use crate::sync::{Lock, WaitQueue};
use crate::vfs::{File, FileOps, Ioctl, Stat, makedev};
use linux_raw_sys::general as c;
use linux_raw_sys::ioctl as i;
use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Bytes that may wait in a socket's queue (net.core.wmem_default).
const BUFFER: usize = 212_992;
/// `st_dev` of sockets.
const SOCK_DEV: u64 = makedev(0, 8);
const IN: u32 = c::POLLIN | c::POLLRDNORM;
const OUT: u32 = c::POLLOUT | c::POLLWRNORM;

static NEXT_INO: AtomicU64 = AtomicU64::new(1 << 20);

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

/// Bytes on their way, and what goes with them.
struct Message {
    bytes: Vec<u8>,
    /// Bytes already read (streams).
    read: usize,
    from: Option<Vec<u8>>,
    creds: Creds,
    files: Vec<Arc<File>>,
}

/// What a read returned.
#[derive(Default)]
pub struct Received {
    /// Bytes copied.
    pub count: usize,
    /// Bytes the message had.
    pub full: usize,
    /// The sender's address.
    pub from: Option<Vec<u8>>,
    /// The sender.
    pub creds: Creds,
    /// Files that came with it.
    pub files: Vec<Arc<File>>,
}

/// What is sent along.
#[derive(Default, Clone)]
pub struct Extra {
    /// The sender.
    pub creds: Creds,
    /// Files.
    pub files: Vec<Arc<File>>,
}

#[derive(Default)]
enum Role {
    #[default]
    Fresh,
    Listening {
        backlog: usize,
        pending: VecDeque<Arc<UnixSocket>>,
    },
    Connected {
        peer: Weak<UnixSocket>,
        creds: Creds,
    },
    /// The peer went away.
    Orphaned {
        creds: Creds,
    },
}

#[derive(Default)]
struct State {
    role: Role,
    /// `sun_path`: a name, or a zero byte and an abstract name.
    name: Option<Vec<u8>>,
    peer_name: Option<Vec<u8>>,
    queue: VecDeque<Message>,
    waiting: usize,
    read_shut: bool,
    write_shut: bool,
    error: Option<Errno>,
    owner: Creds,
}

/// Options that setsockopt(2) sets and nothing else depends on.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// SO_PASSCRED.
    pub pass_creds: bool,
    /// SO_RCVTIMEO, ns; 0 for none.
    pub receive_timeout: u64,
    /// SO_SNDTIMEO, ns; 0 for none.
    pub send_timeout: u64,
    /// SO_SNDBUF.
    pub send_buffer: u32,
    /// SO_RCVBUF.
    pub receive_buffer: u32,
}

/// A socket.
pub struct UnixSocket {
    me: Weak<UnixSocket>,
    /// How messages keep together.
    pub kind: Kind,
    ino: u64,
    state: Lock<State>,
    wait: WaitQueue,
    /// Socket options.
    pub options: Lock<Options>,
}

impl UnixSocket {
    /// An unconnected socket.
    pub fn new(kind: Kind) -> Arc<UnixSocket> {
        let buffer = BUFFER as u32;
        Arc::new_cyclic(|me| UnixSocket {
            me: me.clone(),
            kind,
            ino: NEXT_INO.fetch_add(1, Ordering::Relaxed),
            state: Lock::default(),
            wait: WaitQueue::new(),
            options: Lock::new(Options {
                pass_creds: false,
                receive_timeout: 0,
                send_timeout: 0,
                send_buffer: buffer,
                receive_buffer: buffer,
            }),
        })
    }

    /// An open file for it.
    pub fn file(self: Arc<Self>, flags: u32) -> Arc<File> {
        File::anon(self, c::O_RDWR | flags & c::O_NONBLOCK)
    }

    /// Two sockets connected to each other.
    pub fn pair(kind: Kind, creds: Creds) -> (Arc<UnixSocket>, Arc<UnixSocket>) {
        let (a, b) = (Self::new(kind), Self::new(kind));
        a.state.lock().role = Role::Connected { peer: Arc::downgrade(&b), creds };
        b.state.lock().role = Role::Connected { peer: Arc::downgrade(&a), creds };
        (a, b)
    }

    /// A reference to itself.
    ///
    /// # Errors
    /// EBADF while it is being closed.
    pub fn arc(&self) -> Result<Arc<UnixSocket>> {
        self.me.upgrade().ok_or(Errno::EBADF)
    }

    /// Notes who listens: what those who connect see as their peer.
    pub fn set_owner(&self, creds: Creds) {
        self.state.lock().owner = creds;
    }

    /// Who listens.
    pub fn owner(&self) -> Creds {
        self.state.lock().owner
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
        state.name = Some(name.to_vec());
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> Option<Vec<u8>> {
        self.state.lock().name.clone()
    }

    /// The peer's name.
    ///
    /// # Errors
    /// ENOTCONN.
    pub fn peer_name(&self) -> Result<Option<Vec<u8>>> {
        let state = self.state.lock();
        match &state.role {
            Role::Connected { peer, .. } => {
                let (peer, known) = (peer.upgrade(), state.peer_name.clone());
                drop(state);
                Ok(known.or_else(|| peer.and_then(|peer| peer.name())))
            }
            _ => Err(Errno::ENOTCONN),
        }
    }

    /// Who connected, or was connected to.
    pub fn peer_creds(&self) -> Option<Creds> {
        match &self.state.lock().role {
            Role::Connected { creds, .. } | Role::Orphaned { creds } => Some(*creds),
            _ => None,
        }
    }

    /// Starts accepting connections.
    ///
    /// # Errors
    /// EOPNOTSUPP for datagrams, EINVAL without a name.
    pub fn listen(&self, backlog: i32) -> Result<()> {
        if self.kind == Kind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock();
        if state.name.is_none() {
            return Err(Errno::EINVAL);
        }
        let limit = backlog.clamp(0, 4096) as usize;
        match &mut state.role {
            Role::Listening { backlog, .. } => *backlog = limit,
            Role::Fresh => state.role = Role::Listening { backlog: limit, pending: VecDeque::new() },
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    /// Whether it accepts connections.
    pub fn is_listening(&self) -> bool {
        matches!(self.state.lock().role, Role::Listening { .. })
    }

    /// Takes a waiting connection.
    ///
    /// # Errors
    /// EAGAIN, EINVAL if not listening.
    pub fn accept(&self) -> Result<Arc<UnixSocket>> {
        let mut state = self.state.lock();
        let shut = state.read_shut;
        let Role::Listening { pending, .. } = &mut state.role else { return Err(Errno::EINVAL) };
        let taken = pending.pop_front();
        drop(state);
        match taken {
            Some(socket) => {
                self.wait.notify(OUT);
                Ok(socket)
            }
            None if shut => Err(Errno::EINVAL),
            None => Err(Errno::EAGAIN),
        }
    }

    /// Connects to `target`; `mine` and what `target` recorded are what SO_PEERCRED shows.
    ///
    /// # Errors
    /// ECONNREFUSED, EPROTOTYPE, EISCONN, EAGAIN while the target's backlog is full.
    pub fn connect(&self, target: &Arc<UnixSocket>, mine: Creds, listener: Creds) -> Result<()> {
        if target.kind != self.kind {
            return Err(Errno::EPROTOTYPE);
        }
        if self.kind == Kind::Datagram {
            let peer_name = target.name();
            let mut state = self.state.lock();
            state.role = Role::Connected { peer: Arc::downgrade(target), creds: listener };
            state.peer_name = peer_name;
            return Ok(());
        }
        match self.state.lock().role {
            Role::Fresh => {}
            Role::Listening { .. } => return Err(Errno::EINVAL),
            _ => return Err(Errno::EISCONN),
        }
        let Some(me) = self.me.upgrade() else { return Err(Errno::EINVAL) };
        let server = UnixSocket::new(self.kind);
        let own_name = self.name();
        let name = {
            let mut state = target.state.lock();
            let name = state.name.clone();
            if state.read_shut {
                return Err(Errno::ECONNREFUSED);
            }
            let Role::Listening { backlog, pending } = &mut state.role else {
                return Err(Errno::ECONNREFUSED);
            };
            if pending.len() > *backlog {
                return Err(Errno::EAGAIN);
            }
            {
                // Only now: a peer that is dropped tells the other side, which must not hear of a refusal.
                let mut state = server.state.lock();
                state.role = Role::Connected { peer: Arc::downgrade(&me), creds: mine };
                state.peer_name = own_name;
                state.name = name.clone();
            }
            pending.push_back(server.clone());
            name
        };
        {
            let mut state = self.state.lock();
            state.role = Role::Connected { peer: Arc::downgrade(&server), creds: listener };
            state.peer_name = name;
        }
        target.wait.notify(IN);
        self.wait.notify(OUT);
        Ok(())
    }

    /// Dissolves a datagram socket's association (AF_UNSPEC).
    pub fn disconnect(&self) {
        let mut state = self.state.lock();
        state.role = Role::Fresh;
        state.peer_name = None;
    }

    /// shutdown(2).
    ///
    /// # Errors
    /// ENOTCONN.
    pub fn shutdown(&self, read: bool, write: bool) -> Result<()> {
        let peer = {
            let mut state = self.state.lock();
            let peer = match &state.role {
                Role::Connected { peer, .. } => peer.upgrade(),
                Role::Orphaned { .. } | Role::Listening { .. } => None,
                Role::Fresh => return Err(Errno::ENOTCONN),
            };
            state.read_shut |= read;
            state.write_shut |= write;
            peer
        };
        self.wait.notify(!0);
        if let Some(peer) = peer
            && self.kind != Kind::Datagram
        {
            let mut state = peer.state.lock();
            state.read_shut |= write;
            state.write_shut |= read;
            drop(state);
            peer.wait.notify(!0);
        }
        Ok(())
    }

    /// The pending error, taken (SO_ERROR).
    pub fn take_error(&self) -> Option<Errno> {
        self.state.lock().error.take()
    }

    /// Where a message without an address goes.
    fn peer(&self) -> Result<Arc<UnixSocket>> {
        let state = self.state.lock();
        if let Some(errno) = state.error
            && self.kind != Kind::Datagram
        {
            let _ = errno;
            return Err(Errno::EPIPE);
        }
        if state.write_shut {
            return Err(Errno::EPIPE);
        }
        match &state.role {
            Role::Connected { peer, .. } => peer.upgrade().ok_or(if self.kind == Kind::Datagram {
                Errno::ECONNREFUSED
            } else {
                Errno::EPIPE
            }),
            Role::Orphaned { .. } if self.kind == Kind::Datagram => Err(Errno::ECONNREFUSED),
            Role::Orphaned { .. } => Err(Errno::EPIPE),
            Role::Fresh | Role::Listening { .. } => Err(Errno::ENOTCONN),
        }
    }

    /// Sends to `to`, or to the peer. Streams send what fits; messages go whole.
    ///
    /// # Errors
    /// EAGAIN, EPIPE, ENOTCONN, EMSGSIZE, ECONNREFUSED.
    pub fn send(&self, src: &mut IoSrc<'_>, to: Option<&Arc<UnixSocket>>, extra: &Extra) -> Result<usize> {
        let target = match to {
            Some(target) => target.clone(),
            None => self.peer()?,
        };
        if target.kind != self.kind {
            return Err(Errno::EPROTOTYPE);
        }
        let from = self.name();
        let want = src.remaining();
        if self.kind != Kind::Stream && want > BUFFER {
            return Err(Errno::EMSGSIZE);
        }
        let mut guard = target.state.lock();
        let state = &mut *guard;
        if state.read_shut {
            return Err(Errno::EPIPE);
        }
        let room = BUFFER.saturating_sub(state.waiting);
        let len = if self.kind == Kind::Stream {
            if want == 0 && extra.files.is_empty() {
                return Ok(0);
            }
            if room == 0 {
                return Err(Errno::EAGAIN);
            }
            want.min(room)
        } else {
            // A message goes whole, if need be over the limit as the first of its kind.
            if state.waiting > 0 && room < want.max(1) {
                return Err(Errno::EAGAIN);
            }
            want
        };
        let plain = self.kind == Kind::Stream && extra.files.is_empty();
        if plain
            && let Some(last) = state.queue.back_mut()
            && last.creds == extra.creds
            && last.files.is_empty()
            && last.bytes.len() + len <= 65536
        {
            let old = last.bytes.len();
            last.bytes.resize(old + len, 0);
            let got = src.read_bytes(&mut last.bytes[old..]);
            last.bytes.truncate(old + got.unwrap_or(0));
            let got = got?;
            state.waiting += got;
            drop(guard);
            target.wait.notify(IN);
            return Ok(got);
        }
        let mut bytes = vec![0; len];
        let got = if len == 0 { 0 } else { src.read_bytes(&mut bytes)? };
        if got < len && self.kind != Kind::Stream {
            return Err(Errno::EFAULT);
        }
        bytes.truncate(got);
        // Empty messages count for something, or they could pile up without end.
        state.waiting += got.max(usize::from(self.kind != Kind::Stream));
        state.queue.push_back(Message {
            bytes,
            read: 0,
            from,
            creds: extra.creds,
            files: extra.files.clone(),
        });
        drop(guard);
        target.wait.notify(IN);
        Ok(got)
    }

    /// Receives. With `peek` everything stays.
    ///
    /// # Errors
    /// EAGAIN, ENOTCONN, ECONNRESET.
    pub fn receive(&self, dst: &mut IoDst<'_>, peek: bool) -> Result<Received> {
        let mut received = Received::default();
        let pass_creds = self.options.lock().pass_creds;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if self.kind != Kind::Datagram && matches!(state.role, Role::Fresh | Role::Listening { .. }) {
            return Err(if self.kind == Kind::Stream { Errno::EINVAL } else { Errno::ENOTCONN });
        }
        if state.queue.is_empty() {
            if let Some(errno) = state.error.take() {
                return Err(errno);
            }
            let ended = state.read_shut || matches!(state.role, Role::Orphaned { .. });
            return if ended && (self.kind != Kind::Datagram || state.read_shut) {
                Ok(received)
            } else {
                Err(Errno::EAGAIN)
            };
        }
        let mut index = 0;
        let mut freed = 0;
        while let Some(message) = state.queue.get_mut(index) {
            let first = index == 0 && received.count == 0;
            // A read ends where files come along, or where the sender changes and the reader wants to know it.
            if !first && (!message.files.is_empty() || (pass_creds && message.creds != received.creds)) {
                break;
            }
            let rest = &message.bytes[message.read..];
            let want = rest.len().min(dst.remaining());
            let got = if want == 0 { 0 } else { dst.write_bytes(&rest[..want])? };
            if first {
                received.from = message.from.clone();
                received.creds = message.creds;
                received.full = rest.len();
                received.files =
                    if peek { message.files.clone() } else { std::mem::take(&mut message.files) };
            }
            received.count += got;
            let had_files = !received.files.is_empty();
            if self.kind != Kind::Stream {
                if !peek {
                    freed += message.bytes.len().max(1);
                    state.queue.pop_front();
                }
                break;
            }
            let emptied = got == rest.len();
            if peek {
                index += 1;
            } else {
                message.read += got;
                freed += got;
                if emptied {
                    state.queue.pop_front();
                }
            }
            if !emptied || dst.remaining() == 0 || had_files {
                break;
            }
        }
        state.waiting = state.waiting.saturating_sub(freed);
        let peer = match &state.role {
            Role::Connected { peer, .. } => peer.upgrade(),
            _ => None,
        };
        drop(guard);
        if freed > 0 {
            // Senders wait on their own queue when connected, on ours when they named us.
            if let Some(peer) = peer {
                peer.wait.notify(OUT);
            }
            self.wait.notify(OUT);
        }
        Ok(received)
    }

    /// What a sender to `to` (or to the peer) waits on.
    pub fn send_queue(&self) -> &WaitQueue {
        &self.wait
    }
}

impl FileOps for UnixSocket {
    fn read(&self, dst: &mut IoDst<'_>, offset: Option<u64>) -> Result<usize> {
        if offset.is_some() {
            return Err(Errno::ESPIPE);
        }
        Ok(self.receive(dst, false)?.count)
    }

    fn write(&self, src: &mut IoSrc<'_>, offset: Option<u64>) -> Result<usize> {
        if offset.is_some() {
            return Err(Errno::ESPIPE);
        }
        self.send(src, None, &Extra::default())
    }

    fn poll(&self) -> u32 {
        let state = self.state.lock();
        let mut events = 0;
        if !state.queue.is_empty() || state.read_shut {
            events |= IN;
        }
        if state.error.is_some() {
            events |= c::POLLERR;
        }
        if state.read_shut {
            events |= c::POLLRDHUP;
        }
        if state.read_shut && state.write_shut {
            events |= c::POLLHUP;
        }
        let peer = match &state.role {
            Role::Listening { pending, .. } => {
                if !pending.is_empty() {
                    events |= IN;
                }
                return events;
            }
            Role::Fresh => {
                return events | if self.kind == Kind::Datagram { OUT } else { OUT | c::POLLHUP };
            }
            Role::Orphaned { .. } => {
                return events | IN | OUT | c::POLLHUP | c::POLLRDHUP;
            }
            Role::Connected { peer, .. } => peer.upgrade(),
        };
        drop(state);
        match peer {
            Some(peer) => {
                if peer.state.lock().waiting < BUFFER {
                    events |= OUT;
                }
            }
            None => events |= OUT,
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.wait)
    }

    fn stat(&self) -> Option<Stat> {
        Some(Stat {
            dev: SOCK_DEV,
            ino: self.ino,
            mode: c::S_IFSOCK | 0o777,
            nlink: 1,
            blksize: 4096,
            ..Stat::default()
        })
    }

    fn ioctl(&self, call: &Ioctl<'_>) -> Result<u64> {
        let value = match call.request {
            i::FIONREAD => {
                let state = self.state.lock();
                match self.kind {
                    Kind::Stream => state.queue.iter().map(|m| m.bytes.len() - m.read).sum(),
                    _ => state.queue.front().map_or(0, |m| m.bytes.len()),
                }
            }
            i::TIOCOUTQ => 0,
            _ => return Err(Errno::ENOTTY),
        };
        call.mm.write_val(call.arg, &(value as i32))?;
        Ok(0)
    }

    fn describe(&self) -> String {
        format!("socket:[{}]", self.ino)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let unread = !state.queue.is_empty();
        let role = std::mem::take(&mut state.role);
        if let Role::Connected { peer, .. } = role
            && self.kind != Kind::Datagram
            && let Some(peer) = peer.upgrade()
        {
            let mut state = peer.state.lock();
            if let Role::Connected { creds, .. } = state.role {
                state.role = Role::Orphaned { creds };
            }
            if unread {
                state.error = Some(Errno::ECONNRESET);
            }
            state.read_shut = true;
            drop(state);
            peer.wait.notify(!0);
        }
        // Pending connections go with `role`; queued files with `state`.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(socket: &UnixSocket, bytes: &[u8]) -> Result<usize> {
        socket.send(&mut IoSrc::kernel(bytes), None, &Extra::default())
    }

    fn receive(socket: &UnixSocket, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let count = socket.receive(&mut IoDst::kernel(&mut bytes), false)?.count;
        bytes.truncate(count);
        Ok(bytes)
    }

    #[test]
    fn streams_join_and_split() {
        let (a, b) = UnixSocket::pair(Kind::Stream, Creds::default());
        assert_eq!(receive(&b, 5), Err(Errno::EAGAIN));
        send(&a, b"hello ").unwrap();
        send(&a, b"world").unwrap();
        assert_eq!(receive(&b, 8).unwrap(), b"hello wo");
        assert_eq!(receive(&b, 8).unwrap(), b"rld");
        assert_eq!(send(&a, &vec![0; 1 << 20]), Ok(BUFFER));
        assert_eq!(send(&a, b"x"), Err(Errno::EAGAIN));
        assert_eq!(a.poll() & c::POLLOUT, 0);
        drop(a);
        assert_eq!(receive(&b, 1 << 20).unwrap().len(), BUFFER);
        assert_eq!(receive(&b, 1).unwrap(), b"");
        assert_eq!(send(&b, b"x"), Err(Errno::EPIPE));
    }

    #[test]
    fn messages_keep_their_bounds() {
        for kind in [Kind::Datagram, Kind::SeqPacket] {
            let (a, b) = UnixSocket::pair(kind, Creds::default());
            send(&a, b"one").unwrap();
            send(&a, b"").unwrap();
            send(&a, b"three").unwrap();
            assert_eq!(receive(&b, 2).unwrap(), b"on");
            assert_eq!(receive(&b, 10).unwrap(), b"");
            assert_eq!(receive(&b, 10).unwrap(), b"three");
            assert_eq!(receive(&b, 10), Err(Errno::EAGAIN));
        }
    }

    #[test]
    fn connections_are_accepted() {
        let server = UnixSocket::new(Kind::Stream);
        let client = UnixSocket::new(Kind::Stream);
        let who = Creds::default();
        assert_eq!(client.connect(&server, who, who), Err(Errno::ECONNREFUSED));
        server.set_name(b"/s").unwrap();
        server.listen(1).unwrap();
        client.connect(&server, Creds { pid: 7, ..who }, who).unwrap();
        assert_eq!(server.poll() & c::POLLIN, c::POLLIN);
        send(&client, b"early").unwrap();
        let accepted = server.accept().unwrap();
        assert_eq!(server.accept().err(), Some(Errno::EAGAIN));
        assert_eq!(receive(&accepted, 9).unwrap(), b"early");
        assert_eq!(accepted.peer_creds().map(|creds| creds.pid), Some(7));
        assert_eq!(client.peer_name().unwrap(), Some(b"/s".to_vec()));
        client.shutdown(false, true).unwrap();
        assert_eq!(receive(&accepted, 9).unwrap(), b"");
        send(&accepted, b"back").unwrap();
        assert_eq!(receive(&client, 9).unwrap(), b"back");
    }
}
