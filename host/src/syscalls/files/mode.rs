//! Modes and owners of files.

use super::names::{CWD, path_of};
use super::names::{Names, only, resolve_at};
use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::syscalls::credentials::cred::{group_or_none, user_or_none};
use crate::vfs::{Kind, Path};
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

/// Gives a file to those whom the caller calls that.
fn change_owner(cur: &Current, path: &Path, uid: u32, gid: u32) -> Result<u64> {
    let names = Names::of(cur);
    let (uid, gid) = (user_or_none(&names.cred, uid)?, group_or_none(&names.cred, gid)?);
    names.lookup().set_owner(path, uid, gid)?;
    Ok(0)
}

/// chown(2)
pub(crate) fn chown(cur: &mut Current, args: &Args) -> Result<u64> {
    let path = resolve_at(cur, CWD, args.addr(0), 0, true)?;
    change_owner(cur, &path, args.uint(1), args.uint(2))
}

/// lchown(2)
pub(crate) fn lchown(cur: &mut Current, args: &Args) -> Result<u64> {
    let path = resolve_at(cur, CWD, args.addr(0), 0, false)?;
    change_owner(cur, &path, args.uint(1), args.uint(2))
}

/// fchown(2)
pub(crate) fn fchown(cur: &mut Current, args: &Args) -> Result<u64> {
    let path = path_of(cur, args.fd(0))?;
    change_owner(cur, &path, args.uint(1), args.uint(2))
}

/// fchownat(2)
pub(crate) fn fchownat(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = args.uint(4);
    only(flags, c::AT_SYMLINK_NOFOLLOW | c::AT_EMPTY_PATH)?;
    let path = resolve_at(cur, args.fd(0), args.addr(1), flags, flags & c::AT_SYMLINK_NOFOLLOW == 0)?;
    change_owner(cur, &path, args.uint(2), args.uint(3))
}
