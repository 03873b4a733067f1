//! A lock that is held in host calls that may hang: who waits for it parks, and can be ended meanwhile.

use super::WaitQueue;
use super::hostcall::HostLine;
use super::primitive::{AtomicU32, Ordering, SPINS, spin_loop};
use crate::abi::Result;
use crate::hostsys::futex;
use core::time::Duration;

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody waits.
const WANTED: u32 = 2;

/// Who waits without a task that could park looks again after this time.
const LOOK: Duration = Duration::from_millis(1);

/// A lock around nothing. It has no rank: it is taken without any other held, and others are taken while it is held.
pub struct LongLock {
    state: AtomicU32,
    queue: WaitQueue,
}

impl Default for LongLock {
    fn default() -> Self {
        LongLock { state: AtomicU32::new(FREE), queue: WaitQueue::new() }
    }
}

impl LongLock {
    /// Waits for the lock and takes it. `line` is the way to the host calls that its holders make.
    ///
    /// # Errors
    /// EINTR once the calling program is to end.
    #[inline]
    pub fn lock(&self, line: &HostLine) -> Result<LongGuard<'_>> {
        if !self.take(FREE, HELD) {
            self.lock_slow(line)?;
        }
        Ok(LongGuard(self))
    }

    #[inline]
    fn take(&self, from: u32, to: u32) -> bool {
        self.state.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn lock_slow(&self, line: &HostLine) -> Result<()> {
        for _ in 0..SPINS {
            if self.take(FREE, HELD) {
                return Ok(());
            }
            spin_loop();
        }
        // Others may wait, too: whoever is next says so.
        let mut taken = || self.state.swap(WANTED, Ordering::Acquire) == FREE;
        while !line.wait(&self.queue, &mut taken)? {
            if taken() {
                break;
            }
            futex::wait(&self.state, WANTED, Some(LOOK));
        }
        Ok(())
    }
}

/// Holds a [`LongLock`]; dropping it releases.
#[must_use]
pub struct LongGuard<'a>(&'a LongLock);

impl Drop for LongGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.0.state.swap(FREE, Ordering::Release) == WANTED {
            self.0.queue.notify(!0);
        }
    }
}
