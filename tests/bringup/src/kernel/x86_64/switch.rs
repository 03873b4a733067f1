//! Calls into ring 0, and what it left behind.

use super::super::arch::KernelFault;
use ring0::Trap;
use ring0_x86_64::cpu::Cpu;
use ring0_x86_64::fp::FpState;
use ring0_x86_64::regs::UserRegs;
use ring0_x86_64::{entry, trap};

/// Runs user code until it traps.
pub(super) fn to_user(cpu: *mut Cpu, root: u64, regs: &mut UserRegs, fp: &mut FpState) -> Trap {
    // SAFETY: the block is this CPU's, initialised by the boot code; `root` is the template's copy. rip is canonical
    // because the last user page cannot be mapped, the segment bases are what programs loaded themselves, and the FP image
    // is initial or was stored by XSAVE.
    unsafe {
        let vector = entry::switch_to_user(cpu, regs, fp, root);
        trap::decode(vector, (*cpu).trap_error, (*cpu).trap_cr2)
    }
}

/// The exception in kernel code that brought us to the fault stack.
pub(super) fn kernel_fault(cpu: *mut Cpu) -> KernelFault {
    // SAFETY: this CPU's block; the entry code is done with it.
    let cpu = unsafe { &*cpu };
    KernelFault {
        trap: trap::decode(cpu.exit_vector, cpu.exit_error, cpu.exit_cr2),
        pc: cpu.exit_regs.rip,
        sp: cpu.exit_regs.rsp,
    }
}
