//! Where file operations put and get their bytes: a program's buffers or the kernel's.
//!
//! Reads return short counts as Linux does: bytes moved before a bad address count, and EFAULT is only for a first
//! byte that cannot be moved.
//!
//! Who copies with a lock held calls `held` (or `streamed`) around it: no copy in there waits for a page of a host file.

mod held;
mod pinned;

pub use pinned::Pinned;

use super::usermem::{Missed, Missing};
use super::{Mm, PAGE_SIZE};
use crate::abi::{Errno, Result};
use crate::platform::{Access, Frame};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Most bytes that one read or write moves (Linux's MAX_RW_COUNT).
pub const MAX_RW: u64 = 0x7fff_f000;
/// Most elements of an I/O vector (UIO_MAXIOV).
pub const MAX_IOVECS: usize = 1024;

/// `struct iovec`: a buffer of the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Iovec {
    /// Its address.
    pub base: u64,
    /// Its length.
    pub len: u64,
}

impl Mm {
    /// Reads and checks a program's I/O vector, capped at [`MAX_RW`] bytes as Linux does.
    ///
    /// # Errors
    /// EINVAL for more than [`MAX_IOVECS`] elements or a length above `SSIZE_MAX`; EFAULT.
    pub fn read_iovecs(&self, addr: u64, count: u64) -> Result<Vec<Iovec>> {
        if count > MAX_IOVECS as u64 {
            return Err(Errno::EINVAL);
        }
        let mut iovecs: Vec<Iovec> = self.read_vec(addr, count as usize)?;
        let mut room = MAX_RW;
        for iovec in &mut iovecs {
            if iovec.len > i64::MAX as u64 {
                return Err(Errno::EINVAL);
            }
            if !self.in_bounds(iovec.base, iovec.len) {
                return Err(Errno::EFAULT);
            }
            iovec.len = iovec.len.min(room);
            room -= iovec.len;
        }
        Ok(iovecs)
    }
}

/// The longest message that goes in one piece (KMALLOC_MAX_SIZE, which socket(7)'s SO_SNDBUFFORCE does not lift), and how
/// much of it is copied at a time.
const LONGEST_MESSAGE: usize = 4 << 20;
const MESSAGE_PIECE: usize = 256 << 10;

/// Moves bytes of one buffer, quickly if told so: its address, how many were moved before, how many to move.
type Move<'m> = dyn FnMut(&Mm, Option<&Missed>, u64, usize, usize) -> Result<usize> + 'm;

/// A position in a list of user buffers.
#[derive(Clone, Copy)]
struct UserIo<'a> {
    mm: &'a Mm,
    first: Iovec,
    rest: &'a [Iovec],
    remaining: u64,
    /// Nothing is waited for: what has to be is noted in `missing`.
    quick: bool,
    missing: Option<Missing>,
}

impl<'a> UserIo<'a> {
    fn new(mm: &'a Mm, first: Iovec, rest: &'a [Iovec]) -> Self {
        let remaining = rest.iter().fold(first.len, |sum, iovec| sum.saturating_add(iovec.len));
        UserIo { mm, first, rest, remaining: remaining.min(MAX_RW), quick: false, missing: None }
    }

    /// The current buffer, not empty, capped at what remains; `None` at the end.
    fn current(&mut self) -> Option<(u64, usize)> {
        if self.remaining == 0 {
            return None;
        }
        while self.first.len == 0 {
            let (first, rest) = self.rest.split_first()?;
            (self.first, self.rest) = (*first, rest);
        }
        Some((self.first.base, self.first.len.min(self.remaining) as usize))
    }

    /// Leaves `max` bytes and returns how many more there were.
    fn hide(&mut self, max: u64) -> u64 {
        let rest = self.remaining.saturating_sub(max);
        self.remaining -= rest;
        rest
    }

    fn advance(&mut self, mut bytes: u64) {
        bytes = bytes.min(self.remaining);
        self.remaining -= bytes;
        while bytes != 0 {
            let part = bytes.min(self.first.len);
            self.first.base = self.first.base.wrapping_add(part);
            self.first.len -= part;
            bytes -= part;
            if bytes != 0 {
                let Some((first, rest)) = self.rest.split_first() else { return };
                (self.first, self.rest) = (*first, rest);
            }
        }
    }

    /// Moves up to `len` bytes by `step(address, done, length)`, which returns how many it moved.
    #[inline(always)]
    fn run(
        &mut self,
        len: usize,
        mut step: impl FnMut(&Mm, Option<&Missed>, u64, usize, usize) -> Result<usize>,
    ) -> Result<usize> {
        // One buffer, as a rule, and all of it in one step.
        if len as u64 == self.first.len && self.first.len == self.remaining && len != 0 {
            let missed = Missed::default();
            let result = step(self.mm, self.quick.then_some(&missed), self.first.base, 0, len);
            if result != Ok(len) {
                self.missing = missed.take();
            }
            let moved = result?;
            self.first.base += moved as u64;
            self.first.len -= moved as u64;
            self.remaining -= moved as u64;
            return Ok(moved);
        }
        self.run_slow(len, &mut step)
    }

    #[inline(never)]
    fn run_slow(&mut self, len: usize, step: &mut Move<'_>) -> Result<usize> {
        let mut done = 0;
        let missed = Missed::default();
        let quick = self.quick.then_some(&missed);
        while done < len
            && let Some((base, room)) = self.current()
        {
            let part = room.min(len - done);
            let result = step(self.mm, quick, base, done, part);
            if result != Ok(part) {
                self.missing = missed.take();
            }
            match result {
                Ok(moved) => {
                    self.advance(moved as u64);
                    done += moved;
                    if moved < part {
                        break;
                    }
                }
                Err(_) if done != 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    fn pin(&mut self, max: usize, access: Access) -> Result<Pinned> {
        let mut pinned = Pinned::default();
        let (mut first, mut rest) = (self.first, self.rest);
        let mut left = (max as u64).min(self.remaining);
        let missed = Missed::default();
        let quick = self.quick.then_some(&missed);
        while left != 0 && pinned.pieces.len() < MAX_IOVECS {
            if first.len == 0 {
                let Some((next, others)) = rest.split_first() else { break };
                (first, rest) = (*next, others);
                continue;
            }
            let len = left.min(first.len).min(PAGE_SIZE - first.base % PAGE_SIZE);
            match self.mm.pin_page(first.base, access, quick) {
                Ok(Some(frame)) => pinned.push(frame, first.base % PAGE_SIZE, len),
                Ok(None) => break,
                Err(errno) => {
                    self.missing = missed.take();
                    if pinned.len == 0 || self.missing.is_some() {
                        return Err(errno);
                    }
                    break;
                }
            }
            first.base += len;
            first.len -= len;
            left -= len;
        }
        Ok(pinned)
    }
}

enum Sink<'a> {
    User(UserIo<'a>),
    Kernel { buffer: &'a mut [u8], done: usize },
}

/// Where a read puts its bytes.
pub struct IoDst<'a>(Sink<'a>);

impl<'a> IoDst<'a> {
    /// One buffer of a program.
    pub fn user(mm: &'a Mm, addr: u64, len: u64) -> Self {
        IoDst(Sink::User(UserIo::new(mm, Iovec { base: addr, len }, &[])))
    }

    /// A program's vector of buffers (from [`Mm::read_iovecs`]).
    pub fn user_iovecs(mm: &'a Mm, iovecs: &'a [Iovec]) -> Self {
        IoDst(Sink::User(UserIo::new(mm, Iovec::default(), iovecs)))
    }

    /// A buffer of the kernel.
    pub fn kernel(buffer: &'a mut [u8]) -> Self {
        IoDst(Sink::Kernel { buffer, done: 0 })
    }

    /// Has `body` see no more than the next `max` bytes. (The kernel's own buffers are short anyhow.)
    pub fn piece<R>(&mut self, max: usize, body: impl FnOnce(&mut Self) -> R) -> R {
        let rest = match &mut self.0 {
            Sink::User(io) => io.hide(max as u64),
            Sink::Kernel { .. } => 0,
        };
        let result = body(self);
        if let Sink::User(io) = &mut self.0 {
            io.remaining += rest;
        }
        result
    }

    /// Bytes that still fit.
    pub fn remaining(&self) -> usize {
        match &self.0 {
            Sink::User(io) => io.remaining as usize,
            Sink::Kernel { buffer, done } => buffer.len() - done,
        }
    }

    /// Appends bytes and returns how many fitted.
    ///
    /// # Errors
    /// EFAULT if not even one could be written.
    #[inline]
    pub fn write_bytes(&mut self, from: &[u8]) -> Result<usize> {
        match &mut self.0 {
            Sink::User(io) => io.run(from.len(), |mm, quick, base, done, len| {
                mm.write_by(base, &from[done..done + len], quick)
            }),
            Sink::Kernel { buffer, done } => {
                let len = from.len().min(buffer.len() - *done);
                buffer[*done..*done + len].copy_from_slice(&from[..len]);
                *done += len;
                Ok(len)
            }
        }
    }

    /// Appends zeroes.
    ///
    /// # Errors
    /// As [`Self::write_bytes`].
    #[inline]
    pub fn write_zeroes(&mut self, len: usize) -> Result<usize> {
        match &mut self.0 {
            Sink::User(io) => io.run(len, |mm, quick, base, _, len| mm.zero_by(base, len, quick)),
            Sink::Kernel { buffer, done } => {
                let len = len.min(buffer.len() - *done);
                buffer[*done..*done + len].fill(0);
                *done += len;
                Ok(len)
            }
        }
    }

    /// Appends bytes of a frame that the caller holds, without a copy in between.
    ///
    /// # Errors
    /// As [`Self::write_bytes`]; also EFAULT if it is a host file's page that is gone.
    ///
    /// # Panics
    /// If the range leaves the frame.
    pub fn write_frame(&mut self, frame: Frame, offset: usize, len: usize) -> Result<usize> {
        assert!(offset + len <= PAGE_SIZE as usize, "range leaves the frame");
        match &mut self.0 {
            Sink::User(io) => io.run(len, |mm, quick, base, done, len| {
                mm.copy_frame(base, frame, offset + done, len, true, quick)
            }),
            Sink::Kernel { buffer, done } => {
                let len = len.min(buffer.len() - *done);
                super::raw::read(frame.0 + offset as u64, &mut buffer[*done..*done + len])
                    .map_err(|_| Errno::EFAULT)?;
                *done += len;
                Ok(len)
            }
        }
    }

    /// Holds up to `max` bytes of the target in place for the host to write to; then [`Self::advance`] by what it
    /// wrote. Kernel buffers give an empty result: copy through [`Self::write_bytes`].
    ///
    /// # Errors
    /// EFAULT if not even one byte is writable.
    pub fn pin(&mut self, max: usize) -> Result<Pinned> {
        match &mut self.0 {
            Sink::User(io) => io.pin(max, Access::Write),
            Sink::Kernel { .. } => Ok(Pinned::default()),
        }
    }

    /// Skips bytes that were written through [`Self::pin`].
    pub fn advance(&mut self, bytes: usize) {
        match &mut self.0 {
            Sink::User(io) => io.advance(bytes as u64),
            Sink::Kernel { buffer, done } => *done = (*done + bytes).min(buffer.len()),
        }
    }
}

enum Source<'a> {
    User(UserIo<'a>),
    Kernel(&'a [u8]),
}

/// Where a write gets its bytes.
pub struct IoSrc<'a>(Source<'a>);

impl<'a> IoSrc<'a> {
    /// Lets others go first if it is time to, where a program's bytes are copied often. Called without a lock held.
    pub fn give_way(&self) {
        if let Source::User(io) = &self.0 {
            io.mm.give_way();
        }
    }

    /// One buffer of a program.
    pub fn user(mm: &'a Mm, addr: u64, len: u64) -> Self {
        IoSrc(Source::User(UserIo::new(mm, Iovec { base: addr, len }, &[])))
    }

    /// A program's vector of buffers (from [`Mm::read_iovecs`]).
    pub fn user_iovecs(mm: &'a Mm, iovecs: &'a [Iovec]) -> Self {
        IoSrc(Source::User(UserIo::new(mm, Iovec::default(), iovecs)))
    }

    /// Bytes of the kernel.
    pub fn kernel(bytes: &'a [u8]) -> Self {
        IoSrc(Source::Kernel(bytes))
    }

    /// The same bytes again: reading from the copy takes nothing off this one.
    pub fn peek(&self) -> IoSrc<'a> {
        IoSrc(match &self.0 {
            Source::User(io) => Source::User(*io),
            Source::Kernel(bytes) => Source::Kernel(bytes),
        })
    }

    /// Has `body` see no more than the next `max` bytes. (The kernel's own buffers are short anyhow.)
    pub fn piece<R>(&mut self, max: usize, body: impl FnOnce(&mut Self) -> R) -> R {
        let rest = match &mut self.0 {
            Source::User(io) => io.hide(max as u64),
            Source::Kernel(_) => 0,
        };
        let result = body(self);
        if let Source::User(io) = &mut self.0 {
            io.remaining += rest;
        }
        result
    }

    /// Bytes that are left.
    pub fn remaining(&self) -> usize {
        match &self.0 {
            Source::User(io) => io.remaining as usize,
            Source::Kernel(bytes) => bytes.len(),
        }
    }

    /// Ends it after `max` bytes.
    pub fn limit(&mut self, max: usize) {
        match &mut self.0 {
            Source::User(io) => io.remaining = io.remaining.min(max as u64),
            Source::Kernel(bytes) => *bytes = &bytes[..bytes.len().min(max)],
        }
    }

    /// Takes bytes off the front and returns how many.
    ///
    /// # Errors
    /// EFAULT if not even one could be read.
    #[inline]
    pub fn read_bytes(&mut self, to: &mut [u8]) -> Result<usize> {
        match &mut self.0 {
            Source::User(io) => io.run(to.len(), |mm, quick, base, done, len| {
                mm.read_by(base, &mut to[done..done + len], quick)
            }),
            Source::Kernel(bytes) => {
                let len = to.len().min(bytes.len());
                let (now, rest) = bytes.split_at(len);
                to[..len].copy_from_slice(now);
                *bytes = rest;
                Ok(len)
            }
        }
    }

    /// The next `len` bytes, of a message that goes whole: they are not taken off. Gives way; to be called without a lock.
    ///
    /// # Errors
    /// EFAULT; ENOBUFS where nobody has memory for that much; EINTR when the program is to end.
    pub fn whole_message(&self, len: usize) -> Result<Vec<u8>> {
        if len > LONGEST_MESSAGE {
            return Err(Errno::ENOBUFS);
        }
        let (mut bytes, mut from) = (vec![0; len], self.peek());
        for piece in bytes.chunks_mut(MESSAGE_PIECE) {
            if from.read_bytes(piece)? < piece.len() {
                return Err(Errno::EFAULT);
            }
            from.pause()?;
        }
        Ok(bytes)
    }

    /// Lets others go first if it is time to. To be called without a lock.
    ///
    /// # Errors
    /// EINTR when the program is to end.
    pub fn pause(&self) -> Result<()> {
        match &self.0 {
            Source::User(io) => io.mm.pause(),
            Source::Kernel(_) => Ok(()),
        }
    }

    /// Copies bytes into a frame that the caller holds, without a copy in between.
    ///
    /// # Errors
    /// As [`Self::read_bytes`].
    ///
    /// # Panics
    /// If the range leaves the frame, or the frame is a host file's.
    pub fn read_frame(&mut self, frame: Frame, offset: usize, len: usize) -> Result<usize> {
        assert!(offset + len <= PAGE_SIZE as usize, "range leaves the frame");
        match &mut self.0 {
            Source::User(io) => io.run(len, |mm, quick, base, done, len| {
                mm.copy_frame(base, frame, offset + done, len, false, quick)
            }),
            Source::Kernel(bytes) => {
                let len = len.min(bytes.len());
                let (now, rest) = bytes.split_at(len);
                super::raw::write(frame.0 + offset as u64, now);
                *bytes = rest;
                Ok(len)
            }
        }
    }

    /// Holds up to `max` bytes of the source in place for the host to read; then [`Self::advance`] by what it
    /// read. Empty for kernel buffers and pages of host files: copy through [`Self::read_bytes`].
    ///
    /// # Errors
    /// EFAULT if not even one byte is readable.
    pub fn pin(&mut self, max: usize) -> Result<Pinned> {
        match &mut self.0 {
            Source::User(io) => io.pin(max, Access::Read),
            Source::Kernel(_) => Ok(Pinned::default()),
        }
    }

    /// Skips bytes that were read through [`Self::pin`].
    pub fn advance(&mut self, bytes: usize) {
        match &mut self.0 {
            Source::User(io) => io.advance(bytes as u64),
            Source::Kernel(from) => *from = &from[bytes.min(from.len())..],
        }
    }
}
