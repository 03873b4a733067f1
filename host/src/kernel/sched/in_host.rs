//! Whether a worker is in a host call that may hang, and has been replaced meanwhile.

use crate::sync::primitive::{AtomicU32, Ordering};

/// It is in no host call that may hang.
const OUT: u32 = 0;
/// It is in one.
const IN: u32 = 1;
/// It is, and its CPU is another's.
const REPLACED: u32 = 2;

/// The state of one worker.
pub(super) struct InHost(AtomicU32);

impl InHost {
    /// Of a worker that makes no host call.
    pub(super) const fn new() -> Self {
        InHost(AtomicU32::new(OUT))
    }

    /// The worker is about to make one. Nobody else writes it meanwhile.
    #[inline]
    pub(super) fn begin(&self) {
        self.0.store(IN, Ordering::SeqCst);
    }

    /// It has been made; true if the worker has no CPU any more.
    #[inline]
    pub(super) fn end(&self) -> bool {
        self.0.swap(OUT, Ordering::SeqCst) == REPLACED
    }

    /// Whether it is in one, replaced or not.
    pub(super) fn is_kept(&self) -> bool {
        self.0.load(Ordering::SeqCst) != OUT
    }

    /// Whether it is in one and has its CPU.
    pub(super) fn is_replaceable(&self) -> bool {
        self.0.load(Ordering::SeqCst) == IN
    }

    /// For who replaces workers: whether this one's CPU is another's from now on.
    pub(super) fn replace(&self) -> bool {
        self.0.compare_exchange(IN, REPLACED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}
