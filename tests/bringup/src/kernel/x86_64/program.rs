//! The user program.

use crate::kernel::program::{DATA, call};
use core::arch::global_asm;

global_asm!(
    include_str!("program.S"),
    EXIT = const call::EXIT,
    WRITE = const call::WRITE,
    YIELD = const call::YIELD,
    DATA = const DATA,
);

unsafe extern "C" {
    static program_start: u8;
    static program_end: u8;
}

/// Its instructions and data: one page at most.
pub(super) fn bytes() -> &'static [u8] {
    let (start, end) = (&raw const program_start, &raw const program_end);
    // SAFETY: both symbols are in one section of the image, which nobody writes.
    unsafe { core::slice::from_raw_parts(start, end as usize - start as usize) }
}
