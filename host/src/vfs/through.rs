//! Names that somebody else keeps: directories of the host that are written through, where others make and remove names, too.
//!
//! Of such a file system ([`Superblock::through`]) the tree of dentries only remembers. It is asked for a name whenever that is
//! looked up, and what is made, removed or renamed happens there before the tree is changed. No lock but those of names
//! ([`Alone`]) is held while it is asked: what happens at the same time is in the order in which the host does it.
//!
//! A name has one dentry while anybody uses it, and a directory has one whatever its name: the inode knows them
//! ([`Through::aliases`]), so that the tree may forget names as it pleases.

use super::{Dentry, Found, Inode, Kind, Path, Superblock};
use crate::abi::{Errno, Result};
use crate::sync::{Lock, LongGuard};
use linux_raw_sys::general as c;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

/// Names of a file system that are remembered without being used.
const REMEMBERED: usize = 2048;

/// As long as it is held, nobody else in here changes names where it was had for.
#[must_use]
pub struct Alone<'a>(pub [Option<LongGuard<'a>>; 3]);

/// What an inode of such a file system does beside.
pub trait Through: Send + Sync {
    /// Waits to be alone in changing names in this directory.
    ///
    /// # Errors
    /// EINTR once the calling program is to end.
    fn alone(&self) -> Result<Alone<'_>>;

    /// The same for this directory and `to`, which may be the same.
    ///
    /// # Errors
    /// EXDEV; EINTR as above.
    fn alone_with<'a>(&'a self, to: &'a dyn Inode) -> Result<Alone<'a>>;

    /// Waits for nobody to move anything from one directory to another.
    ///
    /// # Errors
    /// EINTR as above.
    fn unmoved(&self) -> Result<Alone<'_>>;

    /// Its dentries.
    fn aliases(&self) -> &Lock<Vec<Weak<Dentry>>>;

    /// Whether `name` in this directory still stands for `inode`, whose attributes are those of now then.
    ///
    /// # Errors
    /// The host's.
    fn is_still(&self, name: &[u8], inode: &dyn Inode) -> Result<bool>;

    /// Removes `name` from this directory, which is to be a directory itself, or none.
    ///
    /// # Errors
    /// As unlink(2), rmdir(2).
    fn remove(&self, name: &[u8], dir: bool) -> Result<()>;

    /// Gives `old` the name `name` in this directory, too.
    ///
    /// # Errors
    /// As link(2).
    fn link(&self, name: &[u8], old: &Path) -> Result<()>;

    /// Moves `name` of this directory to `new_name` in `to`, with flags of renameat2(2).
    ///
    /// # Errors
    /// As rename(2).
    fn rename(&self, name: &[u8], to: &dyn Inode, new_name: &[u8], flags: u32) -> Result<()>;
}

/// A rename, its names resolved.
pub(super) struct Move<'a> {
    from: &'a Arc<Dentry>,
    name: &'a [u8],
    child: &'a Arc<Dentry>,
    to: &'a Arc<Dentry>,
    new_name: &'a [u8],
    victim: Option<&'a Arc<Dentry>>,
    flags: u32,
}

impl Superblock {
    /// Remembers that the tree has `name` below `dir`; the oldest of too many is forgotten.
    fn remember(&self, dir: &Arc<Dentry>, name: Arc<[u8]>) {
        let oldest = {
            let mut names = self.missing.lock();
            names.push_back((Arc::downgrade(dir), name));
            if names.len() > REMEMBERED { names.pop_front() } else { None }
        };
        let Some((dir, name)) = oldest else { return };
        let Some(dir) = dir.upgrade() else { return };
        let gone = {
            let mut children = dir.children.lock();
            // What is mounted somewhere stays there, whatever the host puts into its place.
            let mounted = matches!(children.get(&name), Some(Some(there)) if there.is_mountpoint());
            if mounted { None } else { children.remove(&name) }
        };
        drop(gone);
    }
}

impl Dentry {
    fn host(&self) -> Result<&dyn Through> {
        self.inode.through().ok_or(Errno::ENOTDIR)
    }

    /// See [`Dentry::child`].
    pub(super) fn child_through(self: &Arc<Self>, name: &[u8]) -> Result<Option<Arc<Dentry>>> {
        let known = self.children.lock().get(name).cloned().flatten();
        if let Some(known) = known {
            // What is mounted there hides what the host may have put into its place.
            if known.is_mountpoint() || self.host()?.is_still(name, &*known.inode)? {
                return Ok(Some(known));
            }
            self.forget_through(name, &known);
        }
        Ok(self.inode.lookup(name)?.map(|inode| self.entered(name, inode)))
    }

    /// See [`Dentry::add`].
    pub(super) fn add_through(
        self: &Arc<Self>,
        name: &[u8],
        make: impl FnOnce() -> Result<Arc<dyn Inode>>,
    ) -> Result<Arc<Dentry>> {
        Ok(self.entered(name, make()?))
    }

    /// The dentry for what `name` stands for here, which is entered into the tree.
    fn entered(self: &Arc<Self>, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
        let found = self.alias(name, &inode);
        let made = found.is_none();
        let wanted = found.unwrap_or_else(|| Dentry::below(self, name, inode));
        let key: Arc<[u8]> = name.into();
        let (mut fresh, mut old) = (false, None);
        let entered = {
            let mut children = self.children.lock();
            match children.get(name) {
                Some(Some(there)) if Arc::ptr_eq(&there.inode, &wanted.inode) => there.clone(),
                _ => {
                    fresh = true;
                    old = children.insert(key.clone(), Some(wanted.clone()));
                    wanted.clone()
                }
            }
        };
        drop(old);
        if made && Arc::ptr_eq(&entered, &wanted) {
            wanted.list_alias();
        }
        if fresh {
            self.sb.remember(self, key);
        }
        entered
    }

    /// The dentry that `inode` has already: by this name, or a directory's by whatever name it had.
    fn alias(self: &Arc<Self>, name: &[u8], inode: &Arc<dyn Inode>) -> Option<Arc<Dentry>> {
        // Let go of without the lock.
        let known: Vec<Arc<Dentry>> =
            inode.through()?.aliases().lock().iter().filter_map(Weak::upgrade).collect();
        let here = |known: &&Arc<Dentry>| {
            let (parent, at) = known.place();
            &*at == name && parent.is_some_and(|parent| Arc::ptr_eq(&parent, self))
        };
        if let Some(same) = known.iter().find(here) {
            same.set_living();
            return Some(same.clone());
        }
        let moved = known.iter().find(|known| known.kind() == Kind::Dir && !self.is_inside(known))?;
        let through = inode.through()?;
        let _unmoved = through.unmoved().ok()?;
        // It may be inside by now.
        if self.is_inside(moved) {
            return None;
        }
        let (parent, before) = moved.place();
        let still = parent.map(|parent| parent.host().and_then(|host| host.is_still(&before, &**inode)));
        // The host may have it in two places: mounted.
        if matches!(still, Some(Ok(true))) {
            return None;
        }
        moved.moved(self, name);
        moved.set_living();
        Some(moved.clone())
    }

    fn list_alias(self: &Arc<Self>) {
        let Some(through) = self.inode.through() else { return };
        let mut aliases = through.aliases().lock();
        aliases.retain(|alias| alias.strong_count() != 0);
        aliases.push(Arc::downgrade(self));
    }

    /// Takes `child` out of the tree, where it has this name.
    fn forget_through(&self, name: &[u8], child: &Arc<Dentry>) {
        let gone = {
            let mut children = self.children.lock();
            let is_its = matches!(children.get(name), Some(Some(there)) if Arc::ptr_eq(there, child));
            if is_its { children.remove(name) } else { None }
        };
        drop(gone);
    }

    /// See [`Dentry::remove`].
    pub(super) fn remove_through(&self, name: &[u8], child: &Arc<Dentry>) -> Result<()> {
        let host = self.host()?;
        {
            let _alone = host.alone()?;
            // What was looked at is what is removed, or the caller looks again.
            if !host.is_still(name, &*child.inode)? {
                return Err(Errno::ESTALE);
            }
            host.remove(name, child.kind() == Kind::Dir)?;
        }
        self.forget_through(name, child);
        child.gone();
        Ok(())
    }

    /// Gives `old` one more name.
    pub(super) fn link_through(self: &Arc<Self>, name: &[u8], old: &Path) -> Result<()> {
        let meta = old.dentry.inode.meta();
        // What has lost its last name is on its way out, unless it never had one.
        if meta.nlink.load(Relaxed) == 0 && !meta.linkable.load(Relaxed) {
            return Err(Errno::ENOENT);
        }
        {
            let host = self.host()?;
            let _alone = host.alone()?;
            host.link(name, old)?;
        }
        meta.linkable.store(false, Relaxed);
        self.entered(name, old.dentry.inode.clone());
        old.dentry.inode.refresh();
        Ok(())
    }
}

impl<'a> Move<'a> {
    /// Of what was found at `old` to `new`.
    pub(super) fn of(old: &'a Found, new: &'a Found, flags: u32) -> Result<Move<'a>> {
        let child = &old.path.as_ref().ok_or(Errno::ENOENT)?.dentry;
        let victim = new.path.as_ref().map(|path| &path.dentry);
        let (from, to) = (&old.dir.dentry, &new.dir.dentry);
        Ok(Move { from, name: &old.name, child, to, new_name: &new.name, victim, flags })
    }

    /// Makes it: in the tree, or on the host.
    pub(super) fn make(&self) -> Result<()> {
        let exchange = self.flags & c::RENAME_EXCHANGE != 0;
        match self.from.sb.through {
            true => self.through(),
            false => self.from.rename(self.name, self.child, self.to, self.new_name, self.victim, exchange),
        }
    }

    fn through(&self) -> Result<()> {
        let (host, to) = (self.from.host()?, self.to.host()?);
        let _alone = host.alone_with(&*self.to.inode)?;
        // What was looked at is what is moved and replaced, or the caller looks again.
        let there = |victim: &Arc<Dentry>| to.is_still(self.new_name, &*victim.inode);
        if !host.is_still(self.name, &*self.child.inode)? || !self.victim.map_or(Ok(true), there)? {
            return Err(Errno::ESTALE);
        }
        self.on_host(host)?;
        let moves = !Arc::ptr_eq(self.from, self.to);
        self.from.forget_through(self.name, self.child);
        if let Some(victim) = self.victim {
            self.to.forget_through(self.new_name, victim);
            if self.flags & c::RENAME_EXCHANGE != 0 {
                victim.settle(self.from, self.name, moves);
            } else {
                victim.gone();
            }
        }
        self.child.settle(self.to, self.new_name, moves);
        Ok(())
    }
}

impl Move<'_> {
    fn on_host(&self, host: &dyn Through) -> Result<()> {
        let rename = |flags| host.rename(self.name, &*self.to.inode, self.new_name, flags);
        if self.victim.is_some() || self.flags & c::RENAME_NOREPLACE != 0 {
            return rename(self.flags);
        }
        // Nothing was there, so nothing is replaced.
        match rename(self.flags | c::RENAME_NOREPLACE) {
            Err(Errno::EEXIST) => Err(Errno::ESTALE),
            // The host's file system cannot say so. Nobody in here can be faster than this look.
            Err(Errno::EINVAL) => match self.to.inode.lookup(self.new_name)? {
                Some(_) => Err(Errno::ESTALE),
                None => rename(self.flags),
            },
            done => done,
        }
    }
}

impl Dentry {
    /// It has another place now, and is entered there. Whoever `moves` something between directories is alone in that.
    fn settle(self: &Arc<Self>, dir: &Arc<Dentry>, name: &[u8], moves: bool) {
        let stays = self.parent().is_some_and(|parent| Arc::ptr_eq(&parent, dir));
        // Others have moved what is above: it is found anew by whoever looks for it.
        if !stays && (!moves || dir.is_inside(self)) {
            return;
        }
        self.moved(dir, name);
        let key: Arc<[u8]> = name.into();
        let old = dir.children.lock().insert(key.clone(), Some(self.clone()));
        drop(old);
        dir.sb.remember(dir, key);
    }
}
