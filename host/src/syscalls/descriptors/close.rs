//! Closing descriptors.

use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::syscalls::files::names::only;

/// linux/close_range.h.
const CLOSE_RANGE_UNSHARE: u32 = 2;

const CLOSE_RANGE_CLOEXEC: u32 = 4;

/// close(2)
pub(crate) fn close(cur: &mut Current, args: &Args) -> Result<u64> {
    drop(cur.fds().close(args.fd(0))?);
    Ok(0)
}

/// close_range(2)
pub(crate) fn close_range(cur: &mut Current, args: &Args) -> Result<u64> {
    let (first, last, flags) = (args.uint(0), args.uint(1), args.uint(2));
    only(flags, CLOSE_RANGE_CLOEXEC | CLOSE_RANGE_UNSHARE)?;
    if first > last {
        return Err(Errno::EINVAL);
    }
    if flags & CLOSE_RANGE_UNSHARE != 0 {
        let own = cur.fds().fork();
        cur.set_fds(own);
    }
    cur.fds().close_range(first, last, flags & CLOSE_RANGE_CLOEXEC != 0);
    Ok(0)
}
