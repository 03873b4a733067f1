//! This process: identity, and last words without a heap.

use super::syscall;

/// The process id.
pub fn id() -> i32 {
    // SAFETY: takes no pointers and cannot fail.
    unsafe { syscall(libc::SYS_getpid, [0; 6]) }.unwrap_or(0) as i32
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

/// Writes the parts to standard error and ends the process with status 125. For states in which nothing else works.
pub fn die(parts: &[&str]) -> ! {
    write_error(parts);
    // SAFETY: ends the process.
    let _ = unsafe { syscall(libc::SYS_exit_group, [125, 0, 0, 0, 0, 0]) };
    loop {
        core::hint::spin_loop();
    }
}

/// Orders memory on every CPU of the host (membarrier(2), MEMBARRIER_CMD_GLOBAL): programs may run in processes of their
/// own.
pub fn memory_barrier() {
    // SAFETY: no pointers.
    let _ = unsafe { syscall(libc::SYS_membarrier, [1, 0, 0, 0, 0, 0]) };
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
