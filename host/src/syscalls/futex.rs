//! futex, robust lists.

use super::Args;
use super::args_time::{deadline, timespec};
use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::kernel::futex::ANY;
use crate::time::realtime_offset_ns;

const WAIT: u32 = 0;
const WAKE: u32 = 1;
const REQUEUE: u32 = 3;
const CMP_REQUEUE: u32 = 4;
const WAKE_OP: u32 = 5;
const WAIT_BITSET: u32 = 9;
const WAKE_BITSET: u32 = 10;
const PRIVATE_FLAG: u32 = 128;
const CLOCK_REALTIME: u32 = 256;

/// The only size of `struct robust_list_head`.
const ROBUST_LIST_HEAD_SIZE: usize = 24;

pub(super) fn futex(cur: &mut Current, args: &Args) -> Result<u64> {
    let (addr, op, value) = (args.addr(0), args.uint(1), args.uint(2));
    let shared = op & PRIVATE_FLAG == 0;
    // Counts are `int`s; a negative one wakes one (Linux compares after incrementing).
    let count = |value: u64| usize::try_from(value as i32).unwrap_or(1);
    let kernel = &cur.kernel;
    match op & !(PRIVATE_FLAG | CLOCK_REALTIME) {
        WAKE => kernel.futexes.wake(cur.mm(), addr, shared, count(args.addr(2)).max(1), ANY),
        WAKE_BITSET => kernel.futexes.wake(cur.mm(), addr, shared, count(args.addr(2)).max(1), args.uint(5)),
        WAIT => {
            let timeout = timespec(cur.mm(), args.addr(3))?;
            wait(cur, addr, shared, value, deadline(timeout), ANY)
        }
        WAIT_BITSET => {
            let at = timespec(cur.mm(), args.addr(3))?;
            let deadline =
                at.map(
                    |at| {
                        if op & CLOCK_REALTIME != 0 { at.saturating_sub(realtime_offset_ns()) } else { at }
                    },
                );
            wait(cur, addr, shared, value, deadline, args.uint(5))
        }
        kind @ (REQUEUE | CMP_REQUEUE) => {
            let (wake, requeue) = (args.int(2), args.addr(3) as i32);
            if wake < 0 || requeue < 0 {
                return Err(Errno::EINVAL);
            }
            let expected = (kind == CMP_REQUEUE).then(|| args.uint(5));
            let counts = [wake as usize, requeue as usize];
            kernel.futexes.requeue(cur.mm(), [addr, args.addr(4)], shared, counts, expected)
        }
        WAKE_OP => {
            let counts = [count(args.addr(2)), count(args.addr(3))];
            kernel.futexes.wake_op(cur.mm(), [addr, args.addr(4)], shared, counts, args.uint(5))
        }
        _ => Err(Errno::ENOSYS),
    }
}

/// A wait with a timeout is continued, not made again, when no handler runs.
fn wait(
    cur: &mut Current,
    addr: u64,
    shared: bool,
    value: u32,
    deadline: Option<u64>,
    bitset: u32,
) -> Result<u64> {
    match cur.futex_wait(addr, shared, value, deadline, bitset) {
        Err(Errno::ERESTARTSYS) if deadline.is_some() => {
            Err(cur.restart_with(Box::new(move |cur| wait(cur, addr, shared, value, deadline, bitset))))
        }
        other => other,
    }
}

pub(super) fn set_robust_list(cur: &mut Current, args: &Args) -> Result<u64> {
    if args.size(1) != ROBUST_LIST_HEAD_SIZE {
        return Err(Errno::EINVAL);
    }
    cur.robust_list = args.addr(0);
    Ok(0)
}

pub(super) fn get_robust_list(cur: &mut Current, args: &Args) -> Result<u64> {
    let tid = args.int(0);
    if tid != 0 && tid != cur.task.tid() {
        let found = cur.kernel.task(tid).is_some();
        return Err(if found { Errno::EPERM } else { Errno::ESRCH });
    }
    cur.mm().write_val(args.addr(1), &cur.robust_list)?;
    cur.mm().write_val(args.addr(2), &(ROBUST_LIST_HEAD_SIZE as u64))?;
    Ok(0)
}
