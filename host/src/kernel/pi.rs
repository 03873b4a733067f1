//! Priority-inheritance futexes (futex(2), "Priority-inheritance futexes"): locks whose word holds the owner's tid.
//!
//! The kernel hears of such a lock when somebody has to wait for it, and from then on hands it from owner to owner itself:
//! who unlocks writes the next owner's tid into the word and wakes it, and so does the end of an owner. Nobody can come in
//! between, which is what sets these locks apart from others.
//!
//! There is no priority to inherit: the scheduler is fair and knows no priorities, so waiters are served in the order in
//! which they came and owners run no sooner. All else is as on Linux: ownership, hand-over, the death of an owner, and
//! EDEADLK for whoever would wait for itself.
//!
//! One lock orders all of it: these futexes are rare, and a chain of waiters can only be followed while nothing moves. It
//! is taken before the task's resources and the address space's own lock; the word is read and changed with it held.

use super::{Current, Task};
use crate::abi::{Errno, Result};
use crate::mm::{FutexKey, Words};
use crate::sync::{Lock, Rank, Wake};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// In the word: somebody waits, so that unlocking is the kernel's business.
pub(super) const WAITERS: u32 = 0x8000_0000;
/// In the word: the owner died.
pub(super) const OWNER_DIED: u32 = 0x4000_0000;
/// In the word: the owner's tid.
pub(super) const TID_MASK: u32 = 0x3fff_ffff;
/// Longest chain of owners that wait themselves; Linux's `max_lock_depth`.
const MAX_DEPTH: usize = 1024;

/// The locks that somebody waits for.
pub(super) struct PiFutexes {
    locks: Lock<BTreeMap<FutexKey, Contended>>,
    /// How many there are, or are about to be.
    count: AtomicUsize,
}

impl Default for PiFutexes {
    fn default() -> Self {
        PiFutexes { locks: Lock::new(Rank::PiFutexes, BTreeMap::new()), count: AtomicUsize::new(0) }
    }
}

/// A lock that somebody waits for.
struct Contended {
    owner: Arc<Task>,
    /// Never empty.
    waiters: VecDeque<Arc<Waiter>>,
}

struct Waiter {
    task: Arc<Task>,
    /// Where the waiter sees the word.
    addr: u64,
    /// It is the owner now.
    owns: AtomicBool,
}

/// What an attempt to lock came to.
enum Attempt {
    Locked,
    Queued(Arc<Waiter>),
    /// The word changed meanwhile.
    Again,
}

impl PiFutexes {
    /// Whether somebody waits for the lock `key` here, who must not be woken by others than its owner.
    #[inline]
    pub(super) fn has(&self, key: &FutexKey) -> bool {
        self.count.load(Ordering::Relaxed) != 0 && self.locks.lock().contains_key(key)
    }

    /// Whether `waiter` would wait for itself if it waited for `owner`.
    fn is_circle(locks: &BTreeMap<FutexKey, Contended>, waiter: &Arc<Task>, owner: &Arc<Task>) -> bool {
        let mut at = owner;
        for _ in 0..MAX_DEPTH {
            if Arc::ptr_eq(at, waiter) {
                return true;
            }
            let waits = |lock: &&Contended| lock.waiters.iter().any(|w| Arc::ptr_eq(&w.task, at));
            match locks.values().find(waits) {
                Some(lock) => at = &lock.owner,
                None => return false,
            }
        }
        true
    }
}

impl Contended {
    /// Makes the first waiter, whose tid is in the word by now, the owner.
    fn hand_over(&mut self) {
        if let Some(next) = self.waiters.pop_front() {
            self.owner = next.task.clone();
            next.owns.store(true, Ordering::SeqCst);
            next.task.wake();
        }
    }
}

impl Current {
    /// FUTEX_LOCK_PI, FUTEX_LOCK_PI2 and, with `only_try`, FUTEX_TRYLOCK_PI. `deadline` is CLOCK_MONOTONIC ns.
    ///
    /// # Errors
    /// EDEADLK; ESRCH for an owner that does not exist; EINVAL for a word that does not fit what is known of the lock;
    /// ETIMEDOUT; EAGAIN for an attempt only; EFAULT.
    pub fn futex_lock_pi(
        &mut self,
        addr: u64,
        shared: bool,
        deadline: Option<u64>,
        only_try: bool,
    ) -> Result<u64> {
        let key = self.mm().futex_key(addr, shared)?;
        loop {
            match self.mm().with_words(|words| self.attempt(words, &key, addr, only_try))? {
                Attempt::Locked => return Ok(0),
                Attempt::Queued(waiter) => return self.wait_for_ownership(&key, &waiter, deadline),
                // Whoever changes the word for ever must not keep a worker.
                Attempt::Again if self.interrupted() => return Err(Errno::ERESTARTNOINTR),
                Attempt::Again => {}
            }
        }
    }

    fn attempt(&self, mm: &Words<'_>, key: &FutexKey, addr: u64, only_try: bool) -> Result<Attempt> {
        let (word, own) = (mm.load(addr)?, self.task.number() as u32);
        let tid = word & TID_MASK;
        if tid == own {
            return Err(Errno::EDEADLK);
        }
        let named = if tid == 0 { None } else { self.task_called(tid as i32).ok() };
        let pi = &self.kernel.futexes.pi;
        let mut locks = pi.locks.lock();
        let owner = match (locks.get(key).map(|lock| &lock.owner), named) {
            (None, _) if tid == 0 => {
                return Ok(exchanged(mm, addr, word, own | word & OWNER_DIED)?
                    .map_or(Attempt::Again, |()| Attempt::Locked));
            }
            (None, Some(owner)) => owner,
            // An owner that died hands over in a moment.
            (Some(owner), _) if tid == 0 && word & OWNER_DIED != 0 => owner.clone(),
            (Some(owner), Some(named)) if Arc::ptr_eq(owner, &named) => named,
            (known, _) => {
                let errno = if known.is_some() { Errno::EINVAL } else { Errno::ESRCH };
                return if mm.load(addr)? == word { Err(errno) } else { Ok(Attempt::Again) };
            }
        };
        // Still so? From here on it is: what says that somebody waits is changed under the lock only.
        let unchanged = match word & WAITERS {
            0 => exchanged(mm, addr, word, word | WAITERS)?.is_some(),
            _ => mm.load(addr)? == word,
        };
        if !unchanged {
            return Ok(Attempt::Again);
        }
        // Counted before the owner is looked at: it marks itself before it looks at the count. One whose lock is known
        // hands over whatever it has been marked as.
        pi.count.store(locks.len() + 1, Ordering::SeqCst);
        let refused = if !locks.contains_key(key) && owner.pi_dead.load(Ordering::SeqCst) {
            let now = mm.load(addr)?;
            Some(if now & !WAITERS == word & !WAITERS { Err(Errno::ESRCH) } else { Ok(Attempt::Again) })
        } else if only_try {
            Some(Err(Errno::EAGAIN))
        } else if PiFutexes::is_circle(&locks, &self.task, &owner) {
            Some(Err(Errno::EDEADLK))
        } else {
            None
        };
        if let Some(refused) = refused {
            pi.count.store(locks.len(), Ordering::SeqCst);
            return refused;
        }
        let waiter = Arc::new(Waiter { task: self.task.clone(), addr, owns: AtomicBool::new(false) });
        let lock = locks.entry(*key).or_insert_with(|| Contended { owner, waiters: VecDeque::new() });
        lock.waiters.push_back(waiter.clone());
        pi.count.store(locks.len(), Ordering::SeqCst);
        Ok(Attempt::Queued(waiter))
    }

    fn wait_for_ownership(
        &mut self,
        key: &FutexKey,
        waiter: &Arc<Waiter>,
        deadline: Option<u64>,
    ) -> Result<u64> {
        let errno = loop {
            if waiter.owns.load(Ordering::SeqCst) {
                return Ok(0);
            }
            if self.interrupted() {
                break Errno::ERESTARTNOINTR;
            }
            if deadline.is_some_and(|deadline| crate::time::monotonic_ns() >= deadline) {
                break Errno::ETIMEDOUT;
            }
            self.park(deadline);
        };
        let pi = &self.kernel.futexes.pi;
        let mut locks = pi.locks.lock();
        if waiter.owns.load(Ordering::SeqCst) {
            return Ok(0);
        }
        if let Some(lock) = locks.get_mut(key) {
            lock.waiters.retain(|other| !Arc::ptr_eq(other, waiter));
            if lock.waiters.is_empty() {
                locks.remove(key);
                pi.count.store(locks.len(), Ordering::SeqCst);
            }
        }
        Err(errno)
    }

    /// FUTEX_UNLOCK_PI.
    ///
    /// # Errors
    /// EPERM if the caller does not own the lock, EINVAL if the kernel knows of another owner, EFAULT.
    pub fn futex_unlock_pi(&mut self, addr: u64, shared: bool) -> Result<u64> {
        let mm = self.mm();
        let word = mm.load_u32(addr)?;
        if word & TID_MASK != self.task.number() as u32 {
            return Err(Errno::EPERM);
        }
        let key = mm.futex_key(addr, shared)?;
        mm.with_words(|words| self.unlock_pi(words, &key, addr))
    }

    fn unlock_pi(&self, mm: &Words<'_>, key: &FutexKey, addr: u64) -> Result<u64> {
        loop {
            let pi = &self.kernel.futexes.pi;
            let mut locks = pi.locks.lock();
            let word = mm.load(addr)?;
            if word & TID_MASK != self.task.number() as u32 {
                return Err(Errno::EPERM);
            }
            let lock = locks.get_mut(key);
            if lock.as_ref().is_some_and(|lock| !Arc::ptr_eq(&lock.owner, &self.task)) {
                return Err(Errno::EINVAL);
            }
            let next = lock.as_ref().and_then(|lock| lock.waiters.front());
            let new = next.map_or(0, |next| WAITERS | next.task.number() as u32);
            if exchanged(mm, addr, word, new)?.is_some() {
                if let Some(lock) = lock {
                    lock.hand_over();
                    if lock.waiters.is_empty() {
                        locks.remove(key);
                        pi.count.store(locks.len(), Ordering::SeqCst);
                    }
                }
                return Ok(0);
            }
            drop(locks);
            if self.interrupted() {
                return Err(Errno::ERESTARTNOINTR);
            }
        }
    }

    /// Hands over what the task owns and others wait for, at exit and exec: their words say that the owner died.
    pub(super) fn release_pi(&mut self) {
        self.task.pi_dead.store(true, Ordering::SeqCst);
        let pi = &self.kernel.futexes.pi;
        if pi.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut locks = pi.locks.lock();
        locks.retain(|_, lock| {
            if Arc::ptr_eq(&lock.owner, &self.task) {
                if let Some(next) = lock.waiters.front()
                    && let Some(mm) = next.task.mm()
                {
                    // A waiter that has unmapped the word meanwhile owns the lock all the same.
                    let new = WAITERS | OWNER_DIED | next.task.number() as u32;
                    let _ = mm.at_once(|words| words.store(next.addr, new));
                }
                lock.hand_over();
            }
            !lock.waiters.is_empty()
        });
        pi.count.store(locks.len(), Ordering::SeqCst);
    }
}

/// Replaces the word at `addr`, if it is still `old`.
fn exchanged(mm: &Words<'_>, addr: u64, old: u32, new: u32) -> Result<Option<()>> {
    Ok((mm.compare_exchange(addr, old, new)? == old).then_some(()))
}
