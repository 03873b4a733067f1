//! From vector and error code to [`Trap`]: pure.

use ring0::{Access, Exception, Trap};
use x86_64::structures::idt::PageFaultErrorCode;

/// The pseudo-vector that the `syscall` entry stores.
pub const SYSCALL: u64 = 256;
/// The vector of the host's interrupt: the first that is not an exception.
pub const KICK: u8 = 32;

/// Vectors of exceptions (SDM vol. 3A, table 6-1).
pub mod vector {
    use x86_64::structures::idt::ExceptionVector;

    /// Division.
    pub const DIVISION: u8 = ExceptionVector::Division as u8;
    /// A debug exception.
    pub const DEBUG: u8 = ExceptionVector::Debug as u8;
    /// An NMI.
    pub const NMI: u8 = ExceptionVector::NonMaskableInterrupt as u8;
    /// A breakpoint (`int3`): a trap, reported behind the instruction.
    pub const BREAKPOINT: u8 = ExceptionVector::Breakpoint as u8;
    /// `into`: does not exist in 64-bit code but as `int 4`.
    pub const OVERFLOW: u8 = ExceptionVector::Overflow as u8;
    /// `bound`.
    pub const BOUND_RANGE: u8 = ExceptionVector::BoundRange as u8;
    /// An undefined instruction.
    pub const INVALID_OPCODE: u8 = ExceptionVector::InvalidOpcode as u8;
    /// A fault while another was delivered.
    pub const DOUBLE_FAULT: u8 = ExceptionVector::Double as u8;
    /// A bad TSS.
    pub const INVALID_TSS: u8 = ExceptionVector::InvalidTss as u8;
    /// An absent segment.
    pub const SEGMENT_NOT_PRESENT: u8 = ExceptionVector::SegmentNotPresent as u8;
    /// A non-canonical stack address.
    pub const STACK: u8 = ExceptionVector::Stack as u8;
    /// General protection.
    pub const GENERAL_PROTECTION: u8 = ExceptionVector::GeneralProtection as u8;
    /// A page fault.
    pub const PAGE_FAULT: u8 = ExceptionVector::Page as u8;
    /// An x87 exception.
    pub const X87: u8 = ExceptionVector::X87FloatingPoint as u8;
    /// Alignment.
    pub const ALIGNMENT_CHECK: u8 = ExceptionVector::AlignmentCheck as u8;
    /// A machine check.
    pub const MACHINE_CHECK: u8 = ExceptionVector::MachineCheck as u8;
    /// An SSE or AVX exception.
    pub const SIMD: u8 = ExceptionVector::SimdFloatingPoint as u8;
    /// Control-flow protection.
    pub const CONTROL_PROTECTION: u8 = ExceptionVector::ControlProtection as u8;
    /// AMD's #VC.
    pub const VMM_COMMUNICATION: u8 = ExceptionVector::VmmCommunication as u8;
    /// AMD's #SX.
    pub const SECURITY: u8 = ExceptionVector::Security as u8;
}

const PF_WRITE: u64 = PageFaultErrorCode::CAUSED_BY_WRITE.bits();
const PF_FETCH: u64 = PageFaultErrorCode::INSTRUCTION_FETCH.bits();

/// Decodes a trap from user mode. `detail` is CR2, except for debug exceptions (DR6).
pub const fn decode(vector: u64, error: u64, detail: u64) -> Trap {
    if vector == SYSCALL {
        return Trap::Syscall;
    }
    match vector as u8 {
        vector::PAGE_FAULT => {
            let access = if error & PF_FETCH != 0 {
                Access::Execute
            } else if error & PF_WRITE != 0 {
                Access::Write
            } else {
                Access::Read
            };
            Trap::PageFault { addr: detail, access, code: error }
        }
        KICK => Trap::Kick,
        // The only NMI is the one that the host injects when KVM cannot reach memory; CR2 is stale then.
        vector::NMI => Trap::HostMemoryGone { addr: None },
        class => Trap::Exception(Exception { class, code: error, addr: detail }),
    }
}

#[cfg(test)]
mod tests {
    use super::{SYSCALL, decode};
    use ring0::{Access, Trap};

    #[test]
    fn vectors_become_traps() {
        assert_eq!(decode(SYSCALL, 0, 0), Trap::Syscall);
        assert_eq!(decode(14, 0x4, 9), Trap::PageFault { addr: 9, access: Access::Read, code: 4 });
        assert_eq!(decode(14, 0x7, 9), Trap::PageFault { addr: 9, access: Access::Write, code: 7 });
        assert_eq!(decode(14, 0x15, 9), Trap::PageFault { addr: 9, access: Access::Execute, code: 0x15 });
        assert_eq!(decode(32, 0, 0), Trap::Kick);
        assert_eq!(decode(2, 0, 7), Trap::HostMemoryGone { addr: None });
        assert!(matches!(decode(6, 0, 0), Trap::Exception(e) if e.class == 6));
    }
}
