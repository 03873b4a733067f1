//! Where things are in an address space, what is out of bounds, and the limits.

use super::{Mm, PAGE_SIZE};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the loader put things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Mappings without a wish go below this.
    pub mmap_base: u64,
    /// First and one past the last address of the program's text, for `/proc/PID/stat`.
    pub code: (u64, u64),
    /// The same for its data.
    pub data: (u64, u64),
    /// Where the heap begins.
    pub brk_start: u64,
    /// The initial stack pointer.
    pub stack_start: u64,
    /// Where the argument strings are.
    pub args: (u64, u64),
    /// Where the environment strings are.
    pub env: (u64, u64),
    /// Where the vDSO's image starts.
    pub vdso: u64,
    /// The auxiliary vector, as in `/proc/PID/auxv`.
    pub auxv: Vec<u8>,
}

/// Resource limits that concern memory, in bytes (`u64::MAX`: none).
#[derive(Debug)]
pub struct MmLimits {
    /// RLIMIT_AS.
    pub address_space: AtomicU64,
    /// RLIMIT_DATA.
    pub data: AtomicU64,
    /// RLIMIT_STACK.
    pub stack: AtomicU64,
    /// RLIMIT_MEMLOCK.
    pub memlock: AtomicU64,
}

impl Default for MmLimits {
    fn default() -> Self {
        MmLimits {
            address_space: AtomicU64::new(u64::MAX),
            data: AtomicU64::new(u64::MAX),
            stack: AtomicU64::new(8 << 20),
            memlock: AtomicU64::new(8 << 20),
        }
    }
}

impl MmLimits {
    /// Takes over another's values.
    pub fn copy_from(&self, other: &MmLimits) {
        let pairs = [
            (&self.address_space, &other.address_space),
            (&self.data, &other.data),
            (&self.stack, &other.stack),
            (&self.memlock, &other.memlock),
        ];
        for (to, from) in pairs {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

impl Mm {
    /// Whether a program can have accessible memory in the page at `addr`.
    #[inline]
    pub(super) fn is_user_page(&self, addr: u64) -> bool {
        let outside = |window: (u64, u64)| addr.wrapping_sub(window.0) >= window.1 - window.0;
        let [first, second] = self.caps.reserved;
        addr < self.caps.task_size && outside(first) && outside(second)
    }

    /// Whether `start..start+len` lies below the end of user addresses (Linux's `access_ok`).
    #[inline]
    pub(super) fn in_bounds(&self, start: u64, len: u64) -> bool {
        len <= self.caps.task_size && start <= self.caps.task_size - len
    }

    /// The parts of a range that lie outside the kernel's windows and below the end of user addresses.
    pub(super) fn user_pieces(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
        let end = end.min(self.caps.task_size);
        let [first, second] = self.caps.reserved;
        let gaps = [(0, first.0), (first.1, second.0), (second.1, u64::MAX)];
        gaps.into_iter().map(move |gap| (gap.0.max(start), gap.1.min(end))).filter(|piece| piece.0 < piece.1)
    }

    /// The kernel's window that a range meets, if any.
    pub(super) fn reserved_in(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        self.caps.reserved.into_iter().find(|window| start < window.1 && window.0 < end)
    }
}

/// Distance that a growing stack keeps from what is below it (Linux's `stack_guard_gap`).
pub(super) const STACK_GUARD: u64 = 256 * PAGE_SIZE;
/// Lowest address that programs can ask for (vm.mmap_min_addr).
pub const MIN_ADDRESS: u64 = 0x1_0000;
