//! mmap(2) and friends, on fixed addresses.

use super::fd::HostFd;
use super::syscall;
use crate::abi::Result;

const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;

/// Maps private zeroed memory at exactly `[address, address + len)`, failing if anything is there.
///
/// # Errors
/// EEXIST if the range is taken; ENOMEM.
///
/// # Safety
/// The range must not be in use by anything that assumes it is unmapped.
pub unsafe fn map_anonymous_fixed(address: u64, len: u64) -> Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: the caller's.
    unsafe { syscall(libc::SYS_mmap, [address, len, READ_WRITE, flags as u64, u64::MAX, 0]) }.map(drop)
}

/// Maps private zeroed memory over `[address, address + len)`, replacing what is there.
///
/// # Errors
/// ENOMEM.
///
/// # Safety
/// Nothing may rely on the old contents of the range.
pub unsafe fn map_anonymous_over(address: u64, len: u64) -> Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: the caller's.
    unsafe { syscall(libc::SYS_mmap, [address, len, READ_WRITE, flags as u64, u64::MAX, 0]) }.map(drop)
}

/// Maps a file over `[address, address + len)`, replacing what is there.
///
/// # Errors
/// What mmap(2) returns.
///
/// # Safety
/// Nothing may rely on the old contents of the range.
pub unsafe fn map_file_fixed(
    address: u64,
    len: u64,
    file: &HostFd,
    offset: u64,
    writable: bool,
    shared: bool,
) -> Result<()> {
    let prot = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
    let flags =
        libc::MAP_FIXED | libc::MAP_NORESERVE | if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    let fd = file.raw() as u64;
    // SAFETY: the caller's.
    unsafe { syscall(libc::SYS_mmap, [address, len, prot as u64, flags as u64, fd, offset]) }.map(drop)
}

/// mprotect(2).
///
/// # Errors
/// What mprotect(2) returns.
///
/// # Safety
/// No live reference may lose a right that it needs.
pub unsafe fn protect(address: u64, len: u64, prot: i32) -> Result<()> {
    // SAFETY: the caller's.
    unsafe { syscall(libc::SYS_mprotect, [address, len, prot as u64, 0, 0, 0]) }.map(drop)
}

/// madvise(2).
///
/// # Errors
/// What madvise(2) returns.
///
/// # Safety
/// For advice that drops contents: nothing may rely on them.
pub unsafe fn advise(address: u64, len: u64, advice: i32) -> Result<()> {
    // SAFETY: the caller's.
    unsafe { syscall(libc::SYS_madvise, [address, len, advice as u64, 0, 0, 0]) }.map(drop)
}
