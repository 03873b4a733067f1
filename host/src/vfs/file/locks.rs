//! The locks on an open file, and who it owns them as.

use super::File;
use crate::vfs::{FileLocks, Inode, LockTable};
use std::sync::Arc;

impl File {
    /// The inode behind it, if it has a name.
    pub fn inode(&self) -> Option<&Arc<dyn Inode>> {
        self.path.as_ref().map(|path| &path.dentry.inode)
    }

    /// The locks on what it is, made in `all` if nobody locked it before.
    pub fn locks(&self, all: &FileLocks) -> Arc<LockTable> {
        let slot = match self.inode() {
            Some(inode) => &inode.meta().locks,
            None => match self.ops.lock_slot() {
                Some(slot) => slot,
                None => return all.anonymous().clone(),
            },
        };
        if let Some(known) = &*slot.lock() {
            return known.clone();
        }
        // Which the host may have to be asked for.
        let stat = self.stat();
        slot.lock().get_or_insert_with(|| all.table((stat.dev, stat.ino))).clone()
    }

    /// The same, if anybody ever locked anything. `None` also for a file that shares its inode with all of its kind.
    pub fn existing_locks(&self) -> Option<Arc<LockTable>> {
        match self.inode() {
            Some(inode) => inode.meta().locks.lock().clone(),
            None => self.ops.lock_slot()?.lock().clone(),
        }
    }

    /// Where its locks are, if there are any.
    pub fn known_locks(&self, all: &FileLocks) -> Option<Arc<LockTable>> {
        if self.shares_inode() { Some(all.anonymous().clone()) } else { self.existing_locks() }
    }

    /// Whether it has no inode of its own.
    pub(in crate::vfs) fn shares_inode(&self) -> bool {
        self.path.is_none() && self.ops.lock_slot().is_none()
    }

    /// Notes that locks must be dropped with this description.
    pub fn note_lock(&self, table: &Arc<LockTable>) {
        let _ = self.locked.set(table.clone());
    }

    /// The identity that flock and OFD locks are owned by.
    pub fn lock_owner(&self) -> u64 {
        std::ptr::from_ref(self) as u64
    }
}
