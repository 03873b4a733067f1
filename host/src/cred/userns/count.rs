//! How many there are of what a kernel has only so many of, and who pays for them.
//!
//! Linux counts for each user of each user namespace, and charges what somebody makes in one to its owner as well, and to the
//! owners of those above (user_namespaces(7), /proc/sys/user). All limits but the first namespace's are as good as none there,
//! so what counts is who pays in the first one: a user himself, or whose the outermost namespace is that he is in
//! ([`UserNs::payer`](super::UserNs::payer)). One user cannot take what others need, and all together leave something to root.

use crate::abi::{Errno, Result};
use crate::sync::{Lock, Rank};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who always finds some left.
const ROOT: u32 = 0;

/// What of `most` one user may have who is not root.
pub const fn share(most: usize) -> usize {
    most / 4 * 3
}

/// What of `most` all users may have together.
const fn of_users(most: usize) -> usize {
    most / 8 * 7
}

/// Who pays for how many.
#[derive(Debug, Default)]
pub struct Tally {
    all: usize,
    by: BTreeMap<u32, usize>,
}

impl Tally {
    /// As many more, by `payer`, whatever there are.
    pub fn add(&mut self, payer: u32, more: usize) {
        self.all += more;
        *self.by.entry(payer).or_default() += more;
    }

    /// As many more, where that leaves others theirs of `most`.
    ///
    /// # Errors
    /// ENOSPC.
    pub fn take(&mut self, payer: u32, more: usize, most: usize) -> Result<()> {
        let had = |payer| self.by.get(&payer).copied().unwrap_or(0);
        let fits = |had: usize, most: usize| had.saturating_add(more) <= most;
        let of_one = fits(had(payer), share(most)) && fits(self.all - had(ROOT), of_users(most));
        if !fits(self.all, most) || (payer != ROOT && !of_one) {
            return Err(Errno::ENOSPC);
        }
        self.add(payer, more);
        Ok(())
    }

    fn give_back(&mut self, payer: u32) {
        let Some(had) = self.by.get_mut(&payer) else { return };
        *had -= 1;
        if *had == 0 {
            self.by.remove(&payer);
        }
        self.all -= 1;
    }
}

/// How many there are of one kind.
#[derive(Clone)]
pub struct Count(Arc<Lock<Tally>>);

impl Default for Count {
    fn default() -> Self {
        Count(Arc::new(Lock::new(Rank::Shares, Tally::default())))
    }
}

/// One of those that are counted.
pub struct Counted {
    count: Count,
    payer: u32,
}

impl Count {
    /// One more for `payer`, of `most`.
    ///
    /// # Errors
    /// ENOSPC where he has his share, or there are enough.
    pub fn one_of(&self, most: usize, payer: u32) -> Result<Counted> {
        self.0.lock().take(payer, 1, most)?;
        Ok(Counted { count: self.clone(), payer })
    }
}

#[cfg(test)]
impl Count {
    /// How many there are.
    pub(super) fn all(&self) -> usize {
        self.0.lock().all
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count.0.lock().give_back(self.payer);
    }
}

#[cfg(test)]
mod tests {
    use super::{Count, Counted, Errno};

    fn take_all(count: &Count, payer: u32) -> Vec<Counted> {
        core::iter::from_fn(|| count.one_of(64, payer).ok()).collect()
    }

    #[test]
    fn nobody_takes_what_others_need() {
        let count = Count::default();
        let first = take_all(&count, 1000);
        assert_eq!(first.len(), 48);
        let second = take_all(&count, 1001);
        assert_eq!(second.len(), 8);
        assert_eq!(count.one_of(64, 1002).err(), Some(Errno::ENOSPC));
        let root = take_all(&count, 0);
        assert_eq!(root.len(), 8);
        drop(root);
        drop(first);
        // Who had his share has it again, and nothing of what has gone is counted.
        assert_eq!(take_all(&count, 1000).len(), 48);
        drop(second);
        assert_eq!(take_all(&count, 0).len(), 64);
        assert!(count.all() == 0 && count.0.lock().by.is_empty());
    }
}
