//! Leaving one kernel stack for another.
//!
//! A task that parks is still running on its stack while it looks for the next one, so it cannot mark itself as parked:
//! another worker might continue it before its stack pointer is saved. What is on the other side of the switch does
//! it instead ([`Scheduler::finish`]), and finds out there whether a wake came in between (see `state`).

use super::Scheduler;
use super::state::RunState;
use super::worker::{Left, Worker};
use crate::arch::{counter, prepare_stack, switch_stacks};
use crate::arena::stack::KernelStack;
use crate::kernel::{Current, Task};
use crate::sync::{Lock, Rank, no_lock_is_held};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::Arc;

/// What the scheduler keeps in each task.
pub(in crate::kernel) struct Entity {
    state: RunState,
    /// Stack pointer while not running.
    sp: AtomicU64,
    stack: Lock<Option<KernelStack>>,
    /// Counter ticks spent on a worker, up to the last switch.
    pub(in crate::kernel) cpu_ticks: AtomicU64,
    /// When it was switched in, or 0.
    pub(in crate::kernel) running_since: AtomicU64,
    /// Voluntary and involuntary switches, for rusage.
    pub(in crate::kernel) switches: [AtomicU64; 2],
}

impl Entity {
    /// Of a task that has not been started.
    pub(in crate::kernel) fn new() -> Self {
        Entity {
            state: RunState::new(),
            sp: AtomicU64::new(0),
            stack: Lock::new(Rank::TaskStack, None),
            cpu_ticks: AtomicU64::new(0),
            running_since: AtomicU64::new(0),
            switches: [AtomicU64::new(0), AtomicU64::new(0)],
        }
    }

    /// How often it has left a worker.
    pub(in crate::kernel) fn switches(&self) -> u64 {
        self.switches.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Whether it waits for something (as opposed to running or waiting for a CPU): `S` in /proc/PID/stat.
    pub(in crate::kernel) fn is_parked(&self) -> bool {
        self.state.is_parked()
    }

    /// Whether a worker runs it, or may have begun to: then it looks at nothing before it comes back from user code.
    pub(in crate::kernel) fn is_on_worker(&self) -> bool {
        self.state.is_on_worker()
    }

    /// Notes a wake; true if the caller has to queue the task.
    pub(super) fn notify(&self) -> bool {
        self.state.notify()
    }
}

impl Scheduler {
    /// Gives a new task a stack and queues it. `current` becomes its own.
    ///
    /// # Errors
    /// ENOMEM without a stack.
    pub(in crate::kernel) fn start(&self, current: Box<Current>) -> crate::abi::Result<()> {
        let task = current.task.clone();
        let stack = KernelStack::new()?;
        let arg = Box::into_raw(current) as usize;
        // SAFETY: a fresh stack; `task_start` takes ownership of the box.
        let sp = unsafe { prepare_stack(stack.top(), task_start, arg) };
        task.entity.sp.store(sp, Ordering::Relaxed);
        *task.entity.stack.lock() = Some(stack);
        // The stack holds a reference from here on (through the box).
        self.enqueue(NonNull::from(&*task), true);
        Ok(())
    }

    /// Waits for a wake of the calling task. Returns at once if one has come since the last park.
    pub(in crate::kernel) fn park(&self, task: &Task) {
        no_lock_is_held();
        if task.entity.state.take_wake() {
            return;
        }
        add_own(&task.entity.switches[0], 1);
        self.leave(task, Left::Parked);
    }

    /// Lets the tasks that wait for this worker run first.
    pub(in crate::kernel) fn yield_now(&self, task: &Task) {
        if self.this().is_some_and(|worker| !worker.is_empty()) {
            add_own(&task.entity.switches[1], 1);
            self.leave(task, Left::Yielded);
        }
    }

    /// Ends the calling task, whose stack holds nothing any more that needs dropping.
    fn die(&self, task: Arc<Task>) -> ! {
        let left = Arc::into_raw(task);
        // SAFETY: the pointer is valid until `finish` turns it back into an `Arc`, after the switch.
        self.leave(unsafe { &*left }, Left::Dead);
        unreachable!("a dead task was continued")
    }

    /// Switches from `task` to the next one, or to the idle loop; returns when `task` is continued.
    pub(super) fn leave(&self, task: &Task, how: Left) {
        no_lock_is_held();
        let Some(worker) = self.this() else { return };
        let next = if self.is_to_rest(worker) { None } else { self.next_task(worker) };
        let now = counter::read();
        self.begin_turn(worker, now);
        task.entity.end(now);
        worker.running.store(next.map_or(core::ptr::null_mut(), NonNull::as_ptr), Ordering::Relaxed);
        let to = match next {
            // SAFETY: a queued task exists until it has run to its end.
            Some(next) => unsafe { next.as_ref() }.entity.begin(now),
            None => {
                worker.busy.store(false, Ordering::Relaxed);
                worker.idle_sp.load(Ordering::Relaxed)
            }
        };
        add_own(&worker.switches, 1);
        worker.left.store(core::ptr::from_ref(task).cast_mut(), Ordering::Relaxed);
        worker.left_how.store(how as u32, Ordering::Relaxed);
        // SAFETY: `to` was saved by a switch or prepared, and whoever took it out of a queue (or is this worker, for
        // the idle loop) is the only one to continue it. `sp` lives as long as the task.
        unsafe { switch_stacks(task.entity.sp.as_ptr(), to) };
        self.finish();
    }

    /// From the idle loop: runs `next` until the worker has nothing to run.
    pub(super) fn enter(&self, worker: &Worker, next: NonNull<Task>) {
        let now = counter::read();
        self.begin_turn(worker, now);
        // SAFETY: as in `leave`.
        let to = unsafe { next.as_ref() }.entity.begin(now);
        worker.busy.store(true, Ordering::Relaxed);
        worker.running.store(next.as_ptr(), Ordering::Relaxed);
        worker.left_how.store(Left::Nothing as u32, Ordering::Relaxed);
        add_own(&worker.switches, 1);
        // SAFETY: as in `leave`; `idle_sp` is this worker's own.
        unsafe { switch_stacks(worker.idle_sp.as_ptr(), to) };
        self.finish();
    }

    /// Another task runs on `worker` from `now` on.
    #[inline]
    fn begin_turn(&self, worker: &Worker, now: u64) {
        if worker.slice.switched(now) {
            self.platform.cancel_kick(worker.id);
        }
    }

    /// Completes a switch, on the stack that was switched to.
    fn finish(&self) {
        let Some(worker) = self.this() else { return };
        let left: *mut Task = worker.left.load(Ordering::Relaxed);
        // Both were stored by the switch that ends here.
        match worker.left_how.load(Ordering::Relaxed) {
            how if how == Left::Parked as u32 => {
                // SAFETY: the task's stack holds a reference to it, and until the exchange below nobody else runs it.
                let task = unsafe { &*left };
                if !task.entity.state.park() {
                    self.requeue(worker, task);
                }
            }
            how if how == Left::Yielded as u32 => {
                // SAFETY: as above: nobody runs it before it is queued.
                self.requeue(worker, unsafe { &*left });
            }
            how if how == Left::Dead as u32 => {
                // SAFETY: `die` made it with `into_raw`.
                let task = unsafe { Arc::from_raw(left) };
                let stack = task.entity.stack.lock().take();
                drop(stack);
            }
            _ => {}
        }
    }

    fn requeue(&self, worker: &Worker, task: &Task) {
        task.entity.state.queue();
        worker.push(NonNull::from(task), false);
    }
}

impl Entity {
    /// Marks it as running and returns where to continue.
    fn begin(&self, now: u64) -> u64 {
        self.state.run();
        self.running_since.store(now, Ordering::Relaxed);
        self.sp.load(Ordering::Relaxed)
    }

    fn end(&self, now: u64) {
        let since = self.running_since.load(Ordering::Relaxed);
        self.running_since.store(0, Ordering::Relaxed);
        add_own(&self.cpu_ticks, now.saturating_sub(since));
    }
}

/// Adds to a counter that only the calling worker writes at the moment: no read-modify-write is needed.
#[inline]
fn add_own(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

/// First code on a new task's stack.
extern "C" fn task_start(arg: usize) -> ! {
    // SAFETY: `start` made it from a box, for this call alone.
    let mut current = unsafe { Box::from_raw(arg as *mut Current) };
    let kernel = current.kernel.clone();
    kernel.sched.finish();
    current.main();
    let task = current.task.clone();
    drop(current);
    let sched = Arc::as_ptr(&kernel.sched);
    drop(kernel);
    // SAFETY: the task holds a reference to its scheduler and is handed to `die`, which keeps it until after the switch;
    // the scheduler also outlives its workers, one of which this is.
    unsafe { (*sched).die(task) }
}

const _: () = {
    // `Worker::left` is shared between threads only through the switch protocol.
    const fn is_sync<T: Sync>() {}
    is_sync::<AtomicPtr<Task>>();
};
