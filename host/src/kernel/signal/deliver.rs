//! What happens to pending signals before a task goes back to user code.

use super::info::SigInfo;
use super::queue::{Actions, DefaultAction, SIG_DFL, SIG_IGN, SigAction, default_action, sa};
use super::send::begin_exit;
use super::set::{SIGKILL, SIGSEGV, SIGSTOP, SigSet};
use super::{AltStack, NSIG};
use crate::abi::{Errno, Result};
use crate::arch::sigframe::{self, Frame};
use crate::arch::{RESTART_SYSCALL, Registers};
use crate::kernel::group::{GroupState, Stop};
use crate::kernel::task::work;
use crate::kernel::{Current, Task, ThreadGroup, WaitStatus};
use core::sync::atomic::Ordering;

/// What to do about one signal.
enum Next {
    /// Nothing is left.
    Nothing,
    /// The process ends or stops: the task's loop sees to it.
    Left,
    /// A signal that stops, unless the process group is orphaned, or continued since: as often as this it was before.
    JobStop(i32, u32),
    Handler(SigInfo, SigAction),
    /// One that ends the process, which leaves a core dump behind if it may.
    Core(SigInfo),
}

impl Current {
    /// Takes one pending signal and acts on it. Called until nothing is pending.
    pub(in crate::kernel) fn deliver_signals(&mut self) {
        loop {
            match self.next_signal() {
                Next::Left => return,
                Next::JobStop(signo, continued) => {
                    if !self.kernel.is_orphaned(&self.task.group) && self.begin_stop(signo, continued) {
                        return;
                    }
                }
                Next::Core(info) => return self.die(&info),
                Next::Handler(info, action) => {
                    self.kernel.metrics.signals.add();
                    self.handle(&info, &action);
                    return;
                }
                Next::Nothing => {
                    self.restart_without_handler();
                    if let Some(mask) = self.saved_mask.take() {
                        self.task.work.fetch_and(!work::RESTORE_MASK, Ordering::SeqCst);
                        self.set_blocked(mask);
                    }
                    return;
                }
            }
        }
    }

    fn next_signal(&mut self) -> Next {
        let group = self.task.group.clone();
        let mut state = group.state.lock();
        loop {
            if state.exit.is_some() {
                return Next::Left;
            }
            let task = &self.task;
            let wanted = SigSet(!task.blocked().0);
            let own = task.pending.lock().take(wanted);
            let Some(info) = own.or_else(|| state.pending.take(wanted)) else {
                // Senders set the bit under this lock.
                task.work.fetch_and(!work::SIGNAL, Ordering::SeqCst);
                return Next::Nothing;
            };
            self.note_overrun(&info);
            let continued = state.continued;
            let info = if task.is_traced() && info.signo != SIGKILL {
                drop(state);
                let given = self.signal_by_tracer(info);
                state = group.state.lock();
                let Some(info) = given else { continue };
                info
            } else {
                info
            };
            let task = &self.task;
            let signo = info.signo;
            let action = *state.actions.of(signo);
            match action.handler {
                SIG_IGN => {}
                // It was blocked when it was sent.
                SIG_DFL if group.is_protected() && !SigSet::UNBLOCKABLE.has(signo) => {}
                SIG_DFL => match default_action(signo) {
                    DefaultAction::Ignore => {}
                    // SIGCONT came while its tracer looked at it: it cancels what it could not discard.
                    DefaultAction::Stop if state.continued != continued => {}
                    DefaultAction::Stop if signo == SIGSTOP => {
                        stop(&mut state, task, signo);
                        return Next::Left;
                    }
                    DefaultAction::Stop => return Next::JobStop(signo, continued),
                    DefaultAction::Core => return Next::Core(info),
                    DefaultAction::Terminate => {
                        begin_exit(&mut state, WaitStatus::killed(signo, false));
                        return Next::Left;
                    }
                },
                _ => {
                    if action.flags & sa::RESETHAND != 0 {
                        state.actions.of_mut(signo).handler = SIG_DFL;
                    }
                    return Next::Handler(info, action);
                }
            }
        }
    }

    /// False: SIGCONT came first.
    fn begin_stop(&mut self, signo: i32, continued: u32) -> bool {
        let mut state = self.task.group.state.lock();
        let stops = state.continued == continued;
        if stops && state.exit.is_none() {
            stop(&mut state, &self.task, signo);
        }
        stops
    }

    /// What its tracer makes of a signal. What has come to be blocked meanwhile stays pending.
    #[cold]
    fn signal_by_tracer(&mut self, info: SigInfo) -> Option<SigInfo> {
        let given = self.trace_signal(info)?;
        let group = &self.task.group;
        if !given.from_kernel() && group.is_protected() {
            // It was not ignored when it was sent, for the sake of the tracer.
            if group.state.lock().actions.of(given.signo).handler == SIG_DFL {
                return None;
            }
        }
        if self.task.blocked().has(given.signo) {
            let _ = self.task.pending.lock().push(given, u64::MAX);
            return None;
        }
        Some(given)
    }

    /// Stops until the process is continued or killed.
    pub(in crate::kernel) fn stop_here(&mut self) {
        let group = self.task.group.clone();
        let (stopped, signo) = {
            let mut state = group.state.lock();
            let stopped = take_part(&mut state, &self.task);
            (stopped, state.stopped_by())
        };
        if let Some(signo) = stopped {
            self.kernel.notify_stopped(&group, signo);
        }
        while self.task.work.load(Ordering::SeqCst) & (work::STOP | work::KILL) == work::STOP {
            if self.task.is_traced() {
                self.trace_group_stop(signo.unwrap_or(SIGSTOP));
            } else {
                self.park(None);
            }
        }
    }

    /// Has a handler run next.
    fn handle(&mut self, info: &SigInfo, action: &SigAction) {
        self.restart_with_handler(action);
        if self.abort_sequence().is_err() {
            return self.force_segv(info.signo);
        }
        let mask = self.saved_mask.take();
        self.task.work.fetch_and(!work::RESTORE_MASK, Ordering::SeqCst);
        let old = mask.unwrap_or_else(|| self.task.blocked());
        match self.push_frame(info, action, old) {
            Ok(()) => {
                let signo = info.signo;
                let own = if action.flags & sa::NODEFER != 0 { SigSet::EMPTY } else { SigSet::of(&[signo]) };
                self.set_blocked(self.task.blocked().or(action.mask).or(own));
                self.trace_handler();
            }
            Err(_) => {
                self.set_blocked(old);
                self.force_segv(info.signo);
            }
        }
    }

    fn push_frame(&mut self, info: &SigInfo, action: &SigAction, mask: SigSet) -> Result<()> {
        let restorer = if action.flags & sa::RESTORER != 0 { Some(action.restorer) } else { self.restorer };
        // As Linux on x86_64, which delivers nothing without.
        let restorer = restorer.ok_or(Errno::EFAULT)?;
        let sp = self.regs.sp();
        let alt = self.altstack;
        let on_alt = alt.contains(sp);
        let switch = action.flags & sa::ONSTACK != 0 && alt.size != 0 && !on_alt;
        let top = if switch { alt.sp.wrapping_add(alt.size) } else { sp.wrapping_sub(sigframe::RED_ZONE) };
        let frame = Frame {
            signo: info.signo,
            info: info.to_bytes(),
            handler: action.handler,
            restorer,
            top,
            mask: mask.0,
            altstack: [alt.sp, alt.flags as u32 as u64, alt.size],
            fault: self.fault,
        };
        let mm = self.mm().clone();
        let floor = if switch || on_alt { alt.sp } else { 0 };
        let mut write = |at: u64, bytes: &[u8]| {
            // Overflowing the alternate stack is a bad frame, not a write to what lies below.
            if at < floor { Err(Errno::EFAULT) } else { mm.write(at, bytes) }
        };
        self.context.save_fp(&mut self.fp);
        sigframe::push(&mut self.regs, &mut self.fp, &frame, &mut write)?;
        // Wherever the handler runs.
        if alt.flags & AltStack::AUTODISARM != 0 {
            self.altstack = AltStack::NONE;
        }
        Ok(())
    }

    /// rt_sigreturn(2).
    pub fn sigreturn(&mut self) {
        let mm = self.mm().clone();
        let mut read = |at: u64, bytes: &mut [u8]| mm.read(at, bytes);
        self.context.drop_fp();
        match sigframe::pop(&mut self.regs, &mut self.fp, &mut read) {
            Ok(restored) => {
                self.set_blocked(SigSet(restored.mask));
                let [sp, flags, size] = restored.altstack;
                // Errors are ignored, as in Linux.
                let _ = self.set_altstack(sp, flags as i32, size);
            }
            Err(_) => {
                let sp = self.regs.sp();
                let (code, addr);
                (self.fault, code, addr) = sigframe::bad_frame(self.fault, sp, mm.is_mapped_above(sp));
                self.force_signal(SigInfo::fault(SIGSEGV, code, addr));
            }
        }
        self.regs.clear_syscall();
    }

    /// sigaltstack(2).
    ///
    /// # Errors
    /// EPERM while on it, EINVAL for unknown flags, ENOMEM if too small.
    pub fn set_altstack(&mut self, sp: u64, flags: i32, size: u64) -> Result<()> {
        const MINSIGSTKSZ: u64 = 2048;
        if self.altstack.contains(self.regs.sp()) {
            return Err(Errno::EPERM);
        }
        let mode = flags & !AltStack::AUTODISARM;
        self.altstack = match mode {
            AltStack::DISABLE => AltStack { sp: 0, flags, size: 0 },
            0 | AltStack::ONSTACK if size < MINSIGSTKSZ => return Err(Errno::ENOMEM),
            0 | AltStack::ONSTACK => AltStack { sp, flags, size },
            _ => return Err(Errno::EINVAL),
        };
        Ok(())
    }

    /// Sends a signal that the running instruction caused: it cannot be blocked or ignored.
    pub fn force_signal(&mut self, info: SigInfo) {
        let task = &self.task;
        let mut state = task.group.state.lock();
        let action = state.actions.of_mut(info.signo);
        let blocked = task.blocked();
        if blocked.has(info.signo) || action.handler == SIG_IGN {
            action.handler = SIG_DFL;
            task.store_blocked(blocked.without(info.signo));
        }
        if action.handler == SIG_DFL && !task.is_traced() {
            // Not even an init survives what it has done itself.
            task.group.unkillable.store(false, Ordering::Relaxed);
        }
        let _ = task.pending.lock().push(info, u64::MAX);
        task.work.fetch_or(work::SIGNAL, Ordering::SeqCst);
    }

    /// A frame could not be written or read. If that was SIGSEGV's own, nothing can be handled any more.
    fn force_segv(&mut self, signo: i32) {
        if signo == SIGSEGV {
            self.task.group.state.lock().actions.of_mut(SIGSEGV).handler = SIG_DFL;
        }
        self.force_signal(SigInfo::kernel(SIGSEGV));
    }

    /// Replaces the blocked signals; what becomes deliverable is.
    pub fn set_blocked(&mut self, set: SigSet) {
        let task = &self.task;
        let state = task.group.state.lock();
        let before = task.blocked();
        task.store_blocked(set);
        let pending = task.pending.lock().set().or(state.pending.set());
        if !pending.minus(task.blocked()).is_empty() {
            task.work.fetch_or(work::SIGNAL, Ordering::SeqCst);
        }
        // Signals of the process that this thread was to take need another one now.
        let dropped = state.pending.set().and(task.blocked()).minus(before);
        if !dropped.is_empty() {
            retarget(&state, task, dropped);
        }
    }

    /// Clears the signal bit if nothing unblocked is pending after all.
    pub(in crate::kernel) fn recheck_signals(&self) {
        let state = self.task.group.state.lock();
        let pending = self.task.pending.lock().set().or(state.pending.set());
        if pending.minus(self.task.blocked()).is_empty() {
            self.task.work.fetch_and(!work::SIGNAL, Ordering::SeqCst);
        }
    }

    /// An interrupted call, when no handler runs: it is made again.
    fn restart_without_handler(&mut self) {
        let Some(errno) = self.interrupted_call() else { return };
        self.regs.rewind_syscall();
        if errno == Errno::ERESTART_RESTARTBLOCK {
            self.regs.set_syscall_number(RESTART_SYSCALL);
        }
        self.regs.clear_syscall();
    }

    /// An interrupted call, when a handler runs: EINTR, or made again once the handler returns.
    fn restart_with_handler(&mut self, action: &SigAction) {
        let Some(errno) = self.interrupted_call() else { return };
        let again = errno == Errno::ERESTARTNOINTR
            || (errno == Errno::ERESTARTSYS && action.flags & sa::RESTART != 0);
        if again {
            self.regs.rewind_syscall();
        } else {
            self.regs.set_result(-i64::from(Errno::EINTR.0));
        }
        self.regs.clear_syscall();
    }

    /// The restart errno that the call being left returned, if it did.
    fn interrupted_call(&self) -> Option<Errno> {
        if self.regs.syscall_number() == !0 {
            return None;
        }
        let errno = i32::try_from(self.regs.result().wrapping_neg()).map(Errno).ok()?;
        let restarts =
            [Errno::ERESTARTSYS, Errno::ERESTARTNOINTR, Errno::ERESTARTNOHAND, Errno::ERESTART_RESTARTBLOCK];
        restarts.contains(&errno).then_some(errno)
    }

    /// The process's actions, to read or change.
    pub fn with_actions<T>(&self, change: impl FnOnce(&mut Actions) -> T) -> T {
        change(&mut self.task.group.state.lock().actions)
    }

    /// rt_sigaction(2): replaces an action and forgets what it makes ignored.
    ///
    /// # Errors
    /// EINVAL for a bad number or for what cannot be caught.
    pub fn set_action(&mut self, signo: i32, new: Option<SigAction>) -> Result<SigAction> {
        if !(1..=NSIG).contains(&signo) || (new.is_some() && SigSet::UNBLOCKABLE.has(signo)) {
            return Err(Errno::EINVAL);
        }
        let mut state = self.task.group.state.lock();
        let old = *state.actions.of(signo);
        if let Some(mut new) = new {
            new.mask = new.mask.minus(SigSet::UNBLOCKABLE);
            *state.actions.of_mut(signo) = new;
            if state.actions.ignores(signo) {
                let set = SigSet::of(&[signo]);
                state.pending.discard(set);
                for task in &state.threads {
                    task.pending.lock().discard(set);
                }
            }
        }
        Ok(old)
    }

    /// Signals pending for this thread, blocked ones included.
    pub fn pending_signals(&self) -> SigSet {
        self.task.pending_signals()
    }

    /// Takes a pending signal out of `set`, blocked or not (sigwait, signalfd).
    pub fn take_signal(&self, set: SigSet) -> Option<SigInfo> {
        let mut state = self.task.group.state.lock();
        let own = self.task.pending.lock().take(set);
        let taken = own.or_else(|| state.pending.take(set));
        if let Some(info) = &taken {
            self.note_overrun(info);
        }
        taken
    }
}

impl Task {
    /// Signals pending for this thread, blocked ones included.
    pub fn pending_signals(&self) -> SigSet {
        let state = self.group.state.lock();
        self.pending.lock().set().or(state.pending.set())
    }
}

/// The signal sets of a thread as /proc shows them (proc(5)).
#[derive(Clone, Copy, Debug, Default)]
pub struct SignalSets {
    /// Pending for the thread.
    pub pending: SigSet,
    /// Pending for the process.
    pub shared: SigSet,
    /// Blocked by the thread.
    pub blocked: SigSet,
    /// Ignored by the process.
    pub ignored: SigSet,
    /// Caught by the process.
    pub caught: SigSet,
}

impl SignalSets {
    /// Those of a process and one of its threads, if any is left.
    pub fn of(group: &ThreadGroup, task: Option<&Task>) -> Self {
        let state = group.state.lock();
        let (ignored, caught) = state.actions.ignored_and_caught();
        SignalSets {
            pending: task.map(|task| task.pending.lock().set()).unwrap_or_default(),
            shared: state.pending.set(),
            blocked: task.map(Task::blocked).unwrap_or_default(),
            ignored,
            caught,
        }
    }
}

/// Has all threads stop, as the signal wants that `by` has received.
fn stop(state: &mut GroupState, by: &Task, signo: i32) {
    if state.stop != Stop::None {
        // Its tracer has let it go on while the process is stopped.
        if by.is_traced() {
            state.stop_signal = signo;
            by.interrupt(work::STOP);
        }
        return;
    }
    state.stop = Stop::Stopping { signo, left: state.threads.len() };
    for task in &state.threads {
        task.interrupt(work::STOP | work::COUNTED);
        task.note_stop_or_continue();
    }
}

/// A thread that stops takes part in its process's stop, once. Some: it was the last.
fn take_part(state: &mut GroupState, task: &Task) -> Option<i32> {
    let counted = task.work.fetch_and(!work::COUNTED, Ordering::SeqCst) & work::COUNTED != 0;
    match state.stop {
        Stop::Stopping { signo, left } if counted && left <= 1 => {
            (state.stop, state.stop_signal) = (Stop::Stopped, signo);
            Some(signo)
        }
        Stop::Stopping { signo, left } if counted => {
            state.stop = Stop::Stopping { signo, left: left - 1 };
            None
        }
        _ => None,
    }
}

/// Interrupts other threads that can take pending signals of the process.
fn retarget(state: &GroupState, except: &Task, signals: SigSet) {
    let others = state.threads.iter().filter(|task| !core::ptr::eq(&***task, except));
    for task in others {
        if !signals.minus(task.blocked()).is_empty() {
            task.interrupt(work::SIGNAL);
        }
    }
}
