//! signalfd(2): signals that are read.
//!
//! Which signals are pending is a matter of who asks. Reading is done by the system call, which knows its task;
//! poll(2) asks for the process that made the descriptor.

use crate::abi::{Errno, Result};
use crate::kernel::signal::SigSet;
use crate::kernel::{Task, ThreadGroup};
use crate::mm::IoDst;
use crate::sync::WaitQueue;
use crate::vfs::{File, FileOps, Whence};
use linux_raw_sys::general as c;
use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// The signals it is for.
pub struct SignalFd {
    mask: AtomicU64,
    group: Arc<ThreadGroup>,
    task: Weak<Task>,
}

impl SignalFd {
    /// One for the signals in `mask`, open.
    pub fn open(task: &Arc<Task>, mask: SigSet, flags: u32) -> Arc<File> {
        let mask = AtomicU64::new(mask.0);
        let signals = SignalFd { mask, group: task.group.clone(), task: Arc::downgrade(task) };
        File::anon(Arc::new(signals), c::O_RDWR | flags & c::O_NONBLOCK)
    }

    /// The signals it is for.
    pub fn mask(&self) -> SigSet {
        SigSet(self.mask.load(Ordering::Relaxed))
    }

    /// Changes them.
    pub fn set_mask(&self, mask: SigSet) {
        self.mask.store(mask.0, Ordering::Relaxed);
        self.group.signal_wait.notify(c::POLLIN);
    }
}

impl FileOps for SignalFd {
    fn read(&self, _dst: &mut IoDst<'_>, _offset: Option<u64>) -> Result<usize> {
        // The handler of read(2) takes signals itself: see there.
        Err(Errno::EAGAIN)
    }

    fn reads_itself(&self) -> bool {
        false
    }

    fn poll(&self) -> u32 {
        let task = self.task.upgrade().or_else(|| self.group.threads().first().cloned());
        let pending = task.map_or(SigSet::EMPTY, |task| task.pending_signals());
        if pending.0 & self.mask().0 != 0 { c::POLLIN | c::POLLRDNORM } else { 0 }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.group.signal_wait)
    }

    fn describe(&self) -> String {
        "anon_inode:[signalfd]".to_owned()
    }

    fn fdinfo(&self) -> String {
        format!("sigmask:\t{:016x}\n", self.mask.load(Ordering::Relaxed))
    }

    fn seek(&self, pos: u64, _offset: i64, _whence: Whence) -> Result<u64> {
        Ok(pos)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
