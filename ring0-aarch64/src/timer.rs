//! The virtual timer, at EL1 only (ARM DDI 0487, D12.2.4 and D19.12): an interrupt after a while, without help from outside.
//!
//! Without an interrupt controller KVM tells its caller when the timer's line rises (Documentation/virt/kvm/api.rst,
//! KVM_CAP_ARM_USER_IRQ), which raises the vCPU's.

use aarch64_cpu::registers::{CNTV_CTL_EL0, CNTV_TVAL_EL0, Writeable};

/// Has the timer's line rise after `ticks` of CNTVCT_EL0 (below 2^31), instead of whenever it was told before.
///
/// # Safety
/// Runs at EL1.
#[inline]
pub unsafe fn arm(ticks: u64) {
    // The interrupt is masked here, and taken from EL0.
    CNTV_TVAL_EL0.set(ticks.min(i32::MAX as u64));
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::SET);
}

/// Lowers the line, and keeps it low.
///
/// # Safety
/// Runs at EL1.
#[inline]
pub unsafe fn disarm() {
    CNTV_CTL_EL0.set(0);
}
