//! futex_waitv(2): waiting on several words at a time.

use super::Current;
use super::futex::{ANY, Entry, Futexes, Waiting};
use crate::abi::{Errno, Result};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

/// The most words there may be (FUTEX_WAITV_MAX).
pub const MAX_WORDS: usize = 128;

/// A word and what it has to hold for its reader to wait.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// Where it is.
    pub addr: u64,
    /// Processes that share the memory share the queue.
    pub shared: bool,
    /// Its value.
    pub expected: u32,
}

impl Current {
    /// Waits until one of `words` ([`MAX_WORDS`] at most) is woken and says which. `deadline` is CLOCK_MONOTONIC ns.
    ///
    /// # Errors
    /// EAGAIN if one is not what it has to be; ETIMEDOUT; ERESTARTSYS; EFAULT; EINVAL.
    pub fn futex_wait_any(&mut self, words: &[Word], deadline: Option<u64>) -> Result<u64> {
        let mut queued = Vec::with_capacity(words.len());
        let refused = words.iter().find_map(|word| match self.queue_up(word) {
            Ok(waiter) => {
                queued.push(waiter);
                None
            }
            Err(errno) => Some(errno),
        });
        let errno = refused.unwrap_or_else(|| self.sleep_on(&queued, deadline));
        // A wake that has come counts, whatever else happened. Of several the last is told of, as by Linux.
        let futexes = &self.kernel.futexes;
        let mut woken = None;
        for (index, waiter) in queued.iter().enumerate() {
            if futexes.give_up(waiter) {
                woken = Some(index as u64);
            }
        }
        woken.ok_or(errno)
    }

    fn queue_up(&self, word: &Word) -> Result<Arc<Waiting>> {
        let key = self.mm().futex_key(word.addr, word.shared)?;
        let index = Futexes::index(&key);
        let (woken, bucket) = (AtomicBool::new(false), AtomicUsize::new(index));
        let waiter = Arc::new(Waiting { task: self.task.clone(), woken, bucket });
        self.mm().with_words(|words| {
            let mut bucket = self.kernel.futexes.buckets[index].lock();
            if words.load(word.addr)? != word.expected {
                return Err(Errno::EAGAIN);
            }
            bucket.push(Entry { key, bitset: ANY, waiter: waiter.clone() });
            Ok(())
        })?;
        Ok(waiter)
    }

    /// Sleeps until one is woken or there is another reason not to, which is returned.
    fn sleep_on(&self, queued: &[Arc<Waiting>], deadline: Option<u64>) -> Errno {
        loop {
            if queued.iter().any(|waiter| waiter.woken.load(Ordering::SeqCst)) || self.interrupted() {
                return Errno::ERESTARTSYS;
            }
            if deadline.is_some_and(|deadline| crate::time::monotonic_ns() >= deadline) {
                return Errno::ETIMEDOUT;
            }
            self.park(deadline);
        }
    }
}
