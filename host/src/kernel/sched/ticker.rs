//! The host thread that looks after busy workers: time slices where the platform has none, and timers while no worker
//! sleeps.
//!
//! It is started by the first need for it and sleeps without a timeout whenever nothing waits. Waking it costs its waker
//! a host call, so once it ticks it goes on for some quiet ticks before it sleeps again: two tasks that take
//! turns on one worker pay once, not once per turn.

use super::Scheduler;
use super::spare::HANGS_TICKS;
use super::timers::NEVER;
use crate::hostsys::futex;
use crate::time::{NSEC_PER_MSEC, monotonic_ns, resync};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;

/// Between two looks at the workers.
pub(super) const TICK_NS: u64 = 2 * NSEC_PER_MSEC;
/// A task that ran through this many ticks while others waited is kicked.
const SLICE_TICKS: u32 = 2;
/// The same as a time.
pub(super) const SLICE_NS: u64 = SLICE_TICKS as u64 * TICK_NS;
/// Ticks without contention before the ticker sleeps.
const QUIET_TICKS: u32 = 8;

pub(super) struct Ticker {
    /// Futex: changes when `target` is lowered.
    word: AtomicU32,
    /// When it looks next; [`NEVER`] while it sleeps without a timeout.
    target: AtomicU64,
    ticking: AtomicBool,
    started: AtomicBool,
    /// One bit per worker that entered user code while tasks waited for it.
    contended: AtomicU64,
}

/// What the ticker remembers of each worker.
#[derive(Clone, Copy, Default)]
struct Seen {
    switches: u64,
    host_calls: u64,
    /// Looks since its task came to it, and since that began its last host call.
    ticks: u32,
    still: u32,
}

impl Seen {
    /// Looks once more. `wanted`: somebody waits for it, or it is in a host call.
    fn look(&mut self, switches: u64, host_calls: u64, wanted: bool) {
        if !wanted || switches != self.switches {
            *self = Seen { switches, host_calls, ticks: 0, still: 0 };
            return;
        }
        self.ticks += 1;
        // One host call after the other does not hang, and uses the slice up nevertheless.
        self.still = if host_calls == self.host_calls { self.still + 1 } else { 0 };
        self.host_calls = host_calls;
    }
}

impl Ticker {
    pub(super) fn new() -> Self {
        Ticker {
            word: AtomicU32::new(0),
            target: AtomicU64::new(NEVER),
            ticking: AtomicBool::new(false),
            started: AtomicBool::new(false),
            contended: AtomicU64::new(0),
        }
    }

    pub(super) fn target(&self) -> u64 {
        self.target.load(Ordering::SeqCst)
    }

    pub(super) fn is_ticking(&self) -> bool {
        self.ticking.load(Ordering::SeqCst)
    }

    pub(super) fn note_contention(&self, worker: usize) {
        self.contended.fetch_or(1 << worker, Ordering::SeqCst);
    }

    /// Sleeps until `target` has come.
    fn sleep(&self) {
        loop {
            let word = self.word.load(Ordering::SeqCst);
            let target = self.target();
            if target == NEVER {
                futex::wait(&self.word, word, None);
                continue;
            }
            let now = monotonic_ns();
            if now >= target {
                return;
            }
            futex::wait(&self.word, word, Some(Duration::from_nanos(target - now)));
        }
    }
}

impl Scheduler {
    /// Has the ticker look at `time`, if it would not earlier.
    pub(super) fn ticker_look_at(&self, time: u64) {
        let ticker = &self.ticker;
        if ticker.target.fetch_min(time, Ordering::SeqCst) > time {
            ticker.word.fetch_add(1, Ordering::SeqCst);
            futex::wake(&ticker.word, 1);
        }
        if !ticker.started.swap(true, Ordering::SeqCst) {
            self.start_ticker();
        }
    }

    /// Has the ticker look at the workers from now on.
    pub(super) fn ticker_tick(&self) {
        self.ticker.ticking.store(true, Ordering::SeqCst);
        self.ticker_look_at(monotonic_ns() + TICK_NS);
    }

    #[cold]
    fn start_ticker(&self) {
        let Some(this) = self.me.upgrade() else { return };
        // Without the thread there are no time slices and timers wait for an idle worker: poorer, not wrong.
        let _ = crate::arena::thread::spawn("pillbox-ticker", move || this.tick_loop());
    }

    fn tick_loop(self: Arc<Self>) -> ! {
        let mut seen = vec![Seen::default(); self.workers.len()];
        let mut quiet = 0;
        loop {
            self.ticker.sleep();
            self.ticker.target.store(NEVER, Ordering::SeqCst);
            resync();
            let now = monotonic_ns();
            self.timers.fire(now);
            if self.ticker.is_ticking() {
                quiet = if self.look_at_workers(&mut seen) { 0 } else { quiet + 1 };
                if quiet > QUIET_TICKS {
                    self.ticker.ticking.store(false, Ordering::SeqCst);
                    // Whoever noted contention before the store above relied on us.
                    if self.ticker.contended.load(Ordering::SeqCst) != 0 {
                        self.ticker.ticking.store(true, Ordering::SeqCst);
                    }
                }
            }
            let tick = if self.ticker.is_ticking() { now + TICK_NS } else { NEVER };
            // A sleeping worker that keeps the timers may do so for a later one: it lay down before this was armed.
            let next = self.timers.next();
            let timer = if next < self.keeper_until.load(Ordering::SeqCst) { next } else { NEVER };
            self.ticker.target.fetch_min(tick.min(timer), Ordering::SeqCst);
        }
    }

    /// Gets waiting tasks a worker, and says whether there were any.
    fn look_at_workers(&self, seen: &mut [Seen]) -> bool {
        let mut contended = self.ticker.contended.swap(0, Ordering::SeqCst) != 0;
        for (worker, seen) in self.workers.iter().zip(seen) {
            let (waited_for, kept) = (!worker.is_empty(), self.is_kept(worker));
            contended |= waited_for;
            let switches = worker.switches.load(Ordering::Relaxed);
            let host_calls = worker.host_calls.load(Ordering::Relaxed);
            seen.look(switches, host_calls, waited_for || kept);
            if seen.ticks == 0 || waited_for && self.wake_idle() {
                continue;
            }
            // A kick brings nobody back from a host call: the task is to leave when it comes.
            match kept {
                true if seen.still >= HANGS_TICKS && self.anything_queued() => self.replace(worker),
                true if seen.ticks >= SLICE_TICKS && waited_for => worker.end_turn(),
                false if seen.ticks >= SLICE_TICKS => self.kick(worker.id),
                _ => {}
            }
        }
        contended
    }
}

#[cfg(test)]
mod tests {
    use super::Seen;

    #[test]
    fn host_calls_do_not_hang_one_after_the_other_but_use_the_slice_up() {
        let mut seen = Seen::default();
        seen.look(1, 0, true);
        assert_eq!((seen.ticks, seen.still), (0, 0), "another task");
        for call in 1..=10 {
            seen.look(1, call, true);
            assert_eq!((u64::from(seen.ticks), seen.still), (call, 0));
        }
        for look in 1..=10 {
            seen.look(1, 10, true);
            assert_eq!((seen.ticks, seen.still), (10 + look, look), "this one hangs");
        }
        seen.look(2, 10, true);
        assert_eq!((seen.ticks, seen.still), (0, 0));
        seen.look(2, 10, true);
        seen.look(2, 10, false);
        assert_eq!((seen.ticks, seen.still), (0, 0), "nobody waits");
    }
}
