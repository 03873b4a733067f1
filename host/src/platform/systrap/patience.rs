//! How long the kernel waits for what a program can prevent.
//!
//! Time counts only as far as this process had it, too: on a machine that is too busy to wake us, or after everything was
//! stopped and continued, a stub is not late because the clock is.

use crate::hostsys::stub;
use core::sync::atomic::AtomicU32;
use core::time::Duration;
use std::time::Instant;

/// What is slept at a time.
const STEP: Duration = Duration::from_millis(100);
/// A sleep that took so much longer says more about the machine than about the stub, and counts as little.
const LATE: Duration = Duration::from_millis(50);
const LITTLE: Duration = Duration::from_millis(10);

/// What is left of the time that somebody has.
pub(super) struct Patience(Duration);

impl Patience {
    /// So much, from the first [`sleep`](Self::sleep) on.
    pub(super) fn of(time: Duration) -> Self {
        Patience(time)
    }

    /// Whether nothing is left.
    pub(super) fn is_over(&self) -> bool {
        self.0.is_zero()
    }

    /// Sleeps for a while unless `word` is no longer `expected`. Whoever wakes us too early wins nothing.
    pub(super) fn sleep(&mut self, word: &AtomicU32, expected: u32) {
        let start = Instant::now();
        stub::wait_shared_for(word, expected, STEP);
        self.spend(start.elapsed());
    }

    /// The same for a sleep that does not count.
    pub(super) fn doze(word: &AtomicU32, expected: u32) {
        stub::wait_shared_for(word, expected, STEP);
    }

    fn spend(&mut self, slept: Duration) {
        self.0 = self.0.saturating_sub(if slept > STEP + LATE { LITTLE } else { slept });
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, LATE, Patience, STEP};

    #[test]
    fn a_busy_machine_does_not_count() {
        let mut patience = Patience::of(Duration::from_secs(1));
        for _ in 0..50 {
            patience.spend(STEP + 2 * LATE);
        }
        patience.spend(Duration::from_secs(1000));
        assert!(!patience.is_over());
        for _ in 0..10 {
            patience.spend(STEP);
        }
        assert!(patience.is_over());
    }
}
