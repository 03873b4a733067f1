//! Files of the host, by descriptor.

use super::fd::{HostFd, What};
use super::syscall;
use crate::abi::{Errno, Result};
use core::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The longest name these calls take, NUL included.
const NAME_LEN: usize = 4096;

/// Calls `f` with `name` as a C string.
pub(super) fn with_name<T>(name: &[u8], f: impl FnOnce(u64) -> Result<T>) -> Result<T> {
    if name.contains(&0) {
        return Err(Errno::EINVAL);
    }
    let mut short = [0; 256];
    if let Some(to) = short.get_mut(..name.len())
        && name.len() < 256
    {
        to.copy_from_slice(name);
        return f(short.as_ptr() as u64);
    }
    if name.len() >= NAME_LEN {
        return Err(Errno::ENAMETOOLONG);
    }
    let mut long = name.to_vec();
    long.push(0);
    f(long.as_ptr() as u64)
}

/// Permission bits of most files that are made, less the caller's mask.
pub const MODE: u32 = 0o666;

/// openat(2); `what` says what it is. A file that is made has the permission bits `mode`.
///
/// # Errors
/// The host's.
pub fn openat(dir: i32, name: &[u8], flags: i32, mode: u32, what: impl FnOnce() -> What) -> Result<HostFd> {
    open_raw(dir, name, flags, mode).and_then(|fd| HostFd::new(fd, what()))
}

fn open_raw(dir: i32, name: &[u8], flags: i32, mode: u32) -> Result<u64> {
    with_name(name, |name| {
        let args = [dir as u64, name, (flags | libc::O_CLOEXEC) as u64, mode.into(), 0, 0];
        // SAFETY: the name is a C string that lives across the call.
        unsafe { syscall(libc::SYS_openat, args) }
    })
}

/// The type of the file system that something open is on (fstatfs(2)).
///
/// # Errors
/// The host's.
pub fn statfs_type(fd: i32) -> Result<u64> {
    let mut out = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the buffer is a whole `statfs`.
    unsafe { syscall(libc::SYS_fstatfs, [fd as u64, out.as_mut_ptr() as u64, 0, 0, 0, 0]) }?;
    // SAFETY: filled in, and all zeroes is a value, too.
    Ok(unsafe { out.assume_init() }.f_type as u64)
}

/// statx(2) with everything that the basic mask offers, and the birth time.
///
/// # Errors
/// The host's.
pub fn statx(dir: i32, name: &[u8], flags: i32) -> Result<libc::statx> {
    let mut out = MaybeUninit::<libc::statx>::zeroed();
    let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    with_name(name, |name| {
        let args = [dir as u64, name, flags as u64, mask.into(), out.as_mut_ptr() as u64, 0];
        // SAFETY: the name is a C string and the buffer a whole `statx`.
        unsafe { syscall(libc::SYS_statx, args) }
    })?;
    // SAFETY: zero bytes are a valid `statx`, and the kernel wrote the rest.
    Ok(unsafe { out.assume_init() })
}

/// readlinkat(2).
///
/// # Errors
/// The host's.
pub fn readlinkat(dir: i32, name: &[u8]) -> Result<Vec<u8>> {
    let mut out = vec![0u8; NAME_LEN];
    let len = with_name(name, |name| {
        let args = [dir as u64, name, out.as_mut_ptr() as u64, out.len() as u64, 0, 0];
        // SAFETY: the name is a C string, and the buffer is as long as said.
        unsafe { syscall(libc::SYS_readlinkat, args) }
    })?;
    out.truncate(len as usize);
    Ok(out)
}

/// getdents64(2): fills `out` with records and returns their length.
///
/// # Errors
/// The host's.
pub fn getdents(fd: i32, out: &mut [u8]) -> Result<usize> {
    let args = [fd as u64, out.as_mut_ptr() as u64, out.len() as u64, 0, 0, 0];
    // SAFETY: the buffer is as long as said.
    unsafe { syscall(libc::SYS_getdents64, args) }.map(|n| n as usize)
}

/// Goes back to the start of a file or directory.
///
/// # Errors
/// The host's.
pub fn rewind(fd: i32) -> Result<()> {
    // SAFETY: no pointers.
    unsafe { syscall(libc::SYS_lseek, [fd as u64, 0, libc::SEEK_SET as u64, 0, 0, 0]) }.map(drop)
}

/// pread(2).
///
/// # Errors
/// The host's.
pub fn pread(fd: i32, out: &mut [u8], offset: u64) -> Result<usize> {
    let args = [fd as u64, out.as_mut_ptr() as u64, out.len() as u64, offset, 0, 0];
    // SAFETY: the buffer is as long as said.
    unsafe { syscall(libc::SYS_pread64, args) }.map(|n| n as usize)
}

/// All of a file of the host's /proc or /sys, from its start.
///
/// # Errors
/// The host's.
pub fn read_all(fd: i32) -> Result<Vec<u8>> {
    const PIECE: usize = 16 << 10;
    let mut all = Vec::new();
    loop {
        let done = all.len();
        all.resize(done + PIECE, 0);
        let got = pread(fd, &mut all[done..], done as u64)?;
        all.truncate(done + got);
        if got == 0 {
            return Ok(all);
        }
    }
}

/// A piece of memory for [`readv`] and [`writev`]: address and length, laid out as `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IoVec {
    /// Where it starts.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
}

/// Most pieces in one call (UIO_MAXIOV).
pub const MAX_PIECES: usize = 1024;

/// preadv2(2): at `offset`, or (`None`) at the description's own position. `flags` are `RWF_*`.
///
/// # Errors
/// The host's.
///
/// # Safety
/// The pieces may be overwritten: no Rust object lives there, or the caller owns them exclusively.
pub unsafe fn readv(fd: i32, pieces: &[IoVec], offset: Option<u64>, flags: i32) -> Result<usize> {
    let (low, high) = split(offset);
    let args = [fd as u64, pieces.as_ptr() as u64, pieces.len() as u64, low, high, flags as u64];
    // SAFETY: passed on.
    unsafe { syscall(libc::SYS_preadv2, args) }.map(|n| n as usize)
}

/// pwritev2(2), as [`readv`].
///
/// # Errors
/// The host's.
///
/// # Safety
/// The pieces are readable.
pub unsafe fn writev(fd: i32, pieces: &[IoVec], offset: Option<u64>, flags: i32) -> Result<usize> {
    let (low, high) = split(offset);
    let args = [fd as u64, pieces.as_ptr() as u64, pieces.len() as u64, low, high, flags as u64];
    // SAFETY: passed on.
    unsafe { syscall(libc::SYS_pwritev2, args) }.map(|n| n as usize)
}

/// The offset as 64-bit kernels take it; -1 is "at the position".
fn split(offset: Option<u64>) -> (u64, u64) {
    match offset {
        Some(offset) => (offset, 0),
        None => (u64::MAX, u64::MAX),
    }
}

/// A new event counter (eventfd(2)): what is written to it adds up until it is read.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn event_counter() -> Result<HostFd> {
    // SAFETY: no pointers.
    let fd = unsafe { syscall(libc::SYS_eventfd2, [0, libc::O_CLOEXEC as u64, 0, 0, 0, 0]) }?;
    HostFd::new(fd, What::Made("event counter"))
}

/// Reads into a buffer at the description's own position.
///
/// # Errors
/// The host's.
pub fn read(fd: i32, out: &mut [u8]) -> Result<usize> {
    let args = [fd as u64, out.as_mut_ptr() as u64, out.len() as u64, 0, 0, 0];
    // SAFETY: the buffer is as long as said.
    unsafe { syscall(libc::SYS_read, args) }.map(|n| n as usize)
}

/// Writes a buffer at the description's own position.
///
/// # Errors
/// The host's.
pub fn write(fd: i32, from: &[u8]) -> Result<usize> {
    let args = [fd as u64, from.as_ptr() as u64, from.len() as u64, 0, 0, 0];
    // SAFETY: the buffer is as long as said.
    unsafe { syscall(libc::SYS_write, args) }.map(|n| n as usize)
}

/// The events that hold on `fd` now, as poll(2) bits.
pub fn poll_now(fd: i32, events: i16) -> i16 {
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let args = [&raw mut poll as u64, 1, &raw const zero as u64, 0, 8, 0];
    // SAFETY: one pollfd and one timespec, both alive across the call.
    let _ = unsafe { syscall(libc::SYS_ppoll, args) };
    poll.revents
}

/// lseek(2).
///
/// # Errors
/// The host's.
pub fn lseek(fd: i32, offset: i64, whence: i32) -> Result<u64> {
    // SAFETY: no pointers.
    unsafe { syscall(libc::SYS_lseek, [fd as u64, offset as u64, whence as u64, 0, 0, 0]) }
}

/// ftruncate(2).
///
/// # Errors
/// The host's.
pub fn ftruncate(fd: i32, len: u64) -> Result<()> {
    // SAFETY: no pointers.
    unsafe { syscall(libc::SYS_ftruncate, [fd as u64, len, 0, 0, 0, 0]) }.map(drop)
}

/// fsync(2).
///
/// # Errors
/// The host's.
pub fn fsync(fd: i32) -> Result<()> {
    // SAFETY: no pointers.
    unsafe { syscall(libc::SYS_fsync, [fd as u64, 0, 0, 0, 0, 0]) }.map(drop)
}

/// fcntl(2) with an integer argument.
///
/// # Errors
/// The host's.
pub fn fcntl(fd: i32, command: i32, arg: u64) -> Result<u64> {
    // SAFETY: the commands used take no pointer.
    unsafe { syscall(libc::SYS_fcntl, [fd as u64, command as u64, arg, 0, 0, 0]) }
}

/// ioctl(2) whose argument is a buffer that is read, written or both. The buffer must be at least as large as the
/// request's structure: callers pass 256 bytes.
///
/// # Errors
/// The host's.
pub fn ioctl(fd: i32, request: u32, arg: &mut [u8; 256]) -> Result<u64> {
    // SAFETY: requests that callers let through (terminals, FIONREAD) have structures far below 256 bytes.
    unsafe { syscall(libc::SYS_ioctl, [fd as u64, request.into(), arg.as_mut_ptr() as u64, 0, 0, 0]) }
}

/// ioctl(2) with an integer argument.
///
/// # Errors
/// The host's.
pub fn ioctl_int(fd: i32, request: u32, arg: u64) -> Result<u64> {
    // SAFETY: the requests that callers let through take an integer.
    unsafe { syscall(libc::SYS_ioctl, [fd as u64, request.into(), arg, 0, 0, 0]) }
}

/// RLIMIT_NOFILE: raises the soft limit to the hard one and returns it.
pub fn raise_nofile() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let resource = u64::from(libc::RLIMIT_NOFILE);
    // SAFETY: one rlimit, alive across the call.
    let read = unsafe { syscall(libc::SYS_prlimit64, [0, resource, 0, &raw mut limit as u64, 0, 0]) };
    if read.is_err() {
        return 1024;
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: one rlimit, alive across the call.
    match unsafe { syscall(libc::SYS_prlimit64, [0, resource, &raw const limit as u64, 0, 0, 0]) } {
        Ok(_) => limit.rlim_max,
        Err(_) => 1024,
    }
}

/// Makes the process's descriptor table as large as a busy sandbox's gets, before there is a second thread: every later
/// doubling would wait for all CPUs of the host to pass a point of rest (an RCU grace period, some milliseconds).
pub fn reserve_descriptors() {
    /// A table of this size takes 32 KiB of the host.
    const ROOM: u64 = 4096;
    let highest = raise_nofile().min(ROOM).saturating_sub(1);
    // What cannot be had now is grown into later.
    if let Ok(any) = open_raw(libc::AT_FDCWD, b"/", libc::O_PATH, 0) {
        // SAFETY: just made, and closed again at once.
        let owned = |fd| unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let any = owned(any);
        let _closed = fcntl(any.as_raw_fd(), libc::F_DUPFD_CLOEXEC, highest).map(owned);
    }
}

/// getrandom(2): fills `out`.
pub fn random(out: &mut [u8]) {
    let mut done = 0;
    while done < out.len() {
        let rest = &mut out[done..];
        // SAFETY: the buffer is as long as said.
        match unsafe {
            syscall(libc::SYS_getrandom, [rest.as_mut_ptr() as u64, rest.len() as u64, 0, 0, 0, 0])
        } {
            Ok(n) => done += n as usize,
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_descriptor_table_is_grown_at_once() {
        super::reserve_descriptors();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        assert!(size.trim().parse::<u64>().unwrap() >= super::raise_nofile().min(4096));
    }
}
