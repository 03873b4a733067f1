//! The heap's region in granules: where dlmalloc gets memory, and where it gives it back.
//!
//! What dlmalloc is given at a time is a *segment*: some granules but for a gap at their end, so that no two segments
//! touch. Touching ones it would make one of, and one long segment is never free as a whole. Free ones it gives back
//! now and then by itself; [`super::trim`] asks it to. They go to the host later, when nobody waits for the heap
//! ([`flush`]); until then they are counted, and are the first to be taken again where they lie.
//!
//! Locks: a leaf, called with the heap's held.

use super::ledger;
use crate::hostsys::mem;
use crate::sync::{Lock, Rank};
use ring0::layout::{HEAP_BASE, HEAP_END};

/// Bytes per granule.
const GRANULE: u64 = 1 << 20;
/// At the end of each segment: at least a host's page.
const GAP: u64 = 64 << 10;
const COUNT: usize = ((HEAP_END - HEAP_BASE) / GRANULE) as usize;
const WORDS: usize = COUNT / 64;
/// A segment is this part of the heap, so that there are not too many of them, and at most so many granules.
const PART: u64 = 64;
const STEP: u64 = 8;

const _: () = assert!(COUNT.is_multiple_of(64));

static MAP: Lock<Map> = Lock::new(Rank::Granules, Map::new());

struct Map {
    /// One bit per granule.
    used: [u64; WORDS],
    /// Free ones that the host still has memory for.
    dirty: [u64; WORDS],
    /// All below are used.
    first: usize,
    /// How many are used.
    count: u64,
}

impl Map {
    const fn new() -> Self {
        Map { used: [0; WORDS], dirty: [0; WORDS], first: 0, count: 0 }
    }

    /// Takes some; returns how many of them are not dirty.
    fn take(&mut self, from: usize, count: usize) -> usize {
        self.mark(from, count, true);
        let mut clean = 0;
        for at in from..from + count {
            let bit = 1 << (at % 64);
            clean += usize::from(self.dirty[at / 64] & bit == 0);
            self.dirty[at / 64] &= !bit;
        }
        clean
    }

    fn give(&mut self, from: usize, count: usize) {
        self.mark(from, count, false);
        (from..from + count).for_each(|at| self.dirty[at / 64] |= 1 << (at % 64));
    }

    /// Takes the first dirty ones from `at` on, at most [`STEP`] and all of one word: where, and how many.
    fn take_dirty(&mut self, at: usize) -> Option<(usize, usize)> {
        let word = (at / 64..WORDS).find(|word| self.dirty[*word] != 0)?;
        let shift = self.dirty[word].trailing_zeros() as usize;
        let count = ((self.dirty[word] >> shift).trailing_ones() as usize).min(STEP as usize);
        self.take(word * 64 + shift, count);
        Some((word * 64 + shift, count))
    }

    fn is_used(&self, at: usize) -> bool {
        self.used[at / 64] >> (at % 64) & 1 != 0
    }

    fn mark(&mut self, from: usize, count: usize, used: bool) {
        for at in from..from + count {
            let bit = 1 << (at % 64);
            self.used[at / 64] = if used { self.used[at / 64] | bit } else { self.used[at / 64] & !bit };
        }
        self.count = if used { self.count + count as u64 } else { self.count - count as u64 };
        self.first = self.first.min(from);
        while self.first < COUNT && self.is_used(self.first) {
            self.first += 1;
        }
    }

    /// The first run of free granules that is long enough.
    fn find(&self, count: usize) -> Option<usize> {
        let mut free = 0;
        let mut at = self.first;
        while at < COUNT {
            if at.is_multiple_of(64) && self.used[at / 64] == u64::MAX {
                (at, free) = (at + 64, 0);
                continue;
            }
            free = if self.is_used(at) { 0 } else { free + 1 };
            at += 1;
            if free == count {
                return Some(at - count);
            }
        }
        None
    }
}

/// Granules of a segment.
fn granules(segment: u64) -> u64 {
    (segment + GAP).div_ceil(GRANULE)
}

/// A segment of at least `size` bytes: its address and its size. None: the region is used up.
pub(super) fn take(size: u64) -> Option<(u64, u64)> {
    super::ensure();
    let mut map = MAP.lock();
    let wanted = granules(size).max((map.count / PART).min(STEP));
    let from = map.find(usize::try_from(wanted).ok()?)?;
    let clean = map.take(from, wanted as usize);
    drop(map);
    ledger::charge_heap(clean as u64 * GRANULE);
    Some((HEAP_BASE + from as u64 * GRANULE, wanted * GRANULE - GAP))
}

/// Gives back what is behind the first `keep` bytes of a segment of `size` bytes, as far as it is whole granules.
pub(super) fn give(segment: u64, size: u64, keep: u64) {
    let left = if keep == 0 { 0 } else { granules(keep) };
    let from = ((segment - HEAP_BASE) / GRANULE + left) as usize;
    MAP.lock().give(from, (granules(size) - left) as usize);
}

/// Gives the host what is free. Not with the heap's lock held: it takes a while.
pub(super) fn flush() {
    let mut at = 0;
    // Those being given back are used meanwhile, so that nobody takes them.
    while let Some((from, count)) = { MAP.lock().take_dirty(at) } {
        let (start, len) = (HEAP_BASE + from as u64 * GRANULE, count as u64 * GRANULE);
        // SAFETY: nobody has them.
        let given = unsafe { mem::advise(start, len, libc::MADV_DONTNEED) };
        let mut map = MAP.lock();
        match given {
            Ok(()) => map.mark(from, count, false),
            Err(_) => map.give(from, count),
        }
        drop(map);
        if given.is_ok() {
            ledger::uncharge_heap(len);
        }
        at = from + count;
    }
}

#[cfg(test)]
mod tests {
    use super::{COUNT, GAP, GRANULE, Map, granules};

    #[test]
    fn a_segment_leaves_a_gap() {
        assert_eq!((granules(1), granules(GRANULE - GAP)), (1, 1));
        assert_eq!(granules(GRANULE - GAP + 1), 2);
    }

    #[test]
    fn free_runs_are_found_lowest_first() {
        let mut map = Map::new();
        assert_eq!(map.find(3), Some(0));
        map.mark(0, 200, true);
        assert_eq!((map.first, map.find(1)), (200, Some(200)));
        map.mark(10, 2, false);
        assert_eq!((map.first, map.find(1), map.find(2), map.find(3)), (10, Some(10), Some(10), Some(200)));
        map.mark(200, COUNT - 200, true);
        assert_eq!((map.find(2), map.find(3), map.count), (Some(10), None, COUNT as u64 - 2));
        assert_eq!(map.take_dirty(0), None);
    }

    #[test]
    fn what_is_free_waits_for_the_host_or_the_next() {
        let mut map = Map::new();
        assert_eq!(map.take(0, 20), 20);
        map.give(4, 12);
        assert_eq!((map.find(2), map.take(4, 2)), (Some(4), 0), "they are counted still");
        assert_eq!(map.take_dirty(0), Some((6, 8)));
        assert_eq!((map.find(1), map.find(2)), (Some(14), Some(14)), "nobody gets those meanwhile");
        map.mark(6, 8, false);
        assert_eq!((map.take_dirty(14), map.take_dirty(16)), (Some((14, 2)), None));
        assert_eq!(map.take(6, 2), 2);
    }
}
