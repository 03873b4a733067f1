//! Advisory locks: flock(2) and the byte ranges of fcntl(2).

use crate::abi::{Errno, Result};
use crate::sync::{Lock, WaitQueue};

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

/// A locked byte range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeLock {
    /// First byte.
    pub start: u64,
    /// One past the last byte; `u64::MAX` for "to the end, wherever that is".
    pub end: u64,
    /// Alone, or together with other readers.
    pub exclusive: bool,
    /// Who holds it: a table (POSIX) or an open file description.
    pub owner: u64,
    /// Process shown by F_GETLK; -1 for open file description locks.
    pub pid: i32,
}

impl RangeLock {
    fn overlaps(&self, other: &RangeLock) -> bool {
        self.start < other.end && other.start < self.end
    }

    fn conflicts(&self, other: &RangeLock) -> bool {
        self.owner != other.owner && (self.exclusive || other.exclusive) && self.overlaps(other)
    }
}

#[derive(Default)]
struct State {
    whole: Vec<(u64, bool)>,
    ranges: Vec<RangeLock>,
}

/// The locks on one inode.
#[derive(Default)]
pub struct LockTable {
    state: Lock<State>,
    /// Notified when something is given back.
    pub released: WaitQueue,
}

impl LockTable {
    /// Takes, converts or gives back a whole-file lock.
    ///
    /// # Errors
    /// EAGAIN while somebody else holds it. (As in Linux, a failed conversion loses the old lock.)
    pub fn flock(&self, owner: u64, want: Flock) -> Result<()> {
        let mut state = self.state.lock();
        let exclusive = match want {
            Flock::Unlock => None,
            Flock::Shared => Some(false),
            Flock::Exclusive => Some(true),
        };
        if let Some(exclusive) = exclusive
            && state.whole.contains(&(owner, exclusive))
        {
            return Ok(());
        }
        let held = state.whole.len();
        state.whole.retain(|(holder, _)| *holder != owner);
        let lost = state.whole.len() < held;
        let free = exclusive.is_none_or(|mine| !state.whole.iter().any(|(_, theirs)| mine || *theirs));
        if free && let Some(exclusive) = exclusive {
            state.whole.push((owner, exclusive));
        }
        drop(state);
        if lost {
            self.released.notify(!0);
        }
        if free { Ok(()) } else { Err(Errno::EAGAIN) }
    }

    /// A lock that keeps `want` from being taken (F_GETLK).
    pub fn conflict(&self, want: &RangeLock) -> Option<RangeLock> {
        self.state.lock().ranges.iter().find(|held| held.conflicts(want)).copied()
    }

    /// Takes a range, replacing what the owner holds there.
    ///
    /// # Errors
    /// EAGAIN while somebody else holds part of it.
    pub fn lock(&self, want: RangeLock) -> Result<()> {
        let mut state = self.state.lock();
        if state.ranges.iter().any(|held| held.conflicts(&want)) {
            return Err(Errno::EAGAIN);
        }
        carve(&mut state.ranges, &want);
        state.ranges.push(want);
        drop(state);
        // A write lock may have become a read lock.
        self.released.notify(!0);
        Ok(())
    }

    /// Gives a range back.
    pub fn unlock(&self, range: &RangeLock) {
        carve(&mut self.state.lock().ranges, range);
        self.released.notify(!0);
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
}

/// Removes `range` from what its owner holds.
fn carve(ranges: &mut Vec<RangeLock>, range: &RangeLock) {
    let mut rest = Vec::new();
    ranges.retain(|held| {
        if held.owner != range.owner || !held.overlaps(range) {
            return true;
        }
        if held.start < range.start {
            rest.push(RangeLock { end: range.start, ..*held });
        }
        if held.end > range.end {
            rest.push(RangeLock { start: range.end, ..*held });
        }
        false
    });
    ranges.extend(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(owner: u64, start: u64, end: u64, exclusive: bool) -> RangeLock {
        RangeLock { start, end, exclusive, owner, pid: owner as i32 }
    }

    #[test]
    fn ranges_split_and_conflict() {
        let locks = LockTable::default();
        locks.lock(range(1, 0, 100, true)).unwrap();
        assert_eq!(locks.lock(range(2, 50, 60, false)), Err(Errno::EAGAIN));
        locks.unlock(&range(1, 40, 70, false));
        locks.lock(range(2, 50, 60, true)).unwrap();
        assert_eq!(locks.conflict(&range(3, 0, 10, false)).map(|l| (l.owner, l.end)), Some((1, 40)));
        assert_eq!(locks.conflict(&range(3, 60, 70, true)), None);
        locks.drop_owner(1);
        assert_eq!(locks.conflict(&range(3, 70, u64::MAX, true)), None);
    }

    #[test]
    fn flocks_convert() {
        let locks = LockTable::default();
        locks.flock(1, Flock::Shared).unwrap();
        locks.flock(2, Flock::Shared).unwrap();
        assert_eq!(locks.flock(1, Flock::Exclusive), Err(Errno::EAGAIN));
        locks.flock(2, Flock::Unlock).unwrap();
        locks.flock(1, Flock::Exclusive).unwrap();
        assert_eq!(locks.flock(2, Flock::Shared), Err(Errno::EAGAIN));
    }
}
