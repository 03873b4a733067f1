//! A task's life between its first and its last instruction.

use super::signal::{SIGSEGV, SigInfo};
use super::task::work;
use super::{Current, WaitStatus};
use crate::abi::Errno;
use crate::arch::{Registers, sigframe};
use crate::mm::FaultSignal;
use crate::platform::{Access, FaultInfo, Trap, local};
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
        // A panic here has released its locks like any other; of the rest only what others wait for is made up for.
        let end = || {
            let status = self.wait_for_dump(status);
            self.trace_end(status);
            self.finish(status);
        };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(end)) {
            self.report_panic(&*payload);
            self.release();
            let leave = || self.leave_after_panic(status);
            if let Err(payload) = catch_unwind(AssertUnwindSafe(leave)) {
                self.report_panic(&*payload);
            }
        }
        self.release();
    }

    /// User code and what it asks for, until the task has to end.
    ///
    /// Every system call passes here, so what is hot is inlined into this function: the switch to user code, which
    /// changes all registers, and the dispatcher.
    fn run(&mut self) -> WaitStatus {
        let mut trap = None;
        loop {
            self.before_user();
            let Some(space) = &self.space else {
                return WaitStatus::killed(super::signal::SIGKILL, false);
            };
            let work = &self.task.work;
            if space.run(&mut *self.context, &mut self.regs, &mut self.fp, work, &mut trap) {
                crate::syscalls::dispatch(self);
            } else if let Some(trap) = trap {
                self.handle_trap(trap);
            } else if let Some(status) = self.do_work() {
                return status;
            }
        }
    }

    /// Makes sure that somebody looks after what waits for this worker meanwhile, and that signals find the task.
    #[inline(always)]
    fn before_user(&mut self) {
        let word = local::get();
        if self.worker != word {
            self.worker = word;
            self.task.worker.store(word, Ordering::SeqCst);
            self.attention = self.kernel.sched.attention();
            self.note_rseq();
        }
        if self.attention.load(Ordering::Relaxed) != 0 {
            self.attend();
        }
    }

    /// The rest of [`before_user`](Self::before_user) where there is something.
    #[cold]
    fn attend(&mut self) {
        if self.kernel.sched.move_to_cpu(&self.task) {
            self.note_rseq();
            return self.before_user();
        }
        if self.kernel.sched.before_user() {
            self.kernel.relieve(&self.task);
            // Perhaps on another worker.
            self.before_user();
        }
    }

    /// For signal frames.
    fn note_fault(&mut self, signo: i32, info: FaultInfo, addr: u64) {
        self.fault = sigframe::fault(self.fault, signo, [info.trapno, info.err], addr);
    }

    #[inline(never)]
    fn handle_trap(&mut self, trap: Trap) {
        self.end_step();
        match trap {
            Trap::Syscall => {}
            Trap::PageFault { addr, access: Access::Execute, .. } if self.call_the_old_way(addr) => {}
            Trap::PageFault { addr, access, info } => {
                self.kernel.metrics.page_faults.add();
                self.task.faults[0].fetch_add(1, Ordering::Relaxed);
                let switches = self.task.entity.switches();
                let handled = self.mm().handle_fault(addr, access);
                if self.task.entity.switches() != switches {
                    self.note_rseq();
                }
                if let Err(fault) = handled {
                    if fault == FaultSignal::OUT_OF_MEMORY && self.kernel.relieve(&self.task) {
                        // There is room now, or this process is to go.
                        return;
                    }
                    self.note_fault(fault.signo, info, addr);
                    self.force_signal(SigInfo::fault(fault.signo, fault.code, addr));
                }
            }
            Trap::Signal(signal) => {
                self.note_fault(signal.signo, signal.info, signal.addr);
                self.force_signal(SigInfo::fault(signal.signo, signal.code, signal.addr));
            }
            Trap::Kick => {
                self.kernel.metrics.kicks.add();
                self.kernel.sched.kicked();
                self.yield_now();
            }
            Trap::Yield => self.yield_now(),
            Trap::Dead => self.exit_group(WaitStatus::killed(super::signal::SIGKILL, false)),
        }
    }

    /// Makes the system call that a program asks for by calling `addr`, if that is such an address; see
    /// [`old_call`](crate::arch::old_call). Like Linux's own emulation it ends in a SIGSEGV where a pointer is bad.
    #[cold]
    fn call_the_old_way(&mut self, addr: u64) -> bool {
        let Some(number) = crate::arch::old_call(addr) else { return false };
        if self.regs.ip() != addr {
            return false;
        }
        let Ok(caller) = self.mm().read_val::<u64>(self.regs.sp()) else {
            self.force_signal(SigInfo::kernel(SIGSEGV));
            return true;
        };
        self.regs.begin_syscall(number);
        crate::syscalls::dispatch(self);
        if self.regs.syscall_number() == number && self.regs.result() == -i64::from(Errno::EFAULT.0) {
            self.force_signal(SigInfo::kernel(SIGSEGV));
        } else {
            self.regs.set_ip(caller);
            self.regs.set_sp(self.regs.sp().wrapping_add(8));
        }
        self.regs.clear_syscall();
        true
    }

    /// Waits until its control group is thawed, or it has to end.
    #[cold]
    fn freeze_here(&mut self) {
        let work = &self.task.work;
        work.fetch_or(work::FROZEN, Ordering::SeqCst);
        while self.task.work.load(Ordering::SeqCst) & (work::FREEZE | work::KILL) == work::FREEZE {
            self.park(None);
        }
        self.task.work.fetch_and(!work::FROZEN, Ordering::SeqCst);
    }

    /// Looks after the work bits. Some: the task ends with this status.
    #[cold]
    fn do_work(&mut self) -> Option<WaitStatus> {
        self.end_step();
        loop {
            if let Some(status) = self.exit {
                return Some(status);
            }
            let work = self.task.work.load(Ordering::SeqCst);
            if work & work::KILL != 0 {
                let state = self.task.group.state.lock();
                return Some(state.exit.unwrap_or(WaitStatus::killed(super::signal::SIGKILL, false)));
            }
            if work & work::FREEZE != 0 {
                self.freeze_here();
            } else if work & work::STOP != 0 {
                self.stop_here();
            } else if work & work::TRAP != 0 {
                self.trace_trap();
            } else if work & (work::SIGNAL | work::RESTORE_MASK) != 0 {
                self.deliver_signals();
            } else if work & work::RUINS != 0 {
                self.task.work.fetch_and(!work::RUINS, Ordering::SeqCst);
                self.kernel.ruins.clear(&*self.kernel.sched);
            } else if work & work::RSEQ != 0 {
                self.refresh_rseq();
            } else {
                if work & work::STEP != 0 {
                    self.begin_step();
                }
                return None;
            }
        }
    }
}
