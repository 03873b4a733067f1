//! Bits of personality(2) that change something here. Others are kept and shown, as on a Linux without what they ask for.

/// Addresses are the same in every run.
pub const ADDR_NO_RANDOMIZE: u32 = 0x004_0000;
/// Memory that can be read can be executed.
pub const READ_IMPLIES_EXEC: u32 = 0x040_0000;
/// uname(2) speaks of Linux 2.6.
pub const UNAME26: u32 = 0x002_0000;
/// The bits that name a kind of system.
pub const PER_MASK: u32 = 0xff;
/// Linux on a 32-bit machine.
pub const PER_LINUX32: u32 = 8;
const MMAP_PAGE_ZERO: u32 = 0x010_0000;
const ADDR_COMPAT_LAYOUT: u32 = 0x020_0000;

/// What execve(2) clears: what a 64-bit program never has and, if the program is `raised` above its caller, all that would
/// make it easier to attack (PER_CLEAR_ON_SETID).
pub(super) fn kept_off(raised: bool) -> u32 {
    let unsafe_bits = ADDR_NO_RANDOMIZE | ADDR_COMPAT_LAYOUT | MMAP_PAGE_ZERO;
    READ_IMPLIES_EXEC | if raised { unsafe_bits } else { 0 }
}
