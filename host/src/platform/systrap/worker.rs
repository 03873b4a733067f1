//! Workers: which CPU they and their stubs run on, and kicks.
//!
//! A worker and the stub thread it runs take turns, so they share a CPU: waking a thread on another one costs an
//! inter-processor interrupt and often the exit from an idle state, ten times the price. Workers are bound to one CPU
//! each, stub threads to their worker's, or to another one where neither has to be woken (see `pace`).
//!
//! Kicks are not lost (`kicks`), and the signal itself cannot be: it is blocked while the stub thread is
//! in its handler and delivered at the return to the program otherwise; at a rewritten call the handler notes it, and the
//! thread stops again before it goes on. One that arrives after the thread stopped for
//! another reason stays pending and makes a later `Trap::Kick` that nobody asked for, which is harmless.

use super::kicks::Kicks;
use super::layout::Control;
use super::pace::Pace;
use super::process::{KICK, Nursery};
use crate::hostsys::stub;
use crate::sync::{Lock, Rank};
use core::cell::Cell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

/// One worker.
pub(super) struct Worker {
    pub(super) cpu: usize,
    /// Another CPU, where stub threads go that hand over by spinning (see `pace`).
    pub(super) other_cpu: Option<usize>,
    pub(super) kicks: Kicks,
    /// Where stub threads run for this worker. Only its own thread takes the lock.
    pub(super) pace: Lock<Pace>,
    /// Slot of the stub thread that stopped here last and may still look for its turn; [`NOBODY`] if none.
    spinner: AtomicU32,
}

/// No slot.
const NOBODY: u32 = u32::MAX;

impl Worker {
    pub(super) fn new(cpu: usize, other_cpu: Option<usize>) -> Arc<Self> {
        Arc::new(Worker {
            cpu,
            other_cpu,
            kicks: Kicks::new(),
            pace: Lock::new(Rank::WorkerPace, Pace::new()),
            spinner: AtomicU32::new(NOBODY),
        })
    }

    /// The thread in `slot` has the turn now; `spins` says that it will look for the next one before it sleeps. The one
    /// before it had better sleep: it may be in the way.
    pub(super) fn handed_over(&self, nursery: &Nursery, slot: u32, spins: bool) {
        let last = self.spinner.swap(if spins { slot } else { NOBODY }, Ordering::Relaxed);
        if last != NOBODY && last != slot {
            nursery.control(last, offset_of!(Control, spin)).store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn kick(&self, nursery: &Nursery) {
        self.kicks.kick(|pid, tid, slot| {
            // Should the thread be gone, so is what was to be interrupted.
            let _gone = stub::signal_thread(pid, tid, KICK);
            // A program may have tampered with the words by which its stub thread wakes the worker.
            nursery.wake_worker(slot);
        });
    }
}

thread_local! {
    static CURRENT: Cell<*const Worker> = const { Cell::new(core::ptr::null()) };
}

/// The calling thread's worker for `body`'s duration. Kernel code may park and go on elsewhere between calls of
/// [`current`], but nothing parks inside one, nor inside a context's `switch`.
pub(super) fn bind(worker: &Arc<Worker>, body: &mut dyn FnMut()) {
    CURRENT.with(|current| current.set(Arc::as_ptr(worker)));
    stub::pin(0, worker.cpu);
    body();
    CURRENT.with(|current| current.set(core::ptr::null()));
}

/// The calling thread's worker. Never inlined: see `platform::local`.
#[inline(never)]
pub(super) fn current() -> Option<Arc<Worker>> {
    CURRENT.with(|current| {
        let worker = current.get();
        if worker.is_null() {
            return None;
        }
        // SAFETY: `bind` holds a reference for as long as the cell has the pointer; this takes one more.
        unsafe {
            Arc::increment_strong_count(worker);
            Some(Arc::from_raw(worker))
        }
    })
}

/// The CPU of the calling thread's worker.
pub(super) fn current_cpu() -> Option<usize> {
    current().map(|worker| worker.cpu)
}
