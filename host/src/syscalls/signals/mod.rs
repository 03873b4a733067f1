//! Signals: actions, masks, sending, waiting.

pub(super) mod signal;
