//! What changes the size of an open file, or how much of it takes space.

use super::{File, notify};
use crate::abi::{Errno, Result};
use linux_raw_sys::general as c;

impl File {
    /// ftruncate(2).
    ///
    /// # Errors
    /// EINVAL if not open for writing, or what the file returned.
    pub fn truncate(&self, len: u64) -> Result<()> {
        if !self.writable() {
            return Err(Errno::EINVAL);
        }
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
    pub fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        if !self.writable() {
            return Err(Errno::EBADF);
        }
        self.ops().allocate(mode, offset, len)?;
        self.tell(c::IN_MODIFY);
        Ok(())
    }
}
