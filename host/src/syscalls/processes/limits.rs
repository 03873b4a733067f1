//! Resource limits and usage.

use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::cred::userns::UserNs;
use crate::kernel::limits::{self, Limit};
use crate::kernel::{Current, ThreadGroup, Usage};
use crate::syscalls::Args;
use crate::syscalls::args_time::to_timeval;
use core::sync::atomic::Ordering;
use std::sync::Arc;

/// `struct rusage`.
pub(crate) fn rusage_bytes(usage: &Usage) -> [u8; 144] {
    let mut words = [0i64; 18];
    words[..2].copy_from_slice(&to_timeval(usage.cpu_ns));
    words[4] = usage.max_rss as i64;
    (words[8], words[9]) = (usage.faults[0] as i64, usage.faults[1] as i64);
    (words[16], words[17]) = (usage.switches[0] as i64, usage.switches[1] as i64);
    let mut bytes = [0; 144];
    for (chunk, word) in bytes.chunks_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

pub(crate) fn getrusage(cur: &mut Current, args: &Args) -> Result<u64> {
    const SELF: i32 = 0;
    const CHILDREN: i32 = -1;
    const THREAD: i32 = 1;
    let group = &cur.task.group;
    let mut usage = match args.int(0) {
        SELF => group.usage(),
        THREAD => Usage { max_rss: group.usage().max_rss, ..cur.task.usage() },
        CHILDREN => cur.children_usage(),
        _ => return Err(Errno::EINVAL),
    };
    if args.int(0) != CHILDREN {
        // Of the program before execve, too.
        usage.max_rss = usage.max_rss.max(cur.mm().peak_resident() / 1024);
    }
    cur.mm().write(args.addr(1), &rusage_bytes(&usage))?;
    Ok(0)
}

fn read(cur: &Current, addr: u64) -> Result<Limit> {
    let [soft, hard] = cur.mm().read_val::<[u64; 2]>(addr)?;
    Ok(Limit { soft, hard })
}

fn write(cur: &Current, addr: u64, limit: Limit) -> Result<()> {
    cur.mm().write_val(addr, &[limit.soft, limit.hard])
}

/// Sets a limit; those that concern memory are `mm`'s to enforce.
fn set(cur: &Current, group: &Arc<ThreadGroup>, resource: u32, new: Limit) -> Result<()> {
    group.limits.lock().set(resource, new, cur.cred().has(Caps::SYS_RESOURCE))?;
    if resource == limits::CPU {
        cur.kernel.watch_cpu_limit(group);
    }
    let mm = group.threads().first().and_then(|task| task.mm());
    if let Some(mm) = mm {
        let slot = match resource {
            limits::AS => &mm.limits().address_space,
            limits::DATA => &mm.limits().data,
            limits::STACK => &mm.limits().stack,
            limits::MEMLOCK => &mm.limits().memlock,
            _ => return Ok(()),
        };
        slot.store(new.soft, Ordering::Relaxed);
    }
    Ok(())
}

pub(crate) fn getrlimit(cur: &mut Current, args: &Args) -> Result<u64> {
    let limit = cur.task.group.limits.lock().of(args.uint(0))?;
    write(cur, args.addr(1), limit)?;
    Ok(0)
}

pub(crate) fn setrlimit(cur: &mut Current, args: &Args) -> Result<u64> {
    let new = read(cur, args.addr(1))?;
    set(cur, &cur.task.group, args.uint(0), new)?;
    Ok(0)
}

pub(crate) fn prlimit64(cur: &mut Current, args: &Args) -> Result<u64> {
    let (pid, resource) = (args.int(0), args.uint(1));
    let group = match pid {
        0 => cur.task.group.clone(),
        _ => cur.task_called(pid)?.group.clone(),
    };
    let new = if args.addr(2) == 0 { None } else { Some(read(cur, args.addr(2))?) };
    if !Arc::ptr_eq(&group, &cur.task.group) {
        let own = cur.cred();
        let theirs = group.threads().first().map(|task| task.cred());
        let same = theirs.as_ref().is_some_and(|cred| cred.uid == own.uid);
        let user_ns = theirs.as_ref().map(|cred| &cred.user_ns).unwrap_or(&UserNs::FIRST);
        if !same && !own.has_in(user_ns, Caps::SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
    }
    let old = group.limits.lock().of(resource)?;
    if let Some(new) = new {
        set(cur, &group, resource, new)?;
    }
    if args.addr(3) != 0 {
        write(cur, args.addr(3), old)?;
    }
    Ok(0)
}
