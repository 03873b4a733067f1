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
