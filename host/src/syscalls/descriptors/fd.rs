//! Descriptors: dup, fcntl.

use super::locks::{self, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, Setting};
use super::sigio::{self, F_GETOWN, F_GETOWN_EX, F_GETOWNER_UIDS, F_GETSIG, F_SETOWN, F_SETOWN_EX, F_SETSIG};
use crate::abi::{Errno, Result};
use crate::fs::layer::Node;
use crate::fs::pipe::PipeEnd;
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::syscalls::files::names::only;
use crate::vfs::owner;
use crate::vfs::{File, is_cloexec};
use linux_raw_sys::general as c;
use std::sync::Arc;

/// Gives a new open file the lowest free descriptor; `O_CLOEXEC` among `flags` counts.
pub(crate) fn install(cur: &Current, file: Arc<File>, flags: u32) -> Result<u64> {
    Ok(cur.fds().install(file, is_cloexec(flags), cur.limit(c::RLIMIT_NOFILE))? as u64)
}

/// dup(2)
pub(crate) fn dup(cur: &mut Current, args: &Args) -> Result<u64> {
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
pub(crate) fn dup2(cur: &mut Current, args: &Args) -> Result<u64> {
    if args.fd(0) == args.fd(1) {
        cur.fds().get_path(args.fd(0))?;
        return Ok(args.fd(0) as u64);
    }
    dup_to(cur, args.fd(0), args.fd(1), false)
}

/// dup3(2)
pub(crate) fn dup3(cur: &mut Current, args: &Args) -> Result<u64> {
    only(args.uint(2), c::O_CLOEXEC)?;
    if args.fd(0) == args.fd(1) {
        return Err(Errno::EINVAL);
    }
    dup_to(cur, args.fd(0), args.fd(1), is_cloexec(args.uint(2)))
}

/// fcntl(2)
pub(crate) fn fcntl(cur: &mut Current, args: &Args) -> Result<u64> {
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
        c::F_SETFL => set_flags(cur, &file, fd, args.uint(2)),
        c::F_GETLK | F_OFD_GETLK => locks::test(cur, &file, arg, command == F_OFD_GETLK),
        c::F_SETLK | c::F_SETLKW => {
            locks::set(cur, fd, &file, arg, Setting { wait: command == c::F_SETLKW, ofd: false })
        }
        F_OFD_SETLK | F_OFD_SETLKW => {
            locks::set(cur, fd, &file, arg, Setting { wait: command == F_OFD_SETLKW, ofd: true })
        }
        F_GETOWN | F_SETOWN | F_GETOWN_EX | F_SETOWN_EX | F_GETOWNER_UIDS | F_GETSIG | F_SETSIG => {
            sigio::fcntl(cur, &file, command, arg)
        }
        c::F_SETPIPE_SZ => {
            Ok(file.downcast::<PipeEnd>().ok_or(Errno::EBADF)?.set_capacity(args.uint(2) as usize)? as u64)
        }
        c::F_GETPIPE_SZ => Ok(file.downcast::<PipeEnd>().ok_or(Errno::EBADF)?.capacity() as u64),
        c::F_GET_SEALS => Ok(node(&file)?.seals().into()),
        c::F_ADD_SEALS => {
            if !file.writable() {
                return Err(Errno::EPERM);
            }
            node(&file)?.add_seals(args.uint(2))?;
            Ok(0)
        }
        // Nobody has one, as F_SETLEASE is refused.
        c::F_GETLEASE => Ok(c::F_UNLCK.into()),
        _ => Err(Errno::EINVAL),
    }
}

/// F_SETFL: flags that promise something must be kept.
fn set_flags(cur: &Current, file: &Arc<File>, fd: i32, flags: u32) -> Result<u64> {
    let added = flags & !file.flags();
    if added & c::O_NOATIME != 0
        && let Some(inode) = file.inode()
    {
        owner(&cur.cred(), inode.meta())?;
    }
    if (flags ^ file.flags()) & c::O_APPEND != 0
        && file.inode().is_some_and(|inode| inode.meta().is_append_only())
    {
        return Err(Errno::EPERM);
    }
    // Packets in a pipe: not here.
    if added & c::O_DIRECT != 0 && !file.positioned() {
        return Err(Errno::EINVAL);
    }
    match cur.drive_by_signals(file, fd, flags & c::FASYNC != 0) {
        // What sends none leaves the flag out.
        Ok(()) | Err(Errno::ENOTTY) => {}
        Err(errno) => return Err(errno),
    }
    file.set_flags(flags & !c::FASYNC | file.flags() & c::FASYNC);
    Ok(0)
}

/// The file in memory that can have seals.
fn node(file: &Arc<File>) -> Result<&Node> {
    let node = file.inode().and_then(|inode| inode.as_any().downcast_ref::<Node>());
    node.filter(|node| node.is_tmpfs() && node.content().is_some()).ok_or(Errno::EINVAL)
}
