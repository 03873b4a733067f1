//! Moving bytes between pipes and other files without losing any: room is kept before they are taken from elsewhere, and
//! what could not be handed on is put back where it came from.

use super::{IN, OUT, PIPE_BUF, PipeEnd, Ring, State};
use crate::abi::{Errno, Result};
use crate::mm::{IoDst, IoSrc};

impl State {
    /// Bytes that can be written.
    pub(super) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.ring.len() + self.kept)
    }
}

impl Ring {
    /// Puts bytes back in front.
    fn put_back(&mut self, bytes: &[u8]) {
        let mut all = vec![0; bytes.len() + self.len].into_boxed_slice();
        all[..bytes.len()].copy_from_slice(bytes);
        let run = self.len.min(self.bytes.len() - self.head);
        let (first, second) = all[bytes.len()..].split_at_mut(run);
        first.copy_from_slice(&self.bytes[self.head..self.head + run]);
        let rest = second.len();
        second.copy_from_slice(&self.bytes[..rest]);
        (self.bytes, self.head, self.len) = (all, 0, bytes.len() + self.len);
    }
}

/// Room kept in a pipe.
pub struct Room<'a> {
    end: &'a PipeEnd,
    len: usize,
}

impl PipeEnd {
    /// Keeps up to `max` bytes of room.
    ///
    /// # Errors
    /// EPIPE when nobody will read, EAGAIN when there is no room.
    pub fn keep_room(&self, max: usize) -> Result<Room<'_>> {
        let mut state = self.pipe.state.lock();
        if state.readers == 0 {
            return Err(Errno::EPIPE);
        }
        let len = max.min(state.room());
        if len == 0 {
            return Err(Errno::EAGAIN);
        }
        state.kept += len;
        Ok(Room { end: self, len })
    }

    /// Whether there is something to read; false at the end.
    ///
    /// # Errors
    /// EAGAIN if there is nothing yet.
    pub fn ready(&self) -> Result<bool> {
        let state = self.pipe.state.lock();
        match (state.ring.is_empty(), state.writers) {
            (false, _) => Ok(true),
            (true, 0) => Ok(false),
            (true, _) => Err(Errno::EAGAIN),
        }
    }

    /// Takes up to `max` bytes out; none at the end.
    ///
    /// # Errors
    /// EAGAIN if there is nothing.
    pub fn take_out(&self, max: usize) -> Result<Vec<u8>> {
        if !self.ready()? {
            return Ok(Vec::new());
        }
        // Somebody else may be faster: then this is EAGAIN, too.
        let mut bytes = vec![0; max.min(self.pending().max(1))];
        let count = self.take(&mut IoDst::kernel(&mut bytes), true)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// Puts back what [`take_out`](Self::take_out) gave and could not be used.
    pub fn put_back(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.pipe.state.lock().ring.put_back(bytes);
            self.pipe.queue.notify(IN);
        }
    }
}

impl Room<'_> {
    /// How much it is.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is none, which it never is.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills it, or part of it.
    pub fn fill(self, bytes: &[u8]) {
        let mut state = self.end.pipe.state.lock();
        let (capacity, room) = (state.capacity.max(bytes.len()), bytes.len().min(self.len));
        let _ = state.ring.fill(&mut IoSrc::kernel(bytes), room, capacity);
        drop(state);
        if !bytes.is_empty() {
            self.end.pipe.queue.notify(IN);
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut state = self.end.pipe.state.lock();
        state.kept -= self.len;
        let room = state.room();
        drop(state);
        if room >= PIPE_BUF {
            self.end.pipe.queue.notify(OUT);
        }
    }
}
