//! System calls of attackers, as plain functions: results are what the kernel returns, errors negative.
//!
//! Safe to call only in the sense that a test program may crash itself.

/// Makes a system call: `sys!(libc::SYS_dup3, 1, 5, 0)`; missing arguments are 0.
macro_rules! sys {
    ($number:expr $(, $arg:expr)* $(,)?) => {
        // One expression: temporaries whose address is passed live until the call has returned.
        $crate::sys::call($number, &[$($arg as i64),*])
    };
}

/// Makes a system call; the result, or a negative errno.
pub(crate) fn call(number: i64, given: &[i64]) -> i64 {
    let mut args = [0_i64; 6];
    args[..given.len()].copy_from_slice(given);
    let [a, b, c, d, e, f] = args;
    // SAFETY: a test program; what the call does to its memory is the case's business.
    match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
        -1 => -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)),
        result => result,
    }
}

/// Forks; the child ends with what `body` returns. Returns the child's pid.
///
/// # Errors
/// What fork returns.
pub(crate) fn fork(body: impl FnOnce() -> i32) -> Result<i32, String> {
    // SAFETY: callers have one thread.
    match unsafe { libc::fork() } {
        -1 => Err(format!("fork: {}", std::io::Error::last_os_error())),
        0 => {
            let status = body();
            sys!(libc::SYS_exit_group, status);
            std::process::abort()
        }
        pid => Ok(pid),
    }
}

/// SIGKILL; negative pids are process groups. -1 (everybody) and 0 (ourselves) are refused.
pub(crate) fn kill(pid: i32) {
    assert!(pid != -1 && pid != 0, "that would be everybody");
    sys!(libc::SYS_kill, pid, libc::SIGKILL);
}

/// A child that has ended, without waiting: its pid and wait status.
pub(crate) fn reap() -> Option<(i32, i32)> {
    let mut status = 0_i32;
    let pid = sys!(libc::SYS_wait4, -1, &raw mut status, libc::WNOHANG, 0);
    (pid > 0).then_some((pid as i32, status))
}

/// Address space, private and anonymous.
pub(crate) fn map(len: u64, prot: i32, flags: i32) -> i64 {
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    sys!(libc::SYS_mmap, 0, len, prot, anonymous | flags, -1, 0)
}
