//! adjtimex(2) and clock_adjtime(2): what is known of the clock's discipline. The clock is the host's; nobody here sets it.

use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::syscalls::args_time::to_timeval;
use crate::time::realtime_ns;
use linux_raw_sys::general as c;

/// 64-bit words of `struct timex`.
const WORDS: usize = 26;
/// ADJ_ADJTIME, ADJ_OFFSET_SINGLESHOT's bit and ADJ_OFFSET_READONLY: the old adjtime(3), reading.
const ADJTIME: u32 = 0x8000;
const SINGLESHOT: u32 = 1;
const READONLY: u32 = 0x2000;
/// STA_UNSYNC.
const UNSYNCHRONISED: u64 = 0x40;
/// TIME_ERROR: what an unsynchronised clock answers.
const TIME_ERROR: u64 = 5;
/// NTP_PHASE_LIMIT, us: how wrong such a clock may be.
const PHASE_LIMIT: u64 = 16_000_000;
/// 500 parts per million, 16 bits of fraction.
const TOLERANCE: u64 = 500 << 16;
/// Microseconds between ticks of USER_HZ.
const TICK: u64 = 10_000;

/// adjtimex(2)
pub(crate) fn adjtimex(cur: &mut Current, args: &Args) -> Result<u64> {
    adjust(cur, args.addr(0), c::CLOCK_REALTIME)
}

/// clock_adjtime(2)
pub(crate) fn clock_adjtime(cur: &mut Current, args: &Args) -> Result<u64> {
    adjust(cur, args.addr(1), args.uint(0))
}

fn adjust(cur: &Current, addr: u64, clock: u32) -> Result<u64> {
    let mut words: [u64; WORDS] = cur.mm().read_val(addr)?;
    match clock {
        c::CLOCK_REALTIME => {}
        c::CLOCK_MONOTONIC..=c::CLOCK_BOOTTIME_ALARM | c::CLOCK_TAI => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::EINVAL),
    }
    let modes = words[0] as u32;
    if modes & ADJTIME != 0 {
        if modes & SINGLESHOT == 0 {
            return Err(Errno::EINVAL);
        }
        if modes & READONLY == 0 {
            return Err(Errno::EPERM);
        }
    } else if modes != 0 {
        return Err(Errno::EPERM);
    }
    words = [0; WORDS];
    words[0] = modes.into();
    (words[3], words[4]) = (PHASE_LIMIT, PHASE_LIMIT);
    words[5] = UNSYNCHRONISED;
    // The loop's constant, and the precision, us.
    (words[6], words[7], words[8]) = (2, 1, TOLERANCE);
    let [seconds, micros] = to_timeval(realtime_ns());
    (words[9], words[10], words[11]) = (seconds as u64, micros as u64, TICK);
    cur.mm().write_val(addr, &words)?;
    Ok(TIME_ERROR)
}
