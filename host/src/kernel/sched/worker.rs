//! A worker: one host thread, one CPU, one queue of runnable tasks.
//!
//! The queue holds plain pointers. A queued task cannot end: it has not run since it was queued, and its own stack holds a
//! reference to it until it has ended. So queueing counts no references.
//!
//! The task woken last has a slot of its own, which is taken and filled with one exchange and no lock: two tasks that take
//! turns never touch the rest. The low bits of [`Worker::attention`] count what is queued. A task is counted *before* it is put in and until
//! *after* it has been taken out, so that whoever reads 0 knows that there is nothing; who reads more may find nothing
//! and looks again.

use super::in_host::InHost;
use super::slice::Slice;
use super::spare::NO_CPU;
use crate::kernel::Task;
use crate::sync::{Lock, Rank};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::collections::VecDeque;
use std::sync::Arc;

/// Bits that count the tasks in this queue.
pub(super) const ATTEND_QUEUE: u32 = (1 << 24) - 1;
/// A timer was armed that nobody else may be waiting for.
pub(super) const ATTEND_TIMER: u32 = 1 << 24;

/// It has lost its CPU.
pub(super) const ATTEND_REST: u32 = 1 << 26;

/// Memory is short.
pub(super) const ATTEND_MEMORY: u32 = 1 << 25;

/// The turn of the task that runs is over, which cannot be said to it: it is in a host call.
const ATTEND_TURN: u32 = 1 << 27;

/// How often in a row the task woken last may go before those that have waited longer.
const STREAK: u32 = 16;

/// What the code on the other side of a stack switch does with the task that was left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Nothing = 0,
    Parked = 1,
    Yielded = 2,
    Dead = 3,
}

/// One worker. Fields without a comment on sharing are written by its own thread only.
#[repr(align(128))]
pub struct Worker {
    /// Its number, as the platform knows it.
    pub id: usize,
    /// `ATTEND_*`: what to look at before entering user code. Changed by anyone.
    pub(super) attention: Arc<AtomicU32>,
    /// The task woken last, which runs next because its waker usually waits for it; or null. Changed by anyone.
    next: AtomicPtr<Task>,
    /// The others, oldest first, and how many. Changed by anyone.
    fifo: Lock<VecDeque<AtomicPtr<Task>>>,
    fifo_len: AtomicUsize,
    /// How often `next` went first while others waited.
    streak: AtomicU32,
    /// Since when the queue has not been empty (monotonic ns), once somebody has looked; 0 before.
    pub(super) since: AtomicU64,
    /// Futex: 0 = awake or about to be, 1 = asleep.
    pub(super) sleeping: AtomicU32,
    /// Stack pointer of the idle loop while a task runs.
    pub(super) idle_sp: AtomicU64,
    /// The task that the last switch left, and what to do with it.
    pub(super) left: AtomicPtr<Task>,
    pub(super) left_how: AtomicU32,
    /// Task switches so far; the ticker compares them.
    pub(super) switches: AtomicU64,
    /// What the platform has been told of time slices.
    pub(super) slice: Slice,
    /// The task that runs; null in the idle loop.
    pub(super) running: AtomicPtr<Task>,
    /// Whether it is in a host call that may hang, and has been replaced ([`super::spare`]). Changed by the ticker, too.
    pub(super) in_host: InHost,
    /// How many such calls it has made; the ticker compares them.
    pub(super) host_calls: AtomicU64,
    /// The CPU that it has; or [`NO_CPU`](super::spare::NO_CPU). Given by the ticker, given up by its own thread.
    pub(super) cpu: AtomicUsize,
    /// Whether a task runs (as opposed to the idle loop).
    pub(super) busy: AtomicBool,
}

impl Worker {
    pub(super) fn new(id: usize) -> Self {
        Worker {
            id,
            attention: Arc::default(),
            next: AtomicPtr::new(null_mut()),
            fifo: Lock::new(Rank::RunQueue, VecDeque::new()),
            fifo_len: AtomicUsize::new(0),
            streak: AtomicU32::new(0),
            since: AtomicU64::new(0),
            slice: Slice::default(),
            sleeping: AtomicU32::new(0),
            idle_sp: AtomicU64::new(0),
            left: AtomicPtr::new(null_mut()),
            left_how: AtomicU32::new(Left::Nothing as u32),
            switches: AtomicU64::new(0),
            running: AtomicPtr::new(null_mut()),
            in_host: InHost::new(),
            host_calls: AtomicU64::new(0),
            cpu: AtomicUsize::new(NO_CPU),
            busy: AtomicBool::new(false),
        }
    }

    /// Tasks waiting here.
    #[inline]
    pub fn len(&self) -> usize {
        (self.attention.load(Ordering::SeqCst) & ATTEND_QUEUE) as usize
    }

    /// Whether no task waits here.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether memory is short, once.
    pub(super) fn is_called_for_memory(&self) -> bool {
        self.attention.load(Ordering::Relaxed) & ATTEND_MEMORY != 0
            && self.attention.fetch_and(!ATTEND_MEMORY, Ordering::SeqCst) & ATTEND_MEMORY != 0
    }

    /// For the ticker: has the task that runs, in a host call, let others go first before it runs its program again.
    pub(super) fn end_turn(&self) {
        self.attention.fetch_or(ATTEND_TURN, Ordering::SeqCst);
    }

    /// Whether the turn of the task that runs is over, once.
    #[inline]
    pub(super) fn is_turn_over(&self) -> bool {
        self.attention.load(Ordering::Relaxed) & ATTEND_TURN != 0
            && self.attention.fetch_and(!ATTEND_TURN, Ordering::SeqCst) & ATTEND_TURN != 0
    }

    /// Queues a runnable task: in front if it was woken just now, behind the others if it gave the CPU away. Returns
    /// how many wait then.
    #[inline]
    pub(super) fn push(&self, task: NonNull<Task>, in_front: bool) -> usize {
        let before = (self.attention.fetch_add(1, Ordering::SeqCst) & ATTEND_QUEUE) as usize;
        if before == 0 {
            // Stamped with a time when somebody first looks: the common wake is served before that.
            self.since.store(0, Ordering::Relaxed);
        }
        let task = task.as_ptr();
        let behind = if in_front { self.next.swap(task, Ordering::AcqRel) } else { task };
        if !behind.is_null() {
            self.push_behind(behind);
        }
        before + 1
    }

    #[cold]
    fn push_behind(&self, task: *mut Task) {
        let mut fifo = self.fifo.lock();
        fifo.push_back(AtomicPtr::new(task));
        self.fifo_len.store(fifo.len(), Ordering::Relaxed);
    }

    /// The task to run next. For the worker's own thread.
    #[inline]
    pub(super) fn pop(&self) -> Option<NonNull<Task>> {
        if self.attention.load(Ordering::Relaxed) & ATTEND_QUEUE == 0 {
            return None;
        }
        if self.fifo_len.load(Ordering::Relaxed) == 0 {
            self.taken(self.take_next())
        } else {
            self.pop_fairly()
        }
    }

    #[cold]
    fn pop_fairly(&self) -> Option<NonNull<Task>> {
        let streak = self.streak.load(Ordering::Relaxed);
        let next = if streak < STREAK { self.take_next() } else { None };
        self.streak.store(if next.is_some() { streak + 1 } else { 0 }, Ordering::Relaxed);
        self.taken(next.or_else(|| self.take_oldest()).or_else(|| self.take_next()))
    }

    /// A task for another worker to run: the one that has waited longest.
    pub(super) fn steal(&self) -> Option<NonNull<Task>> {
        if self.is_empty() {
            return None;
        }
        self.taken(self.take_oldest().or_else(|| self.take_next()))
    }

    #[inline]
    fn take_next(&self) -> Option<NonNull<Task>> {
        NonNull::new(self.next.swap(null_mut(), Ordering::AcqRel))
    }

    fn take_oldest(&self) -> Option<NonNull<Task>> {
        let mut fifo = self.fifo.lock();
        let oldest = fifo.pop_front();
        self.fifo_len.store(fifo.len(), Ordering::Relaxed);
        NonNull::new(oldest?.into_inner())
    }

    /// Stops counting a task that was taken out.
    #[inline]
    fn taken(&self, task: Option<NonNull<Task>>) -> Option<NonNull<Task>> {
        if task.is_some() {
            self.attention.fetch_sub(1, Ordering::Release);
        }
        task
    }
}

#[cfg(test)]
mod tests {
    use super::{STREAK, Worker};
    use crate::kernel::Task;
    use core::ptr::NonNull;
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A pointer that is never followed.
    fn task(number: usize) -> NonNull<Task> {
        NonNull::without_provenance(core::num::NonZero::new(number * 64).expect("numbers start at 1"))
    }

    fn number(task: NonNull<Task>) -> usize {
        task.addr().get() / 64
    }

    #[test]
    fn the_last_woken_goes_first_but_not_for_ever() {
        let worker = Worker::new(0);
        assert_eq!(worker.push(task(1), false), 1);
        assert_eq!(worker.push(task(2), true), 2);
        for _ in 0..STREAK {
            assert_eq!(worker.pop(), Some(task(2)));
            worker.push(task(2), true);
        }
        assert_eq!(worker.pop(), Some(task(1)));
        assert_eq!(worker.push(task(3), true), 2);
        assert_eq!(worker.steal(), Some(task(2)), "thieves take the one that has waited longest");
        assert_eq!(worker.pop(), Some(task(3)));
        assert_eq!((worker.pop(), worker.len()), (None, 0));
    }

    #[test]
    fn every_task_is_taken_once_whoever_pushes_and_steals() {
        const EACH: usize = 20_000;
        let worker = Worker::new(0);
        let left = AtomicUsize::new(3 * EACH);
        let take = |own: bool| {
            let mut got = Vec::new();
            while left.load(Ordering::SeqCst) != 0 {
                match if own { worker.pop() } else { worker.steal() } {
                    Some(task) => {
                        got.push(number(task));
                        left.fetch_sub(1, Ordering::SeqCst);
                    }
                    None => std::thread::yield_now(),
                }
            }
            got
        };
        let mut all = Vec::new();
        std::thread::scope(|scope| {
            for pusher in 0..3 {
                let worker = &worker;
                scope.spawn(move || {
                    for n in 0..EACH {
                        assert!(worker.push(task(1 + pusher * EACH + n), n % 3 != 0) > 0);
                    }
                });
            }
            let takers = [true, false, false].map(|own| scope.spawn(move || take(own)));
            for taker in takers {
                all.extend(taker.join().expect("a taker"));
            }
        });
        assert_eq!(all.len(), 3 * EACH);
        assert_eq!(all.iter().copied().collect::<BTreeSet<_>>().len(), 3 * EACH, "a task was taken twice");
        assert_eq!(worker.len(), 0);
    }
}
