//! What one file system in memory may hold (tmpfs(5): `size`, `nr_blocks`, `nr_inodes`), beside what all of them together may.

use crate::abi::{Errno, Result};
use std::sync::atomic::{AtomicU64, Ordering};

/// No limit of its own.
const UNLIMITED: u64 = 0;

/// A number of things, and how many there may be.
#[derive(Debug, Default)]
pub struct Count {
    used: AtomicU64,
    limit: AtomicU64,
}

impl Count {
    /// Counts one more.
    ///
    /// # Errors
    /// ENOSPC where there are as many as may be.
    pub fn take(&self) -> Result<()> {
        let fits = |used: u64| match self.limit.load(Ordering::Relaxed) {
            UNLIMITED => Some(used + 1),
            limit => (used < limit).then_some(used + 1),
        };
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map(drop).map_err(|_| Errno::ENOSPC)
    }

    /// Counts some less.
    pub fn give(&self, count: u64) {
        self.used.fetch_sub(count, Ordering::Relaxed);
    }

    /// How many there may be and how many more; none where all there is may be taken.
    pub fn left(&self) -> Option<(u64, u64)> {
        let (limit, used) = (self.limit.load(Ordering::Relaxed), self.used.load(Ordering::Relaxed));
        (limit != UNLIMITED).then(|| (limit, limit.saturating_sub(used)))
    }

    /// Changes how many there may be; 0 for no limit.
    ///
    /// # Errors
    /// EINVAL where there are more already.
    pub fn set_limit(&self, limit: u64) -> Result<()> {
        if limit != UNLIMITED && limit < self.used.load(Ordering::Relaxed) {
            return Err(Errno::EINVAL);
        }
        self.limit.store(limit, Ordering::Relaxed);
        Ok(())
    }
}

/// The limits of a file system.
#[derive(Debug, Default)]
pub struct Quota {
    /// Pages of files.
    pub blocks: Count,
    /// Files, directories and all others.
    pub inodes: Count,
}

#[cfg(test)]
mod tests {
    use super::{Count, Errno};

    #[test]
    fn there_are_never_more_than_may_be() {
        let count = Count::default();
        assert_eq!(count.left(), None);
        (0..5).for_each(|_| count.take().unwrap());
        assert_eq!(count.set_limit(4), Err(Errno::EINVAL));
        count.set_limit(6).unwrap();
        assert_eq!((count.take(), count.take()), (Ok(()), Err(Errno::ENOSPC)));
        count.give(2);
        assert_eq!(count.left(), Some((6, 2)));
        count.set_limit(0).unwrap();
        assert_eq!((count.left(), count.take()), (None, Ok(())));
    }
}
