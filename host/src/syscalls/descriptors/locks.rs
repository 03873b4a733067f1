//! Locks on files: flock(2), and fcntl(2) of byte ranges.

use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::vfs::{File, FileLock, Flock, LockTable, Sort};
use linux_raw_sys::general as c;
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub(super) const F_OFD_GETLK: u32 = 36;
pub(super) const F_OFD_SETLK: u32 = 37;
pub(super) const F_OFD_SETLKW: u32 = 38;
/// Share modes of flock(2), which never did anything: accepted and ignored since Linux 5.18.
const LOCK_MAND: u32 = 32;

/// `struct flock`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct RawLock {
    kind: i16,
    whence: i16,
    pad: i32,
    start: i64,
    len: i64,
    pid: i32,
    pad2: i32,
}

/// The range that a `struct flock` means, and whether it unlocks (flock64_to_posix_lock).
fn range(cur: &Current, file: &Arc<File>, raw: &RawLock, ofd: bool) -> Result<(FileLock, bool)> {
    let base = match raw.whence as u32 {
        c::SEEK_SET => 0,
        c::SEEK_CUR => file.position() as i64,
        c::SEEK_END => file.stat().size as i64,
        _ => return Err(Errno::EINVAL),
    };
    let from = base.checked_add(raw.start).ok_or(Errno::EOVERFLOW)?;
    let first = if raw.len < 0 { from.saturating_add(raw.len) } else { from };
    if from < 0 || first < 0 {
        return Err(Errno::EINVAL);
    }
    let end = match raw.len {
        0 => u64::MAX,
        len if len < 0 => from as u64,
        // Locks to the largest offset are locks to the end, wherever that is.
        len => match from.checked_add(len - 1).ok_or(Errno::EOVERFLOW)? {
            i64::MAX => u64::MAX,
            last => last as u64 + 1,
        },
    };
    let (exclusive, unlock) = match raw.kind as u32 {
        c::F_RDLCK => (false, false),
        c::F_WRLCK => (true, false),
        c::F_UNLCK => (false, true),
        _ => return Err(Errno::EINVAL),
    };
    let (sort, owner) = match ofd {
        true => (Sort::Description, file.lock_owner()),
        false => (Sort::Posix, cur.fds().lock_owner()),
    };
    let (start, pid) = (first as u64, cur.task.tgid());
    Ok((FileLock { sort, start, end, exclusive, owner, pid, file: file.lock_owner() }, unlock))
}

/// F_GETLK, F_OFD_GETLK.
pub(super) fn test(cur: &Current, file: &Arc<File>, addr: u64, ofd: bool) -> Result<u64> {
    let mut raw: RawLock = cur.mm().read_val(addr)?;
    if !ofd && raw.kind as u32 == c::F_UNLCK {
        return Err(Errno::EINVAL);
    }
    let (want, unlock) = range(cur, file, &raw, ofd)?;
    if unlock || (ofd && raw.pid != 0) {
        return Err(Errno::EINVAL);
    }
    match file.known_locks(&cur.kernel.file_locks).and_then(|locks| locks.conflict(&want)) {
        None => raw.kind = c::F_UNLCK as i16,
        Some(held) => {
            raw.kind = if held.exclusive { c::F_WRLCK } else { c::F_RDLCK } as i16;
            raw.whence = c::SEEK_SET as i16;
            raw.start = held.start as i64;
            raw.len = if held.end == u64::MAX { 0 } else { (held.end - held.start) as i64 };
            raw.pid = match held.shown_pid() {
                owner @ 1.. => cur.number_of(owner),
                nobody => nobody,
            };
        }
    }
    cur.mm().write_val(addr, &raw)?;
    Ok(0)
}

/// How F_SETLK and its kin are to lock.
#[derive(Clone, Copy)]
pub(super) struct Setting {
    /// Until the lock is there.
    pub(super) wait: bool,
    /// For the open file description.
    pub(super) ofd: bool,
}

/// F_SETLK and its kin, of `file`, which `fd` stood for when the call began.
pub(super) fn set(cur: &mut Current, fd: i32, file: &Arc<File>, addr: u64, how: Setting) -> Result<u64> {
    let Setting { wait, ofd } = how;
    let raw: RawLock = cur.mm().read_val(addr)?;
    let (want, unlock) = range(cur, file, &raw, ofd)?;
    let allowed = unlock || if want.exclusive { file.writable() } else { file.readable() };
    if !allowed {
        return Err(Errno::EBADF);
    }
    if ofd && raw.pid != 0 {
        return Err(Errno::EINVAL);
    }
    let kernel = cur.kernel.clone();
    if unlock {
        if let Some(locks) = file.known_locks(&kernel.file_locks) {
            locks.unlock(&want)?;
        }
        return Ok(0);
    }
    let locks = file.locks(&kernel.file_locks);
    if ofd {
        file.note_lock(&locks);
    } else {
        cur.fds().note_file_lock(file, &locks);
    }
    if !wait {
        locks.lock(want)?;
        return keep(cur, fd, file, &locks, &want);
    }
    let mut waiter = kernel.file_locks.waiter(&locks, want);
    let mut attempt = || match waiter.attempt() {
        Err(Errno::EAGAIN) => None,
        other => Some(other),
    };
    cur.wait_on(&[(&locks.released, !0)], None, &mut attempt)??;
    drop(waiter);
    keep(cur, fd, file, &locks, &want)
}

/// Keeps a lock that was taken, unless `fd` was closed meanwhile: nothing would give a process's back that was taken after
/// the close which it goes with (fs/locks.c, fcntl_setlk).
fn keep(cur: &Current, fd: i32, file: &Arc<File>, locks: &LockTable, taken: &FileLock) -> Result<u64> {
    let still_open = || cur.fds().get_path(fd).is_ok_and(|open| Arc::ptr_eq(&open, file));
    if taken.sort == Sort::Description || still_open() {
        return Ok(0);
    }
    if locks.unlock(taken).is_err() {
        // There are too many for a hole in one: a close gives all of them back.
        locks.drop_owner(taken.owner);
    }
    Err(Errno::EBADF)
}

/// flock(2)
pub(crate) fn flock(cur: &mut Current, args: &Args) -> Result<u64> {
    let request = args.uint(1);
    if request & LOCK_MAND != 0 {
        return Ok(0);
    }
    let want = match request & !c::LOCK_NB {
        c::LOCK_SH => Flock::Shared,
        c::LOCK_EX => Flock::Exclusive,
        c::LOCK_UN => Flock::Unlock,
        _ => return Err(Errno::EINVAL),
    };
    let file = cur.file(args.fd(0))?;
    if want != Flock::Unlock && !file.readable() && !file.writable() {
        return Err(Errno::EBADF);
    }
    let kernel = cur.kernel.clone();
    let locks = file.locks(&kernel.file_locks);
    let (owner, pid) = (file.lock_owner(), cur.task.tgid());
    let waiter = kernel.file_locks.flock_waiter(&locks, owner, pid, want);
    let Some(mut waiter) = waiter.filter(|_| request & c::LOCK_NB == 0) else {
        locks.flock(owner, pid, want)?;
        file.note_lock(&locks);
        return Ok(0);
    };
    file.note_lock(&locks);
    let mut attempt = || match waiter.attempt() {
        Err(Errno::EAGAIN) => None,
        other => Some(other),
    };
    cur.wait_on(&[(&locks.released, !0)], None, &mut attempt)??;
    Ok(0)
}
