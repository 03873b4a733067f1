//! Times as programs pass them.

use crate::abi::{Errno, Result};
use crate::mm::Mm;
use crate::time::{NSEC_PER_SEC, NSEC_PER_USEC, monotonic_ns};

/// Reads a `struct timespec` in nanoseconds; `None` for a null pointer.
///
/// # Errors
/// EFAULT; EINVAL for a negative time or nanoseconds out of range.
pub(super) fn timespec(mm: &Mm, addr: u64) -> Result<Option<u64>> {
    if addr == 0 {
        return Ok(None);
    }
    let [sec, nsec] = mm.read_val::<[i64; 2]>(addr)?;
    nanoseconds(sec, nsec, NSEC_PER_SEC).map(Some)
}

/// Reads a `struct timeval` in nanoseconds; `None` for a null pointer.
///
/// # Errors
/// EFAULT; EINVAL for a negative time or microseconds out of range.
pub(super) fn timeval(mm: &Mm, addr: u64) -> Result<Option<u64>> {
    if addr == 0 {
        return Ok(None);
    }
    let [sec, usec] = mm.read_val::<[i64; 2]>(addr)?;
    if !(0..1_000_000).contains(&usec) {
        return Err(Errno::EINVAL);
    }
    nanoseconds(sec, usec * NSEC_PER_USEC as i64, NSEC_PER_SEC).map(Some)
}

fn nanoseconds(sec: i64, rest: i64, limit: u64) -> Result<u64> {
    match (u64::try_from(sec), u64::try_from(rest)) {
        (Ok(sec), Ok(rest)) if rest < limit => Ok(sec.saturating_mul(NSEC_PER_SEC).saturating_add(rest)),
        _ => Err(Errno::EINVAL),
    }
}

/// Nanoseconds as a `struct timespec`.
pub(super) fn to_timespec(ns: u64) -> [i64; 2] {
    [(ns / NSEC_PER_SEC) as i64, (ns % NSEC_PER_SEC) as i64]
}

/// Nanoseconds as a `struct timeval`, rounded down.
pub(super) fn to_timeval(ns: u64) -> [i64; 2] {
    [(ns / NSEC_PER_SEC) as i64, (ns % NSEC_PER_SEC / NSEC_PER_USEC) as i64]
}

/// When a timeout that starts now ends, for `Current::wait_on`.
pub(super) fn deadline(timeout: Option<u64>) -> Option<u64> {
    timeout.map(|ns| monotonic_ns().saturating_add(ns))
}
