//! What goes along with messages, and what comes with them.

use super::links::change::Networks;
use super::{Address, Raw, Socket};
use crate::vfs::{File, Lookup, Parcel};
use std::sync::Arc;

/// Look without taking.
pub const MSG_PEEK: u32 = 2;
/// Urgent data.
pub const MSG_OOB: u32 = 1;
/// Control messages did not fit.
pub const MSG_CTRUNC: u32 = 8;
/// The message did not fit; asked for, its whole length is told.
pub const MSG_TRUNC: u32 = 0x20;
/// Do not wait.
pub const MSG_DONTWAIT: u32 = 0x40;
/// Wait for all of it.
pub const MSG_WAITALL: u32 = 0x100;
/// More follows.
pub const MSG_MORE: u32 = 0x8000;
/// No SIGPIPE.
pub const MSG_NOSIGNAL: u32 = 0x4000;
/// What was queued with an error.
pub const MSG_ERRQUEUE: u32 = 0x2000;
/// Received files are closed at exec.
pub const MSG_CMSG_CLOEXEC: u32 = 0x4000_0000;

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

/// Who is at the other end of a connection: as it was made, whoever holds the socket now.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Process, user and group.
    pub creds: Creds,
    /// Supplementary groups.
    pub groups: Arc<[u32]>,
}

/// A control message that only the family understands.
#[derive(Clone, Debug)]
pub struct Control {
    /// `cmsg_level`.
    pub level: i32,
    /// `cmsg_type`.
    pub kind: i32,
    /// What follows the header.
    pub data: Vec<u8>,
}

/// Where a message is to go.
#[derive(Clone, Copy)]
pub struct Destination<'a> {
    /// An address.
    pub address: &'a Raw,
    /// Who says so.
    pub by: &'a Lookup<'a>,
}

/// What is sent along.
#[derive(Default)]
pub struct Outgoing<'a> {
    /// Where to, if the call says.
    pub to: Option<Destination<'a>>,
    /// The socket that this was found to be: attempts that follow need not look again.
    pub target: Option<Arc<dyn Socket>>,
    /// `MSG_*` bits.
    pub flags: u32,
    /// The sender.
    pub creds: Creds,
    /// The sender, or who it may say it is: to be told whether the receiver asks or not.
    pub named: Option<Creds>,
    /// Files: the first message, or part of a stream, takes them.
    pub files: Option<Parcel>,
    /// Other control messages.
    pub control: Vec<Control>,
    /// What finds the networks that a message to the kernel names.
    pub networks: Option<&'a dyn Networks>,
}

/// How to receive.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// `MSG_*` bits.
    pub flags: u32,
    /// The sender's address and control messages are wanted.
    pub details: bool,
}

impl How {
    /// Whether what is received stays.
    pub fn peek(self) -> bool {
        self.flags & MSG_PEEK != 0
    }
}

/// What was received.
#[derive(Default)]
pub struct Received {
    /// Bytes copied.
    pub count: usize,
    /// Bytes the message had.
    pub full: usize,
    /// The sender's address.
    pub from: Address,
    /// The sender, where the receiver wants to know.
    pub creds: Option<Creds>,
    /// Files that came with it.
    pub files: Vec<Arc<File>>,
    /// `MSG_*` bits to be told.
    pub flags: u32,
    /// A receive that waits for more ends here: what follows is behind urgent data.
    pub stop: bool,
    /// Other control messages.
    pub control: Vec<Control>,
}
