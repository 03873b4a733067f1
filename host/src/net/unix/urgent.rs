//! Urgent data: what is sent with MSG_OOB on a stream (unix(7); Linux 5.15 and later).
//!
//! Its last byte is the urgent one and a message of its own. Received as such it leaves an empty message behind, the mark, at
//! which reads stop; a read that begins there passes over it, and over an urgent byte that nobody wanted unless that is in
//! line. There is one at a time: an earlier one that was not received becomes an ordinary byte.

use super::receive::{Reading, Spent, spend};
use super::{Role, State, UnixSocket};
use crate::abi::{Errno, Result};
use crate::mm::IoDst;
use crate::net::message::MSG_OOB;
use crate::net::{How, Kind, Received};
use crate::sync::event;
use linux_raw_sys::general as c;
use linux_raw_sys::net as n;

/// What its coming notifies besides.
pub(super) const URGENT: u32 = c::POLLPRI | event::URGENT;

impl State {
    /// A number for a message that is to be the urgent one.
    pub(super) fn new_urgent(&mut self) -> u64 {
        self.urgencies += 1;
        self.urgent = Some(self.urgencies);
        self.urgencies
    }

    fn is_urgent(&self, at: usize) -> bool {
        self.queue.get(at).is_some_and(|message| message.urgent.is_some() && message.urgent == self.urgent)
    }

    /// Whether a message is what is left of one that was urgent.
    pub(super) fn is_mark(&self, at: usize) -> bool {
        self.queue.get(at).is_some_and(|message| message.urgent.is_some() && message.len() == 0)
    }

    /// Whether what comes next is urgent, or was until it was received (SIOCATMARK).
    pub(super) fn at_mark(&self) -> bool {
        self.is_urgent(0) || self.is_mark(0) && (self.urgent.is_none() || self.is_urgent(1))
    }

    /// Where a read that is at `at`, and has `copied` something, goes on; `None`: it ends (af_unix.c, manage_oob).
    #[inline]
    pub(super) fn beside_urgent(
        &mut self,
        at: usize,
        copied: bool,
        how: Reading<'_>,
        spent: &mut Spent,
    ) -> Option<usize> {
        if self.queue.get(at)?.urgent.is_none() {
            return Some(at);
        }
        self.pass_urgent(at, copied, how, spent)
    }

    #[cold]
    fn pass_urgent(
        &mut self,
        mut at: usize,
        copied: bool,
        how: Reading<'_>,
        spent: &mut Spent,
    ) -> Option<usize> {
        if self.is_mark(at) {
            if copied && self.urgent.is_none() {
                return None;
            }
            self.pass(&mut at, how.peek, spent);
        }
        if self.is_urgent(at) {
            if copied {
                return None;
            }
            if !how.peek {
                self.urgent = None;
            }
            if !how.core.options.lock().is_on(n::SO_OOBINLINE) {
                self.pass(&mut at, how.peek, spent);
            }
        }
        (at < self.queue.len()).then_some(at)
    }

    /// Goes on to the next message; one that is not only looked at is gone.
    fn pass(&mut self, at: &mut usize, peek: bool, spent: &mut Spent) {
        if peek {
            *at += 1;
        } else if let Some(message) = self.queue.remove(*at) {
            spend(spent, message);
        }
    }
}

impl UnixSocket {
    /// Receives the urgent byte.
    ///
    /// # Errors
    /// EINVAL where there is none, or it is in line; EOPNOTSUPP, EFAULT.
    #[cold]
    pub(super) fn receive_urgent(&self, dst: &mut IoDst<'_>, how: How) -> Result<Received> {
        if self.core.kind != Kind::Stream {
            return Err(Errno::EOPNOTSUPP);
        }
        let inline = self.core.options.lock().is_on(n::SO_OOBINLINE);
        let mut spent: Spent = (None, Vec::new());
        let mut state = self.state.lock();
        let number = state.urgent.filter(|_| !inline && matches!(state.role, Role::Connected { .. }));
        let number = number.ok_or(Errno::EINVAL)?;
        let at =
            state.queue.iter().rposition(|message| message.urgent == Some(number)).ok_or(Errno::EINVAL)?;
        let message = &mut state.queue[at];
        let byte = message.bytes[0];
        if !how.peek() {
            message.read = 1;
            state.urgent = None;
            if let Some(before) = at.checked_sub(1).filter(|before| state.is_mark(*before)) {
                state.pass(&mut { before }, false, &mut spent);
            }
        }
        drop(state);
        drop(spent);
        // It is gone also where it cannot be copied.
        if dst.remaining() > 0 {
            dst.write_bytes(&[byte])?;
        }
        // (Nobody is told who sent it, asked or not.)
        Ok(Received { count: 1, full: 1, flags: MSG_OOB, ..Received::default() })
    }
}
