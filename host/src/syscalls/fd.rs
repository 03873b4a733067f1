//! Descriptors: dup, fcntl, flock.

use super::Args;
use super::names::only;
use crate::abi::{Errno, Result};
use crate::fs::layer::Node;
use crate::fs::pipe::PipeEnd;
use crate::kernel::Current;
use crate::vfs::{File, Flock, RangeLock, is_cloexec, owner};
use linux_raw_sys::general as c;
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// dup(2)
pub(super) fn dup(cur: &mut Current, args: &Args) -> Result<u64> {
    let fds = cur.fds();
    let file = fds.get_path(args.fd(0))?;
    Ok(fds.install(file, false, cur.limit(c::RLIMIT_NOFILE))? as u64)
}

fn dup_to(cur: &Current, old: i32, new: i32, cloexec: bool) -> Result<u64> {
    let fds = cur.fds();
    let file = fds.get_path(old)?;
    drop(fds.install_at(new, file, cloexec, cur.limit(c::RLIMIT_NOFILE))?);
    Ok(new as u64)
}

/// dup2(2)
pub(super) fn dup2(cur: &mut Current, args: &Args) -> Result<u64> {
    if args.fd(0) == args.fd(1) {
        cur.fds().get_path(args.fd(0))?;
        return Ok(args.fd(0) as u64);
    }
    dup_to(cur, args.fd(0), args.fd(1), false)
}

/// dup3(2)
pub(super) fn dup3(cur: &mut Current, args: &Args) -> Result<u64> {
    only(args.uint(2), c::O_CLOEXEC)?;
    if args.fd(0) == args.fd(1) {
        return Err(Errno::EINVAL);
    }
    dup_to(cur, args.fd(0), args.fd(1), is_cloexec(args.uint(2)))
}

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

const F_OFD_GETLK: u32 = 36;
const F_OFD_SETLK: u32 = 37;
const F_OFD_SETLKW: u32 = 38;

/// fcntl(2)
pub(super) fn fcntl(cur: &mut Current, args: &Args) -> Result<u64> {
    let (fd, command, arg) = (args.fd(0), args.uint(1), args.addr(2));
    let fds = cur.fds();
    let file = fds.get_path(fd)?;
    match command {
        c::F_DUPFD | c::F_DUPFD_CLOEXEC => {
            let from = usize::try_from(args.int(2)).map_err(|_| Errno::EINVAL)?;
            let limit = cur.limit(c::RLIMIT_NOFILE);
            return Ok(fds.install_from(from, file, command == c::F_DUPFD_CLOEXEC, limit)? as u64);
        }
        c::F_GETFD => return Ok(fds.cloexec(fd)?.into()),
        c::F_SETFD => {
            fds.set_cloexec(fd, arg & u64::from(c::FD_CLOEXEC) != 0)?;
            return Ok(0);
        }
        c::F_GETFL => return Ok(file.flags().into()),
        _ if file.is_path() => return Err(Errno::EBADF),
        _ => {}
    }
    match command {
        c::F_SETFL => set_flags(cur, &file, args.uint(2)),
        c::F_GETLK | F_OFD_GETLK => get_lock(cur, &file, arg, command == F_OFD_GETLK),
        c::F_SETLK | c::F_SETLKW => set_lock(cur, &file, arg, command == c::F_SETLKW, false),
        F_OFD_SETLK | F_OFD_SETLKW => set_lock(cur, &file, arg, command == F_OFD_SETLKW, true),
        c::F_GETOWN => Ok(file.owner.load(std::sync::atomic::Ordering::Relaxed) as u64),
        c::F_SETOWN => {
            may_own(cur, args.int(2))?;
            file.owner.store(args.int(2), std::sync::atomic::Ordering::Relaxed);
            Ok(0)
        }
        // No file sends a signal of its own, so that there is none to choose: 0 is SIGIO, as from the start.
        c::F_GETSIG => Ok(0),
        c::F_SETSIG if arg == 0 => Ok(0),
        c::F_SETPIPE_SZ => {
            Ok(file.downcast::<PipeEnd>().ok_or(Errno::EBADF)?.set_capacity(args.uint(2) as usize)? as u64)
        }
        c::F_GETPIPE_SZ => Ok(file.downcast::<PipeEnd>().ok_or(Errno::EBADF)?.capacity() as u64),
        c::F_GET_SEALS => Ok(node(&file)?.seals().into()),
        c::F_ADD_SEALS => {
            if !file.writable() {
                return Err(Errno::EPERM);
            }
            only(args.uint(2), 0x3f)?;
            node(&file)?.add_seals(args.uint(2))?;
            Ok(0)
        }
        // Nobody has one, as F_SETLEASE is refused.
        c::F_GETLEASE => Ok(c::F_UNLCK.into()),
        _ => Err(Errno::EINVAL),
    }
}

/// F_SETFL: flags that promise something must be kept.
fn set_flags(cur: &Current, file: &Arc<File>, flags: u32) -> Result<u64> {
    let added = flags & !file.flags();
    if added & c::O_NOATIME != 0
        && let Some(inode) = file.inode()
    {
        owner(&cur.cred(), inode.meta())?;
    }
    // Packets in a pipe, and signals by what is none: not here.
    if (added & c::O_DIRECT != 0 && !file.positioned()) || added & c::FASYNC != 0 {
        return Err(Errno::EINVAL);
    }
    file.set_flags(flags);
    Ok(0)
}

/// F_SETOWN names a process, a process group or nobody.
fn may_own(cur: &Current, id: i32) -> Result<()> {
    let tree = cur.kernel.tree.lock();
    let found = match id {
        i32::MIN => return Err(Errno::EINVAL),
        0 => true,
        1.. => tree.task(id).is_some(),
        _ => tree.process_group(-id).next().is_some(),
    };
    if found { Ok(()) } else { Err(Errno::ESRCH) }
}

fn node(file: &Arc<File>) -> Result<&Node> {
    file.inode().and_then(|inode| inode.as_any().downcast_ref()).ok_or(Errno::EINVAL)
}

/// The range that a `struct flock` means, and whether it unlocks.
fn range(cur: &Current, file: &Arc<File>, raw: &RawLock, ofd: bool) -> Result<(RangeLock, bool)> {
    let base = match raw.whence as u32 {
        c::SEEK_SET => 0,
        c::SEEK_CUR => file.position() as i64,
        c::SEEK_END => file.stat().size as i64,
        _ => return Err(Errno::EINVAL),
    };
    let from = base.checked_add(raw.start).ok_or(Errno::EOVERFLOW)?;
    let to = from.checked_add(raw.len).ok_or(Errno::EOVERFLOW)?;
    let (from, to) = if raw.len < 0 { (to, from) } else { (from, to) };
    if from < 0 {
        return Err(Errno::EINVAL);
    }
    let end = if raw.len == 0 { u64::MAX } else { to as u64 };
    let (exclusive, unlock) = match raw.kind as u32 {
        c::F_RDLCK => (false, false),
        c::F_WRLCK => (true, false),
        c::F_UNLCK => (false, true),
        _ => return Err(Errno::EINVAL),
    };
    let (owner, pid) = if ofd { (file.lock_owner(), -1) } else { (cur.fds().lock_owner(), cur.task.tgid()) };
    Ok((RangeLock { start: from as u64, end, exclusive, owner, pid }, unlock))
}

fn get_lock(cur: &Current, file: &Arc<File>, addr: u64, ofd: bool) -> Result<u64> {
    let mut raw: RawLock = cur.mm().read_val(addr)?;
    if ofd && raw.pid != 0 {
        return Err(Errno::EINVAL);
    }
    let (want, unlock) = range(cur, file, &raw, ofd)?;
    if unlock {
        return Err(Errno::EINVAL);
    }
    match file.existing_locks().and_then(|locks| locks.conflict(&want)) {
        None => raw.kind = c::F_UNLCK as i16,
        Some(held) => {
            raw.kind = if held.exclusive { c::F_WRLCK } else { c::F_RDLCK } as i16;
            raw.whence = c::SEEK_SET as i16;
            raw.start = held.start as i64;
            raw.len = if held.end == u64::MAX { 0 } else { (held.end - held.start) as i64 };
            raw.pid = held.pid;
        }
    }
    cur.mm().write_val(addr, &raw)?;
    Ok(0)
}

fn set_lock(cur: &mut Current, file: &Arc<File>, addr: u64, wait: bool, ofd: bool) -> Result<u64> {
    let raw: RawLock = cur.mm().read_val(addr)?;
    if ofd && raw.pid != 0 {
        return Err(Errno::EINVAL);
    }
    let (want, unlock) = range(cur, file, &raw, ofd)?;
    if unlock {
        if let Some(locks) = file.existing_locks() {
            locks.unlock(&want);
        }
        return Ok(0);
    }
    if (want.exclusive && !file.writable()) || (!want.exclusive && !file.readable()) {
        return Err(Errno::EBADF);
    }
    let locks = file.locks()?;
    if ofd {
        file.note_lock();
    } else {
        cur.fds().note_lock();
    }
    if wait {
        cur.wait_on(&[(&locks.released, !0)], None, &mut || locks.lock(want).ok())?;
    } else {
        locks.lock(want)?;
    }
    Ok(0)
}

/// flock(2)
pub(super) fn flock(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = cur.file(args.fd(0))?;
    let want = match args.uint(1) & !c::LOCK_NB {
        c::LOCK_SH => Flock::Shared,
        c::LOCK_EX => Flock::Exclusive,
        c::LOCK_UN => Flock::Unlock,
        _ => return Err(Errno::EINVAL),
    };
    let locks = file.locks()?;
    file.note_lock();
    let owner = file.lock_owner();
    if args.uint(1) & c::LOCK_NB != 0 {
        locks.flock(owner, want)?;
    } else {
        cur.wait_on(&[(&locks.released, !0)], None, &mut || locks.flock(owner, want).ok())?;
    }
    Ok(0)
}

/// Whether seals forbid new writable shared mappings of a file.
pub(super) fn sealed_against_writing(file: &Arc<File>) -> bool {
    node(file).is_ok_and(|node| node.seals() & (c::F_SEAL_WRITE | c::F_SEAL_FUTURE_WRITE) != 0)
}
