//! Which CPUs the host grants.

use super::syscall;
use crate::abi::Result;

/// Words of the widest affinity mask asked for: 4096 CPUs.
const MASK_WORDS: usize = 64;

/// How many CPUs the calling thread may run on.
///
/// # Errors
/// What sched_getaffinity(2) returns.
pub fn affinity_count() -> Result<usize> {
    let mut mask = [0_u64; MASK_WORDS];
    // SAFETY: the call writes at most the size it is given.
    let bytes = unsafe {
        syscall(
            libc::SYS_sched_getaffinity,
            [0, size_of_val(&mask) as u64, mask.as_mut_ptr() as u64, 0, 0, 0],
        )
    }? as usize;
    Ok(mask.iter().take(bytes / 8).map(|word| word.count_ones() as usize).sum())
}

/// Fills a buffer from the host's random number generator.
///
/// # Errors
/// What getrandom(2) returns.
pub fn random_bytes(buffer: &mut [u8]) -> Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        // SAFETY: the call writes at most the size it is given.
        done += unsafe {
            syscall(libc::SYS_getrandom, [rest.as_mut_ptr() as u64, rest.len() as u64, 0, 0, 0, 0])
        }? as usize;
    }
    Ok(())
}

/// Host calls that this module makes on one architecture only, whenever a worker starts.
#[cfg(target_arch = "x86_64")]
pub const OWN_CALLS: &[(i64, u32)] = &[(libc::SYS_arch_prctl, ARCH_GET_FS as u32)];
/// Host calls that this module makes on one architecture only, whenever a worker starts.
#[cfg(target_arch = "aarch64")]
pub const OWN_CALLS: &[(i64, u32)] = &[];

#[cfg(target_arch = "x86_64")]
const ARCH_GET_FS: u64 = 0x1003;

/// The calling thread's FS base (arch_prctl(2), `ARCH_GET_FS`).
#[cfg(target_arch = "x86_64")]
pub fn fs_base() -> u64 {
    let mut base = 0u64;
    // SAFETY: the call writes one word.
    let result = unsafe {
        syscall(libc::SYS_arch_prctl, [ARCH_GET_FS, core::ptr::from_mut(&mut base) as u64, 0, 0, 0, 0])
    };
    debug_assert!(result.is_ok());
    base
}

/// The calling thread's TPIDR_EL0.
#[cfg(target_arch = "aarch64")]
pub fn thread_pointer() -> u64 {
    let value: u64;
    // SAFETY: reads a register that belongs to user code.
    unsafe {
        core::arch::asm!("mrs {}, tpidr_el0", out(reg) value, options(nomem, nostack, preserves_flags))
    };
    value
}
