//! mseal(2).

use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::syscalls::Args;

/// mseal(2).
pub(crate) fn mseal(cur: &mut Current, args: &Args) -> Result<u64> {
    if args.addr(2) != 0 {
        return Err(Errno::EINVAL);
    }
    cur.mm().seal(args.range_start(0), args.addr(1)).map(|()| 0)
}
