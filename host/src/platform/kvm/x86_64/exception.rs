//! Exceptions of user code in Linux's terms.

use super::super::super::{FaultInfo, SignalInfo, Trap};
use super::super::space::Space;
use super::super::tables::WINDOWS;
use super::TASK_SIZE;
use crate::arch::{FpState, UserRegs};
use linux_raw_sys::general::{
    FPE_FLTDIV, FPE_FLTINV, FPE_FLTOVF, FPE_FLTRES, FPE_FLTUND, FPE_INTDIV, ILL_ILLOPN,
};
use ring0::Exception;
use ring0_x86_64::trap::vector;
use x86_64::registers::debug::Dr6Flags;
use x86_64::registers::mxcsr::MxCsr;
use x86_64::structures::idt::PageFaultErrorCode;

/// What a signal frame says about a page fault: whether something was mapped (bit 0) is told of a program's own memory
/// only. Linux says "yes" of everything above that; of our windows the true answer is "not by you".
pub(in crate::platform::kvm) fn page_fault_info(addr: u64, code: u64) -> FaultInfo {
    const PRESENT: u64 = PageFaultErrorCode::PROTECTION_VIOLATION.bits();
    let err = if addr >= TASK_SIZE {
        code | PRESENT
    } else if WINDOWS.overlap(addr, addr + 1) {
        code & !PRESENT
    } else {
        code
    };
    FaultInfo { trapno: vector::PAGE_FAULT.into(), err }
}

/// An exception as Linux reports it (arch/x86/kernel/traps.c). Never `None`: nothing is emulated.
pub(in crate::platform::kvm) fn exception(
    _: &Space,
    regs: &mut UserRegs,
    fp: &FpState,
    exception: Exception,
) -> Option<Trap> {
    let ip = regs.rip;
    let (signo, code, addr) = match exception.class {
        vector::DIVISION => (libc::SIGFPE, FPE_INTDIV as i32, ip),
        vector::DEBUG => {
            let single_step = exception.addr & Dr6Flags::STEP.bits() != 0;
            (libc::SIGTRAP, if single_step { libc::TRAP_TRACE } else { libc::TRAP_BRKPT }, ip)
        }
        vector::BREAKPOINT => (libc::SIGTRAP, libc::SI_KERNEL, 0),
        vector::OVERFLOW | vector::BOUND_RANGE => (libc::SIGSEGV, libc::SI_KERNEL, 0),
        vector::INVALID_OPCODE => (libc::SIGILL, ILL_ILLOPN as i32, ip),
        vector::STACK => (libc::SIGBUS, libc::SI_KERNEL, 0),
        vector::X87 => (libc::SIGFPE, fp_code(u32::from(status_word(fp)) & !u32::from(control_word(fp))), ip),
        vector::ALIGNMENT_CHECK => (libc::SIGBUS, libc::BUS_ADRALN, 0),
        vector::SIMD => (libc::SIGFPE, fp_code(mxcsr(fp) & !(mxcsr(fp) >> 7)), ip),
        _ => (libc::SIGSEGV, libc::SI_KERNEL, 0),
    };
    let info = FaultInfo { trapno: exception.class.into(), err: exception.code };
    Some(Trap::Signal(SignalInfo { signo, code, addr, info }))
}

fn control_word(fp: &FpState) -> u16 {
    u16::from_le_bytes([fp.0[0], fp.0[1]])
}

fn status_word(fp: &FpState) -> u16 {
    u16::from_le_bytes([fp.0[2], fp.0[3]])
}

fn mxcsr(fp: &FpState) -> u32 {
    u32::from_le_bytes([fp.0[24], fp.0[25], fp.0[26], fp.0[27]])
}

/// `si_code` for unmasked floating-point exceptions, whose bits are the same in MXCSR and in the x87 status word, in Linux's order of precedence (`fpu__exception_code`).
fn fp_code(unmasked: u32) -> i32 {
    let unmasked = MxCsr::from_bits_truncate(unmasked);
    if unmasked.contains(MxCsr::INVALID_OPERATION) {
        FPE_FLTINV as i32
    } else if unmasked.contains(MxCsr::DIVIDE_BY_ZERO) {
        FPE_FLTDIV as i32
    } else if unmasked.contains(MxCsr::OVERFLOW) {
        FPE_FLTOVF as i32
    } else if unmasked.intersects(MxCsr::UNDERFLOW | MxCsr::DENORMAL) {
        FPE_FLTUND as i32
    } else if unmasked.contains(MxCsr::PRECISION) {
        FPE_FLTRES as i32
    } else {
        0
    }
}
