//! Trees of mounts that are nowhere yet (open_tree(2), fsmount(2)): each is in a namespace of its own, in which nobody is and which
//! ends with whoever holds it. From there it is moved to where it is to be (move_mount(2)). And namespaces that begin with nothing of
//! others.

use super::{MAX_MOUNTS, Mount, MountFlags, Namespace, Path, Propagation, tree_of};
use crate::abi::{Errno, Result};
use crate::vfs::Dentry;
use std::sync::Arc;

impl Namespace {
    /// Another namespace, whose root is a mount of `root`. It has nothing of this one, but counts with it.
    ///
    /// # Errors
    /// ENOSPC where there are too many mounts.
    pub fn beside(&self, root: Arc<Dentry>) -> Result<Arc<Namespace>> {
        let _edit = self.forest.edit.lock();
        self.forest.tally().take(self.payer, 1, MAX_MOUNTS)?;
        let id = self.forest.next_mount.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mount = Mount::new(id, root, "none", MountFlags::empty());
        let whose = (self.owner.clone(), self.payer, false);
        Ok(Self::plant(&self.forest, whose, mount.clone(), vec![mount], self.watchers.clone()))
    }

    /// A copy of what `source` leads to, and of what is mounted below it, if `recursive`.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn copy_detached(&self, source: &Path, recursive: bool) -> Result<(Arc<Namespace>, Path)> {
        let _edit = self.forest.edit.lock();
        let tree = self.copy_to_bind(source, recursive)?;
        if let Err(errno) = self.forest.tally().take(self.payer, tree.len(), MAX_MOUNTS) {
            tree.iter().for_each(|mount| mount.dissolve());
            return Err(errno);
        }
        self.alone(tree)
    }

    /// A mount of `root`.
    ///
    /// # Errors
    /// ENOSPC where there are too many mounts; EPERM for one that would show too much.
    pub fn mount_detached(
        &self,
        root: Arc<Dentry>,
        source: &str,
        flags: MountFlags,
    ) -> Result<(Arc<Namespace>, Path)> {
        let _edit = self.forest.edit.lock();
        let kept = self.kept_by_new(root.sb.fstype, flags)?;
        self.forest.tally().take(self.payer, 1, MAX_MOUNTS)?;
        let id = self.forest.next_mount.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mount = Mount::new(id, root, source, flags);
        mount.set_kept(kept);
        self.alone(vec![mount])
    }

    fn alone(&self, tree: Vec<Arc<Mount>>) -> Result<(Arc<Namespace>, Path)> {
        let top = tree.first().cloned().ok_or(Errno::EINVAL)?;
        let root = Path { dentry: top.root.clone(), mount: top.clone() };
        let whose = (self.owner.clone(), self.payer, true);
        Ok((Self::plant(&self.forest, whose, top, tree, self.watchers.clone()), root))
    }

    /// Where a mount is: here, or in a detached tree.
    pub fn home_of(self: &Arc<Self>, mount: &Arc<Mount>) -> Option<Arc<Namespace>> {
        if self.has(mount) {
            return Some(self.clone());
        }
        self.forest.namespaces().into_iter().find(|ns| ns.anonymous && ns.has(mount))
    }

    /// Moves what `from` is the root of to `place`: a mount of this namespace, or a whole detached tree.
    ///
    /// # Errors
    /// As [`relocate`](Self::relocate).
    pub fn move_mount(self: &Arc<Self>, from: &Path, place: &Path) -> Result<()> {
        let home = self.home_of(&from.mount).ok_or(Errno::EINVAL)?;
        if Arc::ptr_eq(&home, self) {
            return self.relocate(from, place);
        }
        let _edit = self.forest.edit.lock();
        let tree = home.to_move(from, place)?;
        if from.mount.place().is_some() {
            return Err(Errno::EINVAL);
        }
        // Counted where they are going to be, no more where they were.
        let taken = std::mem::take(&mut *home.mounts.lock());
        let grafted = self.graft(tree, place);
        if grafted.is_err() {
            *home.mounts.lock() = taken;
            return grafted;
        }
        self.forest.namespaces.lock().retain(|ns| ns.as_ptr() != Arc::as_ptr(&home));
        Ok(())
    }

    /// Changes what a mount forbids, and those below it, if `recursive`: all or none; and who hears of what is mounted on them.
    ///
    /// # Errors
    /// EPERM where one is to forbid something for good; EINVAL for a mount that is not here.
    pub fn change(
        &self,
        mount: &Arc<Mount>,
        recursive: bool,
        wanted: impl Fn(MountFlags) -> MountFlags,
        propagation: Option<Propagation>,
    ) -> Result<()> {
        let _edit = self.forest.edit.lock();
        if !self.has(mount) {
            return Err(Errno::EINVAL);
        }
        let all = if recursive { tree_of(mount) } else { vec![mount.clone()] };
        for mount in &all {
            mount.may_become(wanted(mount.flags()))?;
        }
        all.iter().for_each(|mount| mount.set_flags(wanted(mount.flags())));
        if let Some(kind) = propagation {
            self.share(&all, kind);
        }
        self.changed();
        Ok(())
    }
}
