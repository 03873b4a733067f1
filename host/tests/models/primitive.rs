//! Loom's primitives with the names, and the constant constructors, of the processor's.

use crate::{Bug, bug};
use loom::sync::atomic as real;
use loom::sync::{Condvar, Mutex};
use std::sync::OnceLock;
use std::time::Duration;

pub(crate) use loom::thread::yield_now as spin_loop;
pub(crate) use real::Ordering;

/// One try, then sleep.
pub(crate) const SPINS: u32 = 1;

pub(crate) fn fence(order: Ordering) {
    if bug() != Bug::NoFences {
        real::fence(order);
    }
}

/// Does `access`, which is ordered like `order`, so that loom orders it as well.
fn ordered<T>(order: Ordering, access: impl FnOnce() -> T) -> T {
    if order != Ordering::SeqCst {
        return access();
    }
    fence(Ordering::SeqCst);
    let result = access();
    fence(Ordering::SeqCst);
    result
}

/// What loom's atomics have in common.
pub(crate) trait Real {
    type Value: Copy + PartialEq;
    fn make(first: Self::Value) -> Self;
    fn get(&self, order: Ordering) -> Self::Value;
    fn put(&self, value: Self::Value, order: Ordering);
    /// A read-modify-write, unless `to` says otherwise; what was found.
    fn update(
        &self,
        order: Ordering,
        failure: Ordering,
        to: impl FnMut(Self::Value) -> Option<Self::Value>,
    ) -> Result<Self::Value, Self::Value>;
}

macro_rules! real {
    ($name:ident, $value:ty) => {
        impl Real for real::$name {
            type Value = $value;
            fn make(first: $value) -> Self {
                Self::new(first)
            }
            fn get(&self, order: Ordering) -> $value {
                self.load(order)
            }
            fn put(&self, value: $value, order: Ordering) {
                self.store(value, order);
            }
            fn update(
                &self,
                order: Ordering,
                failure: Ordering,
                to: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                self.fetch_update(order, failure, to)
            }
        }
        pub(crate) type $name = Atomic<real::$name>;
    };
}

real!(AtomicBool, bool);
real!(AtomicU32, u32);
real!(AtomicU64, u64);

/// Made when it is first touched, which has to be before there are other threads: loom's have no constant constructor.
pub(crate) struct Atomic<R: Real> {
    first: R::Value,
    made: OnceLock<Box<Made<R>>>,
}

struct Made<R> {
    value: R,
    sleepers: Mutex<()>,
    woken: Condvar,
}

impl<R: Real> Atomic<R> {
    pub(crate) const fn new(first: R::Value) -> Self {
        Atomic { first, made: OnceLock::new() }
    }

    fn made(&self) -> &Made<R> {
        self.made.get_or_init(|| {
            Box::new(Made { value: R::make(self.first), sleepers: Mutex::new(()), woken: Condvar::new() })
        })
    }

    pub(crate) fn load(&self, order: Ordering) -> R::Value {
        ordered(order, || self.made().value.get(order))
    }

    pub(crate) fn store(&self, value: R::Value, order: Ordering) {
        ordered(order, || self.made().value.put(value, order));
    }

    pub(crate) fn swap(&self, value: R::Value, order: Ordering) -> R::Value {
        self.change(order, Ordering::Relaxed, |_| Some(value)).unwrap_or_else(|found| found)
    }

    pub(crate) fn compare_exchange(
        &self,
        old: R::Value,
        new: R::Value,
        success: Ordering,
        failure: Ordering,
    ) -> Result<R::Value, R::Value> {
        self.change(success, failure, |found| (found == old).then_some(new))
    }

    fn change(
        &self,
        order: Ordering,
        failure: Ordering,
        to: impl Fn(R::Value) -> Option<R::Value>,
    ) -> Result<R::Value, R::Value> {
        if bug() == Bug::Torn {
            let found = self.load(Ordering::Acquire);
            let Some(new) = to(found) else { return Err(found) };
            self.store(new, Ordering::Release);
            return Ok(found);
        }
        ordered(order, || self.made().value.update(order, failure, to))
    }
}

impl AtomicU32 {
    pub(crate) fn fetch_add(&self, value: u32, order: Ordering) -> u32 {
        let added = self.change(order, Ordering::Relaxed, |now| Some(now.wrapping_add(value)));
        added.unwrap_or_else(|found| found)
    }
}

/// futex(2), FUTEX_WAIT. No time is ever over: whoever needs that to go on has missed a wake-up.
pub(crate) fn wait(word: &AtomicU32, expected: u32, _: Option<Duration>) {
    let made = word.made();
    let guard = made.sleepers.lock().expect("loom's are not poisoned");
    if made.value.load(Ordering::SeqCst) == expected {
        drop(made.woken.wait(guard));
    }
}

/// FUTEX_WAKE.
pub(crate) fn wake(word: &AtomicU32, count: u32) -> u32 {
    if bug() != Bug::NoFutexWakes {
        let made = word.made();
        let _guard = made.sleepers.lock().expect("loom's are not poisoned");
        (0..count).for_each(|_| made.woken.notify_one());
    }
    count
}
