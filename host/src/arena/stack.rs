//! Kernel stacks: fixed slots in the stack region, a guard below each, pooled.
//!
//! The guard is a host `PROT_NONE` range. Natively an overflow is a SIGSEGV; in the guest the second stage has nothing
//! there, KVM_RUN says EFAULT and the platform turns that into the same SIGSEGV. Slots are prepared in batches and
//! reused in LIFO order, so that making a thread costs no host call once the sandbox is warm.

use super::ledger;
use crate::abi::{Errno, Result};
use crate::hostsys::mem;
use crate::sync::{Lock, Rank};
use ring0::layout::{STACKS_BASE, STACKS_END};

/// Address space per stack, guard included.
pub const SLOT: u64 = 256 << 10;
/// Guard bytes at the slot's low end: a multiple of every host page size (4, 16 and 64 KiB).
pub const GUARD: u64 = 64 << 10;
/// Free stacks that keep their memory: those of threads that come and go.
const WARM: usize = 64;
/// What a stack in use is counted as: more than most ever touch.
const COUNTED: u64 = 32 << 10;
/// Slots whose guards are set at a time. Each guard costs the host more than the exit that a batch saves, and start-up needs
/// about ten.
const BATCH: u64 = 4;

/// Free slots, and the first slot never prepared. One pool per process, like the region it manages.
static POOL: Lock<Pool> = Lock::new(Rank::Stacks, Pool { free: Vec::new(), next: STACKS_BASE });

struct Pool {
    free: Vec<u64>,
    next: u64,
}

/// One kernel stack; dropping it returns the slot to the pool.
#[derive(Debug)]
pub struct KernelStack {
    slot: u64,
}

impl KernelStack {
    /// Takes a stack from the pool.
    ///
    /// # Errors
    /// ENOMEM when the region is used up or the host refuses to set guards.
    pub fn new() -> Result<Self> {
        super::ensure();
        let mut pool = POOL.lock();
        if pool.free.is_empty() {
            pool.prepare()?;
        }
        let slot = pool.free.pop().ok_or(Errno::ENOMEM)?;
        drop(pool);
        ledger::charge(COUNTED);
        Ok(KernelStack { slot })
    }

    /// One past the highest byte; 16-byte aligned.
    pub fn top(&self) -> u64 {
        self.slot + SLOT
    }

    /// The lowest usable byte.
    pub fn bottom(&self) -> u64 {
        self.slot + GUARD
    }
}

impl Drop for KernelStack {
    fn drop(&mut self) {
        if POOL.lock().free.len() >= WARM {
            // SAFETY: nobody runs on it any more, and whoever does next writes before reading.
            let _ = unsafe { mem::advise(self.bottom(), self.top() - self.bottom(), libc::MADV_DONTNEED) };
        }
        POOL.lock().free.push(self.slot);
        ledger::uncharge(COUNTED);
    }
}

impl Pool {
    /// Sets the guards of the next batch of slots and adds them to the free list.
    fn prepare(&mut self) -> Result<()> {
        for _ in 0..BATCH {
            let slot = self.next;
            if slot + SLOT > STACKS_END {
                return if self.free.is_empty() { Err(Errno::ENOMEM) } else { Ok(()) };
            }
            // SAFETY: the slot was never handed out; nothing lives in it.
            unsafe { mem::protect(slot, GUARD, libc::PROT_NONE) }?;
            self.next += SLOT;
            self.free.push(slot);
        }
        // Lowest addresses first.
        self.free.sort_unstable_by(|a, b| b.cmp(a));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::KernelStack;

    #[test]
    fn stacks_are_distinct_aligned_and_reused() {
        let first = KernelStack::new().unwrap();
        let second = KernelStack::new().unwrap();
        assert_ne!(first.top(), second.top());
        assert_eq!(first.top() % 16, 0);
        let top = second.top();
        drop(second);
        assert_eq!(KernelStack::new().unwrap().top(), top);
    }
}
