//! Clocks. A stand-in until the calibrated clock lands: std's, which leaves the guest.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

/// CLOCK_MONOTONIC.
pub fn monotonic_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// CLOCK_REALTIME.
pub fn realtime_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64)
}
