//! Tasks, scheduling, signals, futexes. Being written: these are the fields that dispatch needs.

use crate::arch::UserRegs;
use crate::metrics::Metrics;
use std::sync::Arc;

/// Root of all sandbox state.
pub struct Kernel {
    /// Counters and the debug log.
    pub metrics: Metrics,
}

/// One thread.
pub struct Task {
    /// Its number.
    pub tid: i32,
}

/// The running task.
pub struct Current {
    /// The kernel it belongs to.
    pub kernel: Arc<Kernel>,
    /// What others see of it.
    pub task: Arc<Task>,
    /// Its registers.
    pub regs: UserRegs,
}

/// Stub.
pub struct Mm;
impl Mm {
    /// Stub.
    pub fn read(&self, _addr: u64, _buf: &mut [u8]) -> crate::abi::Result<()> {
        Err(crate::abi::Errno::EFAULT)
    }
}
impl Current {
    /// Stub.
    pub fn mm(&self) -> &Mm {
        &Mm
    }
}
