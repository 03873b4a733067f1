//! What may no longer be done to a file (`F_SEAL_*` of fcntl(2), memfd_create(2)), and who could still write to it.

use super::Node;
use crate::abi::{Errno, Result};
use linux_raw_sys::general as c;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire};

/// Seals that keep the content as it is.
const WRITE: u32 = c::F_SEAL_WRITE | c::F_SEAL_FUTURE_WRITE;
/// F_SEAL_EXEC: who may execute it stays as it is.
const EXEC: u32 = 0x20;
/// Every seal there is.
const ALL: u32 = c::F_SEAL_SEAL | c::F_SEAL_SHRINK | c::F_SEAL_GROW | WRITE | EXEC;
/// One mapping: mappings are counted above the seals, so that both change at one moment.
const MAPPING: u64 = 1 << 32;

/// The seals of a file, and how many mappings can write to it.
pub(super) struct Seals(AtomicU64);

impl Seals {
    /// Those of a file that cannot be sealed.
    pub(super) fn closed() -> Self {
        Seals(AtomicU64::new(c::F_SEAL_SEAL.into()))
    }

    fn now(&self) -> u32 {
        self.0.load(Acquire) as u32
    }

    /// Adds some.
    ///
    /// # Errors
    /// EPERM if even that is sealed; EBUSY for F_SEAL_WRITE while a mapping could write.
    fn add(&self, seals: u32) -> Result<()> {
        let mut why = Errno::EPERM;
        let added = self.0.fetch_update(AcqRel, Acquire, |now| {
            let held = now as u32;
            if held & c::F_SEAL_SEAL != 0 {
                why = Errno::EPERM;
                return None;
            }
            if seals & !held & c::F_SEAL_WRITE != 0 && now >= MAPPING {
                why = Errno::EBUSY;
                return None;
            }
            Some(now | u64::from(seals))
        });
        added.map(drop).map_err(|_| why)
    }
}

/// A shared mapping that can write, or be made to.
pub(super) struct WritableMapping(Arc<Node>);

impl Drop for WritableMapping {
    fn drop(&mut self) {
        self.0.seals.0.fetch_sub(MAPPING, AcqRel);
    }
}

impl Node {
    /// What may no longer be done to it (F_GET_SEALS).
    pub fn seals(&self) -> u32 {
        self.seals.now()
    }

    /// Forbids more (F_ADD_SEALS).
    ///
    /// # Errors
    /// EINVAL for unknown ones, EPERM if even that is forbidden, EBUSY for F_SEAL_WRITE while a mapping could write.
    pub fn add_seals(&self, seals: u32) -> Result<()> {
        if seals & !ALL != 0 {
            return Err(Errno::EINVAL);
        }
        self.seals.add(seals)?;
        if seals & EXEC != 0 && self.meta.perm.load(Acquire) & 0o111 != 0 {
            // What can be executed is not written any more (mm/memfd.c).
            let implied = c::F_SEAL_SHRINK | c::F_SEAL_GROW | WRITE;
            self.seals.0.fetch_or(implied.into(), AcqRel);
        }
        Ok(())
    }

    /// Allows sealing, with these seals to begin with (memfd_create).
    pub fn allow_sealing(&self, seals: u32) {
        self.seals.0.store(seals.into(), std::sync::atomic::Ordering::Release);
    }

    /// Fails if a seal forbids other permission bits (F_SEAL_EXEC).
    pub(super) fn may_change_mode(&self, perm: u32) -> Result<()> {
        let changes = (perm ^ self.meta.perm.load(Acquire)) & 0o111 != 0;
        if changes && self.seals() & EXEC != 0 { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// Fails if a seal keeps the size from becoming `len`.
    pub(super) fn may_resize(&self, len: u64) -> Result<()> {
        let size = self.content().map_or(0, super::Content::size);
        let seal = match len.cmp(&size) {
            std::cmp::Ordering::Less => c::F_SEAL_SHRINK,
            std::cmp::Ordering::Equal => return Ok(()),
            std::cmp::Ordering::Greater => c::F_SEAL_GROW,
        };
        if self.seals() & seal != 0 { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// Fails if a seal forbids what takes content away.
    pub(super) fn may_punch(&self) -> Result<()> {
        if self.seals() & WRITE != 0 { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// How much of a write of `len` bytes at `offset` seals allow: all, or, of a file that may not grow, whole pages
    /// that are there.
    ///
    /// # Errors
    /// EPERM if that is nothing.
    pub(super) fn may_write(&self, offset: u64, len: usize) -> Result<usize> {
        let seals = self.seals();
        if len == 0 {
            return Ok(0);
        }
        if seals & WRITE != 0 {
            return Err(Errno::EPERM);
        }
        let size = self.content().map_or(0, super::Content::size);
        if seals & c::F_SEAL_GROW == 0 || offset.saturating_add(len as u64) <= size {
            return Ok(len);
        }
        match (size & !4095).checked_sub(offset) {
            Some(whole) if whole > 0 => Ok(usize::try_from(whole).unwrap_or(len).min(len)),
            _ => Err(Errno::EPERM),
        }
    }

    /// Counts a mapping that can write; none where seals forbid that.
    pub(super) fn map_for_writing(self: &Arc<Self>) -> Option<WritableMapping> {
        let free = |now: u64| (now as u32 & WRITE == 0).then_some(now + MAPPING);
        self.seals.0.fetch_update(AcqRel, Acquire, free).ok().map(|_| WritableMapping(self.clone()))
    }
}
