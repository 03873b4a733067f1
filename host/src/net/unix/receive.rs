//! Receiving.
//!
//! A stream is a queue of parts, each with what came along: reads go on from one part to the next, but stop behind
//! files, and where the sender changes if the reader wants to know who it is (unix(7)).

use super::send::Message;
use super::{Role, State, UnixSocket, charge, wake};
use crate::abi::{Errno, Result};
use crate::mm::IoDst;
use crate::net::{Core, Kind, Received};
use crate::vfs::Parcel;
use std::mem::take;
use std::sync::atomic::Ordering;

impl UnixSocket {
    /// Receives. With `peek` everything stays.
    ///
    /// # Errors
    /// EAGAIN, ENOTCONN, ECONNRESET, EFAULT.
    pub(super) fn take(&self, dst: &mut IoDst<'_>, peek: bool) -> Result<Received> {
        dst.held(|dst| self.take_at_once(dst, peek))
    }

    fn take_at_once(&self, dst: &mut IoDst<'_>, peek: bool) -> Result<Received> {
        let pass_creds = self.pass_creds.load(Ordering::Relaxed);
        // (Before the lock: it goes after it.)
        let mut spent: Spent = (None, Vec::new());
        let mut state = self.state.lock();
        if self.core.kind != Kind::Datagram && !matches!(state.role, Role::Connected { .. }) {
            return Err(if self.core.kind == Kind::Stream { Errno::EINVAL } else { Errno::ENOTCONN });
        }
        if (self.core.kind != Kind::Stream || state.queue.is_empty())
            && let Some(errno) = state.error.take()
        {
            return Err(errno);
        }
        let read_shut = state.read_shut;
        let nothing = move || if read_shut { Ok(Received::default()) } else { Err(Errno::EAGAIN) };
        if state.queue.is_empty() {
            return nothing();
        }
        if self.core.kind == Kind::Stream {
            let how = Reading { peek, pass_creds, core: &self.core };
            let Some((mut received, files)) = state.read_bytes(dst, how, &mut spent)? else {
                return nothing();
            };
            drop(state);
            drop(spent);
            received.files.extend(files.into_iter().flat_map(Parcel::open));
            return Ok(received);
        }
        let (result, spent, files) = state.read_message(dst, peek);
        let stalled = if state.queue.len() <= charge::QUEUE {
            take(&mut state.stalled)
        } else {
            super::Stalled::default()
        };
        drop(state);
        drop(spent);
        wake(&stalled);
        let mut received = result?;
        received.files.extend(files.into_iter().flat_map(Parcel::open));
        Ok(received)
    }
}

/// What a receive has used up, to be dropped without the lock: one message, as a rule.
pub(super) type Spent = (Option<Message>, Vec<Message>);

/// Notes one more.
pub(super) fn spend(spent: &mut Spent, message: Message) {
    match spent.0 {
        None => spent.0 = Some(message),
        Some(_) => spent.1.push(message),
    }
}

/// How a stream is read.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    /// Everything stays.
    pub(super) peek: bool,
    /// Who reads wants to know who sent.
    pass_creds: bool,
    /// Who reads: whether urgent data is read as any other is looked at where there is some.
    pub(super) core: &'a Core,
}

impl State {
    /// Reads what there is; `None`: nothing that is not urgent.
    fn read_bytes(
        &mut self,
        dst: &mut IoDst<'_>,
        how: Reading<'_>,
        spent: &mut Spent,
    ) -> Result<Option<(Received, Option<Parcel>)>> {
        let Reading { peek, pass_creds, .. } = how;
        let mut received = Received::default();
        let mut files = None;
        let mut index = 0;
        while index < self.queue.len() {
            match self.beside_urgent(index, received.count > 0, how, spent) {
                Some(next) => index = next,
                None if received.count == 0 => return Ok(None),
                None => {
                    received.stop = true;
                    break;
                }
            }
            let Some(message) = self.queue.get_mut(index) else { break };
            if received.count == 0 {
                received.from = message.sender();
                received.creds = message.creds;
            } else if pass_creds && message.creds != received.creds {
                break;
            }
            let rest = &message.bytes[message.read..];
            let want = rest.len().min(dst.remaining());
            // A part that cannot be copied whole is not received.
            let got = match dst.write_bytes(&rest[..want]) {
                Ok(got) if got == want => got,
                _ if received.count > 0 => break,
                result => return Err(result.err().unwrap_or(Errno::EFAULT)),
            };
            received.count += got;
            let with_files = message.files.is_some();
            if peek {
                received.files = message.files.as_ref().map_or_else(Vec::new, |files| files.files().to_vec());
            } else {
                files = take(&mut message.files);
            }
            let emptied = got == rest.len();
            if peek {
                index += 1;
            } else {
                message.read += got;
                if emptied && let Some(message) = self.queue.pop_front() {
                    spend(spent, message);
                }
            }
            if !emptied || dst.remaining() == 0 || with_files {
                break;
            }
        }
        received.full = received.count;
        Ok(Some((received, files)))
    }

    /// Takes the first message, also where it could not be copied (as Linux does), or looks at it. It stays where a page has
    /// to be waited for.
    fn read_message(
        &mut self,
        dst: &mut IoDst<'_>,
        peek: bool,
    ) -> (Result<Received>, Option<Message>, Option<Parcel>) {
        let Some(message) = self.queue.front_mut() else { return (Err(Errno::EAGAIN), None, None) };
        let want = message.bytes.len().min(dst.remaining());
        let copied = match want {
            0 => Ok(0),
            _ => dst
                .write_bytes(&message.bytes[..want])
                .and_then(|count| if count < want { Err(Errno::EFAULT) } else { Ok(count) }),
        };
        let received = copied.map(|count| Received {
            count,
            full: message.bytes.len(),
            from: message.sender(),
            creds: message.creds,
            files: match &message.files {
                Some(files) if peek => files.files().to_vec(),
                _ => Vec::new(),
            },
            ..Received::default()
        });
        if peek || dst.has_missed() {
            return (received, None, None);
        }
        let files = if received.is_ok() { take(&mut message.files) } else { None };
        (received, self.queue.pop_front(), files)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::{fresh, pair, send, writable};
    use super::*;
    use crate::mm::IoSrc;
    use crate::net::{Outgoing, SocketFile};
    use std::sync::Arc;

    pub(in super::super) fn receive(socket: &UnixSocket, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let count = socket.take(&mut IoDst::kernel(&mut bytes), false)?.count;
        bytes.truncate(count);
        Ok(bytes)
    }

    #[test]
    fn streams_join_and_split() {
        let (a, b) = pair(Kind::Stream);
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
            let (a, b) = pair(kind);
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
        let (a, b) = pair(Kind::Stream);
        let file = SocketFile::open(fresh(Kind::Stream), 0);
        send(&a, b"1").unwrap();
        let parcel = Parcel::new(&Arc::default(), vec![file], 0, 10).unwrap();
        let mut with = Outgoing { files: Some(parcel), ..Outgoing::default() };
        a.send_to(&mut IoSrc::kernel(b"2"), None, &mut with).unwrap();
        send(&a, b"3").unwrap();
        let mut bytes = [0; 9];
        let got = b.take(&mut IoDst::kernel(&mut bytes), false).unwrap();
        assert_eq!((got.count, got.files.len()), (2, 1));
        assert_eq!(receive(&b, 9).unwrap(), b"3");
    }
}
