//! Mount namespaces: the mounts that a group of tasks sees, and how they change.
//!
//! A namespace's mounts are a tree: each but the root has a place on another. What is mounted on a mount is found through
//! that mount, so that a look-up needs no namespace. All namespaces of a kernel are one [`Forest`], because a change of a
//! shared mount is a change of its peers and slaves wherever these are (mount_namespaces(7)). One lock orders all changes;
//! look-ups do not take it.
//!
//! A namespace belongs to a user namespace. What a more privileged one put into a copy for a less privileged one stays as it is
//! there: mounts that hide something are not taken away, and what a mount forbids it goes on forbidding ([`Mount::lock`]).
//!
//! # Lock order
//! `Forest::edit` > `Forest::namespaces` > `Namespace::mounts` > those of a mount. Dentries' locks are taken under all of them.

mod detached;
mod propagate;
mod show;

pub use show::relative;

use super::anon::AnonInode;
use super::{Dentry, Kind, Mount, MountFlags, Path, Sharing, notify};
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::cred::userns::{Tally, UserNs};
use crate::sync::{Lock, Rank, WaitQueue};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// The most mounts of a kernel, those of all namespaces together: operations look at each (fs.mount-max). Whose namespace
/// they are in pays for them.
const MAX_MOUNTS: usize = 2048;

/// What tells of the whole system: a user namespace has as much of it as it was given before (mount_too_revealing).
const REVEALING: [&str; 2] = ["proc", "sysfs"];

/// The number of the first (what Linux's usually has); others follow.
const FIRST_NUMBER: u64 = 4_026_531_841;

/// What a mount's peers are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Those of a group (MS_SHARED).
    Shared,
    /// None (MS_PRIVATE).
    Private,
    /// None, but it hears of its former peers' (MS_SLAVE).
    Slave,
    /// None, and it cannot be bound (MS_UNBINDABLE).
    Unbindable,
}

/// All namespaces of a kernel.
struct Forest {
    edit: Lock<()>,
    next_mount: AtomicU64,
    next_group: AtomicU64,
    /// How many namespaces there have been.
    made: AtomicU64,
    namespaces: Lock<Vec<Weak<Namespace>>>,
}

impl Forest {
    fn namespaces(&self) -> Vec<Arc<Namespace>> {
        let mut all = self.namespaces.lock();
        all.retain(|ns| ns.strong_count() != 0);
        all.iter().filter_map(Weak::upgrade).collect()
    }

    fn new_group(&self) -> u64 {
        self.next_group.fetch_add(1, Ordering::Relaxed)
    }

    /// Who has how many mounts.
    fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        self.namespaces().iter().for_each(|ns| tally.add(ns.payer, ns.mounts.lock().len()));
        tally
    }

    fn clone_mount(&self, mount: &Mount, root: Arc<Dentry>) -> Arc<Mount> {
        let id = self.next_mount.fetch_add(1, Ordering::Relaxed);
        let copy = Mount::new(id, root, &mount.source, mount.flags());
        copy.set_sharing(mount.sharing());
        copy.set_locked(mount.is_locked());
        copy.set_kept(mount.kept());
        copy
    }
}

/// All mounts that a group of tasks sees.
pub struct Namespace {
    /// The number that /proc/PID/ns tells it by.
    pub number: u64,
    /// The user namespace that it belongs to.
    pub owner: UserNs,
    /// Who pays for its mounts.
    payer: u32,
    /// It is what one detached tree of mounts is in, and nobody's (open_tree(2)).
    anonymous: bool,
    forest: Arc<Forest>,
    root: Lock<Arc<Mount>>,
    /// In the order they were made.
    mounts: Lock<Vec<Arc<Mount>>>,
    /// How much each user watches.
    pub watchers: Arc<notify::Users>,
    /// The last number that a rename was given for its two events.
    cookie: AtomicU32,
    /// Notified of each change.
    pub changes: WaitQueue,
}

impl Namespace {
    /// A namespace of its own whose root is the root of `mount`.
    pub fn new(mount: Arc<Mount>) -> Arc<Namespace> {
        let forest = Arc::new(Forest {
            edit: Lock::new(Rank::MountEdit, ()),
            next_mount: AtomicU64::new(mount.id + 1),
            next_group: AtomicU64::new(1),
            made: AtomicU64::new(0),
            namespaces: Lock::new(Rank::MountNamespaces, Vec::new()),
        });
        let whose = (UserNs::FIRST, Cred::root().payer(), false);
        Self::plant(&forest, whose, mount.clone(), vec![mount], Arc::default())
    }

    fn plant(
        forest: &Arc<Forest>,
        (owner, payer, anonymous): (UserNs, u32, bool),
        root: Arc<Mount>,
        mounts: Vec<Arc<Mount>>,
        watchers: Arc<notify::Users>,
    ) -> Arc<Namespace> {
        let number = FIRST_NUMBER + forest.made.fetch_add(1, Ordering::Relaxed);
        let ns = Arc::new(Namespace {
            number,
            owner,
            payer,
            anonymous,
            forest: forest.clone(),
            root: Lock::new(Rank::NamespaceRoot, root),
            mounts: Lock::new(Rank::NamespaceMounts, mounts),
            watchers,
            cookie: AtomicU32::new(0),
            changes: WaitQueue::new(),
        });
        forest.namespaces.lock().push(Arc::downgrade(&ns));
        ns
    }

    /// A copy (CLONE_NEWNS) that is `maker`'s and belongs to his user namespace, and what the mounts of `places` are in it: the
    /// caller's root and working directory. One for another user namespace hears of changes, but tells nobody of its own.
    ///
    /// # Errors
    /// ENOSPC where there would be too many mounts.
    pub fn copy(&self, places: [Path; 2], maker: &Cred) -> Result<(Arc<Namespace>, [Path; 2])> {
        let _edit = self.forest.edit.lock();
        let count = self.mounts.lock().len();
        self.forest.tally().take(maker.payer(), count, MAX_MOUNTS)?;
        let root = self.root.lock().clone();
        let (old, new) = self.copy_tree(&root, root.root.clone(), true, true);
        if self.owner != maker.user_ns {
            new.iter().for_each(|mount| mount.hear_only());
            lock_tree(&new);
        }
        let moved = places.map(|place| {
            let at = old.iter().position(|mount| Arc::ptr_eq(mount, &place.mount));
            let mount = at.and_then(|at| new.get(at)).cloned();
            Path { mount: mount.unwrap_or_else(|| place.mount.clone()), dentry: place.dentry }
        });
        let top = new.first().cloned().ok_or(Errno::EINVAL)?;
        let whose = (maker.user_ns.clone(), maker.payer(), false);
        Ok((Self::plant(&self.forest, whose, top, new, self.watchers.clone()), moved))
    }

    /// The root directory.
    pub fn root(&self) -> Path {
        let mount = self.root.lock().clone();
        Path { dentry: mount.root.clone(), mount }
    }

    /// All mounts, in the order they were made.
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        self.mounts.lock().clone()
    }

    /// Whether a mount is one of its own.
    pub fn has(&self, mount: &Arc<Mount>) -> bool {
        self.mounts.lock().iter().any(|own| Arc::ptr_eq(own, mount))
    }

    /// A number for the two events of a rename.
    pub(super) fn next_cookie(&self) -> u32 {
        self.cookie.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// Whether something is mounted exactly on this dentry.
    pub fn is_busy(&self, dentry: &Arc<Dentry>) -> bool {
        dentry.is_mountpoint()
            && self.mounts().iter().any(|m| m.place().is_some_and(|p| Arc::ptr_eq(&p.dentry, dentry)))
    }

    /// Mounts `root` at `place`, on top of what is mounted there.
    ///
    /// # Errors
    /// ENOTDIR if exactly one of the two is a directory; ENOENT where the place was removed; EINVAL where it is not in this
    /// namespace; ENOSPC where there would be too many mounts; EPERM where it would show too much.
    pub fn mount(
        &self,
        place: &Path,
        root: Arc<Dentry>,
        source: &str,
        flags: MountFlags,
    ) -> Result<Arc<Mount>> {
        let _edit = self.forest.edit.lock();
        let kept = self.kept_by_new(root.sb.fstype, flags)?;
        let mount = Mount::new(self.forest.next_mount.fetch_add(1, Ordering::Relaxed), root, source, flags);
        mount.set_kept(kept);
        self.graft(vec![mount.clone()], place)?;
        Ok(mount)
    }

    /// What a new mount goes on forbidding for good: in a user namespace one of what everybody sees the same of shows no more
    /// than this namespace sees already. `edit` is held.
    ///
    /// # Errors
    /// EPERM where it would.
    fn kept_by_new(&self, fstype: &str, wanted: MountFlags) -> Result<u32> {
        if self.owner.is_first() || !REVEALING.contains(&fstype) {
            return Ok(0);
        }
        self.kept_by_another(fstype, wanted).ok_or(Errno::EPERM)
    }

    /// Mounts what `source` leads to at `place` as well (MS_BIND), and what is mounted below it, if `recursive`.
    ///
    /// # Errors
    /// As [`mount`](Self::mount); EINVAL for an unbindable mount, and where it would show what another mount hides.
    pub fn bind(&self, source: &Path, place: &Path, recursive: bool) -> Result<Arc<Mount>> {
        let _edit = self.forest.edit.lock();
        let tree = self.copy_to_bind(source, recursive)?;
        let top = tree.first().cloned().ok_or(Errno::EINVAL)?;
        let grafted = self.graft(tree.clone(), place);
        if grafted.is_err() {
            tree.iter().for_each(|mount| mount.dissolve());
        }
        grafted.map(|()| top)
    }

    /// Copies of what `source` leads to, and of what is mounted below it, if `recursive`; they are nowhere.
    fn copy_to_bind(&self, source: &Path, recursive: bool) -> Result<Vec<Arc<Mount>>> {
        let own = self.has(&source.mount) || AnonInode::is_bindable(&source.dentry);
        if !own || source.mount.sharing().unbindable {
            return Err(Errno::EINVAL);
        }
        let left_out = |mount: &Arc<Mount>| !recursive || mount.sharing().unbindable;
        let shows = |mount: &Arc<Mount>| {
            let inside = mount.place().is_some_and(|place| {
                let direct = Arc::ptr_eq(&place.mount, &source.mount);
                if direct { place.dentry.is_inside(&source.dentry) } else { recursive }
            });
            mount.is_locked() && left_out(mount) && inside
        };
        if tree_of(&source.mount).iter().skip(1).any(shows) {
            return Err(Errno::EINVAL);
        }
        let (_, tree) = self.copy_tree(&source.mount, source.dentry.clone(), recursive, false);
        let top = tree.first().cloned().ok_or(Errno::EINVAL)?;
        // It hides nothing where it is going to be.
        top.set_locked(false);
        Ok(tree)
    }

    /// The mounts that go with `from` to `place`. `edit` is held.
    ///
    /// # Errors
    /// EINVAL where that is not the root of a mount of this namespace, or does not go there.
    fn to_move(&self, from: &Path, place: &Path) -> Result<Vec<Arc<Mount>>> {
        let (mount, tree) = (&from.mount, tree_of(&from.mount));
        let alike = (from.dentry.kind() == Kind::Dir) == (place.dentry.kind() == Kind::Dir);
        let barred = place.mount.sharing().group != 0 && tree.iter().any(|mount| mount.sharing().unbindable);
        let may = self.has(mount) && from.is_mount_root() && alike && !mount.is_locked() && !barred;
        if may { Ok(tree) } else { Err(Errno::EINVAL) }
    }

    /// Moves a mount, with all that is mounted on it, to `place` (MS_MOVE).
    ///
    /// # Errors
    /// As [`mount`](Self::mount); EINVAL for what is no mount's root, for the root itself, and where the mount that it is on
    /// is shared; ELOOP for a place below it.
    pub fn relocate(&self, from: &Path, place: &Path) -> Result<()> {
        let _edit = self.forest.edit.lock();
        let (mount, tree) = (&from.mount, self.to_move(from, place)?);
        let old = mount.place().filter(|old| old.mount.sharing().group == 0).ok_or(Errno::EINVAL)?;
        if tree.iter().any(|mount| Arc::ptr_eq(mount, &place.mount)) {
            return Err(Errno::ELOOP);
        }
        mount.detach();
        self.mounts.lock().retain(|own| !tree.iter().any(|moved| Arc::ptr_eq(moved, own)));
        let grafted = self.graft(tree.clone(), place);
        if grafted.is_err() {
            mount.attach(old);
            self.mounts.lock().extend(tree);
        }
        grafted
    }

    /// Takes a mount away, and from its peers' mounts too. If `lazily`, all that is mounted on it goes, and whoever still
    /// uses it may go on; else nobody may. `users` is how many references to it the caller holds.
    ///
    /// # Errors
    /// EINVAL if it is the root, not here, or hides something; EBUSY if something is mounted on it or somebody uses it.
    pub fn unmount(&self, mount: &Arc<Mount>, lazily: bool, users: usize) -> Result<()> {
        let _edit = self.forest.edit.lock();
        if !self.has(mount) || mount.place().is_none() || mount.is_locked() {
            return Err(Errno::EINVAL);
        }
        // The list's and its parent's: see `attach`.
        if !lazily && (!mount.children().is_empty() || Arc::strong_count(mount) > users + 2) {
            return Err(Errno::EBUSY);
        }
        for gone in tree_of(mount).into_iter().rev() {
            self.unmount_copies(&gone);
            if gone.is_locked() {
                // An open directory of what it is on shows no more than before (disconnect_mount).
                gone.leave();
            }
            self.remove(&gone);
        }
        self.changed();
        Ok(())
    }

    /// What another mount of a type must go on forbidding that is to forbid `wanted`; none where this namespace sees no whole
    /// one that forbids as little: what was hidden of it, or kept from being written, would appear (mount_too_revealing).
    fn kept_by_another(&self, fstype: &str, wanted: MountFlags) -> Option<u32> {
        self.mounts().iter().find_map(|mount| {
            let whole = mount.root.sb.fstype == fstype && mount.root.parent().is_none();
            let hidden = |child: &Arc<Mount>| {
                let empty = |place: &Path| place.dentry.inode.is_always_empty();
                child.is_locked() && !child.place().is_some_and(|place| empty(&place))
            };
            if !whole || mount.children().iter().any(hidden) {
                return None;
            }
            mount.kept_by_another(wanted)
        })
    }

    /// Marks a mount to be taken away, or takes it away if it was and nobody has used it (MNT_EXPIRE).
    ///
    /// # Errors
    /// EAGAIN the first time; else as [`unmount`](Self::unmount).
    pub fn expire(&self, mount: &Arc<Mount>, users: usize) -> Result<()> {
        if !mount.children().is_empty() || Arc::strong_count(mount) > users + 2 {
            return Err(Errno::EBUSY);
        }
        if !mount.expiring.swap(true, Ordering::Relaxed) {
            return Err(Errno::EAGAIN);
        }
        self.unmount(mount, false, users)
    }

    /// Makes `new` the root of what is below the caller's `root`, and mounts that at `put_old` (pivot_root(2)).
    ///
    /// # Errors
    /// As pivot_root(2).
    pub fn pivot(&self, root: &Path, new: &Path, put_old: &Path) -> Result<()> {
        let _edit = self.forest.edit.lock();
        let shared = |mount: &Mount| mount.sharing().group != 0;
        let parent = |path: &Path| path.mount.place().map(|place| place.mount);
        if shared(&put_old.mount)
            || parent(new).is_some_and(|mount| shared(&mount))
            || parent(root).is_some_and(|mount| shared(&mount))
            || !self.has(&root.mount)
            || !self.has(&new.mount)
            || new.mount.is_locked()
        {
            return Err(Errno::EINVAL);
        }
        if new.dentry.is_dead() {
            return Err(Errno::ENOENT);
        }
        if Arc::ptr_eq(&new.mount, &root.mount) || Arc::ptr_eq(&put_old.mount, &root.mount) {
            return Err(Errno::EBUSY);
        }
        if !root.is_mount_root() || !new.is_mount_root() || !put_old.is_below(new) || !new.is_below(root) {
            return Err(Errno::EINVAL);
        }
        let place = root.mount.place();
        new.mount.detach();
        root.mount.detach();
        match place {
            Some(place) => new.mount.attach(place),
            None => *self.root.lock() = new.mount.clone(),
        }
        // What is below is as hidden by the one as by the other.
        if root.mount.is_locked() {
            new.mount.set_locked(true);
            root.mount.set_locked(false);
        }
        root.mount.attach(put_old.with(put_old.dentry.keep()).cross());
        self.changed();
        Ok(())
    }

    /// Tells who waits for changes.
    pub fn changed(&self) {
        self.changes.notify(!0);
    }

    /// Mounts a tree that is nowhere at `place`, and copies of it where the place's mount says so.
    fn graft(&self, tree: Vec<Arc<Mount>>, place: &Path) -> Result<()> {
        let top = tree.first().ok_or(Errno::EINVAL)?;
        if (place.dentry.kind() == Kind::Dir) != (top.root.kind() == Kind::Dir) {
            return Err(Errno::ENOTDIR);
        }
        let place = place.with(place.dentry.keep()).cross();
        if place.dentry.is_dead() {
            return Err(Errno::ENOENT);
        }
        if !self.has(&place.mount) {
            return Err(Errno::EINVAL);
        }
        self.propagate(&tree, &place)?;
        top.attach(place);
        self.mounts.lock().extend(tree);
        self.changed();
        Ok(())
    }

    /// Copies a mount with another root, and what is mounted below that, if `recursive`; `all`: what is unbindable as well.
    /// Returns the originals and the copies, in the same order, parents first. The copies are nowhere.
    fn copy_tree(
        &self,
        mount: &Arc<Mount>,
        root: Arc<Dentry>,
        recursive: bool,
        all: bool,
    ) -> (Vec<Arc<Mount>>, Vec<Arc<Mount>>) {
        let (mut old, mut new) = (vec![mount.clone()], vec![self.forest.clone_mount(mount, root.clone())]);
        let mut at = 0;
        while recursive && at < old.len() {
            let (parent, copy) = (old[at].clone(), new[at].clone());
            for child in parent.children() {
                let Some(place) = child.place() else { continue };
                let outside = at == 0 && !place.dentry.is_inside(&root);
                if outside || (child.sharing().unbindable && !all) {
                    continue;
                }
                let made = self.forest.clone_mount(&child, child.root.clone());
                made.attach(Path { mount: copy.clone(), dentry: place.dentry });
                old.push(child);
                new.push(made);
            }
            at += 1;
        }
        (old, new)
    }

    /// Takes one mount without children out of the tree and of its group.
    fn remove(&self, mount: &Arc<Mount>) {
        mount.detach();
        self.mounts.lock().retain(|own| !Arc::ptr_eq(own, mount));
        let old = mount.sharing();
        mount.set_sharing(Sharing::default());
        self.left_group(old);
    }
}

/// Keeps copies as they are for those who are less than who made them; the first hides nothing that was not hidden before.
fn lock_tree(copies: &[Arc<Mount>]) {
    copies.iter().for_each(|mount| mount.keep_flags());
    copies.iter().skip(1).for_each(|mount| mount.set_locked(true));
}

/// A mount and all that is mounted on it, parents first.
fn tree_of(mount: &Arc<Mount>) -> Vec<Arc<Mount>> {
    let mut all = vec![mount.clone()];
    let mut at = 0;
    while let Some(next) = all.get(at).cloned() {
        all.extend(next.children());
        at += 1;
    }
    all
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for mount in std::mem::take(self.mounts.get_mut()) {
            mount.dissolve();
        }
    }
}
