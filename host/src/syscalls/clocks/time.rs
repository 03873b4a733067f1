//! Clocks and sleeping.

use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::kernel::namespaces::time::Shifted;
use crate::kernel::timers::TimerClock;
use crate::syscalls::Args;
use crate::syscalls::args_time::{timespec, timeval, to_timespec, to_timeval};
use crate::time::{CLOCK_TICKS, Given, NSEC_PER_SEC, monotonic_ns, realtime_ns, realtime_offset_ns, resync};
use std::sync::Arc;

const CLOCK_REALTIME: i32 = 0;
const CLOCK_MONOTONIC: i32 = 1;
const CLOCK_PROCESS_CPUTIME_ID: i32 = 2;
const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
const CLOCK_MONOTONIC_RAW: i32 = 4;
const CLOCK_REALTIME_COARSE: i32 = 5;
const CLOCK_MONOTONIC_COARSE: i32 = 6;
const CLOCK_BOOTTIME: i32 = 7;
const CLOCK_REALTIME_ALARM: i32 = 8;
const CLOCK_BOOTTIME_ALARM: i32 = 9;
const CLOCK_TAI: i32 = 11;
/// Resolution of the coarse clocks with HZ=250.
const COARSE_NS: u64 = 4_000_000;

/// What a clock shows.
pub(crate) fn read(cur: &Current, clock: i32) -> Result<u64> {
    Ok(match clock {
        CLOCK_REALTIME | CLOCK_REALTIME_COARSE | CLOCK_REALTIME_ALARM | CLOCK_TAI => realtime_ns(),
        CLOCK_MONOTONIC | CLOCK_MONOTONIC_RAW | CLOCK_MONOTONIC_COARSE => {
            cur.task.group.shifts.inside(Shifted::Monotonic, monotonic_ns())
        }
        CLOCK_BOOTTIME | CLOCK_BOOTTIME_ALARM => {
            cur.task.group.shifts.inside(Shifted::Boottime, monotonic_ns())
        }
        CLOCK_PROCESS_CPUTIME_ID => cur.task.group.usage().cpu_ns,
        CLOCK_THREAD_CPUTIME_ID => cur.task.cpu_ns(),
        ..0 => cpu_clock(cur, clock)?.now(),
        _ => return Err(Errno::EINVAL),
    })
}

/// Whether one can wait for a clock. The ones that wake a sleeping machine need a device that is not here.
pub(crate) fn has_timers(clock: i32) -> bool {
    !matches!(
        clock,
        CLOCK_MONOTONIC_RAW
            | CLOCK_REALTIME_COARSE
            | CLOCK_MONOTONIC_COARSE
            | CLOCK_REALTIME_ALARM
            | CLOCK_BOOTTIME_ALARM
    )
}

/// What a timer for a clock goes by.
pub(crate) fn timer_clock(cur: &Current, clock: i32) -> Result<TimerClock> {
    let task = &cur.task;
    Ok(match clock {
        CLOCK_REALTIME | CLOCK_TAI => TimerClock::Realtime,
        CLOCK_PROCESS_CPUTIME_ID => TimerClock::Process(Arc::downgrade(&task.group)),
        CLOCK_THREAD_CPUTIME_ID => TimerClock::Thread(Arc::downgrade(task)),
        ..0 => cpu_clock(cur, clock)?,
        CLOCK_BOOTTIME | CLOCK_BOOTTIME_ALARM => TimerClock::Wall(Shifted::Boottime),
        _ => TimerClock::Wall(Shifted::Monotonic),
    })
}

/// A process's or thread's CPU clock: `~id << 3`, bit 2 says thread (include/linux/posix-timers.h).
fn cpu_clock(cur: &Current, clock: i32) -> Result<TimerClock> {
    // The low bits say which time of the process; this one would be a descriptor's clock.
    if clock & 3 == 3 {
        return Err(Errno::EINVAL);
    }
    let id = !(clock >> 3);
    let task = if id == 0 { cur.task.clone() } else { cur.task_called(id).map_err(|_| Errno::EINVAL)? };
    // A thread's clock is its process's affair; a process is named by its own id, or by the thread that asks.
    let named = if clock & 4 != 0 {
        task.tgid() == cur.task.tgid()
    } else {
        task.tid() == task.tgid() || Arc::ptr_eq(&task, &cur.task)
    };
    if !named {
        return Err(Errno::EINVAL);
    }
    Ok(if clock & 4 != 0 {
        TimerClock::Thread(Arc::downgrade(&task))
    } else {
        TimerClock::Process(Arc::downgrade(&task.group))
    })
}

pub(crate) fn clock_gettime(cur: &mut Current, args: &Args) -> Result<u64> {
    // Programs that can read it themselves ask when it is time to compare it with the host's.
    resync();
    let now = read(cur, args.int(0))?;
    cur.mm().write_val(args.addr(1), &to_timespec(now))?;
    Ok(0)
}

pub(crate) fn clock_getres(cur: &mut Current, args: &Args) -> Result<u64> {
    let clock = args.int(0);
    read(cur, clock)?;
    let resolution =
        if matches!(clock, CLOCK_REALTIME_COARSE | CLOCK_MONOTONIC_COARSE) { COARSE_NS } else { 1 };
    if args.addr(1) != 0 {
        cur.mm().write_val(args.addr(1), &to_timespec(resolution))?;
    }
    Ok(0)
}

/// The sandbox's clocks are the host's: nobody inside may set them.
pub(crate) fn clock_settime(cur: &mut Current, args: &Args) -> Result<u64> {
    let clock = args.int(0);
    read(cur, clock)?;
    if !matches!(clock, ..0 | CLOCK_REALTIME) {
        return Err(Errno::EINVAL);
    }
    timespec(cur.mm(), args.addr(1))?.ok_or(Errno::EFAULT)?;
    Err(Errno::EPERM)
}

pub(crate) fn settimeofday(cur: &mut Current, args: &Args) -> Result<u64> {
    timeval(cur.mm(), args.addr(0))?;
    Err(Errno::EPERM)
}

pub(crate) fn gettimeofday(cur: &mut Current, args: &Args) -> Result<u64> {
    resync();
    if args.addr(0) != 0 {
        cur.mm().write_val(args.addr(0), &to_timeval(realtime_ns()))?;
    }
    if args.addr(1) != 0 {
        // struct timezone: UTC.
        cur.mm().write_val(args.addr(1), &0u64)?;
    }
    Ok(0)
}

pub(crate) fn time(cur: &mut Current, args: &Args) -> Result<u64> {
    resync();
    let seconds = realtime_ns() / NSEC_PER_SEC;
    if args.addr(0) != 0 {
        cur.mm().write_val(args.addr(0), &seconds)?;
    }
    Ok(seconds)
}

pub(crate) fn times(cur: &mut Current, args: &Args) -> Result<u64> {
    let ticks = |ns: u64| ns / (NSEC_PER_SEC / CLOCK_TICKS);
    if args.addr(0) != 0 {
        let own = ticks(cur.task.group.usage().cpu_ns);
        let children = ticks(cur.children_usage().cpu_ns);
        cur.mm().write_val(args.addr(0), &[own, 0, children, 0])?;
    }
    Ok(ticks(monotonic_ns()))
}

pub(crate) fn nanosleep(cur: &mut Current, args: &Args) -> Result<u64> {
    let ns = timespec(cur.mm(), args.addr(0))?.ok_or(Errno::EFAULT)?;
    sleep_until(cur, Given::from_ns(ns).after(monotonic_ns()), args.addr(1))
}

pub(crate) fn clock_nanosleep(cur: &mut Current, args: &Args) -> Result<u64> {
    const TIMER_ABSTIME: i32 = 1;
    let clock = args.int(0);
    if clock == CLOCK_THREAD_CPUTIME_ID || !has_timers(clock) {
        return Err(Errno::EOPNOTSUPP);
    }
    let now = read(cur, clock)?;
    let time = timespec(cur.mm(), args.addr(2))?.ok_or(Errno::EFAULT)?;
    let cpu_time = matches!(clock, ..0 | CLOCK_PROCESS_CPUTIME_ID);
    if args.int(1) & TIMER_ABSTIME == 0 && !cpu_time {
        return sleep_until(cur, Given::from_ns(time).after(monotonic_ns()), args.addr(3));
    }
    if cpu_time {
        let absolute = args.int(1) & TIMER_ABSTIME != 0;
        let until = if absolute { time } else { Given::from_ns(time).after(now) };
        let remaining = if absolute { 0 } else { args.addr(3) };
        return sleep_through(cur, timer_clock(cur, clock)?, until, remaining, absolute);
    }
    let deadline = match clock {
        CLOCK_REALTIME | CLOCK_REALTIME_ALARM | CLOCK_TAI => time.saturating_sub(realtime_offset_ns()),
        _ => Given::from_ns(time.saturating_sub(now)).after(monotonic_ns()),
    };
    match cur.wait_on(&[], Some(deadline), &mut || None::<u64>) {
        Err(Errno::ETIMEDOUT) => Ok(0),
        Err(_) => Err(Errno::ERESTARTNOHAND),
        Ok(value) => Ok(value),
    }
}

/// Sleeps while others use CPU time.
fn sleep_through(
    cur: &mut Current,
    clock: TimerClock,
    until: u64,
    remaining: u64,
    absolute: bool,
) -> Result<u64> {
    loop {
        let left = until.saturating_sub(clock.now());
        if left == 0 {
            return Ok(0);
        }
        let next = monotonic_ns().saturating_add(clock.soonest(left, cur.kernel.sched.worker_count()));
        match cur.wait_on(&[], Some(next), &mut || None::<u64>) {
            Err(Errno::ETIMEDOUT) => {}
            _ if absolute => return Err(Errno::ERESTARTNOHAND),
            _ => {
                if remaining != 0 {
                    cur.mm().write_val(remaining, &to_timespec(left))?;
                }
                let rest = move |cur: &mut Current| sleep_through(cur, clock, until, remaining, false);
                return Err(cur.restart_with(Box::new(rest)));
            }
        }
    }
}

/// A relative sleep: the rest is told to the program and slept without starting anew.
fn sleep_until(cur: &mut Current, deadline: u64, remaining: u64) -> Result<u64> {
    match cur.wait_on(&[], Some(deadline), &mut || None::<u64>) {
        Err(Errno::ETIMEDOUT) => Ok(0),
        Err(_) => {
            let left = deadline.saturating_sub(monotonic_ns());
            if left == 0 {
                return Ok(0);
            }
            if remaining != 0 {
                cur.mm().write_val(remaining, &to_timespec(left))?;
            }
            Err(cur.restart_with(Box::new(move |cur| sleep_until(cur, deadline, remaining))))
        }
        Ok(value) => Ok(value),
    }
}
