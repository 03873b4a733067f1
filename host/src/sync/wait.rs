use super::{Lock, LockGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

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
#[derive(Default)]
pub struct WaitQueue {
    waiters: Lock<Waiters>,
    /// How many there are, readable without the lock: `notify` on an empty queue takes none.
    count: AtomicU32,
    /// How often it was notified.
    version: AtomicU32,
}

impl WaitQueue {
    /// An empty queue.
    pub const fn new() -> Self {
        WaitQueue {
            waiters: Lock::new(Waiters { first: None, more: Vec::new() }),
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
        self.add(Entry { waiter: waiter.clone(), mask: waiter.mask, how: How::Outside });
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

#[cfg(test)]
mod tests {
    use super::{WaitQueue, Waiter, Wake};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

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
        queue.unregister(&on_read);
        queue.notify(5);
        assert_eq!((reader.0.load(Ordering::Relaxed), writer.0.load(Ordering::Relaxed)), (1, 1));
        queue.unregister(&on_write);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_waiter_leaves_with_all_its_registrations_and_nobody_elses() {
        let queue = WaitQueue::new();
        let all: Vec<_> = (0..4).map(|_| waiter(1)).collect();
        for (_, waiter) in &all {
            queue.register(waiter);
        }
        queue.register(&all[0].1);
        // The oldest, then one from the middle.
        queue.unregister(&all[0].1);
        queue.unregister(&all[2].1);
        queue.notify(1);
        let woken: Vec<u32> = all.iter().map(|(count, _)| count.0.load(Ordering::Relaxed)).collect();
        assert_eq!(woken, [0, 1, 0, 1]);
        queue.unregister(&all[3].1);
        queue.unregister(&all[1].1);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_waiter_for_one_wake_leaves_with_it() {
        let queue = WaitQueue::new();
        let all: Vec<_> = (0..3).map(|_| waiter(1)).collect();
        queue.register_once(&all[0].1, 1);
        queue.register(&all[1].1);
        queue.register_once(&all[2].1, 4);
        let version = queue.version();
        queue.notify(1);
        queue.notify(1);
        assert_eq!(queue.version(), version + 2);
        queue.unregister(&all[1].1);
        assert!(!queue.is_empty());
        queue.notify(5);
        assert!(queue.is_empty());
        let woken: Vec<u32> = all.iter().map(|(count, _)| count.0.load(Ordering::Relaxed)).collect();
        assert_eq!(woken, [1, 2, 1]);
    }

    /// What a host thread that waits as a task does is woken by.
    #[derive(Default)]
    struct Parked(AtomicU32);

    impl Wake for Parked {
        fn wake(&self) {
            self.0.store(1, Ordering::SeqCst);
            crate::hostsys::futex::wake(&self.0, 1);
        }
    }

    #[test]
    fn no_wake_is_lost_between_registering_and_sleeping() {
        // Two sides take turns through two queues, as the two ends of two pipes: any wake that is lost ends the test.
        const ROUNDS: u32 = 30_000;
        const PATIENCE: Duration = Duration::from_secs(20);
        let turn = AtomicU32::new(0);
        let queues = [WaitQueue::new(), WaitQueue::new()];
        let side = |own: u32| {
            let parked = Arc::new(Parked::default());
            let waiter = Waiter::new(parked.clone(), 1);
            for round in 0..ROUNDS {
                let mine = 2 * round + own;
                let queue = &queues[own as usize];
                // Every way of waiting in turn.
                let mut seen = Some(queue.version()).filter(|_| round % 3 == 0);
                while turn.load(Ordering::Relaxed) != mine {
                    if round % 3 == 1 {
                        queue.register(&waiter);
                    } else {
                        queue.register_once(&waiter, 1);
                    }
                    if seen.take() != Some(queue.version()) && turn.load(Ordering::Relaxed) == mine {
                        queue.unregister(&waiter);
                        break;
                    }
                    let since = std::time::Instant::now();
                    crate::hostsys::futex::wait(&parked.0, 0, Some(PATIENCE));
                    parked.0.swap(0, Ordering::SeqCst);
                    assert!(since.elapsed() < PATIENCE, "the wake of round {round} was lost");
                    queue.unregister(&waiter);
                }
                turn.store(mine + 1, Ordering::Relaxed);
                queues[1 - own as usize].notify(1);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| side(0));
            side(1);
        });
        assert_eq!(turn.load(Ordering::SeqCst), 2 * ROUNDS);
    }
}
