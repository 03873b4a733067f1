//! Long work in the kernel gives way.
//!
//! Nobody interrupts kernel code. A task that works long for its program (to populate a terabyte, to read two gigabytes)
//! asks here every now and then: timers are served, who waits gets the worker, room is made where memory is short, and the work
//! ends if the task is to.

use super::Scheduler;
use super::timers::NEVER;
use super::worker::Worker;
use crate::abi::{Errno, Result};
use crate::arch::counter;
use crate::kernel::task::work;
use crate::sync::Pause;
use crate::time::{NSEC_PER_MSEC, monotonic_ns, ticks_to_ns};
use crate::vfs::Ruins;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use std::sync::Arc;

/// How long a task works before others go first.
const TURN_NS: u64 = 4 * NSEC_PER_MSEC;

impl Pause for Scheduler {
    fn pause(&self) -> Result<()> {
        loop {
            let Some(worker) = self.this() else { return Ok(()) };
            let Some(task) = NonNull::new(worker.running.load(Ordering::Relaxed)) else { return Ok(()) };
            // SAFETY: the task that runs on this worker is the caller, whose stack holds a reference to it.
            let task = unsafe { task.as_ref() };
            if task.work.load(Ordering::Relaxed) & work::KILL != 0 {
                return Err(Errno::EINTR);
            }
            match self.relief.get() {
                // It may go on elsewhere afterwards.
                Some(relief) if worker.is_called_for_memory() => relief(task),
                _ => {
                    self.end_turn(worker, task);
                    return Ok(());
                }
            }
        }
    }

    fn give_way(&self) {
        let Some(worker) = self.this() else { return };
        if let Some(task) = NonNull::new(worker.running.load(Ordering::Relaxed)) {
            // SAFETY: as above.
            self.end_turn(worker, unsafe { task.as_ref() });
        }
    }

    fn step_aside(&self) {
        core::hint::spin_loop();
        self.with_running(|task| self.yield_now(task));
    }
}

impl Scheduler {
    /// What asks the task that runs on the caller's worker to take file systems apart.
    pub(in crate::kernel) fn ruins(self: &Arc<Self>) -> Arc<Ruins> {
        let sched = Arc::downgrade(self);
        Ruins::new(move || {
            let mut asked = false;
            let mut ask = |task: &crate::kernel::Task| {
                task.work.fetch_or(work::RUINS, Ordering::SeqCst);
                asked = true;
            };
            if let Some(sched) = sched.upgrade() {
                sched.with_running(&mut ask);
            }
            asked
        })
    }

    /// Runs `note` with the task that runs on this worker, if there is one.
    pub(in crate::kernel) fn with_running(&self, note: impl FnOnce(&crate::kernel::Task)) {
        let running = self.this().and_then(|worker| NonNull::new(worker.running.load(Ordering::Relaxed)));
        if let Some(task) = running {
            // SAFETY: as above.
            note(unsafe { task.as_ref() });
        }
    }

    /// Lets others go first if `task`, which runs on `worker`, the caller's, has worked for long.
    fn end_turn(&self, worker: &Worker, task: &crate::kernel::Task) {
        if ticks_to_ns(worker.slice.age(counter::read())) >= TURN_NS {
            self.let_others(task);
        }
    }

    #[cold]
    fn let_others(&self, task: &crate::kernel::Task) {
        let due = self.timers.next();
        if due != NEVER {
            self.timers.fire(monotonic_ns());
        }
        self.yield_now(task);
        // Nobody waits, or all have had their turn: this one begins anew.
        if let Some(worker) = self.this() {
            worker.slice.begin(counter::read());
        }
    }
}
