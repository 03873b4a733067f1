//! From a fresh socket to a connected one, and to its end.

use super::{IN, Kind, OUT, Peer, Role, SHUT, State, UnixSocket, wake};
use crate::abi::{Errno, Result};
use crate::sync::event;
use std::collections::VecDeque;
use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// net.core.somaxconn.
const BACKLOG_MAX: u32 = 4096;

impl UnixSocket {
    /// Starts accepting connections; `creds` are what those who connect see as their peer.
    ///
    /// # Errors
    /// EOPNOTSUPP for datagrams, EINVAL without a name.
    pub(super) fn start_listening(&self, backlog: i32, creds: Peer) -> Result<()> {
        if self.core.kind == Kind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock();
        if state.name.is_none() {
            return Err(Errno::EINVAL);
        }
        // A negative number is a large one.
        let limit = (backlog as u32).min(BACKLOG_MAX) as usize;
        match &mut state.role {
            Role::Listening { backlog, .. } => *backlog = limit,
            Role::Fresh => state.role = Role::Listening { backlog: limit, pending: VecDeque::new() },
            Role::Connected { .. } => return Err(Errno::EINVAL),
        }
        state.peer_creds = Some(creds);
        drop(state);
        self.core.wait.notify(OUT);
        Ok(())
    }

    /// Takes a waiting connection.
    ///
    /// # Errors
    /// EAGAIN, EOPNOTSUPP for datagrams, EINVAL if not listening (any more).
    pub(super) fn next_connection(&self) -> Result<Arc<UnixSocket>> {
        if self.core.kind == Kind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock();
        let shut = state.read_shut;
        let Role::Listening { pending, .. } = &mut state.role else { return Err(Errno::EINVAL) };
        let taken = pending.pop_front();
        drop(state);
        match taken {
            Some(socket) => {
                socket.state.lock().pending = false;
                self.core.wait.notify(OUT);
                Ok(socket)
            }
            None if shut => Err(Errno::EINVAL),
            None => Err(Errno::EAGAIN),
        }
    }

    /// Connects to `target`; `mine` is what its side of the connection sees as its peer.
    ///
    /// # Errors
    /// ECONNREFUSED, EPROTOTYPE, EISCONN, EINVAL for a listener; EAGAIN while the target's backlog is full (its queue
    /// is notified when that changes); EPERM if the target is a datagram socket connected elsewhere.
    pub(super) fn connect_to(&self, target: &Arc<UnixSocket>, mine: Peer) -> Result<()> {
        if target.core.kind != self.core.kind {
            return Err(Errno::EPROTOTYPE);
        }
        if self.core.kind == Kind::Datagram {
            return self.associate(target);
        }
        target.state.lock().may_accept()?;
        let own_name = {
            let state = self.state.lock();
            match state.role {
                Role::Fresh => state.name.clone(),
                Role::Listening { .. } => return Err(Errno::EINVAL),
                Role::Connected { .. } => return Err(Errno::EISCONN),
            }
        };
        let server = UnixSocket::new(self.core.kind, self.core.uid, &self.flight, &self.network);
        server.pass_creds.store(target.pass_creds.load(Ordering::Relaxed), Ordering::Relaxed);
        let (name, creds) = {
            let mut state = target.state.lock();
            let known = (state.name.clone(), state.peer_creds.clone());
            let queue = state.may_accept()?;
            {
                // Only now: a socket that is dropped tells the other side, which must not hear of a refusal. Nobody
                // else knows of this one, so that its lock is free.
                let mut state = server.state.lock_nested();
                state.role = Role::Connected { peer: self.me.clone() };
                state.peer_name = own_name;
                state.peer_creds = Some(mine);
                state.name = known.0.clone();
                state.pending = true;
            }
            queue.push_back(server.clone());
            known
        };
        {
            let mut state = self.state.lock();
            state.role = Role::Connected { peer: Arc::downgrade(&server) };
            state.peer_name = name;
            state.peer_creds = creds;
        }
        target.core.wait.notify(IN);
        self.core.wait.notify(OUT);
        Ok(())
    }

    /// Says where datagrams go that name no address, and whose are heard.
    fn associate(&self, target: &Arc<UnixSocket>) -> Result<()> {
        let peer_name = {
            let state = target.state.lock();
            if !state.hears(self) {
                return Err(Errno::EPERM);
            }
            state.name.clone()
        };
        self.replace_peer(Some(target), peer_name);
        Ok(())
    }

    /// Dissolves a datagram socket's association (AF_UNSPEC).
    pub(super) fn disconnect(&self) {
        self.replace_peer(None, None);
    }

    fn replace_peer(&self, target: Option<&Arc<UnixSocket>>, peer_name: Option<super::Name>) {
        let (old, unread) = {
            let mut state = self.state.lock();
            let new = target.map(Arc::downgrade);
            let same =
                matches!((&state.role, &new), (Role::Connected { peer }, Some(new)) if peer.ptr_eq(new));
            let old = take(&mut state.role);
            state.role = new.map_or(Role::Fresh, |peer| Role::Connected { peer });
            state.peer_name = peer_name;
            match old {
                // What the former peer sent is forgotten.
                Role::Connected { peer } if !same => (Some(peer), take(&mut state.queue)),
                _ => (None, VecDeque::new()),
            }
        };
        self.core.wait.notify(OUT);
        if let Some(old) = old.and_then(|peer| peer.upgrade())
            && !unread.is_empty()
        {
            let mut state = old.state.lock();
            if state.is_peer(self) {
                state.error = Some(Errno::ECONNRESET);
            }
            drop(state);
            old.core.wait.notify(!0);
        }
        drop(unread);
    }

    /// shutdown(2). Linux has no objection to a socket that is not connected.
    pub(super) fn shut(&self, read: bool, write: bool) {
        let (peer, stalled) = {
            let mut state = self.state.lock();
            state.read_shut |= read;
            state.write_shut |= write;
            let peer = match &state.role {
                Role::Connected { peer } if self.core.kind != Kind::Datagram => peer.upgrade(),
                _ => None,
            };
            (peer, take(&mut state.stalled))
        };
        self.core.wait.notify(SHUT);
        wake(&stalled);
        if let Some(peer) = peer {
            let mut state = peer.state.lock();
            state.read_shut |= write;
            state.write_shut |= read;
            drop(state);
            peer.core.wait.notify(match (read, write) {
                (true, true) => SHUT | IN | event::HANGUP,
                (_, true) => SHUT | IN,
                _ => SHUT,
            });
        }
    }
}

impl State {
    /// Those who wait to be accepted, if one more may.
    fn may_accept(&mut self) -> Result<&mut VecDeque<Arc<UnixSocket>>> {
        match &mut self.role {
            Role::Listening { .. } if self.read_shut => Err(Errno::ECONNREFUSED),
            Role::Listening { backlog, pending } if pending.len() > *backlog => Err(Errno::EAGAIN),
            Role::Listening { pending, .. } => Ok(pending),
            _ => Err(Errno::ECONNREFUSED),
        }
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        self.network.unix.remove(self.core.ino);
        let state = self.state.get_mut();
        // (What is left of urgent data that was received is nothing.)
        let unread = state.queue.len() > usize::from(state.is_mark(0)) || state.pending;
        wake(&take(&mut state.stalled));
        if let Role::Connected { peer } = take(&mut state.role)
            && self.core.kind != Kind::Datagram
            && let Some(peer) = peer.upgrade()
        {
            let mut state = peer.state.lock();
            state.read_shut = true;
            state.write_shut = true;
            if unread {
                state.error = Some(Errno::ECONNRESET);
            }
            drop(state);
            peer.core.wait.notify(SHUT | IN | event::HANGUP);
        }
        // Pending connections went with the role; queued messages, files and charges go with `state`.
        self.flight.closed();
    }
}

#[cfg(test)]
mod tests {
    use super::super::receive::tests::receive;
    use super::super::tests::{fresh, pair, send};
    use super::*;
    use crate::net::Creds;
    use crate::net::Socket;
    use linux_raw_sys::general as c;

    fn peer(pid: i32) -> Peer {
        Peer { creds: Creds { pid, ..Creds::default() }, ..Peer::default() }
    }

    fn listener(kind: Kind, backlog: i32) -> Arc<UnixSocket> {
        let server = fresh(kind);
        server.set_name(b"/s").unwrap();
        server.start_listening(backlog, peer(9)).unwrap();
        server
    }

    #[test]
    fn connections_are_accepted() {
        let unready = fresh(Kind::Stream);
        let client = fresh(Kind::Stream);
        assert_eq!(client.connect_to(&unready, peer(0)), Err(Errno::ECONNREFUSED));
        let server = listener(Kind::Stream, 1);
        client.connect_to(&server, peer(7)).unwrap();
        assert_eq!(client.connect_to(&server, peer(0)), Err(Errno::EISCONN));
        assert_eq!(server.poll() & c::POLLIN, c::POLLIN);
        send(&client, b"early").unwrap();
        let accepted = server.next_connection().unwrap();
        assert_eq!(server.next_connection().err(), Some(Errno::EAGAIN));
        assert_eq!(receive(&accepted, 9).unwrap(), b"early");
        assert_eq!(accepted.peer().map(|peer| peer.creds.pid), Some(7));
        assert_eq!(client.peer().map(|peer| peer.creds.pid), Some(9));
        assert_eq!(client.known_peer_name().unwrap().as_deref(), Some(&b"/s"[..]));
        client.shut(false, true);
        assert_eq!(receive(&accepted, 9).unwrap(), b"");
        send(&accepted, b"back").unwrap();
        assert_eq!(receive(&client, 9).unwrap(), b"back");
        drop(accepted);
        assert_eq!(client.known_peer_name().unwrap().as_deref(), Some(&b"/s"[..]));
    }

    #[test]
    fn whoever_was_not_accepted_is_reset() {
        let server = listener(Kind::Stream, 0);
        let (one, two) = (fresh(Kind::Stream), fresh(Kind::Stream));
        one.connect_to(&server, peer(0)).unwrap();
        assert_eq!(two.connect_to(&server, peer(0)), Err(Errno::EAGAIN));
        drop(server);
        assert_eq!(receive(&one, 1), Err(Errno::ECONNRESET));
        assert_eq!(receive(&one, 1).unwrap(), b"");
    }

    #[test]
    fn a_connected_datagram_socket_hears_its_peer_only() {
        let (a, b) = pair(Kind::Datagram);
        let other = fresh(Kind::Datagram);
        assert_eq!(other.connect_to(&a, peer(0)), Err(Errno::EPERM));
        send(&a, b"lost").unwrap();
        b.disconnect();
        assert_eq!(receive(&b, 9), Err(Errno::EAGAIN));
        assert_eq!(a.take_error(), Some(Errno::ECONNRESET));
        other.connect_to(&b, peer(0)).unwrap();
        send(&other, b"heard").unwrap();
        assert_eq!(receive(&b, 9).unwrap(), b"heard");
    }
}
