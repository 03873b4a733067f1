//! futex(2), process-private.

use super::syscall;
use core::sync::atomic::AtomicU32;
use core::time::Duration;

/// Sleeps while `*word == expected`, at most `timeout`. Returns on a wake, a timeout, a signal or a mismatch.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
    let ts = timeout.map(|t| libc::timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
    let ts_ptr = ts.as_ref().map_or(0, |t| core::ptr::from_ref(t) as u64);
    let op = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as u64;
    // SAFETY: the word is a valid aligned u32 and the timeout lives across the call.
    let _ = unsafe { syscall(libc::SYS_futex, [word.as_ptr() as u64, op, expected.into(), ts_ptr, 0, 0]) };
}

/// Wakes up to `count` sleepers and returns how many.
pub fn wake(word: &AtomicU32, count: u32) -> u32 {
    let op = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as u64;
    // SAFETY: the word is a valid aligned u32.
    unsafe { syscall(libc::SYS_futex, [word.as_ptr() as u64, op, count.into(), 0, 0, 0]) }.unwrap_or(0) as u32
}
