//! From vector and error code to [`Trap`]: pure.

use ring0::{Access, Exception, Trap};

/// The pseudo-vector that the `syscall` entry stores.
pub const SYSCALL: u64 = 256;
/// The vector of the host's interrupt: the first that is not an exception.
pub const KICK: u8 = 32;
/// The vector of a page fault.
pub const PAGE_FAULT: u8 = 14;
/// The vector of an NMI.
pub const NMI: u8 = 2;
/// The vector of a debug exception.
pub const DEBUG: u8 = 1;
/// The vector of a breakpoint (`int3`): a trap, reported behind the instruction.
pub const BREAKPOINT: u8 = 3;

/// Page-fault error code: a write (SDM vol. 3A, 4.7).
const PF_WRITE: u64 = 1 << 1;
/// Page-fault error code: an instruction fetch.
const PF_FETCH: u64 = 1 << 4;

/// Decodes a trap from user mode. `detail` is CR2, except for debug exceptions (DR6).
pub const fn decode(vector: u64, error: u64, detail: u64) -> Trap {
    if vector == SYSCALL {
        return Trap::Syscall;
    }
    match vector as u8 {
        PAGE_FAULT => {
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
        NMI => Trap::HostMemoryGone { addr: None },
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
