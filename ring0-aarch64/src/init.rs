//! The state a vCPU starts with, as plain data for whoever loads it.

use crate::cpu::KERNEL_HALF;
use aarch64_cpu::registers as arm;

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
pub const PSTATE: u64 = {
    use arm::SPSR_EL1::{A, D, F, I, M};
    D::Masked.value | A::Masked.value | I::Masked.value | F::Masked.value | M::EL1h.value
};

/// SCTLR_EL1 (D19.2.118) as Linux has it, but for WFI and WFE of EL0, which trap (nTWI and nTWE clear).
const SCTLR: u64 = {
    use arm::SCTLR_EL1::{C, DZE, I, M, SA, SA0, UCI, UCT};
    let memory = M::Enable.value | C::Cacheable.value | I::Cacheable.value;
    let stacks = SA::Enable.value | SA0::Enable.value;
    let allowed = DZE::DontTrap.value | UCT::DontTrap.value | UCI::DontTrap.value;
    memory | stacks | allowed | SCTLR_UNNAMED
};
/// Bits of it that `aarch64-cpu` has no names for.
const SCTLR_UNNAMED: u64 = 1 << 8 // SETEND off
    | 1 << 11 // exception returns synchronise
    | 1 << 20 // RES1, or no access to SCXTNUM_EL0
    | 1 << 22 // exception entries synchronise
    | 1 << 23 // PAN stays as it is on entry
    | 1 << 28 // RES1
    | 1 << 29; // RES1

/// EL0 and EL1 may use floating point (D19.2.30).
const CPACR: u64 = arm::CPACR_EL1::FPEN::TrapNothing.value;

/// EL0 may read the virtual counter (D19.12.16), as under Linux.
const CNTKCTL: u64 = arm::CNTKCTL_EL1::EL0VCTEN::TrappedNone.value;

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
    pub fn from_mmfr0(mmfr0: u64) -> MemoryModel {
        use arm::ID_AA64MMFR0_EL1::{ASIDBits, PARange, TGran4};
        let physical_bits = match PARange.read_as_enum(mmfr0) {
            Some(PARange::Value::Bits_32) => 32,
            Some(PARange::Value::Bits_36) => 36,
            Some(PARange::Value::Bits_40) => 40,
            Some(PARange::Value::Bits_42) => 42,
            Some(PARange::Value::Bits_44) => 44,
            Some(PARange::Value::Bits_48) => 48,
            Some(PARange::Value::Bits_52) | None => 52,
        };
        let asid_bits = match ASIDBits.read_as_enum(mmfr0) {
            Some(ASIDBits::Value::Bits_16) => 16,
            _ => 8,
        };
        let granule_4k = TGran4.read_as_enum(mmfr0) != Some(TGran4::Value::NotSupported);
        MemoryModel { physical_bits, asid_bits, granule_4k }
    }

    /// TCR_EL1 (D19.2.139): both halves 48 bits, 4 KiB granule, write-back inner-shareable walks, ASID from TTBR0, the
    /// top byte of user addresses ignored (Linux's tagged addresses).
    pub fn tcr(self) -> u64 {
        use arm::TCR_EL1::{AS, IPS, IRGN0, IRGN1, ORGN0, ORGN1, SH0, SH1, T0SZ, T1SZ, TBI0, TG0, TG1};
        // Physical addresses: 40 bits are enough for image and arena; fewer if the core has fewer.
        let physical = match self.physical_bits {
            32 => IPS::Bits_32,
            36 => IPS::Bits_36,
            _ => IPS::Bits_40,
        };
        let asids = if self.asid_bits == 16 { AS::ASID16Bits } else { AS::ASID8Bits };
        let lower = T0SZ.val(UNUSED_BITS)
            + IRGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
            + ORGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
            + SH0::Inner
            + TG0::KiB_4;
        let upper = T1SZ.val(UNUSED_BITS)
            + IRGN1::WriteBack_ReadAlloc_WriteAlloc_Cacheable
            + ORGN1::WriteBack_ReadAlloc_WriteAlloc_Cacheable
            + SH1::Inner
            + TG1::KiB_4;
        (lower + upper + physical + asids + TBI0::Ignored).value
    }
}

/// Address bits that a half does not use.
const UNUSED_BITS: u64 = 64 - 48;

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
pub fn registers(start: &Start) -> [(Register, u64); 11] {
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
        let small = MemoryModel { physical_bits: 36, asid_bits: 8, granule_4k: true };
        assert_eq!(MemoryModel::from_mmfr0(0x0000_0001), small);
        assert_eq!(small.tcr(), 0x0000_0021_b510_3510);
        assert!(!MemoryModel::from_mmfr0(0xf000_0006).granule_4k);
        assert_eq!((super::PSTATE, SCTLR, super::CPACR, super::CNTKCTL), (0x3c5, 0x34d0_d91d, 3 << 20, 2));
        assert_eq!(SCTLR & 0x30d0_0800, 0x30d0_0800, "the RES1 bits of ARMv8.0");
    }
}
