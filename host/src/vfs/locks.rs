//! Advisory locks: flock(2) and the byte ranges of fcntl(2).

mod registry;

pub use registry::FileLocks;

use crate::abi::{Errno, Result};
use crate::sync::{Lock, Rank, WaitQueue};
use std::fmt::Write;
use std::sync::Arc;

/// Where the locks on something are kept, once somebody takes one.
pub type LockSlot = Lock<Option<Arc<LockTable>>>;

/// Most ranges on one file. Linux has no bound but memory; every call looks at all of them.
const MAX_RANGES: usize = 1 << 16;

/// What flock(2) is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flock {
    /// Together with other readers.
    Shared,
    /// Alone.
    Exclusive,
    /// Give it back.
    Unlock,
}

/// Who made a lock, and what it goes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// flock(2): an open file description.
    Flock,
    /// fcntl(F_SETLK): a process.
    Posix,
    /// fcntl(F_OFD_SETLK): an open file description.
    Description,
}

/// A lock that is held or waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLock {
    /// Who made it.
    pub sort: Sort,
    /// First byte.
    pub start: u64,
    /// One past the last byte; `u64::MAX` for "to the end, wherever that is".
    pub end: u64,
    /// Alone, or together with other readers.
    pub exclusive: bool,
    /// Who holds it: a table (POSIX) or an open file description.
    pub owner: u64,
    /// The process that made it.
    pub pid: i32,
    /// The open file description through which it was made.
    pub file: u64,
}

impl FileLock {
    fn overlaps(&self, other: &FileLock) -> bool {
        self.start < other.end && other.start < self.end
    }

    fn conflicts(&self, other: &FileLock) -> bool {
        self.owner != other.owner && (self.exclusive || other.exclusive) && self.overlaps(other)
    }

    /// Whether it and `other`, of the same owner, are one lock.
    fn continues(&self, other: &FileLock) -> bool {
        self.owner == other.owner
            && self.exclusive == other.exclusive
            && self.start <= other.end
            && other.start <= self.end
    }

    /// The process that F_GETLK and /proc/locks name: none for what belongs to a description.
    pub fn shown_pid(&self) -> i32 {
        if self.sort == Sort::Description { -1 } else { self.pid }
    }

    /// Appends what /proc/locks says of it (fs/locks.c, lock_get_status).
    fn describe(&self, place: (u64, u64), out: &mut String) {
        let sort = match self.sort {
            Sort::Flock => "FLOCK ",
            Sort::Posix => "POSIX ",
            Sort::Description => "OFDLCK",
        };
        let kind = if self.exclusive { "WRITE" } else { "READ" };
        let (major, minor) = (super::major(place.0), super::minor(place.0));
        let _ = write!(
            out,
            "{sort} ADVISORY  {kind} {} {major:02x}:{minor:02x}:{} {} ",
            self.shown_pid(),
            place.1,
            self.start
        );
        let _ = match self.end {
            u64::MAX => writeln!(out, "EOF"),
            end => writeln!(out, "{}", end - 1),
        };
    }
}

#[derive(Default)]
struct State {
    whole: Vec<FileLock>,
    /// The locks of one owner are neighbours, in the order of their bytes.
    ranges: Vec<FileLock>,
}

/// The locks on one inode.
pub struct LockTable {
    /// Device and inode number, as /proc/locks shows them.
    place: (u64, u64),
    state: Lock<State>,
    /// Notified when something is given back.
    pub released: WaitQueue,
}

impl LockTable {
    /// The locks on the inode of that device and number: none yet.
    pub fn new(place: (u64, u64)) -> Self {
        LockTable { place, state: Lock::new(Rank::FileLocks, State::default()), released: WaitQueue::new() }
    }

    /// Takes, converts or gives back a whole-file lock of `owner`'s.
    ///
    /// # Errors
    /// EAGAIN while somebody else holds it. (As in Linux, a failed conversion loses the old lock.)
    pub fn flock(&self, owner: u64, pid: i32, want: Flock) -> Result<()> {
        let exclusive = match want {
            Flock::Unlock => {
                self.unflock(owner);
                return Ok(());
            }
            Flock::Shared => false,
            Flock::Exclusive => true,
        };
        self.flock_or(whole(owner, pid, exclusive), |_| Errno::EAGAIN)
    }

    /// Gives back a whole-file lock.
    pub fn unflock(&self, owner: u64) {
        let mut state = self.state.lock();
        let held = state.whole.len();
        state.whole.retain(|lock| lock.owner != owner);
        let lost = state.whole.len() < held;
        drop(state);
        if lost {
            self.released.notify(!0);
        }
    }

    /// Takes or converts a whole-file lock; `blocked` is told whose is in the way, under the lock.
    fn flock_or(&self, want: FileLock, blocked: impl FnOnce(&FileLock) -> Errno) -> Result<()> {
        let mut state = self.state.lock();
        if state.whole.iter().any(|lock| lock.owner == want.owner && lock.exclusive == want.exclusive) {
            return Ok(());
        }
        let held = state.whole.len();
        state.whole.retain(|lock| lock.owner != want.owner);
        let lost = state.whole.len() < held;
        let result = match state.whole.iter().find(|held| held.conflicts(&want)) {
            Some(held) => Err(blocked(held)),
            None => {
                state.whole.push(want);
                Ok(())
            }
        };
        drop(state);
        if lost {
            self.released.notify(!0);
        }
        result
    }

    /// A lock that keeps `want` from being taken (F_GETLK).
    pub fn conflict(&self, want: &FileLock) -> Option<FileLock> {
        self.state.lock().ranges.iter().find(|held| held.conflicts(want)).copied()
    }

    /// Takes a range, replacing what the owner holds there.
    ///
    /// # Errors
    /// EAGAIN while somebody else holds part of it; ENOLCK when there are too many.
    pub fn lock(&self, want: FileLock) -> Result<()> {
        self.lock_or(want, |_| Errno::EAGAIN)
    }

    /// Takes a range; `blocked` is told whose is in the way, under the lock.
    fn lock_or(&self, want: FileLock, blocked: impl FnOnce(&FileLock) -> Errno) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(held) = state.ranges.iter().find(|held| held.conflicts(&want)) {
            return Err(blocked(held));
        }
        if state.ranges.len() >= MAX_RANGES {
            return Err(Errno::ENOLCK);
        }
        take(&mut state.ranges, want);
        drop(state);
        // A write lock may have become a read lock.
        self.released.notify(!0);
        Ok(())
    }

    /// Gives a range back.
    ///
    /// # Errors
    /// ENOLCK when there are too many: a hole makes two of one.
    pub fn unlock(&self, range: &FileLock) -> Result<()> {
        let mut state = self.state.lock();
        if state.ranges.len() >= MAX_RANGES && range.end != u64::MAX {
            return Err(Errno::ENOLCK);
        }
        carve(&mut state.ranges, range);
        drop(state);
        self.released.notify(!0);
        Ok(())
    }

    /// Gives back all ranges of an owner.
    pub fn drop_owner(&self, owner: u64) {
        let mut state = self.state.lock();
        let before = state.ranges.len();
        state.ranges.retain(|held| held.owner != owner);
        let changed = state.ranges.len() < before;
        drop(state);
        if changed {
            self.released.notify(!0);
        }
    }

    /// What is held, in the order in which it was made as far as that is known.
    fn held(&self) -> Vec<FileLock> {
        let state = self.state.lock();
        state.whole.iter().chain(&state.ranges).copied().collect()
    }

    /// The lines of /proc/PID/fdinfo/FD about what a table or the open file description itself holds, as far as that was
    /// made through this description (fs/locks.c, show_fd_locks).
    pub fn fdinfo(&self, table: u64, file: u64) -> String {
        let mut out = String::new();
        let own = |lock: &FileLock| lock.file == file && [table, file].contains(&lock.owner);
        let mine = self.held().into_iter().filter(own);
        for (number, lock) in mine.enumerate() {
            let _ = write!(out, "lock:\t{}: ", number + 1);
            lock.describe(self.place, &mut out);
        }
        out
    }
}

/// A whole-file lock.
fn whole(owner: u64, pid: i32, exclusive: bool) -> FileLock {
    FileLock { sort: Sort::Flock, start: 0, end: u64::MAX, exclusive, owner, pid, file: owner }
}

/// Removes `range` from what its owner holds; returns where among all its place is.
fn carve(ranges: &mut Vec<FileLock>, range: &FileLock) -> usize {
    let group = ranges.iter().position(|held| held.owner == range.owner).unwrap_or(ranges.len());
    let len = ranges[group..].iter().take_while(|held| held.owner == range.owner).count();
    let mut rest = Vec::with_capacity(2);
    let mut first = group;
    while first < group + len && ranges[first].end <= range.start {
        first += 1;
    }
    let mut last = first;
    while last < group + len && ranges[last].start < range.end {
        let held = ranges[last];
        if held.start < range.start {
            rest.push(FileLock { end: range.start, ..held });
        }
        if held.end > range.end {
            rest.push(FileLock { start: range.end, ..held });
        }
        last += 1;
    }
    let before = rest.iter().filter(|part| part.end <= range.start).count();
    ranges.splice(first..last, rest);
    first + before
}

/// Adds a range, of which its owner may hold parts; what touches and is alike becomes one.
fn take(ranges: &mut Vec<FileLock>, want: FileLock) {
    let at = carve(ranges, &want);
    let mut all = want;
    let mut from = at;
    while from > 0 && ranges[from - 1].continues(&all) {
        from -= 1;
        (all.start, all.file) = (ranges[from].start, ranges[from].file);
    }
    let mut to = at;
    while to < ranges.len() && ranges[to].continues(&all) {
        all.end = ranges[to].end;
        to += 1;
    }
    ranges.splice(from..to, [all]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(owner: u64, start: u64, end: u64, exclusive: bool) -> FileLock {
        FileLock { sort: Sort::Posix, start, end, exclusive, owner, pid: owner as i32, file: owner }
    }

    fn spans(locks: &LockTable) -> Vec<(u64, u64, u64)> {
        locks.held().iter().map(|lock| (lock.owner, lock.start, lock.end)).collect()
    }

    #[test]
    fn ranges_split_and_conflict() {
        let locks = LockTable::new((0, 0));
        locks.lock(range(1, 0, 100, true)).unwrap();
        assert_eq!(locks.lock(range(2, 50, 60, false)), Err(Errno::EAGAIN));
        locks.unlock(&range(1, 40, 70, false)).unwrap();
        locks.lock(range(2, 50, 60, true)).unwrap();
        assert_eq!(locks.conflict(&range(3, 0, 10, false)).map(|l| (l.owner, l.end)), Some((1, 40)));
        assert_eq!(locks.conflict(&range(3, 60, 70, true)), None);
        locks.drop_owner(1);
        assert_eq!(locks.conflict(&range(3, 70, u64::MAX, true)), None);
    }

    #[test]
    fn what_touches_is_one_lock() {
        let locks = LockTable::new((0, 0));
        for (start, end) in [(0, 10), (20, 30), (10, 20)] {
            locks.lock(range(1, start, end, false)).unwrap();
            locks.lock(range(2, start, end, false)).unwrap();
        }
        assert_eq!(spans(&locks), [(1, 0, 30), (2, 0, 30)]);
        locks.drop_owner(2);
        locks.lock(range(1, 5, 25, true)).unwrap();
        assert_eq!(spans(&locks), [(1, 0, 5), (1, 5, 25), (1, 25, 30)]);
        locks.lock(range(1, 0, 7, true)).unwrap();
        assert_eq!(spans(&locks), [(1, 0, 25), (1, 25, 30)]);
        locks.unlock(&range(1, 0, u64::MAX, true)).unwrap();
        assert_eq!(spans(&locks), []);
    }

    #[test]
    fn locks_agree_with_a_model_of_bytes() {
        let locks = LockTable::new((0, 0));
        let mut model = [[0u8; 24]; 2];
        let mut seed = 1u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pick = |shift: u32, below: u64| (seed >> shift) % below;
            let (owner, start) = (pick(20, 2) as usize, pick(30, 23));
            let (end, what) = (start + 1 + pick(40, 24 - start - 1), pick(50, 3) as u8);
            let span = start as usize..end as usize;
            let want = range(owner as u64, start, end, what == 2);
            if what == 0 {
                locks.unlock(&want).unwrap();
                model[owner][span].fill(0);
            } else {
                let busy = model[1 - owner][span.clone()].iter().any(|&held| held > 0 && held + what > 2);
                assert_eq!(locks.lock(want).is_err(), busy);
                if !busy {
                    model[owner][span].fill(what);
                }
            }
            let mut seen = [[0u8; 24]; 2];
            for lock in locks.held() {
                seen[lock.owner as usize][lock.start as usize..lock.end as usize]
                    .fill(1 + u8::from(lock.exclusive));
            }
            assert_eq!(seen, model);
        }
    }

    #[test]
    fn flocks_convert() {
        let locks = LockTable::new((0, 0));
        locks.flock(1, 1, Flock::Shared).unwrap();
        locks.flock(2, 2, Flock::Shared).unwrap();
        assert_eq!(locks.flock(1, 1, Flock::Exclusive), Err(Errno::EAGAIN));
        locks.flock(2, 2, Flock::Unlock).unwrap();
        locks.flock(1, 1, Flock::Exclusive).unwrap();
        assert_eq!(locks.flock(2, 2, Flock::Shared), Err(Errno::EAGAIN));
    }
}
