//! Where in a file the next read or write happens.

use super::{File, Whence};
use crate::abi::Result;
use crate::sync::LongGuard;
use std::sync::atomic::Ordering;

impl File {
    /// Moves the position.
    ///
    /// # Errors
    /// ESPIPE, EINVAL, ENXIO.
    pub fn seek(&self, offset: i64, whence: Whence) -> Result<u64> {
        let _turn = self.turn()?;
        let new = self.ops.seek(self.position(), offset, whence)?;
        self.put_position(new);
        Ok(new)
    }

    /// Puts the position where less was taken than [`readdir`](Self::readdir) gave.
    ///
    /// # Errors
    /// EINTR once the calling program is to end.
    pub fn set_position(&self, pos: u64) -> Result<()> {
        let _turn = self.turn()?;
        self.put_position(pos);
        Ok(())
    }

    /// Its turn at the position. What lies in files without a way to the host is not read in turns: of two who read such a
    /// file of /proc at once both may get the same.
    pub(super) fn turn(&self) -> Result<Option<LongGuard<'_>>> {
        let line = self.path.as_ref().and_then(|path| path.dentry.inode.host_line());
        line.map(|line| self.moving.lock(line)).transpose()
    }

    /// The position. Asks for no lock: what one file of /proc shows is another's position.
    pub fn position(&self) -> u64 {
        self.pos.load(Ordering::Relaxed)
    }

    pub(super) fn put_position(&self, pos: u64) {
        self.pos.store(pos, Ordering::Relaxed);
    }
}
