//! The end of a task and of its process.

use super::group::{GroupState, Stop, ThreadGroup, WaitStatus};
use super::signal::{Fields, SIG_IGN, SIGCHLD, SIGCONT, SIGHUP, SIGKILL, SigInfo, begin_exit, code, sa};
use super::task::work;
use super::tree::{INIT, Node, Zombie};
use super::{Current, Kernel, Task, Tree, coredump};
use crate::sync::Wake;
use core::sync::atomic::Ordering;
use std::sync::Arc;

impl Current {
    /// Takes the task out of its process and tells whoever waits for either.
    pub(super) fn finish(&mut self, status: WaitStatus) {
        self.release_robust_list();
        self.release_pi();
        self.clear_tid();
        if let Some(done) = self.vfork_done.take() {
            done.complete();
        }
        self.task.group.note_max_rss(self.mm());
        self.task.leave_undo_list();
        if self.ends_the_sandbox() {
            // The host's process takes the memory along.
            self.mm().enter();
            core::mem::forget(self.mm().clone());
        }
        // Files and memory go before the parent hears of it: it may look for the effects.
        self.release();
        if self.task.group.state.lock().threads.len() == 1 {
            crate::arena::trim_if_worth();
        }
        if self.is_last_of_an_init() {
            self.end_namespace();
        }
        let task = self.task.clone();
        self.kernel.clone().leave_group(&task, status);
    }

    /// What remains of [`finish`](Self::finish) after a panic in it: whoever waits for the task or its process hears of the
    /// end all the same, once.
    pub(super) fn leave_after_panic(&mut self, status: WaitStatus) {
        if let Some(done) = self.vfork_done.take() {
            done.complete();
        }
        let task = self.task.clone();
        self.kernel.clone().leave_group(&task, status);
    }

    /// Whether no thread of the init of a pid namespace is left that is not on its way out, as this one is.
    fn is_last_of_an_init(&self) -> bool {
        let group = &self.task.group;
        group.is_namespace_init() && {
            let mut state = group.state.lock();
            state.finishing += 1;
            state.finishing == state.threads.len()
        }
    }

    /// Whether this is the last thread of the first process.
    fn ends_the_sandbox(&self) -> bool {
        let group = &self.task.group;
        group.tgid == INIT && group.state.lock().threads.len() == 1
    }
}

impl Kernel {
    /// Takes a task out of its process, which ends with the last one: what others see of its end. Once.
    pub(super) fn leave_group(&self, task: &Arc<Task>, status: WaitStatus) {
        if task.has_left.swap(true, Ordering::SeqCst) {
            return;
        }
        let group = &task.group;
        let mut tree = self.tree.lock();
        let stopped;
        let ended = {
            let mut state = group.state.lock();
            state.threads.retain(|other| !Arc::ptr_eq(other, task));
            coredump::leave(&mut state, task);
            state.finishing = state.finishing.saturating_sub(1);
            let mut dead = group.dead_usage.lock();
            let usage = task.usage();
            self.totals.ended(usage.cpu_ns);
            *dead = dead.plus(usage);
            drop(dead);
            if let Some(execing) = &state.execing {
                execing.wake();
            }
            stopped = leave_stop(&mut state, task);
            if state.threads.is_empty() {
                let _first = group.ended_as.set(task.cred());
            }
            state.threads.is_empty().then(|| state.exit.unwrap_or(status))
        };
        tree.remove_task(task.tid());
        self.release_tracees(&mut tree, task);
        if ended.is_none() || task.tid() != task.tgid() {
            self.tracee_ended(&mut tree, task, status);
        }
        let Some(status) = ended else {
            self.cgroups.task_gone(group.cgroup());
            if let Some(other) = group.threads().first() {
                tree.hand_over_children(group.tgid, Some(task.tid()), other.tid());
            }
            drop(tree);
            group.exit_wait.notify(!0);
            if let Some(signo) = stopped {
                self.notify_stopped(group, signo);
            }
            return;
        };
        self.cgroups.process_ended(group);
        group.set_dead();
        group.delete_all_timers();
        self.process_ended(&mut tree, group, status, task);
        drop(tree);
        group.exit_wait.notify(!0);
        if let Some(tell) = group.on_exit.get() {
            tell(status);
        }
        if group.tgid == INIT {
            self.end(status);
        }
    }

    /// Kills all that are in an init's namespace but itself, and lets nobody be born there any more.
    pub(super) fn kill_namespace(&self, init: &Arc<ThreadGroup>) {
        let tree = self.tree.lock();
        // Whoever dies from here on is not waited for.
        init.state.lock().actions.of_mut(SIGCHLD).handler = SIG_IGN;
        self.kill_members(&tree, init);
    }

    fn kill_members(&self, tree: &Tree, init: &Arc<ThreadGroup>) {
        for id in init.pids.close().into_iter().filter(|id| *id != init.tgid) {
            if let Some(node) = tree.node(id) {
                begin_exit(&mut node.group.state.lock(), WaitStatus::killed(SIGKILL, false));
            }
        }
    }

    /// Lets go of the children of process `id` that have ended, as if it had waited for them.
    pub(super) fn reap_all(&self, id: i32) {
        let mut tree = self.tree.lock();
        let ended = |tree: &Tree, child: &i32| {
            tree.node(*child).is_some_and(|node| node.zombie.is_some() && node.tracer.is_none())
        };
        let children = tree.node(id).map(|node| node.children.clone()).unwrap_or_default();
        for child in children {
            if ended(&tree, &child) {
                tree.remove_node(child);
            }
        }
    }

    fn process_ended(&self, tree: &mut Tree, group: &Arc<ThreadGroup>, status: WaitStatus, last: &Task) {
        let id = group.tgid;
        self.dissociate(tree, id, &[SIGHUP]);
        if group.is_namespace_init() {
            // One that a call on the host kept has not seen to this.
            self.kill_members(tree, group);
        }
        let Some(node) = tree.node_mut(id) else { return };
        let usage = group.usage().plus(node.children_usage);
        let resources = last.resources.lock();
        let (uid, gid) = (resources.cred.uid, resources.cred.gid);
        node.zombie = Some(Zombie { status, usage, uid, gid, comm: resources.comm });
        drop(resources);
        let (own, children) = (Membership::of(node), node.children.clone());
        for child in &children {
            if let Some(child) = tree.node(*child) {
                for task in child.group.threads() {
                    let signo = task.parent_death_signal.load(Ordering::Relaxed);
                    if signo != 0 {
                        let info = SigInfo::user(signo, code::SI_USER, id, 0);
                        let _ = self.signal_group_locked(&child.group, info);
                        break;
                    }
                }
            }
        }
        if tree.reparent_children(id).is_some() {
            // Zombies among them are the heir's to wait for; an heir that ignores them never will.
            self.adopt_zombies(tree, &children);
        }
        for child in children {
            // The father was perhaps the only one who could continue the child's group.
            if let Some(child) = tree.node(child).map(Membership::of) {
                self.hang_up_orphans(tree, child, own, None);
            }
        }
        let parent = tree.node(id).and_then(|node| tree.node(node.parent)).map(Membership::of);
        // Its own group may have been continued by its parent only.
        self.hang_up_orphans(tree, own, parent.unwrap_or(Membership::OUTSIDE), Some(id));
        self.tell_parent(tree, id, status);
    }

    fn adopt_zombies(&self, tree: &mut Tree, children: &[i32]) {
        for &child in children {
            // Those that somebody traces are not yet.
            let node = tree.node(child).filter(|node| node.tracer.is_none());
            if let Some(zombie) = node.and_then(|node| node.zombie) {
                self.tell_parent(tree, child, zombie.status);
            }
        }
    }

    /// Sends the exit signal and wakes waiters; reaps the child at once if the parent said that it will not wait.
    pub(super) fn tell_parent(&self, tree: &mut Tree, id: i32, status: WaitStatus) {
        let Some(node) = tree.node(id) else { return };
        let uid = node.zombie.map_or(0, |zombie| zombie.uid.real);
        let traced = node.tracer.is_some();
        if let Some(tracer) = node.tracer.filter(|tracer| *tracer != node.parent)
            && let Some(tracer) = tree.node(tracer)
        {
            // First the tracer waits for it, then its parent.
            let _ = self.signal_group_locked(&tracer.group, child_info(status, id, uid));
            tracer.group.child_wait.notify(!0);
            return;
        }
        let Some(parent) = tree.node(node.parent) else {
            // Who waits for it outside has been told by other means.
            if id != INIT {
                tree.remove_node(id);
            }
            return;
        };
        // A parent that has become another program since has not asked for another signal.
        let signo = if parent.execs == node.parent_execs { node.exit_signal } else { SIGCHLD };
        let parent = parent.group.clone();
        let mut reap = false;
        if signo == SIGCHLD {
            let action = *parent.state.lock().actions.of(SIGCHLD);
            reap = !traced && (action.handler == SIG_IGN || action.flags & sa::NOCLDWAIT != 0);
        }
        if signo != 0 {
            let mut info = child_info(status, id, uid);
            info.signo = signo;
            let _ = self.signal_group_locked(&parent, info);
        }
        if reap {
            tree.remove_node(id);
        }
        parent.child_wait.notify(!0);
    }

    /// Sends SIGHUP and SIGCONT to the process group of `member` if the end of a process has orphaned it just now, and
    /// something in it is stopped. `link` is who connected it to the rest of its session: the dead parent of a member,
    /// or the parent of the dead member `gone` (kill_orphaned_pgrp).
    fn hang_up_orphans(&self, tree: &mut Tree, member: Membership, link: Membership, gone: Option<i32>) {
        // A group that had no such connection was an orphan before.
        let was_connected = link.pgid != member.pgid && link.sid == member.sid;
        if !was_connected || !tree.is_orphaned(member.pgid, gone) {
            return;
        }
        let stopped = |group: &ThreadGroup| group.state.lock().stop == Stop::Stopped;
        if !tree.process_group(member.pgid).any(|node| stopped(&node.group)) {
            return;
        }
        for signo in [SIGHUP, SIGCONT] {
            self.signal_process_group_locked(tree, member.pgid, SigInfo::kernel(signo));
        }
    }
}

/// A task that ends takes no part in its process's stop any more. Some: all others have stopped, by this signal.
fn leave_stop(state: &mut GroupState, task: &Task) -> Option<i32> {
    let counted = task.work.fetch_and(!work::COUNTED, Ordering::SeqCst) & work::COUNTED != 0;
    match state.stop {
        Stop::Stopping { signo, left } if counted && left <= 1 && !state.threads.is_empty() => {
            (state.stop, state.stop_signal) = (Stop::Stopped, signo);
            return Some(signo);
        }
        Stop::Stopping { signo, left } if counted => {
            state.stop = Stop::Stopping { signo, left: left - 1 };
        }
        _ => {}
    }
    None
}

/// Where a process belongs.
#[derive(Clone, Copy)]
struct Membership {
    pgid: i32,
    sid: i32,
}

impl Membership {
    /// In no session of ours.
    const OUTSIDE: Membership = Membership { pgid: 0, sid: 0 };

    fn of(node: &Node) -> Self {
        Membership { pgid: node.pgid, sid: node.sid }
    }
}

/// What SIGCHLD and waitid(2) say about an ended child.
pub(super) fn child_info(status: WaitStatus, pid: i32, uid: u32) -> SigInfo {
    let signo = status.0 & 0x7f;
    let (code, value) = match signo {
        0 => (code::CLD_EXITED, status.0 >> 8 & 0xff),
        _ if status.0 & 0x80 != 0 => (code::CLD_DUMPED, signo),
        _ => (code::CLD_KILLED, signo),
    };
    let fields = Fields::Child { pid, uid, status: value, utime: 0, stime: 0 };
    SigInfo { signo: SIGCHLD, errno: 0, code, fields }
}
