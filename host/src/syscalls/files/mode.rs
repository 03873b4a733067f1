//! Modes and owners of files.

use super::names::{CWD, path_of};
use super::names::{Names, only, resolve_at};
use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::vfs::Kind;
use linux_raw_sys::general as c;

/// umask(2)
pub(crate) fn umask(cur: &mut Current, args: &Args) -> Result<u64> {
    Ok(cur.fs().set_umask(args.uint(0)).into())
}

/// chmod(2)
pub(crate) fn chmod(cur: &mut Current, args: &Args) -> Result<u64> {
    let path = resolve_at(cur, CWD, args.addr(0), 0, true)?;
    Names::of(cur).lookup().set_mode(&path, args.uint(1))?;
    Ok(0)
}

/// fchmod(2)
pub(crate) fn fchmod(cur: &mut Current, args: &Args) -> Result<u64> {
    let path = path_of(cur, args.fd(0))?;
    Names::of(cur).lookup().set_mode(&path, args.uint(1))?;
    Ok(0)
}

/// fchmodat(2): the old call, without flags.
pub(crate) fn fchmodat(cur: &mut Current, args: &Args) -> Result<u64> {
    let path = resolve_at(cur, args.fd(0), args.addr(1), 0, true)?;
    Names::of(cur).lookup().set_mode(&path, args.uint(2))?;
    Ok(0)
}

/// fchmodat2(2)
pub(crate) fn fchmodat2(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = args.uint(3);
    only(flags, c::AT_SYMLINK_NOFOLLOW | c::AT_EMPTY_PATH)?;
    let path = resolve_at(cur, args.fd(0), args.addr(1), flags, flags & c::AT_SYMLINK_NOFOLLOW == 0)?;
    if path.dentry.kind() == Kind::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    Names::of(cur).lookup().set_mode(&path, args.uint(2))?;
    Ok(0)
}

/// chown(2)
pub(crate) fn chown(cur: &mut Current, args: &Args) -> Result<u64> {
    let path = resolve_at(cur, CWD, args.addr(0), 0, true)?;
    Names::of(cur).lookup().set_owner(&path, args.uint(1), args.uint(2))?;
    Ok(0)
}

/// lchown(2)
pub(crate) fn lchown(cur: &mut Current, args: &Args) -> Result<u64> {
    let path = resolve_at(cur, CWD, args.addr(0), 0, false)?;
    Names::of(cur).lookup().set_owner(&path, args.uint(1), args.uint(2))?;
    Ok(0)
}

/// fchown(2)
pub(crate) fn fchown(cur: &mut Current, args: &Args) -> Result<u64> {
    let path = path_of(cur, args.fd(0))?;
    Names::of(cur).lookup().set_owner(&path, args.uint(1), args.uint(2))?;
    Ok(0)
}

/// fchownat(2)
pub(crate) fn fchownat(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = args.uint(4);
    only(flags, c::AT_SYMLINK_NOFOLLOW | c::AT_EMPTY_PATH)?;
    let path = resolve_at(cur, args.fd(0), args.addr(1), flags, flags & c::AT_SYMLINK_NOFOLLOW == 0)?;
    Names::of(cur).lookup().set_owner(&path, args.uint(2), args.uint(3))?;
    Ok(0)
}
