//! Times as programs pass them.

use crate::abi::{Errno, Result};
use crate::mm::Mm;
use crate::time::{Given, NSEC_PER_SEC, NSEC_PER_USEC, monotonic_ns};

/// Reads a `struct timespec` in nanoseconds; `None` for a null pointer.
///
/// # Errors
/// EFAULT; EINVAL for a negative time or nanoseconds out of range.
pub(crate) fn timespec(mm: &Mm, addr: u64) -> Result<Option<u64>> {
    if addr == 0 {
        return Ok(None);
    }
    let [sec, nsec] = mm.read_val::<[i64; 2]>(addr)?;
    Given::from_parts(sec, nsec, 1).map(|given| Some(given.ns())).ok_or(Errno::EINVAL)
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
    Given::from_parts(sec, usec, NSEC_PER_USEC).map(|given| Some(given.ns())).ok_or(Errno::EINVAL)
}

/// Nanoseconds as a `struct timespec`.
pub(crate) fn to_timespec(ns: u64) -> [i64; 2] {
    [(ns / NSEC_PER_SEC) as i64, (ns % NSEC_PER_SEC) as i64]
}

/// Nanoseconds as a `struct timeval`, rounded down.
pub(crate) fn to_timeval(ns: u64) -> [i64; 2] {
    [(ns / NSEC_PER_SEC) as i64, (ns % NSEC_PER_SEC / NSEC_PER_USEC) as i64]
}

/// When a timeout that starts now ends, for `Current::wait_on`.
pub(crate) fn deadline(timeout: Option<u64>) -> Option<u64> {
    timeout.map(|ns| Given::from_ns(ns).after(monotonic_ns()))
}
