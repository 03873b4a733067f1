//! One queue of deadlines for everything that waits for time.

use crate::sync::{Lock, Rank, Wake};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// No deadline.
pub const NEVER: u64 = u64::MAX;
/// Most deadlines that one look serves: whoever looks has other things to do, too.
const SERVED: usize = 128;
/// Least time between two expiries of one timer, and between those of all together, ns. Whatever their intervals are,
/// all timers there can be take a small part of one CPU's time.
const GAP: u64 = 20_000;
const GAP_OF_ALL: u64 = 5_000;

/// What happens when a deadline passes: interval timers, POSIX timers, timerfd. Called on a worker or on the ticker
/// thread, without locks held; must not park.
pub trait Expire: Send + Sync {
    /// `now` is CLOCK_MONOTONIC, at or after the deadline.
    fn expire(&self, now: u64);
}

/// What to do at a deadline.
pub enum Action {
    /// Wake somebody.
    Wake(Arc<dyn Wake>),
    /// Call somebody.
    Expire(Arc<dyn Expire>),
}

/// Names an armed timer, to cancel it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId {
    deadline: u64,
    serial: u64,
}

/// All armed timers, by deadline.
pub struct Timers {
    queue: Lock<Queue>,
    /// The earliest deadline, readable without the lock.
    next: AtomicU64,
}

struct Queue {
    armed: BTreeMap<TimerId, Action>,
    serial: u64,
}

impl Timers {
    pub(super) fn new() -> Self {
        Timers {
            queue: Lock::new(Rank::TimerQueue, Queue { armed: BTreeMap::new(), serial: 0 }),
            next: AtomicU64::new(NEVER),
        }
    }

    /// The earliest deadline, or [`NEVER`].
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }

    /// Arms a timer. Whoever does makes sure that somebody will look: see `Scheduler::add_timer`.
    pub(super) fn add(&self, deadline: u64, action: Action) -> TimerId {
        let mut queue = self.queue.lock();
        queue.serial += 1;
        let id = TimerId { deadline, serial: queue.serial };
        queue.armed.insert(id, action);
        self.publish(&queue);
        id
    }

    /// Disarms a timer and says whether it had not fired yet. It may be firing on another worker at this moment.
    pub fn cancel(&self, id: TimerId) -> bool {
        let mut queue = self.queue.lock();
        let removed = queue.armed.remove(&id);
        self.publish(&queue);
        drop(queue);
        removed.is_some()
    }

    /// When a timer that has expired at `now` and is next due at `due` is to be looked at again: then, or later if that
    /// would be too soon.
    pub(super) fn again(&self, due: u64, now: u64) -> u64 {
        let armed = self.queue.lock().armed.len() as u64;
        due.max(now.saturating_add(GAP.max(armed * GAP_OF_ALL)))
    }

    /// Fires what is due, or the first of it, and says whether anything was.
    pub(super) fn fire(&self, now: u64) -> bool {
        let mut fired = false;
        for _ in 0..SERVED {
            if self.next() > now {
                break;
            }
            let mut queue = self.queue.lock();
            let due = queue
                .armed
                .first_entry()
                .filter(|entry| entry.key().deadline <= now)
                .map(|entry| entry.remove());
            self.publish(&queue);
            drop(queue);
            match due {
                Some(Action::Wake(target)) => target.wake(),
                Some(Action::Expire(target)) => target.expire(now),
                None => break,
            }
            fired = true;
        }
        fired
    }

    fn publish(&self, queue: &Queue) {
        let next = queue.armed.first_key_value().map_or(NEVER, |(id, _)| id.deadline);
        self.next.store(next, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Expire, GAP_OF_ALL, NEVER, SERVED, Timers};
    use crate::sync::{Lock, Rank};
    use std::sync::Arc;

    struct Log(Arc<Lock<Vec<u32>>>, u32);

    impl Expire for Log {
        fn expire(&self, _now: u64) {
            self.0.lock().push(self.1);
        }
    }

    #[test]
    fn fires_in_order_and_cancels() {
        let timers = Timers::new();
        let log = Arc::new(Lock::new(Rank::Stacks, Vec::new()));
        let arm = |deadline, tag| timers.add(deadline, Action::Expire(Arc::new(Log(log.clone(), tag))));
        arm(30, 3);
        let second = arm(20, 2);
        arm(20, 4);
        arm(10, 1);
        assert_eq!(timers.next(), 10);
        assert!(timers.cancel(second));
        assert!(!timers.cancel(second));
        assert!(!timers.fire(9));
        assert!(timers.fire(25));
        assert_eq!(*log.lock(), [1, 4]);
        assert_eq!(timers.next(), 30);
        assert!(timers.fire(30));
        assert_eq!(timers.next(), NEVER);
    }

    /// Arms itself again for the next nanosecond.
    struct Restless(Arc<Timers>, Lock<u64>, std::sync::Weak<Restless>);

    impl Expire for Restless {
        fn expire(&self, now: u64) {
            *self.1.lock() += 1;
            if let Some(me) = self.2.upgrade() {
                self.0.add(self.0.again(now + 1, now), Action::Expire(me));
            }
        }
    }

    #[test]
    fn however_many_timers_there_are_others_get_their_turn() {
        let timers = Arc::new(Timers::new());
        let restless: Vec<_> = (0..10_000)
            .map(|_| Arc::new_cyclic(|me| Restless(timers.clone(), Lock::new(Rank::Stacks, 0), me.clone())))
            .collect();
        for timer in &restless {
            timers.add(0, Action::Expire(timer.clone()));
        }
        let log = Arc::new(Lock::new(Rank::Stacks, Vec::new()));
        timers.add(1_000_000, Action::Expire(Arc::new(Log(log.clone(), 1))));
        let count = || restless.iter().map(|timer| *timer.1.lock()).sum::<u64>();
        timers.fire(0);
        assert!(count() <= SERVED as u64, "one look is short");
        // A look every microsecond, for a tenth of a second.
        for now in 1..100_000 {
            timers.fire(now * 1000);
        }
        assert_eq!(*log.lock(), [1]);
        assert!(count() < 10_000 + 100_000_000 / GAP_OF_ALL * 2, "{}", count());
        assert!(restless.iter().all(|timer| *timer.1.lock() > 1), "nobody is forgotten");
    }
}
