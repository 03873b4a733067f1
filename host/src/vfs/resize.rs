//! What changes the size of a file, or how much of it takes space.

use super::{File, Kind, Lookup, Path, Want, Writing, notify, perms, privileges};
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use linux_raw_sys::general as c;

impl Lookup<'_> {
    /// truncate(2).
    ///
    /// # Errors
    /// As truncate(2).
    pub fn truncate(&self, path: &Path, len: u64) -> Result<()> {
        let meta = path.dentry.inode.meta();
        match meta.kind {
            Kind::Dir => return Err(Errno::EISDIR),
            Kind::File => {}
            _ => return Err(Errno::EINVAL),
        }
        perms::may(self.cred, meta, Want::WRITE)?;
        if meta.is_append_only() {
            return Err(Errno::EPERM);
        }
        path.mount.writable()?;
        let _writing = Writing::claim(&path.dentry.inode)?;
        privileges::content_changes(self.cred, path);
        path.dentry.inode.truncate(len)?;
        notify::dentry(&path.dentry, c::IN_MODIFY);
        Ok(())
    }
}

impl File {
    /// ftruncate(2).
    ///
    /// # Errors
    /// EINVAL if not open for writing, or what the file returned.
    pub fn truncate(&self, cred: &Cred, len: u64) -> Result<()> {
        if !self.writable() {
            return Err(Errno::EINVAL);
        }
        if self.inode().is_some_and(|inode| inode.meta().is_append_only()) {
            return Err(Errno::EPERM);
        }
        self.lose_privileges(cred);
        self.ops().truncate(len)?;
        if let Some(path) = self.named() {
            notify::dentry(&path.dentry, c::IN_MODIFY);
        }
        Ok(())
    }

    /// fallocate(2).
    ///
    /// # Errors
    /// EBADF if not open for writing, or what the file returned.
    pub fn allocate(&self, cred: &Cred, mode: u32, offset: u64, len: u64) -> Result<()> {
        if !self.writable() {
            return Err(Errno::EBADF);
        }
        if let Some(meta) = self.inode().map(|inode| inode.meta())
            && (meta.is_immutable() || meta.is_append_only() && mode & !c::FALLOC_FL_KEEP_SIZE != 0)
        {
            return Err(Errno::EPERM);
        }
        self.lose_privileges(cred);
        self.ops().allocate(mode, offset, len)?;
        self.tell(c::IN_MODIFY);
        Ok(())
    }
}
