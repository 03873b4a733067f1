//! This process: identity, and last words without a heap.

use super::syscall;
use core::sync::atomic::{AtomicBool, Ordering};

/// The process id.
pub fn id() -> i32 {
    // SAFETY: takes no pointers and cannot fail.
    unsafe { syscall(libc::SYS_getpid, [0; 6]) }.unwrap_or(0) as i32
}

/// The process that started this one (getppid(2)).
///
/// # Errors
/// None of Linux's.
pub fn parent() -> crate::abi::Result<u64> {
    // SAFETY: takes no pointers.
    unsafe { syscall(libc::SYS_getppid, [0; 6]) }
}

/// The calling thread's id.
pub fn thread_id() -> i32 {
    // SAFETY: takes no pointers and cannot fail.
    unsafe { syscall(libc::SYS_gettid, [0; 6]) }.unwrap_or(0) as i32
}

/// CPU time of all children waited for so far, in nanoseconds.
pub fn children_cpu_ns() -> u64 {
    // struct rusage begins with the two timevals; the rest is not looked at.
    let mut usage = [0_i64; 18];
    let who = libc::RUSAGE_CHILDREN as i64 as u64;
    // SAFETY: the buffer is as long as struct rusage.
    let _ = unsafe { syscall(libc::SYS_getrusage, [who, usage.as_mut_ptr() as u64, 0, 0, 0, 0]) };
    let [user_s, user_us, system_s, system_us, ..] = usage;
    ((user_s + system_s) * 1_000_000_000 + (user_us + system_us) * 1000).cast_unsigned()
}

/// Bytes of memory that the host has.
pub fn memory_bytes() -> u64 {
    // struct sysinfo: uptime, three loads, totalram, ..., mem_unit; 112 bytes.
    let mut info = [0_u64; 14];
    // SAFETY: the buffer is as long as struct sysinfo.
    let _ = unsafe { syscall(libc::SYS_sysinfo, [info.as_mut_ptr() as u64, 0, 0, 0, 0, 0]) };
    let unit = u64::from(info[13] as u32);
    info[4].saturating_mul(unit)
}

/// Lets other host threads run.
pub fn yield_now() {
    // SAFETY: takes no pointers.
    let _ = unsafe { syscall(libc::SYS_sched_yield, [0; 6]) };
}

/// Writes the parts to standard error, without buffer, lock or heap.
pub fn write_error(parts: &[&str]) {
    for part in parts {
        // SAFETY: writes valid memory to descriptor 2.
        let _ = unsafe { syscall(libc::SYS_write, [2, part.as_ptr() as u64, part.len() as u64, 0, 0, 0]) };
    }
}

/// Writes a line to standard error, if that takes it at once: nobody is kept waiting by a pipe that is not read.
pub fn tell(line: &str) {
    // struct pollfd: the descriptor, the events asked for, those found.
    let mut poll = [2_i32, i32::from(libc::POLLOUT)];
    let now = [0_u64; 2];
    let args = [poll.as_mut_ptr() as u64, 1, now.as_ptr() as u64, 0, 0, 0];
    // SAFETY: one struct pollfd, and a timeout of nothing.
    if unsafe { syscall(libc::SYS_ppoll, args) } == Ok(1) && poll[1] >> 16 & i32::from(libc::POLLOUT) != 0 {
        write_error(&[line]);
    }
}

/// Writes the parts to standard error and ends the process with status 125. For states in which nothing else works.
pub fn die(parts: &[&str]) -> ! {
    write_error(parts);
    end(125)
}

/// Ends the process as it is: nothing is dropped, flushed or unmapped. The caller's terminal is put back.
pub fn end(status: u8) -> ! {
    super::tty::restore();
    // SAFETY: ends the process.
    let _ = unsafe { syscall(libc::SYS_exit_group, [status.into(), 0, 0, 0, 0, 0]) };
    loop {
        core::hint::spin_loop();
    }
}

/// Has a signal do nothing, here and in what is started.
pub fn ignore(signal: i32) {
    // struct kernel_sigaction: SIG_IGN, no flags, no restorer, no mask.
    let action = [libc::SIG_IGN as u64, 0, 0, 0];
    // SAFETY: no handler is installed.
    let _ = unsafe { syscall(libc::SYS_rt_sigaction, [signal as u64, action.as_ptr() as u64, 0, 8, 0, 0]) };
}

/// The standard signals that whoever started this process has it ignore (nohup(1)): bit n - 1 for signal n. Not those that our
/// own run-time ignores.
pub fn ignored() -> u64 {
    let asked = (1..=libc::SIGSYS).filter(|signal| ![libc::SIGPIPE, libc::SIGXFSZ].contains(signal));
    let is_ignored = |signal: &i32| {
        // struct kernel_sigaction, the handler first.
        let mut action = [0_u64; 4];
        let args = [*signal as u64, 0, action.as_mut_ptr() as u64, 8, 0, 0];
        // SAFETY: `action` has room for what is written.
        let known = unsafe { syscall(libc::SYS_rt_sigaction, args) };
        known.is_ok() && action[0] == libc::SIG_IGN as u64
    };
    asked.filter(is_ignored).fold(0, |mask, signal| mask | 1 << (signal - 1))
}

/// Nobody but root looks into this process, and no core is made of it (prctl(2), PR_SET_DUMPABLE).
pub fn hide() {
    // SAFETY: no pointers.
    let _ = unsafe { syscall(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as u64, 0, 0, 0, 0, 0]) };
}

/// Stops this process by a signal that stops by default, until it is continued. Nothing happens where nobody could
/// continue it (signal(7): an orphaned process group).
pub fn stop(signo: i32) {
    let mask = 1u64 << (signo - 1);
    let change = |how: i32| {
        let args = [how as u64, &raw const mask as u64, 0, 8, 0, 0];
        // SAFETY: the mask is valid for the read.
        let _ = unsafe { syscall(libc::SYS_rt_sigprocmask, args) };
    };
    change(libc::SIG_UNBLOCK);
    // SAFETY: no pointers.
    let _ = unsafe { syscall(libc::SYS_tgkill, [id() as u64, thread_id() as u64, signo as u64, 0, 0, 0]) };
    // It has stopped, and goes on, before the call returns.
    if signo != libc::SIGSTOP {
        change(libc::SIG_BLOCK);
    }
}

/// Whether the process that runs this one is a shell with job control: another group of the session has started ours, and
/// can continue it.
pub fn has_job_control() -> bool {
    let group_and_session = |pid: u64| {
        // SAFETY: no pointers.
        let id = |call| unsafe { syscall(call, [pid, 0, 0, 0, 0, 0]) }.ok();
        Some((id(libc::SYS_getpgid)?, id(libc::SYS_getsid)?))
    };
    let parent_of = |pid: u64| -> Option<u64> {
        // /proc/PID/stat: pid (comm) state ppid ...; the name may hold anything.
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let Some((group, session)) = group_and_session(0) else { return false };
    let mut next = parent().ok();
    // Process 0 is one that is not seen from here.
    while let Some(pid) = next.filter(|pid| *pid != 0) {
        match group_and_session(pid) {
            Some((_, other)) if other != session => return false,
            Some((other, _)) if other != group => return true,
            Some(_) => next = parent_of(pid),
            None => return false,
        }
    }
    false
}

/// MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED: what a process asks for that is to be reached by [`memory_barrier`].
pub const JOIN_BARRIERS: u64 = 1 << 2;
/// MEMBARRIER_CMD_GLOBAL: waits until every CPU of the host has done something else, some 10 ms.
const EVERY_CPU: u64 = 1;
/// MEMBARRIER_CMD_GLOBAL_EXPEDITED: interrupts those that run a process which has registered, half a microsecond.
const REGISTERED: u64 = 1 << 1;

/// Whether every process that runs programs has registered. Of the process, not of what runs in it.
static ALL_REGISTERED: AtomicBool = AtomicBool::new(false);

/// Registers this process for barriers, and those that are forked from it: early, as it takes long once there are threads.
pub fn join_barriers() {
    // SAFETY: no pointers.
    let joined = unsafe { syscall(libc::SYS_membarrier, [JOIN_BARRIERS, 0, 0, 0, 0, 0]) };
    ALL_REGISTERED.store(joined.is_ok(), Ordering::Relaxed);
}

/// There is one that could not register.
pub fn barriers_miss_some() {
    ALL_REGISTERED.store(false, Ordering::Relaxed);
}

/// Orders memory on all CPUs that run programs (membarrier(2)), which may be in processes of their own.
pub fn memory_barrier() {
    let whom = if ALL_REGISTERED.load(Ordering::Relaxed) { REGISTERED } else { EVERY_CPU };
    // SAFETY: no pointers.
    let _ = unsafe { syscall(libc::SYS_membarrier, [whom, 0, 0, 0, 0, 0]) };
}

/// A value of the auxiliary vector (getauxval(3)), 0 if it is not there.
pub fn auxiliary(key: u64) -> u64 {
    // SAFETY: no pointers.
    unsafe { libc::getauxval(key) }
}

/// `value` in decimal, formatted into `buffer`.
pub fn decimal(mut value: u64, buffer: &mut [u8; 20]) -> &str {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    core::str::from_utf8(&buffer[at..]).unwrap_or("?")
}

#[cfg(test)]
mod tests {
    #[test]
    fn decimal_formats_the_extremes() {
        assert_eq!(super::decimal(0, &mut [0; 20]), "0");
        assert_eq!(super::decimal(u64::MAX, &mut [0; 20]), u64::MAX.to_string());
    }
}
