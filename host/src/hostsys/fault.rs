//! Faults in kernel code.
//!
//! Whatever kernel code trips over in the guest is executed again natively, so every fault of ours is an ordinary signal
//! with the right address, handled here: on an alternate stack, because the kernel stack may be what overflowed.
//! An expected fault (a copy from a host file that was truncated) continues at its fix-up; everything else is a bug
//! in pillbox. If it is a task's stack that overflowed, the bug costs one program ([`super::overflow`]); others end the
//! sandbox with what is needed to find them.

use super::process::{decimal, die, write_error};
use core::ffi::c_void;
use core::sync::atomic::{AtomicUsize, Ordering};
use ring0::layout::{IMAGE_BASE, IMAGE_END, STACKS_BASE, STACKS_END};

/// Where to continue when the instruction at this address faults on memory; `None` where that is unexpected.
pub type Fixup = fn(u64) -> Option<u64>;

/// The installed [`Fixup`]; signal handlers have no other way to get at it.
static FIXUP: AtomicUsize = AtomicUsize::new(0);

/// How many frames a crash prints at most.
const FRAMES: usize = 64;

/// Installs the handlers, for the process.
pub fn install(fixup: Fixup) {
    FIXUP.store(fixup as usize, Ordering::Release);
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE] {
        // SAFETY: `on_fault` has the signature that SA_SIGINFO calls.
        unsafe {
            let mut action = core::mem::zeroed::<libc::sigaction>();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(signal, &action, core::ptr::null_mut());
        }
    }
}

/// Gives the calling thread an alternate signal stack.
///
/// # Safety
/// `[bottom, top)` is writable memory that nothing else uses until the thread ends.
pub unsafe fn use_alternate_stack(bottom: u64, top: u64) {
    let stack = libc::stack_t { ss_sp: bottom as *mut c_void, ss_flags: 0, ss_size: (top - bottom) as usize };
    // SAFETY: the caller's.
    unsafe { libc::sigaltstack(&stack, core::ptr::null_mut()) };
}

/// Takes the calling thread's alternate signal stack away again.
pub fn drop_alternate_stack() {
    let none = libc::stack_t { ss_sp: core::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: disabling touches no memory.
    unsafe { libc::sigaltstack(&none, core::ptr::null_mut()) };
}

/// Instruction pointer, stack pointer and frame pointer in a signal frame.
fn registers(context: &mut libc::ucontext_t) -> (&mut u64, u64, u64) {
    #[cfg(target_arch = "x86_64")]
    {
        let regs = &mut context.uc_mcontext.gregs;
        let (sp, fp) = (regs[libc::REG_RSP as usize] as u64, regs[libc::REG_RBP as usize] as u64);
        let ip = &raw mut regs[libc::REG_RIP as usize];
        // SAFETY: i64 and u64 have the same layout; the borrow is the function's.
        (unsafe { &mut *ip.cast::<u64>() }, sp, fp)
    }
    #[cfg(target_arch = "aarch64")]
    {
        let machine = &mut context.uc_mcontext;
        (&mut machine.pc, machine.sp, machine.regs[29])
    }
}

unsafe extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the host kernel passes a valid siginfo and ucontext to an SA_SIGINFO handler.
    let (addr, (ip, sp, fp)) =
        unsafe { ((*info).si_addr() as u64, registers(&mut *context.cast::<libc::ucontext_t>())) };
    let fixup = FIXUP.load(Ordering::Acquire);
    if fixup != 0 && (signal == libc::SIGSEGV || signal == libc::SIGBUS) {
        // SAFETY: only `install` stores there, and it stores a `Fixup`.
        let fixup = unsafe { core::mem::transmute::<usize, Fixup>(fixup) };
        if let Some(target) = fixup(*ip) {
            *ip = target;
            return;
        }
    }
    let overflow = super::overflow::is_in_guard(addr);
    let ip = *ip;
    // SAFETY: as above.
    if overflow && super::overflow::panic_instead(unsafe { &mut *context.cast::<libc::ucontext_t>() }, addr) {
        return;
    }
    crash(signal, addr, ip, (sp, fp), overflow)
}

fn name(signal: i32) -> &'static str {
    match signal {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGBUS => "SIGBUS",
        libc::SIGILL => "SIGILL",
        _ => "SIGFPE",
    }
}

/// `value` in hexadecimal.
fn hex(value: u64, buffer: &mut [u8; 18]) -> &str {
    buffer[..2].copy_from_slice(b"0x");
    for (i, digit) in buffer[2..].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(value >> (60 - 4 * i)) as usize & 15];
    }
    core::str::from_utf8(buffer).unwrap_or("?")
}

fn crash(signal: i32, addr: u64, ip: u64, (sp, fp): (u64, u64), overflow: bool) -> ! {
    write_error(&[
        "pillbox: ",
        if overflow { "kernel stack overflow: " } else { "fault in kernel code: " },
        name(signal),
        " at address ",
        hex(addr, &mut [0; 18]),
        ", ip ",
        hex(ip, &mut [0; 18]),
        ", sp ",
        hex(sp, &mut [0; 18]),
        ", thread ",
        decimal(super::process::thread_id() as u64, &mut [0; 20]),
        "\n",
    ]);
    // The frame chain first: it needs no heap, no lock and no debug information.
    backtrace(ip, fp);
    // Then names, unless the heap's lock is what this thread was holding, or this program's file cannot be opened any more.
    if !overflow && crate::arena::heap_is_free() && !super::confine::is_confined() {
        eprintln!("{}", std::backtrace::Backtrace::force_capture());
    }
    die(&["pillbox: the sandbox cannot go on; this is a bug in pillbox, please report the lines above\n"])
}

/// Prints the return addresses that the chain of frame pointers leads to (the image is built with them).
fn backtrace(ip: u64, mut fp: u64) {
    let mut from = ip;
    for _ in 0..FRAMES {
        write_error(&["  from ", hex(from, &mut [0; 18]), "\n"]);
        if !(STACKS_BASE..STACKS_END - 16).contains(&fp) || !fp.is_multiple_of(8) {
            return;
        }
        // SAFETY: an aligned address in the stack region, and above the guard of a stack in use since the chain only
        // goes up; a broken chain at worst faults again, which ends the process as well.
        let (next, return_address) = unsafe { ((fp as *const u64).read(), (fp as *const u64).add(1).read()) };
        if next <= fp || !(IMAGE_BASE..IMAGE_END).contains(&return_address) {
            return;
        }
        (fp, from) = (next, return_address);
    }
}
