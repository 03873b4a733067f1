//! What every socket has.

use super::options::Options;
use crate::sync::{Lock, Rank, WaitQueue};
use crate::time::Given;
use std::sync::atomic::{AtomicU64, Ordering};

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
    /// Messages that the program makes itself.
    Raw,
}

impl Kind {
    /// `SOCK_*`.
    pub fn number(self) -> u32 {
        match self {
            Kind::Stream => 1,
            Kind::Datagram => 2,
            Kind::SeqPacket => 5,
            Kind::Raw => 3,
        }
    }
}

/// What every socket has.
pub struct Core {
    /// How messages keep together.
    pub kind: Kind,
    /// The family's number.
    pub domain: u16,
    /// SO_PROTOCOL.
    pub protocol: u16,
    /// Its number as a file.
    pub ino: u64,
    /// Who made it: sockets of one user may share a port (SO_REUSEPORT).
    pub uid: u32,
    /// Notified when anything about it changes; who waits for room to send waits here, too.
    pub wait: WaitQueue,
    /// What setsockopt(2) has set.
    pub options: Lock<Options>,
}

impl Core {
    /// What a listener of the host may have waiting: whoever finds no room inside waits there.
    pub const BACKLOG: i32 = 128;

    /// A new one's.
    pub fn new(kind: Kind, domain: u16, protocol: u16, uid: u32, options: Options) -> Core {
        Core {
            kind,
            domain,
            protocol,
            uid,
            ino: NEXT_INO.fetch_add(1, Ordering::Relaxed),
            wait: WaitQueue::new(),
            options: Lock::new(Rank::SocketOptions, options),
        }
    }

    /// When a receive that starts now gives up (CLOCK_MONOTONIC ns).
    pub fn receive_deadline(&self) -> Option<u64> {
        deadline(self.options.lock().receive_timeout)
    }

    /// The same of what sends.
    pub fn send_deadline(&self) -> Option<u64> {
        deadline(self.options.lock().send_timeout)
    }
}

fn deadline(timeout: Option<u64>) -> Option<u64> {
    timeout.map(|ns| Given::from_ns(ns).after(crate::time::monotonic_ns()))
}
