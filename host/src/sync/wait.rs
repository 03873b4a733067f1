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
    /// Events that wake (poll(2) bits; queues without events pass `!0`), unless the registration says otherwise.
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

/// One waiter's place in a queue.
struct Entry {
    waiter: Arc<Waiter>,
    mask: u32,
}

/// Waiters on one thing.
#[derive(Default)]
pub struct WaitQueue {
    waiters: Lock<Vec<Entry>>,
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
        self.register_for(waiter, waiter.mask);
    }

    /// Adds a waiter for the events in `mask`, whatever its own mask: one waiter can so watch several queues.
    pub fn register_for(&self, waiter: &Arc<Waiter>, mask: u32) {
        let mut waiters = self.waiters.lock();
        waiters.push(Entry { waiter: waiter.clone(), mask });
        self.count.store(waiters.len() as u32, Ordering::SeqCst);
    }

    /// Removes a waiter (all its registrations here).
    pub fn unregister(&self, waiter: &Arc<Waiter>) {
        let mut waiters = self.waiters.lock();
        waiters.retain(|entry| !Arc::ptr_eq(&entry.waiter, waiter));
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
        for entry in self.waiters.lock().iter() {
            entry.offer(events);
        }
    }

    /// Wakes at most `limit` waiters, oldest first, and returns how many. A waiter that was woken before and has not
    /// run since is passed over: the second of two wakes belongs to the next in line.
    pub fn notify_some(&self, events: u32, limit: usize) -> usize {
        core::sync::atomic::fence(Ordering::SeqCst);
        if self.is_empty() {
            return 0;
        }
        let waiters = self.waiters.lock();
        let fresh = waiters.iter().filter(|entry| entry.waiter.seen.load(Ordering::Acquire) == 0);
        fresh.filter(|entry| entry.offer(events)).take(limit).count()
    }
}

impl Entry {
    /// Wakes the waiter if it is interested, and says whether it was.
    fn offer(&self, events: u32) -> bool {
        let events = events & self.mask;
        if events != 0 {
            self.waiter.seen.fetch_or(events, Ordering::AcqRel);
            self.waiter.target.wake();
        }
        events != 0
    }
}

#[cfg(test)]
mod tests {
    use super::{WaitQueue, Waiter, Wake};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn waiter(mask: u32) -> (Arc<Count>, Arc<Waiter>) {
        let count = Arc::new(Count::default());
        (count.clone(), Waiter::new(count, mask))
    }

    #[test]
    fn notify_respects_masks_and_unregister() {
        let queue = WaitQueue::new();
        let (reader, on_read) = waiter(1);
        let (writer, on_write) = waiter(4);
        queue.register(&on_read);
        queue.register_for(&on_write, 4);
        queue.notify(1);
        assert_eq!((reader.0.load(Ordering::Relaxed), writer.0.load(Ordering::Relaxed)), (1, 0));
        assert_eq!(on_read.take_seen(), 1);
        queue.unregister(&on_read);
        queue.notify(5);
        assert_eq!((reader.0.load(Ordering::Relaxed), writer.0.load(Ordering::Relaxed)), (1, 1));
        queue.unregister(&on_write);
        assert!(queue.is_empty());
    }

    #[test]
    fn each_of_two_single_wakes_reaches_another_waiter() {
        let queue = WaitQueue::new();
        let (first, a) = waiter(1);
        let (second, b) = waiter(1);
        queue.register(&a);
        queue.register(&b);
        assert_eq!(queue.notify_some(1, 1), 1);
        assert_eq!(queue.notify_some(1, 1), 1);
        assert_eq!(queue.notify_some(1, 1), 0);
        assert_eq!((first.0.load(Ordering::Relaxed), second.0.load(Ordering::Relaxed)), (1, 1));
    }
}
