//! The state a vCPU starts with, as plain data for whoever loads it.

use crate::tables::selector;
use x86_64::registers::control::{Cr0Flags, Cr4Flags};
use x86_64::registers::model_specific::EferFlags;
use x86_64::registers::rflags::RFlags;

/// CR0: protection, monitor coprocessor, native FPU errors, write protection, alignment mask (else user code never gets
/// #AC), paging (SDM vol. 3A, 2.5).
pub const CR0: u64 = Cr0Flags::PROTECTED_MODE_ENABLE
    .union(Cr0Flags::MONITOR_COPROCESSOR)
    .union(Cr0Flags::EXTENSION_TYPE)
    .union(Cr0Flags::NUMERIC_ERROR)
    .union(Cr0Flags::WRITE_PROTECT)
    .union(Cr0Flags::ALIGNMENT_MASK)
    .union(Cr0Flags::PAGING)
    .bits();

/// What every CR4 has: physical-address extension, global pages, FXSAVE and SIMD exceptions (SDM vol. 3A, 2.5).
pub const CR4_BASE: Cr4Flags = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION
    .union(Cr4Flags::PAGE_GLOBAL)
    .union(Cr4Flags::OSFXSR)
    .union(Cr4Flags::OSXMMEXCPT_ENABLE);

/// EFER: SYSCALL, long mode enabled and active, no-execute.
pub const EFER: u64 = EferFlags::SYSTEM_CALL_EXTENSIONS
    .union(EferFlags::LONG_MODE_ENABLE)
    .union(EferFlags::LONG_MODE_ACTIVE)
    .union(EferFlags::NO_EXECUTE_ENABLE)
    .bits();

/// RFLAGS with interrupts off and the always-one bit, which has no name: what ring 0 runs with.
pub const RFLAGS: u64 = 1 << 1;

/// Flags that SYSCALL clears.
const SFMASK: RFlags = RFlags::TRAP_FLAG
    .union(RFlags::INTERRUPT_FLAG)
    .union(RFlags::DIRECTION_FLAG)
    .union(RFlags::IOPL_LOW)
    .union(RFlags::IOPL_HIGH)
    .union(RFlags::NESTED_TASK)
    .union(RFlags::ALIGNMENT_CHECK);

/// Model-specific registers and their values; `entry` is the kernel-half address of the `syscall` entry.
///
/// CSTAR (32-bit `syscall`, unreachable while no 32-bit code segment exists) names the same entry, which is safe
/// from anywhere.
pub const fn msrs(entry: u64) -> [(u32, u64); 7] {
    let star = (selector::KERNEL_CODE as u64) << 32 | (selector::USER_CODE32 as u64) << 48;
    [
        (0xc000_0081, star),
        (0xc000_0082, entry),
        (0xc000_0083, entry),
        (0xc000_0084, SFMASK.bits()),
        // PAT at its power-on value: entry 0 is write-back.
        (0x277, 0x0007_0406_0007_0406),
        // SYSENTER_CS = 0: SYSENTER faults.
        (0x174, 0),
        // KERNEL_GS_BASE: the program's base while ring 0 runs.
        (0xc000_0102, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::{CR0, CR4_BASE, EFER, SFMASK};

    #[test]
    fn bits_are_where_the_manual_has_them() {
        assert_eq!((CR0, CR4_BASE.bits(), EFER), (0x8005_0033, 0x6a0, 0xd01));
        assert_eq!(SFMASK.bits(), 0x4_7700);
    }
}
