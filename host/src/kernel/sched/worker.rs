//! A worker: one host thread, one CPU, one queue of runnable tasks.

use crate::kernel::Task;
use crate::sync::Lock;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::collections::VecDeque;
use std::sync::Arc;

/// Tasks wait in this queue.
pub(super) const ATTEND_QUEUE: u32 = 1;
/// A timer was armed that nobody else may be waiting for.
pub(super) const ATTEND_TIMER: u32 = 2;

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
    queue: Lock<Queue>,
    /// Tasks in the queue, readable without the lock.
    len: AtomicUsize,
    /// Since when the queue has not been empty (counter ticks do not matter: monotonic ns).
    pub(super) since: AtomicU64,
    /// `ATTEND_*`: what to look at before entering user code. Set by anyone.
    pub(super) attention: AtomicU32,
    /// Futex: 0 = awake or about to be, 1 = asleep.
    pub(super) sleeping: AtomicU32,
    /// Stack pointer of the idle loop while a task runs.
    pub(super) idle_sp: AtomicU64,
    /// The task that the last switch left, and what to do with it.
    pub(super) left: AtomicPtr<Task>,
    pub(super) left_how: AtomicU32,
    /// Task switches so far; the ticker compares them.
    pub(super) switches: AtomicU64,
    /// Whether a task runs (as opposed to the idle loop).
    pub(super) busy: AtomicBool,
}

#[derive(Default)]
struct Queue {
    /// Woken last: runs next, because its waker usually waits for it.
    next: Option<Arc<Task>>,
    streak: u32,
    fifo: VecDeque<Arc<Task>>,
}

impl Worker {
    pub(super) fn new(id: usize) -> Self {
        Worker {
            id,
            queue: Lock::default(),
            len: AtomicUsize::new(0),
            since: AtomicU64::new(0),
            attention: AtomicU32::new(0),
            sleeping: AtomicU32::new(0),
            idle_sp: AtomicU64::new(0),
            left: AtomicPtr::new(core::ptr::null_mut()),
            left_how: AtomicU32::new(Left::Nothing as u32),
            switches: AtomicU64::new(0),
            busy: AtomicBool::new(false),
        }
    }

    /// Tasks waiting here.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::SeqCst)
    }

    /// Whether no task waits here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Queues a runnable task: in front if it was woken just now, behind the others if it gave the CPU away. Returns
    /// how many wait then.
    pub(super) fn push(&self, task: Arc<Task>, in_front: bool) -> usize {
        let mut queue = self.queue.lock();
        if in_front {
            if let Some(older) = queue.next.replace(task) {
                queue.fifo.push_back(older);
            }
        } else {
            queue.fifo.push_back(task);
        }
        self.publish(&queue)
    }

    /// The task to run next.
    pub(super) fn pop(&self) -> Option<Arc<Task>> {
        if self.len.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut queue = self.queue.lock();
        let task = queue.pop();
        self.publish(&queue);
        task
    }

    /// A task for another worker to run: the one that has waited longest.
    pub(super) fn steal(&self) -> Option<Arc<Task>> {
        if self.is_empty() {
            return None;
        }
        let mut queue = self.queue.lock();
        let task = queue.fifo.pop_front().or_else(|| queue.next.take());
        self.publish(&queue);
        task
    }

    fn publish(&self, queue: &Queue) -> usize {
        let len = queue.fifo.len() + usize::from(queue.next.is_some());
        let before = self.len.swap(len, Ordering::SeqCst);
        if len == 0 {
            self.attention.fetch_and(!ATTEND_QUEUE, Ordering::Relaxed);
        } else if before == 0 {
            // Stamped with a time when somebody first looks: the common wake is served before that.
            self.since.store(0, Ordering::Relaxed);
            self.attention.fetch_or(ATTEND_QUEUE, Ordering::SeqCst);
        }
        len
    }
}

impl Queue {
    fn pop(&mut self) -> Option<Arc<Task>> {
        if self.next.is_some() && (self.streak < STREAK || self.fifo.is_empty()) {
            self.streak += 1;
            return self.next.take();
        }
        self.streak = 0;
        self.fifo.pop_front().or_else(|| self.next.take())
    }
}
