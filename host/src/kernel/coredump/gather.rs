//! The threads of a process that dumps core: they leave their registers and wait for the end of the dump.

use super::super::group::GroupState;
use super::super::signal::{SigSet, begin_exit};
use super::super::task::work;
use super::super::{Current, Task, WaitStatus};
use crate::arch::{FpState, UserRegs};
use crate::sync::Wake;
use core::sync::atomic::Ordering;
use std::sync::Arc;

/// A thread as its notes describe it.
pub(super) struct Held {
    pub(super) task: Arc<Task>,
    pub(super) regs: UserRegs,
    pub(super) fp: Box<FpState>,
    pub(super) pending: SigSet,
}

/// A dump that is under way. Kept by the state of its process.
pub(in crate::kernel) struct Gathering {
    /// Who writes it.
    by: Arc<Task>,
    /// How many have yet to come by.
    left: usize,
    held: Vec<Held>,
}

impl Current {
    /// Marks the process as ending by `signo`, and has the other threads come by. False: it ends already, or is about to
    /// become another program.
    pub(super) fn begin_dump(&mut self, signo: i32) -> bool {
        let group = self.task.group.clone();
        let mut state = group.state.lock();
        if state.exit.is_some() || state.execing.is_some() {
            return false;
        }
        begin_exit(&mut state, WaitStatus::killed(signo, false));
        let comes = |task: &&Arc<Task>| {
            !Arc::ptr_eq(task, &self.task) && task.work.load(Ordering::SeqCst) & work::LEAVING == 0
        };
        let left = state.threads.iter().filter(comes).count();
        state.dump = Some(Gathering { by: self.task.clone(), left, held: Vec::new() });
        // It goes on for as long as nobody kills it; nothing else is delivered any more.
        let own = work::KILL | work::SIGNAL | work::STOP | work::TRAP | work::COUNTED;
        self.task.work.fetch_and(!own, Ordering::SeqCst);
        true
    }

    /// Waits for the other threads. False: the process is killed meanwhile.
    pub(super) fn gather(&mut self) -> bool {
        loop {
            let come = self.task.group.state.lock().dump.as_ref().is_none_or(|dump| dump.left == 0);
            if come || self.task.killed() {
                return come;
            }
            self.park(None);
        }
    }

    /// The other threads, in the order of their ids.
    pub(super) fn others(&self) -> Vec<Held> {
        let mut state = self.task.group.state.lock();
        let mut held = state.dump.as_mut().map(|dump| core::mem::take(&mut dump.held)).unwrap_or_default();
        drop(state);
        held.sort_unstable_by_key(|thread| thread.task.tid());
        held
    }

    /// The thread as it is now.
    pub(super) fn held(&mut self) -> Held {
        self.context.save_fp(&mut self.fp);
        let pending = self.task.pending.lock().set();
        Held { task: self.task.clone(), regs: self.regs, fp: self.fp.clone(), pending }
    }

    /// On its way out: where its process dumps core it stays until that is done. Returns how the process ends if it does
    /// as a whole, else `status`.
    pub(in crate::kernel) fn wait_for_dump(&mut self, status: WaitStatus) -> WaitStatus {
        let group = self.task.group.clone();
        let is_awaited = {
            let state = group.state.lock();
            let gone = self.task.work.load(Ordering::SeqCst) & work::LEAVING != 0;
            let awaited = !gone && state.dump.as_ref().is_some_and(|dump| !Arc::ptr_eq(&dump.by, &self.task));
            if !awaited {
                // From here on no dump waits for it.
                self.task.work.fetch_or(work::LEAVING, Ordering::SeqCst);
            }
            awaited
        };
        if !is_awaited {
            return status;
        }
        let own = self.held();
        let mut state = group.state.lock();
        self.task.work.fetch_or(work::LEAVING, Ordering::SeqCst);
        if let Some(dump) = &mut state.dump {
            dump.held.push(own);
            dump.came();
        }
        while state.dump.is_some() {
            drop(state);
            self.park(None);
            state = group.state.lock();
        }
        state.exit.unwrap_or(status)
    }
}

impl Gathering {
    /// One fewer is awaited.
    fn came(&mut self) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.by.wake();
        }
    }
}

/// A task has been taken out of its process, perhaps without having come by: the host keeps it, or it panicked.
pub(in crate::kernel) fn leave(state: &mut GroupState, task: &Task) {
    let gone = task.work.fetch_or(work::LEAVING, Ordering::SeqCst) & work::LEAVING != 0;
    match &mut state.dump {
        Some(dump) if core::ptr::eq(&*dump.by, task) => end(state),
        Some(dump) if !gone => dump.came(),
        _ => {}
    }
}

/// The dump is over: its process's threads go on to their end.
fn end(state: &mut GroupState) {
    state.dump = None;
    state.threads.iter().for_each(|task| task.wake());
}

/// Ends a dump that has begun, also where writing it panics.
pub(super) struct Guard(Arc<Task>);

impl Guard {
    pub(super) fn new(by: &Arc<Task>) -> Self {
        Guard(by.clone())
    }

    /// Says how the process ends, unless it was killed meanwhile.
    pub(super) fn end(self, status: WaitStatus) {
        let mut state = self.0.group.state.lock();
        if state.dump.is_some() && !self.0.killed() {
            state.exit = Some(status);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.0.group.state.lock();
        if state.dump.is_some() {
            end(&mut state);
        }
    }
}
