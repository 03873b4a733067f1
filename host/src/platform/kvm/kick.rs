//! Kicks: a signal to the worker's thread, whose handler only sets a flag in the run page.
//!
//! KVM reads that flag inside KVM_RUN ([`arch::kick_request`] says which it is), so there is no window in which a kick is
//! lost: set before, KVM_RUN returns as soon as the kick can be delivered; set during KVM_RUN the signal has interrupted
//! it and the loop looks again. What reaches the guest is an interrupt, and the worker's own thread raises it, between
//! two calls of KVM_RUN. On arm64 any thread could (KVM_IRQ_LINE), but a kick was lost that way now and then: the
//! line is a bit of the vCPU's HCR_EL2, other bits of which KVM changes without an atomic operation whenever
//! the vCPU's thread gets a CPU (`vcpu_set_wfx_traps` in Linux 6.1).

use super::arch;
use crate::hostsys::{process, syscall};
use core::cell::Cell;
use kvm_bindings::kvm_run;

/// The kick signal: nobody uses it, and sending it cannot fail (a real-time one needs room in a queue that all processes of
/// the user share).
const SIGNAL: i32 = libc::SIGSTKFLT;

thread_local! {
    /// The calling worker's run page; null elsewhere.
    static RUN: Cell<*mut kvm_run> = const { Cell::new(core::ptr::null_mut()) };
}

/// Installs the handler, once per process.
pub(super) fn install() {
    // SAFETY: the handler touches a thread-local and one byte of a mapping that lives as long as the worker; SA_ONSTACK
    // keeps it off kernel stacks where an alternate stack exists.
    unsafe {
        let mut action = core::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = on_kick as *const () as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(SIGNAL, &action, core::ptr::null_mut());
    }
}

extern "C" fn on_kick(_: i32) {
    let run = RUN.with(Cell::get);
    if !run.is_null() {
        // SAFETY: `bind` vouches for the pointer; KVM reads the byte, so the store must really happen.
        unsafe { arch::kick_request(run).write_volatile(1) };
    }
}

/// Names the calling worker's run page (null to end), and opens the signal in this thread.
pub(super) fn bind(run: *mut kvm_run) {
    RUN.with(|cell| cell.set(run));
    // SAFETY: changes this thread's mask only.
    unsafe {
        let mut set = core::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, SIGNAL);
        let how = if run.is_null() { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
        libc::pthread_sigmask(how, &set, core::ptr::null_mut());
    }
}

/// Takes a request of the handler's, if there is one.
pub(super) fn take(run: *mut kvm_run) -> bool {
    let request = arch::kick_request(run);
    // SAFETY: the calling worker's run page. It is cleared before the caller acts on it: one that comes in between is kept.
    unsafe {
        let requested = request.read_volatile() != 0;
        if requested {
            request.write_volatile(0);
        }
        requested
    }
}

/// Kicks the thread `tid` of this process. Nothing happens if there is none (any more).
pub(super) fn send(tid: i32) {
    let args = [process::id() as u64, tid as u64, SIGNAL as u64, 0, 0, 0];
    // SAFETY: sends a signal that has a handler.
    let _ = unsafe { syscall(libc::SYS_tgkill, args) };
}
