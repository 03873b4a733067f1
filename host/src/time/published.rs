//! The clock as programs read it: the numbers of [`super::clock`] in a page that they have mapped (the vDSO's).
//!
//! A reading is `BASE_NS + (counter - BASE_TICKS) * RATE / 2^SHIFT`, but not before `LATEST`; it holds if `SEQUENCE` was
//! even and the same before and after. When the counter is further on than `VALID_TICKS` (0 in a page that nobody has
//! written), or behind, only a system call can tell the time; it is also what brings the numbers up to date.
//!
//! `LATEST` stays 0 where there is one counter only. Where kernel code may read the host's and programs read the guest's, it
//! is the latest time that kernel code has shown anybody.

use core::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::OnceLock;

/// Index of the sequence number: odd while the others change.
pub const SEQUENCE: usize = 0;
/// Index of the counter's value at some moment.
pub const BASE_TICKS: usize = 1;
/// Index of the counter ticks from then for which the numbers are good: a second at most.
pub const VALID_TICKS: usize = 2;
/// Index of `CLOCK_MONOTONIC` at that moment, in nanoseconds.
pub const BASE_NS: usize = 3;
/// Index of the nanoseconds per counter tick, times 2^[`SHIFT`].
pub const RATE: usize = 4;
/// Index of the least that a reading shows, in nanoseconds.
pub const LATEST: usize = 5;
/// Index of `CLOCK_REALTIME` minus `CLOCK_MONOTONIC`, in nanoseconds, modulo 2^64.
pub const REALTIME_OFFSET: usize = 6;
/// How many words there are.
pub const WORDS: usize = 7;
/// Rates are scaled by 2^32: with a second's ticks, a product is below 2^63.
pub const SHIFT: u32 = 32;

type Words = [&'static AtomicU64; WORDS];

/// The page of this process: facts about the machine, as the clock itself.
static PAGE: OnceLock<Words> = OnceLock::new();

/// Has a page kept up to date from now on; `words` are its first ones. The first page of a process only: another one
/// stays unusable.
pub fn to(words: Words) {
    if PAGE.set(words).is_ok() {
        super::clock::publish();
    }
}

/// One writer at a time, as for the clock.
pub(super) fn write(valid_ticks: u64, base_ticks: u64, base_ns: u64, rate: u64, realtime_offset: u64) {
    let Some(words) = PAGE.get() else { return };
    words[SEQUENCE].fetch_add(1, Ordering::AcqRel);
    fence(Ordering::Release);
    let values = [
        (VALID_TICKS, valid_ticks),
        (BASE_TICKS, base_ticks),
        (BASE_NS, base_ns),
        (RATE, rate),
        (REALTIME_OFFSET, realtime_offset),
    ];
    for (index, value) in values {
        words[index].store(value, Ordering::Relaxed);
    }
    words[SEQUENCE].fetch_add(1, Ordering::Release);
}

/// Kernel code shows somebody this time.
#[inline]
pub(super) fn seen(ns: u64) {
    if let Some(words) = PAGE.get() {
        words[LATEST].fetch_max(ns, Ordering::AcqRel);
    }
}
