//! Locking pages in memory: mlock(2).

use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::kernel::Current;
use crate::mm::Locking;
use crate::syscalls::Args;
use linux_raw_sys::general as c;

/// How the caller may lock memory.
fn lock(cur: &Current, on_fault: bool) -> Option<Locking> {
    Some(Locking { on_fault, unlimited: cur.cred().has(Caps::IPC_LOCK) })
}

/// mlock(2).
pub(crate) fn mlock(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.mm().mlock(args.range_start(0), args.addr(1), lock(cur, false)).map(|()| 0)
}

/// mlock2(2).
pub(crate) fn mlock2(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = args.uint(2);
    if flags & !c::MLOCK_ONFAULT != 0 {
        return Err(Errno::EINVAL);
    }
    cur.mm().mlock(args.range_start(0), args.addr(1), lock(cur, flags != 0)).map(|()| 0)
}

/// munlock(2).
pub(crate) fn munlock(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.mm().mlock(args.range_start(0), args.addr(1), None).map(|()| 0)
}

/// mlockall(2).
pub(crate) fn mlockall(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = args.uint(0);
    let known = c::MCL_CURRENT | c::MCL_FUTURE | c::MCL_ONFAULT;
    if flags == 0 || flags & !known != 0 || flags == c::MCL_ONFAULT {
        return Err(Errno::EINVAL);
    }
    let has = |bit: u32| flags & bit != 0;
    cur.mm().mlock_all(has(c::MCL_CURRENT), has(c::MCL_FUTURE), lock(cur, has(c::MCL_ONFAULT))).map(|()| 0)
}

/// munlockall(2).
pub(crate) fn munlockall(cur: &mut Current, _: &Args) -> Result<u64> {
    cur.mm().mlock_all(true, false, None).map(|()| 0)
}
