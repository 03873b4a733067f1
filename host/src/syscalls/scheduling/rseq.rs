//! rseq(2).

use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::syscalls::Args;

/// RSEQ_FLAG_UNREGISTER.
const UNREGISTER: u32 = 1;

/// rseq(2)
pub(crate) fn rseq(cur: &mut Current, args: &Args) -> Result<u64> {
    let (addr, len, signature) = (args.addr(0), args.uint(1), args.uint(3));
    match args.uint(2) {
        0 => cur.register_rseq(addr, len, signature)?,
        UNREGISTER => cur.unregister_rseq(addr, len, signature)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}
