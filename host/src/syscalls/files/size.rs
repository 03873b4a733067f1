//! Sizes of files: truncating and allocating.

use super::names::{Names, path_arg};
use super::rw::{check_size, position};
use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::vfs::Resolve;
use linux_raw_sys::general as c;

/// What is given back of a file at a time.
const HOLE: u64 = 64 << 20;

/// truncate(2)
pub(crate) fn truncate(cur: &mut Current, args: &Args) -> Result<u64> {
    let len = position(args.long(1))?;
    let name = path_arg(cur, args.addr(0))?;
    let names = Names::of(cur);
    let path = names.lookup().resolve(None, &name, Resolve::FOLLOW)?;
    check_size(cur, path.stat().size, len)?;
    names.lookup().truncate(&path, len)?;
    Ok(0)
}

/// ftruncate(2)
pub(crate) fn ftruncate(cur: &mut Current, args: &Args) -> Result<u64> {
    let len = position(args.long(1))?;
    let file = cur.file(args.fd(0))?;
    if !file.writable() {
        return Err(Errno::EINVAL);
    }
    check_size(cur, file.stat().size, len)?;
    file.truncate(&cur.cred(), len)?;
    Ok(0)
}

/// fallocate(2)
pub(crate) fn fallocate(cur: &mut Current, args: &Args) -> Result<u64> {
    let (offset, len) = (position(args.long(2))?, position(args.long(3))?);
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    let (file, mode, cred) = (cur.file(args.fd(0))?, args.uint(1), cur.cred());
    if mode & c::FALLOC_FL_KEEP_SIZE == 0 && file.writable() && file.positioned() {
        check_size(cur, file.stat().size, offset.saturating_add(len))?;
    }
    if mode & (c::FALLOC_FL_PUNCH_HOLE | c::FALLOC_FL_ZERO_RANGE) == 0 || len <= HOLE {
        file.allocate(&cred, mode, offset, len)?;
        return Ok(0);
    }
    let end = offset.checked_add(len).filter(|end| *end <= i64::MAX as u64).ok_or(Errno::EFBIG)?;
    // Behind the end of the file there is nothing to give back, however far that goes.
    let used = file.stat().size.next_multiple_of(HOLE).clamp(offset + 1, end);
    let mut at = offset;
    while at < used {
        let part = HOLE.min(used - at);
        file.allocate(&cred, mode, at, part)?;
        at += part;
        cur.pause()?;
    }
    if used < end {
        file.allocate(&cred, mode, used, end - used)?;
    }
    Ok(0)
}
