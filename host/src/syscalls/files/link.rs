//! Names made, removed and moved.

use super::names::CWD;
use super::names::{Names, base, only, path_arg, resolve_at};
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::vfs::{Extra, Kind, Resolve};
use linux_raw_sys::general as c;

fn create(cur: &Current, dirfd: i32, name: u64, kind: Kind, perm: u32, rest: Extra<'_>) -> Result<u64> {
    let name = path_arg(cur, name)?;
    let base = base(cur, dirfd, &name)?;
    Names::of(cur).lookup().create(base.as_ref(), &name, kind, perm, rest)?;
    Ok(0)
}

/// mkdir(2)
pub(crate) fn mkdir(cur: &mut Current, args: &Args) -> Result<u64> {
    create(cur, CWD, args.addr(0), Kind::Dir, args.uint(1) & 0o1777, Extra::None)
}

/// mkdirat(2)
pub(crate) fn mkdirat(cur: &mut Current, args: &Args) -> Result<u64> {
    create(cur, args.fd(0), args.addr(1), Kind::Dir, args.uint(2) & 0o1777, Extra::None)
}

fn make_node(cur: &Current, dirfd: i32, name: u64, mode: u32, dev: u32) -> Result<u64> {
    let kind = Kind::from_mode(mode).ok_or(Errno::EINVAL)?;
    if kind == Kind::Dir {
        return Err(Errno::EPERM);
    }
    if kind == Kind::Symlink {
        return Err(Errno::EINVAL);
    }
    create(cur, dirfd, name, kind, mode & 0o7777, Extra::Device(dev.into()))
}

/// mknod(2)
pub(crate) fn mknod(cur: &mut Current, args: &Args) -> Result<u64> {
    make_node(cur, CWD, args.addr(0), args.uint(1), args.uint(2))
}

/// mknodat(2)
pub(crate) fn mknodat(cur: &mut Current, args: &Args) -> Result<u64> {
    make_node(cur, args.fd(0), args.addr(1), args.uint(2), args.uint(3))
}

fn make_symlink(cur: &Current, target: u64, dirfd: i32, name: u64) -> Result<u64> {
    let target = path_arg(cur, target)?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    create(cur, dirfd, name, Kind::Symlink, 0o777, Extra::Target(&target))
}

/// symlink(2)
pub(crate) fn symlink(cur: &mut Current, args: &Args) -> Result<u64> {
    make_symlink(cur, args.addr(0), CWD, args.addr(1))
}

/// symlinkat(2)
pub(crate) fn symlinkat(cur: &mut Current, args: &Args) -> Result<u64> {
    make_symlink(cur, args.addr(0), args.fd(1), args.addr(2))
}

fn read_link(cur: &Current, dirfd: i32, name: u64, buf: u64, len: i32) -> Result<u64> {
    if len <= 0 {
        return Err(Errno::EINVAL);
    }
    // The empty name is the descriptor itself, opened with O_PATH | O_NOFOLLOW.
    let name = path_arg(cur, name)?;
    let names = Names::of(cur);
    let from = base(cur, dirfd, &name)?;
    let how = if dirfd == CWD { Resolve::empty() } else { Resolve::EMPTY };
    let path = names.lookup().resolve(from.as_ref(), &name, how)?;
    if path.dentry.kind() != Kind::Symlink {
        return Err(if name.is_empty() { Errno::ENOENT } else { Errno::EINVAL });
    }
    let text = path.dentry.inode.readlink(names.caller)?;
    let len = text.len().min(len as usize);
    cur.mm().write(buf, &text[..len])?;
    Ok(len as u64)
}

/// readlink(2)
pub(crate) fn readlink(cur: &mut Current, args: &Args) -> Result<u64> {
    read_link(cur, CWD, args.addr(0), args.addr(1), args.int(2))
}

/// readlinkat(2)
pub(crate) fn readlinkat(cur: &mut Current, args: &Args) -> Result<u64> {
    read_link(cur, args.fd(0), args.addr(1), args.addr(2), args.int(3))
}

fn hard_link(cur: &Current, old_dir: i32, old: u64, new_dir: i32, new: u64, flags: u32) -> Result<u64> {
    only(flags, c::AT_SYMLINK_FOLLOW | c::AT_EMPTY_PATH)?;
    // What was handed over as a descriptor may not be meant to be named by whoever has it (linkat(2)).
    if flags & c::AT_EMPTY_PATH != 0 && !cur.cred().has(Caps::DAC_READ_SEARCH) {
        return Err(Errno::ENOENT);
    }
    let path = resolve_at(cur, old_dir, old, flags, flags & c::AT_SYMLINK_FOLLOW != 0)?;
    let name = path_arg(cur, new)?;
    let base = base(cur, new_dir, &name)?;
    Names::of(cur).lookup().link(&path, base.as_ref(), &name)?;
    Ok(0)
}

/// link(2)
pub(crate) fn link(cur: &mut Current, args: &Args) -> Result<u64> {
    hard_link(cur, CWD, args.addr(0), CWD, args.addr(1), 0)
}

/// linkat(2)
pub(crate) fn linkat(cur: &mut Current, args: &Args) -> Result<u64> {
    hard_link(cur, args.fd(0), args.addr(1), args.fd(2), args.addr(3), args.uint(4))
}

fn remove(cur: &Current, dirfd: i32, name: u64, dir: bool) -> Result<u64> {
    let name = path_arg(cur, name)?;
    let base = base(cur, dirfd, &name)?;
    Names::of(cur).lookup().remove(base.as_ref(), &name, dir)?;
    Ok(0)
}

/// unlink(2)
pub(crate) fn unlink(cur: &mut Current, args: &Args) -> Result<u64> {
    remove(cur, CWD, args.addr(0), false)
}

/// unlinkat(2)
pub(crate) fn unlinkat(cur: &mut Current, args: &Args) -> Result<u64> {
    only(args.uint(2), c::AT_REMOVEDIR)?;
    remove(cur, args.fd(0), args.addr(1), args.uint(2) & c::AT_REMOVEDIR != 0)
}

/// rmdir(2)
pub(crate) fn rmdir(cur: &mut Current, args: &Args) -> Result<u64> {
    remove(cur, CWD, args.addr(0), true)
}

fn move_name(cur: &Current, old_dir: i32, old: u64, new_dir: i32, new: u64, flags: u32) -> Result<u64> {
    let (old, new) = (path_arg(cur, old)?, path_arg(cur, new)?);
    let old_base = base(cur, old_dir, &old)?;
    let new_base = base(cur, new_dir, &new)?;
    Names::of(cur).lookup().rename(old_base.as_ref(), &old, new_base.as_ref(), &new, flags)?;
    Ok(0)
}

/// rename(2)
pub(crate) fn rename(cur: &mut Current, args: &Args) -> Result<u64> {
    move_name(cur, CWD, args.addr(0), CWD, args.addr(1), 0)
}

/// renameat(2)
pub(crate) fn renameat(cur: &mut Current, args: &Args) -> Result<u64> {
    move_name(cur, args.fd(0), args.addr(1), args.fd(2), args.addr(3), 0)
}

/// renameat2(2)
pub(crate) fn renameat2(cur: &mut Current, args: &Args) -> Result<u64> {
    move_name(cur, args.fd(0), args.addr(1), args.fd(2), args.addr(3), args.uint(4))
}
