//! The test programs for x86_64.

use crate::arch::{FpState, UserRegs};
use core::arch::global_asm;

/// Bytes between two programs.
pub(super) const STRIDE: u64 = 16;

/// The programs, in the order of the code below.
#[derive(Clone, Copy)]
pub(super) enum Program {
    Syscall = 0,
    Load = 1,
    Vector = 2,
    Spin = 3,
}

global_asm!(
    ".pushsection .rodata.selftest, \"a\", @progbits",
    ".balign 16",
    ".globl selftest_code, selftest_code_end",
    "selftest_code:",
    "syscall",
    "ud2",
    ".balign 16, 0xcc",
    "mov rbx, [rdi]",
    "syscall",
    "ud2",
    ".balign 16, 0xcc",
    "pshufd xmm0, xmm0, 0x1b",
    "syscall",
    "ud2",
    ".balign 16, 0xcc",
    "2: pause",
    "jmp 2b",
    ".balign 16, 0xcc",
    "selftest_code_end:",
    ".popsection",
);

unsafe extern "C" {
    static selftest_code: u8;
    static selftest_code_end: u8;
}

/// The code.
pub(super) fn bytes() -> &'static [u8] {
    let (start, end) = (&raw const selftest_code, &raw const selftest_code_end);
    // SAFETY: both labels delimit the read-only bytes assembled above.
    unsafe { core::slice::from_raw_parts(start, end as usize - start as usize) }
}

/// Gives every general register a value of its own.
pub(super) fn fill(regs: &mut UserRegs) {
    let all = [
        &mut regs.rax,
        &mut regs.rbx,
        &mut regs.rdx,
        &mut regs.rsi,
        &mut regs.rdi,
        &mut regs.rbp,
        &mut regs.r8,
        &mut regs.r9,
        &mut regs.r10,
        &mut regs.r12,
        &mut regs.r13,
        &mut regs.r14,
        &mut regs.r15,
        &mut regs.rcx,
        &mut regs.r11,
        &mut regs.rsp,
        &mut regs.fs_base,
        &mut regs.gs_base,
    ];
    for (i, register) in all.into_iter().enumerate() {
        *register = 0x1111_1110 * (i as u64 + 1);
    }
}

pub(super) fn set_argument(regs: &mut UserRegs, value: u64) {
    regs.rdi = value;
}

pub(super) fn loaded(regs: &UserRegs) -> u64 {
    regs.rbx
}

/// A system call preserves everything but rcx and r11.
pub(super) fn compare_after_syscall(before: &UserRegs, after: &UserRegs) -> Result<(), String> {
    let mut wanted = *before;
    wanted.rip += 2;
    (wanted.rcx, wanted.r11, wanted.orig_rax) = (wanted.rip, wanted.eflags, wanted.rax);
    compare(&wanted, after)
}

/// A fault preserves everything.
pub(super) fn compare_after_fault(before: &UserRegs, after: &UserRegs) -> Result<(), String> {
    compare(&UserRegs { orig_rax: !0, eflags: after.eflags, ..*before }, after)
}

fn compare(wanted: &UserRegs, got: &UserRegs) -> Result<(), String> {
    if wanted == got { Ok(()) } else { Err(format!("registers changed: expected {wanted:x?}, got {got:x?}")) }
}

pub(super) fn set_vector(fp: &mut FpState) {
    fp.0[160..176].copy_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
    // The header says that SSE state is present.
    fp.0[512] |= 2;
}

pub(super) fn check_vector(fp: &FpState) -> Result<(), String> {
    let wanted = [4, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0];
    if fp.0[160..176] == wanted { Ok(()) } else { Err(format!("xmm0 is {:?}", &fp.0[160..176])) }
}

/// MXCSR's rounding control: up.
const ROUND_UP: u32 = 2 << 13;

pub(super) fn round_up(fp: &mut FpState) {
    let mxcsr = 0x1f80 | ROUND_UP;
    fp.0[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    fp.0[512] |= 2;
}

pub(super) fn rounds_up(fp: &FpState) -> bool {
    fp.0[24..28] == (0x1f80 | ROUND_UP).to_le_bytes()
}

/// Reads through a null pointer.
pub(super) fn read_null() -> u64 {
    let value: u64;
    // SAFETY: not sound, and meant so: the process ends here. (Assembly, because Rust may assume that it cannot happen.)
    unsafe { core::arch::asm!("xor {0:e}, {0:e}", "mov {0}, [{0}]", out(reg) value) };
    value
}
