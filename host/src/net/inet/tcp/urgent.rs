//! Urgent data: what is sent with MSG_OOB (tcp(7)).
//!
//! Its last byte is the urgent one. It lies in the stream where it was sent; a reader stops before it once, is then told that
//! it is at the mark (SIOCATMARK), and passes over it unless it wants it in line. There is one at a time: an earlier one that
//! was not reached becomes an ordinary byte.

use super::connection::{Connection, End};
use crate::abi::{Errno, Result};
use crate::mm::IoDst;
use crate::net::Received;
use crate::net::message::{MSG_OOB, MSG_PEEK, MSG_TRUNC};
use crate::sync::event;
use linux_raw_sys::general as c;

/// The urgent byte of an end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Urgent {
    /// Bytes of the buffer before it.
    ahead: usize,
    /// What it is, until it was received as such.
    byte: Option<u8>,
}

impl Urgent {
    /// Bytes to be read before it.
    pub(super) fn ahead(&self) -> usize {
        self.ahead
    }

    /// How much of what waits makes nobody ready to read, and what poll(2) says besides.
    pub(super) fn poll(&self, inline: bool) -> (usize, u32) {
        let beside = usize::from(self.ahead == 0 && !inline);
        (beside, if self.byte.is_some() { c::POLLPRI } else { 0 })
    }
}

impl End {
    /// The last of `count` bytes that have just come is urgent; returns what is to be notified.
    pub(super) fn mark(&mut self, count: usize) -> u32 {
        if count == 0 {
            return 0;
        }
        // An earlier one at which the reader stands is not read as data (tcp_check_urg).
        if self.urgent.is_some_and(|urgent| urgent.ahead == 0) && !self.inline {
            self.buffer.skip(1);
        }
        let byte = self.buffer.last();
        self.urgent = Some(Urgent { ahead: self.buffer.len().saturating_sub(1), byte });
        c::POLLPRI | event::URGENT
    }

    /// Where a read begins, and how far it goes.
    pub(super) fn up_to_urgent(&mut self, peek: bool) -> (usize, usize) {
        match self.urgent {
            Some(Urgent { ahead: 0, .. }) if self.inline => (0, usize::MAX),
            Some(Urgent { ahead: 0, .. }) if peek => (1, usize::MAX),
            Some(Urgent { ahead: 0, .. }) => {
                self.buffer.skip(1);
                self.urgent = None;
                (0, usize::MAX)
            }
            Some(urgent) => (0, urgent.ahead),
            None => (0, usize::MAX),
        }
    }

    /// So many bytes have been read; says whether the urgent one comes next.
    pub(super) fn passed(&mut self, count: usize) -> bool {
        self.urgent =
            self.urgent.and_then(|urgent| Some(Urgent { ahead: urgent.ahead.checked_sub(count)?, ..urgent }));
        count > 0 && self.at_mark()
    }

    fn at_mark(&self) -> bool {
        self.urgent.is_some_and(|urgent| urgent.ahead == 0)
    }
}

impl Connection {
    /// Whether what comes next is urgent (SIOCATMARK).
    pub(super) fn at_mark(&self, end: usize) -> bool {
        self.ends.lock()[end].at_mark()
    }

    /// Receives the urgent byte.
    ///
    /// # Errors
    /// EINVAL where there is none, or it is in line; ENOTCONN, EFAULT.
    pub(super) fn receive_urgent(&self, end: usize, dst: &mut IoDst<'_>, flags: u32) -> Result<Received> {
        let byte = {
            let mut ends = self.ends.lock();
            let own = &mut ends[end];
            let urgent = own.urgent.as_mut().filter(|_| !own.inline).ok_or(Errno::EINVAL)?;
            let byte = urgent.byte.ok_or(Errno::EINVAL)?;
            if own.dead && !own.fin_received {
                return Err(Errno::ENOTCONN);
            }
            if flags & MSG_PEEK == 0 {
                urgent.byte = None;
            }
            byte
        };
        // It is gone also where it cannot be copied.
        if dst.remaining() == 0 {
            return Ok(Received { flags: MSG_OOB | MSG_TRUNC, ..Received::default() });
        }
        if flags & MSG_TRUNC == 0 {
            dst.write_bytes(&[byte])?;
        }
        Ok(Received { count: 1, full: 1, flags: MSG_OOB, ..Received::default() })
    }
}
