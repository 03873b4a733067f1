//! open(2) and its variants.

use super::names::{Names, base, caller, only, versioned};
use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::syscalls::descriptors::fd::install;
use crate::vfs::{OpenHow, PATH_MAX, Resolve};
use linux_raw_sys::general as c;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Every flag that open(2) knows; others are ignored by open and refused by openat2.
const KNOWN_FLAGS: u32 = c::O_ACCMODE
    | c::O_CREAT
    | c::O_EXCL
    | c::O_NOCTTY
    | c::O_TRUNC
    | c::O_APPEND
    | c::O_NONBLOCK
    | c::O_DSYNC
    | c::O_DIRECT
    | c::O_LARGEFILE
    | c::O_DIRECTORY
    | c::O_NOFOLLOW
    | c::O_NOATIME
    | c::O_CLOEXEC
    | c::O_SYNC
    | c::O_PATH
    | c::O_TMPFILE
    | c::FASYNC;

fn open_at(cur: &mut Current, dirfd: i32, name: u64, flags: u32, mode: u32, resolve: Resolve) -> Result<u64> {
    // open makes no directories, and would make a file where it was asked for one (fs/open.c, build_open_flags).
    const NEW_DIRECTORY: u32 = c::O_CREAT | c::O_DIRECTORY;
    if flags & (NEW_DIRECTORY | c::O_PATH) == NEW_DIRECTORY {
        return Err(Errno::EINVAL);
    }
    let name = cur.mm().read_cstr(name, PATH_MAX)?;
    let base = base(cur, dirfd, &name)?;
    let names = Names::of(cur);
    // 64-bit kernels add O_LARGEFILE to every open; F_GETFL shows it.
    let flags = if flags & c::O_PATH != 0 { flags } else { flags | c::O_LARGEFILE };
    let how = OpenHow { flags, mode, resolve, caller: caller(cur) };
    let file = names.lookup().open(base.as_ref(), &name, &how)?;
    if flags & c::O_NONBLOCK == 0
        && !file.ops().opened()
        && let Some(queue) = file.ops().wait_queue()
    {
        cur.wait_on(&[(queue, !0)], None, &mut || file.ops().opened().then_some(()))?;
    }
    file.announce();
    install(cur, file, flags)
}

/// open(2)
pub(crate) fn open(cur: &mut Current, args: &Args) -> Result<u64> {
    open_at(
        cur,
        c::AT_FDCWD,
        args.addr(0),
        args.uint(1) & KNOWN_FLAGS,
        args.uint(2) & 0o7777,
        Resolve::empty(),
    )
}

/// creat(2)
pub(crate) fn creat(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = c::O_CREAT | c::O_WRONLY | c::O_TRUNC;
    open_at(cur, c::AT_FDCWD, args.addr(0), flags, args.uint(1) & 0o7777, Resolve::empty())
}

/// openat(2)
pub(crate) fn openat(cur: &mut Current, args: &Args) -> Result<u64> {
    let (flags, mode) = (args.uint(2) & KNOWN_FLAGS, args.uint(3) & 0o7777);
    open_at(cur, args.fd(0), args.addr(1), flags, mode, Resolve::empty())
}

/// `struct open_how`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct RawHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// openat2(2)
pub(crate) fn openat2(cur: &mut Current, args: &Args) -> Result<u64> {
    const SIZE: usize = size_of::<RawHow>();
    let how: RawHow = zerocopy::transmute!(versioned::<SIZE>(cur, args.addr(2), args.size(3), SIZE)?);
    let flags = u32::try_from(how.flags).map_err(|_| Errno::EINVAL)?;
    only(flags, KNOWN_FLAGS)?;
    let creates = flags & c::O_CREAT != 0 || flags & c::O_TMPFILE == c::O_TMPFILE;
    if how.mode & !0o7777 != 0 || (!creates && how.mode != 0) {
        return Err(Errno::EINVAL);
    }
    let mut resolve = Resolve::empty();
    let mut left = how.resolve;
    for (bit, meaning) in [
        (c::RESOLVE_NO_XDEV, Resolve::NO_XDEV),
        (c::RESOLVE_NO_MAGICLINKS, Resolve::NO_MAGICLINKS),
        (c::RESOLVE_NO_SYMLINKS, Resolve::NO_SYMLINKS | Resolve::NO_MAGICLINKS),
        (c::RESOLVE_BENEATH, Resolve::BENEATH),
        (c::RESOLVE_IN_ROOT, Resolve::IN_ROOT),
        (c::RESOLVE_CACHED, Resolve::empty()),
    ] {
        if left & u64::from(bit) != 0 {
            resolve |= meaning;
            left &= !u64::from(bit);
        }
    }
    if left != 0 || resolve.contains(Resolve::BENEATH | Resolve::IN_ROOT) {
        return Err(Errno::EINVAL);
    }
    open_at(cur, args.fd(0), args.addr(1), flags, how.mode as u32, resolve)
}
