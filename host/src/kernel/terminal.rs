//! Which terminal controls which session, who of the session may use it, and who is told when it goes away.
//!
//! A terminal is named by its device number here; what it is, `fs` knows. A process keeps the number of its controlling
//! terminal ([`Node::tty`](super::tree::Node)), a terminal the session that it controls and that session's foreground
//! group ([`Tie`]): the two can differ, as on Linux, once either has let go (tty_jobctrl.c).

use super::signal::{SIG_IGN, SIGCONT, SIGHUP, SIGTTIN, SIGTTOU, SigInfo};
use super::tree::Tie;
use super::{Kernel, Task, Tree};
use crate::abi::{Errno, Result};
use crate::vfs::Caller;

impl Kernel {
    /// Says on which terminal the sandbox was started; once, before there are processes.
    pub fn set_host_terminal(&self, tty: u64) {
        let _ = self.host_terminal.set(tty);
    }

    /// The terminal that the sandbox was started on.
    pub fn host_terminal(&self) -> Option<u64> {
        self.host_terminal.get().copied()
    }

    /// Says whether a shell outside could continue init's process group once it has stopped.
    pub fn set_outside(&self, controls: bool) {
        self.tree.lock().controlled_from_outside = controls;
    }

    /// The session that a terminal controls, and its foreground group.
    pub fn terminal_tie(&self, tty: u64) -> Option<Tie> {
        self.tree.lock().tie(tty)
    }

    /// The controlling terminal of a process.
    pub fn controlling_terminal(&self, pid: i32) -> Option<u64> {
        self.tree.lock().node(pid).and_then(|node| node.tty)
    }

    /// Sends a signal to a terminal's foreground group, if there is one.
    pub fn signal_foreground(&self, tty: u64, signo: i32) {
        let mut tree = self.tree.lock();
        if let Some(tie) = tree.tie(tty) {
            self.signal_process_group_locked(&mut tree, tie.foreground, SigInfo::kernel(signo));
        }
    }

    /// Makes `tty` the controlling terminal of process `pid`, which leads a session without one (TIOCSCTTY). With
    /// `steal` another session may lose it.
    ///
    /// # Errors
    /// EPERM.
    pub fn acquire_terminal(&self, pid: i32, tty: u64, steal: bool) -> Result<()> {
        let mut tree = self.tree.lock();
        let (sid, pgid, own) =
            tree.node(pid).map(|node| (node.sid, node.pgid, node.tty)).ok_or(Errno::EPERM)?;
        let tie = tree.tie(tty);
        if sid == pid && tie.is_some_and(|tie| tie.sid == sid) {
            return Ok(());
        }
        if sid != pid || own.is_some() || (tie.is_some() && !steal) {
            return Err(Errno::EPERM);
        }
        if let Some(tie) = tie {
            tree.leave_terminal(tie.sid);
        }
        tree.set_tie(tty, Some(Tie { sid, foreground: pgid }));
        if let Some(node) = tree.node_mut(pid) {
            node.tty = Some(tty);
        }
        Ok(())
    }

    /// TIOCNOTTY: a process lets go of its controlling terminal; when the session's leader does, all of the session do.
    ///
    /// # Errors
    /// ENOTTY if `tty` is not its controlling terminal.
    pub fn give_up_terminal(&self, pid: i32, tty: u64) -> Result<()> {
        let mut tree = self.tree.lock();
        if tree.node(pid).and_then(|node| node.tty) != Some(tty) {
            return Err(Errno::ENOTTY);
        }
        self.dissociate(&mut tree, pid, &[SIGHUP, SIGCONT]);
        if let Some(node) = tree.node_mut(pid) {
            node.tty = None;
        }
        Ok(())
    }

    /// Undoes the tie between a session and its terminal if `pid` leads the session, telling the foreground group.
    pub(super) fn dissociate(&self, tree: &mut Tree, pid: i32, signals: &[i32]) {
        let Some(node) = tree.node_mut(pid).filter(|node| node.sid == pid) else { return };
        let (tty, left) = (node.tty, node.hung_up_foreground.take());
        let Some(tty) = tty else {
            // It had one that was hung up: those who were in the foreground then are told now.
            if let Some(pgid) = left {
                for signo in [SIGHUP, SIGCONT] {
                    self.signal_process_group_locked(tree, pgid, SigInfo::kernel(signo));
                }
            }
            return;
        };
        if let Some(tie) = tree.tie(tty).filter(|tie| tie.sid == pid) {
            for signo in signals {
                self.signal_process_group_locked(tree, tie.foreground, SigInfo::kernel(*signo));
            }
            tree.set_tie(tty, None);
        }
        tree.leave_terminal(pid);
    }

    /// The terminal is gone: its session has none any more, and the session's leader is told.
    pub fn hang_up_terminal(&self, tty: u64) {
        let mut tree = self.tree.lock();
        let Some(tie) = tree.tie(tty) else { return };
        let leader = tree.node_mut(tie.sid).filter(|node| node.tty == Some(tty) && node.zombie.is_none());
        let leader = leader.map(|node| {
            node.hung_up_foreground = Some(tie.foreground);
            node.group.clone()
        });
        tree.leave_terminal(tie.sid);
        tree.set_tie(tty, None);
        if let Some(leader) = leader {
            for signo in [SIGHUP, SIGCONT] {
                if self.signal_group_locked(&leader, SigInfo::kernel(signo)) == Ok(true) {
                    self.note_continued(&mut tree, leader.tgid);
                }
            }
        }
    }

    /// Stops the caller's process group with `signo` (SIGTTIN, SIGTTOU) if `tty` controls its session and the group is
    /// not in the foreground.
    ///
    /// # Errors
    /// ERESTARTSYS when the signal was sent; EIO where it would do nothing: always for a read that it was to stop, and
    /// for the rest where nobody could continue the group.
    pub fn check_terminal(&self, task: &Task, tty: u64, signo: i32) -> Result<()> {
        let mut tree = self.tree.lock();
        let Some(node) = tree.node(task.tgid()).filter(|node| node.tty == Some(tty)) else { return Ok(()) };
        let pgid = node.pgid;
        if tree.tie(tty).is_none_or(|tie| tie.foreground == pgid) {
            return Ok(());
        }
        let ignored = task.group.state.lock().actions.of(signo).handler == SIG_IGN;
        if ignored || task.blocked().has(signo) {
            return if signo == SIGTTIN { Err(Errno::EIO) } else { Ok(()) };
        }
        if tree.is_orphaned(pgid, None) {
            return Err(Errno::EIO);
        }
        self.signal_process_group_locked(&mut tree, pgid, SigInfo::kernel(signo));
        Err(Errno::ERESTARTSYS)
    }

    /// As [`check_terminal`](Self::check_terminal) for what changes the terminal.
    ///
    /// # Errors
    /// As there.
    pub fn may_change_terminal(&self, caller: Caller, tty: u64) -> Result<()> {
        match self.task(caller.tid) {
            Some(task) => self.check_terminal(&task, tty, SIGTTOU),
            None => Ok(()),
        }
    }

    /// tcsetpgrp(3), for the group that the caller calls `pgid`.
    ///
    /// # Errors
    /// EINVAL, ENOTTY unless `tty` controls the caller's session, ESRCH for a group that there is not, EPERM for one of
    /// another session.
    pub fn set_foreground(&self, caller: Caller, tty: u64, pgid: i32) -> Result<()> {
        if pgid < 0 {
            return Err(Errno::EINVAL);
        }
        let pids = self.task(caller.tid).ok_or(Errno::ENOTTY)?.group.pids.clone();
        let pgid = pids.id_of(pgid);
        let mut tree = self.tree.lock();
        let node = tree.node(caller.pid).ok_or(Errno::ENOTTY)?;
        let sid = node.sid;
        if node.tty != Some(tty) || tree.tie(tty).is_none_or(|tie| tie.sid != sid) {
            return Err(Errno::ENOTTY);
        }
        let pgid = pgid?;
        if !tree.is_used(pgid) {
            return Err(Errno::ESRCH);
        }
        let session = tree.process_group(pgid).next().or_else(|| tree.node(pgid)).map(|node| node.sid);
        if session != Some(sid) {
            return Err(Errno::EPERM);
        }
        tree.set_tie(tty, Some(Tie { sid, foreground: pgid }));
        Ok(())
    }

    /// Whether `tty` is the caller's controlling terminal.
    ///
    /// # Errors
    /// ENOTTY where it is not.
    pub fn must_control(&self, caller: Caller, tty: u64) -> Result<()> {
        if self.controlling_terminal(caller.pid) == Some(tty) { Ok(()) } else { Err(Errno::ENOTTY) }
    }
}
