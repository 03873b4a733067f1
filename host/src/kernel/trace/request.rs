//! What a tracer asks of a stopped tracee.

use super::{Options, Reason, Resume, Stopped, Trace, tracing};
use crate::abi::{Errno, Result};
use crate::arch::regset::{self, RegisterSet};
use crate::arch::{AUDIT_ARCH, Registers, UserRegs};
use crate::kernel::signal::{NSIG, SIGKILL, SigInfo, SigSet};
use crate::kernel::task::work;
use crate::kernel::{Current, Task};
use crate::mm::Mm;
use crate::sync::Wake;
use core::sync::atomic::Ordering;
use std::sync::Arc;

/// The memory of a tracee.
pub struct Memory(Arc<Mm>);

impl Memory {
    /// One word.
    ///
    /// # Errors
    /// EIO if there is none.
    pub fn peek(&self, addr: u64) -> Result<u64> {
        let mut word = [0; 8];
        match self.0.peek(addr, &mut word) {
            Ok(8) => Ok(u64::from_ne_bytes(word)),
            _ => Err(Errno::EIO),
        }
    }

    /// Changes one word, in a copy of the program's own if others share it.
    ///
    /// # Errors
    /// EIO if there is none, or none that could be copied.
    pub fn poke(&self, addr: u64, word: u64) -> Result<()> {
        match self.0.poke(addr, &word.to_ne_bytes()) {
            Ok(8) => Ok(()),
            _ => Err(Errno::EIO),
        }
    }
}

/// PTRACE_GET_SYSCALL_INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyscallInfo {
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Number and arguments of a call that begins.
    pub entry: Option<(u64, [u64; 6])>,
    /// Result of a call that has ended.
    pub exit: Option<i64>,
}

impl SyscallInfo {
    fn of(stop: &Stopped) -> Self {
        let regs = &stop.regs;
        SyscallInfo {
            arch: AUDIT_ARCH,
            ip: regs.ip(),
            sp: regs.sp(),
            entry: (stop.reason == Reason::Entry).then(|| (regs.syscall_number(), regs.syscall_args())),
            exit: (stop.reason == Reason::Exit).then(|| regs.result()),
        }
    }
}

impl Trace {
    fn is_traced_by(&self, tracer: &Task) -> bool {
        self.tracer.as_ref().is_some_and(|link| link.is(tracer))
    }
}

impl Current {
    /// The task with this id, if the caller traces it.
    ///
    /// # Errors
    /// ESRCH.
    fn tracee(&self, pid: i32) -> Result<Arc<Task>> {
        let task = self.kernel.task(pid).ok_or(Errno::ESRCH)?;
        let traced = task.trace.lock().is_traced_by(&self.task);
        if traced { Ok(task) } else { Err(Errno::ESRCH) }
    }

    /// Does something with a tracee that has stopped.
    ///
    /// # Errors
    /// ESRCH if it has not, or is not the caller's; what `act` returns.
    fn with_stopped<T>(&self, pid: i32, act: impl FnOnce(&Arc<Task>, &mut Trace) -> Result<T>) -> Result<T> {
        let task = self.tracee(pid)?;
        let mut trace = task.trace.lock();
        let usable = |stop: &Stopped| stop.resumed.is_none() && !stop.listening;
        let stopped = trace.is_traced_by(&self.task) && trace.stop.as_deref().is_some_and(usable);
        if !stopped || task.killed() {
            return Err(Errno::ESRCH);
        }
        act(&task, &mut trace)
    }

    fn with_stop<T>(&self, pid: i32, act: impl FnOnce(&mut Stopped) -> Result<T>) -> Result<T> {
        self.with_stopped(pid, |_, trace| act(trace.stop.as_deref_mut().ok_or(Errno::ESRCH)?))
    }

    /// Whether a tracee of the caller's has stopped.
    ///
    /// # Errors
    /// ESRCH.
    pub fn check_stopped(&self, pid: i32) -> Result<()> {
        self.with_stopped(pid, |_, _| Ok(()))
    }

    /// Lets a tracee go on, with `signo` if it is not 0.
    ///
    /// # Errors
    /// ESRCH; EIO for what is no signal, and for steps where there are none.
    pub fn resume(&self, pid: i32, how: Resume, signo: u64) -> Result<()> {
        self.with_stopped(pid, |task, trace| {
            let signo = valid_signal(signo)?;
            let stop = trace.stop.as_deref_mut().ok_or(Errno::ESRCH)?;
            if how == Resume::Step {
                // Whether it can be done at all: the registers that run are armed later.
                regset::begin_step(&mut stop.regs.clone())?;
            }
            let kept = task.tracing.load(Ordering::SeqCst) & !(tracing::CALLS | tracing::STEPS);
            task.tracing.store(kept | how.bits(), Ordering::SeqCst);
            task.work.fetch_and(!work::STEP, Ordering::SeqCst);
            stop.resumed = Some(signo);
            Ok(task.clone())
        })?
        .wake();
        Ok(())
    }

    /// PTRACE_DETACH.
    ///
    /// # Errors
    /// ESRCH; EIO for what is no signal.
    pub fn detach(&self, pid: i32, signo: u64) -> Result<()> {
        let (task, signo) = self.with_stopped(pid, |task, _| Ok((task.clone(), valid_signal(signo)?)))?;
        self.detach_from(&task, signo);
        Ok(())
    }

    /// PTRACE_KILL: SIGKILL, stopped or not.
    ///
    /// # Errors
    /// ESRCH.
    pub fn kill_tracee(&self, pid: i32) -> Result<()> {
        let task = self.tracee(pid)?;
        let info = SigInfo::user(SIGKILL, 0, self.task.tgid(), self.cred().uid.real);
        let _ = self.kernel.signal_task(&task, info);
        Ok(())
    }

    /// PTRACE_INTERRUPT.
    ///
    /// # Errors
    /// ESRCH; EIO if it was not seized.
    pub fn interrupt_tracee(&self, pid: i32) -> Result<()> {
        let task = self.tracee(pid)?;
        if !task.is_seized() {
            return Err(Errno::EIO);
        }
        task.trace.lock().trap = true;
        task.interrupt(work::TRAP);
        Ok(())
    }

    /// PTRACE_LISTEN.
    ///
    /// # Errors
    /// ESRCH; EIO unless it was seized and has stopped as its process has.
    pub fn listen_to(&self, pid: i32) -> Result<()> {
        self.with_stopped(pid, |task, trace| {
            let stop = trace.stop.as_deref_mut().ok_or(Errno::ESRCH)?;
            if !task.is_seized() || stop.reason != Reason::Stop {
                return Err(Errno::EIO);
            }
            stop.listening = true;
            Ok(task.clone())
        })?
        .wake();
        Ok(())
    }

    /// PTRACE_SETOPTIONS.
    ///
    /// # Errors
    /// ESRCH, EINVAL.
    pub fn set_trace_options(&self, pid: i32, bits: u64) -> Result<()> {
        self.with_stopped(pid, |_, trace| {
            let options = Options::of(bits)?;
            if let Some(tracer) = &mut trace.tracer {
                tracer.options = options;
            }
            Ok(())
        })
    }

    /// PTRACE_GETEVENTMSG.
    ///
    /// # Errors
    /// ESRCH.
    pub fn event_message(&self, pid: i32) -> Result<u64> {
        self.with_stopped(pid, |_, trace| Ok(trace.message))
    }

    /// PTRACE_GETSIGINFO.
    ///
    /// # Errors
    /// ESRCH; EINVAL for a stop that no signal is behind.
    pub fn stop_info(&self, pid: i32) -> Result<SigInfo> {
        self.with_stop(pid, |stop| stop.info.ok_or(Errno::EINVAL))
    }

    /// PTRACE_SETSIGINFO.
    ///
    /// # Errors
    /// As for [`stop_info`](Self::stop_info).
    pub fn set_stop_info(&self, pid: i32, info: SigInfo) -> Result<()> {
        self.with_stop(pid, |stop| stop.info.replace(info).map(drop).ok_or(Errno::EINVAL))
    }

    /// PTRACE_GETSIGMASK.
    ///
    /// # Errors
    /// ESRCH.
    pub fn tracee_mask(&self, pid: i32) -> Result<SigSet> {
        self.with_stopped(pid, |task, _| Ok(task.blocked()))
    }

    /// PTRACE_SETSIGMASK.
    ///
    /// # Errors
    /// ESRCH.
    pub fn set_tracee_mask(&self, pid: i32, set: SigSet) -> Result<()> {
        self.with_stopped(pid, |task, _| {
            task.store_blocked(set);
            task.work.fetch_or(work::SIGNAL, Ordering::SeqCst);
            Ok(())
        })
    }

    /// PTRACE_GET_SYSCALL_INFO.
    ///
    /// # Errors
    /// ESRCH.
    pub fn syscall_info(&self, pid: i32) -> Result<SyscallInfo> {
        self.with_stop(pid, |stop| Ok(SyscallInfo::of(stop)))
    }

    /// A register set of a tracee.
    ///
    /// # Errors
    /// ESRCH; ENODEV where this machine lacks it.
    pub fn tracee_registers(&self, pid: i32, set: RegisterSet) -> Result<Vec<u8>> {
        self.with_stop(pid, |stop| regset::read(set, &stop.regs, &mut stop.fp).ok_or(Errno::ENODEV))
    }

    /// Changes a register set of a tracee.
    ///
    /// # Errors
    /// ESRCH; what [`regset::write`] returns.
    pub fn set_tracee_registers(&self, pid: i32, set: RegisterSet, bytes: &[u8]) -> Result<()> {
        self.with_stop(pid, |stop| regset::write(set, &mut stop.regs, &mut stop.fp, bytes))
    }

    /// Does something with a tracee's general registers.
    ///
    /// # Errors
    /// ESRCH; what `act` returns.
    pub fn with_tracee_registers<T>(
        &self,
        pid: i32,
        act: impl FnOnce(&mut UserRegs) -> Result<T>,
    ) -> Result<T> {
        self.with_stop(pid, |stop| act(&mut stop.regs))
    }

    /// The memory of a stopped tracee.
    ///
    /// # Errors
    /// ESRCH; EIO if it runs a program that its tracer may not look into: what counts is where the program began, which
    /// for one that its user may not read is a namespace above his.
    pub fn tracee_memory(&self, pid: i32) -> Result<Memory> {
        self.with_stopped(pid, |task, trace| {
            let mm = task.mm().ok_or(Errno::EIO)?;
            let capable = trace.tracer.as_ref().is_some_and(|tracer| tracer.is_capable(mm.user_ns()));
            if mm.is_dumpable() || capable { Ok(Memory(mm)) } else { Err(Errno::EIO) }
        })
    }
}

fn valid_signal(signo: u64) -> Result<i32> {
    i32::try_from(signo).ok().filter(|signo| (0..=NSIG).contains(signo)).ok_or(Errno::EIO)
}
