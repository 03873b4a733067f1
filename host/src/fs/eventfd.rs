//! eventfd(2): a counter that can be waited for.

use crate::abi::{Errno, Result};
use crate::mm::{IoDst, IoSrc};
use crate::sync::{Lock, Rank, WaitQueue};
use crate::vfs::{File, FileOps, Whence};
use linux_raw_sys::general as c;
use std::any::Any;
use std::sync::Arc;

/// Reads take one at a time.
pub const SEMAPHORE: u32 = 1;

/// The counter.
pub struct EventFd {
    count: Lock<u64>,
    semaphore: bool,
    queue: WaitQueue,
}

impl EventFd {
    /// An open one; `flags` as eventfd2(2).
    pub fn open(count: u64, flags: u32) -> Arc<File> {
        let semaphore = flags & SEMAPHORE != 0;
        let event = EventFd { count: Lock::new(Rank::EventFd, count), semaphore, queue: WaitQueue::new() };
        File::anon(Arc::new(event), c::O_RDWR | flags & c::O_NONBLOCK)
    }
}

impl FileOps for EventFd {
    fn read(&self, dst: &mut IoDst<'_>, _offset: Option<u64>) -> Result<usize> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let taken = {
            let mut count = self.count.lock();
            if *count == 0 {
                return Err(Errno::EAGAIN);
            }
            let taken = if self.semaphore { 1 } else { *count };
            *count -= taken;
            taken
        };
        self.queue.notify(c::POLLOUT | c::POLLWRNORM);
        dst.write_bytes(&taken.to_ne_bytes())
    }

    fn write(&self, src: &mut IoSrc<'_>, _offset: Option<u64>) -> Result<usize> {
        if src.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        // Peeked, not taken: an attempt that has to wait is made again with the same bytes.
        let mut bytes = [0; 8];
        let mut copy = src.peek();
        if copy.read_bytes(&mut bytes)? < 8 {
            return Err(Errno::EFAULT);
        }
        let add = u64::from_ne_bytes(bytes);
        if add == u64::MAX {
            return Err(Errno::EINVAL);
        }
        {
            let mut count = self.count.lock();
            if add > u64::MAX - 1 - *count {
                return Err(Errno::EAGAIN);
            }
            *count += add;
        }
        src.advance(8);
        self.queue.notify(c::POLLIN | c::POLLRDNORM);
        Ok(8)
    }

    fn poll(&self) -> u32 {
        let count = *self.count.lock();
        let mut events = 0;
        if count > 0 {
            events |= c::POLLIN | c::POLLRDNORM;
        }
        if count < u64::MAX - 1 {
            events |= c::POLLOUT | c::POLLWRNORM;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn describe(&self) -> String {
        "anon_inode:[eventfd]".to_owned()
    }

    fn fdinfo(&self) -> String {
        format!("eventfd-count: {:16x}\n", *self.count.lock())
    }

    fn seek(&self, pos: u64, _offset: i64, _whence: Whence) -> Result<u64> {
        Ok(pos)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
