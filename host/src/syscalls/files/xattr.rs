//! Extended attributes.

use super::names::{Names, only, resolve_at, versioned};
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::vfs::acl::{self, Acl, Which};
use crate::vfs::privileges::CAPABILITIES;
use crate::vfs::{Kind, Path, Want, may, notify, owner};
use linux_raw_sys::general as c;

const NAME_MAX: usize = 255;
const VALUE_MAX: usize = 65536;
/// Bytes of `struct xattr_args` (linux/xattr.h).
const ARGS: usize = 16;

fn by_name(cur: &Current, args: &Args, follow: bool) -> Result<Path> {
    resolve_at(cur, c::AT_FDCWD, args.addr(0), 0, follow)
}

fn by_fd(cur: &Current, args: &Args) -> Result<Path> {
    Ok(cur.file(args.fd(0))?.path())
}

fn name_arg(cur: &Current, addr: u64) -> Result<Vec<u8>> {
    let name = cur.mm().read_cstr(addr, NAME_MAX + 1).map_err(|errno| match errno {
        Errno::ENAMETOOLONG => Errno::ERANGE,
        other => other,
    })?;
    if name.is_empty() { Err(Errno::ERANGE) } else { Ok(name) }
}

/// xattr(7): who may read and write which name space.
fn check(cur: &Current, path: &Path, name: &[u8], writes: bool) -> Result<()> {
    let meta = path.dentry.inode.meta();
    let cred = cur.cred();
    if writes {
        path.mount.writable()?;
        if meta.is_fixed() {
            return Err(Errno::EPERM);
        }
    }
    if name.starts_with(b"user.") {
        if !matches!(meta.kind, Kind::File | Kind::Dir) {
            return Err(if writes { Errno::EPERM } else { Errno::ENODATA });
        }
        return may(&cred, meta, if writes { Want::WRITE } else { Want::READ });
    }
    if name.starts_with(b"trusted.") && !cred.has(Caps::SYS_ADMIN) {
        return Err(if writes { Errno::EPERM } else { Errno::ENODATA });
    }
    if writes && name.starts_with(b"security.") {
        let needed = if name == CAPABILITIES { Caps::SETFCAP } else { Caps::SYS_ADMIN };
        return if cred.has(needed) { Ok(()) } else { Err(Errno::EPERM) };
    }
    if writes { owner(&cred, meta) } else { Ok(()) }
}

/// Copies a value out as these calls do: size 0 asks for the length.
fn give(cur: &Current, value: &[u8], addr: u64, size: usize) -> Result<u64> {
    if size > 0 {
        if value.len() > size {
            return Err(Errno::ERANGE);
        }
        cur.mm().write(addr, value)?;
    }
    Ok(value.len() as u64)
}

/// A value in the caller's memory: where, and how long.
type Value = (u64, usize);

fn get(cur: &Current, path: &Path, name: u64, (addr, size): Value) -> Result<u64> {
    let name = name_arg(cur, name)?;
    if let Some(which) = Which::of(&name) {
        acl::can_have(&*path.dentry.inode)?;
        let list = path.dentry.inode.meta().acls.get(which).ok_or(Errno::ENODATA)?;
        return give(cur, &list.show(&cur.cred().user_ns), addr, size);
    }
    check(cur, path, &name, false)?;
    give(cur, &path.dentry.inode.xattr(&name)?, addr, size)
}

fn list(cur: &Current, path: &Path, (addr, size): Value) -> Result<u64> {
    let mut all = Vec::new();
    for which in Which::ALL {
        if path.dentry.inode.meta().acls.get(which).is_some() {
            all.extend_from_slice(which.name());
            all.push(0);
        }
    }
    let admin = cur.cred().has(Caps::SYS_ADMIN);
    for name in path.dentry.inode.xattr_names().or_else(|errno| match errno {
        Errno::EOPNOTSUPP => Ok(Vec::new()),
        other => Err(other),
    })? {
        if admin || !name.starts_with(b"trusted.") {
            all.extend_from_slice(&name);
            all.push(0);
        }
    }
    give(cur, &all, addr, size)
}

fn set(cur: &Current, path: &Path, name: u64, (addr, size): Value, flags: u32) -> Result<u64> {
    only(flags, c::XATTR_CREATE | c::XATTR_REPLACE)?;
    let name = name_arg(cur, name)?;
    if size > VALUE_MAX {
        return Err(Errno::E2BIG);
    }
    let mut value = vec![0; size];
    cur.mm().read(addr, &mut value)?;
    if let Some(which) = Which::of(&name) {
        path.mount.writable()?;
        let names = Names::of(cur);
        let list = Acl::parse(&value, &names.cred.user_ns)?;
        names.lookup().set_acl(path, which, list)?;
        return Ok(0);
    }
    check(cur, path, &name, true)?;
    path.dentry.inode.set_xattr(&name, Some(&value), flags)?;
    notify::dentry(&path.dentry, c::IN_ATTRIB);
    Ok(0)
}

fn remove(cur: &Current, path: &Path, name: u64) -> Result<u64> {
    let name = name_arg(cur, name)?;
    if let Some(which) = Which::of(&name) {
        Names::of(cur).lookup().set_acl(path, which, None)?;
        return Ok(0);
    }
    check(cur, path, &name, true)?;
    path.dentry.inode.set_xattr(&name, None, 0)?;
    notify::dentry(&path.dentry, c::IN_ATTRIB);
    Ok(0)
}

/// getxattr(2)
pub(crate) fn getxattr(cur: &mut Current, args: &Args) -> Result<u64> {
    get(cur, &by_name(cur, args, true)?, args.addr(1), (args.addr(2), args.size(3)))
}

/// lgetxattr(2)
pub(crate) fn lgetxattr(cur: &mut Current, args: &Args) -> Result<u64> {
    get(cur, &by_name(cur, args, false)?, args.addr(1), (args.addr(2), args.size(3)))
}

/// fgetxattr(2)
pub(crate) fn fgetxattr(cur: &mut Current, args: &Args) -> Result<u64> {
    get(cur, &by_fd(cur, args)?, args.addr(1), (args.addr(2), args.size(3)))
}

/// listxattr(2)
pub(crate) fn listxattr(cur: &mut Current, args: &Args) -> Result<u64> {
    list(cur, &by_name(cur, args, true)?, (args.addr(1), args.size(2)))
}

/// llistxattr(2)
pub(crate) fn llistxattr(cur: &mut Current, args: &Args) -> Result<u64> {
    list(cur, &by_name(cur, args, false)?, (args.addr(1), args.size(2)))
}

/// flistxattr(2)
pub(crate) fn flistxattr(cur: &mut Current, args: &Args) -> Result<u64> {
    list(cur, &by_fd(cur, args)?, (args.addr(1), args.size(2)))
}

/// setxattr(2)
pub(crate) fn setxattr(cur: &mut Current, args: &Args) -> Result<u64> {
    set(cur, &by_name(cur, args, true)?, args.addr(1), (args.addr(2), args.size(3)), args.uint(4))
}

/// lsetxattr(2)
pub(crate) fn lsetxattr(cur: &mut Current, args: &Args) -> Result<u64> {
    set(cur, &by_name(cur, args, false)?, args.addr(1), (args.addr(2), args.size(3)), args.uint(4))
}

/// fsetxattr(2)
pub(crate) fn fsetxattr(cur: &mut Current, args: &Args) -> Result<u64> {
    set(cur, &by_fd(cur, args)?, args.addr(1), (args.addr(2), args.size(3)), args.uint(4))
}

/// removexattr(2)
pub(crate) fn removexattr(cur: &mut Current, args: &Args) -> Result<u64> {
    remove(cur, &by_name(cur, args, true)?, args.addr(1))
}

/// lremovexattr(2)
pub(crate) fn lremovexattr(cur: &mut Current, args: &Args) -> Result<u64> {
    remove(cur, &by_name(cur, args, false)?, args.addr(1))
}

/// fremovexattr(2)
pub(crate) fn fremovexattr(cur: &mut Current, args: &Args) -> Result<u64> {
    remove(cur, &by_fd(cur, args)?, args.addr(1))
}

/// What the calls by directory, name and `AT_*` flags are about (Linux 6.13).
fn at(cur: &Current, args: &Args) -> Result<Path> {
    let flags = args.uint(2);
    only(flags, c::AT_SYMLINK_NOFOLLOW | c::AT_EMPTY_PATH)?;
    resolve_at(cur, args.fd(0), args.addr(1), flags, flags & c::AT_SYMLINK_NOFOLLOW == 0)
}

/// `struct xattr_args`, of which later versions are taken where they say no more: the value, and setxattr(2)'s flags.
fn value_and_flags(cur: &Current, args: &Args) -> Result<(Value, u32)> {
    let known: [u8; ARGS] = versioned(cur, args.addr(4), args.size(5), ARGS)?;
    let half = |at: usize| u32::from_ne_bytes(std::array::from_fn(|i| known[at + i]));
    let value = u64::from_ne_bytes(std::array::from_fn(|i| known[i]));
    Ok(((value, half(8) as usize), half(12)))
}

/// getxattrat(2)
pub(crate) fn getxattrat(cur: &mut Current, args: &Args) -> Result<u64> {
    let (value, flags) = value_and_flags(cur, args)?;
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    get(cur, &at(cur, args)?, args.addr(3), value)
}

/// listxattrat(2)
pub(crate) fn listxattrat(cur: &mut Current, args: &Args) -> Result<u64> {
    list(cur, &at(cur, args)?, (args.addr(3), args.size(4)))
}

/// setxattrat(2)
pub(crate) fn setxattrat(cur: &mut Current, args: &Args) -> Result<u64> {
    let (value, flags) = value_and_flags(cur, args)?;
    set(cur, &at(cur, args)?, args.addr(3), value, flags)
}

/// removexattrat(2)
pub(crate) fn removexattrat(cur: &mut Current, args: &Args) -> Result<u64> {
    remove(cur, &at(cur, args)?, args.addr(3))
}
