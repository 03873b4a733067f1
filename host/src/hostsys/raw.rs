use crate::abi::{Errno, Result};
use core::arch::asm;

/// Number and arguments of one host call.
pub type Syscall = (i64, [u64; 6]);

/// Executes one host system call.
///
/// # Errors
/// The host's error number.
///
/// # Safety
/// As the call itself: pointers must be valid for what the host kernel does with them, and the call must not
/// break memory that Rust owns.
#[inline]
pub unsafe fn syscall(number: i64, args: [u64; 6]) -> Result<u64> {
    let value: i64;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller vouches for the call; the kernel clobbers rcx and r11 only.
    unsafe {
        asm!("syscall", inlateout("rax") number => value, in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5], lateout("rcx") _, lateout("r11") _,
            options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the caller vouches for the call; x17 is what the exit protocol resumes with.
    unsafe {
        asm!("svc #0", in("x8") number, inlateout("x0") args[0] as i64 => value, in("x1") args[1],
            in("x2") args[2], in("x3") args[3], in("x4") args[4], in("x5") args[5], lateout("x16") _,
            lateout("x17") _, options(nostack));
    }
    if (-4095..0).contains(&value) { Err(Errno(-value as i32)) } else { Ok(value as u64) }
}

/// A host call with arguments that the caller knows to be harmless, for tests.
#[cfg(test)]
pub fn harmless(number: i64, args: [u64; 6]) -> Result<u64> {
    // SAFETY: the caller's word.
    unsafe { syscall(number, args) }
}
