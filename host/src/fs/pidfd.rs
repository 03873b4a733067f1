//! pidfd: a process, or one thread, as a descriptor, readable once it has ended.

use crate::kernel::pids::PidNamespace;
use crate::kernel::{Task, ThreadGroup};
use crate::sync::WaitQueue;
use crate::vfs::{File, FileOps};
use linux_raw_sys::general as c;
use std::any::Any;
use std::sync::Arc;

/// One process.
pub struct PidFd {
    group: Arc<ThreadGroup>,
    /// One thread of it is meant (PIDFD_THREAD).
    thread: Option<Arc<Task>>,
}

impl PidFd {
    /// An open one, for a thread of `group` or for all of it; `flags` may hold O_NONBLOCK and PIDFD_THREAD (O_EXCL).
    pub fn open(group: Arc<ThreadGroup>, thread: Option<Arc<Task>>, flags: u32) -> Arc<File> {
        let kept = flags & (c::O_NONBLOCK | c::O_EXCL);
        File::anon(Arc::new(PidFd { group, thread }), c::O_RDWR | kept)
    }

    /// The thread that it was opened for.
    pub fn thread(&self) -> Option<&Arc<Task>> {
        self.thread.as_ref()
    }

    fn has_ended(&self) -> bool {
        let alive = |thread: &Arc<Task>| self.group.threads().iter().any(|task| Arc::ptr_eq(task, thread));
        self.group.is_dead() || self.thread.as_ref().is_some_and(|thread| !alive(thread))
    }

    /// Whether its id is nobody's any more. A thread's is free when it ends, but for the one whose id is the process's.
    pub fn is_gone(&self) -> bool {
        let leads = self.thread.as_ref().is_none_or(|thread| thread.tid() == self.group.tgid);
        self.group.is_reaped() || (!leads && self.has_ended())
    }

    /// What /proc/PID/fdinfo says of it, in the /proc of a pid namespace (pidfd_open(2)).
    pub fn shown_in(&self, pids: &PidNamespace) -> String {
        if self.is_gone() {
            return "Pid:\t-1\nNSpid:\t-1\n".to_owned();
        }
        let id = self.thread.as_ref().map_or(self.group.tgid, |thread| thread.tid());
        let number = pids.number_of(id);
        let known = if number == 0 { vec![0] } else { pids.numbers_below(&self.group.pids, id) };
        let numbers: String = known.iter().map(|number| format!("\t{number}")).collect();
        format!("Pid:\t{number}\nNSpid:{numbers}\n")
    }

    /// The process.
    pub fn group(&self) -> &Arc<ThreadGroup> {
        &self.group
    }
}

impl FileOps for PidFd {
    fn poll(&self) -> u32 {
        let ended = if self.has_ended() { c::POLLIN | c::POLLRDNORM } else { 0 };
        ended | if self.is_gone() { c::POLLHUP } else { 0 }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.group.exit_wait)
    }

    fn describe(&self) -> String {
        "anon_inode:[pidfd]".to_owned()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
