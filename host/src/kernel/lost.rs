//! Processes that the platform lost (what ran them on the host was killed there), and those that the host keeps.

use super::signal::SIGKILL;
use super::signal::begin_exit;
use super::{Kernel, Task, ThreadGroup, WaitStatus};
use std::sync::Arc;

impl Kernel {
    /// Ends every process whose address space is gone, as by SIGKILL, whatever it waits for.
    pub(super) fn end_lost_processes(&self) {
        let groups: Vec<Arc<ThreadGroup>> =
            self.tree.lock().nodes().map(|(_, node)| node.group.clone()).collect();
        for group in groups {
            let mut state = group.state.lock();
            let lost = |mm: Arc<crate::mm::Mm>| mm.space().is_lost();
            if state.threads.iter().any(|task| task.mm().is_some_and(lost)) {
                begin_exit(&mut state, WaitStatus::killed(SIGKILL, false));
            }
        }
    }

    /// Takes a task out of its process that is to end and does not come back from a host call: others need not wait for the
    /// host. It goes through the rest of its end when the call returns, if it ever does.
    pub(super) fn outlive(&self, task: &Arc<Task>) {
        let status = task.group.state.lock().exit.unwrap_or(WaitStatus::killed(SIGKILL, false));
        if let Some(done) = task.vfork_done.get() {
            done.complete();
        }
        self.leave_group(task, status);
    }
}
