//! A kick's way into the guest: the vCPU's interrupt line, which a signal to the worker's thread or the VM's own timer
//! has it raise.

use super::super::machine::Machine;
use super::super::vcpu::{self, Worker, count};
use super::{Features, enter_if_worker, in_guest};
use crate::hostsys;
use kvm_bindings::{KVM_ARM_DEV_EL1_VTIMER, kvm_irq_level, kvm_run};
use ring0_aarch64::timer;
use std::os::fd::AsRawFd;

/// KVM_IRQ_LINE: `_IOW(KVMIO, 0x61, struct kvm_irq_level)`.
const KVM_IRQ_LINE: u64 = 0x4008_ae61;

/// Where a kick is requested: KVM_RUN returns at once.
pub(in crate::platform::kvm) fn kick_request(run: *mut kvm_run) -> *mut u8 {
    // SAFETY: a place in KVM's page, not a reference.
    unsafe { &raw mut (*run).immediate_exit }
}

/// Has the virtual timer interrupt user code.
pub(in crate::platform::kvm) fn kick_after(features: &Features, ns: u64) -> bool {
    // The worker is about to enter user code: it has to be in the guest anyway.
    let armed = features.timer_rate != 0 && enter_if_worker();
    if armed {
        // SAFETY: at EL1.
        unsafe { timer::arm(((u128::from(ns) * u128::from(features.timer_rate)) >> 32) as u64) };
    }
    armed
}

/// Has the virtual timer interrupt nobody, if the caller can tell it: KVM owns it outside the guest.
pub(in crate::platform::kvm) fn cancel_kick() {
    if in_guest() {
        // SAFETY: at EL1.
        unsafe { timer::disarm() };
    }
}

/// A kick has arrived: the line is a level, and would stop every further entry. So is the timer's.
pub(in crate::platform::kvm) fn acknowledge_kick(machine: &Machine, id: usize) {
    if machine.features().timer_rate != 0 && enter_if_worker() {
        // SAFETY: at EL1.
        unsafe { timer::disarm() };
    }
    set_line(machine, id, false);
}

fn set_line(machine: &Machine, id: usize, level: bool) {
    // Type 0 (`KVM_ARM_IRQ_TYPE_CPU`): the IRQ input of the vCPU itself. There is no interrupt controller.
    let mut line = kvm_irq_level { level: level.into(), ..Default::default() };
    line.__bindgen_anon_1.irq = (id as u32) << 16;
    let args = [machine.vm().as_raw_fd() as u64, KVM_IRQ_LINE, &raw const line as u64, 0, 0, 0];
    // SAFETY: the ioctl reads the structure. It fails only for a vCPU that does not exist yet, which is not in user code.
    let _no_such_vcpu = unsafe { hostsys::syscall(libc::SYS_ioctl, args) };
}

/// KVM_RUN returned early, because of a kick or because the virtual timer's line has risen: either raises the vCPU's.
/// Says whether it was the timer's.
pub(in crate::platform::kvm) fn interrupted(worker: &mut Worker) -> bool {
    let kicked = vcpu::take_kick(worker);
    let risen = timer_is_up(worker);
    if kicked {
        count(&vcpu::counters(worker).injected);
    }
    if kicked || risen {
        let (machine, id) = worker.place();
        set_line(machine, id, true);
    }
    risen
}

/// KVM_RUN returned for another reason: the virtual timer's line may have risen on the way, which KVM says here and never again
/// (Documentation/virt/kvm/api.rst, KVM_CAP_ARM_USER_IRQ: it returns when a line *changes*). Without this the slice that was
/// asked for would never end. Until it does, each return raises the vCPU's line once more, which changes nothing.
pub(in crate::platform::kvm) fn returned(worker: &Worker) {
    if timer_is_up(worker) {
        let (machine, id) = worker.place();
        set_line(machine, id, true);
    }
}

/// Whether KVM has said that the virtual timer's line is up.
fn timer_is_up(worker: &Worker) -> bool {
    // SAFETY: KVM filled the page; on arm64 the union has this and nothing else.
    let lines = unsafe { (*worker.run).s.regs.device_irq_level };
    lines & u64::from(KVM_ARM_DEV_EL1_VTIMER) != 0
}
