//! Sending signals.

use super::info::{SigInfo, code};
use super::queue::{DefaultAction, LIMIT, SIG_DFL, default_action, needs_place};
use super::set::{SIGCONT, SIGKILL, SigSet};
use crate::abi::Result;
use crate::kernel::group::{GroupState, Stop};
use crate::kernel::limits;
use crate::kernel::task::work;
use crate::kernel::{Kernel, Task, ThreadGroup, WaitStatus};
use core::sync::atomic::Ordering;
use std::sync::Arc;

/// POLLIN, what signalfd readers wait for.
const READABLE: u32 = 1;

impl Kernel {
    /// Sends a signal to one thread.
    ///
    /// # Errors
    /// EAGAIN when too many real-time signals are queued.
    pub fn signal_task(&self, task: &Arc<Task>, info: SigInfo) -> Result<()> {
        self.signal_task_from(task, info, false)
    }

    /// The same; `by_stranger` says that the sender is in no pid namespace that the task can see.
    pub(in crate::kernel) fn signal_task_from(
        &self,
        task: &Arc<Task>,
        info: SigInfo,
        by_stranger: bool,
    ) -> Result<()> {
        let group = task.group.clone();
        let stopped_or_continued = {
            let mut state = group.state.lock();
            self.send(&group, &mut state, Some(task), info, by_stranger)?
        };
        self.report(&group, stopped_or_continued);
        Ok(())
    }

    /// Sends a signal to a process.
    ///
    /// # Errors
    /// EAGAIN when too many real-time signals are queued.
    pub fn signal_group(&self, group: &Arc<ThreadGroup>, info: SigInfo) -> Result<()> {
        self.signal_group_from(group, info, false)
    }

    /// The same; `by_stranger` says that the sender is in no pid namespace that the process can see.
    pub(in crate::kernel) fn signal_group_from(
        &self,
        group: &Arc<ThreadGroup>,
        info: SigInfo,
        by_stranger: bool,
    ) -> Result<()> {
        let continued = {
            let mut state = group.state.lock();
            self.send(group, &mut state, None, info, by_stranger)?
        };
        self.report(group, continued);
        Ok(())
    }

    /// As [`signal_group`](Self::signal_group) for callers that hold the tree's lock: whether the parent has to be told
    /// that the process continues is returned.
    pub(in crate::kernel) fn signal_group_locked(
        &self,
        group: &Arc<ThreadGroup>,
        info: SigInfo,
    ) -> Result<bool> {
        let mut state = group.state.lock();
        self.send(group, &mut state, None, info, false)
    }

    /// Returns whether the process was continued.
    fn send(
        &self,
        group: &Arc<ThreadGroup>,
        state: &mut GroupState,
        target: Option<&Arc<Task>>,
        info: SigInfo,
        by_stranger: bool,
    ) -> Result<bool> {
        let signo = info.signo;
        // From whom those in a pid namespace do not know, init takes what it may not take from others.
        let mut above = false;
        let info = if group.pids.is_first() {
            info
        } else {
            let (told, unknown) = group.pids.told(info);
            above = unknown || by_stranger || info.code == code::SI_KERNEL;
            told
        };
        if state.threads.is_empty() || (state.exit.is_some() && signo != SIGKILL) {
            return Ok(false);
        }
        let info = match target.or(state.threads.first()) {
            Some(task) if group.renames.load(Ordering::Relaxed) => info.told_in(&task.cred().user_ns),
            _ => info,
        };
        let continued = prepare(state, signo);
        if self.is_ignored(group, state, target, signo, above) {
            return Ok(continued);
        }
        let most = match needs_place(&info) {
            true => group.limits.lock().soft(limits::SIGPENDING).min(LIMIT),
            false => LIMIT,
        };
        match target {
            // What waits for the process counts as well.
            Some(task) => task.pending.lock().push(info, most.saturating_sub(state.pending.places()))?,
            None => state.pending.push(info, most)?,
        }
        self.deliver_to_someone(group, state, target, signo);
        Ok(continued)
    }

    /// Whether a signal has no effect, now or later.
    fn is_ignored(
        &self,
        group: &ThreadGroup,
        state: &GroupState,
        target: Option<&Arc<Task>>,
        signo: i32,
        above: bool,
    ) -> bool {
        let Some(observer) = target.or(state.threads.first()) else { return true };
        // A blocked signal is kept whatever its action: that may change before it is unblocked.
        if observer.blocked().has(signo) {
            return false;
        }
        // A tracer hears of it whatever it would do.
        if observer.is_traced() && signo != SIGKILL {
            return false;
        }
        let forced = above && SigSet::UNBLOCKABLE.has(signo);
        if state.actions.of(signo).handler == SIG_DFL && group.is_protected() && !forced {
            return true;
        }
        state.actions.ignores(signo)
    }

    /// Interrupts a thread that can take the signal, or ends the process at once if that is what it will do.
    fn deliver_to_someone(
        &self,
        group: &Arc<ThreadGroup>,
        state: &mut GroupState,
        target: Option<&Arc<Task>>,
        signo: i32,
    ) {
        group.signal_wait.notify(READABLE);
        let wants = |task: &&Arc<Task>| {
            !task.blocked().has(signo) || SigSet(task.awaited.load(Ordering::SeqCst)).has(signo)
        };
        let chosen = match target {
            Some(task) => Some(task).filter(wants),
            None => state.threads.iter().find(wants),
        };
        let Some(task) = chosen.cloned() else { return };
        // What dumps core ends the process when it is delivered: somebody has to write it.
        let fatal = default_action(signo) == DefaultAction::Terminate;
        // A stopped process ends when it is continued; SIGKILL has continued it by now.
        let stopped = state.stop == Stop::Stopped;
        // A tracer decides whether anything else than SIGKILL is.
        let decided = signo == SIGKILL || !task.is_traced();
        if fatal
            && decided
            && !stopped
            && state.actions.of(signo).handler == SIG_DFL
            && !task.blocked().has(signo)
        {
            return begin_exit(state, WaitStatus::killed(signo, false));
        }
        task.interrupt(work::SIGNAL);
    }

    /// Tells the parent that a process goes on.
    pub(in crate::kernel) fn report(&self, group: &Arc<ThreadGroup>, continued: bool) {
        if continued {
            self.notify_continued(group);
        }
    }
}

/// What happens before a signal is queued: SIGCONT and stop signals cancel each other, SIGCONT and SIGKILL continue a
/// stopped process. Returns whether it was stopped before.
fn prepare(state: &mut GroupState, signo: i32) -> bool {
    let discard = if signo == SIGCONT {
        SigSet::STOPS
    } else if SigSet::STOPS.has(signo) {
        SigSet::of(&[SIGCONT])
    } else {
        SigSet::EMPTY
    };
    if !discard.is_empty() {
        state.pending.discard(discard);
        for task in &state.threads {
            task.pending.lock().discard(discard);
        }
    }
    if signo != SIGCONT && signo != SIGKILL {
        return false;
    }
    state.continued = state.continued.wrapping_add(1);
    let was = core::mem::replace(&mut state.stop, Stop::None);
    if was != Stop::None {
        for task in &state.threads {
            // Interrupted calls are resolved by signal delivery, so that has to run although nothing may be pending.
            task.work.fetch_or(work::SIGNAL, Ordering::SeqCst);
            task.work.fetch_and(!(work::STOP | work::COUNTED), Ordering::SeqCst);
            task.interrupt(work::SIGNAL);
            task.note_stop_or_continue();
        }
    }
    was == Stop::Stopped && signo == SIGCONT
}

/// Ends all threads of a process.
pub(in crate::kernel) fn begin_exit(state: &mut GroupState, status: WaitStatus) {
    if state.exit.is_some() {
        // Who tells a tracer of its end ends after all, and so does who dumps core: of that.
        if status == WaitStatus::killed(SIGKILL, false) {
            if state.dump.is_some() {
                state.exit = Some(status);
            }
            state.threads.iter().for_each(|task| task.interrupt(work::KILL));
        }
        return;
    }
    state.exit = Some(status);
    state.stop = Stop::None;
    for task in &state.threads {
        task.interrupt(work::KILL);
    }
}
