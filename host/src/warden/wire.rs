//! What a sandbox and its warden say to each other: one JSON text a message, a descriptor with some.
//!
//! Each connection (AF_UNIX, SOCK_SEQPACKET) has one request under way at most.

use super::rules::Rules;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The longest message: of rules there may be many, of all else there is little.
pub(super) const LONGEST: usize = 128 << 10;
/// The longest of those that ask: a program's name, an address, a name that was resolved.
pub(super) const ASKS: usize = 4096;
/// Descriptors that come with one message at most.
pub(super) const DESCRIPTORS: usize = 64;

/// What a warden is told first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Setup {
    /// The rules.
    pub rules: Rules,
    /// Whom names are asked of.
    pub resolvers: Vec<SocketAddr>,
    /// Standard output is the log.
    pub logs: bool,
}

/// Whose connection it is, and with whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// The program's name.
    pub program: String,
    /// TCP, or UDP.
    pub stream: bool,
    /// The other side.
    pub to: SocketAddr,
}

/// What a sandbox asks.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// A descriptor that is connected, or on its way.
    Connect(Party),
    /// The same to the machine's own loopback.
    ConnectHost(Party),
    /// Whether it may connect, by itself.
    Ask(Party),
    /// A connection with that resolver.
    Resolve {
        /// A stream, or messages.
        stream: bool,
        /// Its place in the list.
        index: usize,
    },
    /// A connection has ended. Not answered.
    Closed {
        /// Which.
        party: Party,
        /// The name that it was reached by.
        name: Option<String>,
        /// Bytes received.
        received: u64,
        /// Bytes sent.
        sent: u64,
    },
    /// The sandbox ends: everything that was said before is to be in the log when this is answered.
    Finish,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// As asked; true: it is connected already.
    Granted {
        /// The name that the address was handed out for.
        name: Option<String>,
        /// Whether it is connected.
        done: bool,
    },
    /// Not: the error's number.
    Refused(i32),
    /// It is all in the log.
    Finished,
}

/// Sends a message, with descriptors.
///
/// # Errors
/// The host's.
pub fn send(to: impl AsFd, message: &impl Serialize, with: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let text = serde_json::to_vec(message).map_err(|_| Errno::INVAL)?;
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !with.is_empty() && !control.push(SendAncillaryMessage::ScmRights(with)) {
        return Err(Errno::TOOBIG);
    }
    let piece = [IoSlice::new(&text)];
    rustix::net::sendmsg(to, &piece, &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// Receives a message of at most so many bytes. None: the other side has gone, or says nothing that can be understood.
///
/// # Errors
/// EAGAIN, the host's others.
pub fn receive<T: DeserializeOwned>(
    from: impl AsFd,
    room: usize,
) -> Result<Option<(T, Vec<OwnedFd>)>, Errno> {
    let mut text = vec![0; room];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let mut piece = [IoSliceMut::new(&mut text)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = rustix::net::recvmsg(from, &mut piece, &mut control, flags)?;
    let mut with = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            with.extend(fds);
        }
    }
    Ok(serde_json::from_slice(&text[..got.bytes]).ok().map(|message| (message, with)))
}
