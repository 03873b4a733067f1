//! cachestat(2): which pages of a file are in memory.

use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::mm::{PAGE_SIZE, put_ref};
use crate::syscalls::Args;

/// Pages asked about at a time.
const BATCH: usize = 64;

/// cachestat(2). All files are memory and are never written back, so nothing is dirty, and nothing was evicted.
pub(crate) fn cachestat(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = cur.file(args.fd(0))?;
    let [offset, len] = cur.mm().read_val::<[u64; 2]>(args.addr(1))?;
    if args.uint(3) != 0 {
        return Err(Errno::EINVAL);
    }
    let mut cached = 0_u64;
    if let Some(object) = file.mappable() {
        let last = if len == 0 { u64::MAX } else { offset.saturating_add(len - 1) };
        let pages = object.size().div_ceil(PAGE_SIZE);
        let (mut at, end) = (offset / PAGE_SIZE, (last / PAGE_SIZE).saturating_add(1).min(pages));
        while at < end {
            let count = (end - at).min(BATCH as u64);
            let mut batch = [const { None }; BATCH];
            object.ready(at, &mut batch[..count as usize]);
            for frame in batch.into_iter().flatten() {
                put_ref(frame);
                cached += 1;
            }
            at += count;
            cur.pause()?;
        }
    }
    cur.mm().write_val(args.addr(2), &[cached, 0, 0, 0, 0])?;
    Ok(0)
}
