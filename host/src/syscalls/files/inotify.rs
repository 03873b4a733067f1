//! inotify: who wants to know what happens to files.

use super::names::{Names, only, path_arg};
use crate::abi::{Errno, Result};
use crate::fs::inotify::Inotify;
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::syscalls::descriptors::fd::install;
use crate::vfs::{Kind, Resolve, Want, may};
use linux_raw_sys::general as c;

/// What inotify_add_watch(2) takes.
const KNOWN: u32 = c::IN_ALL_EVENTS
    | c::IN_UNMOUNT
    | c::IN_Q_OVERFLOW
    | c::IN_IGNORED
    | c::IN_ONLYDIR
    | c::IN_DONT_FOLLOW
    | c::IN_EXCL_UNLINK
    | c::IN_MASK_CREATE
    | c::IN_MASK_ADD
    | c::IN_ISDIR
    | c::IN_ONESHOT;

fn init(cur: &Current, flags: u32) -> Result<u64> {
    only(flags, c::O_CLOEXEC | c::O_NONBLOCK)?;
    let fs = cur.fs();
    let file = Inotify::open(&fs.namespace().watchers, cur.cred().uid.effective, flags)?;
    install(cur, file, flags)
}

/// inotify_init(2)
pub(crate) fn inotify_init(cur: &mut Current, _args: &Args) -> Result<u64> {
    init(cur, 0)
}

/// inotify_init1(2)
pub(crate) fn inotify_init1(cur: &mut Current, args: &Args) -> Result<u64> {
    init(cur, args.uint(0))
}

/// inotify_add_watch(2)
pub(crate) fn inotify_add_watch(cur: &mut Current, args: &Args) -> Result<u64> {
    let mask = args.uint(2);
    if mask & KNOWN == 0 {
        return Err(Errno::EINVAL);
    }
    only(mask, KNOWN)?;
    let file = cur.file(args.fd(0))?;
    let both = c::IN_MASK_ADD | c::IN_MASK_CREATE;
    if mask & both == both {
        return Err(Errno::EINVAL);
    }
    let inotify = file.downcast::<Inotify>().ok_or(Errno::EINVAL)?;
    let name = path_arg(cur, args.addr(1))?;
    let names = Names::of(cur);
    let mut how = Resolve::empty();
    how.set(Resolve::FOLLOW, mask & c::IN_DONT_FOLLOW == 0);
    let path = names.lookup().resolve(None, &name, how)?;
    if mask & c::IN_ONLYDIR != 0 && path.dentry.kind() != Kind::Dir {
        return Err(Errno::ENOTDIR);
    }
    may(&names.cred, path.dentry.inode.meta(), Want::READ)?;
    Ok(inotify.group().watch(&path.dentry, mask)? as u64)
}

/// inotify_rm_watch(2)
pub(crate) fn inotify_rm_watch(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = cur.file(args.fd(0))?;
    file.downcast::<Inotify>().ok_or(Errno::EINVAL)?.group().remove(args.int(1))?;
    Ok(0)
}
