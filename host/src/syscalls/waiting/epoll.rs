//! epoll(7).

use crate::abi::{Errno, Result};
use crate::fs::epoll::{Epoll, Taken};
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::syscalls::args_time::{deadline, timespec};
use crate::syscalls::descriptors::fd::install;
use crate::syscalls::files::names::only;
use crate::syscalls::waiting::poll::temporary_mask;
use linux_raw_sys::general as c;
use std::sync::Arc;

/// Where `data` lies in `struct epoll_event`, and its size: packed on x86_64 only.
#[cfg(target_arch = "x86_64")]
const EVENT: (usize, usize) = (4, 12);

#[cfg(not(target_arch = "x86_64"))]
const EVENT: (usize, usize) = (8, 16);

fn wait(cur: &mut Current, args: &Args, timeout: Option<u64>) -> Result<u64> {
    let max = args.int(2);
    if max <= 0 || max as usize > i32::MAX as usize / EVENT.1 {
        return Err(Errno::EINVAL);
    }
    let file = cur.file(args.fd(0))?;
    let epoll = file.downcast::<Epoll>().ok_or(Errno::EINVAL)?;
    let mut events = epoll.take(max as usize);
    if events.is_empty() && timeout != Some(0) {
        let until = deadline(timeout);
        let mut ready = || Some(epoll.take(max as usize)).filter(|events| !events.is_empty());
        events = match cur.wait_on(&[(epoll.sleepers(), !0)], until, &mut ready) {
            Ok(events) => events,
            Err(Errno::ETIMEDOUT) => return Ok(0),
            Err(Errno::ERESTARTSYS) => return Err(Errno::EINTR),
            Err(errno) => return Err(errno),
        };
    }
    let told = put(cur, args.addr(1), &events);
    if told < events.len() {
        // Whoever looks with a better buffer finds them as if this call had not been.
        epoll.give_back(events.drain(told..));
        if told == 0 {
            return Err(Errno::EFAULT);
        }
    }
    Ok(told as u64)
}

/// Writes events, and says how many there was memory for.
fn put(cur: &Current, addr: u64, events: &[Taken]) -> usize {
    let mut bytes = vec![0; events.len() * EVENT.1];
    for (Taken { event, .. }, out) in events.iter().zip(bytes.chunks_exact_mut(EVENT.1)) {
        out[..4].copy_from_slice(&event.events.to_ne_bytes());
        out[EVENT.0..EVENT.0 + 8].copy_from_slice(&event.data.to_ne_bytes());
    }
    if cur.mm().write(addr, &bytes).is_ok() {
        return events.len();
    }
    let mut each = bytes.chunks_exact(EVENT.1).enumerate();
    let refused = |(at, event): (usize, &[u8])| {
        cur.mm().write(addr.wrapping_add((at * EVENT.1) as u64), event).is_err()
    };
    each.position(refused).unwrap_or(events.len())
}

/// A timeout in milliseconds; negative is for ever.
fn millis(timeout: i32) -> Option<u64> {
    u64::try_from(timeout).ok().map(|ms| ms * 1_000_000)
}

/// epoll_create(2)
pub(crate) fn epoll_create(cur: &mut Current, args: &Args) -> Result<u64> {
    if args.int(0) <= 0 {
        return Err(Errno::EINVAL);
    }
    install(cur, Epoll::open(&cur.kernel.epolls), 0)
}

/// epoll_create1(2)
pub(crate) fn epoll_create1(cur: &mut Current, args: &Args) -> Result<u64> {
    only(args.uint(0), c::O_CLOEXEC)?;
    install(cur, Epoll::open(&cur.kernel.epolls), args.uint(0))
}

/// epoll_ctl(2)
pub(crate) fn epoll_ctl(cur: &mut Current, args: &Args) -> Result<u64> {
    let (op, fd) = (args.uint(1), args.fd(2));
    let (mut events, mut data) = (0, 0);
    if op != c::EPOLL_CTL_DEL {
        let addr = args.addr(3);
        events = cur.mm().read_val(addr)?;
        data = cur.mm().read_val(addr + EVENT.0 as u64)?;
    }
    let fds = cur.fds();
    let (file, target) = (fds.get(args.fd(0))?, fds.get(fd)?);
    if Arc::ptr_eq(&file, &target) {
        return Err(Errno::EINVAL);
    }
    let epoll = file.downcast::<Epoll>().ok_or(Errno::EINVAL)?;
    match op {
        c::EPOLL_CTL_ADD => epoll.add(fd, &target, events, data)?,
        c::EPOLL_CTL_MOD => epoll.modify(fd, &target, events, data)?,
        c::EPOLL_CTL_DEL => epoll.remove(fd, &target)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// epoll_wait(2)
pub(crate) fn epoll_wait(cur: &mut Current, args: &Args) -> Result<u64> {
    wait(cur, args, millis(args.int(3)))
}

/// epoll_pwait(2)
pub(crate) fn epoll_pwait(cur: &mut Current, args: &Args) -> Result<u64> {
    temporary_mask(cur, args.addr(4), args.size(5))?;
    wait(cur, args, millis(args.int(3)))
}

/// epoll_pwait2(2)
pub(crate) fn epoll_pwait2(cur: &mut Current, args: &Args) -> Result<u64> {
    let timeout = timespec(cur.mm(), args.addr(3))?;
    temporary_mask(cur, args.addr(4), args.size(5))?;
    wait(cur, args, timeout)
}
