//! When the platform is asked to end a time slice, where it can ([`Platform::kick_after`]), and when that is taken back.
//!
//! A slice is for the task that runs while others wait. Most tasks give the CPU away long before its end, and those that
//! talk to each other do so every few microseconds: to ask and take back at every turn would cost more than the rest of a
//! switch. So a slice that was begun goes on for the next task if that has others waiting, too, until it is old; and only
//! when two switches have passed without such a task is it taken back. A task is interrupted only if it stays for
//! most of a slice.
//!
//! [`Platform::kick_after`]: crate::platform::Platform::kick_after

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Switches after which a slice that nobody has needed since is taken back.
const SWITCHES: u32 = 2;

/// One worker's, written by its own thread only. Times are the counter's ticks.
#[derive(Default)]
pub(super) struct Slice {
    /// When the task that runs was switched in.
    turn: AtomicU64,
    /// When the one was for which the platform was asked.
    asked: AtomicU64,
    /// Switches until it is taken back; 0: it was not asked, or that is over.
    switches: AtomicU32,
}

impl Slice {
    /// The task that runs goes to user code while others wait: whether the platform is to be asked. A slice begun more
    /// than `old` ticks ago is not this task's.
    #[inline]
    pub(super) fn needed(&self, old: u64) -> bool {
        match self.switches.load(Ordering::Relaxed) {
            0 => true,
            SWITCHES => false,
            _ => {
                self.switches.store(SWITCHES, Ordering::Relaxed);
                let turn = self.turn.load(Ordering::Relaxed);
                turn.wrapping_sub(self.asked.load(Ordering::Relaxed)) > old
            }
        }
    }

    /// The platform was asked, and will do it.
    #[inline]
    pub(super) fn asked(&self) {
        self.asked.store(self.turn.load(Ordering::Relaxed), Ordering::Relaxed);
        self.switches.store(SWITCHES, Ordering::Relaxed);
    }

    /// Another task runs from `now` on: whether the platform is to be told that nobody needs the slice.
    #[inline]
    pub(super) fn switched(&self, now: u64) -> bool {
        self.turn.store(now, Ordering::Relaxed);
        match self.switches.load(Ordering::Relaxed) {
            0 => false,
            left => {
                self.switches.store(left - 1, Ordering::Relaxed);
                left == 1
            }
        }
    }

    /// Ticks for which the task that runs has done so.
    #[inline]
    pub(super) fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.turn.load(Ordering::Relaxed))
    }

    /// The task that runs has let others go first, or there were none.
    pub(super) fn begin(&self, now: u64) {
        self.turn.store(now, Ordering::Relaxed);
    }

    /// The slice has ended, or nobody runs: whether the platform may still believe in one.
    #[inline]
    pub(super) fn ended(&self) -> bool {
        self.switches.swap(0, Ordering::Relaxed) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::Slice;

    const OLD: u64 = 100;

    /// Goes to user code with others waiting; whether the platform was asked.
    fn contended(slice: &Slice) -> bool {
        let needed = slice.needed(OLD);
        if needed {
            slice.asked();
        }
        needed
    }

    #[test]
    fn tasks_that_take_turns_ask_once_in_a_while_and_take_nothing_back() {
        let slice = Slice::default();
        let mut asked = 0;
        for turn in 0..1000 {
            // Each wakes the other and waits for it: with others waiting, then without, at every turn.
            asked += u64::from(contended(&slice));
            assert!(!contended(&slice), "once a turn is enough");
            assert!(!slice.switched(turn));
        }
        assert!((9..=11).contains(&asked), "{asked}");
    }

    #[test]
    fn a_task_that_follows_much_later_has_its_own_slice() {
        let slice = Slice::default();
        assert!(contended(&slice));
        assert!(!slice.switched(OLD));
        assert!(!contended(&slice));
        assert!(!slice.switched(OLD + 1));
        assert!(contended(&slice));
    }

    #[test]
    fn a_slice_that_nobody_needs_any_more_is_taken_back_once() {
        let slice = Slice::default();
        assert!(contended(&slice));
        // A fork: the child runs, and the parent again, alone.
        assert!(!slice.switched(1));
        assert!(slice.switched(2));
        assert!(!slice.switched(3));
        assert!(!slice.ended());
        assert!(contended(&slice));
    }

    #[test]
    fn after_a_kick_the_next_slice_begins() {
        let slice = Slice::default();
        assert!(contended(&slice));
        assert!(slice.ended());
        assert!(!slice.ended());
        assert!(contended(&slice));
    }
}
