//! What changes the size of an open file, or how much of it takes space.

use super::{File, notify};
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use linux_raw_sys::general as c;

impl File {
    /// ftruncate(2).
    ///
    /// # Errors
    /// EINVAL if not open for writing, or what the file returned.
    pub fn truncate(&self, cred: &Cred, len: u64) -> Result<()> {
        if !self.writable() {
            return Err(Errno::EINVAL);
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
        self.lose_privileges(cred);
        self.ops().allocate(mode, offset, len)?;
        self.tell(c::IN_MODIFY);
        Ok(())
    }
}
