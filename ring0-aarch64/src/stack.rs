//! Moving between kernel stacks: an ordinary function call to the compiler, in either engine.
//!
//! A suspended stack holds, from its saved stack pointer up: x19-x30, d8-d15 and FPCR (AAPCS64 6.1: callee-saved).

use core::arch::naked_asm;

/// Bytes a suspended stack holds.
pub(crate) const FRAME: usize = 12 * 8 + 8 * 8 + 16;

/// Suspends the current stack, storing its stack pointer in `*save`, and continues the one suspended at `to`.
///
/// # Safety
/// `to` was stored by this function (and not resumed since) or made by [`prepare`]; `save` is valid for a write.
#[unsafe(naked)]
pub unsafe extern "C" fn switch(save: *mut u64, to: u64) {
    naked_asm!(
        "sub sp, sp, #{frame}",
        "stp x19, x20, [sp]", "stp x21, x22, [sp, #16]", "stp x23, x24, [sp, #32]", "stp x25, x26, [sp, #48]",
        "stp x27, x28, [sp, #64]", "stp x29, x30, [sp, #80]",
        "stp d8, d9, [sp, #96]", "stp d10, d11, [sp, #112]", "stp d12, d13, [sp, #128]", "stp d14, d15, [sp, #144]",
        "mrs x9, fpcr", "str x9, [sp, #160]",
        "mov x9, sp", "str x9, [x0]",
        "mov sp, x1",
        "ldp x19, x20, [sp]", "ldp x21, x22, [sp, #16]", "ldp x23, x24, [sp, #32]", "ldp x25, x26, [sp, #48]",
        "ldp x27, x28, [sp, #64]", "ldp x29, x30, [sp, #80]",
        "ldp d8, d9, [sp, #96]", "ldp d10, d11, [sp, #112]", "ldp d12, d13, [sp, #128]", "ldp d14, d15, [sp, #144]",
        "ldr x9, [sp, #160]", "msr fpcr, x9",
        "add sp, sp, #{frame}",
        "ret",
        frame = const FRAME,
    )
}

/// First instruction of a prepared stack: calls `entry(arg)`, found in x19 and x20. The zero link register ends every
/// backtrace.
#[unsafe(naked)]
unsafe extern "C" fn trampoline() {
    naked_asm!("mov x0, x20", "mov x29, xzr", "mov x30, xzr", "br x19")
}

/// Lays out the stack that ends at `top` so that the first [`switch`] to the returned stack pointer calls `entry(arg)`.
///
/// # Safety
/// The 176 bytes below `top` (16-byte aligned) are valid, writable and unused.
pub unsafe fn prepare(top: u64, entry: extern "C" fn(usize) -> !, arg: usize) -> u64 {
    let mut frame = [0u64; FRAME / 8];
    frame[0] = entry as *const () as u64; // x19
    frame[1] = arg as u64; // x20
    frame[11] = trampoline as *const () as u64; // x30
    let sp = top - FRAME as u64;
    // SAFETY: the caller's.
    unsafe { (sp as *mut [u64; FRAME / 8]).write(frame) };
    sp
}
