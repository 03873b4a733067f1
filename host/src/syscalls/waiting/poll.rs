//! poll and select.

use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::kernel::signal::SigSet;
use crate::sync::WaitQueue;
use crate::syscalls::Args;
use crate::syscalls::args_time::timespec;
use crate::time::{Given, NSEC_PER_USEC, monotonic_ns};
use crate::vfs::File;
use linux_raw_sys::general as c;
use std::sync::Arc;

/// Events that are reported whether asked for or not.
const ALWAYS: u32 = c::POLLERR | c::POLLHUP;
/// What select(2) calls readable, writable, exceptional.
const SELECT_IN: u32 = c::POLLIN | c::POLLRDNORM | c::POLLRDBAND | c::POLLHUP | c::POLLERR;
const SELECT_OUT: u32 = c::POLLOUT | c::POLLWRNORM | c::POLLWRBAND | c::POLLERR;
const SELECT_EX: u32 = c::POLLPRI;
const USEC_PER_SEC: i64 = 1_000_000;

/// A file and what is waited for.
struct Watched {
    file: Option<Arc<File>>,
    events: u32,
}

impl Watched {
    /// What holds of what was asked for.
    fn now(&self) -> u32 {
        match &self.file {
            Some(file) => file.ops().poll() & (self.events | ALWAYS),
            None => c::POLLNVAL,
        }
    }
}

/// Waits until `scan` finds something. 0 after the deadline.
fn wait(
    cur: &mut Current,
    all: &[Watched],
    deadline: Option<u64>,
    scan: &mut dyn FnMut() -> u64,
) -> Result<u64> {
    let queues: Vec<(&WaitQueue, u32)> = all
        .iter()
        .filter_map(|w| w.file.as_ref()?.ops().wait_queue().map(|queue| (queue, w.events | ALWAYS)))
        .collect();
    let mut ready = || Some(scan()).filter(|&found| found > 0);
    match cur.wait_on(&queues, deadline, &mut ready) {
        Err(Errno::ETIMEDOUT) => Ok(0),
        Err(Errno::ERESTARTSYS) => Err(Errno::ERESTARTNOHAND),
        result => result,
    }
}

/// The deadline of a relative timeout: `Some(0)` is "do not wait", `None` for ever.
fn deadline(timeout: Option<u64>) -> Option<u64> {
    timeout.map(|ns| if ns == 0 { 0 } else { Given::from_ns(ns).after(monotonic_ns()) })
}

/// Blocks the signals of a temporary mask, if there is one.
pub(crate) fn temporary_mask(cur: &mut Current, addr: u64, size: usize) -> Result<()> {
    if addr == 0 {
        return Ok(());
    }
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    let bits: u64 = cur.mm().read_val(addr)?;
    cur.set_temporary_mask(SigSet(bits).minus(SigSet::UNBLOCKABLE));
    Ok(())
}

/// Tells the program how much of its timeout is left.
fn put_rest(cur: &Current, addr: u64, deadline: Option<u64>, unit: u64) {
    if let Some(deadline) = deadline
        && addr != 0
    {
        let rest = deadline.saturating_sub(monotonic_ns());
        let value = [(rest / 1_000_000_000) as i64, (rest % 1_000_000_000 / unit) as i64];
        // As Linux: a read-only timeout does not fail the call.
        let _ = cur.mm().write_val(addr, &value);
    }
}

fn do_poll(cur: &mut Current, addr: u64, count: u64, deadline: Option<u64>) -> Result<u64> {
    if count > cur.limit(c::RLIMIT_NOFILE) {
        return Err(Errno::EINVAL);
    }
    // struct pollfd: descriptor, then requested and returned events in one word.
    let mut raw: Vec<[i32; 2]> = cur.mm().read_vec(addr, count as usize)?;
    let fds = cur.fds();
    let all: Vec<Watched> = raw
        .iter()
        .filter(|entry| entry[0] >= 0)
        .map(|entry| Watched { file: fds.get(entry[0]).ok(), events: entry[1] as u32 & 0xffff })
        .collect();
    let mut results = vec![0u32; all.len()];
    let mut scan = || {
        let mut found = 0;
        for (watched, result) in all.iter().zip(&mut results) {
            *result = watched.now();
            found += u64::from(*result != 0);
        }
        found
    };
    let found = wait(cur, &all, deadline, &mut scan)?;
    let mut results = results.into_iter();
    for entry in &mut raw {
        let events = if entry[0] >= 0 { results.next().unwrap_or(0) } else { 0 };
        entry[1] = (entry[1] as u32 & 0xffff | events << 16) as i32;
    }
    // Only the returned events are written: the rest is the program's, and may have changed.
    for (index, entry) in raw.iter().enumerate() {
        cur.mm().write_val(addr + index as u64 * 8 + 6, &((entry[1] as u32 >> 16) as u16))?;
    }
    Ok(found)
}

/// poll(2)
pub(crate) fn poll(cur: &mut Current, args: &Args) -> Result<u64> {
    let timeout = u64::try_from(args.int(2)).ok().map(|ms| ms * 1_000_000);
    do_poll(cur, args.addr(0), args.uint(1).into(), deadline(timeout))
}

/// ppoll(2)
pub(crate) fn ppoll(cur: &mut Current, args: &Args) -> Result<u64> {
    let until = deadline(timespec(cur.mm(), args.addr(2))?);
    temporary_mask(cur, args.addr(3), args.size(4))?;
    let result = do_poll(cur, args.addr(0), args.uint(1).into(), until);
    put_rest(cur, args.addr(2), until, 1);
    result
}

/// Most descriptors select(2) takes: what Linux's dynamic sets allow is the size of the table; this is enough.
const MAX_SELECT: usize = 1 << 16;

fn do_select(cur: &mut Current, count: i32, sets: [u64; 3], deadline: Option<u64>) -> Result<u64> {
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?.min(MAX_SELECT);
    let words = count.div_ceil(64);
    let wanted = [SELECT_IN, SELECT_OUT, SELECT_EX];
    let mut given: Vec<Vec<u64>> = Vec::new();
    for addr in sets {
        given.push(if addr == 0 { vec![0; words] } else { cur.mm().read_vec(addr, words)? });
    }
    let fds = cur.fds();
    let mut all = Vec::new();
    let mut numbers = Vec::new();
    for fd in 0..count {
        let mut events = 0;
        for (set, want) in given.iter().zip(wanted) {
            if set[fd / 64] & 1 << (fd % 64) != 0 {
                events |= want;
            }
        }
        if events != 0 {
            all.push(Watched { file: Some(fds.get(fd as i32)?), events });
            numbers.push(fd);
        }
    }
    let mut out = vec![vec![0u64; words]; 3];
    let mut scan = || {
        let mut found = 0;
        for (watched, &fd) in all.iter().zip(&numbers) {
            let now = watched.now();
            for ((set, want), result) in given.iter().zip(wanted).zip(&mut out) {
                let bit = 1 << (fd % 64);
                if set[fd / 64] & bit != 0 && now & want != 0 {
                    result[fd / 64] |= bit;
                    found += 1;
                }
            }
        }
        found
    };
    let found = wait(cur, &all, deadline, &mut scan)?;
    for (addr, result) in sets.into_iter().zip(&out) {
        if addr != 0 {
            for (index, word) in result.iter().enumerate() {
                cur.mm().write_val(addr + index as u64 * 8, word)?;
            }
        }
    }
    Ok(found)
}

/// select(2)
pub(crate) fn select(cur: &mut Current, args: &Args) -> Result<u64> {
    let addr = args.addr(4);
    let timeout = if addr == 0 {
        None
    } else {
        let [sec, usec]: [i64; 2] = cur.mm().read_val(addr)?;
        // As Linux: more microseconds than a second has are seconds.
        let (more, rest) = (usec / USEC_PER_SEC, usec % USEC_PER_SEC);
        let given = Given::from_parts(sec.checked_add(more).ok_or(Errno::EINVAL)?, rest, NSEC_PER_USEC);
        Some(given.ok_or(Errno::EINVAL)?.ns())
    };
    let until = deadline(timeout);
    let result = do_select(cur, args.int(0), [args.addr(1), args.addr(2), args.addr(3)], until);
    put_rest(cur, addr, until, 1000);
    result
}

/// pselect6(2): the last argument points to the mask's address and size.
pub(crate) fn pselect6(cur: &mut Current, args: &Args) -> Result<u64> {
    let until = deadline(timespec(cur.mm(), args.addr(4))?);
    if args.addr(5) != 0 {
        let [mask, size]: [u64; 2] = cur.mm().read_val(args.addr(5))?;
        temporary_mask(cur, mask, size as usize)?;
    }
    let result = do_select(cur, args.int(0), [args.addr(1), args.addr(2), args.addr(3)], until);
    put_rest(cur, args.addr(4), until, 1);
    result
}
