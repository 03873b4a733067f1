//! futex, robust lists.

use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::kernel::futex::ANY;
use crate::kernel::namespaces::time::Shifted;
use crate::kernel::peek::As;
use crate::syscalls::Args;
use crate::syscalls::args_time::{deadline, timespec};
use crate::time::realtime_offset_ns;
use core::sync::atomic::Ordering;

const WAIT: u32 = 0;
const WAKE: u32 = 1;
const REQUEUE: u32 = 3;
const CMP_REQUEUE: u32 = 4;
const WAKE_OP: u32 = 5;
const LOCK_PI: u32 = 6;
const UNLOCK_PI: u32 = 7;
const TRYLOCK_PI: u32 = 8;
const WAIT_BITSET: u32 = 9;
const WAKE_BITSET: u32 = 10;
const LOCK_PI2: u32 = 13;
const PRIVATE_FLAG: u32 = 128;
const CLOCK_REALTIME: u32 = 256;

/// The only size of `struct robust_list_head`.
const ROBUST_LIST_HEAD_SIZE: usize = 24;

pub(crate) fn futex(cur: &mut Current, args: &Args) -> Result<u64> {
    let (addr, op, value) = (args.addr(0), args.uint(1), args.uint(2));
    let shared = op & PRIVATE_FLAG == 0;
    // Counts are `int`s; a negative one wakes one (Linux compares after incrementing).
    let count = |value: u64| usize::try_from(value as i32).unwrap_or(1);
    if op & CLOCK_REALTIME != 0 && !matches!(op & !(PRIVATE_FLAG | CLOCK_REALTIME), WAIT_BITSET | LOCK_PI2) {
        return Err(Errno::ENOSYS);
    }
    let kernel = &cur.kernel;
    match op & !(PRIVATE_FLAG | CLOCK_REALTIME) {
        WAKE => kernel.futexes.wake(cur.mm(), addr, shared, count(args.addr(2)).max(1), ANY),
        WAKE_BITSET => kernel.futexes.wake(cur.mm(), addr, shared, count(args.addr(2)).max(1), args.uint(5)),
        WAIT => {
            let timeout = timespec(cur.mm(), args.addr(3))?;
            wait(cur, addr, shared, value, deadline(timeout), ANY)
        }
        WAIT_BITSET => {
            let deadline = absolute(cur, args.addr(3), op & CLOCK_REALTIME != 0)?;
            wait(cur, addr, shared, value, deadline, args.uint(5))
        }
        kind @ (REQUEUE | CMP_REQUEUE) => {
            let (wake, requeue) = (args.int(2), args.addr(3) as i32);
            if wake < 0 || requeue < 0 {
                return Err(Errno::EINVAL);
            }
            let expected = (kind == CMP_REQUEUE).then(|| args.uint(5));
            let counts = [wake as usize, requeue as usize];
            kernel.futexes.requeue(cur.mm(), [(addr, shared), (args.addr(4), shared)], counts, expected)
        }
        WAKE_OP => {
            let counts = [count(args.addr(2)), count(args.addr(3))];
            kernel.futexes.wake_op(cur.mm(), [addr, args.addr(4)], shared, counts, args.uint(5))
        }
        // The older call knows one clock only.
        kind @ (LOCK_PI | LOCK_PI2) => {
            let realtime = kind == LOCK_PI || op & CLOCK_REALTIME != 0;
            let deadline = absolute(cur, args.addr(3), realtime)?;
            cur.futex_lock_pi(addr, shared, deadline, false)
        }
        TRYLOCK_PI => cur.futex_lock_pi(addr, shared, None, true),
        UNLOCK_PI => cur.futex_unlock_pi(addr, shared),
        // The two calls of condition variables with priority inheritance are missing: no libc makes them any more.
        _ => Err(Errno::ENOSYS),
    }
}

/// A timeout that names a moment, in CLOCK_MONOTONIC ns.
pub(super) fn absolute(cur: &Current, addr: u64, realtime: bool) -> Result<Option<u64>> {
    let at = timespec(cur.mm(), addr)?;
    let shifts = &cur.task.group.shifts;
    let monotonic = |at| shifts.outside(Shifted::Monotonic, at);
    Ok(at.map(|at| if realtime { at.saturating_sub(realtime_offset_ns()) } else { monotonic(at) }))
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

pub(crate) fn set_robust_list(cur: &mut Current, args: &Args) -> Result<u64> {
    if args.size(1) != ROBUST_LIST_HEAD_SIZE {
        return Err(Errno::EINVAL);
    }
    cur.task.robust_list.store(args.addr(0), Ordering::Relaxed);
    Ok(0)
}

pub(crate) fn get_robust_list(cur: &mut Current, args: &Args) -> Result<u64> {
    let task = match args.int(0) {
        0 => cur.task.clone(),
        tid => cur.task_called(tid)?,
    };
    task.peek(&cur.task.observer(), As::Real)?;
    let head = task.robust_list.load(Ordering::Relaxed);
    cur.mm().write_val(args.addr(2), &(ROBUST_LIST_HEAD_SIZE as u64))?;
    cur.mm().write_val(args.addr(1), &head)?;
    Ok(0)
}
