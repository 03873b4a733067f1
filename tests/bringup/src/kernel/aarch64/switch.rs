//! Calls into ring 0, and what it left behind.

use super::super::arch::KernelFault;
use aarch64_cpu::registers::ESR_EL1::EC;
use pagetables::Flush;
use ring0::Trap;
use ring0_aarch64::cpu::Cpu;
use ring0_aarch64::fp::FpState;
use ring0_aarch64::regs::UserRegs;
use ring0_aarch64::{entry, tlb, trap};

/// Runs user code until it traps. `ttbr0` is root and ASID.
pub(super) fn to_user(cpu: *mut Cpu, ttbr0: u64, regs: &mut UserRegs, fp: &mut FpState) -> Trap {
    // SAFETY: the block is this CPU's, initialised by the boot code; registers and FP state lie in the image or on its
    // stacks, and the caller's space outlives the call.
    unsafe {
        entry::switch_to_user(cpu, regs, fp, ttbr0);
        trap::decode((*cpu).trap_esr, (*cpu).trap_far)
    }
}

/// Makes an edit of a table effective.
pub(super) fn flush(flush: Flush) {
    if flush.is_empty() {
        tlb::publish();
    } else {
        // SAFETY: kernel code here runs at EL1.
        unsafe { tlb::flush(flush.start(), flush.pages()) };
    }
}

/// The exception in kernel code that brought us to the fault stack.
pub(super) fn kernel_fault(cpu: *mut Cpu) -> KernelFault {
    // SAFETY: this CPU's block; the entry code is done with it.
    let cpu = unsafe { &*cpu };
    // What it would be if a program had it.
    let class = match EC.read_as_enum(cpu.exit_esr) {
        Some(EC::Value::InstrAbortCurrentEL) => Some(EC::InstrAbortLowerEL),
        Some(EC::Value::DataAbortCurrentEL) => Some(EC::DataAbortLowerEL),
        _ => None,
    };
    let esr = class.map_or(cpu.exit_esr, |class| class.modify(cpu.exit_esr));
    KernelFault { trap: trap::decode(esr, cpu.exit_far), pc: cpu.exit_regs.pc, sp: cpu.exit_regs.sp }
}
