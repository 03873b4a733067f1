//! TLB maintenance, at EL1 only (ARM DDI 0487, D8.13; the sequence is D8.13.5's: store, DSB ISHST, TLBI, DSB ISH).
//!
//! The inner-shareable forms reach every vCPU of the VM, running or not: hardware does what x86 needs kicks for. Each vCPU
//! gives address spaces ASIDs of its own, so the broadcast names addresses and covers all ASIDs.

use aarch64_cpu::asm::barrier::{ISH, ISHST, dsb};
use core::arch::asm;

/// Makes new entries visible to the table walkers. Enough when only empty entries were written.
#[inline]
pub fn publish() {
    dsb(ISHST);
}

/// Drops the translations of `pages` 4 KiB pages from `start` on, in every address space, on every CPU, and waits.
/// Cached pointers to the tables above them go too.
///
/// # Safety
/// Runs at EL1.
#[inline]
pub unsafe fn flush(start: u64, pages: u64) {
    let first = start >> 12;
    dsb(ISHST);
    for page in first..first + pages {
        // SAFETY: the caller vouches for EL1; TLB maintenance has no other effect. Bits 43:0 hold the page number.
        unsafe {
            asm!("tlbi vaae1is, {}", in(reg) page & 0xfff_ffff_ffff, options(nostack, preserves_flags));
        }
    }
    dsb(ISH);
}
