use super::primitive::{AtomicU32, Ordering, fence};
use super::{Lock, LockGuard, Rank};
use std::sync::Arc;

/// Something that can be made to run again: a parked task, or the poller.
pub trait Wake: Send + Sync {
    /// Makes it run. A wake that arrives before the park is remembered; wakes coalesce.
    fn wake(&self);

    /// Makes it run for these events.
    fn wake_for(&self, events: u32) {
        let _ = events;
        self.wake();
    }

    /// Makes it run for an event that one is enough for; says whether this one does.
    fn wake_one(&self) -> bool {
        self.wake();
        true
    }
}

/// One registration on one or more queues.
pub struct Waiter {
    target: Arc<dyn Wake>,
    /// Events that wake (poll(2) bits; queues without events pass `!0`), unless the registration says otherwise.
    mask: u32,
}

impl Waiter {
    /// A waiter that wakes `target` on any event in `mask`.
    pub fn new(target: Arc<dyn Wake>, mask: u32) -> Arc<Self> {
        Arc::new(Waiter { target, mask })
    }
}

/// One waiter's place in a queue.
struct Entry {
    waiter: Arc<Waiter>,
    mask: u32,
    how: How,
}

/// What happens to a waiter that is woken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// It stays.
    Kept,
    /// It stays; of all that are so one is woken.
    Exclusive,
    /// It leaves the queue first.
    Once,
    /// It stays, and is woken without the queue's lock.
    Outside,
}

/// Events that no poll(2) shows.
pub mod event {
    /// There is room again, and somebody has found none.
    pub const SPACE: u32 = 1 << 16;
    /// The other end has gone.
    pub const HANGUP: u32 = 1 << 17;
}

/// Waiters, oldest first. Most queues have one at a time, which needs no memory of its own.
#[derive(Default)]
struct Waiters {
    first: Option<Entry>,
    /// Empty if there is no first.
    more: Vec<Entry>,
}

/// Waiters on one thing.
pub struct WaitQueue {
    waiters: Lock<Waiters>,
    /// How many there are, readable without the lock: `notify` on an empty queue takes none.
    count: AtomicU32,
    /// How often it was notified.
    version: AtomicU32,
}

impl Default for WaitQueue {
    fn default() -> Self {
        WaitQueue::new()
    }
}

impl WaitQueue {
    /// An empty queue.
    pub const fn new() -> Self {
        Self::ranked(Rank::WaitQueue)
    }

    /// An empty queue whose lock is taken in another place of the order than those of others.
    pub const fn ranked(rank: Rank) -> Self {
        WaitQueue {
            waiters: Lock::new(rank, Waiters { first: None, more: Vec::new() }),
            count: AtomicU32::new(0),
            version: AtomicU32::new(0),
        }
    }

    /// Adds a waiter. Check the condition *after* registering, before parking.
    pub fn register(&self, waiter: &Arc<Waiter>) {
        self.register_for(waiter, waiter.mask);
    }

    /// Adds a waiter for the events in `mask`, whatever its own mask: one waiter can so watch several queues.
    pub fn register_for(&self, waiter: &Arc<Waiter>, mask: u32) {
        self.add(Entry { waiter: waiter.clone(), mask, how: How::Kept });
    }

    /// As [`register_for`](Self::register_for), but of all that are registered so an event wakes one only.
    pub fn register_exclusive(&self, waiter: &Arc<Waiter>, mask: u32) {
        self.add(Entry { waiter: waiter.clone(), mask, how: How::Exclusive });
    }

    /// As [`register`](Self::register) for a waiter that does much when it is woken: it is without the lock, and may be
    /// once more after it has left.
    pub fn register_outside(&self, waiter: &Arc<Waiter>) {
        self.register_outside_for(waiter, waiter.mask);
    }

    /// The same for the events in `mask`.
    pub fn register_outside_for(&self, waiter: &Arc<Waiter>, mask: u32) {
        self.add(Entry { waiter: waiter.clone(), mask, how: How::Outside });
    }

    /// As [`register_for`](Self::register_for), for one wake: a waiter that is woken is not in the queue any more.
    #[inline]
    pub fn register_once(&self, waiter: &Arc<Waiter>, mask: u32) {
        self.add(Entry { waiter: waiter.clone(), mask, how: How::Once });
    }

    #[inline]
    fn add(&self, entry: Entry) {
        let mut waiters = self.waiters.lock();
        if waiters.first.is_none() {
            waiters.first = Some(entry);
        } else {
            waiters.more.push(entry);
        }
        self.count.store(waiters.count(), Ordering::Relaxed);
        drop(waiters);
        // Pairs with the one in `notify`: the waiter stores the count, then checks the condition (or the version); who
        // changes the condition does that, raises the version, then loads the count. With a full fence in between on both
        // sides at least one sees what the other stored: the waiter does not park, or is woken.
        fence(Ordering::SeqCst);
    }

    /// How often it was notified, modulo 2^32. Read before a condition is checked, and again after registering: if it is
    /// the same, the condition need not be checked again.
    #[inline]
    pub fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }

    /// Removes a waiter (all its registrations here).
    #[inline]
    pub fn unregister(&self, waiter: &Arc<Waiter>) {
        // A registration that the caller knows of was counted before, and is until it is removed: here, or by the wake
        // that the caller has seen.
        if !self.is_empty() {
            self.remove(waiter);
        }
    }

    fn remove(&self, waiter: &Arc<Waiter>) {
        let mut waiters = self.waiters.lock();
        let gone = waiters.take(|entry| Arc::ptr_eq(&entry.waiter, waiter));
        self.count.store(waiters.count(), Ordering::Relaxed);
        drop(waiters);
        drop(gone);
    }

    /// Whether anyone waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Wakes every waiter whose mask meets `events`. Call it after each change of what is waited for.
    #[inline]
    pub fn notify(&self, events: u32) {
        self.version.fetch_add(1, Ordering::Release);
        // See `add`.
        fence(Ordering::SeqCst);
        if !self.is_empty() {
            self.notify_waiters(events);
        }
    }

    fn notify_waiters(&self, events: u32) {
        let mut waiters = self.waiters.lock();
        if !waiters.more.is_empty() {
            return self.notify_many(waiters, events);
        }
        // One waiter, as a rule.
        match &waiters.first {
            Some(entry) if entry.mask & events == 0 => {}
            Some(entry) if entry.how == How::Outside => {
                let waiter = entry.waiter.clone();
                drop(waiters);
                waiter.target.wake_for(events);
            }
            Some(entry) if entry.how != How::Once => entry.waiter.target.wake(),
            _ => {
                let woken = waiters.first.take();
                self.count.store(0, Ordering::Relaxed);
                // Who is woken on another worker finds the lock free.
                drop(waiters);
                if let Some(entry) = woken {
                    entry.waiter.target.wake();
                }
            }
        }
    }

    #[cold]
    fn notify_many(&self, mut waiters: LockGuard<'_, Waiters>, events: u32) {
        let all = waiters.first.iter().chain(&waiters.more);
        let mut one = false;
        let mut outside = Vec::new();
        for entry in all.filter(|entry| entry.mask & events != 0) {
            match entry.how {
                How::Kept => entry.waiter.target.wake(),
                How::Exclusive if one => {}
                How::Exclusive => one = entry.waiter.target.wake_one(),
                How::Outside => outside.push(entry.waiter.clone()),
                How::Once => {}
            }
        }
        let woken = waiters.take(|entry| entry.how == How::Once && entry.mask & events != 0);
        self.count.store(waiters.count(), Ordering::Relaxed);
        drop(waiters);
        for entry in woken.first.iter().chain(&woken.more) {
            entry.waiter.target.wake();
        }
        for waiter in outside {
            waiter.target.wake_for(events);
        }
    }
}

impl Waiters {
    #[inline]
    fn count(&self) -> u32 {
        u32::from(self.first.is_some()) + self.more.len() as u32
    }

    /// Takes those out that `is` holds for, oldest first.
    #[inline]
    fn take(&mut self, is: impl Fn(&Entry) -> bool) -> Waiters {
        if self.more.is_empty() {
            return Waiters { first: self.first.take_if(|entry| is(entry)), more: Vec::new() };
        }
        self.take_some(&is)
    }

    #[cold]
    fn take_some(&mut self, is: &dyn Fn(&Entry) -> bool) -> Waiters {
        let all = self.first.take().into_iter().chain(self.more.drain(..));
        let (mut taken, mut left): (Vec<Entry>, Vec<Entry>) = all.partition(is);
        let first =
            |entries: &mut Vec<Entry>| if entries.is_empty() { None } else { Some(entries.remove(0)) };
        self.first = first(&mut left);
        self.more = left;
        Waiters { first: first(&mut taken), more: taken }
    }
}
