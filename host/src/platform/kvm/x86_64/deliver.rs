//! A kick's way into the guest: a signal to the worker's thread, then an interrupt once user code can take it.

use super::super::machine::Machine;
use super::super::vcpu::{self, Worker, count};
use super::Features;
use crate::hostsys;
use kvm_bindings::{KVM_EXIT_IRQ_WINDOW_OPEN, kvm_run};
use ring0_x86_64::trap;

/// KVM_INTERRUPT: `_IOW(KVMIO, 0x86, struct kvm_interrupt)`.
const KVM_INTERRUPT: u64 = 0x4004_ae86;

/// Where a kick is requested: KVM_RUN returns once user code can take an interrupt.
pub(in crate::platform::kvm) fn kick_request(run: *mut kvm_run) -> *mut u8 {
    // SAFETY: a place in KVM's page, not a reference.
    unsafe { &raw mut (*run).request_interrupt_window }
}

/// A signal interrupted KVM_RUN: if it was a kick and the guest can take an interrupt now, inject it at once.
/// Says whether it was a timer of the VM's own: there is none.
pub(in crate::platform::kvm) fn interrupted(worker: &mut Worker) -> bool {
    // SAFETY: KVM's page; the guest is stopped.
    let ready = unsafe {
        let run = worker.run;
        (&raw const (*run).request_interrupt_window).read_volatile() != 0
            && (*run).ready_for_interrupt_injection != 0
            && (*run).if_flag != 0
    };
    if ready {
        inject_kick(worker);
    }
    false
}

/// The guest is in user code with interrupts open: deliver the kick.
fn inject_kick(worker: &mut Worker) {
    let interrupt = u32::from(trap::KICK);
    vcpu::take_kick(worker);
    let args = [worker.fd() as u64, KVM_INTERRUPT, &raw const interrupt as u64, 0, 0, 0];
    // SAFETY: the ioctl reads one word.
    let result = unsafe { hostsys::syscall(libc::SYS_ioctl, args) };
    if result.is_ok() {
        count(&vcpu::counters(worker).injected);
    }
}

/// Handles exits that do not hand a context over.
pub(in crate::platform::kvm) fn handle_exit(worker: &mut Worker, reason: u32) -> bool {
    if reason == KVM_EXIT_IRQ_WINDOW_OPEN {
        count(&vcpu::counters(worker).windows);
        inject_kick(worker);
        return true;
    }
    false
}

/// A VM without an interrupt controller has no timer.
pub(in crate::platform::kvm) fn kick_after(_: &Features, _: u64) -> bool {
    false
}

/// No timer, nothing to take back.
pub(in crate::platform::kvm) fn cancel_kick() {}

/// The interrupt was consumed by being taken.
pub(in crate::platform::kvm) fn acknowledge_kick(_: &Machine, _: usize) {}
