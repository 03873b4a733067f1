//! Pipes and FIFOs: a ring of bytes between those who write and those who read.
//!
//! The ring grows with use up to the pipe's capacity, so that the many pipes that carry a line or two stay small.

mod room;

pub use room::Room;

use crate::abi::{Errno, Result};
use crate::mm::{IoDst, IoSrc};
use crate::sync::{Lock, Rank, WaitQueue, event};
use crate::vfs::{File, FileOps, Ioctl, LockSlot, OpenHow, Stat, Timestamp, makedev};
use linux_raw_sys::general as c;
use linux_raw_sys::ioctl::FIONREAD;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes up to this many bytes are atomic.
pub const PIPE_BUF: usize = 4096;
/// Capacity of a new pipe.
const DEFAULT_CAPACITY: usize = 65536;
/// Largest capacity that F_SETPIPE_SZ gives (fs.pipe-max-size).
pub const MAX_CAPACITY: usize = 1 << 20;
/// The first ring allocated.
const FIRST_RING: usize = 1024;
/// `st_dev` of pipes.
const PIPE_DEV: u64 = makedev(0, 13);

const IN: u32 = c::POLLIN | c::POLLRDNORM;
const OUT: u32 = c::POLLOUT | c::POLLWRNORM;

/// Inode numbers of pipes.
static NEXT_INO: AtomicU64 = AtomicU64::new(1 << 16);

/// A ring of bytes.
#[derive(Default)]
pub struct Ring {
    bytes: Box<[u8]>,
    head: usize,
    len: usize,
}

impl Ring {
    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes room for `total` bytes.
    #[cold]
    fn grow(&mut self, total: usize, capacity: usize) {
        let size = total.next_power_of_two().clamp(FIRST_RING, capacity.max(FIRST_RING));
        let mut bytes = vec![0; size.max(total)].into_boxed_slice();
        let run = self.len.min(self.bytes.len() - self.head);
        bytes[..run].copy_from_slice(&self.bytes[self.head..self.head + run]);
        bytes[run..self.len].copy_from_slice(&self.bytes[..self.len - run]);
        self.bytes = bytes;
        self.head = 0;
    }

    /// Takes up to `room` bytes out of `src`.
    #[inline]
    fn fill(&mut self, src: &mut IoSrc<'_>, room: usize, capacity: usize) -> Result<usize> {
        let want = src.remaining().min(room);
        if self.len + want > self.bytes.len() {
            self.grow(self.len + want, capacity);
        }
        let mut at = self.head + self.len;
        if at >= self.bytes.len() {
            at -= self.bytes.len();
        }
        let run = want.min(self.bytes.len() - at);
        let mut done = src.read_bytes(&mut self.bytes[at..at + run])?;
        if done == run && run < want {
            // The rest, from the start of the ring. What has been taken is not lost, whatever becomes of this.
            done += src.read_bytes(&mut self.bytes[..want - run]).unwrap_or(0);
        }
        let done = before_a_fault(done, want)?;
        self.len += done;
        Ok(done)
    }

    /// Hands bytes to `dst`, and forgets them if `consume`.
    #[inline]
    fn drain(&mut self, dst: &mut IoDst<'_>, consume: bool) -> Result<usize> {
        let run = self.len.min(self.bytes.len() - self.head);
        let want = run.min(dst.remaining());
        let mut done = dst.write_bytes(&self.bytes[self.head..self.head + want])?;
        let rest = (self.len - run).min(dst.remaining());
        let rest = if done == run { rest } else { 0 };
        if rest != 0 {
            // As in `fill`.
            done += dst.write_bytes(&self.bytes[..rest]).unwrap_or(0);
        }
        let done = before_a_fault(done, want + rest)?;
        if consume {
            self.skip(done);
        }
        Ok(done)
    }

    #[inline]
    fn skip(&mut self, count: usize) {
        self.len -= count;
        self.head += count;
        if self.len == 0 {
            self.head = 0;
        } else if self.head >= self.bytes.len() {
            self.head -= self.bytes.len();
        }
    }
}

/// What counts of a copy that ended early at memory that is not there: Linux keeps pages and copies them whole or not
/// at all.
#[inline]
fn before_a_fault(done: usize, want: usize) -> Result<usize> {
    if done == want {
        return Ok(done);
    }
    match done - done % PIPE_BUF {
        0 => Err(Errno::EFAULT),
        whole => Ok(whole),
    }
}

struct State {
    ring: Ring,
    capacity: usize,
    /// Room that somebody keeps for what is on its way from elsewhere.
    kept: usize,
    readers: u32,
    writers: u32,
    /// How many ends were ever opened for reading and for writing: a FIFO's open waits for the other to move.
    reads_opened: u64,
    writes_opened: u64,
}

/// What the ends of a pipe share.
pub struct Pipe {
    state: Lock<State>,
    queue: WaitQueue,
    ino: u64,
    made: Timestamp,
    locks: LockSlot,
}

impl Pipe {
    /// A pipe without ends.
    pub fn new() -> Arc<Pipe> {
        Arc::new(Pipe {
            state: Lock::new(
                Rank::Pipe,
                State {
                    ring: Ring::default(),
                    capacity: DEFAULT_CAPACITY,
                    kept: 0,
                    readers: 0,
                    writers: 0,
                    reads_opened: 0,
                    writes_opened: 0,
                },
            ),
            queue: WaitQueue::new(),
            ino: NEXT_INO.fetch_add(1, Ordering::Relaxed),
            made: Timestamp::now(),
            locks: LockSlot::new(Rank::FileLockSlot, None),
        })
    }

    /// Both ends of a new pipe; `flags` as pipe2(2).
    pub fn pair(flags: u32) -> (Arc<File>, Arc<File>) {
        let pipe = Pipe::new();
        let status = flags & c::O_NONBLOCK;
        (
            File::anon(pipe.end(true, false, false), c::O_RDONLY | status),
            File::anon(pipe.end(false, true, false), c::O_WRONLY | status),
        )
    }

    fn end(self: &Arc<Self>, read: bool, write: bool, fifo: bool) -> Arc<PipeEnd> {
        let mut state = self.state.lock();
        state.readers += u32::from(read);
        state.writers += u32::from(write);
        state.reads_opened += u64::from(read);
        state.writes_opened += u64::from(write);
        let (reads_seen, writes_seen) = (state.reads_opened, state.writes_opened);
        let complete = !fifo || (read && write) || if read { state.writers > 0 } else { state.readers > 0 };
        drop(state);
        if fifo {
            self.queue.notify(!0);
        }
        Arc::new(PipeEnd { pipe: self.clone(), read, write, fifo, complete, reads_seen, writes_seen })
    }

    /// Opens a FIFO. The caller waits until the end is [`FileOps::opened`].
    ///
    /// # Errors
    /// ENXIO for O_WRONLY | O_NONBLOCK without a reader.
    pub fn open_fifo(self: &Arc<Self>, how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        let access = how.flags & c::O_ACCMODE;
        let (read, write) = (access != c::O_WRONLY, access != c::O_RDONLY);
        if write && !read && how.flags & c::O_NONBLOCK != 0 && self.state.lock().readers == 0 {
            return Err(Errno::ENXIO);
        }
        Ok(self.end(read, write, true))
    }
}

/// One open end.
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    read: bool,
    write: bool,
    fifo: bool,
    /// The other side was there when this one was opened.
    complete: bool,
    reads_seen: u64,
    writes_seen: u64,
}

impl PipeEnd {
    /// Bytes waiting to be read.
    pub fn pending(&self) -> usize {
        self.pipe.state.lock().ring.len()
    }

    /// The capacity.
    pub fn capacity(&self) -> usize {
        self.pipe.state.lock().capacity
    }

    /// Changes the capacity (F_SETPIPE_SZ) and returns what it became.
    ///
    /// # Errors
    /// EBUSY if more is in it, EPERM above the maximum, EINVAL for 0.
    pub fn set_capacity(&self, want: usize) -> Result<usize> {
        if want == 0 {
            return Err(Errno::EINVAL);
        }
        let want = want.max(PIPE_BUF).next_power_of_two();
        if want > MAX_CAPACITY {
            return Err(Errno::EPERM);
        }
        let mut state = self.pipe.state.lock();
        if want < state.ring.len() {
            return Err(Errno::EBUSY);
        }
        state.capacity = want;
        drop(state);
        self.pipe.queue.notify(OUT);
        Ok(want)
    }

    /// Copies what waits to be read without taking it (tee).
    ///
    /// # Errors
    /// EAGAIN if there is nothing.
    pub fn peek(&self, dst: &mut IoDst<'_>) -> Result<usize> {
        self.take(dst, false)
    }

    /// Whether `other` is an end of the same pipe.
    pub fn same_pipe(&self, other: &PipeEnd) -> bool {
        Arc::ptr_eq(&self.pipe, &other.pipe)
    }

    #[inline]
    fn take(&self, dst: &mut IoDst<'_>, consume: bool) -> Result<usize> {
        if consume {
            dst.streamed(|dst| self.take_some(dst, true))
        } else {
            dst.held(|dst| self.take_some(dst, false))
        }
    }

    #[inline]
    fn take_some(&self, dst: &mut IoDst<'_>, consume: bool) -> Result<usize> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        let mut state = self.pipe.state.lock();
        if state.ring.is_empty() {
            return if state.writers == 0 { Ok(0) } else { Err(Errno::EAGAIN) };
        }
        let count = state.ring.drain(dst, consume)?;
        let room = state.room();
        drop(state);
        if consume {
            self.pipe.queue.notify(if room >= PIPE_BUF { OUT | event::SPACE } else { event::SPACE });
        }
        Ok(count)
    }
}

impl PipeEnd {
    #[inline]
    fn put(&self, src: &mut IoSrc<'_>) -> Result<usize> {
        let want = src.remaining();
        if want == 0 {
            return Ok(0);
        }
        let mut guard = self.pipe.state.lock();
        let state = &mut *guard;
        if state.readers == 0 {
            return Err(Errno::EPIPE);
        }
        let room = state.room();
        if room == 0 || (want <= PIPE_BUF && room < want) {
            return Err(Errno::EAGAIN);
        }
        let count = state.ring.fill(src, room, state.capacity)?;
        drop(guard);
        self.pipe.queue.notify(IN);
        Ok(count)
    }
}

impl FileOps for PipeEnd {
    fn read(&self, dst: &mut IoDst<'_>, offset: Option<u64>) -> Result<usize> {
        if offset.is_some() {
            return Err(Errno::ESPIPE);
        }
        self.take(dst, true)
    }

    fn write(&self, src: &mut IoSrc<'_>, offset: Option<u64>) -> Result<usize> {
        if offset.is_some() {
            return Err(Errno::ESPIPE);
        }
        src.streamed(|src| self.put(src))
    }

    fn poll(&self) -> u32 {
        let state = self.pipe.state.lock();
        let mut events = 0;
        if self.read {
            if !state.ring.is_empty() {
                events |= IN;
            }
            // A FIFO that nobody opened for writing yet has not been hung up.
            if state.writers == 0 && (!self.fifo || self.complete || state.writes_opened > self.writes_seen) {
                events |= c::POLLHUP;
            }
        }
        if self.write {
            if state.room() >= PIPE_BUF {
                events |= OUT;
            }
            if state.readers == 0 {
                events |= c::POLLERR;
            }
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.pipe.queue)
    }

    fn opened(&self) -> bool {
        if self.complete {
            return true;
        }
        let state = self.pipe.state.lock();
        if self.read { state.writes_opened > self.writes_seen } else { state.reads_opened > self.reads_seen }
    }

    fn stat(&self) -> Option<Stat> {
        if self.fifo {
            return None;
        }
        Some(Stat {
            dev: PIPE_DEV,
            ino: self.pipe.ino,
            mode: c::S_IFIFO | 0o600,
            nlink: 1,
            blksize: 4096,
            atime: self.pipe.made,
            mtime: self.pipe.made,
            ctime: self.pipe.made,
            ..Stat::default()
        })
    }

    fn ioctl(&self, call: &Ioctl<'_>) -> Result<u64> {
        match call.request {
            FIONREAD => {
                call.mm.write_val(call.arg, &(self.pending() as i32))?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    fn reopen(self: Arc<Self>, how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        if self.fifo {
            return self.pipe.open_fifo(how);
        }
        // Unlike a FIFO, a pipe opened again through /proc waits for nobody (fs/pipe.c, fifo_open).
        let access = how.flags & c::O_ACCMODE;
        Ok(self.pipe.end(access != c::O_WRONLY, access != c::O_RDONLY, false))
    }

    fn magic(&self) -> u64 {
        0x5049_5045
    }

    fn allocate(&self, _mode: u32, _offset: u64, _len: u64) -> Result<()> {
        Err(Errno::ESPIPE)
    }

    fn lock_slot(&self) -> Option<&LockSlot> {
        Some(&self.pipe.locks)
    }

    fn sends_signals(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        format!("pipe:[{}]", self.pipe.ino)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        state.readers -= u32::from(self.read);
        state.writers -= u32::from(self.write);
        let mut events = 0;
        if self.write && state.writers == 0 {
            events |= c::POLLHUP | IN;
        }
        if self.read && state.readers == 0 {
            events |= c::POLLERR | OUT | event::SPACE;
            if state.writers == 0 {
                state.ring = Ring::default();
            }
        }
        drop(state);
        if events != 0 {
            self.pipe.queue.notify(events);
        }
    }
}

#[cfg(test)]
mod tests;
