//! Signal frames that no kernel wrote: a handler puts values into its context that no processor takes, and returns.

use crate::Case;
use crate::sys::{self, fork, handle, wait};

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
use aarch64 as cpu;
#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
use x86_64 as cpu;

pub(crate) const CASES: &[Case] = &[
    ("hostile_registers", cpu::registers),
    ("hostile_fp", cpu::fp),
    ("hostile_frame_addresses", frame_addresses),
];

/// What the running case does to the context.
static mut CHANGE: fn(*mut libc::ucontext_t) = |_| {};

extern "C" fn change(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: written before the signal by the same thread.
    let change = unsafe { CHANGE };
    change(context.cast());
}

extern "C" fn tell(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let (_, code, ..) = sys::info_fields(info);
    println!("  signal {signal} {}", cpu::describe(code, sys::info_address(info), context.cast()));
    sys::flush();
    sys::exit(0);
}

extern "C" fn tell_signal(signal: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    println!("  signal {signal}");
    sys::flush();
    sys::exit(0);
}

/// Has a handler change its context, in a child that tells what came of it. What goes on checks `after`.
fn with_context(what: &str, change_it: fn(*mut libc::ucontext_t), after: fn()) {
    println!("{what}:");
    let pid = fork(|| {
        let size = 256 << 10;
        let stack = [sys::memory(size) as u64, 0, size as u64];
        sys!(libc::SYS_sigaltstack, stack.as_ptr(), 0);
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP] {
            handle(signal, tell, libc::SA_ONSTACK);
        }
        handle(libc::SIGUSR1, change, 0);
        // SAFETY: single-threaded.
        unsafe { CHANGE = change_it };
        sys!(libc::SYS_kill, sys!(libc::SYS_getpid), libc::SIGUSR1);
        println!("  went on");
        after();
        0
    });
    let end = wait(pid);
    if end != "exited 0" {
        println!("  {end}");
    }
}

/// `rt_sigreturn` where no frame is.
fn frame_addresses() {
    for address in
        [0_u64, 8, 0x1001, 0x7fff_ffff_f000, 1 << 47, 0x0100_0000_0000_0000, 0xffff_8000_0000_0000, !7]
    {
        println!("sigreturn at {address:#x}:");
        let pid = fork(|| {
            let size = 256 << 10;
            let stack = [sys::memory(size) as u64, 0, size as u64];
            sys!(libc::SYS_sigaltstack, stack.as_ptr(), 0);
            handle(libc::SIGSEGV, tell_signal, libc::SA_ONSTACK);
            handle(libc::SIGBUS, tell_signal, libc::SA_ONSTACK);
            cpu::sigreturn_at(address)
        });
        println!("  {}", wait(pid));
    }
}
