//! Process groups, sessions, stop and continue reports, and who may signal whom.

use super::group::{ThreadGroup, WaitStatus};
use super::signal::{Fields, SIGCHLD, SIGCONT, SIGSTOP, SigInfo, code, sa};
use super::tree::INIT;
use super::{Current, Kernel, Task, Tree};
use crate::abi::{Errno, Result};
use crate::cred::{Caps, Cred};
use core::sync::atomic::Ordering;
use std::sync::Arc;

impl Kernel {
    /// Notes that a process has stopped and tells its parent.
    pub(super) fn notify_stopped(&self, group: &Arc<ThreadGroup>, signo: i32) {
        let mut tree = self.tree.lock();
        let Some(node) = tree.node_mut(group.tgid) else { return };
        (node.stop_report, node.continue_report) = (Some(WaitStatus::stopped(signo)), false);
        let parent = node.parent;
        let uid = group.real_uid();
        self.tell_about_stop(&tree, parent, SigInfo::child(code::CLD_STOPPED, group.tgid, uid, signo));
        // The shell that runs the sandbox is to see it stop. What stops for somebody in here to continue it does not.
        let for_shell = signo != SIGSTOP || self.host_terminal().is_some();
        if group.tgid == INIT && tree.controlled_from_outside && for_shell {
            self.poller().suspend(signo);
        }
    }

    /// Notes that a process goes on and tells its parent.
    pub(super) fn notify_continued(&self, group: &Arc<ThreadGroup>) {
        self.note_continued(&mut self.tree.lock(), group.tgid);
    }

    pub(super) fn note_continued(&self, tree: &mut Tree, tgid: i32) {
        let Some(node) = tree.node_mut(tgid) else { return };
        (node.stop_report, node.continue_report) = (None, true);
        let (parent, uid) = (node.parent, node.group.real_uid());
        self.tell_about_stop(tree, parent, SigInfo::child(code::CLD_CONTINUED, tgid, uid, SIGCONT));
    }

    fn tell_about_stop(&self, tree: &Tree, parent: i32, info: SigInfo) {
        let Some(parent) = tree.node(parent) else { return };
        let flags = parent.group.state.lock().actions.of(SIGCHLD).flags;
        if flags & sa::NOCLDSTOP == 0 {
            let _ = self.signal_group_locked(&parent.group, info);
        }
        parent.group.child_wait.notify(!0);
    }

    /// Whether a process's group is orphaned: terminal stop signals do nothing then.
    pub(super) fn is_orphaned(&self, group: &ThreadGroup) -> bool {
        let tree = self.tree.lock();
        tree.node(group.tgid).is_none_or(|node| tree.is_orphaned(node.pgid, None))
    }

    /// The process with this id, if it has not ended.
    pub fn process(&self, tgid: i32) -> Option<Arc<ThreadGroup>> {
        let tree = self.tree.lock();
        tree.node(tgid).filter(|node| node.zombie.is_none()).map(|node| node.group.clone())
    }

    /// The live thread with this id.
    pub fn task(&self, tid: i32) -> Option<Arc<Task>> {
        self.tree.lock().task(tid).cloned()
    }

    /// Sends a signal to every process of a process group, whoever asks (terminals, the host).
    ///
    /// # Errors
    /// ESRCH if there is none.
    pub fn signal_process_group(&self, pgid: i32, info: SigInfo) -> Result<()> {
        let any = self.signal_process_group_locked(&mut self.tree.lock(), pgid, info);
        if any { Ok(()) } else { Err(Errno::ESRCH) }
    }

    /// As [`signal_process_group`](Self::signal_process_group) for who holds the tree's lock; says whether there is one.
    pub(super) fn signal_process_group_locked(&self, tree: &mut Tree, pgid: i32, info: SigInfo) -> bool {
        let alive = tree.process_group(pgid).filter(|node| node.zombie.is_none());
        let members: Vec<Arc<ThreadGroup>> = alive.map(|node| node.group.clone()).collect();
        for member in &members {
            if self.signal_group_locked(member, info) == Ok(true) {
                self.note_continued(tree, member.tgid);
            }
        }
        !members.is_empty()
    }
}

/// Whom kill(2) is for. All is by id.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// One process, by the id of any of its threads.
    Process(i32),
    /// A process group.
    Group(i32),
    /// All that the caller knows of, but itself and init.
    All,
}

/// Whether credentials allow sending `signo` to a task.
fn may_signal(sender: &Cred, target: &Cred) -> bool {
    sender.has_in(&target.user_ns, Caps::KILL)
        || [sender.uid.effective, sender.uid.real]
            .iter()
            .any(|id| *id == target.uid.real || *id == target.uid.saved)
}

impl Current {
    /// Whom kill(2) means.
    ///
    /// # Errors
    /// ESRCH.
    pub fn kill_target(&self, pid: i32) -> Result<Target> {
        let own = &self.task.group;
        Ok(match pid {
            1.. if pid == own.number => Target::Process(own.tgid),
            1.. => Target::Process(self.id_of(pid)?),
            -1 => Target::All,
            0 => Target::Group(self.kernel.tree.lock().node(own.tgid).map_or(0, |node| node.pgid)),
            _ => Target::Group(self.id_of(pid.wrapping_neg())?),
        })
    }

    /// kill(2).
    ///
    /// # Errors
    /// ESRCH, EPERM, EAGAIN.
    pub fn kill(&mut self, whom: Target, signo: i32, info: SigInfo) -> Result<()> {
        let own = self.task.tgid();
        if matches!(whom, Target::Process(id) if id == own) {
            // raise(3) and abort(3): always allowed, and the tree has nothing to say about it.
            return self.send_checked(&self.task.group, signo, info);
        }
        let targets: Vec<Arc<ThreadGroup>> = {
            let tree = self.kernel.tree.lock();
            let group_of = |node: &super::tree::Node| node.group.clone();
            match whom {
                Target::Process(id) => {
                    let by_thread = tree.task(id).map(|task| task.group.clone());
                    tree.node(id).map(group_of).or(by_thread).into_iter().collect()
                }
                Target::All => tree
                    .nodes()
                    .filter(|(id, _)| **id != own && self.number_of(**id) > 1)
                    .map(|(_, node)| group_of(node))
                    .collect(),
                Target::Group(pgid) => tree.process_group(pgid).map(group_of).collect(),
            }
        };
        let mut result = Err(Errno::ESRCH);
        for target in targets {
            match self.may_kill(&target, signo).and_then(|()| self.send_checked(&target, signo, info)) {
                Ok(()) => result = Ok(()),
                Err(errno) if result.is_err() => result = Err(errno),
                Err(_) => {}
            }
        }
        result
    }

    fn send_checked(&self, target: &Arc<ThreadGroup>, signo: i32, info: SigInfo) -> Result<()> {
        if signo == 0 {
            return Ok(());
        }
        let (info, by_stranger) = self.signed(target, info);
        self.kernel.signal_group_from(target, info, by_stranger)
    }

    /// A signal as `target` is to get it from the caller, and whether it does not know the caller.
    fn signed(&self, target: &ThreadGroup, mut info: SigInfo) -> (SigInfo, bool) {
        let stranger = !target.pids.is_first() && target.pids.number_of(self.task.tgid()) == 0;
        if stranger && let Fields::Raw(words) = &mut info.fields {
            // What a program says of itself there does not count.
            words[0] &= !0xffff_ffff;
        }
        (info, stranger)
    }

    fn may_kill(&self, target: &Arc<ThreadGroup>, signo: i32) -> Result<()> {
        if Arc::ptr_eq(target, &self.task.group) {
            return Ok(());
        }
        // One that never had a thread is nobody's.
        let Some(cred) = target.cred() else { return Ok(()) };
        let same_session = || {
            let tree = self.kernel.tree.lock();
            let sid = |id: i32| tree.node(id).map(|node| node.sid);
            sid(target.tgid) == sid(self.task.tgid())
        };
        if may_signal(&self.cred(), &cred) || (signo == SIGCONT && same_session()) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// tkill(2), tgkill(2): `tgid` 0 is any. Both are ids.
    ///
    /// # Errors
    /// ESRCH, EPERM, EAGAIN.
    pub fn kill_thread(&mut self, tgid: i32, tid: i32, signo: i32, info: SigInfo) -> Result<()> {
        let target = if tid == self.task.tid() { Some(self.task.clone()) } else { self.kernel.task(tid) };
        let target = target.filter(|task| tgid == 0 || task.tgid() == tgid).ok_or(Errno::ESRCH)?;
        self.may_kill(&target.group, signo)?;
        if signo == 0 {
            return Ok(());
        }
        let (info, by_stranger) = self.signed(&target.group, info);
        self.kernel.signal_task_from(&target, info, by_stranger)
    }

    /// setpgid(2).
    ///
    /// # Errors
    /// EINVAL, ESRCH, EACCES, EPERM.
    pub fn set_process_group(&mut self, pid: i32, pgid: i32) -> Result<()> {
        let own = self.task.tgid();
        if pgid < 0 {
            return Err(Errno::EINVAL);
        }
        let pid = if pid == 0 { own } else { self.id_of(pid)? };
        // A number of nobody's is a group of nobody's.
        let pgid = if pgid == 0 { pid } else { self.id_of(pgid).unwrap_or(0) };
        let mut tree = self.kernel.tree.lock();
        let sid = tree.node(own).ok_or(Errno::ESRCH)?.sid;
        let node = tree.node(pid).ok_or(Errno::ESRCH)?;
        if pid != own && node.parent != own {
            return Err(Errno::ESRCH);
        }
        if pid != own && node.execed {
            return Err(Errno::EACCES);
        }
        // Not a session leader, not in another session; the group is its own or exists in the session.
        if node.sid == pid || node.sid != sid {
            return Err(Errno::EPERM);
        }
        if pgid != pid && !tree.process_group(pgid).any(|member| member.sid == sid) {
            return Err(Errno::EPERM);
        }
        let left = tree.node_mut(pid).map(|node| core::mem::replace(&mut node.pgid, pgid));
        if let Some(left) = left {
            tree.release(self.pids(), &[left]);
        }
        Ok(())
    }

    /// setsid(2).
    ///
    /// # Errors
    /// EPERM for a process group leader.
    pub fn new_session(&mut self) -> Result<i32> {
        let own = self.task.tgid();
        let mut tree = self.kernel.tree.lock();
        if tree.process_group(own).next().is_some() {
            return Err(Errno::EPERM);
        }
        let node = tree.node_mut(own).ok_or(Errno::ESRCH)?;
        let left = [node.pgid, node.sid];
        (node.pgid, node.sid, node.tty) = (own, own, None);
        tree.release(self.pids(), &left);
        Ok(self.task.group.number)
    }

    /// Ids of the process group and session of a process; 0 is the caller's.
    ///
    /// # Errors
    /// ESRCH.
    pub fn group_and_session(&self, pid: i32) -> Result<(i32, i32)> {
        let pid = if pid == 0 { self.task.tgid() } else { pid };
        let tree = self.kernel.tree.lock();
        let tgid = tree.task(pid).map_or(pid, |task| task.tgid());
        tree.node(tgid).map(|node| (node.pgid, node.sid)).ok_or(Errno::ESRCH)
    }

    /// getppid(2).
    pub fn parent_pid(&self) -> i32 {
        self.task.group.parent.load(Ordering::Relaxed)
    }
}
