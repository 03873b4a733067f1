//! Bugs of ours: one line, and the program they happened to is killed.
//!
//! The panic hook runs where the panic is and knows the place; who was being served is known where the unwinding ends.
//! The message waits in between, in the worker's thread-local storage: nothing parks while unwinding.

use super::Current;
use crate::hostsys::overflow::{self, Overflow};
use crate::platform::local;
use core::cell::RefCell;
use core::sync::atomic::{AtomicU64, Ordering};
use std::any::Any;
use std::io::Write;

thread_local! {
    /// What the last panic on this thread said, and where.
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Has panics on workers reported by their task instead of at once. Others are reported as ever.
pub fn install_hook() {
    overflow::install(|| local::get() != 0);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if local::get() == 0 {
            return before(info);
        }
        if !is_first() {
            // A second panic before the first has ended is not going to be caught.
            let line = format!("pillbox: {} could not be unwound: {}\n", take(), message(info.payload()));
            let _ = std::io::stderr().write_all(line.as_bytes());
            return;
        }
        if info.payload().is::<Overflow>() {
            return note(message(info.payload()).to_owned());
        }
        let place = info.location().map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
        note(format!("{}{place}", message(info.payload())));
    }));
}

#[inline(never)]
fn note(text: String) {
    LAST.with(|last| *last.borrow_mut() = text);
}

#[inline(never)]
fn is_first() -> bool {
    LAST.with(|last| last.borrow().is_empty())
}

#[inline(never)]
fn take() -> String {
    LAST.with(|last| core::mem::take(&mut *last.borrow_mut()))
}

fn message(payload: &dyn Any) -> &str {
    if payload.is::<Overflow>() {
        return "kernel stack overflow";
    }
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}

impl Current {
    /// Says what happened while this task was served.
    pub(super) fn report_panic(&self, payload: &(dyn Any + Send)) {
        let noted = take();
        if payload.is::<Overflow>() {
            overflow::restore_guard(core::ptr::from_ref(&noted).addr() as u64);
        }
        let what = if noted.is_empty() { message(payload) } else { &noted };
        let comm = self.task.comm();
        let line = format!(
            "pillbox: internal error while serving {} (pid {}), which is killed: {what}\n",
            String::from_utf8_lossy(&comm),
            self.task.tgid(),
        );
        // Whole, so that lines of several tasks do not mix; a stderr that is gone hides nothing but this.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
        self.kernel.metrics.debug(line.trim_end());
    }
}

/// Overflows the stack in calls of a size.
pub(super) fn overflow(size: u64) {
    let held = AtomicU64::new(0);
    let sum = match size {
        0 => recurse::<1>(&held, 1),
        1 => recurse::<40>(&held, 1),
        _ => recurse::<700>(&held, 1),
    };
    core::hint::black_box(sum);
}

/// What each call has to give back.
struct Held<'a>(&'a AtomicU64);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Uses up the stack, so many words a call.
#[inline(never)]
fn recurse<const WORDS: usize>(held: &AtomicU64, depth: u64) -> u64 {
    held.fetch_add(1, Ordering::Relaxed);
    let _held = Held(held);
    let words = core::hint::black_box([depth; WORDS]);
    assert_ne!(depth, u64::MAX, "it would have to end at some time");
    recurse::<WORDS>(held, depth + 1) + words[depth as usize % WORDS]
}
