//! Clocks that make no host call.
//!
//! [`monotonic_ns`] is the host's `CLOCK_MONOTONIC`, computed from the CPU's counter: a base pair (counter,
//! nanoseconds) and a rate, seeded by [`calibrate`] at start and corrected by [`resync`] whenever a host thread of
//! ours is awake anyway. Between corrections the rate is off by a few hundred ppm at first and by less than one later;
//! a correction never moves the clock back. Where the host itself does not trust the counter (its clocksource is
//! not the TSC) every reading is a host call. Programs read the same clock from a page that is [`published`] to them.
//!
//! The state is a fact about the machine, not about a sandbox: it is the one process-wide static here.

mod clock;
mod given;
pub mod published;

pub use clock::{
    calibrate, counters_may_be_apart, monotonic_ns, realtime_ns, realtime_offset_ns, resync, set_start,
    ticks_to_ns,
};

pub use given::Given;

/// Nanoseconds per second.
pub const NSEC_PER_SEC: u64 = 1_000_000_000;
/// Nanoseconds per microsecond.
pub const NSEC_PER_USEC: u64 = 1_000;
/// Nanoseconds per millisecond.
pub const NSEC_PER_MSEC: u64 = 1_000_000;
/// What `sysconf(_SC_CLK_TCK)` says; `times(2)` counts in these.
pub const CLOCK_TICKS: u64 = 100;
