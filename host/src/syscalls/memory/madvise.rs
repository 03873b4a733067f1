//! madvise, process_madvise, mincore, msync.

use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::kernel::Current;
use crate::kernel::peek::As;
use crate::mm::{Advice, PAGE_SIZE, VmFlags};
use crate::platform::Access;
use crate::syscalls::Args;
use crate::syscalls::processes::pidfd;
use linux_raw_sys::general as c;
use std::sync::Arc;

/// What a number asks for.
fn decode(advice: u32) -> Result<Advice> {
    Ok(match advice {
        // Hints, whether they are taken or not: there are no huge pages, nothing is swapped, equal pages are not merged.
        c::MADV_NORMAL
        | c::MADV_RANDOM
        | c::MADV_SEQUENTIAL
        | c::MADV_HUGEPAGE
        | c::MADV_NOHUGEPAGE
        | c::MADV_MERGEABLE
        | c::MADV_UNMERGEABLE
        | c::MADV_COLD
        | c::MADV_PAGEOUT => Advice::Nothing,
        c::MADV_WILLNEED => Advice::WillNeed,
        c::MADV_DONTNEED => Advice::DontNeed { locked: false },
        c::MADV_DONTNEED_LOCKED => Advice::DontNeed { locked: true },
        c::MADV_FREE => Advice::Free,
        c::MADV_REMOVE => Advice::Remove,
        c::MADV_POPULATE_READ => Advice::Populate(Access::Read),
        c::MADV_POPULATE_WRITE => Advice::Populate(Access::Write),
        c::MADV_DONTFORK => Advice::Set(VmFlags::DONT_FORK),
        c::MADV_DOFORK => Advice::Clear(VmFlags::DONT_FORK),
        c::MADV_DONTDUMP => Advice::Set(VmFlags::DONT_DUMP),
        c::MADV_DODUMP => Advice::Clear(VmFlags::DONT_DUMP),
        c::MADV_WIPEONFORK => Advice::Set(VmFlags::WIPE_ON_FORK),
        c::MADV_KEEPONFORK => Advice::Clear(VmFlags::WIPE_ON_FORK),
        // MADV_COLLAPSE among them, which would promise huge pages.
        _ => return Err(Errno::EINVAL),
    })
}

/// madvise(2).
pub(crate) fn madvise(cur: &mut Current, args: &Args) -> Result<u64> {
    let advice = decode(args.uint(2))?;
    cur.mm().madvise(args.range_start(0), args.addr(1), advice).map(|()| 0)
}

/// process_madvise(2).
pub(crate) fn process_madvise(cur: &mut Current, args: &Args) -> Result<u64> {
    if args.uint(4) != 0 {
        return Err(Errno::EINVAL);
    }
    let ranges = cur.mm().read_iovecs(args.addr(1), args.addr(2))?;
    let group = pidfd::process(cur, args.fd(0))?;
    let task = group.threads().first().cloned().ok_or(Errno::ESRCH)?;
    // What changes nothing that the other process could tell.
    if !matches!(args.uint(3), c::MADV_COLD | c::MADV_PAGEOUT | c::MADV_WILLNEED) {
        return Err(Errno::EINVAL);
    }
    let advice = decode(args.uint(3))?;
    let seen = task.peek(&cur.task.observer(), As::FileSystem).map_err(|_| Errno::EACCES)?;
    let mm = seen.mm.ok_or(Errno::ESRCH)?;
    if !Arc::ptr_eq(&mm, cur.mm()) && !cur.cred().has(Caps::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let mut done = 0;
    for range in &ranges {
        match mm.madvise(crate::arch::untagged(range.base), range.len, advice) {
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
            Ok(()) => done += range.len,
        }
        cur.pause()?;
    }
    Ok(done)
}

/// mincore(2).
pub(crate) fn mincore(cur: &mut Current, args: &Args) -> Result<u64> {
    /// Pages asked about at a time: the answer is a buffer of this many bytes.
    const BATCH: u64 = 4096;
    let (mut addr, mut out) = (args.range_start(0), args.addr(2));
    if addr % PAGE_SIZE != 0 {
        return Err(Errno::EINVAL);
    }
    let len = args.addr(1);
    if addr.checked_add(len).is_none_or(|end| end > cur.mm().task_size()) {
        return Err(Errno::ENOMEM);
    }
    let mut pages = len.div_ceil(PAGE_SIZE);
    while pages != 0 {
        let batch = pages.min(BATCH);
        let answer = cur.mm().mincore(addr, batch * PAGE_SIZE)?;
        cur.mm().write(out, &answer)?;
        addr += batch * PAGE_SIZE;
        out = out.wrapping_add(batch);
        pages -= batch;
        cur.pause()?;
    }
    Ok(0)
}

/// msync(2).
pub(crate) fn msync(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = args.uint(2);
    let both = c::MS_SYNC | c::MS_ASYNC;
    if flags & !(both | c::MS_INVALIDATE) != 0 || flags & both == both {
        return Err(Errno::EINVAL);
    }
    let (write, invalidate) = (flags & c::MS_SYNC != 0, flags & c::MS_INVALIDATE != 0);
    cur.mm().msync(args.range_start(0), args.addr(1), write, invalidate).map(|()| 0)
}
