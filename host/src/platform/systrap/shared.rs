//! Memory shared with stubs, seen from the kernel.
//!
//! Other processes read and write it at any time, so it is never a Rust reference to anything but atomics: whole-word
//! relaxed accesses, copied once.

use crate::abi::Result;
use crate::hostsys::stub;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A memory file, mapped whole.
pub(super) struct Shared {
    file: OwnedFd,
    base: *mut u8,
    len: u64,
}

// SAFETY: the mapping lives as long as the value and is only accessed through atomics.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new(name: &core::ffi::CStr, len: u64) -> Result<Self> {
        let file = stub::memory_file(name, len, false)?;
        let base = stub::map_shared(file.as_fd(), len)?;
        Ok(Shared { file, base, len })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The aligned 32-bit word at `offset`.
    pub(super) fn word(&self, offset: u64) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset < self.len);
        // SAFETY: aligned and inside the mapping, which lives as long as `self`.
        unsafe { &*self.base.add(offset as usize).cast::<AtomicU32>() }
    }

    /// The aligned 64-bit word at `offset`.
    fn long(&self, offset: u64) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < self.len);
        // SAFETY: as in `word`.
        unsafe { &*self.base.add(offset as usize).cast::<AtomicU64>() }
    }

    pub(super) fn read(&self, offset: u64) -> u64 {
        self.long(offset).load(Ordering::Relaxed)
    }

    pub(super) fn write(&self, offset: u64, value: u64) {
        self.long(offset).store(value, Ordering::Relaxed);
    }

    /// Copies `[offset, offset + to.len())` out, once; both multiples of 8.
    pub(super) fn copy_out(&self, offset: u64, to: &mut [u8]) {
        let words = self.longs(offset, to.len());
        for (word, chunk) in words.iter().zip(to.chunks_exact_mut(8)) {
            chunk.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
    }

    /// Copies `from` to `offset`; both multiples of 8.
    pub(super) fn copy_in(&self, offset: u64, from: &[u8]) {
        let words = self.longs(offset, from.len());
        for (word, chunk) in words.iter().zip(from.chunks_exact(8)) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(chunk);
            word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
    }

    fn longs(&self, offset: u64, len: usize) -> &[AtomicU64] {
        assert!(offset.is_multiple_of(8) && len.is_multiple_of(8));
        assert!(offset.checked_add(len as u64).is_some_and(|end| end <= self.len));
        // SAFETY: aligned and inside the mapping, which lives as long as `self`; atomics may be written by others.
        unsafe { core::slice::from_raw_parts(self.base.add(offset as usize).cast::<AtomicU64>(), len / 8) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: nothing borrowed from it outlives `self`.
        unsafe { stub::unmap(self.base, self.len) };
    }
}
