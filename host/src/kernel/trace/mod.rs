//! Tracing: ptrace(2).
//!
//! A task that is traced has a link to its tracer in its [`Trace`], and its tracer's process lists it in its node of the
//! process tree, for wait(2). At a stop the tracee puts its registers into [`Stopped`] and parks; the tracer reads and
//! changes them there, under the lock of `Task::trace`, and says how it is to go on; the tracee takes them back. So nobody
//! but a task itself ever touches its [`Current`], and a tracee that is killed, or whose tracer dies, takes up where it
//! stopped without asking anybody.
//!
//! | module | what |
//! |---|---|
//! | `stop` | the tracee: where it stops and what for |
//! | `link` | who traces whom: attaching, detaching, and the end of either |
//! | `request` | the tracer: what it asks of a stopped tracee |
//! | `step` | single steps |
//!
//! What decides whether a task is asked at all is [`Task::is_traced`], one load: programs that nobody traces pay that for
//! each signal, and nothing for a call ([`Task::watched`](super::Task)).
//!
//! Not here: seccomp's stops, and what suspends filters (PTRACE_O_TRACESECCOMP, PTRACE_O_SUSPEND_SECCOMP: refused),
//! PTRACE_SYSEMU, PTRACE_SINGLEBLOCK, debug registers.

mod link;
mod request;
mod step;
mod stop;

pub use request::{Memory, SyscallInfo};
pub use step::Resume;

use super::signal::SigInfo;
use super::{Task, ThreadGroup};
use crate::abi::{Errno, Result};
use crate::arch::{FpState, UserRegs};
use crate::cred::userns::UserNs;
use crate::cred::{Caps, Cred};
use core::sync::atomic::Ordering;
use linux_raw_sys::ptrace as sys;
use std::sync::{Arc, Weak};

bitflags::bitflags! {
    /// `PTRACE_O_*`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Options: u32 {
        /// Stops at calls are told from traps: bit 7 of the signal.
        const SYSGOOD = sys::PTRACE_O_TRACESYSGOOD;
        /// Stop at fork(2), and trace the child.
        const FORK = sys::PTRACE_O_TRACEFORK;
        /// The same for vfork(2).
        const VFORK = sys::PTRACE_O_TRACEVFORK;
        /// The same for clone(2).
        const CLONE = sys::PTRACE_O_TRACECLONE;
        /// Stop at execve(2).
        const EXEC = sys::PTRACE_O_TRACEEXEC;
        /// Stop when a vfork(2) is over.
        const VFORK_DONE = sys::PTRACE_O_TRACEVFORKDONE;
        /// Stop before the end.
        const EXIT = sys::PTRACE_O_TRACEEXIT;
        /// The tracee is killed when its tracer ends.
        const EXITKILL = sys::PTRACE_O_EXITKILL;
    }
}

impl Options {
    /// Those that a tracer asks for.
    ///
    /// # Errors
    /// EINVAL for what is unknown or not to be had.
    pub fn of(bits: u64) -> Result<Options> {
        u32::try_from(bits).ok().and_then(Options::from_bits).ok_or(Errno::EINVAL)
    }
}

/// What a tracee reports besides signals, if asked to (`PTRACE_EVENT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Fork = sys::PTRACE_EVENT_FORK as isize,
    Vfork = sys::PTRACE_EVENT_VFORK as isize,
    Clone = sys::PTRACE_EVENT_CLONE as isize,
    Exec = sys::PTRACE_EVENT_EXEC as isize,
    VforkDone = sys::PTRACE_EVENT_VFORK_DONE as isize,
    Exit = sys::PTRACE_EVENT_EXIT as isize,
    Stop = sys::PTRACE_EVENT_STOP as isize,
}

impl Event {
    /// The option that asks for it; none for what a seized tracee always reports.
    fn option(self) -> Options {
        match self {
            Event::Fork => Options::FORK,
            Event::Vfork => Options::VFORK,
            Event::Clone => Options::CLONE,
            Event::Exec => Options::EXEC,
            Event::VforkDone => Options::VFORK_DONE,
            Event::Exit => Options::EXIT,
            Event::Stop => Options::empty(),
        }
    }

    /// What wait(2) says of a stop for it and `signo`, before it is shifted.
    const fn code(self, signo: i32) -> i32 {
        (self as i32) << 8 | signo
    }
}

/// Bits of [`Task::tracing`](super::Task): what the task itself looks at without a lock.
pub(super) mod tracing {
    /// It has a tracer.
    pub(crate) const TRACED: u32 = 1;
    /// Its tracer has seized it.
    pub(crate) const SEIZED: u32 = 2;
    /// It stops at the beginning and end of calls.
    pub(crate) const CALLS: u32 = 4;
    /// It stops after each instruction.
    pub(crate) const STEPS: u32 = 8;
    /// It has stopped.
    pub(crate) const STOPPED: u32 = 16;
}

/// Who traces a task, and how.
pub(super) struct Tracer {
    task: Weak<Task>,
    group: Arc<ThreadGroup>,
    options: Options,
    /// Who it was when it began.
    cred: Arc<Cred>,
}

impl Tracer {
    fn is(&self, task: &Task) -> bool {
        core::ptr::eq(self.task.as_ptr(), task)
    }

    /// Whether it has power over what belongs to a user namespace (ptracer_capable).
    fn is_capable(&self, user_ns: &UserNs) -> bool {
        self.cred.has_in(user_ns, Caps::SYS_PTRACE)
    }
}

/// Why a tracee has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// A signal is about to be delivered.
    Signal,
    /// A call begins.
    Entry,
    /// A call has ended.
    Exit,
    /// Something that its tracer wants to know.
    Event,
    /// Its process has stopped (of tracees that were not seized).
    Group,
    /// The same of seized ones, and what PTRACE_INTERRUPT asks for.
    Stop,
}

/// A tracee that has stopped.
pub(super) struct Stopped {
    regs: UserRegs,
    fp: Box<FpState>,
    reason: Reason,
    /// What wait(2) says, before it is shifted.
    code: i32,
    /// Its tracer has not been told yet.
    unreported: bool,
    info: Option<SigInfo>,
    /// PTRACE_LISTEN: it waits for its process to go on, and its tracer for that.
    listening: bool,
    /// Set when it is to go on: by which signal, if by one.
    resumed: Option<i32>,
}

/// What a task has to do with being traced.
#[derive(Default)]
pub(super) struct Trace {
    tracer: Option<Tracer>,
    stop: Option<Box<Stopped>>,
    /// It is to stop without a signal (PTRACE_INTERRUPT).
    trap: bool,
    /// It is to tell that its process has stopped or goes on.
    notify: bool,
    /// PTRACE_GETEVENTMSG.
    message: u64,
    /// It becomes a program with more rights: nobody attaches meanwhile.
    rising: bool,
}

impl Trace {
    /// Whether the task is to stop without a signal.
    fn is_due(&self) -> bool {
        self.trap || self.notify
    }
}

/// A tracee as its tracer's process lists it.
pub struct Tracee {
    pub(super) task: Arc<Task>,
    /// How it ended, of a thread that was not the last of its process.
    pub(super) dead: Option<super::WaitStatus>,
}

impl Task {
    /// Whether it has a tracer.
    #[inline]
    pub fn is_traced(&self) -> bool {
        self.tracing.load(Ordering::SeqCst) & tracing::TRACED != 0
    }

    /// Whether it has stopped for its tracer.
    pub fn is_trace_stopped(&self) -> bool {
        self.tracing.load(Ordering::SeqCst) & tracing::STOPPED != 0
    }

    /// Whether the thread with this id traces it.
    pub(super) fn is_traced_by_thread(&self, tid: i32) -> bool {
        let trace = self.trace.lock();
        trace.tracer.as_ref().and_then(|tracer| tracer.task.upgrade()).is_some_and(|task| task.tid() == tid)
    }

    /// What wait(2) says of its stop, if its tracer has not been told; from then on it has, unless that is to be `kept`.
    pub(super) fn take_stop_report(&self, kept: bool) -> Option<i32> {
        let mut trace = self.trace.lock();
        let stop = trace.stop.as_deref_mut()?;
        // Who is killed goes on.
        if self.killed() || !stop.unreported || stop.resumed.is_some() || stop.listening {
            return None;
        }
        stop.unreported = kept;
        Some(stop.code)
    }

    fn is_seized(&self) -> bool {
        self.tracing.load(Ordering::SeqCst) & tracing::SEIZED != 0
    }

    /// The process that traces it; 0 for none (proc(5), TracerPid).
    pub fn tracer_pid(&self) -> i32 {
        let trace = self.trace.lock();
        let tracer = trace.tracer.as_ref().and_then(|tracer| tracer.task.upgrade());
        // Whoever lets go of a task last frees it, without a lock.
        drop(trace);
        tracer.map_or(0, |task| task.tid())
    }

    /// Whether it has a tracer that could not have looked into more than it may itself: set-id programs gain nothing then.
    pub fn is_traced_by_the_weak(&self) -> bool {
        let cred = self.cred();
        self.trace.lock().tracer.as_ref().is_some_and(|tracer| !tracer.is_capable(&cred.user_ns))
    }
}
