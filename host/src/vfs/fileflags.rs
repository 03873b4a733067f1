//! What can be said of a file beside its permissions (ioctl_iflags(2), chattr(1)): that it stays as it is, whoever comes, or
//! only grows.

use super::{Inode, Lookup, Meta, Path, notify, perms};
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use linux_raw_sys::general as c;
use std::sync::atomic::Ordering::Relaxed;

/// `FS_*_FL` (linux/fs.h).
const IMMUTABLE: u32 = 0x10;
const APPEND: u32 = 0x20;
const NODUMP: u32 = 0x40;
const NOATIME: u32 = 0x80;
/// Those that can be set, as on tmpfs.
const SETTABLE: u32 = IMMUTABLE | APPEND | NODUMP | NOATIME;
/// Those that what is made in a directory has as well.
const INHERITED: u32 = NODUMP | NOATIME;

/// The same as `fsx_xflags` says them, and as statx(2) does.
const AS_XFLAGS: [(u32, u32); 4] = [(IMMUTABLE, 0x8), (APPEND, 0x10), (NOATIME, 0x40), (NODUMP, 0x80)];
const AS_STATX: [(u32, u64); 3] = [(IMMUTABLE, 0x10), (APPEND, 0x20), (NODUMP, 0x40)];

impl Meta {
    /// Whether nobody may change it.
    #[inline]
    pub fn is_immutable(&self) -> bool {
        self.flags.load(Relaxed) & IMMUTABLE != 0
    }

    /// Whether it may only grow.
    #[inline]
    pub fn is_append_only(&self) -> bool {
        self.flags.load(Relaxed) & APPEND != 0
    }

    /// Whether its attributes and names stay as they are.
    #[inline]
    pub fn is_fixed(&self) -> bool {
        self.flags.load(Relaxed) & (IMMUTABLE | APPEND) != 0
    }

    /// What it has of the directory that it is made in.
    pub(super) fn inherit_flags(&self, dir: &Meta) {
        let flags = dir.flags.load(Relaxed) & INHERITED;
        if flags != 0 {
            self.flags.store(flags, Relaxed);
        }
    }

    /// `FS_IOC_FSGETXATTR`'s `fsx_xflags`.
    pub fn xflags(&self) -> u32 {
        let flags = self.flags.load(Relaxed);
        AS_XFLAGS.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, shown)| shown).sum()
    }
}

/// The flags that these `fsx_xflags` are.
///
/// # Errors
/// EOPNOTSUPP for others.
pub fn of_xflags(xflags: u32) -> Result<u32> {
    let known: u32 = AS_XFLAGS.iter().map(|(_, shown)| shown).sum();
    if xflags & !known != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(AS_XFLAGS.iter().filter(|(_, shown)| xflags & shown != 0).map(|(flag, _)| flag).sum())
}

/// `STATX_ATTR_*`: those that hold, and those that could.
pub fn statx_attributes(inode: &dyn Inode) -> (u64, u64) {
    if !inode.has_flags() {
        return (0, 0);
    }
    let flags = inode.meta().flags.load(Relaxed);
    let hold = AS_STATX.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, shown)| shown).sum();
    (hold, AS_STATX.iter().map(|(_, shown)| shown).sum())
}

impl Lookup<'_> {
    /// Sets the flags of a file that has some.
    ///
    /// # Errors
    /// EROFS; EPERM for another's file, and without CAP_LINUX_IMMUTABLE; EOPNOTSUPP for those that it cannot have.
    pub fn set_flags(&self, path: &Path, flags: u32) -> Result<()> {
        path.mount.writable()?;
        let meta = path.dentry.inode.meta();
        perms::owner(self.cred, meta)?;
        let changed = meta.flags.load(Relaxed) ^ flags;
        if changed & (IMMUTABLE | APPEND) != 0 && !self.cred.has(Caps::LINUX_IMMUTABLE) {
            return Err(Errno::EPERM);
        }
        if flags & !SETTABLE != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        meta.flags.store(flags, Relaxed);
        meta.changed();
        notify::dentry(&path.dentry, c::IN_ATTRIB);
        Ok(())
    }
}
