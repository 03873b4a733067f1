//! Where in a file the next read or write happens.

use super::{File, Whence};
use crate::abi::Result;
use std::sync::atomic::Ordering;

impl File {
    /// Moves the position.
    ///
    /// # Errors
    /// ESPIPE, EINVAL, ENXIO.
    pub fn seek(&self, offset: i64, whence: Whence) -> Result<u64> {
        let _moving = self.moving.lock();
        let new = self.ops.seek(self.position(), offset, whence)?;
        self.put_position(new);
        Ok(new)
    }

    /// Puts the position where less was taken than [`readdir`](Self::readdir) gave.
    pub fn set_position(&self, pos: u64) {
        let _moving = self.moving.lock();
        self.put_position(pos);
    }

    /// The position. Asks for no lock: what one file of /proc shows is another's position.
    pub fn position(&self) -> u64 {
        self.pos.load(Ordering::Relaxed)
    }

    pub(super) fn put_position(&self, pos: u64) {
        self.pos.store(pos, Ordering::Relaxed);
    }
}
