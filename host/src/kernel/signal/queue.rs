//! Signals that wait to be delivered, and what to do with them.

use super::info::{Fields, SigInfo, code};
use super::set::{NSIG, SIGKILL, SIGRTMIN, SigSet};
use crate::abi::{Errno, Result};

/// Most signals queued in one place that take one of their own.
pub(super) const LIMIT: u64 = 4096;

/// Signals waiting for one task or one process.
#[derive(Default)]
pub struct Pending {
    set: SigSet,
    queue: Vec<SigInfo>,
}

impl Pending {
    /// Nothing pending.
    pub const fn new() -> Self {
        Pending { set: SigSet::EMPTY, queue: Vec::new() }
    }

    /// Which signals wait.
    #[inline]
    pub fn set(&self) -> SigSet {
        self.set
    }

    /// How many wait that have a place.
    pub fn places(&self) -> u64 {
        self.queue.len() as u64
    }

    /// Adds a signal. Standard signals do not queue: a second one is dropped. `most` may wait that have a place
    /// ([`needs_place`]); beyond that it is only known of others that there was a signal, but of a standard one by kill(2) or the
    /// kernel, or of a timer's, all is (sigqueue(3), signal(7)).
    ///
    /// # Errors
    /// EAGAIN when too many wait, for a real-time signal that carries a value.
    pub fn push(&mut self, info: SigInfo, most: u64) -> Result<()> {
        let real_time = info.signo >= SIGRTMIN;
        // A timer has one signal at a time, which says how many others it stands for (timer_getoverrun(2)).
        if let Fields::Timer { id, overrun, .. } = info.fields
            && self.set.has(info.signo)
            && let Some(earlier) = self.queue.iter_mut().find_map(|queued| match &mut queued.fields {
                Fields::Timer { id: other, overrun, .. } if *other == id => Some(overrun),
                _ => None,
            })
        {
            *earlier = earlier.saturating_add(overrun).saturating_add(1);
            return Ok(());
        }
        if !real_time && self.set.has(info.signo) {
            return Ok(());
        }
        if needs_place(&info) && self.places() >= most {
            if real_time && info.code != code::SI_USER && info.code != code::SI_KERNEL {
                return Err(Errno::EAGAIN);
            }
            self.set = self.set.with(info.signo);
            return Ok(());
        }
        self.set = self.set.with(info.signo);
        self.queue.push(info);
        Ok(())
    }

    /// Takes the signal among `wanted` that Linux would deliver first: synchronous ones, then the lowest number; of
    /// equal ones the oldest.
    pub fn take(&mut self, wanted: SigSet) -> Option<SigInfo> {
        let ready = self.set.and(wanted);
        let kill = ready.and(SigSet::of(&[SIGKILL]));
        let signo =
            kill.lowest().or_else(|| ready.and(SigSet::SYNCHRONOUS).lowest()).or_else(|| ready.lowest())?;
        let Some(index) = self.queue.iter().position(|info| info.signo == signo) else {
            self.set = self.set.without(signo);
            return Some(SigInfo::user(signo, code::SI_USER, 0, 0));
        };
        let info = self.queue.remove(index);
        if signo < SIGRTMIN || !self.queue.iter().any(|info| info.signo == signo) {
            self.set = self.set.without(signo);
        }
        Some(info)
    }

    /// Forgets the signals in `set`.
    pub fn discard(&mut self, set: SigSet) {
        if !self.set.and(set).is_empty() {
            self.set = self.set.minus(set);
            self.queue.retain(|info| !set.has(info.signo));
        }
    }
}

/// Whether a signal is queued only where there is room (RLIMIT_SIGPENDING): all but standard ones that no program has made up,
/// and a timer's, of which each has one at most.
pub(super) fn needs_place(info: &SigInfo) -> bool {
    (info.signo >= SIGRTMIN || info.code < 0) && !matches!(info.fields, Fields::Timer { .. })
}

/// `sa_flags` bits (asm-generic/signal-defs.h; equal on both architectures).
pub mod sa {
    /// No SIGCHLD for stops.
    pub const NOCLDSTOP: u64 = 1;
    /// Children are reaped by the kernel.
    pub const NOCLDWAIT: u64 = 2;
    /// The handler wants siginfo (x86 and arm64 pass it always).
    pub const SIGINFO: u64 = 4;
    /// `sa_restorer` is valid.
    pub const RESTORER: u64 = 0x0400_0000;
    /// Run on the alternate stack.
    pub const ONSTACK: u64 = 0x0800_0000;
    /// Restart interrupted calls.
    pub const RESTART: u64 = 0x1000_0000;
    /// Do not block the signal in its handler.
    pub const NODEFER: u64 = 0x4000_0000;
    /// Back to the default when delivered.
    pub const RESETHAND: u64 = 0x8000_0000;
}

/// `SIG_DFL`.
pub const SIG_DFL: u64 = 0;
/// `SIG_IGN`.
pub const SIG_IGN: u64 = 1;

/// `struct sigaction` as the kernel keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigAction {
    /// Handler, `SIG_DFL` or `SIG_IGN`.
    pub handler: u64,
    /// `sa_flags`.
    pub flags: u64,
    /// Where the handler returns to.
    pub restorer: u64,
    /// Blocked while the handler runs.
    pub mask: SigSet,
}

/// What happens by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultAction {
    /// The process ends.
    Terminate,
    /// The process ends and would dump core.
    Core,
    /// Nothing.
    Ignore,
    /// The process stops.
    Stop,
}

/// The default action of a signal (signal(7)).
pub fn default_action(signo: i32) -> DefaultAction {
    use super::set::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGQUIT, SIGSEGV, SIGSYS, SIGTRAP, SIGXCPU, SIGXFSZ};
    const CORE: SigSet =
        SigSet::of(&[SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGXCPU, SIGXFSZ, SIGSYS]);
    if SigSet::IGNORED.has(signo) {
        DefaultAction::Ignore
    } else if SigSet::STOPS.has(signo) {
        DefaultAction::Stop
    } else if CORE.has(signo) {
        DefaultAction::Core
    } else {
        DefaultAction::Terminate
    }
}

/// The actions of a process.
#[derive(Clone)]
pub struct Actions([SigAction; NSIG as usize]);

impl Actions {
    /// All default.
    pub fn new() -> Self {
        Actions([SigAction::default(); NSIG as usize])
    }

    /// All default but these, which are ignored.
    pub fn ignoring(signals: SigSet) -> Self {
        let mut actions = Actions::new();
        for signo in (1..=NSIG).filter(|signo| signals.has(*signo)) {
            actions.of_mut(signo).handler = SIG_IGN;
        }
        actions
    }

    /// The action for a valid signal number.
    pub fn of(&self, signo: i32) -> &SigAction {
        &self.0[(signo - 1) as usize]
    }

    /// To change it.
    pub fn of_mut(&mut self, signo: i32) -> &mut SigAction {
        &mut self.0[(signo - 1) as usize]
    }

    /// Whether a signal would have no effect if it arrived unblocked.
    pub fn ignores(&self, signo: i32) -> bool {
        match self.of(signo).handler {
            SIG_IGN => true,
            SIG_DFL => default_action(signo) == DefaultAction::Ignore,
            _ => false,
        }
    }

    /// The signals that are set to be ignored, and those that have a handler (proc(5), SigIgn and SigCgt).
    pub fn ignored_and_caught(&self) -> (SigSet, SigSet) {
        let (mut ignored, mut caught) = (SigSet(0), SigSet(0));
        for (bit, action) in self.0.iter().enumerate() {
            match action.handler {
                SIG_DFL => {}
                SIG_IGN => ignored.0 |= 1 << bit,
                _ => caught.0 |= 1 << bit,
            }
        }
        (ignored, caught)
    }

    /// What execve(2) does: handlers become default, ignored stays ignored.
    pub fn reset_handlers(&mut self) {
        for action in &mut self.0 {
            if action.handler != SIG_IGN {
                action.handler = SIG_DFL;
            }
            *action = SigAction { handler: action.handler, ..SigAction::default() };
        }
    }
}

impl Default for Actions {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{LIMIT, Pending, SIGKILL, SigInfo, SigSet, code};

    #[test]
    fn standard_signals_coalesce_and_real_time_ones_queue() {
        let mut pending = Pending::new();
        for signo in [15, 15, 34, 34, 11, 2] {
            pending.push(SigInfo::kernel(signo), LIMIT).unwrap();
        }
        let all = SigSet(!0);
        let order: Vec<i32> = core::iter::from_fn(|| pending.take(all)).map(|info| info.signo).collect();
        assert_eq!(order, [11, 2, 15, 34, 34]);
        assert!(pending.set().is_empty());
    }

    #[test]
    fn a_full_queue_takes_what_needs_no_place() {
        let mut pending = Pending::new();
        let queued = |signo| SigInfo { code: code::SI_QUEUE, ..SigInfo::kernel(signo) };
        while pending.push(queued(40), LIMIT).is_ok() {}
        assert!(pending.push(queued(41), LIMIT).is_err());
        for signo in [SIGKILL, 15, 42] {
            pending.push(SigInfo::user(signo, code::SI_USER, 1, 1), LIMIT).unwrap();
        }
        // One that a program has made up loses what it carries.
        pending.push(queued(10), LIMIT).unwrap();
        let lost = pending.take(SigSet::of(&[10]));
        assert_eq!(lost, Some(SigInfo::user(10, code::SI_USER, 0, 0)));
        let rest = SigSet(!0).without(40);
        let taken: Vec<i32> = core::iter::from_fn(|| pending.take(rest)).map(|info| info.signo).collect();
        assert_eq!(taken, [SIGKILL, 15, 42]);
    }

    #[test]
    fn blocked_signals_stay() {
        let mut pending = Pending::new();
        pending.push(SigInfo::kernel(15), LIMIT).unwrap();
        assert_eq!(pending.take(SigSet::of(&[2])), None);
        pending.discard(SigSet::of(&[15]));
        assert_eq!(pending.take(SigSet(!0)), None);
    }
}
