//! What programs change of files by name: permissions, owners, times.

use super::acl::{self, Acl, Which};
use super::{Kind, Lookup, Meta, Path, Timestamp, Want, notify, perms, privileges};
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use linux_raw_sys::general as c;
use std::sync::atomic::Ordering::Relaxed;

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// Leave it.
    Omit,
    /// The present.
    Now,
    /// This one.
    To(Timestamp),
}

impl SetTime {
    /// The time it says, if it is `now`.
    pub(super) fn at(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            SetTime::Omit => None,
            SetTime::Now => Some(now),
            SetTime::To(time) => Some(time),
        }
    }
}

impl Lookup<'_> {
    /// chmod(2).
    ///
    /// # Errors
    /// EPERM, EROFS.
    pub fn set_mode(&self, path: &Path, mode: u32) -> Result<()> {
        let meta = self.attributes(path)?;
        perms::owner(self.cred, meta)?;
        let mut mode = mode & 0o7777;
        if !privileges::may_set_group(self.cred, perms::owners(meta)) {
            mode &= !c::S_ISGID;
        }
        path.dentry.inode.can_set_mode(mode)?;
        path.dentry.inode.set_mode(mode)?;
        meta.acls.follow(mode);
        meta.changed();
        notify::dentry(&path.dentry, c::IN_ATTRIB);
        Ok(())
    }

    /// chown(2); `u32::MAX` leaves an id.
    ///
    /// # Errors
    /// EPERM, EROFS.
    pub fn set_owner(&self, path: &Path, uid: u32, gid: u32) -> Result<()> {
        let meta = self.attributes(path)?;
        let (old_uid, old_gid) = (meta.uid.load(Relaxed), meta.gid.load(Relaxed));
        // Whose it becomes has been given a name where the caller is; whose it was must have one, too.
        if !self.cred.has_over((old_uid, old_gid), Caps::CHOWN) {
            let mine = old_uid == self.cred.uid.fs;
            let uid_fits = uid == u32::MAX || (mine && uid == old_uid);
            let gid_fits = gid == u32::MAX || (mine && (gid == old_gid || self.cred.in_group(gid)));
            if !uid_fits || !gid_fits {
                return Err(Errno::EPERM);
            }
        }
        // Before there is another owner for whom they would count.
        let dropped = privileges::owner_changes(self.cred, &*path.dentry.inode);
        path.dentry.inode.set_owner(uid, gid)?;
        meta.changed();
        if dropped || uid != u32::MAX || gid != u32::MAX {
            notify::dentry(&path.dentry, c::IN_ATTRIB);
        }
        Ok(())
    }

    /// utimensat(2).
    ///
    /// # Errors
    /// EPERM, EACCES, EROFS.
    pub fn set_times(&self, path: &Path, access: SetTime, modify: SetTime) -> Result<()> {
        if access == SetTime::Omit && modify == SetTime::Omit {
            return Ok(());
        }
        // What may grow may be said to have done so just now.
        let touched = (access, modify) == (SetTime::Now, SetTime::Now);
        let meta = match touched && !path.dentry.inode.meta().is_immutable() {
            true => self.changeable(path)?,
            false => self.attributes(path)?,
        };
        if perms::owner(self.cred, meta).is_err() {
            if access != SetTime::Now || modify != SetTime::Now {
                return Err(Errno::EPERM);
            }
            perms::may(self.cred, meta, Want::WRITE)?;
        }
        path.dentry.inode.set_times(access, modify)?;
        // One of the two is what reading or writing does.
        let event = match (access, modify) {
            (SetTime::Omit, _) => c::IN_MODIFY,
            (_, SetTime::Omit) => c::IN_ACCESS,
            _ => c::IN_ATTRIB,
        };
        notify::dentry(&path.dentry, event);
        Ok(())
    }

    /// Gives a file an access control list, or takes it away (acl(5)).
    ///
    /// # Errors
    /// EPERM, EROFS, EOPNOTSUPP, EINVAL, ENOSPC; EACCES for a list of what new files get on what is no directory.
    pub fn set_acl(&self, path: &Path, which: Which, list: Option<Acl>) -> Result<()> {
        let inode = &*path.dentry.inode;
        path.mount.writable()?;
        let meta = inode.meta();
        if meta.is_fixed() {
            return Err(Errno::EPERM);
        }
        acl::can_have(inode)?;
        if which == Which::Default && meta.kind != Kind::Dir {
            return if list.is_some() { Err(Errno::EACCES) } else { Ok(()) };
        }
        perms::owner(self.cred, meta)?;
        let given = list.is_some();
        let mut perm = acl::set(inode, which, list)?;
        if which == Which::Access && given {
            if !privileges::may_set_group(self.cred, perms::owners(meta)) {
                perm &= !c::S_ISGID;
            }
            inode.set_mode(perm)?;
        }
        meta.changed();
        notify::dentry(&path.dentry, c::IN_ATTRIB);
        Ok(())
    }

    /// The attributes of something that may be changed.
    fn attributes<'p>(&self, path: &'p Path) -> Result<&'p Meta> {
        path.mount.writable()?;
        if path.dentry.inode.meta().is_fixed() {
            return Err(Errno::EPERM);
        }
        self.changeable(path)
    }

    /// The same of something that is known not to have to stay as it is.
    fn changeable<'p>(&self, path: &'p Path) -> Result<&'p Meta> {
        path.mount.writable()?;
        path.dentry.inode.can_setattr()?;
        // By an open file it may have been reached without asking.
        path.dentry.inode.refresh();
        Ok(path.dentry.inode.meta())
    }
}
