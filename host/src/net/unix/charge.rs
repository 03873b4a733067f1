//! What messages cost their sender.
//!
//! A sender is charged for what it has sent until the receiver has taken it, or has gone (SO_SNDBUF, SIOCOUTQ); the
//! receiver's SO_RCVBUF counts for nothing, as on Linux. Charges are what Linux's buffers would take, bookkeeping
//! included: programs fill a socket and count, and a message of one byte costs 768.

use super::UnixSocket;
use crate::sync::event;
use std::sync::Weak;
use std::sync::atomic::Ordering;

/// Datagrams that may wait for a receiver who is not connected to the sender (net.unix.max_dgram_qlen).
pub(super) const QUEUE: usize = 10;

const PAGE: usize = 4096;
/// `struct sk_buff`, in whole cache lines.
const BOOKKEEPING: usize = 256;
/// `struct skb_shared_info`, which lies behind the bytes.
const SHARED_INFO: usize = 320;
/// Bytes of a stream that lie in one piece with the bookkeeping (SKB_MAX_HEAD), and those in pages beside it.
const STREAM_HEAD: usize = PAGE - SHARED_INFO;
const STREAM_PAGES: usize = 32 << 10;
/// The same of messages (SKB_MAX_ALLOC, MAX_SKB_FRAGS).
const MESSAGE_HEAD: usize = 4 * PAGE - SHARED_INFO;
const MESSAGE_PAGES: usize = 17 * PAGE;

/// A buffer of `head` bytes in one piece and `paged` in pages.
fn buffer(head: usize, paged: usize) -> u32 {
    let allocated = (head.next_multiple_of(64) + SHARED_INFO).next_power_of_two();
    (allocated + BOOKKEEPING + paged.next_multiple_of(PAGE)) as u32
}

/// How much of `want` bytes of a stream goes into one buffer, and its charge.
pub(super) fn part(want: usize, limit: u32) -> (usize, u32) {
    let len = want.min(limit as usize / 2 - 64).min(STREAM_HEAD + STREAM_PAGES);
    let paged = len.saturating_sub(STREAM_HEAD).next_multiple_of(PAGE).min(len);
    (len, buffer(len - paged, paged))
}

/// The charge of a message of `len` bytes.
pub(super) fn message(len: usize) -> u32 {
    let paged = len.saturating_sub(MESSAGE_HEAD).min(MESSAGE_PAGES).next_multiple_of(PAGE);
    buffer(len - paged, paged)
}

/// What a sender pays for a message as long as this lives. Not to be dropped with a socket locked: it tells the sender.
pub(super) struct Charge {
    sender: Weak<UnixSocket>,
    size: u32,
}

impl Charge {
    pub(super) fn new(sender: &UnixSocket, size: u32) -> Charge {
        sender.sent.fetch_add(size, Ordering::Relaxed);
        Charge { sender: sender.me.clone(), size }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.upgrade() {
            sender.sent.fetch_sub(self.size, Ordering::Relaxed);
            if sender.has_room() {
                let awaited = sender.no_space.swap(false, Ordering::Relaxed);
                sender.core.wait.notify(if awaited { super::OUT | event::SPACE } else { super::OUT });
            }
        }
    }
}

impl UnixSocket {
    /// Bytes charged for what was sent and not received (SIOCOUTQ).
    pub(super) fn charged(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Most that may be charged before a send waits (SO_SNDBUF).
    pub(super) fn send_buffer(&self) -> u32 {
        self.send_buffer.load(Ordering::Relaxed)
    }

    /// SO_SNDBUF was set.
    pub(super) fn send_buffer_changed(&self) {
        self.send_buffer.store(self.core.options.lock().send_buffer, Ordering::Relaxed);
        self.core.wait.notify(super::OUT);
    }

    /// Whether poll says that it can be written to: not as soon as something fits, but when a quarter is used at most.
    pub(super) fn has_room(&self) -> bool {
        u64::from(self.charged()) * 4 <= u64::from(self.send_buffer())
    }

    /// Notes that somebody waits for room.
    pub(super) fn lacks_space(&self) {
        self.no_space.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{message, part};

    #[test]
    fn charges_are_linux_ones() {
        // Worked out from net/core/skbuff.c of Linux 6.1; the abi program compares what they come to.
        assert_eq!(message(0), 768);
        assert_eq!(message(1), 768);
        assert_eq!(message(193), 1280);
        assert_eq!(message(100_000), 32768 + 256 + 69632);
        assert_eq!(part(1, 212_992), (1, 768));
        assert_eq!(part(1 << 20, 212_992), (36544, 37120));
        assert_eq!(part(1 << 20, 4608), (2240, 4352));
    }
}
