//! The working directory and the root of a process.

use super::names::{Names, path_arg};
use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::vfs::Resolve;

/// Fails unless `path` is a directory that the caller may search.
fn enter(names: &Names, path: &crate::vfs::Path) -> Result<()> {
    let meta = path.dentry.inode.meta();
    if meta.kind != crate::vfs::Kind::Dir {
        return Err(Errno::ENOTDIR);
    }
    crate::vfs::may(&names.cred, meta, crate::vfs::Want::EXEC)
}

/// chdir(2)
pub(crate) fn chdir(cur: &mut Current, args: &Args) -> Result<u64> {
    let name = path_arg(cur, args.addr(0))?;
    let names = Names::of(cur);
    let path = names.lookup().resolve(None, &name, Resolve::FOLLOW)?;
    enter(&names, &path)?;
    names.fs.set_cwd(path);
    Ok(0)
}

/// fchdir(2)
pub(crate) fn fchdir(cur: &mut Current, args: &Args) -> Result<u64> {
    let path = cur.fds().get_path(args.fd(0))?.path();
    let names = Names::of(cur);
    enter(&names, &path)?;
    names.fs.set_cwd(path);
    Ok(0)
}

/// chroot(2)
pub(crate) fn chroot(cur: &mut Current, args: &Args) -> Result<u64> {
    let name = path_arg(cur, args.addr(0))?;
    let names = Names::of(cur);
    let path = names.lookup().resolve(None, &name, Resolve::FOLLOW)?;
    enter(&names, &path)?;
    if !names.cred.has_own(crate::cred::Caps::SYS_CHROOT) {
        return Err(Errno::EPERM);
    }
    names.fs.set_root(path);
    Ok(0)
}

/// getcwd(2)
pub(crate) fn getcwd(cur: &mut Current, args: &Args) -> Result<u64> {
    let fs = cur.fs();
    let cwd = fs.cwd();
    if cwd.dentry.is_dead() {
        return Err(Errno::ENOENT);
    }
    let (reached, mut name) = cwd.display_from(&fs.root());
    if !reached {
        name.splice(0..0, *b"(unreachable)");
    }
    name.push(0);
    if name.len() > args.size(1) {
        return Err(Errno::ERANGE);
    }
    cur.mm().write(args.addr(0), &name)?;
    Ok(name.len() as u64)
}
