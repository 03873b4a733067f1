//! Where a worker's stub threads run: on its own CPU, or on another one with both sides spinning.
//!
//! On one CPU a hand-over costs two sleeps and two wake-ups, whatever else the machine does. On two, with both sides
//! looking for their turn instead of sleeping, it costs a cache line, *if* the other CPU is free; if it is not, waking a
//! thread there costs far more. Nothing says beforehand, so it is tried: while programs trap often, a window of
//! switches is timed on two CPUs and compared with the one before. A trial that does not pay ends at once and the next
//! one waits longer. Nobody spins longer than [`FIRST_SPINS`] looks, so an idle sandbox does not spin at all.
//!
//! The choice is the worker's, not each task's: tasks that wake each other take turns on one worker, and one of them
//! alone on the other CPU gains nothing. Of the stub threads there only the one with the turn may spin: when the worker
//! lets another one go, it tells the last one to sleep (see `Worker::handed_over`), which then gives way to it.

use std::time::{Duration, Instant};

/// Looks before a thread sleeps: some 20 to 60 us, by the CPU.
const SPINS: u32 = 1200;
/// The same while the two get in step: waking a thread on another CPU takes longer than [`SPINS`] looks, and a thread
/// that went to sleep meanwhile has to be woken that way again.
const FIRST_SPINS: u32 = 10_000;
/// Switches that getting in step takes.
const WARM: u32 = 6;
/// Switches that are timed together.
const WINDOW: u32 = 64;
/// Programs that trap less often than this, on average, gain nothing.
const DENSE: Duration = Duration::from_micros(30);
/// Sleeps in a window on two CPUs that end it.
const MISSES: u32 = 3;
/// Windows between two trials, at most.
const MAX_WAIT: u32 = 4096;

/// One worker's choice.
pub(super) struct Pace {
    spread: bool,
    /// Switches on two CPUs without a sleep, up to [`WARM`].
    warm: u32,
    switches: u32,
    misses: u32,
    since: Option<Instant>,
    /// The last window on one CPU.
    before: Duration,
    /// Windows until the next trial.
    wait: u32,
    /// Windows to wait after the next failure.
    penalty: u32,
}

impl Pace {
    pub(super) fn new() -> Self {
        Pace {
            spread: false,
            warm: 0,
            switches: 0,
            misses: 0,
            since: None,
            before: Duration::MAX,
            wait: 8,
            penalty: 4,
        }
    }

    /// Whether the stub thread belongs on another CPU than its worker.
    pub(super) fn spread(&self) -> bool {
        self.spread
    }

    /// How often either side looks for its turn before it sleeps.
    pub(super) fn spins(&self) -> u32 {
        if self.warm < WARM { FIRST_SPINS } else { SPINS }
    }

    /// One of the two slept although they were on two CPUs.
    pub(super) fn missed(&mut self) {
        self.misses += 1;
        self.warm = 0;
        if self.misses >= MISSES {
            self.gather();
        }
    }

    /// Counts a switch.
    pub(super) fn switched(&mut self) {
        self.switches += 1;
        if self.spread && self.warm < WARM {
            self.warm += 1;
        }
        if self.switches < WINDOW {
            return;
        }
        let now = Instant::now();
        let window = self.since.map(|since| now.duration_since(since));
        (self.switches, self.misses, self.since) = (0, 0, Some(now));
        let Some(window) = window else { return };
        if self.spread {
            if window > self.before.mul_f32(0.8) {
                self.gather();
            } else {
                self.penalty = 4;
            }
            return;
        }
        self.before = window;
        if window > DENSE * WINDOW {
            return;
        }
        self.wait = self.wait.saturating_sub(1);
        self.spread = self.wait == 0;
    }

    /// Back to one CPU.
    fn gather(&mut self) {
        self.spread = false;
        self.warm = 0;
        self.wait = self.penalty;
        self.penalty = (self.penalty * 4).min(MAX_WAIT);
        (self.switches, self.misses, self.since) = (0, 0, None);
    }
}
