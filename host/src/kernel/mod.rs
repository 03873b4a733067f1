//! Tasks, scheduling, signals, futexes. Being written: these are the fields that dispatch needs.

use crate::arch::UserRegs;
use crate::metrics::Metrics;
use std::sync::Arc;

/// Root of all sandbox state.
pub struct Kernel {
    /// Counters and the debug log.
    pub metrics: Metrics,
}

/// The running task.
pub struct Current {
    /// The kernel it belongs to.
    pub kernel: Arc<Kernel>,
    /// Its registers.
    pub regs: UserRegs,
}
