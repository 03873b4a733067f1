//! From ESR_EL1 and FAR_EL1 to [`Trap`]: pure (ARM DDI 0487, D19.2.37 "ESR_EL1").

use aarch64_cpu::registers::ESR_EL1::EC;
use ring0::{Access, Exception, Trap};

/// What the entry code stores instead of a syndrome (which has 32 bits) for an interrupt.
pub const MARK_IRQ: u64 = 1 << 32;
/// For an SError.
pub const MARK_SERROR: u64 = 1 << 33;

/// Exception classes: ESR_EL1.EC.
pub mod class {
    use aarch64_cpu::registers::ESR_EL1::EC::Value;

    /// Unknown reason: an undefined instruction.
    pub const UNKNOWN: u8 = Value::Unknown as u8;
    /// A trapped WFI or WFE.
    pub const WAIT: u8 = Value::TrappedWFIorWFE as u8;
    /// Floating-point or SIMD access trapped.
    pub const FP_ACCESS: u8 = Value::TrappedFP as u8;
    /// SVC in AArch64 state.
    pub const SVC: u8 = Value::SVC64 as u8;
    /// A trapped MSR, MRS or system instruction.
    pub const SYSTEM: u8 = Value::TrappedMsrMrs as u8;
    /// Instruction abort from EL0.
    pub const INSTRUCTION_ABORT: u8 = Value::InstrAbortLowerEL as u8;
    /// PC alignment fault.
    pub const PC_ALIGNMENT: u8 = Value::PCAlignmentFault as u8;
    /// Data abort from EL0.
    pub const DATA_ABORT: u8 = Value::DataAbortLowerEL as u8;
    /// SP alignment fault.
    pub const SP_ALIGNMENT: u8 = Value::SPAlignmentFault as u8;
    /// A trapped floating-point exception.
    pub const FP_EXCEPTION: u8 = Value::TrappedFP64 as u8;
    /// Breakpoint from EL0.
    pub const BREAKPOINT: u8 = Value::BreakpointLowerEL as u8;
    /// Software step from EL0.
    pub const SOFTWARE_STEP: u8 = Value::SoftwareStepLowerEL as u8;
    /// Watchpoint from EL0.
    pub const WATCHPOINT: u8 = Value::WatchpointLowerEL as u8;
    /// BRK in AArch64 state.
    pub const BRK: u8 = Value::Brk64 as u8;
}

/// ISS of a data abort: it was a write.
pub const WNR: u64 = 1 << 6;
/// ISS of a data abort: it was cache maintenance, which reports as a write and is not one.
pub const CM: u64 = 1 << 8;
/// Bit 55 selects the half of an address whatever its tag (D8.1.4).
const UPPER_HALF: u64 = 1 << 55;
const TAG: u64 = 0xff << 56;

/// Whether a syndrome is a system call's.
#[inline(always)]
pub const fn is_syscall(esr: u64) -> bool {
    esr >> EC.shift == class::SVC as u64
}

/// Decodes a trap from user mode.
pub const fn decode(esr: u64, far: u64) -> Trap {
    if esr == MARK_IRQ {
        return Trap::Kick;
    }
    // KVM of Linux 6.1 sign-extends the syndrome of aborts that it injects.
    let esr = esr & 0xffff_ffff;
    let ec = (esr >> EC.shift) as u8;
    match ec {
        class::SVC => Trap::Syscall,
        class::WAIT => Trap::Yield,
        class::INSTRUCTION_ABORT | class::DATA_ABORT => abort(ec, esr, far),
        class::PC_ALIGNMENT | class::WATCHPOINT => {
            Trap::Exception(Exception { class: ec, code: esr, addr: far })
        }
        // FAR_EL1 is not written (D19.2.40): it may hold anything.
        _ => Trap::Exception(Exception { class: ec, code: esr, addr: 0 }),
    }
}

/// Fault status codes are the low six bits; the translation-table levels are in the lowest two (D19.2.37, DFSC).
const fn abort(ec: u8, esr: u64, far: u64) -> Trap {
    let access = match ec {
        class::INSTRUCTION_ABORT => Access::Execute,
        _ if esr & WNR != 0 && esr & CM == 0 => Access::Write,
        _ => Access::Read,
    };
    match esr & 0x3f {
        // Address size, translation, access flag, permission.
        0x00..=0x0f => Trap::PageFault { addr: untagged(far), access, code: esr },
        // Synchronous external abort: what the host injects when KVM cannot reach memory.
        0x10..=0x17 => Trap::HostMemoryGone { addr: Some(untagged(far)) },
        _ => Trap::Exception(Exception { class: ec, code: esr, addr: far }),
    }
}

/// The address without the tag that hardware ignores in the lower half (TCR_EL1.TBI0).
pub const fn untagged(addr: u64) -> u64 {
    if addr & UPPER_HALF == 0 { addr & !TAG } else { addr }
}

#[cfg(test)]
mod tests {
    use super::{MARK_IRQ, decode};
    use ring0::{Access, Trap};

    #[test]
    fn classes_are_the_manuals() {
        use super::class;
        assert_eq!(
            [class::UNKNOWN, class::WAIT, class::FP_ACCESS, class::SVC, class::SYSTEM],
            [0, 1, 7, 0x15, 0x18]
        );
        assert_eq!([class::INSTRUCTION_ABORT, class::PC_ALIGNMENT, class::DATA_ABORT], [0x20, 0x22, 0x24]);
        assert_eq!([class::SP_ALIGNMENT, class::FP_EXCEPTION, class::BREAKPOINT], [0x26, 0x2c, 0x30]);
        assert_eq!([class::SOFTWARE_STEP, class::WATCHPOINT, class::BRK], [0x32, 0x34, 0x3c]);
    }

    #[test]
    fn syndromes_become_traps() {
        assert_eq!(decode(0x5600_0000, 0), Trap::Syscall);
        assert!(super::is_syscall(0x5600_0000) && !super::is_syscall(MARK_IRQ | 0x5600_0000));
        assert_eq!(decode(MARK_IRQ, 7), Trap::Kick);
        assert_eq!(decode(0x07e0_0000, 0), Trap::Yield);
        let fault = |addr, access, code| Trap::PageFault { addr, access, code };
        assert_eq!(decode(0x9200_0007, 0x1234), fault(0x1234, Access::Read, 0x9200_0007));
        assert_eq!(decode(0x9200_004f, 0xff00_0000_0000_1234), fault(0x1234, Access::Write, 0x9200_004f));
        assert_eq!(decode(0x9200_0147, 8), fault(8, Access::Read, 0x9200_0147));
        assert_eq!(decode(0x8200_0007, 8), fault(8, Access::Execute, 0x8200_0007));
        assert_eq!(decode(0x9200_0007, !0), fault(!0, Access::Read, 0x9200_0007));
        assert_eq!(decode(0xffff_ffff_9200_0010, 8), Trap::HostMemoryGone { addr: Some(8) });
        assert!(matches!(decode(0x9200_0061, 9), Trap::Exception(e) if e.class == 0x24 && e.addr == 9));
        assert!(matches!(decode(0xf200_0000, 0), Trap::Exception(e) if e.class == 0x3c));
    }
}
