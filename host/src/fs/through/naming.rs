//! Who changes names: one at a time in a directory, and one at a time where something moves between two.
//!
//! The host orders what is done to its names, and knows nothing of who may do what in here: between a look at what a name
//! stands for and the host's call for that name, nobody in here may put something else into its place. So each change
//! of a name takes the lock of its directory, which others wait for as long as the host takes. Several trees may hold the same
//! directory, so the locks are a device's, and not a tree's.

use crate::abi::Result;
use crate::sync::{HostLine, Lock, LongLock, Rank};
use crate::vfs::Alone;
use core::array;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Locks of directories. Two may share one.
const LOCKS: usize = 64;

/// Those of one device of the host.
pub(super) struct Naming {
    /// Taken before two directories', and by whoever changes which directory another is in.
    moving: LongLock,
    dirs: [LongLock; LOCKS],
}

/// Those of all devices.
pub(super) struct Namings(Lock<BTreeMap<u64, Arc<Naming>>>);

impl Namings {
    pub(super) fn new() -> Self {
        Namings(Lock::new(Rank::ThroughNaming, BTreeMap::new()))
    }

    /// Those of device `dev`. There are as many as the host has mounted below the trees.
    pub(super) fn of(&self, dev: u64) -> Arc<Naming> {
        let made = || {
            Arc::new(Naming { moving: LongLock::default(), dirs: array::from_fn(|_| LongLock::default()) })
        };
        self.0.lock().entry(dev).or_insert_with(made).clone()
    }
}

impl Naming {
    fn dir(&self, ino: u64) -> &LongLock {
        &self.dirs[ino as usize % LOCKS]
    }

    /// Waits for the directory with this inode number.
    ///
    /// # Errors
    /// EINTR once the calling program is to end.
    pub(super) fn one(&self, ino: u64, line: &HostLine) -> Result<Alone<'_>> {
        Ok(Alone([Some(self.dir(ino).lock(line)?), None, None]))
    }

    /// Waits for two directories of this device, and for nobody else to hold two.
    ///
    /// # Errors
    /// As [`one`](Self::one).
    pub(super) fn two(&self, [one, other]: [u64; 2], line: &HostLine) -> Result<Alone<'_>> {
        let moving = self.moving.lock(line)?;
        let (first, second) = (self.dir(one), self.dir(other));
        let shared = core::ptr::eq(first, second);
        let first = first.lock(line)?;
        let second = if shared { None } else { Some(second.lock(line)?) };
        Ok(Alone([Some(moving), Some(first), second]))
    }

    /// Waits for nobody to move anything between directories.
    ///
    /// # Errors
    /// As [`one`](Self::one).
    pub(super) fn still(&self, line: &HostLine) -> Result<Alone<'_>> {
        Ok(Alone([Some(self.moving.lock(line)?), None, None]))
    }
}
