//! Messages in, answers out.

use super::{GENERIC, NetlinkSocket, ROUTE, SOCK_DIAG, State, diag, generic, route};
use crate::abi::{Errno, Result};
use crate::net::interfaces::Record;
use crate::net::links::change::Networks;
use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLM_F_REQUEST,
    NetlinkHeader,
};
use std::sync::Arc;

/// sizeof(struct nlmsghdr), and the smallest type that is no control message.
pub(super) const HEADER: usize = 16;
const FIRST_TYPE: u16 = 16;
/// NLMSG_ERROR, NLMSG_DONE.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// What a part of a long answer has at most (NLMSG_GOODSIZE): readers have a page.
const PART: usize = 3776;
/// NETLINK_CAP_ACK.
const CAP_ACK: u32 = 1 << 10;

/// A request.
pub(super) struct Request<'a> {
    pub(super) header: NetlinkHeader,
    /// The whole message.
    pub(super) bytes: &'a [u8],
}

impl Request<'_> {
    /// What follows the header.
    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[HEADER..]
    }

    pub(super) fn is_dump(&self) -> bool {
        self.header.flags & NLM_F_DUMP != 0
    }
}

/// What a request leads to.
pub(super) enum Answer {
    /// That it was done.
    Done,
    /// One message: type, payload.
    One(u16, Vec<u8>),
    /// Many.
    Many(What),
}

/// What a long answer consists of.
pub(super) enum What {
    /// Of the network's records those that the test holds for.
    Records(Arc<[Record]>, route::Wanted),
    /// These: type, payload.
    Given(Vec<(u16, Vec<u8>)>),
}

/// A long answer.
pub(super) struct Dump {
    what: What,
    next: usize,
    sequence: u32,
    port: u32,
}

impl Dump {
    /// The next part of it, and whether that is the last.
    pub(super) fn next(&mut self) -> (Vec<u8>, bool) {
        let mut part = Vec::new();
        loop {
            let message = match &self.what {
                What::Records(all, wanted) => {
                    let rest = all.get(self.next..).unwrap_or_default();
                    let skipped = rest.iter().position(|record| wanted.holds(record));
                    self.next += skipped.unwrap_or(rest.len());
                    all.get(self.next).map(|record| (record.kind, &record.payload[..]))
                }
                What::Given(all) => all.get(self.next).map(|(kind, payload)| (*kind, &payload[..])),
            };
            let Some((kind, payload)) = message else {
                part.extend(self.message(DONE, &[0; 4]));
                return (part, true);
            };
            let message = self.message(kind, payload);
            if !part.is_empty() && part.len() + message.len() + HEADER + 4 > PART {
                return (part, false);
            }
            part.extend(message);
            self.next += 1;
        }
    }

    fn message(&self, kind: u16, payload: &[u8]) -> Vec<u8> {
        message(kind, NLM_F_MULTIPART, self.sequence, self.port, payload)
    }
}

/// A message, and what keeps the next one aligned.
fn message(kind: u16, flags: u16, sequence: u32, port: u32, payload: &[u8]) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.length = (HEADER + payload.len()) as u32;
    (header.message_type, header.flags) = (kind, flags & !NLM_F_DUMP_INTR);
    (header.sequence_number, header.port_number) = (sequence, port);
    let mut bytes = vec![0; HEADER];
    header.emit(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The first message of what was sent; `None` where there is none.
fn first(bytes: &[u8]) -> Option<Request<'_>> {
    let word = |at: usize| -> Option<[u8; 4]> { bytes.get(at..at + 4)?.try_into().ok() };
    let (len, types) = (u32::from_ne_bytes(word(0)?), word(4)?);
    let mut header = NetlinkHeader::default();
    header.length = len;
    header.message_type = u16::from_ne_bytes([types[0], types[1]]);
    header.flags = u16::from_ne_bytes([types[2], types[3]]);
    header.sequence_number = u32::from_ne_bytes(word(8)?);
    header.port_number = u32::from_ne_bytes(word(12)?);
    let len = usize::try_from(len).ok().filter(|len| *len >= HEADER)?;
    Some(Request { header, bytes: bytes.get(..len)? })
}

impl NetlinkSocket {
    /// Answers what was sent, message for message (netlink_rcv_skb). `pause` is asked between them; `networks` finds those that
    /// they name.
    ///
    /// # Errors
    /// What `pause` says.
    pub(super) fn serve(
        &self,
        mut bytes: &[u8],
        networks: Option<&dyn Networks>,
        pause: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let mut paused = Ok(());
        while let Some(request) = first(bytes) {
            let result = match request.header {
                header if header.flags & NLM_F_REQUEST == 0 || header.message_type < FIRST_TYPE => {
                    Ok(Answer::Done)
                }
                _ => self.answer(&request, networks),
            };
            let mut state = self.state.lock();
            let result = self.put(&mut state, &request, result);
            let port = state.port.unwrap_or(0);
            if result.is_err() || (request.header.flags & NLM_F_ACK != 0 && result == Ok(true)) {
                let capped = state.switches & CAP_ACK != 0;
                self.queue(&mut state, acknowledgement(&request, result.err(), port, capped));
            }
            drop(state);
            bytes = &bytes[request.bytes.len().next_multiple_of(4).min(bytes.len())..];
            paused = pause();
            if paused.is_err() {
                break;
            }
        }
        self.notify();
        paused
    }

    fn answer(&self, request: &Request<'_>, networks: Option<&dyn Networks>) -> Result<Answer> {
        match self.protocol {
            ROUTE => route::answer(&self.network, self.admin, request, networks),
            SOCK_DIAG => diag::answer(&self.network, request),
            GENERIC => generic::answer(request),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Queues an answer; true if it is one that an acknowledgement follows, where that was asked for.
    fn put(&self, state: &mut State, request: &Request<'_>, result: Result<Answer>) -> Result<bool> {
        let (sequence, port) = (request.header.sequence_number, state.port.unwrap_or(0));
        match result? {
            Answer::Done => Ok(true),
            Answer::One(kind, payload) => {
                self.queue(state, message(kind, 0, sequence, port, &payload));
                Ok(true)
            }
            Answer::Many(_) if state.dump.is_some() => Err(Errno::EBUSY),
            Answer::Many(what) => {
                let mut dump = Dump { what, next: 0, sequence, port };
                let (part, over) = dump.next();
                if !over {
                    state.dump = Some(dump);
                }
                self.queue(state, part);
                Ok(false)
            }
        }
    }
}

fn acknowledgement(request: &Request<'_>, errno: Option<Errno>, port: u32, capped: bool) -> Vec<u8> {
    let mut payload = errno.map_or(0, |errno| -errno.0).to_ne_bytes().to_vec();
    let whole = errno.is_some() && !capped;
    payload.extend_from_slice(if whole { request.bytes } else { &request.bytes[..HEADER] });
    let flags = if whole { 0 } else { NLM_F_CAPPED };
    message(ERROR, flags, request.header.sequence_number, port, &payload)
}

#[cfg(test)]
mod tests {
    use super::{Dump, HEADER, NLM_F_ACK, NLM_F_REQUEST, PART, What, first, message};
    use super::{NetlinkSocket, ROUTE, State};
    use crate::abi::Errno;
    use crate::net::options::Options;
    use crate::net::{Core, Kind, Namespace};
    use crate::sync::{Lock, Rank};
    use linux_raw_sys::net::AF_NETLINK;

    #[test]
    fn who_is_to_end_is_answered_no_more() {
        let socket = NetlinkSocket {
            core: Core::new(Kind::Raw, AF_NETLINK as u16, ROUTE as u16, 0, Options::default()),
            network: Namespace::new(None),
            protocol: ROUTE,
            admin: false,
            state: Lock::new(Rank::Netlink, State::default()),
        };
        let all = message(1, NLM_F_REQUEST | NLM_F_ACK, 7, 0, &[]).repeat(3);
        assert_eq!(all.len(), 3 * HEADER);
        let answers = || socket.state.lock().queue.len();
        assert_eq!(
            socket.serve(&all, None, &|| if answers() < 2 { Ok(()) } else { Err(Errno::EINTR) }),
            Err(Errno::EINTR)
        );
        assert_eq!(answers(), 2);
        assert_eq!(socket.serve(&all, None, &|| Ok(())), Ok(()));
        assert_eq!(answers(), 5);
    }

    #[test]
    fn lengths_are_believed_only_as_far_as_they_go() {
        for len in [0_u32, 1, 15, 17, u32::MAX] {
            let bytes = [&len.to_ne_bytes()[..], &[0; 12]].concat();
            assert!(first(&bytes).is_none(), "{len}");
        }
        assert!(first(&[16, 0, 0]).is_none());
        assert!(first(&message(18, 1, 7, 0, &[])).is_some_and(|one| one.header.sequence_number == 7));
    }

    #[test]
    fn long_answers_come_in_parts() {
        let what = What::Given(vec![(16, vec![0; 1000]); 10]);
        let mut dump = Dump { what, next: 0, sequence: 1, port: 2 };
        let (mut parts, mut bytes) = (0, 0);
        loop {
            let (part, over) = dump.next();
            assert!(part.len() <= PART);
            (parts, bytes) = (parts + 1, bytes + part.len());
            if over {
                break;
            }
        }
        assert_eq!((parts, bytes), (4, 10 * 1016 + 20));
    }
}
