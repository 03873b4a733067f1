//! Interval timers, POSIX timers, alarm.

use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::kernel::signal::NSIG;
use crate::kernel::timers::{Notify, TimerValue, When};
use crate::mm::Mm;
use crate::syscalls::Args;
use crate::syscalls::args_time::{timespec, timeval, to_timespec, to_timeval};
use crate::time::NSEC_PER_SEC;

const CLOCK_MAX: i32 = 11;

fn read_timevals(mm: &Mm, addr: u64) -> Result<TimerValue> {
    let interval = timeval(mm, addr)?.unwrap_or(0);
    let value = timeval(mm, addr.wrapping_add(16))?.unwrap_or(0);
    Ok(TimerValue { value, interval })
}

fn write_timevals(mm: &Mm, addr: u64, timer: TimerValue) -> Result<()> {
    let ([a, b], [c, d]) = (to_timeval(timer.interval), to_timeval(timer.value));
    // What is left of a microsecond still counts.
    let d = if timer.value != 0 && c == 0 && d == 0 { 1 } else { d };
    mm.write_val(addr, &[a, b, c, d])
}

fn write_timespecs(mm: &Mm, addr: u64, timer: TimerValue) -> Result<()> {
    let ([a, b], [c, d]) = (to_timespec(timer.interval), to_timespec(timer.value));
    mm.write_val(addr, &[a, b, c, d])
}

pub(crate) fn getitimer(cur: &mut Current, args: &Args) -> Result<u64> {
    let timer = cur.interval_timer(args.uint(0) as usize)?;
    write_timevals(cur.mm(), args.addr(1), timer)?;
    Ok(0)
}

pub(crate) fn setitimer(cur: &mut Current, args: &Args) -> Result<u64> {
    let new = match args.addr(1) {
        0 => TimerValue::default(),
        addr => read_timevals(cur.mm(), addr)?,
    };
    let old = cur.set_interval_timer(args.uint(0) as usize, new)?;
    if args.addr(2) != 0 {
        write_timevals(cur.mm(), args.addr(2), old)?;
    }
    Ok(0)
}

pub(crate) fn alarm(cur: &mut Current, args: &Args) -> Result<u64> {
    let value = u64::from(args.uint(0)) * NSEC_PER_SEC;
    let old = cur.set_interval_timer(0, TimerValue { value, interval: 0 })?;
    // Never 0 while one was pending.
    let left = old.value / NSEC_PER_SEC + u64::from(old.value % NSEC_PER_SEC >= NSEC_PER_SEC / 2);
    Ok(if old.value == 0 { 0 } else { left.max(1) })
}

/// `struct sigevent`: value, signo, notify, tid.
fn read_sigevent(mm: &Mm, addr: u64) -> Result<Notify> {
    const SIGEV_SIGNAL: u32 = 0;
    const SIGEV_NONE: u32 = 1;
    const SIGEV_THREAD_ID: u32 = 4;
    let [value, kind, tid] = mm.read_val::<[u64; 3]>(addr)?;
    let (signo, notify) = (kind as i32, (kind >> 32) as u32);
    if notify != SIGEV_NONE && !(1..=NSIG).contains(&signo) {
        return Err(Errno::EINVAL);
    }
    match notify {
        SIGEV_NONE => Ok(Notify::None),
        SIGEV_SIGNAL => Ok(Notify::Signal(signo, value)),
        SIGEV_THREAD_ID => Ok(Notify::Thread(signo, value, tid as i32)),
        _ => Err(Errno::EINVAL),
    }
}

pub(crate) fn timer_create(cur: &mut Current, args: &Args) -> Result<u64> {
    let clock = args.int(0);
    if clock > CLOCK_MAX || super::time::read(cur, clock).is_err() {
        return Err(Errno::EINVAL);
    }
    if !super::time::has_timers(clock) {
        return Err(Errno::EOPNOTSUPP);
    }
    let notify = match args.addr(1) {
        0 => None,
        addr => Some(read_sigevent(cur.mm(), addr)?),
    };
    let id = cur.create_timer(super::time::timer_clock(cur, clock)?, notify)?;
    if let Err(errno) = cur.mm().write_val(args.addr(2), &id) {
        cur.delete_timer(id)?;
        return Err(errno);
    }
    Ok(0)
}

pub(crate) fn timer_settime(cur: &mut Current, args: &Args) -> Result<u64> {
    const TIMER_ABSTIME: i32 = 1;
    let (id, addr) = (args.int(0), args.addr(2));
    if addr == 0 {
        return Err(Errno::EINVAL);
    }
    let interval = timespec(cur.mm(), addr)?.unwrap_or(0);
    let value = timespec(cur.mm(), addr.wrapping_add(16))?.unwrap_or(0);
    let when = match value {
        0 => When::Never,
        _ if args.int(1) & TIMER_ABSTIME == 0 => When::After(value),
        _ => When::At(value),
    };
    let old = cur.set_timer(id, when, interval)?;
    if args.addr(3) != 0 {
        write_timespecs(cur.mm(), args.addr(3), old)?;
    }
    Ok(0)
}

pub(crate) fn timer_gettime(cur: &mut Current, args: &Args) -> Result<u64> {
    let timer = cur.timer_value(args.int(0))?;
    write_timespecs(cur.mm(), args.addr(1), timer)?;
    Ok(0)
}

pub(crate) fn timer_getoverrun(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.timer_overrun(args.int(0)).map(|count| count as u64)
}

pub(crate) fn timer_delete(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.delete_timer(args.int(0)).map(|()| 0)
}
