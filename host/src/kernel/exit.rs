//! The end of a task and of its process.

use super::group::{Stop, ThreadGroup, WaitStatus};
use super::signal::{Fields, SIG_IGN, SIGCHLD, SIGCONT, SIGHUP, SigInfo, code, sa};
use super::tree::{INIT, Zombie};
use super::{Current, Kernel, Tree};
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
        // Files and memory go before the parent hears of it: it may look for the effects.
        self.release();
        self.leave_group(status);
    }

    fn leave_group(&mut self, status: WaitStatus) {
        let (kernel, task) = (self.kernel.clone(), self.task.clone());
        let group = task.group.clone();
        let mut tree = kernel.tree.lock();
        let mut stopped = None;
        let ended = {
            let mut state = group.state.lock();
            state.threads.retain(|other| !Arc::ptr_eq(other, &task));
            let mut dead = group.dead_usage.lock();
            let usage = task.usage();
            kernel.totals.ended(usage.cpu_ns);
            *dead = dead.plus(usage);
            drop(dead);
            if let Some(execing) = &state.execing {
                execing.wake();
            }
            match state.stop {
                Stop::Stopping { signo, left } if left <= 1 && !state.threads.is_empty() => {
                    (state.stop, state.stop_signal) = (Stop::Stopped, signo);
                    stopped = Some(signo);
                }
                Stop::Stopping { signo, left } => state.stop = Stop::Stopping { signo, left: left - 1 },
                _ => {}
            }
            state.threads.is_empty().then(|| state.exit.unwrap_or(status))
        };
        tree.remove_task(task.tid());
        let Some(status) = ended else {
            drop(tree);
            if let Some(signo) = stopped {
                kernel.notify_stopped(&group, signo);
            }
            return;
        };
        group.set_dead();
        self.delete_all_timers();
        kernel.process_ended(&mut tree, &group, status, &task);
        drop(tree);
        group.exit_wait.notify(!0);
        if group.tgid == INIT {
            kernel.end(status);
        }
    }
}

impl Kernel {
    fn process_ended(
        &self,
        tree: &mut Tree,
        group: &Arc<ThreadGroup>,
        status: WaitStatus,
        last: &super::Task,
    ) {
        let id = group.tgid;
        self.hang_up_orphans(tree, id);
        let Some(node) = tree.node_mut(id) else { return };
        let usage = group.usage().plus(node.children_usage);
        let resources = last.resources.lock();
        let (uid, gid) = (resources.cred.uid, resources.cred.gid);
        node.zombie = Some(Zombie { status, usage, uid, gid, comm: resources.comm });
        drop(resources);
        let children = node.children.clone();
        for child in children {
            if let Some(child) = tree.node(child) {
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
        if let Some(heir) = tree.reparent_children(id) {
            // Zombies among them are the heir's to wait for; an heir that ignores them never will.
            self.adopt_zombies(tree, heir);
        }
        self.tell_parent(tree, id, status);
    }

    fn adopt_zombies(&self, tree: &mut Tree, heir: i32) {
        let zombies: Vec<(i32, WaitStatus)> = tree.node(heir).map_or_else(Vec::new, |node| {
            let ended = |child: &i32| Some((*child, tree.node(*child)?.zombie?.status));
            node.children.iter().filter_map(ended).collect()
        });
        for (child, status) in zombies {
            if let Some(node) = tree.node_mut(child) {
                node.exit_signal = SIGCHLD;
            }
            self.tell_parent(tree, child, status);
        }
    }

    /// Sends the exit signal and wakes waiters; reaps the child at once if the parent said that it will not wait.
    fn tell_parent(&self, tree: &mut Tree, id: i32, status: WaitStatus) {
        let Some(node) = tree.node(id) else { return };
        let (signo, uid) = (node.exit_signal, node.zombie.map_or(0, |zombie| zombie.uid.real));
        let Some(parent) = tree.node(node.parent).map(|parent| parent.group.clone()) else { return };
        let mut reap = false;
        if signo == SIGCHLD {
            let action = *parent.state.lock().actions.of(SIGCHLD);
            reap = action.handler == SIG_IGN || action.flags & sa::NOCLDWAIT != 0;
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

    /// Process groups that become orphaned by the end of `id` and have stopped members get SIGHUP and SIGCONT.
    fn hang_up_orphans(&self, tree: &Tree, id: i32) {
        let Some(node) = tree.node(id) else { return };
        let mut groups: Vec<i32> =
            node.children.iter().filter_map(|child| Some(tree.node(*child)?.pgid)).collect();
        groups.push(node.pgid);
        groups.sort_unstable();
        groups.dedup();
        for pgid in groups {
            let has_stopped = tree
                .process_group(pgid)
                .any(|member| member.group.tgid != id && member.group.state.lock().stop == Stop::Stopped);
            if has_stopped && tree.is_orphaned(pgid, Some(id)) {
                for member in tree.process_group(pgid).filter(|member| member.zombie.is_none()) {
                    for signo in [SIGHUP, SIGCONT] {
                        let _ = self.signal_group_locked(&member.group, SigInfo::kernel(signo));
                    }
                }
            }
        }
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
