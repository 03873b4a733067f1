//! All files' locks: who waits for whom, so that those who would wait for each other are told so, and what /proc/locks
//! lists.
//!
//! Lock order: a table's locks, then who waits.

use super::{FileLock, Flock, LockTable, Sort, whole};
use crate::abi::{Errno, Result};
use crate::sync::{Lock, Rank};
use crate::vfs::ANON_DEV;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Weak};

/// How many waiting owners are looked at for a circle: longer ones are not found, as in Linux (MAX_DEADLK_ITERATIONS).
const LONGEST_CIRCLE: usize = 10;

/// Somebody who waits.
struct Wait {
    want: FileLock,
    /// The lock in the way, when it was looked at last.
    blocker: FileLock,
    table: Arc<LockTable>,
}

#[derive(Default)]
struct Waits {
    /// By owner and number.
    all: BTreeMap<(u64, u64), Wait>,
    next: u64,
}

impl Waits {
    /// Whether `owner` would wait for itself if it waited for `blocker` (fs/locks.c, posix_locks_deadlock).
    fn is_circle(&self, owner: u64, blocker: &FileLock) -> bool {
        let mut at = blocker.owner;
        for _ in 0..=LONGEST_CIRCLE {
            // Descriptions are held by who knows how many processes: they end every chain.
            let waits = self.all.range((at, 0)..=(at, u64::MAX));
            let Some(next) = waits.map(|(_, wait)| wait).find(|wait| wait.want.sort == Sort::Posix) else {
                return false;
            };
            at = next.blocker.owner;
            if at == owner {
                return true;
            }
        }
        false
    }
}

/// All files' locks.
pub struct FileLocks {
    tables: Lock<Vec<Weak<LockTable>>>,
    waits: Lock<Waits>,
    /// Of files that share one inode: eventfd, epoll, ...
    anonymous: Arc<LockTable>,
}

impl Default for FileLocks {
    fn default() -> Self {
        let anonymous = Arc::new(LockTable::new((ANON_DEV, crate::vfs::file::ANON_INO)));
        let tables = Lock::new(Rank::LockTables, vec![Arc::downgrade(&anonymous)]);
        FileLocks { tables, waits: Lock::new(Rank::LockWaits, Waits::default()), anonymous }
    }
}

impl FileLocks {
    /// A table for the inode of that device and number.
    pub fn table(&self, place: (u64, u64)) -> Arc<LockTable> {
        let table = Arc::new(LockTable::new(place));
        let mut tables = self.tables.lock();
        if tables.len() == tables.capacity() {
            tables.retain(|table| table.strong_count() > 0);
            let live = tables.len();
            tables.reserve(live + 1);
        }
        tables.push(Arc::downgrade(&table));
        table
    }

    /// The table of all files that have no inode of their own.
    pub fn anonymous(&self) -> &Arc<LockTable> {
        &self.anonymous
    }

    /// Somebody who will try to take `want`, and may wait for it.
    pub fn waiter(&self, table: &Arc<LockTable>, want: FileLock) -> Waiter<'_> {
        let mut waits = self.waits.lock();
        waits.next += 1;
        Waiter { locks: self, table: table.clone(), want, id: waits.next }
    }

    /// The same for flock(2).
    pub fn flock_waiter(
        &self,
        table: &Arc<LockTable>,
        owner: u64,
        pid: i32,
        want: Flock,
    ) -> Option<Waiter<'_>> {
        match want {
            Flock::Unlock => None,
            _ => Some(self.waiter(table, whole(owner, pid, want == Flock::Exclusive))),
        }
    }

    /// /proc/locks, to those who call a process by what `number_of` says of its id: of whom they do not know they see
    /// nothing.
    pub fn list(&self, number_of: &dyn Fn(i32) -> i32) -> String {
        let tables: Vec<_> = self.tables.lock().iter().filter_map(Weak::upgrade).collect();
        let waiting: Vec<_> = {
            let waits = self.waits.lock();
            waits.all.values().map(|wait| (Arc::as_ptr(&wait.table), wait.blocker, wait.want)).collect()
        };
        let mut out = String::new();
        let mut number = 0;
        for table in tables {
            for mut lock in table.held() {
                number += 1;
                lock.pid = number_of(lock.pid);
                if lock.shown_pid() == 0 {
                    continue;
                }
                let _ = write!(out, "{number}: ");
                lock.describe(table.place, &mut out);
                let behind = |(at, blocker, _): &&(*const LockTable, FileLock, FileLock)| {
                    *at == Arc::as_ptr(&table)
                        && blocker.owner == lock.owner
                        && blocker.sort == lock.sort
                        && blocker.overlaps(&lock)
                };
                for (_, _, want) in waiting.iter().filter(behind) {
                    let want = FileLock { pid: number_of(want.pid), ..*want };
                    if want.shown_pid() == 0 {
                        continue;
                    }
                    let _ = write!(out, "{number}: -> ");
                    want.describe(table.place, &mut out);
                }
            }
        }
        out
    }
}

/// Somebody who tries to take a lock, and is known to wait from the first failure until this is dropped.
pub struct Waiter<'a> {
    locks: &'a FileLocks,
    table: Arc<LockTable>,
    want: FileLock,
    id: u64,
}

impl Waiter<'_> {
    /// Tries once.
    ///
    /// # Errors
    /// EAGAIN while somebody else holds part of it; EDEADLK if those who hold it wait for the caller; ENOLCK.
    pub fn attempt(&mut self) -> Result<()> {
        let (want, id) = (self.want, self.id);
        let blocked = |blocker: &FileLock| {
            let mut waits = self.locks.waits.lock();
            if want.sort == Sort::Posix && waits.is_circle(want.owner, blocker) {
                return Errno::EDEADLK;
            }
            let wait = Wait { want, blocker: *blocker, table: self.table.clone() };
            waits.all.insert((want.owner, id), wait);
            Errno::EAGAIN
        };
        match want.sort {
            Sort::Flock => self.table.flock_or(want, blocked),
            _ => self.table.lock_or(want, blocked),
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let gone = self.locks.waits.lock().all.remove(&(self.want.owner, self.id));
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn byte(owner: u64, at: u64) -> FileLock {
        let pid = owner as i32;
        FileLock { sort: Sort::Posix, start: at, end: at + 1, exclusive: true, owner, pid, file: owner }
    }

    /// Owners 0 to `count` hold a byte each and wait for the next one's, the last for the first's: what that one is told.
    fn circle(count: u64, sort: Sort) -> Result<()> {
        let locks = FileLocks::default();
        let table = locks.table((1, 2));
        let byte = |owner, at| FileLock { sort, ..byte(owner, at) };
        for owner in 0..count {
            table.lock(byte(owner, owner)).unwrap();
        }
        let mut waiting = Vec::new();
        for owner in 0..count - 1 {
            let mut waiter = locks.waiter(&table, byte(owner, owner + 1));
            assert_eq!(waiter.attempt(), Err(Errno::EAGAIN));
            waiting.push(waiter);
        }
        locks.waiter(&table, byte(count - 1, 0)).attempt()
    }

    #[test]
    fn circles_are_found_up_to_a_length() {
        assert_eq!(circle(2, Sort::Posix), Err(Errno::EDEADLK));
        assert_eq!(circle(10, Sort::Posix), Err(Errno::EDEADLK));
        assert_eq!(circle(20, Sort::Posix), Err(Errno::EAGAIN));
        assert_eq!(circle(2, Sort::Description), Err(Errno::EAGAIN));
    }

    #[test]
    fn who_waits_no_longer_is_in_no_circle_and_lists_show_all() {
        let locks = FileLocks::default();
        let table = locks.table((crate::vfs::makedev(8, 1), 77));
        table.lock(byte(1, 0)).unwrap();
        table.lock(byte(2, 1)).unwrap();
        let mut waiter = locks.waiter(&table, byte(1, 1));
        assert_eq!(waiter.attempt(), Err(Errno::EAGAIN));
        assert_eq!(
            locks.list(&|id| id),
            "1: POSIX  ADVISORY  WRITE 1 08:01:77 0 0\n\
             2: POSIX  ADVISORY  WRITE 2 08:01:77 1 1\n\
             2: -> POSIX  ADVISORY  WRITE 1 08:01:77 1 1\n"
        );
        drop(waiter);
        assert_eq!(locks.waiter(&table, byte(2, 0)).attempt(), Err(Errno::EAGAIN));
        assert_eq!(table.fdinfo(2, 9), "");
        assert!(table.fdinfo(2, 2).starts_with("lock:\t1: POSIX  ADVISORY  WRITE 2 "));
    }
}
