use super::primitive::{AtomicU32, Ordering, fence};
use super::{Lock, LockGuard, Rank};
use std::collections::{BTreeMap, BTreeSet};
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
    /// Something urgent has come: who owns the file hears of it by SIGURG.
    pub const URGENT: u32 = 1 << 18;
}

/// Waiters, oldest first. Most queues have one at a time, which needs no memory of its own.
struct Waiters {
    first: Option<Entry>,
    /// Empty if there is no first.
    more: More,
}

/// The others.
enum More {
    Few(Vec<Entry>),
    Many(Box<Many>),
}

/// So many are few: they are looked through for each that leaves.
const FEW: usize = 32;

/// Waiters that are found by who waits: one descriptor can be watched as often as a program likes, and each watch leaves alone.
#[derive(Default)]
struct Many {
    /// In the order in which they came.
    entries: BTreeMap<u64, Entry>,
    /// Address of the waiter, number of the entry.
    places: BTreeSet<(usize, u64)>,
    next: u64,
}

/// Waiters that have left, oldest first.
#[derive(Default)]
struct Gone {
    first: Option<Entry>,
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
            waiters: Lock::new(rank, Waiters { first: None, more: More::Few(Vec::new()) }),
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
        let gone = waiters.take(waiter);
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
        let mut one = false;
        let mut outside = Vec::new();
        let mut tell = |entry: &Entry| {
            if entry.mask & events != 0 {
                match entry.how {
                    How::Kept => entry.waiter.target.wake(),
                    How::Exclusive if one => {}
                    How::Exclusive => one = entry.waiter.target.wake_one(),
                    How::Outside => outside.push(entry.waiter.clone()),
                    How::Once => {}
                }
            }
        };
        waiters.first.iter().for_each(&mut tell);
        match &waiters.more {
            More::Few(few) => few.iter().for_each(&mut tell),
            More::Many(many) => many.entries.values().for_each(&mut tell),
        }
        let woken = waiters.take_once(events);
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

impl More {
    fn len(&self) -> usize {
        match self {
            More::Few(few) => few.len(),
            More::Many(many) => many.entries.len(),
        }
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push(&mut self, entry: Entry) {
        match self {
            More::Few(few) if few.len() < FEW => few.push(entry),
            More::Few(few) => {
                let mut many = Box::new(Many::default());
                few.drain(..).chain([entry]).for_each(|entry| many.push(entry));
                *self = More::Many(many);
            }
            More::Many(many) => many.push(entry),
        }
    }

    /// Takes the oldest.
    fn pop_first(&mut self) -> Option<Entry> {
        match self {
            More::Few(few) if few.is_empty() => None,
            More::Few(few) => Some(few.remove(0)),
            More::Many(many) => {
                let number = *many.entries.first_key_value()?.0;
                many.remove(number)
            }
        }
    }
}

impl Many {
    fn push(&mut self, entry: Entry) {
        self.next += 1;
        self.places.insert((address(&entry.waiter), self.next));
        self.entries.insert(self.next, entry);
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        self.places.remove(&(address(&entry.waiter), number));
        Some(entry)
    }
}

fn address(waiter: &Arc<Waiter>) -> usize {
    Arc::as_ptr(waiter) as usize
}

impl Waiters {
    #[inline]
    fn count(&self) -> u32 {
        u32::from(self.first.is_some()) + self.more.len() as u32
    }

    /// Takes a waiter out, all its registrations.
    #[inline]
    fn take(&mut self, waiter: &Arc<Waiter>) -> Gone {
        let first = self.first.take_if(|entry| Arc::ptr_eq(&entry.waiter, waiter));
        if self.more.is_empty() {
            return Gone { first, more: Vec::new() };
        }
        self.take_more(first, &mut |more| match more {
            More::Few(few) => few.extract_if(.., |entry| Arc::ptr_eq(&entry.waiter, waiter)).collect(),
            More::Many(many) => {
                let own = (address(waiter), 0)..=(address(waiter), u64::MAX);
                let numbers: Vec<u64> = many.places.range(own).map(|place| place.1).collect();
                numbers.into_iter().filter_map(|number| many.remove(number)).collect()
            }
        })
    }

    /// Takes those out that are woken once, by such events.
    fn take_once(&mut self, events: u32) -> Gone {
        let is = |entry: &Entry| entry.how == How::Once && entry.mask & events != 0;
        let first = self.first.take_if(|entry| is(entry));
        self.take_more(first, &mut |more| match more {
            More::Few(few) => few.extract_if(.., |entry| is(entry)).collect(),
            More::Many(many) => {
                let due = many.entries.iter().filter(|(_, entry)| is(entry));
                let numbers: Vec<u64> = due.map(|(number, _)| *number).collect();
                numbers.into_iter().filter_map(|number| many.remove(number)).collect()
            }
        })
    }

    /// Takes some of the others out, and puts the oldest that is left in front.
    #[cold]
    fn take_more(&mut self, first: Option<Entry>, take: &mut dyn FnMut(&mut More) -> Vec<Entry>) -> Gone {
        let more = take(&mut self.more);
        if self.first.is_none() {
            self.first = self.more.pop_first();
        }
        if self.more.is_empty() {
            // What many took is not kept for few.
            self.more = More::Few(Vec::new());
        }
        Gone { first, more }
    }
}
