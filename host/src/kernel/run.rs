//! A task's life between its first and its last instruction.

use super::signal::SigInfo;
use super::task::work;
use super::{Current, WaitStatus};
use crate::platform::Trap;
use core::sync::atomic::Ordering;
use std::panic::{AssertUnwindSafe, catch_unwind};

impl Current {
    /// Runs the task to its end. What remains of it afterwards is memory.
    pub(super) fn main(&mut self) {
        let status = loop {
            match catch_unwind(AssertUnwindSafe(|| self.run())) {
                Ok(status) => break status,
                // The program ends as if killed; the loop goes on to see to it.
                Err(payload) => {
                    self.report_panic(&*payload);
                    self.exit_group(WaitStatus::killed(super::signal::SIGKILL, false));
                }
            }
        };
        // A panic here has released its locks like any other; the rest of the task's life is skipped.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.finish(status))) {
            self.report_panic(&*payload);
        }
        self.release();
    }

    /// User code and what it asks for, until the task has to end.
    fn run(&mut self) -> WaitStatus {
        loop {
            let worker = self.kernel.sched.before_user();
            let task = &self.task;
            // Published before the check: who sets a bit after it sees the worker and kicks it.
            task.in_user.store(worker + 1, Ordering::SeqCst);
            if task.work.load(Ordering::SeqCst) != 0 {
                task.in_user.store(0, Ordering::Relaxed);
                if let Some(status) = self.do_work() {
                    return status;
                }
                continue;
            }
            let Some(space) = &self.space else {
                return WaitStatus::killed(super::signal::SIGKILL, false);
            };
            let trap = self.context.switch(space, &mut self.regs, &mut self.fp);
            self.task.in_user.store(0, Ordering::Relaxed);
            match trap {
                Trap::Syscall => crate::syscalls::dispatch(self),
                other => self.handle_trap(other),
            }
        }
    }

    fn handle_trap(&mut self, trap: Trap) {
        match trap {
            Trap::Syscall => {}
            Trap::PageFault { addr, access, info } => {
                self.kernel.metrics.page_faults.add();
                self.task.faults[0].fetch_add(1, Ordering::Relaxed);
                if let Err(fault) = self.mm().handle_fault(addr, access) {
                    (self.fault, self.fault_addr) = (info, addr);
                    self.force_signal(SigInfo::fault(fault.signo, fault.code, addr));
                }
            }
            Trap::Signal(signal) => {
                (self.fault, self.fault_addr) = (signal.info, signal.addr);
                self.force_signal(SigInfo::fault(signal.signo, signal.code, signal.addr));
            }
            Trap::Kick => {
                self.kernel.metrics.kicks.add();
                self.yield_now();
            }
            Trap::Yield => self.yield_now(),
            Trap::Dead => self.exit_group(WaitStatus::killed(super::signal::SIGKILL, false)),
        }
    }

    /// Looks after the work bits. Some: the task ends with this status.
    #[cold]
    fn do_work(&mut self) -> Option<WaitStatus> {
        loop {
            if let Some(code) = self.exit {
                return Some(WaitStatus::exited(code));
            }
            let work = self.task.work.load(Ordering::SeqCst);
            if work & work::KILL != 0 {
                let state = self.task.group.state.lock();
                return Some(state.exit.unwrap_or(WaitStatus::killed(super::signal::SIGKILL, false)));
            }
            if work & work::STOP != 0 {
                self.stop_here();
            } else if work & (work::SIGNAL | work::RESTORE_MASK) != 0 {
                self.deliver_signals();
            } else {
                return None;
            }
        }
    }
}
