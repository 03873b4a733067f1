//! Changes of the host's files: names, attributes, space.
//!
//! A name is one component below a directory's descriptor, and no call follows what may be a link there: what a file is called
//! from `/` on is nobody's business here.

use super::file::with_name;
use super::syscall;
use crate::abi::{Errno, Result};
use core::ffi::CStr;
use core::mem::MaybeUninit;
use linux_raw_sys::general::{__NR_fchmodat2, UTIME_NOW, UTIME_OMIT};

/// A time to set, as utimensat(2) takes it.
pub type RawTime = libc::timespec;

/// `tv_nsec` of a time that is left as it is.
pub const OMIT: RawTime = libc::timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as i64 };
/// `tv_nsec` of the present.
pub const NOW: RawTime = libc::timespec { tv_sec: 0, tv_nsec: UTIME_NOW as i64 };

/// mkdirat(2).
///
/// # Errors
/// The host's.
pub fn mkdir(dir: i32, name: &[u8], mode: u32) -> Result<()> {
    // SAFETY: the name is a C string that lives across the call.
    with_name(name, |name| unsafe { syscall(libc::SYS_mkdirat, [dir as u64, name, mode.into(), 0, 0, 0]) })
        .map(drop)
}

/// mknodat(2), of what is no device.
///
/// # Errors
/// The host's.
pub fn mknod(dir: i32, name: &[u8], mode: u32) -> Result<()> {
    // SAFETY: the name is a C string that lives across the call.
    with_name(name, |name| unsafe { syscall(libc::SYS_mknodat, [dir as u64, name, mode.into(), 0, 0, 0]) })
        .map(drop)
}

/// symlinkat(2).
///
/// # Errors
/// The host's.
pub fn symlink(target: &[u8], dir: i32, name: &[u8]) -> Result<()> {
    with_name(target, |target| {
        // SAFETY: both are C strings that live across the call.
        with_name(name, |name| unsafe { syscall(libc::SYS_symlinkat, [target, dir as u64, name, 0, 0, 0]) })
    })
    .map(drop)
}

/// linkat(2). An empty old name is what the descriptor itself stands for.
///
/// # Errors
/// The host's; ENOENT for a descriptor without CAP_DAC_READ_SEARCH.
pub fn link(old_dir: i32, old: &[u8], dir: i32, name: &[u8]) -> Result<()> {
    let flags = if old.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    with_name(old, |old| {
        with_name(name, |name| {
            let args = [old_dir as u64, old, dir as u64, name, flags as u64, 0];
            // SAFETY: both are C strings that live across the call.
            unsafe { syscall(libc::SYS_linkat, args) }
        })
    })
    .map(drop)
}

/// unlinkat(2), of a directory or of anything else.
///
/// # Errors
/// The host's.
pub fn unlink(dir: i32, name: &[u8], is_dir: bool) -> Result<()> {
    let flags = if is_dir { libc::AT_REMOVEDIR as u64 } else { 0 };
    // SAFETY: the name is a C string that lives across the call.
    with_name(name, |name| unsafe { syscall(libc::SYS_unlinkat, [dir as u64, name, flags, 0, 0, 0]) })
        .map(drop)
}

/// renameat2(2).
///
/// # Errors
/// The host's.
pub fn rename(old_dir: i32, old: &[u8], dir: i32, name: &[u8], flags: u32) -> Result<()> {
    with_name(old, |old| {
        with_name(name, |name| {
            let args = [old_dir as u64, old, dir as u64, name, flags.into(), 0];
            // SAFETY: both are C strings that live across the call.
            unsafe { syscall(libc::SYS_renameat2, args) }
        })
    })
    .map(drop)
}

/// fchmod(2), for a descriptor that is more than a place.
///
/// # Errors
/// The host's.
pub fn fchmod(fd: i32, mode: u32) -> Result<()> {
    // SAFETY: no pointers.
    unsafe { syscall(libc::SYS_fchmod, [fd as u64, mode.into(), 0, 0, 0, 0]) }.map(drop)
}

/// fchmodat2(2) of what a descriptor stands for, be it a place only.
///
/// # Errors
/// The host's; ENOSYS on Linux before 6.6.
pub fn chmod(fd: i32, mode: u32) -> Result<()> {
    let args = [fd as u64, c"".as_ptr() as u64, mode.into(), libc::AT_EMPTY_PATH as u64, 0, 0];
    // SAFETY: a C string.
    unsafe { syscall(__NR_fchmodat2.into(), args) }.map(drop)
}

/// fchownat(2) of what a descriptor stands for; `u32::MAX` leaves an id.
///
/// # Errors
/// The host's.
pub fn chown(fd: i32, uid: u32, gid: u32) -> Result<()> {
    let args = [fd as u64, c"".as_ptr() as u64, uid.into(), gid.into(), libc::AT_EMPTY_PATH as u64, 0];
    // SAFETY: a C string.
    unsafe { syscall(libc::SYS_fchownat, args) }.map(drop)
}

/// utimensat(2) of what a descriptor stands for: last read, last write.
///
/// # Errors
/// The host's; EINVAL for a mere place on Linux before 5.8.
pub fn set_times(fd: i32, times: &[RawTime; 2]) -> Result<()> {
    let args = [fd as u64, c"".as_ptr() as u64, times.as_ptr() as u64, libc::AT_EMPTY_PATH as u64, 0, 0];
    // SAFETY: a C string and two times, alive across the call.
    unsafe { syscall(libc::SYS_utimensat, args) }.map(drop)
}

/// fallocate(2).
///
/// # Errors
/// The host's.
pub fn allocate(fd: i32, mode: u32, offset: u64, len: u64) -> Result<()> {
    // SAFETY: no pointers.
    unsafe { syscall(libc::SYS_fallocate, [fd as u64, mode.into(), offset, len, 0, 0]) }.map(drop)
}

/// syncfs(2).
///
/// # Errors
/// The host's.
pub fn sync_all(fd: i32) -> Result<()> {
    // SAFETY: no pointers.
    unsafe { syscall(libc::SYS_syncfs, [fd as u64, 0, 0, 0, 0, 0]) }.map(drop)
}

/// fstatfs(2).
///
/// # Errors
/// The host's.
pub fn statfs(fd: i32) -> Result<libc::statfs> {
    let mut out = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the buffer is a whole `statfs`.
    unsafe { syscall(libc::SYS_fstatfs, [fd as u64, out.as_mut_ptr() as u64, 0, 0, 0, 0]) }?;
    // SAFETY: zero bytes are a valid `statfs`, and the kernel wrote the rest.
    Ok(unsafe { out.assume_init() })
}

/// Longest value of an extended attribute (XATTR_SIZE_MAX), and longest list of names (XATTR_LIST_MAX).
const XATTR_MAX: usize = 64 << 10;

/// fgetxattr(2).
///
/// # Errors
/// The host's.
pub fn xattr(fd: i32, name: &CStr) -> Result<Vec<u8>> {
    let mut out = vec![0; XATTR_MAX];
    let args = [fd as u64, name.as_ptr() as u64, out.as_mut_ptr() as u64, out.len() as u64, 0, 0];
    // SAFETY: a C string, and a buffer as long as said.
    let len = unsafe { syscall(libc::SYS_fgetxattr, args) }?;
    out.truncate(len as usize);
    Ok(out)
}

/// flistxattr(2): names, each with a zero byte behind it.
///
/// # Errors
/// The host's.
pub fn xattr_names(fd: i32) -> Result<Vec<u8>> {
    let mut out = vec![0; XATTR_MAX];
    let args = [fd as u64, out.as_mut_ptr() as u64, out.len() as u64, 0, 0, 0];
    // SAFETY: the buffer is as long as said.
    let len = unsafe { syscall(libc::SYS_flistxattr, args) }?;
    out.truncate(len as usize);
    Ok(out)
}

/// fsetxattr(2), or fremovexattr(2) without a value.
///
/// # Errors
/// The host's.
pub fn set_xattr(fd: i32, name: &CStr, value: Option<&[u8]>, flags: u32) -> Result<()> {
    let (fd, name) = (fd as u64, name.as_ptr() as u64);
    let result = match value {
        Some(value) => {
            let args = [fd, name, value.as_ptr() as u64, value.len() as u64, flags.into(), 0];
            // SAFETY: a C string, and a buffer as long as said.
            unsafe { syscall(libc::SYS_fsetxattr, args) }
        }
        // SAFETY: a C string.
        None => unsafe { syscall(libc::SYS_fremovexattr, [fd, name, 0, 0, 0, 0]) },
    };
    result.map(drop)
}

/// fdatasync(2).
///
/// # Errors
/// The host's.
pub fn sync_data(fd: i32) -> Result<()> {
    // SAFETY: no pointers.
    unsafe { syscall(libc::SYS_fdatasync, [fd as u64, 0, 0, 0, 0, 0]) }.map(drop)
}

/// The mask that the process's new files lose of their permission bits (umask(2)); nothing, from now on.
pub fn clear_umask() {
    // SAFETY: no pointers; it cannot fail.
    let _ = unsafe { syscall(libc::SYS_umask, [0; 6]) };
}

/// Whether a host of another age is to blame, and another call may do.
pub fn is_unknown(errno: Errno) -> bool {
    matches!(errno, Errno::ENOSYS | Errno::EINVAL | Errno::EOPNOTSUPP)
}
