//! eventfd, epoll, timerfd, signalfd.

use super::Args;
use super::names::only;
use super::poll::{temporary_mask, timespec};
use crate::abi::{Errno, Result};
use crate::fs::epoll::{Epoll, Event};
use crate::fs::eventfd::{self, EventFd};
use crate::fs::signalfd::SignalFd;
use crate::fs::timerfd::{Setting, TimerFd};
use crate::kernel::Current;
use crate::kernel::signal::{SigInfo, SigSet};
use crate::mm::IoDst;
use crate::vfs::{File, is_cloexec};
use linux_raw_sys::general as c;
use std::sync::Arc;

fn install(cur: &Current, file: Arc<File>, flags: u32) -> Result<u64> {
    Ok(cur.fds().install(file, is_cloexec(flags), cur.limit(c::RLIMIT_NOFILE))? as u64)
}

/// eventfd(2)
pub(super) fn eventfd(cur: &mut Current, args: &Args) -> Result<u64> {
    install(cur, EventFd::open(args.uint(0).into(), 0), 0)
}

/// eventfd2(2)
pub(super) fn eventfd2(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = args.uint(1);
    only(flags, c::O_CLOEXEC | c::O_NONBLOCK | eventfd::SEMAPHORE)?;
    install(cur, EventFd::open(args.uint(0).into(), flags), flags)
}

/// epoll_create(2)
pub(super) fn epoll_create(cur: &mut Current, args: &Args) -> Result<u64> {
    if args.int(0) <= 0 {
        return Err(Errno::EINVAL);
    }
    install(cur, Epoll::open(), 0)
}

/// epoll_create1(2)
pub(super) fn epoll_create1(cur: &mut Current, args: &Args) -> Result<u64> {
    only(args.uint(0), c::O_CLOEXEC)?;
    install(cur, Epoll::open(), args.uint(0))
}

/// Where `data` lies in `struct epoll_event`, and its size: packed on x86_64 only.
#[cfg(target_arch = "x86_64")]
const EVENT: (usize, usize) = (4, 12);
#[cfg(not(target_arch = "x86_64"))]
const EVENT: (usize, usize) = (8, 16);

/// epoll_ctl(2)
pub(super) fn epoll_ctl(cur: &mut Current, args: &Args) -> Result<u64> {
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

fn wait(cur: &mut Current, args: &Args, timeout: Option<u64>) -> Result<u64> {
    let max = args.int(2);
    if max <= 0 || max as usize > i32::MAX as usize / EVENT.1 {
        return Err(Errno::EINVAL);
    }
    let file = cur.file(args.fd(0))?;
    let epoll = file.downcast::<Epoll>().ok_or(Errno::EINVAL)?;
    let mut events = epoll.take(max as usize);
    if events.is_empty() && timeout != Some(0) {
        let deadline = timeout.map(|ns| crate::time::monotonic_ns().saturating_add(ns));
        let mut ready = || Some(epoll.take(max as usize)).filter(|events| !events.is_empty());
        events = match cur.wait_on(&[(epoll.queue(), !0)], deadline, &mut ready) {
            Ok(events) => events,
            Err(Errno::ETIMEDOUT) => return Ok(0),
            Err(Errno::ERESTARTSYS) => return Err(Errno::EINTR),
            Err(errno) => return Err(errno),
        };
    }
    put(cur, args.addr(1), &events)
}

fn put(cur: &Current, addr: u64, events: &[Event]) -> Result<u64> {
    let mut bytes = vec![0; events.len() * EVENT.1];
    for (event, out) in events.iter().zip(bytes.chunks_exact_mut(EVENT.1)) {
        out[..4].copy_from_slice(&event.events.to_ne_bytes());
        out[EVENT.0..EVENT.0 + 8].copy_from_slice(&event.data.to_ne_bytes());
    }
    cur.mm().write(addr, &bytes)?;
    Ok(events.len() as u64)
}

/// A timeout in milliseconds; negative is for ever.
fn millis(timeout: i32) -> Option<u64> {
    u64::try_from(timeout).ok().map(|ms| ms * 1_000_000)
}

/// epoll_wait(2)
pub(super) fn epoll_wait(cur: &mut Current, args: &Args) -> Result<u64> {
    wait(cur, args, millis(args.int(3)))
}

/// epoll_pwait(2)
pub(super) fn epoll_pwait(cur: &mut Current, args: &Args) -> Result<u64> {
    temporary_mask(cur, args.addr(4), args.size(5))?;
    wait(cur, args, millis(args.int(3)))
}

/// epoll_pwait2(2)
pub(super) fn epoll_pwait2(cur: &mut Current, args: &Args) -> Result<u64> {
    let timeout = timespec(cur.mm(), args.addr(3))?;
    temporary_mask(cur, args.addr(4), args.size(5))?;
    wait(cur, args, timeout)
}

/// timerfd_create(2)
pub(super) fn timerfd_create(cur: &mut Current, args: &Args) -> Result<u64> {
    let (clock, flags) = (args.uint(0), args.uint(1));
    only(flags, c::O_CLOEXEC | c::O_NONBLOCK)?;
    match clock {
        c::CLOCK_REALTIME | c::CLOCK_MONOTONIC | c::CLOCK_BOOTTIME => {}
        c::CLOCK_REALTIME_ALARM | c::CLOCK_BOOTTIME_ALARM => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    }
    install(cur, TimerFd::open(&cur.kernel, clock, flags), flags)
}

fn put_setting(cur: &Current, addr: u64, setting: Setting) -> Result<()> {
    if addr == 0 {
        return Ok(());
    }
    let split = |ns: u64| [(ns / 1_000_000_000) as i64, (ns % 1_000_000_000) as i64];
    cur.mm().write_val(addr, &[split(setting.interval), split(setting.value)])
}

/// timerfd_settime(2)
pub(super) fn timerfd_settime(cur: &mut Current, args: &Args) -> Result<u64> {
    const ABSOLUTE: u32 = 1;
    const CANCEL_ON_SET: u32 = 2;
    only(args.uint(1), ABSOLUTE | CANCEL_ON_SET)?;
    let interval = timespec(cur.mm(), args.addr(2))?.ok_or(Errno::EFAULT)?;
    let value = timespec(cur.mm(), args.addr(2) + 16)?.ok_or(Errno::EFAULT)?;
    let file = cur.file(args.fd(0))?;
    let timer = file.downcast::<TimerFd>().ok_or(Errno::EINVAL)?;
    let now = crate::time::monotonic_ns();
    let next = match (value, args.uint(1) & ABSOLUTE != 0) {
        (0, _) => 0,
        (value, false) => now.saturating_add(value),
        (value, true) => match timer.clock {
            c::CLOCK_REALTIME => now.saturating_add(value.saturating_sub(crate::time::realtime_ns())).max(1),
            c::CLOCK_BOOTTIME => value.saturating_add(cur.kernel.boot_ns).max(1),
            _ => value,
        },
    };
    let old = timer.set(next, interval);
    put_setting(cur, args.addr(3), old)?;
    Ok(0)
}

/// timerfd_gettime(2)
pub(super) fn timerfd_gettime(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = cur.file(args.fd(0))?;
    let setting = file.downcast::<TimerFd>().ok_or(Errno::EINVAL)?.setting();
    if args.addr(1) == 0 {
        return Err(Errno::EFAULT);
    }
    put_setting(cur, args.addr(1), setting)?;
    Ok(0)
}

fn make_signalfd(cur: &mut Current, args: &Args, flags: u32) -> Result<u64> {
    only(flags, c::O_CLOEXEC | c::O_NONBLOCK)?;
    if args.size(2) != 8 {
        return Err(Errno::EINVAL);
    }
    let mask = SigSet(cur.mm().read_val(args.addr(1))?).minus(SigSet::UNBLOCKABLE);
    if args.fd(0) == -1 {
        return install(cur, SignalFd::open(&cur.task, mask, flags), flags);
    }
    let file = cur.file(args.fd(0))?;
    file.downcast::<SignalFd>().ok_or(Errno::EINVAL)?.set_mask(mask);
    Ok(args.fd(0) as u64)
}

/// signalfd(2)
pub(super) fn signalfd(cur: &mut Current, args: &Args) -> Result<u64> {
    make_signalfd(cur, args, 0)
}

/// signalfd4(2)
pub(super) fn signalfd4(cur: &mut Current, args: &Args) -> Result<u64> {
    make_signalfd(cur, args, args.uint(3))
}

/// Size of `struct signalfd_siginfo`.
const SIGINFO: usize = 128;

/// What read(2) does on a signalfd: takes pending signals of the calling task.
pub(super) fn read_signals(
    cur: &mut Current,
    file: &Arc<File>,
    signals: &SignalFd,
    dst: &mut IoDst<'_>,
) -> Result<u64> {
    let room = dst.remaining() / SIGINFO;
    if room == 0 {
        return Err(Errno::EINVAL);
    }
    let mask = signals.mask();
    let group = cur.task.group.clone();
    let mut total = 0;
    for _ in 0..room {
        let info = match cur.take_signal(mask) {
            Some(info) => info,
            None if total > 0 => break,
            None if file.nonblocking() => return Err(Errno::EAGAIN),
            None => {
                let task = cur.task.clone();
                loop {
                    let mut ready = || (task.pending_signals().0 & mask.0 != 0).then_some(());
                    cur.wait_on(&[(&group.signal_wait, !0)], None, &mut ready)?;
                    if let Some(info) = cur.take_signal(mask) {
                        break info;
                    }
                }
            }
        };
        total += dst.write_bytes(&encode(&info))?;
    }
    Ok(total as u64)
}

/// `struct signalfd_siginfo` out of `siginfo_t`: signo, errno, code, then pid, uid, fd, tid, band, overrun, trapno,
/// status, int, ptr...
fn encode(info: &SigInfo) -> [u8; SIGINFO] {
    let raw = info.to_bytes();
    let mut out = [0; SIGINFO];
    out[..12].copy_from_slice(&raw[..12]);
    // si_pid and si_uid, where the signal has them.
    out[12..20].copy_from_slice(&raw[16..24]);
    // si_status for SIGCHLD, si_value for queued signals.
    if info.signo == crate::kernel::signal::SIGCHLD {
        out[40..44].copy_from_slice(&raw[24..28]);
    } else {
        out[44..48].copy_from_slice(&raw[24..28]);
        out[48..56].copy_from_slice(&raw[24..32]);
    }
    out
}
