//! aarch64: stub code and signal frames.

mod frame;
mod sites;
mod stub;

use super::layout::Order;
use super::patches::CallCode;
pub(super) use frame::Frames;
pub(super) use sites::{Site, after, cell, divert, find};

/// e_machine.
pub(super) const ELF_MACHINE: u16 = 183;

/// The stub's code and offsets into it.
pub(super) struct Code {
    pub(super) bytes: &'static [u8],
    pub(super) handler: u64,
    pub(super) after_wake: u64,
    pub(super) after_wait: u64,
    pub(super) after_mask: u64,
    pub(super) after_return: u64,
}

/// The stub's code.
pub(super) fn code() -> Code {
    let begin = &raw const stub::pillbox_stub_begin;
    let offset = |symbol: *const u8| symbol as u64 - begin as u64;
    let end = offset(&raw const stub::pillbox_stub_end);
    Code {
        // SAFETY: begin and end delimit one object in read-only data.
        bytes: unsafe { core::slice::from_raw_parts(begin, end as usize) },
        handler: offset(&raw const stub::pillbox_stub_handler),
        after_wake: offset(&raw const stub::pillbox_stub_after_wake),
        after_wait: offset(&raw const stub::pillbox_stub_after_wait),
        after_mask: offset(&raw const stub::pillbox_stub_after_mask),
        after_return: offset(&raw const stub::pillbox_stub_after_return),
    }
}

/// Calls are not rewritten here.
pub(super) fn call_code() -> Option<CallCode> {
    None
}

/// TASK_SIZE depends on how the host kernel was built (39, 42, 47 or 48 bits; 52 only on request). The initial stack,
/// where AT_RANDOM points, is close below it.
pub(super) fn task_size() -> u64 {
    // SAFETY: no pointers.
    let stack = unsafe { libc::getauxval(libc::AT_RANDOM) };
    if stack == 0 { 1 << 48 } else { stack.next_power_of_two() }
}

/// Why this host cannot be used, if so.
pub(super) fn unusable() -> Option<&'static str> {
    // SAFETY: no pointers.
    let page = unsafe { libc::getauxval(libc::AT_PAGESZ) };
    (page != 4096).then_some("the host's pages are not 4 KiB")
}

/// The order that makes a thread (clone(2), raw argument order).
pub(super) fn clone_thread() -> Order {
    let flags =
        libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
    Order::new(libc::SYS_clone, [(flags | libc::CLONE_SYSVSEM) as u64, 0, 0, 0, 0, 0])
}

/// `struct kernel_sigaction` for the stub's handler: alternate stack, everything blocked inside.
pub(super) fn sigaction(handler: u64) -> [u64; 4] {
    const SA_RESTORER: u64 = 0x0400_0000;
    let flags = (libc::SA_SIGINFO | libc::SA_ONSTACK) as u64 | SA_RESTORER;
    // The handler never returns to the restorer; without one the host would name the vDSO, which is gone.
    [handler, flags, handler, !0]
}
