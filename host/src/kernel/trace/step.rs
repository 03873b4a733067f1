//! How a tracee goes on, and single steps.
//!
//! A step is armed last of all before the program runs ([`work::STEP`]) and disarmed first of all when it comes back, so
//! that neither a tracer nor a signal frame ever sees what makes the processor trap.

use super::{Reason, tracing};
use crate::arch::{Registers, regset};
use crate::kernel::Current;
use crate::kernel::signal::{SIGTRAP, SigInfo};
use crate::kernel::task::work;
use core::sync::atomic::Ordering;

/// How a tracee goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// To its next signal (PTRACE_CONT).
    Freely,
    /// To the next beginning or end of a call (PTRACE_SYSCALL).
    ToCall,
    /// For one instruction (PTRACE_SINGLESTEP).
    Step,
}

impl Resume {
    /// The bits of `Task::tracing` that it means.
    pub(super) fn bits(self) -> u32 {
        match self {
            Resume::Freely => 0,
            Resume::ToCall => tracing::CALLS,
            Resume::Step => tracing::STEPS,
        }
    }
}

impl Current {
    fn steps(&self) -> bool {
        self.task.tracing.load(Ordering::SeqCst) & tracing::STEPS != 0
    }

    /// After a stop: has the next instruction trap if the tracer wants that.
    pub(super) fn arm_step(&mut self) {
        if self.steps() {
            self.task.work.fetch_or(work::STEP, Ordering::SeqCst);
        }
    }

    /// Right before user code runs.
    pub(in crate::kernel) fn begin_step(&mut self) {
        self.task.work.fetch_and(!work::STEP, Ordering::SeqCst);
        if self.steps() {
            self.stepping = regset::begin_step(&mut self.regs).unwrap_or(false);
        }
    }

    /// Right after it ran. What was not an instruction's end is stepped over again.
    #[inline]
    pub(in crate::kernel) fn end_step(&mut self) {
        if self.stepping {
            self.stepping = false;
            regset::end_step(&mut self.regs);
            self.arm_step();
        }
    }

    /// A call is over, which was one step.
    pub(super) fn report_step(&mut self) {
        self.force_signal(SigInfo::fault(SIGTRAP, regset::step_code(), self.regs.ip()));
    }

    /// A handler is about to run, which is one step, too.
    pub(in crate::kernel) fn trace_handler(&mut self) {
        if self.steps() {
            let info = self.notice(SIGTRAP, SIGTRAP);
            self.trace_stop(Reason::Event, SIGTRAP, Some(info), None);
        }
    }
}
