//! The end of a sandbox's patience.

use crate::kernel::Kernel;
use crate::kernel::sched::{Action, Expire};
use crate::kernel::signal::{SIGKILL, SigInfo};
use crate::kernel::tree::INIT;
use crate::time::monotonic_ns;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Kills the first process, and with it all others, at a deadline.
pub(super) struct Timeout {
    kernel: Weak<Kernel>,
    after: Duration,
    passed: AtomicBool,
}

impl Timeout {
    /// Begins to wait.
    pub(super) fn begin(kernel: &Arc<Kernel>, after: Duration) -> Arc<Timeout> {
        let timeout = Timeout { kernel: Arc::downgrade(kernel), after, passed: AtomicBool::new(false) };
        let timeout = Arc::new(timeout);
        let ns = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        kernel.add_timer(monotonic_ns().saturating_add(ns), Action::Expire(timeout.clone()));
        timeout
    }

    /// How long it waited, if that was in vain.
    pub(super) fn passed(&self) -> Option<Duration> {
        self.passed.load(Ordering::Acquire).then_some(self.after)
    }
}

impl Expire for Timeout {
    fn expire(&self, _now: u64) {
        let Some(kernel) = self.kernel.upgrade() else { return };
        if let Some(init) = kernel.process(INIT) {
            self.passed.store(true, Ordering::Release);
            // One that has ended meanwhile has no use for it.
            let _ended = kernel.signal_group(&init, SigInfo::kernel(SIGKILL));
        }
    }
}
