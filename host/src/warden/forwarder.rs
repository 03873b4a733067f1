//! The resolver of a sandbox with rules: questions of programs, asked of the machine's own resolvers.
//!
//! A program's socket has a counterpart here. Each question is asked from a socket of its own, with a number that nobody can
//! guess, so that who wants to answer in a resolver's place has to guess both. A datagram that a resolver has cut off is cut
//! off for the program too, which asks again by a stream.

use super::messages::{Answer, Asked, Heard, LARGE, heard};
use super::rules::Rules;
use super::serve::connect;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Most sockets of programs, and questions under way: the oldest give way.
const CLIENTS: usize = 400;
/// Most of them that are streams, which keep more.
const STREAMS: usize = 64;
const QUERIES: usize = 200;
/// After how long nobody waits for an answer any more.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a question takes at most, and an answer by a stream.
const QUESTION: usize = 600;
const ANSWER: usize = 65_535 + 2;
/// What is kept of answers that a program does not take.
const UNREAD: usize = ANSWER;

/// A program's socket.
struct Client {
    fd: OwnedFd,
    stream: bool,
    resolver: SocketAddr,
    input: Vec<u8>,
    output: VecDeque<u8>,
}

/// A question under way.
struct Query {
    client: u64,
    asked: Asked,
    id: u16,
    fd: OwnedFd,
    stream: bool,
    output: Vec<u8>,
    input: Vec<u8>,
    began: Instant,
}

/// What somebody else is to know of an answer.
pub(super) enum Told {
    /// A name may not be resolved.
    Name(String),
    /// Something was handed out.
    Answer(Asked, Answer),
}

/// What is to be watched: who it is for, and whether there is something to send.
pub(super) struct Watched<'a> {
    pub(super) fd: BorrowedFd<'a>,
    pub(super) key: Key,
    pub(super) sends: bool,
}

/// Whose descriptor it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Client(u64),
    Query(u64),
}

/// All of it.
#[derive(Default)]
pub(super) struct Forwarder {
    clients: BTreeMap<u64, Client>,
    queries: BTreeMap<u64, Query>,
    next: u64,
    numbers: RandomState,
}

impl Forwarder {
    /// A new socket for a program that asks `resolver`.
    pub(super) fn connect(&mut self, stream: bool, resolver: SocketAddr) -> Result<OwnedFd, Errno> {
        let kind = if stream { SocketType::STREAM } else { SocketType::SEQPACKET };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (own, given) = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?;
        let streams = self.clients.iter().filter(|(_, client)| client.stream);
        let oldest = streams.clone().next().map(|(key, _)| *key);
        if let Some(key) = oldest.filter(|_| stream && streams.count() >= STREAMS) {
            self.clients.remove(&key);
        } else if self.clients.len() >= CLIENTS {
            self.clients.pop_first();
        }
        self.next += 1;
        let client = Client { fd: own, stream, resolver, input: Vec::new(), output: VecDeque::new() };
        self.clients.insert(self.next, client);
        Ok(given)
    }

    pub(super) fn watched(&self) -> impl Iterator<Item = Watched<'_>> {
        let clients = self.clients.iter().map(|(key, client)| Watched {
            fd: client.fd.as_fd(),
            key: Key::Client(*key),
            sends: !client.output.is_empty(),
        });
        clients.chain(self.queries.iter().map(|(key, query)| Watched {
            fd: query.fd.as_fd(),
            key: Key::Query(*key),
            sends: !query.output.is_empty(),
        }))
    }

    /// When to look again, whatever happens.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let first = self.queries.values().next()?;
        Some(PATIENCE.saturating_sub(first.began.elapsed()) + Duration::from_millis(10))
    }

    /// Forgets questions that nobody waits for.
    pub(super) fn tidy(&mut self) {
        let clients = &self.clients;
        self.queries
            .retain(|_, query| query.began.elapsed() < PATIENCE && clients.contains_key(&query.client));
    }

    /// Something has happened to a descriptor.
    pub(super) fn ready(&mut self, key: Key, rules: &Rules) -> Vec<Told> {
        match key {
            Key::Client(client) => self.hear(client, rules),
            Key::Query(query) => self.go_on(query, rules).into_iter().collect(),
        }
    }

    /// Reads what a program has sent.
    fn hear(&mut self, key: u64, rules: &Rules) -> Vec<Told> {
        let (mut told, mut asked) = (Vec::new(), Vec::new());
        let Some(client) = self.clients.get_mut(&key) else { return told };
        let alive = client.send_rest() && client.take(&mut asked);
        let mut questions = Vec::new();
        for message in asked {
            match heard(&message) {
                Heard::Nothing => {}
                Heard::Reply(bytes) => client.answer(&bytes),
                Heard::Asked(question) if !rules.may_resolve(&question.name) => {
                    client.answer(&question.refusal(true));
                    told.push(Told::Name(question.name.text().to_owned()));
                }
                Heard::Asked(question) => questions.push(question),
            }
        }
        let (stream, resolver) = (client.stream, client.resolver);
        for asked in questions {
            self.ask(key, asked, stream, resolver);
        }
        if !alive {
            self.clients.remove(&key);
        }
        told
    }

    fn ask(&mut self, client: u64, asked: Asked, stream: bool, resolver: SocketAddr) {
        if self.queries.len() >= QUERIES {
            self.queries.pop_first();
        }
        self.next += 1;
        // The hasher's keys are random numbers that nobody else knows.
        let id = self.numbers.hash_one(self.next) as u16;
        let Some(message) = asked.query(id) else { return };
        let Ok((fd, _)) = connect(stream, resolver) else {
            if let Some(client) = self.clients.get_mut(&client) {
                client.answer(&asked.refusal(false));
            }
            return;
        };
        let mut query = Query {
            client,
            asked,
            id,
            fd,
            stream,
            output: if stream { framed(&message) } else { message },
            input: Vec::new(),
            began: Instant::now(),
        };
        if !stream {
            let _lost = rustix::net::send(&query.fd, &query.output, SendFlags::NOSIGNAL);
            query.output.clear();
        }
        self.queries.insert(self.next, query);
    }

    /// Sends more of a question, or reads what has come of it.
    fn go_on(&mut self, key: u64, rules: &Rules) -> Option<Told> {
        let query = self.queries.get_mut(&key)?;
        let message = match query.take() {
            Ok(Some(message)) => message,
            Ok(None) => return None,
            Err(_) => {
                let query = self.queries.remove(&key)?;
                self.clients.get_mut(&query.client)?.answer(&query.asked.refusal(false));
                return None;
            }
        };
        // What answers another question may be anybody's: the true one may still come.
        let answer = query.asked.answer(query.id, &message, rules, query.stream)?;
        let query = self.queries.remove(&key)?;
        self.clients.get_mut(&query.client)?.answer(&answer.bytes);
        Some(Told::Answer(query.asked, answer))
    }
}

/// A message in a stream: behind its length.
fn framed(message: &[u8]) -> Vec<u8> {
    let len = u16::try_from(message.len()).unwrap_or(0);
    [&len.to_be_bytes()[..], message].concat()
}

/// Takes a message out of a stream's bytes, if it is all there.
fn unframed(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let len = usize::from(u16::from_be_bytes(*bytes.first_chunk()?));
    let message = bytes.get(2..2 + len)?.to_vec();
    bytes.drain(..2 + len);
    Some(message)
}

impl Client {
    /// Reads what has come; false: the program has closed it, or says what no question is.
    fn take(&mut self, messages: &mut Vec<Vec<u8>>) -> bool {
        let mut bytes = [0; 4096];
        match rustix::net::recv(&self.fd, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return false,
            Ok((_, count)) if self.stream => self.input.extend_from_slice(&bytes[..count]),
            Ok((_, count)) => messages.push(bytes[..count].to_vec()),
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => return false,
        }
        while let Some(message) = unframed(&mut self.input) {
            messages.push(message);
        }
        self.input.len() <= QUESTION
    }

    /// Answers, as far as the program takes it: a datagram may get lost.
    fn answer(&mut self, message: &[u8]) {
        if !self.stream {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let _lost = rustix::net::send(&self.fd, message, flags);
        } else if self.output.len() <= UNREAD {
            self.output.extend(framed(message));
            self.send_rest();
        }
    }

    /// False: nobody is there.
    fn send_rest(&mut self) -> bool {
        while !self.output.is_empty() {
            let (front, _) = self.output.as_slices();
            match rustix::net::send(&self.fd, front, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => _ = self.output.drain(..count),
                Err(Errno::AGAIN | Errno::INTR) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

impl Query {
    /// The answer, if it has come.
    fn take(&mut self) -> Result<Option<Vec<u8>>, Errno> {
        if !self.output.is_empty() {
            match rustix::net::send(&self.fd, &self.output, SendFlags::NOSIGNAL) {
                Ok(count) => _ = self.output.drain(..count),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
                Err(errno) => return Err(errno),
            }
        }
        let mut bytes = [0; 4096];
        let count = match rustix::net::recv(&self.fd, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((_, 0)) if self.stream => return Err(Errno::CONNRESET),
            Ok((_, count)) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        if !self.stream {
            return Ok(Some(bytes[..count].to_vec()));
        }
        self.input.extend_from_slice(&bytes[..count]);
        if self.input.len() > ANSWER {
            return Err(Errno::MSGSIZE);
        }
        Ok(unframed(&mut self.input))
    }
}

/// Whether datagrams of resolvers fit into what is read.
const _: () = assert!(LARGE as usize <= 4096);
