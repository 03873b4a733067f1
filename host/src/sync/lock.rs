use super::Rank;
#[cfg(debug_assertions)]
use super::held;
use super::primitive::{AtomicU32, Ordering, SPINS, spin_loop};
use crate::hostsys::{futex, overflow};
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::time::Duration;

const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;

/// Who sleeps looks again after this time, and asks after so many looks in vain whether the holder is no more.
const LOOK: Duration = Duration::from_secs(1);
const LOOKS: u32 = 10;

/// A short mutual-exclusion lock. Not poisoned by a panic: a task that panics unwinds and releases its locks;
/// whoever mutates under a lock keeps the data usable at every step.
///
/// Locks are taken in the order of their [`Rank`]s. In debug builds every lock knows its own and every thread what it holds;
/// in others nothing is left of either.
///
/// # Panics
/// In debug builds, where a lock is taken out of order.
pub struct Lock<T: ?Sized> {
    state: AtomicU32,
    #[cfg(debug_assertions)]
    rank: Rank,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands out one `&mut T` at a time, so sharing it moves at most a `T` between threads.
unsafe impl<T: ?Sized + Send> Send for Lock<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// A free lock around `value`, which is taken where `rank` stands in the order.
    #[inline]
    pub const fn new(rank: Rank, value: T) -> Self {
        let _ = rank;
        Lock {
            state: AtomicU32::new(FREE),
            #[cfg(debug_assertions)]
            rank,
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the value out.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Lock<T> {
    /// Waits for the lock and takes it.
    #[inline]
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn lock(&self) -> LockGuard<'_, T> {
        #[cfg(debug_assertions)]
        held::check(self.rank, false);
        self.acquire()
    }

    /// Waits for a lock while the caller holds one of its kind, and takes it. The caller knows an order of the two that all
    /// keep: a directory before what is in it, the lower address first, what nobody else knows of yet last.
    #[inline]
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn lock_nested(&self) -> LockGuard<'_, T> {
        #[cfg(debug_assertions)]
        held::check(self.rank, true);
        self.acquire()
    }

    /// Takes the lock if it is free, which it may be asked for in any order.
    #[inline]
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn try_lock(&self) -> Option<LockGuard<'_, T>> {
        self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(self.taken())
    }

    #[inline]
    #[cfg_attr(debug_assertions, track_caller)]
    fn acquire(&self) -> LockGuard<'_, T> {
        if self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.lock_slow();
        }
        self.taken()
    }

    #[inline]
    #[cfg_attr(debug_assertions, track_caller)]
    fn taken(&self) -> LockGuard<'_, T> {
        #[cfg(debug_assertions)]
        held::taken(self.address(), self.rank);
        LockGuard { lock: self, own: PhantomData }
    }

    #[cfg(debug_assertions)]
    fn address(&self) -> usize {
        core::ptr::from_ref(&self.state).addr()
    }

    /// The value, without locking: `&mut self` proves that nobody else can hold it.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    #[cold]
    fn lock_slow(&self) {
        for _ in 0..SPINS {
            if self.state.load(Ordering::Relaxed) == FREE
                && self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return;
            }
            spin_loop();
        }
        let mut waits = 0;
        while self.state.swap(CONTENDED, Ordering::Acquire) != FREE {
            futex::wait(&self.state, CONTENDED, Some(LOOK));
            waits += 1;
            if waits == LOOKS {
                overflow::lock_is_lost();
                waits = 0;
            }
        }
    }
}

/// Holds a [`Lock`]; dropping it releases. Guards are dropped in any order, by the thread that took them.
pub struct LockGuard<'a, T: ?Sized> {
    lock: &'a Lock<T>,
    /// Not sent to other threads.
    own: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for LockGuard<'_, T> {}

impl<T: ?Sized> Deref for LockGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard exists, so this thread holds the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for LockGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard exists, so this thread holds the lock, and `&mut self` makes the borrow unique.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for LockGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        #[cfg(debug_assertions)]
        held::released(self.lock.address());
        if self.lock.state.swap(FREE, Ordering::Release) == CONTENDED {
            futex::wake(&self.lock.state, 1);
        }
    }
}
