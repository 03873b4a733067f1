//! What one does at a time, and nobody waits to do.

use core::sync::atomic::{AtomicBool, Ordering};

/// Whose turn it is: somebody's, or nobody's.
#[derive(Default)]
pub(super) struct Turn(AtomicBool);

/// Held by the one whose turn it is.
pub(super) struct Taken<'a>(&'a Turn);

impl Turn {
    /// The caller's turn from here on; none if it is another's.
    pub(super) fn take(&self) -> Option<Taken<'_>> {
        // (`then`, not `then_some`: one that is made in vain would give up the other's when it is dropped.)
        (!self.0.swap(true, Ordering::SeqCst)).then(|| Taken(self))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::Turn;

    #[test]
    fn it_is_one_at_a_time() {
        let turn = Turn::default();
        let taken = turn.take();
        assert!(taken.is_some() && turn.take().is_none() && turn.take().is_none());
        drop(taken);
        assert!(turn.take().is_some());
    }
}
