//! Receiving.
//!
//! A stream is a queue of parts, each with what came along: reads go on from one part to the next, but stop behind
//! files, and where the sender changes if the reader wants to know who it is (unix(7)).

use super::send::Message;
use super::{Creds, Kind, Name, Role, State, UnixSocket, charge, wake};
use crate::abi::{Errno, Result};
use crate::mm::IoDst;
use crate::vfs::File;
use std::mem::take;
use std::sync::Arc;

/// What a read returned.
#[derive(Default)]
pub struct Received {
    /// Bytes copied.
    pub count: usize,
    /// Bytes the message had.
    pub full: usize,
    /// The sender's address.
    pub from: Option<Name>,
    /// The sender.
    pub creds: Creds,
    /// Files that came with it.
    pub files: Vec<Arc<File>>,
}

impl UnixSocket {
    /// Receives. With `peek` everything stays.
    ///
    /// # Errors
    /// EAGAIN, ENOTCONN, ECONNRESET, EFAULT.
    pub fn receive(&self, dst: &mut IoDst<'_>, peek: bool) -> Result<Received> {
        let pass_creds = self.options.lock().pass_creds;
        let mut state = self.state.lock();
        if self.kind != Kind::Datagram && !matches!(state.role, Role::Connected { .. }) {
            return Err(if self.kind == Kind::Stream { Errno::EINVAL } else { Errno::ENOTCONN });
        }
        if (self.kind != Kind::Stream || state.queue.is_empty())
            && let Some(errno) = state.error.take()
        {
            return Err(errno);
        }
        if state.queue.is_empty() {
            return if state.read_shut { Ok(Received::default()) } else { Err(Errno::EAGAIN) };
        }
        if self.kind == Kind::Stream {
            let (received, spent) = state.read_bytes(dst, peek, pass_creds)?;
            drop(state);
            drop(spent);
            return Ok(received);
        }
        let (received, spent) = state.read_message(dst, peek)?;
        let stalled = if state.queue.len() <= charge::QUEUE { take(&mut state.stalled) } else { Vec::new() };
        drop(state);
        drop(spent);
        wake(stalled);
        Ok(received)
    }
}

/// What a receive has used up, to be dropped without the lock: one message, as a rule.
type Spent = (Option<Message>, Vec<Message>);

impl State {
    fn read_bytes(&mut self, dst: &mut IoDst<'_>, peek: bool, pass_creds: bool) -> Result<(Received, Spent)> {
        let mut received = Received::default();
        let mut spent: Spent = (None, Vec::new());
        let mut index = 0;
        while let Some(message) = self.queue.get_mut(index) {
            if received.count == 0 {
                received.from = message.from.clone();
                received.creds = message.creds;
            } else if pass_creds && message.creds != received.creds {
                break;
            }
            let rest = &message.bytes[message.read..];
            let want = rest.len().min(dst.remaining());
            let got = match dst.write_bytes(&rest[..want]) {
                Err(errno) if received.count == 0 => return Err(errno),
                result => result.unwrap_or(0),
            };
            received.count += got;
            received.files = if peek { message.files.clone() } else { take(&mut message.files) };
            let emptied = got == rest.len();
            if peek {
                index += 1;
            } else {
                message.read += got;
                if emptied && let Some(message) = self.queue.pop_front() {
                    match spent.0 {
                        None => spent.0 = Some(message),
                        Some(_) => spent.1.push(message),
                    }
                }
            }
            if !emptied || dst.remaining() == 0 || !received.files.is_empty() {
                break;
            }
        }
        received.full = received.count;
        Ok((received, spent))
    }

    fn read_message(&mut self, dst: &mut IoDst<'_>, peek: bool) -> Result<(Received, Option<Message>)> {
        let Some(message) = self.queue.front_mut() else { return Err(Errno::EAGAIN) };
        let want = message.bytes.len().min(dst.remaining());
        let count = if want == 0 { 0 } else { dst.write_bytes(&message.bytes[..want])? };
        let received = Received {
            count,
            full: message.bytes.len(),
            from: message.from.clone(),
            creds: message.creds,
            files: if peek { message.files.clone() } else { take(&mut message.files) },
        };
        Ok((received, if peek { None } else { self.queue.pop_front() }))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::send::Extra;
    use super::super::tests::{send, writable};
    use super::*;
    use crate::mm::IoSrc;

    pub(in super::super) fn receive(socket: &UnixSocket, len: usize) -> Result<Vec<u8>> {
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
        assert_eq!(a.charged(), 0);
        // What Linux takes with the default buffer.
        assert_eq!(send(&a, &vec![0; 1 << 20]), Ok(219_264));
        assert_eq!(send(&a, b"x"), Err(Errno::EAGAIN));
        assert!(!writable(&a) && writable(&b));
        assert_eq!(receive(&b, 36544).unwrap().len(), 36544);
        assert!(!writable(&a), "three quarters are to be free");
        drop(a);
        assert_eq!(receive(&b, 1 << 20).unwrap().len(), 219_264 - 36544);
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
            assert_eq!(send(&a, &vec![0; 212_961]), Err(Errno::EMSGSIZE));
        }
    }

    #[test]
    fn reads_stop_behind_files() {
        let (a, b) = UnixSocket::pair(Kind::Stream, Creds::default());
        let file = || UnixSocket::new(Kind::Stream).file(0);
        send(&a, b"1").unwrap();
        let mut with = Extra { files: vec![file()], ..Extra::default() };
        a.send(&mut IoSrc::kernel(b"2"), None, &mut with).unwrap();
        send(&a, b"3").unwrap();
        let mut bytes = [0; 9];
        let got = b.receive(&mut IoDst::kernel(&mut bytes), false).unwrap();
        assert_eq!((got.count, got.files.len()), (2, 1));
        assert_eq!(receive(&b, 9).unwrap(), b"3");
    }
}
