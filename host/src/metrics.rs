//! What a sandbox counts for `--stats`, and where its debug lines go.
//!
//! One [`Metrics`] hangs off the kernel. Counters are relaxed atomics: they say how often, never order anything.
//! System calls are counted only when somebody asked ([`Metrics::observed`]), because the null call has a budget of
//! instructions; the rarer events always are. Which call a number is, only the system call table knows.

use crate::sync::{Lock, Rank};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// System call numbers counted one by one; none on either architecture is higher.
pub const NUMBERS: usize = 512;

/// One event count.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one event.
    #[inline]
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Events so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often one system call was made.
#[derive(Default)]
pub struct Calls {
    /// Answered without leaving the VM.
    pub in_guest: Counter,
    /// Answered by the host, after an exit (always, where there is no VM).
    pub in_host: Counter,
    /// Answered ENOSYS for want of a handler.
    pub missing: Counter,
}

/// Where decoded calls and debug lines go.
pub struct Log(Lock<Box<dyn Write + Send>>);

impl Log {
    /// A log that writes whole lines to `out`.
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        Log(Lock::new(Rank::DebugLog, out))
    }

    /// Writes one line. A log that cannot be written loses lines; the program goes on.
    pub fn line(&self, text: &str) {
        let mut bytes = Vec::with_capacity(text.len() + 1);
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(b'\n');
        let _lost = self.0.lock().write_all(&bytes);
    }
}

/// All counters of one sandbox.
pub struct Metrics {
    /// Whether dispatch takes the path that counts and prints calls.
    pub observed: bool,
    /// Print every call to `log`.
    pub strace: bool,
    /// Where lines go.
    pub log: Option<Log>,
    /// By system call number.
    pub calls: Box<[Calls]>,
    /// Calls of numbers that Linux does not have.
    pub unknown_calls: Counter,
    /// Page faults that reached the kernel.
    pub page_faults: Counter,
    /// Times a worker went from one task to another.
    pub task_switches: Counter,
    /// Kicks sent to workers.
    pub kicks: Counter,
    /// Signals delivered to handlers.
    pub signals: Counter,
}

impl Metrics {
    /// Counters at zero; `observed` when calls are to be counted, `log` with `strace` when they are printed.
    pub fn new(observed: bool, strace: bool, log: Option<Log>) -> Self {
        Metrics {
            observed: observed || strace,
            strace: strace && log.is_some(),
            log,
            calls: (0..NUMBERS).map(|_| Calls::default()).collect(),
            unknown_calls: Counter::default(),
            page_faults: Counter::default(),
            task_switches: Counter::default(),
            kicks: Counter::default(),
            signals: Counter::default(),
        }
    }

    /// Writes a debug line, where there is a log.
    pub fn debug(&self, text: &str) {
        if let Some(log) = &self.log {
            log.line(text);
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new(false, false, None)
    }
}
