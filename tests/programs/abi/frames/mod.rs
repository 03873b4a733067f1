//! Signal frames: what a handler finds in its own, and what becomes of what it changes there.

use crate::Case;
use crate::sys::{handle, memory, report};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst};

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub(crate) const CASES: &[Case] = &[
    ("frames_stack", stack),
    ("frames_initial_components", x86_64::initial_components),
    ("frames_changed", x86_64::changed),
    ("frames_changed_wide", x86_64::changed_wide),
    ("frames_fresh_state", x86_64::fresh_state),
];
#[cfg(target_arch = "aarch64")]
pub(crate) const CASES: &[Case] = &[("frames_stack", stack)];

/// `uc_stack.ss_flags` of handlers, and what sigaltstack(2) said in them, in the order in which they ran.
static SEEN: [AtomicI64; 8] = [const { AtomicI64::new(0) }; 8];
static RUNS: AtomicUsize = AtomicUsize::new(0);

/// Notes its frame's flags; the first runs another on top of itself.
extern "C" fn note(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel passes the frame's `ucontext`.
    let flags = unsafe { (*context).uc_stack.ss_flags };
    let mut now = [0_u64; 3];
    sys!(libc::SYS_sigaltstack, 0, now.as_mut_ptr());
    let run = RUNS.fetch_add(1, SeqCst);
    SEEN[run].store(i64::from(flags) << 32 | (now[1] & 0xffff_ffff) as i64, SeqCst);
    if signal == libc::SIGUSR1 {
        raise(libc::SIGUSR2);
    }
}

fn raise(signal: i32) {
    sys!(libc::SYS_tgkill, sys!(libc::SYS_getpid), sys!(libc::SYS_gettid), signal);
}

/// The flags in frames are those that sigaltstack(2) was given, wherever the handler runs.
fn stack() {
    const SIZE: usize = 64 << 10;
    let at = memory(SIZE);
    handle(libc::SIGUSR1, note, libc::SA_ONSTACK);
    handle(libc::SIGUSR2, note, libc::SA_ONSTACK);
    let disarm = 1_u64 << 31;
    for (what, flags) in [
        ("none", 2),
        ("as usual", 0),
        ("SS_ONSTACK asked for", 1),
        ("SS_AUTODISARM", disarm),
        ("both", disarm | 1),
        ("none, with SS_AUTODISARM", disarm | 2),
    ] {
        let new = [at as u64, flags, SIZE as u64];
        report(what, sys!(libc::SYS_sigaltstack, new.as_ptr(), 0));
        RUNS.store(0, SeqCst);
        raise(libc::SIGUSR1);
        for seen in &SEEN[..RUNS.load(SeqCst)] {
            let seen = seen.load(SeqCst);
            println!("frame {:#x}, sigaltstack {:#x}", seen >> 32 & 0xffff_ffff, seen & 0xffff_ffff);
        }
        let mut after = [0_u64; 3];
        sys!(libc::SYS_sigaltstack, 0, after.as_mut_ptr());
        println!("after: {:#x}, {:#x}, there {}", after[1] & 0xffff_ffff, after[2], after[0] == at as u64);
    }
}
