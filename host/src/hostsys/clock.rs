//! The host's clocks.

use super::syscall;

/// One of the host's clocks in nanoseconds, by a system call (not the vDSO: this must not touch libc state).
pub fn now(clock: libc::clockid_t) -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is valid for the write.
    let _ = unsafe { syscall(libc::SYS_clock_gettime, [clock as u64, &raw mut ts as u64, 0, 0, 0, 0]) };
    (ts.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(ts.tv_nsec as u64)
}
