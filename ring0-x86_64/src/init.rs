//! The state a vCPU starts with, as plain data for whoever loads it.

use crate::tables::selector;

/// CR0: protection, monitor coprocessor, native FPU errors, write protection, alignment mask (else user code never gets
/// #AC), paging (SDM vol. 3A, 2.5).
pub const CR0: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 18 | 1 << 31;

/// CR4 bits (SDM vol. 3A, 2.5).
pub mod cr4 {
    /// Physical-address extension, global pages, FXSAVE and SIMD exceptions: always.
    pub const BASE: u64 = 1 << 5 | 1 << 7 | 1 << 9 | 1 << 10;
    /// User-mode instruction prevention.
    pub const UMIP: u64 = 1 << 11;
    /// RDFSBASE and its siblings.
    pub const FSGSBASE: u64 = 1 << 16;
    /// Process-context identifiers.
    pub const PCIDE: u64 = 1 << 17;
    /// XSAVE.
    pub const OSXSAVE: u64 = 1 << 18;
    /// No execution of user pages in ring 0.
    pub const SMEP: u64 = 1 << 20;
    /// No access to user pages in ring 0.
    pub const SMAP: u64 = 1 << 21;
}

/// EFER: SYSCALL, long mode enabled and active, no-execute.
pub const EFER: u64 = 1 | 1 << 8 | 1 << 10 | 1 << 11;

/// RFLAGS with interrupts off and the always-one bit: what ring 0 runs with.
pub const RFLAGS: u64 = 1 << 1;

/// Flags that SYSCALL clears: TF, IF, DF, IOPL, NT, AC.
const SFMASK: u64 = 1 << 8 | 1 << 9 | 1 << 10 | 3 << 12 | 1 << 14 | 1 << 18;

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
        (0xc000_0084, SFMASK),
        // PAT at its power-on value: entry 0 is write-back.
        (0x277, 0x0007_0406_0007_0406),
        // SYSENTER_CS = 0: SYSENTER faults.
        (0x174, 0),
        // KERNEL_GS_BASE: the program's base while ring 0 runs.
        (0xc000_0102, 0),
    ]
}
