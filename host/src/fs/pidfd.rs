//! pidfd: a process as a descriptor, readable once the process has ended.

use crate::kernel::ThreadGroup;
use crate::sync::WaitQueue;
use crate::vfs::{File, FileOps};
use linux_raw_sys::general as c;
use std::any::Any;
use std::sync::Arc;

/// One process.
pub struct PidFd {
    group: Arc<ThreadGroup>,
}

impl PidFd {
    /// An open one; `flags` may hold O_NONBLOCK.
    pub fn open(group: Arc<ThreadGroup>, flags: u32) -> Arc<File> {
        File::anon(Arc::new(PidFd { group }), c::O_RDWR | flags & c::O_NONBLOCK)
    }

    /// The process.
    pub fn group(&self) -> &Arc<ThreadGroup> {
        &self.group
    }
}

impl FileOps for PidFd {
    fn poll(&self) -> u32 {
        if self.group.is_dead() { c::POLLIN | c::POLLRDNORM } else { 0 }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.group.exit_wait)
    }

    fn describe(&self) -> String {
        "anon_inode:[pidfd]".to_owned()
    }

    fn fdinfo(&self) -> String {
        let pid = if self.group.is_dead() { -1 } else { self.group.tgid };
        format!("Pid:\t{pid}\nNSpid:\t{pid}\n")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
