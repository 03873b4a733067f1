//! A kernel stack that overflows.
//!
//! The guard below each stack makes it a fault, which a handler gets on a stack of its own, whichever engine ran the code:
//! what faults in a VM's ring 0 is executed again natively. There the stack gets a reserve, the upper part of its guard, and
//! the code that was interrupted goes on as if it had called a function that panics. From then on it is a bug of ours like any
//! other: the stack unwinds, what the task holds is let go, one line says so, its process is killed and the others go on.
//!
//! # What is lost
//! Unwinding knows what to drop at calls only. Where a call's own push is what failed, the call is made. Else the innermost
//! function was interrupted somewhere in its middle and is left out, as if its caller's call had panicked: what it had
//! already taken (mostly nothing, since most overflows are of a function's first push) is never given back. For memory and
//! references that is a leak of one function's worth. If it is a lock, its next user finds out: see [`lock_is_lost`].
//!
//! The sandbox ends with a line instead where nothing can be unwound: in the allocator, with host pages as large as the
//! whole guard, in a destructor that runs because of a panic, below a function that cannot be unwound.

use super::process::die;
use super::{futex, mem};
use crate::arena::stack::{GUARD, SLOT};
use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use core::time::Duration;
use ring0::layout::{STACKS_BASE, STACKS_END};

/// What stays of a guard whose stack has its reserve.
const KEPT: u64 = 16 << 10;
/// What the panic and the unwinding need.
const NEEDED: u64 = 24 << 10;
/// How long the allocator may be in use by somebody else, in looks a millisecond apart.
const LOOKS: u32 = 1000;

/// Whether the calling thread runs something that a panic ends, and nothing else with it.
pub type MayPanic = fn() -> bool;

/// The [`MayPanic`] that was installed; signal handlers have no other way to get at it.
static MAY_PANIC: AtomicUsize = AtomicUsize::new(0);
/// Whether a stack has overflowed and all went on.
static HAPPENED: AtomicBool = AtomicBool::new(false);

/// What an overflow panics with.
#[derive(Clone, Copy, Debug)]
pub struct Overflow;

/// Makes overflows panics where `may_panic` says so.
pub fn install(may_panic: MayPanic) {
    MAY_PANIC.store(may_panic as usize, Ordering::Release);
}

/// Whether an address lies in the guard of a kernel stack.
pub(super) fn is_in_guard(addr: u64) -> bool {
    (STACKS_BASE..STACKS_END).contains(&addr) && (addr - STACKS_BASE) % SLOT < GUARD
}

fn slot_of(addr: u64) -> u64 {
    addr - (addr - STACKS_BASE) % SLOT
}

/// Makes `context`, which was interrupted by a fault in a guard, go on with a panic. False: it cannot be.
pub(super) fn panic_instead(context: &mut libc::ucontext_t, addr: u64) -> bool {
    let may_panic = MAY_PANIC.load(Ordering::Acquire);
    if may_panic == 0 {
        return false;
    }
    // SAFETY: only `install` stores there, and it stores a `MayPanic`.
    let may_panic = unsafe { core::mem::transmute::<usize, MayPanic>(may_panic) };
    let slot = slot_of(addr);
    if !may_panic() || addr < slot + KEPT || !heap_becomes_free() {
        return false;
    }
    // SAFETY: the guard of the stack that the interrupted code runs on, which nothing else uses.
    if unsafe { mem::protect(slot + KEPT, GUARD - KEPT, libc::PROT_READ | libc::PROT_WRITE) }.is_err() {
        return false;
    }
    HAPPENED.store(true, Ordering::SeqCst);
    let Some(sp) = arch::call(context, addr, overflowed as *const () as u64) else { return false };
    (slot + KEPT + NEEDED..slot + SLOT).contains(&sp)
}

fn heap_becomes_free() -> bool {
    (0..LOOKS).any(|_| {
        crate::arena::heap_is_free() || {
            futex::wait(&AtomicU32::new(0), 0, Some(Duration::from_millis(1)));
            false
        }
    })
}

/// What the interrupted code seems to have called.
extern "C-unwind" fn overflowed() -> ! {
    std::panic::panic_any(Overflow)
}

/// Sets the guard again below the stack that holds `inside`, a little of which is in use now.
pub fn restore_guard(inside: u64) {
    if (STACKS_BASE..STACKS_END).contains(&inside) {
        // SAFETY: the caller is far above; below it nothing is in use.
        let _same_as_before = unsafe { mem::protect(slot_of(inside), GUARD, libc::PROT_NONE) };
    }
}

/// For who has waited for a lock for seconds that nobody holds for as long: ends the sandbox if an overflow may be why.
pub fn lock_is_lost() {
    if HAPPENED.load(Ordering::SeqCst) {
        die(&["pillbox: kernel code whose stack overflowed held a lock; the sandbox cannot go on\n"]);
    }
}

/// The state in which a function's caller goes on when it returns.
#[derive(Clone, Copy)]
struct Caller {
    ip: u64,
    sp: u64,
    /// What functions keep, by DWARF number.
    kept: [u64; KEPT_COUNT],
}

#[cfg(target_arch = "x86_64")]
use x86_64 as arch;
#[cfg(target_arch = "x86_64")]
use x86_64::{KEPT_COUNT, KEPT_REGISTERS};

#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(target_arch = "aarch64")]
use aarch64::{KEPT_COUNT, KEPT_REGISTERS};

/// `_Unwind_Context` of the unwinder that std is built on (Itanium C++ ABI: Exception Handling, 1.5).
#[repr(C)]
struct Frame {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn _Unwind_Backtrace(each: extern "C" fn(*mut Frame, *mut c_void) -> i32, arg: *mut c_void) -> i32;
    fn _Unwind_GetIP(frame: *mut Frame) -> usize;
    fn _Unwind_GetCFA(frame: *mut Frame) -> usize;
    fn _Unwind_GetGR(frame: *mut Frame, register: i32) -> usize;
}

struct Search {
    /// Where the function was interrupted whose caller is wanted.
    ip: u64,
    seen: bool,
    caller: Option<Caller>,
}

/// The caller of the function that was interrupted at `ip`. To be called by the handler of that signal.
fn caller_of(ip: u64) -> Option<Caller> {
    let mut search = Search { ip, seen: false, caller: None };
    // SAFETY: `each_frame` gets the search, which lives as long as the walk.
    unsafe { _Unwind_Backtrace(each_frame, (&raw mut search).cast()) };
    search.caller
}

extern "C" fn each_frame(frame: *mut Frame, search: *mut c_void) -> i32 {
    const GO_ON: i32 = 0;
    const STOP: i32 = 4;
    // SAFETY: what `caller_of` passed; the unwinder's own frame.
    let (search, ip) = unsafe { (&mut *search.cast::<Search>(), _Unwind_GetIP(frame) as u64) };
    if !search.seen {
        search.seen = ip == search.ip;
        return GO_ON;
    }
    // SAFETY: registers that every frame has.
    search.caller = Some(unsafe {
        Caller {
            ip,
            sp: _Unwind_GetCFA(frame) as u64,
            kept: KEPT_REGISTERS.map(|(number, _)| _Unwind_GetGR(frame, number) as u64),
        }
    });
    STOP
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::{Caller, caller_of};

    pub(super) const KEPT_COUNT: usize = 6;
    /// DWARF number (System V ABI, AMD64, 3.6.2), and place in a signal frame.
    pub(super) const KEPT_REGISTERS: [(i32, i32); KEPT_COUNT] = [
        (3, libc::REG_RBX),
        (6, libc::REG_RBP),
        (12, libc::REG_R12),
        (13, libc::REG_R13),
        (14, libc::REG_R14),
        (15, libc::REG_R15),
    ];

    /// Lets the interrupted code, or if it was not calling its caller, call `target`; its stack pointer then.
    pub(super) fn call(context: &mut libc::ucontext_t, addr: u64, target: u64) -> Option<u64> {
        let regs = &mut context.uc_mcontext.gregs;
        let (ip, sp) = (regs[libc::REG_RIP as usize] as u64, regs[libc::REG_RSP as usize] as u64);
        let place = sp - 8;
        // SAFETY: code that has just been executed, as far as an instruction can go; image text does not end in a call.
        let code = unsafe { core::slice::from_raw_parts(ip as *const u8, 8) };
        let sp = match call_length(code).filter(|_| addr == place) {
            Some(length) => {
                // SAFETY: in the stack's reserve, where the call would have written the same.
                unsafe { (place as *mut u64).write(ip + length) };
                place
            }
            None => {
                let Caller { ip, sp, kept } = caller_of(ip)?;
                // SAFETY: on the interrupted stack, above what has been pushed last.
                if unsafe { ((sp - 8) as *const u64).read() } != ip {
                    return None;
                }
                for ((_, register), value) in KEPT_REGISTERS.iter().zip(kept) {
                    regs[*register as usize] = value as i64;
                }
                // Where its return address still is.
                sp - 8
            }
        };
        (regs[libc::REG_RSP as usize], regs[libc::REG_RIP as usize]) = (sp as i64, target as i64);
        Some(sp)
    }

    /// Length of the call instruction that `code` begins with, if it is one (Intel SDM vol. 2, CALL, and 2.1.5).
    pub(super) fn call_length(code: &[u8]) -> Option<u64> {
        let prefix = usize::from(code[0] & 0xf0 == 0x40);
        match code[prefix] {
            0xe8 => Some(prefix as u64 + 5),
            0xff if code[prefix + 1] >> 3 & 7 == 2 => {
                let (mode, operand) = (code[prefix + 1] >> 6, code[prefix + 1] & 7);
                let indexed = mode != 3 && operand == 4;
                let no_base = mode == 0 && (operand == 5 || indexed && code[prefix + 2] & 7 == 5);
                let offset = match mode {
                    1 => 1,
                    2 => 4,
                    _ if no_base => 4,
                    _ => 0,
                };
                Some(prefix as u64 + 2 + u64::from(indexed) + offset)
            }
            _ => None,
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::{Caller, caller_of};

    pub(super) const KEPT_COUNT: usize = 11;
    /// x19 to x29: number of DWARF (DWARF for the Arm 64-bit Architecture, 4.1), and in a signal frame.
    pub(super) const KEPT_REGISTERS: [(i32, i32); KEPT_COUNT] = [
        (19, 19),
        (20, 20),
        (21, 21),
        (22, 22),
        (23, 23),
        (24, 24),
        (25, 25),
        (26, 26),
        (27, 27),
        (28, 28),
        (29, 29),
    ];

    /// Lets the caller of the interrupted function call `target` in its place (a call itself touches no memory); its stack
    /// pointer then.
    pub(super) fn call(context: &mut libc::ucontext_t, _addr: u64, target: u64) -> Option<u64> {
        let machine = &mut context.uc_mcontext;
        let Caller { ip, sp, kept } = caller_of(machine.pc)?;
        for ((_, register), value) in KEPT_REGISTERS.iter().zip(kept) {
            machine.regs[*register as usize] = value;
        }
        machine.regs[30] = ip;
        (machine.sp, machine.pc) = (sp, target);
        Some(sp)
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::x86_64::call_length;

    #[test]
    fn calls_have_their_lengths() {
        for (code, length) in [
            (&[0xe8, 1, 2, 3, 4, 0, 0, 0][..], Some(5)),
            (&[0xff, 0xd0, 0, 0, 0, 0, 0, 0], Some(2)),
            (&[0x41, 0xff, 0xd3, 0, 0, 0, 0, 0], Some(3)),
            (&[0xff, 0x15, 1, 2, 3, 4, 0, 0], Some(6)),
            (&[0xff, 0x50, 0x18, 0, 0, 0, 0, 0], Some(3)),
            (&[0xff, 0x90, 1, 2, 3, 4, 0, 0], Some(6)),
            (&[0x41, 0xff, 0x54, 0x24, 0x18, 0, 0, 0], Some(5)),
            (&[0xff, 0x14, 0x25, 1, 2, 3, 4, 0], Some(7)),
            (&[0xff, 0x14, 0xc1, 0, 0, 0, 0, 0], Some(3)),
            (&[0xff, 0x75, 0x08, 0, 0, 0, 0, 0], None),
            (&[0x55, 0x48, 0x89, 0xe5, 0, 0, 0, 0], None),
            (&[0x41, 0x57, 0, 0, 0, 0, 0, 0], None),
        ] {
            assert_eq!(call_length(code), length, "{code:x?}");
        }
    }
}
