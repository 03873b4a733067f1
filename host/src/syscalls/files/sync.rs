//! Getting files onto storage and into caches.

use super::names::only;
use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::vfs::Kind;

/// fsync(2), fdatasync(2)
pub(crate) fn fsync(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.file(args.fd(0))?.ops().sync()?;
    Ok(0)
}

/// sync_file_range(2): nothing is written late.
pub(crate) fn sync_file_range(cur: &mut Current, args: &Args) -> Result<u64> {
    only(args.uint(3), 7)?;
    let file = cur.file(args.fd(0))?;
    match Kind::from_mode(file.stat().mode) {
        Some(Kind::File | Kind::Dir | Kind::Block | Kind::Symlink) => Ok(0),
        _ => Err(Errno::ESPIPE),
    }
}

/// sync(2). Files of the sandbox's own are memory; directories of the host that are written through have something to sync.
pub(crate) fn sync(cur: &mut Current, _args: &Args) -> Result<u64> {
    for mount in cur.fs().namespace().mounts() {
        let _told_by_syncfs = mount.root.inode.sync_all();
    }
    Ok(0)
}

/// syncfs(2)
pub(crate) fn syncfs(cur: &mut Current, args: &Args) -> Result<u64> {
    if let Some(path) = cur.file(args.fd(0))?.named() {
        path.mount.root.inode.sync_all()?;
    }
    Ok(0)
}

/// posix_fadvise(2): advice, which Linux need not take either.
pub(crate) fn fadvise64(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = cur.file(args.fd(0))?;
    if args.uint(3) > 5 || args.long(2) < 0 {
        return Err(Errno::EINVAL);
    }
    match Kind::from_mode(file.stat().mode) {
        Some(Kind::Fifo) => Err(Errno::ESPIPE),
        _ => Ok(0),
    }
}

/// readahead(2): advice, too.
pub(crate) fn readahead(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = cur.file(args.fd(0))?;
    if !file.readable() {
        return Err(Errno::EBADF);
    }
    match Kind::from_mode(file.stat().mode) {
        Some(Kind::File) => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}
