//! Who is to hear that an open file is closed: the epolls that watch it.
//!
//! Kept at the file, so that a closed one leaves its watchers at once and adding one needs no search for those that left.

use crate::sync::{Lock, Rank};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// Something that watches open files.
pub trait Watcher: Send + Sync {
    /// The file that it watched as descriptor `fd` is being closed; `file` tells it from others, and is not to be followed.
    fn closed(&self, fd: i32, file: usize);

    /// For finding out what it is.
    fn as_any(&self) -> &dyn Any;
}

/// The watchers of one open file. One may watch it under several descriptors.
pub struct Watchers(Lock<BTreeMap<(usize, i32), Weak<dyn Watcher>>>);

impl Default for Watchers {
    fn default() -> Self {
        Watchers(Lock::new(Rank::FileWatchers, BTreeMap::new()))
    }
}

impl Watchers {
    /// Adds `watcher` for the descriptor `fd`.
    pub fn add(&self, watcher: &Arc<dyn Watcher>, fd: i32) {
        self.0.lock().insert((address(watcher), fd), Arc::downgrade(watcher));
    }

    /// Takes one away again, which is at `watcher`.
    pub fn remove(&self, watcher: *const (), fd: i32) {
        let gone = self.0.lock().remove(&(watcher as usize, fd));
        drop(gone);
    }

    /// Whether there is any.
    pub fn any(&self) -> bool {
        !self.0.lock().is_empty()
    }

    /// The watchers, once for each descriptor. They are dropped without the lock.
    pub fn list(&self) -> Vec<Arc<dyn Watcher>> {
        self.0.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Tells all of them that the file at `file` is closed.
    pub(super) fn tell_closed(&mut self, file: usize) {
        for ((_, fd), watcher) in std::mem::take(self.0.get_mut()) {
            if let Some(watcher) = watcher.upgrade() {
                watcher.closed(fd, file);
            }
        }
    }
}

fn address(watcher: &Arc<dyn Watcher>) -> usize {
    Arc::as_ptr(watcher).cast::<()>() as usize
}
