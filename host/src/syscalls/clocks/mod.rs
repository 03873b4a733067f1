//! Clocks and timers.

pub(super) mod adjust;
pub(super) mod time;
pub(super) mod timer;
