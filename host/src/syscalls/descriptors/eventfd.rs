//! Counters behind descriptors: eventfd(2).

use super::fd::install;
use crate::abi::Result;
use crate::fs::eventfd::{self, EventFd};
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::syscalls::files::names::only;
use linux_raw_sys::general as c;

/// eventfd(2)
pub(crate) fn eventfd(cur: &mut Current, args: &Args) -> Result<u64> {
    install(cur, EventFd::open(args.uint(0).into(), 0), 0)
}

/// eventfd2(2)
pub(crate) fn eventfd2(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = args.uint(1);
    only(flags, c::O_CLOEXEC | c::O_NONBLOCK | eventfd::SEMAPHORE)?;
    install(cur, EventFd::open(args.uint(0).into(), flags), flags)
}
