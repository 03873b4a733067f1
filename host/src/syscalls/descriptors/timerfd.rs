//! Timers behind descriptors: timerfd_create(2).

use super::fd::install;
use crate::abi::{Errno, Result};
use crate::fs::timerfd::{Setting, TimerFd};
use crate::kernel::Current;
use crate::kernel::namespaces::time::Shifted;
use crate::syscalls::Args;
use crate::syscalls::args_time::timespec;
use crate::syscalls::files::names::only;
use crate::time::Given;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as c;

fn put_setting(cur: &Current, addr: u64, setting: Setting) -> Result<()> {
    if addr == 0 {
        return Ok(());
    }
    let split = |ns: u64| [(ns / 1_000_000_000) as i64, (ns % 1_000_000_000) as i64];
    cur.mm().write_val(addr, &[split(setting.interval), split(setting.value)])
}

/// timerfd_create(2)
pub(crate) fn timerfd_create(cur: &mut Current, args: &Args) -> Result<u64> {
    let (clock, flags) = (args.uint(0), args.uint(1));
    only(flags, c::O_CLOEXEC | c::O_NONBLOCK)?;
    match clock {
        c::CLOCK_REALTIME | c::CLOCK_MONOTONIC | c::CLOCK_BOOTTIME => {}
        c::CLOCK_REALTIME_ALARM | c::CLOCK_BOOTTIME_ALARM => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    }
    install(cur, TimerFd::open(&cur.kernel, clock, flags), flags)
}

/// timerfd_settime(2)
pub(crate) fn timerfd_settime(cur: &mut Current, args: &Args) -> Result<u64> {
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
        (value, false) => Given::from_ns(value).after(now),
        (value, true) => match timer.clock {
            // What lies before the machine's start lies at it.
            c::CLOCK_REALTIME => value.saturating_sub(crate::time::realtime_offset_ns()).max(1),
            c::CLOCK_BOOTTIME => cur.task.group.shifts.outside(Shifted::Boottime, value).max(1),
            _ => cur.task.group.shifts.outside(Shifted::Monotonic, value).max(1),
        },
    };
    timer.flags.store(args.uint(1), Ordering::Relaxed);
    let old = timer.set(next, interval);
    put_setting(cur, args.addr(3), old)?;
    Ok(0)
}

/// timerfd_gettime(2)
pub(crate) fn timerfd_gettime(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = cur.file(args.fd(0))?;
    let setting = file.downcast::<TimerFd>().ok_or(Errno::EINVAL)?.setting();
    if args.addr(1) == 0 {
        return Err(Errno::EFAULT);
    }
    put_setting(cur, args.addr(1), setting)?;
    Ok(0)
}
