//! Who backs the page-frame region.

use crate::abi::Result;
use crate::hostfd::HostFd;
use crate::hostsys::mem;
use ring0::layout::{FRAMES_BASE, FRAMES_END};

/// Bytes in the page-frame region.
pub const FRAMES_LEN: u64 = FRAMES_END - FRAMES_BASE;

/// Replaces the anonymous memory behind the page-frame region by a shared mapping of `memfd` (at least
/// [`FRAMES_LEN`] long, sparse), so that other processes can map frames: offset = frame address - `FRAMES_BASE`.
/// Call before the first frame is handed out.
///
/// # Errors
/// What mmap(2) returned.
pub fn back_frames_by(memfd: &HostFd) -> Result<()> {
    super::ensure();
    // SAFETY: the region holds no frames yet (the caller's promise, kept by the sandbox's start-up order), so nothing
    // is lost by mapping over it.
    unsafe { mem::map_file_fixed(FRAMES_BASE, FRAMES_LEN, memfd, 0, true, true) }
}

/// Asks for huge pages behind the page-frame region: application memory is worth them, and inside a VM they save
/// second-stage faults.
pub fn advise_huge_frames() {
    super::ensure();
    // SAFETY: advice on our own window.
    let _ = unsafe { mem::advise(FRAMES_BASE, FRAMES_LEN, libc::MADV_HUGEPAGE) };
}

/// Gives the memory behind `[start, start + len)` of the page-frame region back to the host; it reads as zero
/// afterwards. `shared` says that the region is backed by a memfd.
pub fn discard_frames(start: u64, len: u64, shared: bool) {
    assert!(start >= FRAMES_BASE && start.checked_add(len).is_some_and(|end| end <= FRAMES_END));
    let advice = if shared { libc::MADV_REMOVE } else { libc::MADV_DONTNEED };
    // SAFETY: the range lies in the page-frame region, whose owner gives it up.
    let _ = unsafe { mem::advise(start, len, advice) };
}

/// Maps `len` bytes of a host file, read-only and shared with the host's page cache, at `address` in the file region.
///
/// # Errors
/// What mmap(2) returned.
pub fn map_file_chunk(address: u64, len: u64, file: &HostFd, offset: u64) -> Result<()> {
    use ring0::layout::{FILES_BASE, FILES_END};
    super::ensure();
    assert!(address >= FILES_BASE && address.checked_add(len).is_some_and(|end| end <= FILES_END));
    // SAFETY: the range lies in the file region, which only the file cache hands out.
    unsafe { mem::map_file_fixed(address, len, file, offset, false, true) }
}

/// Takes a file chunk's mapping away again; the addresses read as zero.
///
/// # Errors
/// What mmap(2) returned.
pub fn unmap_file_chunk(address: u64, len: u64) -> Result<()> {
    use ring0::layout::{FILES_BASE, FILES_END};
    assert!(address >= FILES_BASE && address.checked_add(len).is_some_and(|end| end <= FILES_END));
    // SAFETY: as above; the caller holds no frame of the chunk any more.
    unsafe { mem::map_anonymous_over(address, len) }
}
