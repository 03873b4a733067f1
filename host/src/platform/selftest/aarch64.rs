//! The test programs for aarch64.

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
    ".pushsection .rodata.selftest, \"a\", %progbits",
    ".balign 16",
    ".globl selftest_code, selftest_code_end",
    "selftest_code:",
    "svc #0",
    "udf #0",
    ".balign 16",
    "ldr x1, [x0]",
    "svc #0",
    "udf #0",
    ".balign 16",
    "rev64 v0.4s, v0.4s",
    "svc #0",
    "udf #0",
    ".balign 16",
    "2: b 2b",
    ".balign 16",
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
    let all = regs.x.iter_mut().chain([&mut regs.sp, &mut regs.tpidr]);
    for (i, register) in all.enumerate() {
        *register = 0x1111_1110 * (i as u64 + 1);
    }
    // Negative and carry.
    regs.pstate = 0xa000_0000;
}

pub(super) fn set_argument(regs: &mut UserRegs, value: u64) {
    regs.x[0] = value;
}

pub(super) fn loaded(regs: &UserRegs) -> u64 {
    regs.x[1]
}

/// A system call preserves everything.
pub(super) fn compare_after_syscall(before: &UserRegs, after: &UserRegs) -> Result<(), String> {
    let (orig_x0, syscall) = (before.x[0], before.x[8]);
    compare(&UserRegs { pc: before.pc + 4, orig_x0, syscall, ..*before }, after)
}

/// So does a fault.
pub(super) fn compare_after_fault(before: &UserRegs, after: &UserRegs) -> Result<(), String> {
    compare(&UserRegs { syscall: !0, orig_x0: after.orig_x0, ..*before }, after)
}

fn compare(wanted: &UserRegs, got: &UserRegs) -> Result<(), String> {
    if wanted == got { Ok(()) } else { Err(format!("registers changed: expected {wanted:x?}, got {got:x?}")) }
}

pub(super) fn set_vector(fp: &mut FpState) {
    fp.v[0] = 0x0000_0004_0000_0003_0000_0002_0000_0001;
}

pub(super) fn check_vector(fp: &FpState) -> Result<(), String> {
    let wanted = 0x0000_0003_0000_0004_0000_0001_0000_0002;
    if fp.v[0] == wanted { Ok(()) } else { Err(format!("v0 is {:#x}", fp.v[0])) }
}

/// FPCR's rounding mode: up.
const ROUND_UP: u32 = 1 << 22;

pub(super) fn round_up(fp: &mut FpState) {
    fp.fpcr = ROUND_UP;
}

pub(super) fn rounds_up(fp: &FpState) -> bool {
    fp.fpcr == ROUND_UP
}

/// Reads through a null pointer.
pub(super) fn read_null() -> u64 {
    let value: u64;
    // SAFETY: not sound, and meant so: the process ends here. (Assembly, because Rust may assume that it cannot happen.)
    unsafe { core::arch::asm!("mov {0}, xzr", "ldr {0}, [{0}]", out(reg) value) };
    value
}
