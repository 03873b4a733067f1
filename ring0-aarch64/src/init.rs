//! The state a vCPU starts with, as plain data for whoever loads it.

use crate::cpu::KERNEL_HALF;

/// A system register, encoded as op0:op1:CRn:CRm:op2 (2, 3, 4, 4, 3 bits): the low half of KVM's register ids.
pub type Register = u16;

const fn register(op0: u16, op1: u16, crn: u16, crm: u16, op2: u16) -> Register {
    op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

/// System control: the MMU, the caches.
pub const SCTLR_EL1: Register = register(3, 0, 1, 0, 0);
/// Access to floating point.
pub const CPACR_EL1: Register = register(3, 0, 1, 0, 2);
/// Root of the lower half.
pub const TTBR0_EL1: Register = register(3, 0, 2, 0, 0);
/// Root of the upper half.
pub const TTBR1_EL1: Register = register(3, 0, 2, 0, 1);
/// Translation control.
pub const TCR_EL1: Register = register(3, 0, 2, 0, 2);
/// Memory attributes.
pub const MAIR_EL1: Register = register(3, 0, 10, 2, 0);
/// The vectors.
pub const VBAR_EL1: Register = register(3, 0, 12, 0, 0);
/// What EL0 may do with counters and timers.
pub const CNTKCTL_EL1: Register = register(3, 0, 14, 1, 0);
/// The thread pointer.
pub const TPIDR_EL0: Register = register(3, 3, 13, 0, 2);
/// The thread pointer that programs can read only. Nobody uses it, but KVM leaves a made-up value in it.
pub const TPIDRRO_EL0: Register = register(3, 3, 13, 0, 3);
/// Debugging.
pub const MDSCR_EL1: Register = register(2, 0, 0, 2, 2);
/// The memory-model features of the guest's core.
pub const ID_AA64MMFR0_EL1: Register = register(3, 0, 0, 7, 0);

/// PSTATE of the first instruction: EL1h, everything masked. Kernel code keeps the mask: interrupts open only with the
/// return to EL0.
pub const PSTATE: u64 = 0x3c5;

/// SCTLR_EL1 (D19.2.118) as Linux has it, but for WFI and WFE of EL0, which trap (bits 16 and 18 clear).
const SCTLR: u64 = 1 // MMU
    | 1 << 2 // data cache
    | 1 << 3 // stack alignment at EL1
    | 1 << 4 // and at EL0
    | 1 << 8 // SETEND off
    | 1 << 11 // exception returns synchronise
    | 1 << 12 // instruction cache
    | 1 << 14 // DC ZVA
    | 1 << 15 // CTR_EL0
    | 1 << 20 // RES1, or no access to SCXTNUM_EL0
    | 1 << 22 // exception entries synchronise
    | 1 << 23 // PAN stays as it is on entry
    | 1 << 26 // cache maintenance by address
    | 1 << 28 // RES1
    | 1 << 29; // RES1

/// EL0 and EL1 may use floating point (D19.2.30, FPEN).
const CPACR: u64 = 3 << 20;

/// EL0 may read the virtual counter (D19.12.16), as under Linux.
const CNTKCTL: u64 = 1 << 1;

/// What the guest's core can do that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryModel {
    /// log2 of the physical address space.
    pub physical_bits: u32,
    /// Width of an ASID.
    pub asid_bits: u32,
    /// Whether 4 KiB pages exist.
    pub granule_4k: bool,
}

impl MemoryModel {
    /// From ID_AA64MMFR0_EL1 (D19.2.64).
    pub const fn from_mmfr0(mmfr0: u64) -> MemoryModel {
        let physical_bits = match mmfr0 & 0xf {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            5 => 48,
            _ => 52,
        };
        let asid_bits = if mmfr0 >> 4 & 0xf == 2 { 16 } else { 8 };
        MemoryModel { physical_bits, asid_bits, granule_4k: mmfr0 >> 28 & 0xf != 0xf }
    }

    /// TCR_EL1 (D19.2.139): both halves 48 bits, 4 KiB granule, write-back inner-shareable walks, ASID from TTBR0, the
    /// top byte of user addresses ignored (Linux's tagged addresses).
    pub const fn tcr(self) -> u64 {
        // Physical addresses: 40 bits are enough for image and arena; fewer if the core has fewer.
        let ips = match self.physical_bits {
            32 => 0,
            36 => 1,
            _ => 2,
        };
        let half = 16 | 1 << 8 | 1 << 10 | 3 << 12;
        let upper = half << 16 | 2 << 30;
        half | upper | ips << 32 | (if self.asid_bits == 16 { 1 << 36 } else { 0 }) | 1 << 37
    }
}

/// What differs between vCPUs and machines.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The core.
    pub model: MemoryModel,
    /// Root of the kernel's lower half.
    pub kernel_ttbr0: u64,
    /// Root of the kernel half.
    pub ttbr1: u64,
    /// Address of the vector table in the image.
    pub vectors: u64,
    /// The worker's TPIDR_EL0.
    pub tpidr: u64,
    /// MAIR_EL1 that the page tables were made for.
    pub mair: u64,
}

/// System registers and their values. SCTLR_EL1, which turns the MMU on, comes last: on bare metal the order matters.
pub const fn registers(start: &Start) -> [(Register, u64); 11] {
    [
        (MAIR_EL1, start.mair),
        (TCR_EL1, start.model.tcr()),
        (TTBR0_EL1, start.kernel_ttbr0),
        (TTBR1_EL1, start.ttbr1),
        (VBAR_EL1, start.vectors | KERNEL_HALF),
        (CPACR_EL1, CPACR),
        (CNTKCTL_EL1, CNTKCTL),
        (MDSCR_EL1, 0),
        (TPIDR_EL0, start.tpidr),
        (TPIDRRO_EL0, 0),
        (SCTLR_EL1, SCTLR),
    ]
}

#[cfg(test)]
mod tests {
    use super::{MemoryModel, SCTLR, SCTLR_EL1, TCR_EL1, TPIDR_EL0};

    #[test]
    fn registers_are_encoded_as_kvm_numbers_them() {
        assert_eq!((SCTLR_EL1, TCR_EL1, TPIDR_EL0), (0xc080, 0xc102, 0xde82));
    }

    #[test]
    fn cortex_a72() {
        let model = MemoryModel::from_mmfr0(0x0000_1124);
        assert_eq!(model, MemoryModel { physical_bits: 44, asid_bits: 16, granule_4k: true });
        assert_eq!(model.tcr(), 0x0000_0032_b510_3510);
        assert_eq!(SCTLR & 0x30d0_0800, 0x30d0_0800, "the RES1 bits of ARMv8.0");
    }
}
