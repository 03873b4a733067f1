//! Memory shared with stubs, seen from the kernel.
//!
//! Other processes read and write it at any time, so it is never a Rust reference to anything but atomics: whole-word
//! relaxed accesses, copied once.

use crate::abi::Result;
use crate::hostfd::HostFd;
use crate::hostsys::stub;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use ring0::layout::{FRAMES_BASE, FRAMES_END};

/// A memory file, mapped whole.
pub(super) struct Shared {
    file: HostFd,
    base: *mut u8,
    len: u64,
}

// SAFETY: the mapping lives as long as the value and is only accessed through atomics.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new(name: &'static core::ffi::CStr, len: u64) -> Result<Self> {
        let file = stub::memory_file(name, len, false)?;
        let base = stub::map_shared(&file, len)?;
        Ok(Shared { file, base, len })
    }

    pub(super) fn fd(&self) -> &HostFd {
        &self.file
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

    /// Copies `[offset, offset + to.len())` out, once.
    pub(super) fn copy_out(&self, offset: u64, to: &mut [u8]) {
        let from = self.range(offset, to.len());
        // SAFETY: the range is inside the mapping, `to` is ours.
        unsafe { copy(to.as_mut_ptr(), from, to.len()) };
    }

    /// Copies `from` to `offset`.
    pub(super) fn copy_in(&self, offset: u64, from: &[u8]) {
        let to = self.range(offset, from.len());
        // SAFETY: the range is inside the mapping, `from` is ours.
        unsafe { copy(to, from.as_ptr(), from.len()) };
    }

    fn range(&self, offset: u64, len: usize) -> *mut u8 {
        assert!(offset.checked_add(len as u64).is_some_and(|end| end <= self.len));
        // SAFETY: inside the mapping.
        unsafe { self.base.add(offset as usize) }
    }
}

/// Copies a page frame's bytes out.
pub(super) fn frame_bytes(frame: u64, to: &mut [u8]) {
    assert!(frame >= FRAMES_BASE && frame + to.len() as u64 <= FRAMES_END);
    // SAFETY: all of the page-frame region is mapped readable, `to` is ours.
    unsafe { copy(to.as_mut_ptr(), frame as *const u8, to.len()) };
}

/// Copies bytes of which either side may change meanwhile: in assembly, so that the compiler can assume nothing about
/// them.
///
/// # Safety
/// Both ranges are mapped and do not overlap.
unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's; the direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the caller's.
    unsafe {
        core::arch::asm!(
            "2:",
            "cmp {len}, #16",
            "b.lo 3f",
            "ldp {a}, {b}, [{from}], #16",
            "stp {a}, {b}, [{to}], #16",
            "sub {len}, {len}, #16",
            "b 2b",
            "3:",
            "cbz {len}, 4f",
            "ldrb {a:w}, [{from}], #1",
            "strb {a:w}, [{to}], #1",
            "sub {len}, {len}, #1",
            "b 3b",
            "4:",
            len = inout(reg) len => _, from = inout(reg) from => _, to = inout(reg) to => _,
            a = out(reg) _, b = out(reg) _, options(nostack));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: nothing borrowed from it outlives `self`.
        unsafe { stub::unmap(self.base, self.len) };
    }
}
