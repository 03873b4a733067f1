//! Moving between kernel stacks: an ordinary function call to the compiler, in either engine.
//!
//! A suspended stack holds, from its saved stack pointer up: MXCSR and the x87 control word (callee-saved control bits
//! of the System V ABI), then rbx, rbp, r12-r15 and the return address. Nothing else is live across a call.

use crate::fp::{INITIAL_FCW, INITIAL_MXCSR};
use core::arch::naked_asm;

/// MXCSR with all exceptions masked, and the x87 control word Linux starts with: what every fresh stack begins with.
const INITIAL_CONTROLS: u64 = INITIAL_MXCSR as u64 | (INITIAL_FCW as u64) << 32;

/// Suspends the current stack, storing its stack pointer in `*save`, and continues the one suspended at `to`.
///
/// # Safety
/// `to` was stored by this function (and not resumed since) or made by [`prepare`]; `save` is valid for a write.
#[unsafe(naked)]
pub unsafe extern "C" fn switch(save: *mut u64, to: u64) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "sub rsp, 8",
        "stmxcsr [rsp]",
        "fnstcw [rsp + 4]",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "ldmxcsr [rsp]",
        "fldcw [rsp + 4]",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// First instruction of a prepared stack: calls `entry(arg)`, found in r12 and r13. The zero return address above ends
/// every backtrace.
#[unsafe(naked)]
unsafe extern "C" fn trampoline() {
    naked_asm!("mov rdi, r13", "xor ebp, ebp", "push rbp", "jmp r12")
}

/// Lays out the stack that ends at `top` so that the first [`switch`] to the returned stack pointer calls `entry(arg)`.
///
/// # Safety
/// The 128 bytes below `top` (16-byte aligned) are valid, writable and unused.
pub unsafe fn prepare(top: u64, entry: extern "C" fn(usize) -> !, arg: usize) -> u64 {
    let frame: [u64; 10] = [
        INITIAL_CONTROLS,
        0,                         // r15
        0,                         // r14
        arg as u64,                // r13
        entry as *const () as u64, // r12
        0,                         // rbx
        0,                         // rbp
        trampoline as *const () as u64,
        0,
        0,
    ];
    let sp = top - size_of_val(&frame) as u64;
    // SAFETY: the caller's.
    unsafe { (sp as *mut [u64; 10]).write(frame) };
    sp
}
