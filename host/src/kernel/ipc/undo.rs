//! What the end of a process adds to semaphores (SEM_UNDO).
//!
//! The adjustments lie in the sets; a list, which threads share (CLONE_SYSVSEM), knows which.

use super::sem::SemSet;
use crate::kernel::{Kernel, Task};
use crate::sync::{Lock, Rank};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Numbers the lists of a sandbox.
#[derive(Default)]
pub struct UndoLists(AtomicU64);

impl UndoLists {
    fn add(&self) -> Arc<UndoList> {
        Arc::new(UndoList {
            id: 1 + self.0.fetch_add(1, Ordering::Relaxed),
            sets: Lock::new(Rank::UndoSets, Vec::new()),
        })
    }
}

/// The sets that a process, or several that share it, must put right at the end.
pub struct UndoList {
    id: u64,
    sets: Lock<Vec<Weak<SemSet>>>,
}

impl UndoList {
    /// Its number, which no other list ever has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// A set holds adjustments for it.
    pub(super) fn note(&self, set: &Arc<SemSet>) {
        let mut sets = self.sets.lock();
        sets.retain(|set| set.strong_count() != 0);
        sets.push(Arc::downgrade(set));
    }

    fn apply(self, pid: i32) {
        for set in self.sets.into_inner().iter().filter_map(Weak::upgrade) {
            set.state.lock().undo(self.id, pid);
        }
    }
}

impl Task {
    /// Its list, made when first asked for.
    pub(super) fn undo_list(&self, kernel: &Kernel) -> Arc<UndoList> {
        self.undo.lock().get_or_insert_with(|| kernel.undo_lists.add()).clone()
    }

    /// A list that the task shares from now on with one it creates (CLONE_SYSVSEM).
    pub(in crate::kernel) fn share_undo_list(&self, kernel: &Kernel) -> Option<Arc<UndoList>> {
        Some(self.undo_list(kernel))
    }

    /// Parts with its list (exit, unshare). The last to do so has semaphores adjusted.
    pub fn leave_undo_list(&self) {
        let list = self.undo.lock().take();
        if let Some(list) = list.and_then(Arc::into_inner) {
            list.apply(self.tgid());
        }
    }
}
