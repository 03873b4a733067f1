//! Kicks: a stub thread comes back from the program, or does not go there.
//!
//! **None is lost.** The kicker sets `kicked`, then looks at `running`; the worker publishes `running`, then looks
//! at `kicked`: one of them sees the other.

use crate::sync::primitive::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

/// Those of one worker.
pub(super) struct Kicks {
    kicked: AtomicBool,
    /// Process and thread id of the stub thread that runs for the worker; 0 while there is none.
    running: AtomicU64,
    /// That thread's slot.
    slot: AtomicU32,
}

impl Kicks {
    /// Of a worker for which nothing runs.
    pub(super) const fn new() -> Self {
        Kicks { kicked: AtomicBool::new(false), running: AtomicU64::new(0), slot: AtomicU32::new(0) }
    }

    /// Before a stub thread is let go. False: a kick is pending (and is now consumed), do not run.
    #[inline]
    pub(super) fn enter(&self, pid: i32, tid: i32, slot: u32) -> bool {
        self.slot.store(slot, Ordering::SeqCst);
        self.running.store((pid as u64) << 32 | tid as u64, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.kicked.swap(false, Ordering::SeqCst) {
            self.running.store(0, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// The stub thread has stopped; `kick` says that it was by a kick.
    #[inline]
    pub(super) fn leave(&self, kick: bool) {
        self.running.store(0, Ordering::SeqCst);
        if kick {
            self.kicked.store(false, Ordering::SeqCst);
        }
    }

    /// Whether a kick waits for its answer.
    pub(super) fn is_kicked(&self) -> bool {
        self.kicked.load(Ordering::SeqCst)
    }

    /// Kicks; `interrupt` is called with the process, thread and slot that may have to be interrupted.
    pub(super) fn kick(&self, interrupt: impl FnOnce(i32, i32, u32)) {
        self.kicked.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let running = self.running.load(Ordering::SeqCst);
        if running != 0 {
            interrupt((running >> 32) as i32, running as u32 as i32, self.slot.load(Ordering::SeqCst));
        }
    }
}
