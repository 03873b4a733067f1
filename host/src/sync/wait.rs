use super::Lock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Something that can be made to run again: a parked task, or the poller.
pub trait Wake: Send + Sync {
    /// Makes it run. A wake that arrives before the park is remembered; wakes coalesce.
    fn wake(&self);
}

/// One registration on one or more queues.
pub struct Waiter {
    target: Arc<dyn Wake>,
    /// Events that wake (poll(2) bits; queues without events pass `!0`).
    mask: u32,
    /// Events seen so far.
    seen: AtomicU32,
}

impl Waiter {
    /// A waiter that wakes `target` on any event in `mask`.
    pub fn new(target: Arc<dyn Wake>, mask: u32) -> Arc<Self> {
        Arc::new(Waiter { target, mask, seen: AtomicU32::new(0) })
    }

    /// Events notified since the last call.
    pub fn take_seen(&self) -> u32 {
        self.seen.swap(0, Ordering::AcqRel)
    }
}

/// Waiters on one thing.
#[derive(Default)]
pub struct WaitQueue {
    waiters: Lock<Vec<Arc<Waiter>>>,
    /// How many there are, readable without the lock: `notify` on an empty queue costs one load.
    count: AtomicU32,
}

impl WaitQueue {
    /// An empty queue.
    pub const fn new() -> Self {
        WaitQueue { waiters: Lock::new(Vec::new()), count: AtomicU32::new(0) }
    }

    /// Adds a waiter. Check the condition *after* registering, before parking.
    pub fn register(&self, waiter: &Arc<Waiter>) {
        let mut waiters = self.waiters.lock();
        waiters.push(waiter.clone());
        self.count.store(waiters.len() as u32, Ordering::SeqCst);
    }

    /// Removes a waiter (all its registrations here).
    pub fn unregister(&self, waiter: &Arc<Waiter>) {
        let mut waiters = self.waiters.lock();
        waiters.retain(|w| !Arc::ptr_eq(w, waiter));
        self.count.store(waiters.len() as u32, Ordering::SeqCst);
    }

    /// Whether anyone waits.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// Wakes every waiter whose mask meets `events`.
    pub fn notify(&self, events: u32) {
        // Pairs with `register`'s store: the waiter stores the count, then checks the condition; we changed the
        // condition, then load the count. Sequential consistency on both sides lets at least one see the other.
        core::sync::atomic::fence(Ordering::SeqCst);
        if self.is_empty() {
            return;
        }
        for waiter in self.waiters.lock().iter().filter(|w| w.mask & events != 0) {
            waiter.seen.fetch_or(events & waiter.mask, Ordering::AcqRel);
            waiter.target.wake();
        }
    }

    /// Wakes at most `limit` waiters, oldest first, and returns how many.
    pub fn notify_some(&self, events: u32, limit: usize) -> usize {
        let waiters = self.waiters.lock();
        let mut woken = 0;
        for waiter in waiters.iter().filter(|w| w.mask & events != 0).take(limit) {
            waiter.seen.fetch_or(events & waiter.mask, Ordering::AcqRel);
            waiter.target.wake();
            woken += 1;
        }
        woken
    }
}
