//! Sending.

use super::charge::{self, Charge};
use super::urgent::URGENT;
use super::{IN, Name, Role, State, UnixSocket};
use crate::abi::{Errno, Result};
use crate::mm::IoSrc;
use crate::net::message::MSG_OOB;
use crate::net::{Address, Creds, Kind, Outgoing};
use crate::vfs::Parcel;
use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes on their way, and what goes with them.
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    /// Bytes already read (streams).
    pub(super) read: usize,
    pub(super) from: Option<Name>,
    /// Who sent it, where that was noted.
    pub(super) creds: Option<Creds>,
    pub(super) files: Option<Parcel>,
    /// Its number, if it was sent as urgent; then it is one byte.
    pub(super) urgent: Option<u64>,
    _charge: Charge,
}

impl Message {
    /// Who sent it: one without a name has no address, not even a family.
    pub(super) fn sender(&self) -> Address {
        self.from.clone().map_or(Address::None, |name| Address::Unix(Some(name)))
    }

    /// Bytes left to be read.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.read
    }
}

impl UnixSocket {
    /// Sends to `to`, or to the peer. Streams send what fits; messages go whole. What makes EAGAIN pass notifies this
    /// socket's queue, be it the receiver's doing.
    ///
    /// # Errors
    /// EAGAIN, EPIPE, ENOTCONN, EMSGSIZE, ECONNREFUSED, EPERM, EFAULT.
    pub(super) fn send_to(
        &self,
        src: &mut IoSrc<'_>,
        to: Option<&Arc<UnixSocket>>,
        extra: &mut Outgoing<'_>,
    ) -> Result<usize> {
        if self.core.kind != Kind::Stream {
            return self.send_message(src, to, extra);
        }
        let (peer, from) = self.connection()?;
        let urgent = extra.flags & MSG_OOB != 0;
        let mut done = 0;
        while src.remaining() > 0 {
            // The last byte is the urgent one, and goes alone.
            let most = src.remaining() - usize::from(urgent);
            match self.send_part(&peer, src, most, &from, extra) {
                Ok(count) => done += count,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    /// The other end of a stream or of a connection for messages, and this socket's name.
    fn connection(&self) -> Result<(Arc<UnixSocket>, Option<Name>)> {
        let mut state = self.state.lock();
        if self.core.kind == Kind::SeqPacket
            && let Some(errno) = state.error.take()
        {
            return Err(errno);
        }
        let Role::Connected { peer } = &state.role else { return Err(Errno::ENOTCONN) };
        if state.write_shut {
            return Err(Errno::EPIPE);
        }
        Ok((peer.upgrade().ok_or(Errno::EPIPE)?, state.name.clone()))
    }

    fn send_part(
        &self,
        peer: &UnixSocket,
        src: &mut IoSrc<'_>,
        most: usize,
        from: &Option<Name>,
        extra: &mut Outgoing<'_>,
    ) -> Result<usize> {
        let urgent = most == 0;
        let limit = self.send_buffer();
        if self.charged() >= limit {
            self.lacks_space();
            return Err(Errno::EAGAIN);
        }
        let (len, size) = charge::part(most.max(1), limit);
        let bytes = src.whole_message(len)?;
        let mut state = peer.state.lock();
        if state.read_shut {
            return Err(Errno::EPIPE);
        }
        let charge = Charge::new(self, size);
        let (files, creds) = (take(&mut extra.files), self.noted(extra, peer, state.pending));
        let urgent = urgent.then(|| state.new_urgent());
        let events = if urgent.is_some() { IN | URGENT } else { IN };
        state.queue.push_back(Message {
            bytes,
            read: 0,
            from: from.clone(),
            creds,
            files,
            urgent,
            _charge: charge,
        });
        drop(state);
        src.advance(len);
        peer.core.wait.notify(events);
        Ok(len)
    }

    fn send_message(
        &self,
        src: &mut IoSrc<'_>,
        to: Option<&Arc<UnixSocket>>,
        extra: &mut Outgoing<'_>,
    ) -> Result<usize> {
        let (target, from) = match to {
            Some(target) if target.core.kind != self.core.kind => return Err(Errno::EPROTOTYPE),
            Some(target) => (target.clone(), self.unshut_name()?),
            None if self.core.kind == Kind::SeqPacket => self.connection()?,
            None => self.associated()?,
        };
        let (len, limit) = (src.remaining(), self.send_buffer());
        if len > limit as usize - 32 {
            return Err(Errno::EMSGSIZE);
        }
        if self.charged() >= limit {
            self.lacks_space();
            return Err(Errno::EAGAIN);
        }
        let bytes = src.whole_message(len)?;
        let mut state = target.state.lock();
        state.takes_from(self)?;
        // Not before: to take a charge back wakes the sender, who would try again for ever.
        let charge = Charge::new(self, charge::message(len));
        let (files, creds) = (take(&mut extra.files), self.noted(extra, &target, state.pending));
        let urgent = None;
        state.queue.push_back(Message { bytes, read: 0, from, creds, files, urgent, _charge: charge });
        drop(state);
        src.advance(len);
        target.core.wait.notify(IN);
        Ok(len)
    }

    /// Who a message to `peer` is from, as it will be told: nobody, where neither end asked so far (af_unix.c,
    /// maybe_add_creds). Of one that is `pending` nobody knows yet whether it will ask.
    fn noted(&self, extra: &Outgoing<'_>, peer: &UnixSocket, pending: bool) -> Option<Creds> {
        let asked = || pending || [self, peer].iter().any(|end| end.pass_creds.load(Ordering::Relaxed));
        extra.named.or_else(|| asked().then_some(extra.creds))
    }

    fn unshut_name(&self) -> Result<Option<Name>> {
        let state = self.state.lock();
        if state.write_shut { Err(Errno::EPIPE) } else { Ok(state.name.clone()) }
    }

    /// Where datagrams without an address go. If that has gone the first sender hears of it, and the association ends.
    fn associated(&self) -> Result<(Arc<UnixSocket>, Option<Name>)> {
        let mut state = self.state.lock();
        let Role::Connected { peer } = &state.role else { return Err(Errno::ENOTCONN) };
        if state.write_shut {
            return Err(Errno::EPIPE);
        }
        match peer.upgrade() {
            Some(peer) => Ok((peer, state.name.clone())),
            None => {
                state.role = Role::Fresh;
                state.peer_name = None;
                let unread = take(&mut state.queue);
                drop(state);
                drop(unread);
                Err(Errno::ECONNREFUSED)
            }
        }
    }
}

impl State {
    /// Whether a message from `sender` can be queued here now.
    fn takes_from(&mut self, sender: &UnixSocket) -> Result<()> {
        if !self.hears(sender) {
            return Err(Errno::EPERM);
        }
        if self.read_shut {
            return Err(Errno::EPIPE);
        }
        if self.is_full_for(sender) {
            self.stall(sender);
            return Err(Errno::EAGAIN);
        }
        Ok(())
    }

    /// Whether too much waits here for one more datagram of `sender`. Between two peers only the sender's buffer counts.
    pub(super) fn is_full_for(&self, sender: &UnixSocket) -> bool {
        self.queue.len() > charge::QUEUE && !self.is_peer(sender)
    }

    /// Notes that `sender` waits for the queue to become shorter.
    pub(super) fn stall(&mut self, sender: &UnixSocket) {
        self.stalled.add(sender.core.ino, &sender.me);
    }
}

#[cfg(test)]
mod tests {
    use super::super::receive::tests::receive;
    use super::super::tests::{fresh, pair, send, writable};
    use super::*;
    use crate::net::Peer;

    #[test]
    fn a_receiver_that_goes_pays_back() {
        let (a, b) = pair(Kind::Datagram);
        send(&a, b"one").unwrap();
        assert_eq!(a.charged(), 768);
        drop(b);
        assert_eq!(a.charged(), 0);
        assert_eq!(send(&a, b"two"), Err(Errno::ECONNREFUSED));
        assert_eq!(send(&a, b"two"), Err(Errno::ENOTCONN));
    }

    #[test]
    fn no_buffer_is_large_enough_for_any_message() {
        let (a, _b) = pair(Kind::Datagram);
        a.core.options.lock().send_buffer = i32::MAX as u32;
        a.send_buffer_changed();
        assert_eq!(send(&a, &vec![0; 5 << 20]), Err(Errno::ENOBUFS));
        assert_eq!(send(&a, &vec![0; 3 << 20]), Ok(3 << 20));
    }

    #[test]
    fn senders_that_have_gone_are_not_kept() {
        let server = fresh(Kind::Datagram);
        let client = fresh(Kind::Datagram);
        client.connect_to(&server, Peer::default()).unwrap();
        while send(&client, b"x").is_ok() {}
        for _ in 0..1000 {
            let other = fresh(Kind::Datagram);
            other.connect_to(&server, Peer::default()).unwrap();
            assert!(send(&other, b"x").is_err());
        }
        let noted = server.state.lock().stalled.len();
        assert!(noted < 130, "{noted}");
    }

    #[test]
    fn a_receiver_with_a_full_queue_stalls_its_senders() {
        let server = fresh(Kind::Datagram);
        let client = fresh(Kind::Datagram);
        client.connect_to(&server, Peer::default()).unwrap();
        let sent = (0..100).take_while(|_| send(&client, b"x").is_ok()).count();
        assert_eq!(sent, charge::QUEUE + 1);
        assert!(!writable(&client));
        let version = client.core.wait.version();
        receive(&server, 1).unwrap();
        assert_ne!(client.core.wait.version(), version);
        assert!(writable(&client));
    }
}
