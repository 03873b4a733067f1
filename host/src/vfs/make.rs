//! Making what was not there: what a new file has of its maker, of the directory that it is in, and of the umask.

use super::ops::may_edit;
use super::{Found, Inode, Kind, Lookup, NewNode, Path, Resolve, acl, notify, privileges};
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use linux_raw_sys::general as c;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

impl Lookup<'_> {
    pub(super) fn plain(&self) -> NewNode<'static> {
        let (uid, gid) = (self.cred.uid.fs, self.cred.gid.fs);
        NewNode { kind: Kind::File, perm: 0, uid, gid, rdev: 0, target: b"" }
    }

    /// Makes a new node to be in a directory: what it has from that, and what the umask leaves of its permission bits.
    ///
    /// # Errors
    /// What the file system returned; EOVERFLOW where it cannot hold the owner's ids; ENOSPC.
    pub(super) fn create_in(&self, dir: &Path, name: &[u8], new: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        let (inode, mut new) = (&*dir.dentry.inode, new.clone());
        let parent = inode.meta();
        let group = parent.gid.load(Relaxed);
        new.perm &= 0o7777;
        if parent.perm.load(Relaxed) & c::S_ISGID != 0 {
            // inode(7): new files of a set-group-ID directory belong to its group.
            new.gid = group;
            if new.kind == Kind::Dir {
                new.perm |= c::S_ISGID;
            } else if new.perm & c::S_IXGRP != 0 && !privileges::may_set_group(self.cred, (new.uid, group)) {
                // Programs that act for the group are its members' to make.
                new.perm &= !c::S_ISGID;
            }
        }
        dir.dentry.sb.can_hold(new.uid, new.gid)?;
        let given = acl::given(inode, new.kind, new.perm);
        match &given {
            Some((perm, _)) => new.perm = *perm,
            None if new.kind == Kind::Symlink => {}
            None => new.perm &= !self.fs.umask(),
        }
        let made = inode.create(name, &new)?;
        if let Some((_, given)) = given {
            given.to(&*made)?;
        }
        if made.has_flags() {
            made.meta().inherit_flags(parent);
        }
        Ok(made)
    }

    /// Makes what `found` says is missing.
    pub(super) fn make(&self, found: &Found, new: &NewNode<'_>) -> Result<Path> {
        let dir = &found.dir;
        may_edit(self.cred, dir)?;
        let made = dir.dentry.add(&found.name, || self.create_in(dir, &found.name, new))?;
        notify::name(&dir.dentry, c::IN_CREATE, &found.name, new.kind, 0);
        Ok(dir.with(made))
    }

    /// mkdir, mknod, symlink and bind: makes `name`, which must not exist.
    ///
    /// # Errors
    /// As mkdir(2), mknod(2), symlink(2).
    pub fn create(
        &self,
        base: Option<&Path>,
        name: &[u8],
        kind: Kind,
        perm: u32,
        rest: Extra<'_>,
    ) -> Result<Path> {
        let found = self.resolve_parent(base, name, Resolve::empty())?;
        if found.path.is_some() {
            return Err(Errno::EEXIST);
        }
        if found.slash && kind != Kind::Dir {
            return Err(Errno::ENOENT);
        }
        if matches!(kind, Kind::Char | Kind::Block) && !self.cred.has(Caps::MKNOD) {
            // Whiteouts (character device 0:0) included: overlayfs has no business in here.
            return Err(Errno::EPERM);
        }
        let (target, rdev) = match rest {
            Extra::None => (&b""[..], 0),
            Extra::Target(target) => (target, 0),
            Extra::Device(rdev) => (&b""[..], rdev),
        };
        self.make(&found, &NewNode { kind, perm, target, rdev, ..self.plain() })
    }
}

/// What a new node needs besides type and permissions.
pub enum Extra<'a> {
    /// Nothing.
    None,
    /// A symbolic link's target.
    Target(&'a [u8]),
    /// A device number.
    Device(u64),
}
