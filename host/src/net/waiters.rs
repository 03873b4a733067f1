//! Sockets that wait for another one, by their numbers as files.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// Each once, also where it asks again; one may go without a word.
pub(super) struct Waiters<S> {
    all: BTreeMap<u64, Weak<S>>,
    /// How many there are when those that have gone are swept out.
    sweep_at: usize,
}

impl<S> Default for Waiters<S> {
    fn default() -> Self {
        Waiters { all: BTreeMap::new(), sweep_at: 0 }
    }
}

impl<S> Waiters<S> {
    /// Below this nothing is swept.
    const LEAST: usize = 64;

    pub(super) fn add(&mut self, number: u64, waiter: &Weak<S>) {
        if self.all.len() >= self.sweep_at.max(Self::LEAST) {
            self.all.retain(|_, waiter| waiter.strong_count() != 0);
            self.sweep_at = self.all.len() * 2;
        }
        self.all.insert(number, waiter.clone());
    }

    /// Whether nobody waits; some of those who do may have gone.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Takes out the one with the lowest number.
    pub(super) fn pop(&mut self) -> Option<Arc<S>> {
        while let Some((_, waiter)) = self.all.pop_first() {
            if let Some(waiter) = waiter.upgrade() {
                return Some(waiter);
            }
        }
        None
    }

    /// Those that are there.
    pub(super) fn iter(&self) -> impl Iterator<Item = Arc<S>> {
        self.all.values().filter_map(Weak::upgrade)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_once_and_who_has_gone_is_forgotten() {
        let all: Vec<_> = (0..1000_u64).map(Arc::new).collect();
        let mut waiters = Waiters::default();
        for one in all.iter().rev().chain(&all) {
            waiters.add(**one, &Arc::downgrade(one));
        }
        assert_eq!((waiters.len(), waiters.pop().as_deref(), waiters.len()), (1000, Some(&0), 999));
        let last = all.last().cloned();
        drop(all);
        assert_eq!((waiters.pop(), waiters.pop()), (last, None));
        for number in 0..10_000 {
            waiters.add(number, &Weak::new());
        }
        assert!(waiters.len() < 200, "{}", waiters.len());
    }
}
