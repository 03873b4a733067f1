//! Loads the state that ring 0 starts with: what KVM_SET_ONE_REG does for a vCPU. And cache maintenance.

use crate::kernel::memory;
use aarch64_cpu::asm::barrier::{SY, isb};
use aarch64_cpu::registers as arm;
use aarch64_cpu::registers::{Readable, Writeable};
use core::arch::asm;
use pagetables::Aarch64;
use ring0_aarch64::cpu::{Cpu, KERNEL_HALF};
use ring0_aarch64::entry;
use ring0_aarch64::init::{self, MemoryModel, Register, Start};

/// Installs ring 0 and continues the context at `Cpu::context_sp`.
///
/// # Safety
/// `cpu` is initialised; `lower` maps the code that runs and its stack to themselves, `upper` the entry code and the
/// block as `ring0_aarch64::cpu` says. `context_sp` names a suspended stack.
pub(super) unsafe fn ring0(cpu: *mut Cpu, lower: u64, upper: u64) -> ! {
    let start = Start {
        model: MemoryModel::from_mmfr0(arm::ID_AA64MMFR0_EL1.get()),
        kernel_ttbr0: lower,
        ttbr1: upper,
        vectors: entry::vectors(),
        tpidr: 0,
        mair: Aarch64::MAIR,
    };
    // SAFETY: the caller's. Everything was written with the data cache off; whatever the cache holds of it is older (ARM
    // DDI 0487, "Mismatched memory attributes"). The TLB holds what firmware left.
    unsafe {
        invalidate_data_cache(memory::bounds());
        asm!("dsb sy", "ic iallu", "tlbi vmalle1", "dsb nsh", "isb");
        for (register, value) in init::registers(&start) {
            load(register, value);
        }
        // EL1h: the stack pointer is SP_EL1.
        asm!("mov sp, {}", "br {}", in(reg) cpu as u64 | KERNEL_HALF, in(reg) entry::resume(), options(noreturn));
    }
}

/// Writes one of ring 0's registers. SCTLR_EL1, which turns the MMU on, comes last in their list.
///
/// # Safety
/// As for [`ring0`].
unsafe fn load(register: Register, value: u64) {
    match register {
        init::MAIR_EL1 => arm::MAIR_EL1.set(value),
        init::TCR_EL1 => arm::TCR_EL1.set(value),
        init::TTBR0_EL1 => arm::TTBR0_EL1.set(value),
        init::TTBR1_EL1 => arm::TTBR1_EL1.set(value),
        init::VBAR_EL1 => arm::VBAR_EL1.set(value),
        init::CPACR_EL1 => arm::CPACR_EL1.set(value),
        init::CNTKCTL_EL1 => arm::CNTKCTL_EL1.set(value),
        init::MDSCR_EL1 => arm::MDSCR_EL1.set(value),
        init::TPIDR_EL0 => arm::TPIDR_EL0.set(value),
        init::TPIDRRO_EL0 => arm::TPIDRRO_EL0.set(value),
        init::SCTLR_EL1 => {
            // The barriers also keep the compiler from moving accesses to memory across.
            isb(SY);
            arm::SCTLR_EL1.set(value);
            isb(SY);
        }
        other => panic!("ring 0 wants the system register {other:#x}, which the boot code does not know"),
    }
}

/// Bytes of the smallest data cache line: CTR_EL0.DminLine is the logarithm of its words.
fn data_line() -> u64 {
    let ctr: u64;
    // SAFETY: reads an identification register.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack)) };
    4 << (ctr >> 16 & 0xf)
}

/// # Safety
/// Nothing that the cache holds of the range is newer than memory.
unsafe fn invalidate_data_cache((start, end): (u64, u64)) {
    for line in (start..end).step_by(data_line() as usize) {
        // SAFETY: the caller's.
        unsafe { asm!("dc ivac, {}", in(reg) line, options(nostack)) };
    }
}

/// Makes stored bytes fetchable as instructions, at whatever address (ARM DDI 0487, "Synchronization and coherency issues
/// between data and instruction accesses"; the whole instruction cache, because it may be indexed by virtual addresses,
/// and these bytes run at another one).
pub(super) fn publish_code(start: u64, bytes: u64) {
    for line in (start..start + bytes).step_by(data_line() as usize) {
        // SAFETY: cleaning changes nothing that programs can see.
        unsafe { asm!("dc cvau, {}", in(reg) line, options(nostack)) };
    }
    // SAFETY: as above.
    unsafe { asm!("dsb ish", "ic ialluis", "dsb ish", "isb", options(nostack)) };
}
