//! What a task is doing, as far as those who wake it must know.
//!
//! | state | means | a wake makes it |
//! |---|---|---|
//! | `RUNNING` | on a worker | `NOTIFIED` |
//! | `NOTIFIED` | on a worker, its next park returns at once | unchanged |
//! | `PARKED` | its stack pointer is saved, nobody runs it | `QUEUED`, and queues it |
//! | `QUEUED` | in one run queue | unchanged |

use crate::sync::primitive::{AtomicU32, Ordering};

const RUNNING: u32 = 0;
const NOTIFIED: u32 = 1;
const PARKED: u32 = 2;
const QUEUED: u32 = 3;

/// The state of one task.
pub(super) struct RunState(AtomicU32);

impl RunState {
    /// Of a task that has not been started.
    pub(super) const fn new() -> Self {
        RunState(AtomicU32::new(QUEUED))
    }

    /// Whether it waits for something.
    pub(super) fn is_parked(&self) -> bool {
        self.0.load(Ordering::Relaxed) == PARKED
    }

    /// Whether a worker runs it, or may have begun to.
    pub(super) fn is_on_worker(&self) -> bool {
        matches!(self.0.load(Ordering::SeqCst), RUNNING | NOTIFIED)
    }

    /// Notes a wake; true if the caller has to queue the task.
    pub(super) fn notify(&self) -> bool {
        loop {
            // Always a read-modify-write: either the task's own next one sees what we changed before, or we see it.
            let (from, to) = match self.0.load(Ordering::Relaxed) {
                RUNNING => (RUNNING, NOTIFIED),
                PARKED => (PARKED, QUEUED),
                same => (same, same),
            };
            if self.0.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                return from == PARKED;
            }
        }
    }

    /// Before the task parks: whether a wake has come since it last did, which is taken then. One that comes later is seen by
    /// [`park`](Self::park).
    #[inline]
    pub(super) fn take_wake(&self) -> bool {
        let woken = self.0.load(Ordering::Relaxed) == NOTIFIED;
        if woken {
            // Acquires what the waker did.
            self.0.swap(RUNNING, Ordering::SeqCst);
        }
        woken
    }

    /// For who has saved its stack pointer: it is parked, unless a wake came meanwhile (false): then it is to be queued.
    /// From a success on, another worker may run, end and free it.
    #[inline]
    pub(super) fn park(&self) -> bool {
        self.0.compare_exchange(RUNNING, PARKED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Before it is put into a queue by the worker that ran it.
    #[inline]
    pub(super) fn queue(&self) {
        self.0.store(QUEUED, Ordering::SeqCst);
    }

    /// It runs from now on. Acquires what the worker that ran it last, and whoever woke it, did. A read-modify-write: a wake
    /// that came while it was queued changed nothing, so what its waker did has to be seen from here on.
    #[inline]
    pub(super) fn run(&self) {
        self.0.swap(RUNNING, Ordering::SeqCst);
    }
}
