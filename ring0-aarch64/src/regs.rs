//! The saved user registers.

/// A task's user registers: Linux's `struct user_pt_regs` (asm/ptrace.h), then what ptrace keeps elsewhere.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserRegs {
    /// x0 to x30.
    pub x: [u64; 31],
    /// SP_EL0.
    pub sp: u64,
    /// ELR_EL1.
    pub pc: u64,
    /// SPSR_EL1.
    pub pstate: u64,
    /// TPIDR_EL0.
    pub tpidr: u64,
    /// x0 as it was on entry to a system call (x0 holds the result by then).
    pub orig_x0: u64,
    /// The system call number (x8 on entry), or `!0` after a trap that was not a system call.
    pub syscall: u64,
}
