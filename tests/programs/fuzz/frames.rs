//! Signal frames that were written to before they are returned through, and pages that no program has.

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many signals a process is sent, should it survive them.
const SIGNALS: u64 = 50;
/// How far above a frame's start (`siginfo`, which lies lowest or next to it) something of it may be: with AVX-512 an FP
/// image has 2.7 KiB, arm64's reserve has 4 KiB.
const FRAME: usize = 4800;
/// What a stub has in a program's address space: its text and the slots through which it talks.
const STUB: std::ops::Range<usize> = 0x6800_0000..0x6804_0000;

/// Where the handler's random numbers go on.
static STATE: AtomicU64 = AtomicU64::new(0);

/// Scribbles over frames, or over the stub.
pub(crate) fn victim(seed: u64) -> i32 {
    STATE.store(seed, Relaxed);
    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = scribble;
    let action = libc::sigaction {
        sa_sigaction: handler as usize,
        sa_flags: libc::SA_SIGINFO | libc::SA_NODEFER,
        // SAFETY: a set of no signals, and no restorer: libc has its own.
        ..unsafe { std::mem::zeroed() }
    };
    // SAFETY: the handler has the signature that SA_SIGINFO asks for.
    unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut()) };
    for number in 0..SIGNALS {
        if seed.is_multiple_of(3) {
            poke();
        }
        sys!(libc::SYS_tgkill, sys!(libc::SYS_getpid), sys!(libc::SYS_gettid), libc::SIGUSR1);
        // Something that needs the registers to be right.
        std::hint::black_box(f64::from(number as u32).sqrt());
    }
    0
}

fn random() -> u64 {
    let mut rng = fastrand::Rng::with_seed(STATE.load(Relaxed));
    let value = rng.u64(..);
    STATE.store(rng.u64(..), Relaxed);
    value
}

/// Replaces a few words of its own frame, by what an attacker would like there.
extern "C" fn scribble(_signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let start = (info as usize).min(context as usize);
    for _ in 0..1 + random() % 3 {
        let word = ptr::with_exposed_provenance_mut::<u64>(start + random() as usize % FRAME / 8 * 8);
        // SAFETY: on this stack, which is far larger: a word of the frame, or of what is above it, which is this
        // process's own risk.
        unsafe { word.write_volatile(value(word.read_volatile())) };
    }
}

/// What a word becomes.
fn value(old: u64) -> u64 {
    match random() % 6 {
        0 => random(),
        1 => old ^ 1 << (random() % 64),
        2 => 0xffff_8000_0000_0000 | random() >> 20,
        3 => 0x7000_0000 | random() & 0xff_ffff,
        4 => u64::MAX,
        _ => 0,
    }
}

/// Writes a word somewhere in the stub. Where there is none, or no word that can be written, this process ends.
fn poke() {
    let at = STUB.start + random() as usize % STUB.len() / 8 * 8;
    let word = ptr::with_exposed_provenance_mut::<u64>(at);
    // SAFETY: no memory that Rust knows of.
    unsafe { word.write_volatile(random()) };
}
