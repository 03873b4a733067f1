//! The virtual timer, at EL1 only (ARM DDI 0487, D12.2.4 and D19.12): an interrupt after a while, without help from outside.
//!
//! Without an interrupt controller KVM tells its caller when the timer's line rises (Documentation/virt/kvm/api.rst,
//! KVM_CAP_ARM_USER_IRQ), which raises the vCPU's.

use core::arch::asm;

/// CNTV_CTL_EL0: on, not masked.
const ENABLE: u64 = 1;

/// Has the timer's line rise after `ticks` of CNTVCT_EL0 (below 2^31), instead of whenever it was told before.
///
/// # Safety
/// Runs at EL1.
#[inline]
pub unsafe fn arm(ticks: u64) {
    // SAFETY: the caller vouches for EL1; the interrupt is masked there, and taken from EL0.
    unsafe {
        asm!("msr cntv_tval_el0, {}", "msr cntv_ctl_el0, {}", in(reg) ticks.min(i32::MAX as u64), in(reg) ENABLE,
            options(nomem, nostack, preserves_flags));
    }
}

/// Lowers the line, and keeps it low.
///
/// # Safety
/// Runs at EL1.
#[inline]
pub unsafe fn disarm() {
    // SAFETY: the caller vouches for EL1.
    unsafe { asm!("msr cntv_ctl_el0, xzr", options(nomem, nostack, preserves_flags)) };
}
