//! The way out: a debugger's, by semihosting (Arm's "Semihosting for AArch32 and AArch64", SYS_EXIT_EXTENDED).

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

const SYS_EXIT_EXTENDED: u64 = 0x20;
/// ADP_Stopped_ApplicationExit.
const APPLICATION_EXIT: u64 = 0x2_0026;
/// Marks a status as one of ours: the emulator ends with 1 when it fails itself.
const OURS: u8 = 0x40;

/// Set when ending has begun.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Ends the emulator with a status below 64. On a machine without a debugger, stops.
pub(super) fn power_off(status: u8) -> ! {
    // Where nobody listens, HLT is an undefined instruction: a fault in kernel code, which leads here again.
    if !ENDING.load(Ordering::Relaxed) {
        ENDING.store(true, Ordering::Relaxed);
        let block = [APPLICATION_EXIT, u64::from(OURS | status)];
        // SAFETY: the debugger reads two words.
        unsafe {
            asm!("hlt #0xf000", in("x0") SYS_EXIT_EXTENDED, in("x1") &raw const block, options(nostack))
        };
    }
    loop {
        // Interrupts are masked.
        aarch64_cpu::asm::wfi();
    }
}
