//! Where in a file the next read or write happens.

use super::{File, Whence};
use crate::abi::Result;

impl File {
    /// Moves the position.
    ///
    /// # Errors
    /// ESPIPE, EINVAL, ENXIO.
    pub fn seek(&self, offset: i64, whence: Whence) -> Result<u64> {
        let mut pos = self.pos.lock();
        let new = self.ops.seek(*pos, offset, whence)?;
        *pos = new;
        Ok(new)
    }

    /// Puts the position where less was taken than [`readdir`](Self::readdir) gave.
    pub fn set_position(&self, pos: u64) {
        *self.pos.lock() = pos;
    }

    /// The position (for /proc/PID/fdinfo).
    pub fn position(&self) -> u64 {
        *self.pos.lock()
    }
}
