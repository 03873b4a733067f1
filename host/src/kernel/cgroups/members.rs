//! The processes of a group: moved, frozen, killed, and what they use.
//!
//! Which group a process is in changes under the tree's lock, and so do the counts of it.

use super::{CgroupId, Cgroups};
use crate::abi::{Errno, Result};
use crate::kernel::signal::{SIGKILL, begin_exit};
use crate::kernel::task::work;
use crate::kernel::tree::{INIT, Node};
use crate::kernel::{Kernel, RunState, Task, ThreadGroup, Tree, WaitStatus};
use core::sync::atomic::Ordering;
use std::sync::Arc;

impl ThreadGroup {
    /// The group of processes that it is in.
    #[inline]
    pub fn cgroup(&self) -> CgroupId {
        CgroupId::from_number(self.cgroup.load(Ordering::Relaxed))
    }

    /// Says that, before anybody has it.
    pub(in crate::kernel) fn set_cgroup(&self, id: CgroupId) {
        self.cgroup.store(id.number(), Ordering::Relaxed);
    }

    /// What it has used since it came into its group, ns.
    fn cpu_since_joined(&self) -> u64 {
        self.usage().cpu_ns.saturating_sub(self.cgroup_cpu_base.load(Ordering::Relaxed))
    }
}

impl Task {
    /// Whether it waits for its group to be thawed, or is stopped anyway.
    fn is_frozen(&self) -> bool {
        self.work.load(Ordering::SeqCst) & work::FROZEN != 0
            || matches!(self.run_state(), RunState::Stopped | RunState::Traced)
    }
}

impl Cgroups {
    /// Counts a task, or with `process` a process, that is made in a group.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    #[inline]
    pub(in crate::kernel) fn born(&self, id: CgroupId, process: bool) -> Result<()> {
        self.enter(id, 1, process.into())
    }

    /// Takes back what [`born`](Self::born) has counted.
    #[inline]
    pub(in crate::kernel) fn unborn(&self, id: CgroupId, process: bool) {
        self.leave(id, 1, process.into(), 0);
    }

    /// Counts a process that has ended, and has yet to be waited for.
    #[inline]
    pub(in crate::kernel) fn process_ended(&self, group: &ThreadGroup) {
        if group.cgroup() != CgroupId::ROOT {
            self.leave(group.cgroup(), 0, 1, group.cpu_since_joined());
        }
    }

    /// Counts a thread that has ended, or a process that has been waited for.
    #[inline]
    pub(in crate::kernel) fn task_gone(&self, id: CgroupId) {
        self.leave(id, 1, 0, 0);
    }

    /// Whether a group or one above it is frozen.
    pub(in crate::kernel) fn is_frozen(&self, id: CgroupId) -> bool {
        let table = self.table.lock();
        table.upwards(id).any(|at| table.groups.get(&at).is_some_and(|group| group.freeze))
    }

    /// Whether a group itself is.
    ///
    /// # Errors
    /// ENODEV for a group that was removed.
    pub fn freezes(&self, id: CgroupId) -> Result<bool> {
        self.table.lock().living(id).map(|group| group.freeze)
    }

    fn past_cpu_ns(&self, id: CgroupId) -> Result<u64> {
        self.table.lock().living(id).map(|group| group.past_cpu_ns)
    }
}

impl Kernel {
    /// Processes in a group that have not ended.
    pub(in crate::kernel) fn processes_in(
        &self,
        tree: &Tree,
        of: impl Fn(CgroupId) -> bool,
    ) -> Vec<Arc<ThreadGroup>> {
        let living = tree.nodes().filter(|(_, node)| node.zombie.is_none());
        living.filter(|(_, node)| of(node.group.cgroup())).map(|(_, node)| node.group.clone()).collect()
    }

    /// Those in a group and below it.
    pub(super) fn processes_below(&self, tree: &Tree, id: CgroupId) -> Vec<Arc<ThreadGroup>> {
        self.processes_in(tree, |of| of == id || of != CgroupId::ROOT && self.cgroups.is_within(of, id))
    }

    /// Their ids, or those of their threads.
    ///
    /// # Errors
    /// ENODEV for a group that was removed.
    pub fn cgroup_members(&self, id: CgroupId, threads: bool) -> Result<Vec<i32>> {
        self.cgroups.check(id)?;
        let groups = self.processes_in(&self.tree.lock(), |of| of == id);
        Ok(match threads {
            false => groups.iter().map(|group| group.tgid).collect(),
            true => groups.iter().flat_map(|group| group.threads()).map(|task| task.tid()).collect(),
        })
    }

    /// The group of the process that `pid` is, or is a thread of.
    ///
    /// # Errors
    /// ESRCH.
    pub fn cgroup_of(&self, pid: i32) -> Result<CgroupId> {
        self.tree.lock().task(pid).map(|task| task.group.cgroup()).ok_or(Errno::ESRCH)
    }

    /// Moves the process that `pid` is, or is a thread of. `may` is asked about the group that it leaves.
    ///
    /// # Errors
    /// ESRCH, EBUSY for a group that divides memory, ENODEV for one that was removed, what `may` says.
    pub fn move_to_cgroup(&self, pid: i32, to: CgroupId, may: impl Fn(CgroupId) -> Result<()>) -> Result<()> {
        let tree = self.tree.lock();
        let group = tree.task(pid).map(|task| task.group.clone()).ok_or(Errno::ESRCH)?;
        let living = |node: &Node| node.zombie.is_none();
        if !tree.node(group.tgid).is_some_and(living) {
            return Err(Errno::ESRCH);
        }
        let from = group.cgroup();
        may(from)?;
        let threads = group.threads();
        let (tasks, processes) = if from == to { (0, 0) } else { (threads.len() as u64, 1) };
        self.cgroups.enter(to, tasks, processes)?;
        if from == to {
            return Ok(());
        }
        self.cgroups.leave(from, tasks, 1, group.cpu_since_joined());
        group.cgroup_cpu_base.store(group.usage().cpu_ns, Ordering::Relaxed);
        group.cgroup.store(to.number(), Ordering::Relaxed);
        let frozen = self.cgroups.is_frozen(to);
        threads.iter().for_each(|task| set_frozen(task, frozen));
        drop(tree);
        self.cgroups.call();
        Ok(())
    }

    /// Freezes or thaws a group and those below it (cgroup.freeze).
    ///
    /// # Errors
    /// ENODEV for a group that was removed.
    pub fn freeze_cgroup(&self, id: CgroupId, freeze: bool) -> Result<()> {
        let tree = self.tree.lock();
        self.cgroups.table.lock().living(id)?.freeze = freeze;
        for group in self.processes_below(&tree, id) {
            let frozen = self.cgroups.is_frozen(group.cgroup());
            group.threads().iter().for_each(|task| set_frozen(task, frozen));
        }
        Ok(())
    }

    /// Whether all that is in a group and below it is frozen.
    ///
    /// # Errors
    /// ENODEV for a group that was removed.
    pub fn is_cgroup_frozen(&self, id: CgroupId) -> Result<bool> {
        self.cgroups.check(id)?;
        if !self.cgroups.is_frozen(id) {
            return Ok(false);
        }
        let groups = self.processes_below(&self.tree.lock(), id);
        Ok(groups.iter().flat_map(|group| group.threads()).all(|task| task.is_frozen()))
    }

    /// Kills all that is in a group and below it (cgroup.kill). Who is making a child meanwhile does not get to it.
    ///
    /// # Errors
    /// ENODEV for a group that was removed.
    pub fn kill_cgroup(&self, id: CgroupId) -> Result<()> {
        self.cgroups.check(id)?;
        let tree = self.tree.lock();
        for group in self.processes_below(&tree, id) {
            // Inits of namespaces inside are told from outside.
            if group.tgid != INIT || !group.is_protected() {
                begin_exit(&mut group.state.lock(), WaitStatus::killed(SIGKILL, false));
            }
        }
        Ok(())
    }

    /// CPU time that has been used in a group and below it, ns.
    ///
    /// # Errors
    /// ENODEV for a group that was removed.
    pub fn cgroup_cpu_ns(&self, id: CgroupId) -> Result<u64> {
        if id == CgroupId::ROOT {
            return Ok(self.cpu_ns());
        }
        let tree = self.tree.lock();
        let past = self.cgroups.past_cpu_ns(id)?;
        Ok(past + self.processes_below(&tree, id).iter().map(|group| group.cpu_since_joined()).sum::<u64>())
    }
}

/// The tree's lock is held.
fn set_frozen(task: &Task, frozen: bool) {
    let is = task.work.load(Ordering::SeqCst) & work::FREEZE != 0;
    if frozen && !is {
        task.interrupt(work::FREEZE);
    } else if !frozen && is {
        task.work.fetch_and(!work::FREEZE, Ordering::SeqCst);
        // What it was doing is taken up again as after a signal.
        task.interrupt(work::SIGNAL);
    }
}
