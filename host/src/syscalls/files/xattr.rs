//! Extended attributes.

use super::names::{only, resolve_at};
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::vfs::privileges::CAPABILITIES;
use crate::vfs::{Kind, Path, Want, may, notify, owner};
use linux_raw_sys::general as c;

const NAME_MAX: usize = 255;
const VALUE_MAX: usize = 65536;

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

fn get(cur: &Current, path: &Path, args: &Args) -> Result<u64> {
    let name = name_arg(cur, args.addr(1))?;
    check(cur, path, &name, false)?;
    give(cur, &path.dentry.inode.xattr(&name)?, args.addr(2), args.size(3))
}

fn list(cur: &Current, path: &Path, args: &Args) -> Result<u64> {
    let mut all = Vec::new();
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
    give(cur, &all, args.addr(1), args.size(2))
}

fn set(cur: &Current, path: &Path, args: &Args) -> Result<u64> {
    only(args.uint(4), c::XATTR_CREATE | c::XATTR_REPLACE)?;
    let name = name_arg(cur, args.addr(1))?;
    if args.size(3) > VALUE_MAX {
        return Err(Errno::E2BIG);
    }
    let mut value = vec![0; args.size(3)];
    cur.mm().read(args.addr(2), &mut value)?;
    check(cur, path, &name, true)?;
    path.dentry.inode.set_xattr(&name, Some(&value), args.uint(4))?;
    notify::dentry(&path.dentry, c::IN_ATTRIB);
    Ok(0)
}

fn remove(cur: &Current, path: &Path, args: &Args) -> Result<u64> {
    let name = name_arg(cur, args.addr(1))?;
    check(cur, path, &name, true)?;
    path.dentry.inode.set_xattr(&name, None, 0)?;
    notify::dentry(&path.dentry, c::IN_ATTRIB);
    Ok(0)
}

/// getxattr(2)
pub(crate) fn getxattr(cur: &mut Current, args: &Args) -> Result<u64> {
    get(cur, &by_name(cur, args, true)?, args)
}

/// lgetxattr(2)
pub(crate) fn lgetxattr(cur: &mut Current, args: &Args) -> Result<u64> {
    get(cur, &by_name(cur, args, false)?, args)
}

/// fgetxattr(2)
pub(crate) fn fgetxattr(cur: &mut Current, args: &Args) -> Result<u64> {
    get(cur, &by_fd(cur, args)?, args)
}

/// listxattr(2)
pub(crate) fn listxattr(cur: &mut Current, args: &Args) -> Result<u64> {
    list(cur, &by_name(cur, args, true)?, args)
}

/// llistxattr(2)
pub(crate) fn llistxattr(cur: &mut Current, args: &Args) -> Result<u64> {
    list(cur, &by_name(cur, args, false)?, args)
}

/// flistxattr(2)
pub(crate) fn flistxattr(cur: &mut Current, args: &Args) -> Result<u64> {
    list(cur, &by_fd(cur, args)?, args)
}

/// setxattr(2)
pub(crate) fn setxattr(cur: &mut Current, args: &Args) -> Result<u64> {
    set(cur, &by_name(cur, args, true)?, args)
}

/// lsetxattr(2)
pub(crate) fn lsetxattr(cur: &mut Current, args: &Args) -> Result<u64> {
    set(cur, &by_name(cur, args, false)?, args)
}

/// fsetxattr(2)
pub(crate) fn fsetxattr(cur: &mut Current, args: &Args) -> Result<u64> {
    set(cur, &by_fd(cur, args)?, args)
}

/// removexattr(2)
pub(crate) fn removexattr(cur: &mut Current, args: &Args) -> Result<u64> {
    remove(cur, &by_name(cur, args, true)?, args)
}

/// lremovexattr(2)
pub(crate) fn lremovexattr(cur: &mut Current, args: &Args) -> Result<u64> {
    remove(cur, &by_name(cur, args, false)?, args)
}

/// fremovexattr(2)
pub(crate) fn fremovexattr(cur: &mut Current, args: &Args) -> Result<u64> {
    remove(cur, &by_fd(cur, args)?, args)
}
