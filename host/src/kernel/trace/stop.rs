//! The tracee's side: where it stops, and what it takes from a stop.

use super::{Event, Reason, Stopped, Trace, tracing};
use crate::arch::{Registers, regset};
use crate::kernel::group::Stop;
use crate::kernel::signal::{Fields, SIG_IGN, SIGCHLD, SIGKILL, SIGTRAP, SigInfo, code, sa};
use crate::kernel::task::work;
use crate::kernel::{CloneFlags, Current, Task, WaitStatus};
use core::sync::atomic::Ordering;
use linux_raw_sys::general::{__NR_execve, __NR_execveat};
use linux_raw_sys::ptrace::{PTRACE_EVENTMSG_SYSCALL_ENTRY, PTRACE_EVENTMSG_SYSCALL_EXIT};

/// What tells a stop at a call from a trap, for who asked for that (PTRACE_O_TRACESYSGOOD).
const SYSGOOD: i32 = 0x80;

/// How a tracer let its tracee go on.
pub(super) struct Outcome {
    signo: i32,
    info: Option<SigInfo>,
    /// Whether it is still traced.
    traced: bool,
}

impl Current {
    /// Stops until the tracer says how to go on. None: there is none, or the task has to end.
    pub(super) fn trace_stop(
        &mut self,
        reason: Reason,
        code: i32,
        info: Option<SigInfo>,
        message: Option<u64>,
    ) -> Option<Outcome> {
        self.context.save_fp(&mut self.fp);
        let task = self.task.clone();
        {
            let mut trace = task.trace.lock();
            if trace.tracer.is_none() || task.killed() {
                return None;
            }
            // Whatever it stops for, it has stopped; what its process does is told by a stop for that.
            trace.trap = false;
            trace.notify &= reason != Reason::Stop;
            trace.message = message.unwrap_or(trace.message);
            trace.stop = Some(Box::new(Stopped {
                regs: self.regs,
                fp: self.fp.clone(),
                reason,
                code,
                unreported: true,
                info,
                listening: false,
                resumed: None,
            }));
            task.tracing.fetch_or(tracing::STOPPED, Ordering::SeqCst);
        }
        self.tell_tracer(reason, code);
        let outcome = loop {
            {
                let mut trace = task.trace.lock();
                let traced = trace.tracer.is_some();
                let Trace { stop, trap, notify, .. } = &mut *trace;
                let Some(stopped) = stop.as_mut() else { break None };
                // While its tracer listens it tells of what becomes of its process, by stopping anew.
                let again = stopped.listening && (*trap || *notify);
                if task.killed() || stopped.resumed.is_some() || again {
                    let stopped = stop.take();
                    task.tracing.fetch_and(!tracing::STOPPED, Ordering::SeqCst);
                    break stopped.map(|stopped| (stopped, traced));
                }
            }
            self.park(None);
        };
        let (stopped, traced) = outcome?;
        let Stopped { regs, fp, info, resumed, .. } = *stopped;
        self.regs = regs;
        *self.fp = *fp;
        self.context.drop_fp();
        self.arm_step();
        if task.killed() { None } else { Some(Outcome { signo: resumed.unwrap_or(0), info, traced }) }
    }

    /// Sends the tracer SIGCHLD, and wakes it if it waits.
    fn tell_tracer(&self, reason: Reason, code: i32) {
        let Some(group) = self.task.trace.lock().tracer.as_ref().map(|tracer| tracer.group.clone()) else {
            return;
        };
        let action = *group.state.lock().actions.of(SIGCHLD);
        if action.handler != SIG_IGN && action.flags & sa::NOCLDSTOP == 0 {
            let by_process = matches!(reason, Reason::Group | Reason::Stop);
            let why = if by_process { code::CLD_STOPPED } else { code::CLD_TRAPPED };
            let info = SigInfo::child(why, self.task.tid(), self.cred().uid.real, code & 0x7f);
            let _ = self.kernel.signal_group(&group, info);
        }
        group.child_wait.notify(!0);
    }

    /// `siginfo_t` of a stop that no signal is behind.
    pub(super) fn notice(&self, signo: i32, code: i32) -> SigInfo {
        let fields = Fields::Kill { pid: self.task.number(), uid: self.cred().uid.real };
        SigInfo { signo, errno: 0, code, fields }
    }

    /// A signal is about to be delivered: what the tracer makes of it. It may be none, or another one.
    pub(in crate::kernel) fn trace_signal(&mut self, info: SigInfo) -> Option<SigInfo> {
        let signo = info.signo;
        let Some(outcome) = self.trace_stop(Reason::Signal, signo, Some(info), None) else {
            // There is no tracer any more. Who has to end needs no signal either.
            return (!self.task.killed()).then_some(info);
        };
        let kept = outcome.info.filter(|info| info.signo == outcome.signo);
        match outcome.signo {
            0 => None,
            _ if kept.is_some() => kept,
            signo => {
                let (pid, uid) = self.tracer_ids();
                Some(SigInfo::user(signo, code::SI_USER, pid, uid))
            }
        }
    }

    fn tracer_ids(&self) -> (i32, u32) {
        let trace = self.task.trace.lock();
        let tracer = trace.tracer.as_ref().and_then(|tracer| tracer.task.upgrade());
        drop(trace);
        tracer.map_or((0, 0), |tracer| (self.number_of(tracer.tid()), tracer.cred().uid.real))
    }

    /// Before a call is made. False: it is not, as the tracer has said.
    pub(crate) fn trace_entry(&mut self) -> bool {
        if self.task.is_traced() {
            self.end_step();
            regset::entered(&mut self.regs);
        }
        if self.task.tracing.load(Ordering::SeqCst) & tracing::CALLS == 0 {
            return true;
        }
        let kept = regset::show_stop(&mut self.regs, false);
        self.trace_call(Reason::Entry, PTRACE_EVENTMSG_SYSCALL_ENTRY);
        regset::unshow_stop(&mut self.regs, false, kept);
        self.regs.syscall_number() != !0 && !self.task.killed()
    }

    /// After call `number` was made and its result is in the registers.
    pub(crate) fn trace_exit(&mut self, number: u32) {
        let tracing = self.task.tracing.load(Ordering::SeqCst);
        if tracing & (tracing::CALLS | tracing::STEPS) == 0 || self.exit.is_some() {
            return;
        }
        if tracing & tracing::CALLS == 0 {
            return self.report_step();
        }
        // A new program has made no call; its tracer is told which one made it.
        let execs = [__NR_execve, __NR_execveat].contains(&number);
        let restore = self.regs.syscall_number() == !0;
        if restore && execs {
            self.regs.begin_syscall(number.into());
        }
        let kept = regset::show_stop(&mut self.regs, true);
        self.trace_call(Reason::Exit, PTRACE_EVENTMSG_SYSCALL_EXIT);
        regset::unshow_stop(&mut self.regs, true, kept);
        if restore && execs {
            self.regs.clear_syscall();
        }
    }

    fn trace_call(&mut self, reason: Reason, message: u32) {
        let good = self.has_trace_option(super::Options::SYSGOOD);
        let signo = SIGTRAP | if good { SYSGOOD } else { 0 };
        let info = self.notice(SIGTRAP, signo);
        if let Some(outcome) = self.trace_stop(reason, signo, Some(info), Some(message.into()))
            && outcome.signo != 0
            && outcome.traced
        {
            let info = SigInfo::user(outcome.signo, code::SI_USER, self.task.tgid(), self.cred().uid.real);
            let _ = self.kernel.signal_task(&self.task, info);
        }
    }

    /// What its tracer calls `id`, as it is told of it.
    pub(in crate::kernel) fn number_for_tracer(&self, id: i32) -> u64 {
        if !self.task.is_traced() {
            return 0;
        }
        let trace = self.task.trace.lock();
        let pids = trace.tracer.as_ref().map(|tracer| tracer.group.pids.clone());
        drop(trace);
        pids.map_or(0, |pids| pids.number_of(id) as u64)
    }

    fn has_trace_option(&self, option: super::Options) -> bool {
        self.task.is_traced()
            && self.task.trace.lock().tracer.as_ref().is_some_and(|tracer| tracer.options.contains(option))
    }

    /// Whether the tracer wants to hear of `event`.
    pub(in crate::kernel) fn wants_event(&self, event: Event) -> bool {
        self.has_trace_option(event.option())
    }

    /// Tells the tracer of `event`, if it wants to hear of it.
    pub(in crate::kernel) fn trace_event(&mut self, event: Event, message: u64) {
        if self.wants_event(event) {
            let code = event.code(SIGTRAP);
            let info = self.notice(SIGTRAP, code);
            self.trace_stop(Reason::Event, code, Some(info), Some(message));
        }
    }

    /// What the tracer wants to hear of a child made with these flags, if anything.
    pub(in crate::kernel) fn clone_event(&self, flags: CloneFlags, exit_signal: i32) -> Option<Event> {
        let event = match exit_signal {
            _ if flags.contains(CloneFlags::VFORK) => Event::Vfork,
            SIGCHLD => Event::Fork,
            _ => Event::Clone,
        };
        (!flags.contains(CloneFlags::UNTRACED) && self.wants_event(event)).then_some(event)
    }

    /// A new program is about to run, which had the id `former` before.
    pub(in crate::kernel) fn trace_exec(&mut self, former: u64) {
        if self.wants_event(Event::Exec) {
            return self.trace_event(Event::Exec, former);
        }
        if self.task.is_traced() && !self.task.is_seized() {
            let info = SigInfo::user(SIGTRAP, code::SI_USER, self.task.tgid(), self.cred().uid.real);
            let _ = self.kernel.signal_task(&self.task, info);
        }
    }

    /// The task is about to end with `status`. Who is killed ends without further ado.
    pub(in crate::kernel) fn trace_end(&mut self, status: WaitStatus) {
        if !self.wants_event(Event::Exit) {
            return;
        }
        let killed = WaitStatus::killed(SIGKILL, false);
        let group = self.task.group.clone();
        {
            let state = group.state.lock();
            if status == killed || state.exit == Some(killed) {
                return;
            }
            // It is to be stopped although it ends; SIGKILL says so anew.
            self.task.work.fetch_and(!work::KILL, Ordering::SeqCst);
        }
        self.trace_event(Event::Exit, status.0 as u32 as u64);
        self.task.work.fetch_or(work::KILL, Ordering::SeqCst);
    }

    /// Its process has stopped, by `signo`: it stops for its tracer instead. Afterwards it goes on, unless it is not
    /// traced any more and its process is still stopped.
    pub(in crate::kernel) fn trace_group_stop(&mut self, signo: i32) {
        if self.task.is_seized() {
            self.trace_stop_event();
        } else {
            self.trace_stop(Reason::Group, signo, None, None);
        }
        let state = self.task.group.state.lock();
        if self.task.is_traced() || state.stop == Stop::None {
            self.task.work.fetch_and(!work::STOP, Ordering::SeqCst);
        }
        // A call that was interrupted is resolved by signal delivery.
        self.task.work.fetch_or(work::SIGNAL, Ordering::SeqCst);
    }

    /// PTRACE_EVENT_STOP: by the signal that stopped the process, or by SIGTRAP if it is not stopped; again for as long as
    /// the tracer listens and something changes.
    fn trace_stop_event(&mut self) {
        loop {
            self.task.work.fetch_and(!work::TRAP, Ordering::SeqCst);
            let signo = self.task.group.state.lock().stopped_by().unwrap_or(SIGTRAP);
            let code = Event::Stop.code(signo);
            let info = self.notice(signo, code);
            self.trace_stop(Reason::Stop, code, Some(info), Some(0));
            let again = self.task.trace.lock().is_due();
            if !again || !self.task.is_traced() || self.task.killed() {
                return;
            }
        }
    }

    /// Stops without a signal, if it is to.
    pub(in crate::kernel) fn trace_trap(&mut self) {
        self.task.work.fetch_and(!work::TRAP, Ordering::SeqCst);
        let wanted = self.task.trace.lock().is_due();
        if wanted && self.task.is_seized() {
            self.trace_stop_event();
            self.task.work.fetch_or(work::SIGNAL, Ordering::SeqCst);
        }
    }
}

impl Task {
    /// A seized task tells its tracer that its process has stopped or goes on. Called with the state of its process locked.
    pub(in crate::kernel) fn note_stop_or_continue(&self) {
        if self.is_seized() {
            self.trace.lock().notify = true;
            self.interrupt(work::TRAP);
        }
    }
}
