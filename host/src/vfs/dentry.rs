//! The dentry tree: names, and which of them are known not to exist.

use super::superblock::LEAST;
use super::{Inode, Kind, Superblock, notify};
use crate::abi::{Errno, Result};
use crate::arena::ledger;
use crate::sync::{Lock, Rank};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

/// Somebody mounted something here (in some namespace).
const MOUNTPOINT: u32 = 1;
/// No longer has a name; nothing can be made below.
const DEAD: u32 = 2;
/// The directory it is in is watched for what happens to its children; may outlive the watch.
const PARENT_WATCHED: u32 = 4;

struct Place {
    parent: Option<Arc<Dentry>>,
    name: Arc<[u8]>,
}

/// What a directory knows of its names: the child, or that there is none.
pub(super) type Children = BTreeMap<Arc<[u8]>, Option<Arc<Dentry>>>;

/// A name of an inode.
pub struct Dentry {
    /// What it names.
    pub inode: Arc<dyn Inode>,
    /// The file system it is on.
    pub sb: Arc<Superblock>,
    place: Lock<Place>,
    pub(super) children: Lock<Children>,
    flags: AtomicU32,
}

/// What a directory is known to hold under a name; `None` where nothing is.
type Known = (Arc<[u8]>, Option<Arc<Dentry>>);

impl Dentry {
    /// A dentry without a parent: a root, or a name for something that has none (pipes).
    pub fn root(sb: &Arc<Superblock>, inode: Arc<dyn Inode>, name: &[u8]) -> Arc<Self> {
        Self::make(sb, inode, None, name.into())
    }

    /// A dentry below `parent`, not entered into the tree.
    pub fn below(parent: &Arc<Dentry>, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Self> {
        Self::make(&parent.sb, inode, Some(parent.clone()), name.into())
    }

    fn make(
        sb: &Arc<Superblock>,
        inode: Arc<dyn Inode>,
        parent: Option<Arc<Dentry>>,
        name: Arc<[u8]>,
    ) -> Arc<Self> {
        let watched = parent.as_ref().is_some_and(|dir| dir.watches_children());
        Arc::new(Dentry {
            inode,
            sb: sb.clone(),
            place: Lock::new(Rank::DentryPlace, Place { parent, name }),
            children: Lock::new(Rank::DentryChildren, BTreeMap::new()),
            flags: AtomicU32::new(if watched { PARENT_WATCHED } else { 0 }),
        })
    }

    /// Whether this directory is watched for what happens to its children.
    fn watches_children(&self) -> bool {
        self.sb.is_watched() && self.inode.meta().marks.for_children()
    }

    /// Whether it is worth asking who watches the directory it is in.
    pub(super) fn is_parent_watched(&self) -> bool {
        self.flags.load(Ordering::Acquire) & PARENT_WATCHED != 0
    }

    fn set_parent_watched(&self, watched: bool) {
        if watched {
            self.flags.fetch_or(PARENT_WATCHED, Ordering::AcqRel);
        } else {
            self.flags.fetch_and(!PARENT_WATCHED, Ordering::AcqRel);
        }
    }

    /// Lets the children know that this directory is watched. Those entered later find out by themselves.
    pub(super) fn tell_children(&self) {
        for child in self.children.lock().values().flatten() {
            child.set_parent_watched(true);
        }
    }

    /// Notes that `dir`, which it is in, is not watched any more.
    pub(super) fn forget_watch(&self, dir: &Dentry) {
        self.set_parent_watched(false);
        // A watch added meanwhile is noted on the directory first, then here.
        if dir.watches_children() {
            self.set_parent_watched(true);
        }
    }

    /// Type of the inode.
    pub fn kind(&self) -> Kind {
        self.inode.meta().kind
    }

    /// The directory that holds this name.
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.place.lock().parent.clone()
    }

    /// The name.
    pub fn name(&self) -> Arc<[u8]> {
        self.place.lock().name.clone()
    }

    /// Parent and name at one moment.
    pub fn place(&self) -> (Option<Arc<Dentry>>, Arc<[u8]>) {
        let place = self.place.lock();
        (place.parent.clone(), place.name.clone())
    }

    /// Whether something may be mounted here.
    pub fn is_mountpoint(&self) -> bool {
        self.flags.load(Ordering::Acquire) & MOUNTPOINT != 0
    }

    pub(super) fn set_mountpoint(&self) {
        self.flags.fetch_or(MOUNTPOINT, Ordering::AcqRel);
    }

    /// Whether the name was removed.
    pub fn is_dead(&self) -> bool {
        self.flags.load(Ordering::Acquire) & DEAD != 0
    }

    /// Marks that it has no name any more (or never had one).
    pub fn mark_dead(&self) {
        self.set_dead();
    }

    fn set_dead(&self) {
        self.flags.fetch_or(DEAD, Ordering::AcqRel);
    }

    /// Its name is there again: somebody else removed it, and brought it back.
    pub(super) fn set_living(&self) {
        self.flags.fetch_and(!DEAD, Ordering::AcqRel);
    }

    /// Finds `name` below this directory.
    ///
    /// # Errors
    /// ENOTDIR, or what the file system returned.
    pub fn child(self: &Arc<Self>, name: &[u8]) -> Result<Option<Arc<Dentry>>> {
        if self.sb.through {
            return self.child_through(name);
        }
        if self.sb.volatile {
            // Entered names win: that is how other file systems are mounted inside /proc.
            if let Some(known) = self.children.lock().get(name) {
                return Ok(known.clone());
            }
            return Ok(self.inode.lookup(name)?.map(|inode| Dentry::below(self, name, inode)));
        }
        if let Some(known) = self.children.lock().get(name) {
            return Ok(known.clone());
        }
        self.child_slow(name)
    }

    #[cold]
    fn child_slow(self: &Arc<Self>, name: &[u8]) -> Result<Option<Arc<Dentry>>> {
        let Some(inode) = self.inode.lookup(name)? else {
            if self.inode.has_lower() {
                // Someone may have made the name meanwhile: theirs stays.
                let name: Arc<[u8]> = name.into();
                let known = self.children.lock().entry(name.clone()).or_insert(None).clone();
                if known.is_none() {
                    self.sb.remember_missing(self, name);
                }
                return Ok(known);
            }
            // Looked up without the lock: a name made meanwhile counts.
            return Ok(self.children.lock().get(name).cloned().flatten());
        };
        let made = Dentry::below(self, name, inode);
        let mut children = self.children.lock();
        let known = children.entry(name.into()).or_insert(Some(made));
        if let Some(child) = known
            && self.watches_children()
        {
            // A watch may have come since it was made: `tell_children` has missed it or will not.
            child.set_parent_watched(true);
        }
        Ok(known.clone())
    }

    /// Keeps what was looked up in a volatile directory in the tree, and the directories that it is in, so that it can be mounted
    /// on: whoever looks for it finds the same.
    pub(super) fn keep(self: &Arc<Self>) -> Arc<Dentry> {
        let mut chain = vec![self.clone()];
        while let Some(parent) = chain.last().and_then(|last| last.parent()) {
            chain.push(parent);
            if !self.sb.volatile {
                // What this one is in is in the tree as long as it is itself.
                break;
            }
        }
        let Some(mut at) = chain.pop() else { return self.clone() };
        while let Some(below) = chain.pop() {
            let name = below.name();
            // Those above it may be others than it was found by: somebody has kept them already.
            let own = below.parent().is_some_and(|parent| Arc::ptr_eq(&parent, &at));
            let made = if own { below.clone() } else { Dentry::below(&at, &name, below.inode.clone()) };
            let kept = at.children.lock().entry(name).or_insert_with(|| Some(made)).clone();
            at = kept.unwrap_or(below);
        }
        at
    }

    /// Enters `inode` as `name`, which must not exist.
    ///
    /// # Errors
    /// EEXIST, ENOSPC, or ENOENT if this directory was removed.
    pub fn add(
        self: &Arc<Self>,
        name: &[u8],
        make: impl FnOnce() -> Result<Arc<dyn Inode>>,
    ) -> Result<Arc<Dentry>> {
        if self.sb.through {
            return self.add_through(name, make);
        }
        ledger::admit(LEAST)?;
        // Brings what lies below into the tree, so that the tree alone decides.
        self.child(name)?;
        let mut children = self.children.lock();
        if self.is_dead() {
            return Err(Errno::ENOENT);
        }
        if matches!(children.get(name), Some(Some(_))) {
            return Err(Errno::EEXIST);
        }
        let made = Dentry::below(self, name, make()?);
        let key = made.name();
        // The key is replaced with the value so that name and key share one allocation.
        children.remove(&key);
        children.insert(key, Some(made.clone()));
        drop(children);
        if made.kind() == Kind::Dir {
            self.inode.meta().nlink.fetch_add(1, Ordering::Relaxed);
        }
        self.inode.meta().touch();
        Ok(made)
    }

    fn forget(&self, children: &mut Children, name: &[u8]) {
        if self.inode.has_lower() {
            children.insert(name.into(), None);
        } else {
            children.remove(name);
        }
    }

    /// Removes the name `child` has here; `check` sees it under the lock.
    ///
    /// # Errors
    /// ESTALE if the name is not `child`'s any more, ENOTEMPTY, or what `check` returned.
    pub fn remove(self: &Arc<Self>, name: &[u8], child: &Arc<Dentry>) -> Result<()> {
        if self.sb.through {
            return self.remove_through(name, child);
        }
        let dir = child.kind() == Kind::Dir;
        if dir {
            child.inode.list()?;
        }
        let _ancestry = dir.then(|| self.sb.rename.lock());
        let mut children = self.children.lock();
        match children.get(name) {
            Some(Some(known)) if Arc::ptr_eq(known, child) => {}
            _ => return Err(Errno::ESTALE),
        }
        if dir {
            let below = child.children.lock_nested();
            child.inode.vanish().unwrap_or_else(|| child.must_be_empty(&below))?;
            child.set_dead();
        }
        self.forget(&mut children, name);
        drop(children);
        child.gone();
        if dir {
            self.inode.meta().nlink.fetch_sub(1, Ordering::Relaxed);
        }
        self.inode.meta().touch();
        Ok(())
    }

    /// Accounts for one name less.
    pub(super) fn gone(&self) {
        self.set_dead();
        let meta = self.inode.meta();
        meta.changed();
        let left = if meta.kind == Kind::Dir {
            meta.nlink.store(0, Ordering::Relaxed);
            0
        } else {
            meta.nlink
                .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| Some(n.saturating_sub(1)))
                .unwrap_or(1)
                .saturating_sub(1)
        };
        if left == 0 {
            self.inode.unlinked();
        }
    }

    /// The inode's list was asked for before any lock was taken: it is known, or costs no host call.
    fn must_be_empty(&self, children: &Children) -> Result<()> {
        if children.values().any(Option::is_some) {
            return Err(Errno::ENOTEMPTY);
        }
        let below = self.inode.list()?;
        if below.iter().any(|entry| !children.contains_key(&entry.name[..])) {
            return Err(Errno::ENOTEMPTY);
        }
        Ok(())
    }

    /// It is in no directory any more, and whatever that was may go.
    pub(super) fn orphan(&self) {
        let above = self.place.lock().parent.take();
        drop(above);
    }

    /// Moves `child` from `self`/`name` to `to`/`new_name`, replacing `victim`; with `exchange` the two swap.
    ///
    /// # Errors
    /// As rename(2): EINVAL into itself, ENOTEMPTY, ENOENT if `to` was removed, ESTALE if something moved meanwhile.
    pub fn rename(
        self: &Arc<Self>,
        name: &[u8],
        child: &Arc<Dentry>,
        to: &Arc<Dentry>,
        new_name: &[u8],
        victim: Option<&Arc<Dentry>>,
        exchange: bool,
    ) -> Result<()> {
        if let Some(victim) = victim
            && victim.kind() == Kind::Dir
        {
            victim.inode.list()?;
        }
        let _ancestry = self.sb.rename.lock();
        if to.is_inside(child) {
            return Err(Errno::EINVAL);
        }
        if let Some(victim) = victim
            && self.is_inside(victim)
        {
            return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        let still =
            |children: &Children, name: &[u8], want: Option<&Arc<Dentry>>| match (children.get(name), want) {
                (Some(Some(known)), Some(want)) => Arc::ptr_eq(known, want),
                (Some(Some(_)), None) | (_, Some(_)) => false,
                (_, None) => true,
            };
        let same = Arc::ptr_eq(self, to);
        let edit = |from_map: &mut Children, to_map: Option<&mut Children>| -> Result<()> {
            let target: &Children = to_map.as_deref().unwrap_or(from_map);
            if to.is_dead() || !still(from_map, name, Some(child)) || !still(target, new_name, victim) {
                return Err(if to.is_dead() { Errno::ENOENT } else { Errno::ESTALE });
            }
            if let Some(victim) = victim
                && !exchange
                && victim.kind() == Kind::Dir
            {
                let below = victim.children.lock_nested();
                victim.must_be_empty(&below)?;
                victim.set_dead();
            }
            match victim {
                Some(victim) if exchange => {
                    from_map.insert(name.into(), Some(victim.clone()));
                    victim.moved(self, name);
                }
                _ => self.forget(from_map, name),
            }
            to_map.unwrap_or(from_map).insert(new_name.into(), Some(child.clone()));
            child.moved(to, new_name);
            Ok(())
        };
        if same {
            edit(&mut self.children.lock(), None)?;
        } else if to.is_inside(self) || (!self.is_inside(to) && Arc::as_ptr(self) < Arc::as_ptr(to)) {
            let mut first = self.children.lock();
            let mut second = to.children.lock_nested();
            edit(&mut first, Some(&mut second))?;
        } else {
            let mut second = to.children.lock();
            let mut first = self.children.lock_nested();
            edit(&mut first, Some(&mut second))?;
        }
        self.count_dirs(child, to, victim, exchange);
        self.inode.meta().touch();
        to.inode.meta().touch();
        child.inode.meta().changed();
        match victim {
            Some(victim) if !exchange => victim.gone(),
            Some(victim) => victim.inode.meta().changed(),
            None => {}
        }
        Ok(())
    }

    /// Keeps `nlink` of the two directories right after a rename.
    fn count_dirs(&self, child: &Dentry, to: &Dentry, victim: Option<&Arc<Dentry>>, exchange: bool) {
        let moved = i64::from(child.kind() == Kind::Dir);
        let other = victim.map_or(0, |v| i64::from(v.kind() == Kind::Dir));
        let mut at_source = -moved;
        let mut at_target = moved - other;
        if exchange {
            at_source += other;
        }
        if std::ptr::eq(self, to) {
            at_target += at_source;
            at_source = 0;
        }
        self.inode.meta().nlink.fetch_add(at_source as u32, Ordering::Relaxed);
        to.inode.meta().nlink.fetch_add(at_target as u32, Ordering::Relaxed);
    }

    pub(super) fn moved(&self, parent: &Arc<Dentry>, name: &[u8]) {
        let mut place = self.place.lock();
        place.parent = Some(parent.clone());
        place.name = name.into();
        drop(place);
        self.set_parent_watched(parent.watches_children());
    }

    /// Whether this is `above` or lies below it.
    pub fn is_inside(self: &Arc<Self>, above: &Arc<Dentry>) -> bool {
        let mut at = self.clone();
        loop {
            if Arc::ptr_eq(&at, above) {
                return true;
            }
            let Some(parent) = at.parent() else { return false };
            at = parent;
        }
    }

    /// Names known to exist and names known to be missing, for a directory listing. None where the inode knows best.
    pub fn known(&self) -> Vec<Known> {
        if self.sb.through {
            return Vec::new();
        }
        self.children.lock().iter().map(|(name, child)| (name.clone(), child.clone())).collect()
    }

    /// A weak handle, for tables that must not keep it alive.
    pub fn downgrade(self: &Arc<Self>) -> Weak<Dentry> {
        Arc::downgrade(self)
    }
}

impl Drop for Dentry {
    fn drop(&mut self) {
        notify::gone(self);
        // Of a long chain of directories that only this one kept each would drop the next, one call deeper: here they go
        // one after the other.
        let mut next = self.place.get_mut().parent.take();
        while let Some(mut last) = next.and_then(Arc::into_inner) {
            next = last.place.get_mut().parent.take();
        }
    }
}
