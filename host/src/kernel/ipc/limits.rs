//! The limits of an IPC namespace (`/proc/sys/kernel`, proc(5)), and what all its objects may take.

use crate::abi::{Errno, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What root may set.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a segment.
    pub shmmax: u64,
    /// Pages of all segments.
    pub shmall: u64,
    /// Segments.
    pub shmmni: u32,
    /// Semaphores of a set.
    pub semmsl: u32,
    /// Semaphores of all sets.
    pub semmns: u32,
    /// Operations of a call.
    pub semopm: u32,
    /// Sets.
    pub semmni: u32,
    /// Bytes of a message.
    pub msgmax: u32,
    /// Bytes of a new queue's messages.
    pub msgmnb: u32,
    /// Queues.
    pub msgmni: u32,
}

impl Default for Limits {
    /// Linux's (uapi/linux/{shm,sem,msg}.h).
    fn default() -> Self {
        let unlimited = u64::MAX - (1 << 24);
        Limits {
            shmmax: unlimited,
            shmall: unlimited,
            shmmni: 4096,
            semmsl: 32000,
            semmns: 1_024_000_000,
            semopm: 500,
            semmni: 32000,
            msgmax: 8192,
            msgmnb: 16384,
            msgmni: 32000,
        }
    }
}

/// Most bytes of kernel memory that the objects of all namespaces take together, pages of segments aside. Linux's limits allow
/// gigabytes (10^9 semaphores) and leave it to a memory cgroup to say no, as this does.
const MAX_BYTES: u64 = 64 << 20;

/// What the objects of all namespaces take of the kernel's memory.
#[derive(Default)]
pub struct Budget {
    used: AtomicU64,
}

/// A part of a [`Budget`], given back when dropped.
pub struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// Takes `bytes` of it.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Result<Charge> {
        let bytes = bytes as u64;
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= MAX_BYTES);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(Charge { budget: self.clone(), bytes }),
            Err(_) => Err(Errno::ENOMEM),
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, MAX_BYTES};
    use std::sync::Arc;

    #[test]
    fn what_is_given_back_can_be_had_again() {
        let budget = Arc::new(Budget::default());
        let all = budget.charge(MAX_BYTES as usize).unwrap();
        assert!(budget.charge(1).is_err());
        drop(all);
        assert!(budget.charge(usize::MAX).is_err());
        assert!(budget.charge(MAX_BYTES as usize).is_ok());
    }
}
