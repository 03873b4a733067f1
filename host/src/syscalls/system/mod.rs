//! The system as a whole: its name, its load, its random numbers.

pub(super) mod log;
pub(super) mod misc;
pub(super) mod refused;
