//! The counter that user code and kernel code read without leaving the guest: TSC, CNTVCT_EL0.

/// Reads the counter. Not ordered with surrounding memory accesses: clocks need order only with themselves.
#[inline]
pub fn read() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86_64 CPU has it, and it has no side effects.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(target_arch = "aarch64")]
    {
        let value: u64;
        // SAFETY: readable at EL0 and EL1 wherever Linux runs; no side effects. The isb keeps the read from being
        // done early (Arm ARM D11.1.2, "Self-synchronization").
        unsafe { core::arch::asm!("isb", "mrs {}, cntvct_el0", out(reg) value, options(nomem, nostack)) };
        value
    }
}

/// Its frequency in Hz where the machine says so (arm64).
pub fn frequency() -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    {
        None
    }
    #[cfg(target_arch = "aarch64")]
    {
        let value: u64;
        // SAFETY: readable at EL0 and EL1; constant.
        unsafe { core::arch::asm!("mrs {}, cntfrq_el0", out(reg) value, options(nomem, nostack)) };
        (value != 0).then_some(value)
    }
}
