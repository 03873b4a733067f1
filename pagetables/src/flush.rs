//! What an edit leaves behind in TLBs.

use crate::PAGE_SIZE;

/// Addresses whose old translations CPUs may still use, to be flushed by whoever edited the table.
///
/// An empty token (see [`is_empty`](Self::is_empty)) needs no TLB maintenance: only entries that were empty were
/// written, or rights were only added (a CPU that still has the old entry takes a fault and looks again). On aarch64
/// even then a `dsb ishst` must precede the return to user mode, so that the walker sees the new entry
/// (ARM DDI 0487, D8.2.1 "translation table walk" ordering); x86 needs nothing.
#[must_use = "CPUs may still use old translations: flush them, or say why not with `ignore`"]
#[derive(Debug, PartialEq, Eq)]
pub struct Flush {
    start: u64,
    end: u64,
}

impl Flush {
    /// Nothing to flush.
    pub const NONE: Flush = Flush { start: u64::MAX, end: 0 };

    #[inline]
    pub(crate) fn add(&mut self, start: u64, bytes: u64) {
        self.start = self.start.min(start);
        // The last page of the upper half ends at 2^64: an end that saturates still covers it.
        self.end = self.end.max(start.saturating_add(bytes));
    }

    /// Whether nothing needs flushing.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// First address.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// One past the last address.
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// How many 4 KiB pages are covered.
    pub const fn pages(&self) -> u64 {
        if self.is_empty() { 0 } else { (self.end - self.start).div_ceil(PAGE_SIZE) }
    }

    /// One token that covers both.
    pub fn merge(self, other: Flush) -> Flush {
        Flush { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// Says that no CPU can have old translations of these addresses, or that they have been flushed.
    pub fn ignore(self) {}
}
