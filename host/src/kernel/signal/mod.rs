//! Signals: sending, queueing, delivery.
//!
//! A signal is sent to a task or to a process, under `ThreadGroup::state`. What sending decides at once: dropping
//! ignored signals, SIGCONT and stop signals cancelling each other, ending the process if nothing can
//! prevent it, and which thread to interrupt. The thread takes signals from the queues before it goes back to user
//! code ([`deliver`]), which is also where interrupted calls become EINTR or are made again.

mod deliver;
mod info;
mod queue;
mod send;
mod set;

pub use deliver::SignalSets;
pub use info::{Fields, SIGINFO_SIZE, SigInfo, code};
pub use queue::{Actions, DefaultAction, Pending, SIG_DFL, SIG_IGN, SigAction, default_action, sa};
pub(super) use send::begin_exit;
pub use set::{
    NSIG, SIGABRT, SIGALRM, SIGBUS, SIGCHLD, SIGCONT, SIGFPE, SIGHUP, SIGILL, SIGINT, SIGIO, SIGKILL,
    SIGPIPE, SIGPROF, SIGPWR, SIGQUIT, SIGRTMIN, SIGSEGV, SIGSTKFLT, SIGSTOP, SIGSYS, SIGTERM, SIGTRAP,
    SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGUSR1, SIGUSR2, SIGVTALRM, SIGWINCH, SIGXCPU, SIGXFSZ, SigSet,
};

/// sigaltstack(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AltStack {
    /// Lowest address.
    pub sp: u64,
    /// `SS_*` as the program gave them (`SS_ONSTACK` means nothing): so frames have them.
    pub flags: i32,
    /// Bytes.
    pub size: u64,
}

impl AltStack {
    /// `SS_ONSTACK`: reported while on it.
    pub const ONSTACK: i32 = 1;
    /// `SS_DISABLE`: there is none.
    pub const DISABLE: i32 = 2;
    /// `SS_AUTODISARM`: forgotten while a handler runs.
    pub const AUTODISARM: i32 = 1 << 31;

    /// No alternate stack.
    pub const NONE: AltStack = AltStack { sp: 0, flags: Self::DISABLE, size: 0 };

    /// Whether `sp` lies on it.
    pub fn contains(&self, sp: u64) -> bool {
        self.flags & Self::AUTODISARM == 0 && self.size != 0 && sp > self.sp && sp - self.sp <= self.size
    }

    /// The flags that a program at `sp` is told.
    pub fn flags_at(&self, sp: u64) -> i32 {
        let state = match self.size {
            0 => Self::DISABLE,
            _ if self.contains(sp) => Self::ONSTACK,
            _ => 0,
        };
        state | self.flags & Self::AUTODISARM
    }
}
