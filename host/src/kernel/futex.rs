//! futex(2): waiting on words of user memory.
//!
//! A bucket's lock orders "load the word, queue" against "change the word, wake": the word is loaded with the lock held,
//! which is let go of where its page has to be had from a host file first. Waiters are told apart by reference; requeueing moves them between buckets, so
//! that a waiter that gives up looks where it is now.

use super::pi::{OWNER_DIED, PiFutexes, TID_MASK, WAITERS};
use super::{Current, Task};
use crate::abi::{Errno, Result};
use crate::mm::{FutexKey, Mm};
use crate::sync::{Lock, LockGuard, Rank, Wake};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

const BUCKETS: usize = 256;
/// FUTEX_BITSET_MATCH_ANY.
pub const ANY: u32 = u32::MAX;
/// Longest robust list that is followed.
const ROBUST_LIMIT: usize = 2048;

/// Everybody who waits on a word.
pub struct Futexes {
    pub(super) buckets: Box<[Lock<Vec<Entry>>]>,
    pub(super) pi: PiFutexes,
}

pub(super) struct Entry {
    pub(super) key: FutexKey,
    pub(super) bitset: u32,
    pub(super) waiter: Arc<Waiting>,
}

/// A waiter. Each task has one, made by its first wait: a waker may hold it a moment longer than it is queued, but only
/// to wake the task.
pub(super) struct Waiting {
    pub(super) task: Arc<Task>,
    pub(super) woken: AtomicBool,
    /// The bucket it is in; changed with both buckets locked.
    pub(super) bucket: AtomicUsize,
}

impl Futexes {
    pub(super) fn new() -> Self {
        Futexes {
            buckets: (0..BUCKETS).map(|_| Lock::new(Rank::FutexBucket, Vec::new())).collect(),
            pi: PiFutexes::default(),
        }
    }

    #[inline]
    pub(super) fn index(key: &FutexKey) -> usize {
        let (object, offset) = match *key {
            FutexKey::Private { mm, addr } => (mm as u64, addr),
            FutexKey::Shared { object, offset } => (object as u64, offset),
        };
        // Fibonacci hashing; words are 4 bytes apart, objects at least 16.
        let mixed = (object >> 4).wrapping_add(offset >> 2).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as usize % BUCKETS
    }

    /// Wakes up to `count` waiters whose bits meet `bitset`.
    ///
    /// # Errors
    /// EFAULT; EINVAL without bits, and where they wait for a lock that only its owner may hand over.
    pub fn wake(&self, mm: &Mm, addr: u64, shared: bool, count: usize, bitset: u32) -> Result<u64> {
        if bitset == 0 {
            return Err(Errno::EINVAL);
        }
        let key = mm.futex_key(addr, shared)?;
        if self.pi.has(&key) {
            return Err(Errno::EINVAL);
        }
        let mut bucket = self.buckets[Self::index(&key)].lock();
        Ok(wake_in(&mut bucket, &key, count, bitset))
    }

    /// FUTEX_REQUEUE, FUTEX_CMP_REQUEUE: wakes up to `wake` waiters, moves up to `requeue` others to `to`.
    ///
    /// # Errors
    /// EFAULT, EINVAL; EAGAIN if the word is not `expected`.
    pub fn requeue(
        &self,
        mm: &Mm,
        [(from, from_shared), (to, to_shared)]: [(u64, bool); 2],
        [wake, requeue]: [usize; 2],
        expected: Option<u32>,
    ) -> Result<u64> {
        let (from_key, to_key) = (mm.futex_key(from, from_shared)?, mm.futex_key(to, to_shared)?);
        let (from_index, to_index) = (Self::index(&from_key), Self::index(&to_key));
        let (mut source, mut target) = mm.with_words(|words| {
            let locked = self.lock_two(from_index, to_index);
            match expected {
                Some(expected) if words.load(from)? != expected => Err(Errno::EAGAIN),
                _ => Ok(locked),
            }
        })?;
        let woken = wake_in(&mut source, &from_key, wake, ANY);
        let mut moved = 0;
        let mut at = 0;
        while at < source.len() && moved < requeue {
            if source[at].key != from_key {
                at += 1;
                continue;
            }
            moved += 1;
            match &mut target {
                Some(target) => {
                    let mut entry = source.remove(at);
                    entry.key = to_key;
                    entry.waiter.bucket.store(to_index, Ordering::SeqCst);
                    target.push(entry);
                }
                None => {
                    source[at].key = to_key;
                    at += 1;
                }
            }
        }
        Ok(if expected.is_some() { woken + moved as u64 } else { woken })
    }

    /// FUTEX_WAKE_OP: changes the word at `second`, wakes up to `counts.0` at `first` and, if the old word meets the
    /// condition, up to `counts.1` at `second`.
    ///
    /// # Errors
    /// EFAULT, EINVAL, ENOSYS for an unknown operation.
    pub fn wake_op(
        &self,
        mm: &Mm,
        [first, second]: [u64; 2],
        shared: bool,
        counts: [usize; 2],
        encoded: u32,
    ) -> Result<u64> {
        let (first_key, second_key) = (mm.futex_key(first, shared)?, mm.futex_key(second, shared)?);
        let op = WakeOp::decode(encoded)?;
        let (mut one, mut two, old) = mm.with_words(|words| {
            let (one, two) = self.lock_two(Self::index(&first_key), Self::index(&second_key));
            let old = words.update(second, |old| op.apply(old))?;
            Ok((one, two, old))
        })?;
        let mut woken = wake_in(&mut one, &first_key, counts[0], ANY);
        if op.compare(old) {
            let bucket = two.as_mut().unwrap_or(&mut one);
            woken += wake_in(bucket, &second_key, counts[1], ANY);
        }
        Ok(woken)
    }

    /// Locks two buckets in index order; the second is `None` if it is the first.
    fn lock_two(&self, a: usize, b: usize) -> (LockGuard<'_, Vec<Entry>>, Option<LockGuard<'_, Vec<Entry>>>) {
        if a == b {
            (self.buckets[a].lock(), None)
        } else if a < b {
            let first = self.buckets[a].lock();
            (first, Some(self.buckets[b].lock_nested()))
        } else {
            let second = self.buckets[b].lock();
            (self.buckets[a].lock_nested(), Some(second))
        }
    }

    /// Takes a waiter out; true if it was woken before that.
    pub(super) fn give_up(&self, waiter: &Arc<Waiting>) -> bool {
        loop {
            let index = waiter.bucket.load(Ordering::SeqCst);
            let mut bucket = self.buckets[index].lock();
            if waiter.woken.load(Ordering::SeqCst) {
                return true;
            }
            if waiter.bucket.load(Ordering::SeqCst) == index {
                bucket.retain(|entry| !Arc::ptr_eq(&entry.waiter, waiter));
                return false;
            }
        }
    }
}

#[inline]
fn wake_in(bucket: &mut Vec<Entry>, key: &FutexKey, count: usize, bitset: u32) -> u64 {
    let mut woken = 0;
    let mut at = 0;
    while at < bucket.len() && woken < count {
        if bucket[at].key == *key && bucket[at].bitset & bitset != 0 {
            // The last one (mostly the only one) leaves nothing to move.
            let entry = if at + 1 == bucket.len() { bucket.pop() } else { Some(bucket.remove(at)) };
            let Some(entry) = entry else { break };
            entry.waiter.woken.store(true, Ordering::SeqCst);
            entry.waiter.task.wake();
            woken += 1;
        } else {
            at += 1;
        }
    }
    woken as u64
}

impl Current {
    /// FUTEX_WAIT, FUTEX_WAIT_BITSET. `deadline` is CLOCK_MONOTONIC ns.
    ///
    /// # Errors
    /// EAGAIN if the word is not `expected`; ETIMEDOUT; ERESTARTSYS; EFAULT; EINVAL.
    pub fn futex_wait(
        &mut self,
        addr: u64,
        shared: bool,
        expected: u32,
        deadline: Option<u64>,
        bitset: u32,
    ) -> Result<u64> {
        if bitset == 0 {
            return Err(Errno::EINVAL);
        }
        let key = self.mm().futex_key(addr, shared)?;
        let index = Futexes::index(&key);
        self.futex_waiter.get_or_insert_with(|| {
            let task = self.task.clone();
            Arc::new(Waiting { task, woken: AtomicBool::new(false), bucket: AtomicUsize::new(index) })
        });
        let Some(waiter) = &self.futex_waiter else { unreachable!("it was made above") };
        let futexes = &self.kernel.futexes;
        self.mm().with_words(|words| {
            let mut bucket = futexes.buckets[index].lock();
            if words.load(addr)? != expected {
                return Err(Errno::EAGAIN);
            }
            waiter.woken.store(false, Ordering::Relaxed);
            waiter.bucket.store(index, Ordering::Relaxed);
            bucket.push(Entry { key, bitset, waiter: waiter.clone() });
            Ok(())
        })?;
        loop {
            if waiter.woken.load(Ordering::SeqCst) {
                return Ok(0);
            }
            let errno = if self.interrupted() {
                Errno::ERESTARTSYS
            } else if deadline.is_some_and(|deadline| crate::time::monotonic_ns() >= deadline) {
                Errno::ETIMEDOUT
            } else {
                self.park(deadline);
                continue;
            };
            return if futexes.give_up(waiter) { Ok(0) } else { Err(errno) };
        }
    }

    /// Frees the locks on the robust list (set_robust_list(2)), at exit and exec.
    pub(super) fn release_robust_list(&mut self) {
        let head = self.task.robust_list.swap(0, Ordering::Relaxed);
        if head == 0 {
            return;
        }
        let mm = self.mm().clone();
        let read = |addr: u64| mm.read_val::<u64>(addr).ok();
        let (Some(first), Some(offset), Some(pending)) =
            (read(head), read(head.wrapping_add(8)), read(head.wrapping_add(16)))
        else {
            return;
        };
        // Bit 0 of a pointer says that the lock is one with priority inheritance.
        let mut entry = first;
        for _ in 0..ROBUST_LIMIT {
            if entry & !1 == head {
                break;
            }
            let next = read(entry & !1);
            if entry & !1 != pending & !1 {
                self.release_robust(&mm, (entry & !1).wrapping_add(offset), entry & 1 != 0, false);
            }
            let Some(next) = next else { break };
            entry = next;
        }
        if pending & !1 != 0 {
            self.release_robust(&mm, (pending & !1).wrapping_add(offset), pending & 1 != 0, true);
        }
    }

    /// Says in a lock's word that its owner died. Who waits for one with priority inheritance is woken by `release_pi`.
    fn release_robust(&self, mm: &Mm, addr: u64, inherits: bool, pending: bool) {
        let Ok(mut value) = mm.load_u32(addr) else { return };
        if pending && !inherits && value == 0 {
            // Unlocked, but the thread died before it could wake anybody.
            let _ = self.kernel.futexes.wake(mm, addr, true, 1, ANY);
            return;
        }
        while value & TID_MASK == self.task.number() as u32 {
            match mm.cmpxchg_u32(addr, value, value & WAITERS | OWNER_DIED) {
                Ok(old) if old == value => {
                    if !inherits && value & WAITERS != 0 {
                        let _ = self.kernel.futexes.wake(mm, addr, true, 1, ANY);
                    }
                    return;
                }
                Ok(old) => value = old,
                Err(_) => return,
            }
        }
    }
}

/// The third word of FUTEX_WAKE_OP.
struct WakeOp {
    op: u32,
    arg: u32,
    cmp: u32,
    cmp_arg: i32,
}

impl WakeOp {
    fn decode(encoded: u32) -> Result<Self> {
        const SHIFT_ARG: u32 = 8;
        let sign_extended = |value: u32| ((value << 20) as i32) >> 20;
        let (op, cmp) = (encoded >> 28 & 15, encoded >> 24 & 15);
        let arg = sign_extended(encoded >> 12 & 0xfff) as u32;
        let arg = if op & SHIFT_ARG != 0 { 1u32.wrapping_shl(arg) } else { arg };
        let op = op & !SHIFT_ARG;
        if op > 4 || cmp > 5 {
            return Err(Errno::ENOSYS);
        }
        Ok(WakeOp { op, arg, cmp, cmp_arg: sign_extended(encoded & 0xfff) })
    }

    fn apply(&self, old: u32) -> u32 {
        match self.op {
            0 => self.arg,
            1 => old.wrapping_add(self.arg),
            2 => old | self.arg,
            3 => old & !self.arg,
            _ => old ^ self.arg,
        }
    }

    fn compare(&self, old: u32) -> bool {
        let old = old as i32;
        match self.cmp {
            0 => old == self.cmp_arg,
            1 => old != self.cmp_arg,
            2 => old < self.cmp_arg,
            3 => old <= self.cmp_arg,
            4 => old > self.cmp_arg,
            _ => old >= self.cmp_arg,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::WakeOp;

    #[test]
    fn wake_op_decodes_as_the_macro_encodes() {
        // FUTEX_OP(FUTEX_OP_ADD, -1, FUTEX_OP_CMP_GT, 1)
        let op = WakeOp::decode(1 << 28 | 4 << 24 | 0xfff << 12 | 1).unwrap();
        assert_eq!(op.apply(5), 4);
        assert!(op.compare(2) && !op.compare(1));
        // FUTEX_OP_SET with the shift flag: 1 << 3.
        let op = WakeOp::decode(8 << 28 | 3 << 12).unwrap();
        assert_eq!(op.apply(77), 8);
        assert!(WakeOp::decode(7 << 28).is_err());
    }
}
