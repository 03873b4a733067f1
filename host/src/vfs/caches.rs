//! What is kept because it may be asked for again, and goes when its place is needed.

use super::{Dentry, Namespace, Superblock};
use std::sync::{Arc, Weak};

/// Names known to be missing on a file system, beside those that were removed: more are forgotten, oldest first.
const MISSES: usize = 8192;
/// Dentries visited between two pauses.
const VISITS: usize = 1024;

/// A name that was looked for in vain, and in which directory.
pub(super) type Miss = (Weak<Dentry>, Arc<[u8]>);

impl Superblock {
    /// Remembers a name that is missing below `dir`, and forgets the oldest if there are too many.
    pub(super) fn remember_missing(&self, dir: &Arc<Dentry>, name: Arc<[u8]>) {
        let oldest = {
            let mut missing = self.missing.lock();
            missing.push_back((Arc::downgrade(dir), name));
            if missing.len() > MISSES { missing.pop_front() } else { None }
        };
        let Some((dir, name)) = oldest else { return };
        let Some(dir) = dir.upgrade() else { return };
        let mut children = dir.children.lock();
        // If it was made and removed since, that needs no note either: nothing lies below.
        if matches!(children.get(&name), Some(None)) {
            children.remove(&name);
        }
    }
}

/// Drops the pages of every file in the namespace that can be had again; `pause` is called every now and then.
pub fn drop_caches(namespace: &Namespace, pause: &mut dyn FnMut()) {
    let mut todo: Vec<Arc<Dentry>> = namespace.mounts().iter().map(|mount| mount.root.clone()).collect();
    let mut visited = 0;
    while let Some(dentry) = todo.pop() {
        dentry.inode.drop_cache();
        todo.extend(dentry.children.lock().values().flatten().cloned());
        visited += 1;
        if visited % VISITS == 0 {
            pause();
        }
    }
}
