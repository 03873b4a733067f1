//! Bugs of ours: one line, and the program they happened to is killed.
//!
//! The panic hook runs where the panic is and knows the place; who was being served is known where the unwinding ends.
//! The message waits in between, in the worker's thread-local storage: nothing parks while unwinding.

use super::Current;
use crate::platform::local;
use core::cell::RefCell;
use std::any::Any;
use std::io::Write;

thread_local! {
    /// What the last panic on this thread said, and where.
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Has panics on workers reported by their task instead of at once. Others are reported as ever.
pub fn install_hook() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if local::get() == 0 {
            return before(info);
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
fn take() -> String {
    LAST.with(|last| core::mem::take(&mut *last.borrow_mut()))
}

fn message(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}

impl Current {
    /// Says what happened while this task was served.
    pub(super) fn report_panic(&self, payload: &(dyn Any + Send)) {
        let noted = take();
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
