//! Argument vectors and their limits (execve(2), "Limits on size of arguments and environment").

use crate::abi::{Errno, Result};
use crate::mm::{Mm, MmLimits};
use std::sync::atomic::Ordering;

/// Longest single string, its zero byte included (MAX_ARG_STRLEN).
pub const MAX_STRING: usize = 32 * 4096;
/// Linux never allows less than this in total (ARG_MAX)...
const MIN_TOTAL: u64 = 32 * 4096;
/// ...nor more than three quarters of the default stack.
const MAX_TOTAL: u64 = (8 << 20) / 4 * 3;
/// Most strings in one vector (MAX_ARG_STRINGS is higher, but no memory could hold them).
const MAX_STRINGS: usize = 0x7f_ffff;

/// Bytes that strings and their pointers may take.
fn total_limit(limits: &MmLimits) -> u64 {
    (limits.stack.load(Ordering::Relaxed) / 4).clamp(MIN_TOTAL, MAX_TOTAL)
}

/// Reads a vector of strings that ends with a null pointer (`argv`, `envp`); a null vector is empty, as on Linux.
///
/// # Errors
/// EFAULT; E2BIG beyond the limits.
pub fn read_vector(mm: &Mm, addr: u64, limits: &MmLimits) -> Result<Vec<Vec<u8>>> {
    let mut strings = Vec::new();
    if addr == 0 {
        return Ok(strings);
    }
    let mut budget = total_limit(limits);
    loop {
        let slot = addr.checked_add(strings.len() as u64 * 8).ok_or(Errno::EFAULT)?;
        let string: u64 = mm.read_val(slot)?;
        if string == 0 {
            return Ok(strings);
        }
        let string = mm.read_cstr(string, MAX_STRING).map_err(|errno| match errno {
            Errno::ENAMETOOLONG => Errno::E2BIG,
            other => other,
        })?;
        budget = budget.checked_sub(string.len() as u64 + 1 + 8).ok_or(Errno::E2BIG)?;
        strings.push(string);
        if strings.len() > MAX_STRINGS {
            return Err(Errno::E2BIG);
        }
    }
}

/// Checks that everything fits together.
pub(super) fn check(argv: &[Vec<u8>], envp: &[Vec<u8>], execfn: &[u8], limits: &MmLimits) -> Result<()> {
    let all = argv.iter().chain(envp);
    if all.clone().any(|string| string.len() >= MAX_STRING) {
        return Err(Errno::E2BIG);
    }
    let bytes: u64 = all.map(|string| string.len() as u64 + 1 + 8).sum::<u64>() + execfn.len() as u64 + 1;
    if bytes > total_limit(limits) { Err(Errno::E2BIG) } else { Ok(()) }
}
