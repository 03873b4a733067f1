//! The host's terminals that programs may change: what they were like, and putting that back.
//!
//! It happens at the end of a sandbox, however it ends: also from a handler of a fault of ours, so everything here is
//! atomics and system calls. What is kept is a fact about this process's terminals, not the sandbox's state.

use super::syscall;
use crate::abi::Result;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst};
use linux_raw_sys::ioctl as i;

/// Standard input, output and error can be three terminals.
const MOST: usize = 3;
/// `struct termios` of the kernel, in words.
const WORDS: usize = 5;

struct Saved {
    /// -1 for none.
    fd: AtomicI32,
    termios: [AtomicU64; WORDS],
    /// The window's size before a program changed it, and as the program set it; 0 for never.
    window: [AtomicU64; 2],
}

impl Saved {
    const fn none() -> Self {
        Saved {
            fd: AtomicI32::new(-1),
            termios: [const { AtomicU64::new(0) }; WORDS],
            window: [const { AtomicU64::new(0) }; 2],
        }
    }
}

static SAVED: [Saved; MOST] = [const { Saved::none() }; MOST];
/// A program has changed settings or stopped output.
static CHANGED: AtomicBool = AtomicBool::new(false);

fn ioctl(fd: i32, request: u32, arg: u64) -> Result<u64> {
    // SAFETY: callers pass an integer, or the address of a buffer as large as the request's structure.
    unsafe { syscall(libc::SYS_ioctl, [fd as u64, request.into(), arg, 0, 0, 0]) }
}

fn window(fd: i32) -> u64 {
    let mut size = 0u64;
    let _ = ioctl(fd, i::TIOCGWINSZ, &raw mut size as u64);
    size
}

/// Keeps what the terminal `fd` is like. The descriptor stays open as long as the process lives.
pub fn remember(fd: i32) {
    let mut raw = [0u64; WORDS];
    if ioctl(fd, i::TCGETS, raw.as_mut_ptr() as u64).is_err() {
        return;
    }
    let Some(place) = SAVED.iter().find(|saved| saved.fd.load(SeqCst) < 0) else { return };
    for (to, from) in place.termios.iter().zip(raw) {
        to.store(from, SeqCst);
    }
    place.fd.store(fd, SeqCst);
}

/// Notes that a program is about to change settings of a terminal.
pub fn changed() {
    CHANGED.store(true, SeqCst);
}

/// Changes the size of a window (`struct winsize`).
///
/// # Errors
/// The host's.
pub fn resize(fd: i32, size: u64) -> Result<()> {
    if let Some(saved) = SAVED.iter().find(|saved| saved.fd.load(SeqCst) == fd) {
        let now = window(fd);
        // The window may have been resized by its owner since a program did it.
        if saved.window[1].swap(size, SeqCst) != now {
            saved.window[0].store(now, SeqCst);
        }
    }
    ioctl(fd, i::TIOCSWINSZ, &raw const size as u64).map(drop)
}

/// Whether another process group than ours has the terminal now: it is theirs to set.
fn is_others(fd: i32) -> bool {
    let mut foreground = 0i32;
    // Where it is not our controlling terminal, nobody is in our way.
    ioctl(fd, i::TIOCGPGRP, &raw mut foreground as u64).is_ok() && foreground != own_group()
}

fn own_group() -> i32 {
    // SAFETY: no pointers.
    unsafe { syscall(libc::SYS_getpgid, [0; 6]) }.unwrap_or(0) as i32
}

/// Puts all terminals back as they were. Safe in signal handlers.
pub fn restore() {
    for saved in &SAVED {
        let fd = saved.fd.load(SeqCst);
        if fd < 0 || is_others(fd) {
            continue;
        }
        // Who has it can change at any time: asked in the background, this would stop us.
        super::poll::block_signals(1 << (libc::SIGTTOU - 1));
        let [before, set] = saved.window.each_ref().map(|size| size.load(SeqCst));
        if set != 0 && window(fd) == set {
            let _ = ioctl(fd, i::TIOCSWINSZ, &raw const before as u64);
        }
        if CHANGED.load(SeqCst) {
            let raw: [u64; WORDS] = core::array::from_fn(|at| saved.termios[at].load(SeqCst));
            let _ = ioctl(fd, i::TCSETS, raw.as_ptr() as u64);
            // tcflow(3), TCOON: nothing happens where output was not stopped.
            let _ = ioctl(fd, i::TCXONC, 1);
        }
    }
}
