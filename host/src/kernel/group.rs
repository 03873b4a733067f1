//! A process: the threads that share signals, limits and an exit status.

use super::coredump::Gathering;
use super::limits::Limits;
use super::namespaces::time::Shifts;
use super::pids::PidNamespace;
use super::signal::{Actions, Pending};
use super::timers::ProcessTimers;
use super::tree::INIT;
use super::{OomScore, Task};
use crate::cred::Cred;
use crate::mm::Mm;
use crate::sync::{Lock, Rank, WaitQueue};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// How a process ended or changed, in the encoding of wait(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitStatus(pub i32);

impl WaitStatus {
    /// `exit(code)`.
    pub const fn exited(code: i32) -> Self {
        WaitStatus((code & 0xff) << 8)
    }

    /// Killed by a signal; `core` says that it has dumped core.
    pub const fn killed(signo: i32, core: bool) -> Self {
        WaitStatus(signo | if core { 0x80 } else { 0 })
    }

    /// Stopped by a signal.
    pub const fn stopped(signo: i32) -> Self {
        WaitStatus(signo << 8 | 0x7f)
    }

    /// Continued.
    pub const CONTINUED: WaitStatus = WaitStatus(0xffff);

    /// What a shell makes of it: the code, or 128 plus the signal.
    pub fn shell_code(self) -> i32 {
        match self.0 & 0x7f {
            0 => self.0 >> 8 & 0xff,
            signo => 128 + signo,
        }
    }
}

/// Who outside waits for a process.
pub type OnExit = Box<dyn Fn(WaitStatus) + Send + Sync>;

/// Stopping by signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    None,
    /// This many threads have yet to stop.
    Stopping {
        signo: i32,
        left: usize,
    },
    Stopped,
}

/// What the signal code changes together. Order: after the process tree's lock, before `Task::pending`.
pub(super) struct GroupState {
    /// Live threads, oldest first.
    pub(super) threads: Vec<Arc<Task>>,
    pub(super) actions: Actions,
    /// Signals sent to the process.
    pub(super) pending: Pending,
    /// Set once the process as a whole ends.
    pub(super) exit: Option<WaitStatus>,
    /// The thread that calls execve and waits to be the only one.
    pub(super) execing: Option<Arc<Task>>,
    /// A core dump that is under way.
    pub(super) dump: Option<Gathering>,
    /// How many of its threads are on their way out.
    pub(super) finishing: usize,
    pub(super) stop: Stop,
    /// The signal that stopped it, for wait(2).
    pub(super) stop_signal: i32,
    /// How often SIGCONT was sent: a stop signal that was taken from the queue before does not stop.
    pub(super) continued: u32,
}

impl GroupState {
    /// The signal by which it stops or has stopped.
    pub(super) fn stopped_by(&self) -> Option<i32> {
        match self.stop {
            Stop::None => None,
            Stop::Stopping { signo, .. } => Some(signo),
            Stop::Stopped => Some(self.stop_signal),
        }
    }
}

/// Resources used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time, ns.
    pub cpu_ns: u64,
    /// Faults without and with I/O.
    pub faults: [u64; 2],
    /// Switches by waiting and by losing the CPU.
    pub switches: [u64; 2],
    /// Peak resident set, KiB.
    pub max_rss: u64,
}

impl Usage {
    /// The sum of both (the larger of the peaks).
    #[must_use]
    pub fn plus(self, other: Usage) -> Usage {
        Usage {
            cpu_ns: self.cpu_ns + other.cpu_ns,
            faults: [self.faults[0] + other.faults[0], self.faults[1] + other.faults[1]],
            switches: [self.switches[0] + other.switches[0], self.switches[1] + other.switches[1]],
            max_rss: self.max_rss.max(other.max_rss),
        }
    }
}

impl Task {
    /// What it has used so far.
    pub fn usage(&self) -> Usage {
        let load = |counters: &[AtomicU64; 2]| counters.each_ref().map(|c| c.load(Ordering::Relaxed));
        Usage {
            cpu_ns: self.cpu_ns(),
            faults: load(&self.faults),
            switches: load(&self.entity.switches),
            max_rss: 0,
        }
    }
}

/// A process.
pub struct ThreadGroup {
    /// Its id.
    pub tgid: i32,
    /// The pid namespace that it was born in, and is in for life.
    pub pids: Arc<PidNamespace>,
    /// What it is called there (getpid(2)).
    pub number: i32,
    /// What its parent is called there, as the process tree has it: getppid(2) takes no lock.
    pub(super) parent: AtomicI32,
    /// It has been in a user namespace other than the first: users are called something else there.
    pub(super) renames: AtomicBool,
    /// Signals that it has no handler for do nothing to it: it is an init.
    pub(super) unkillable: AtomicBool,
    pub(super) state: Lock<GroupState>,
    /// Resource limits.
    pub limits: Lock<Limits>,
    /// Notified when a child changes, and (for the others) when a thread ends.
    pub(super) child_wait: WaitQueue,
    /// Notified when a signal arrives: signalfd.
    pub signal_wait: WaitQueue,
    /// Notified when one of its threads ends, when it ends, and when it has been waited for: pidfd.
    pub exit_wait: WaitQueue,
    pub(super) timers: Lock<ProcessTimers>,
    /// What its dead threads used.
    pub(super) dead_usage: Lock<Usage>,
    /// Ended, perhaps not waited for yet.
    dead: AtomicBool,
    /// Waited for: its id is nobody's.
    reaped: AtomicBool,
    /// By how much its clocks are put forward.
    pub shifts: Shifts,
    /// personality(2).
    pub personality: AtomicU32,
    /// prctl(PR_SET_THP_DISABLE): kept for PR_GET_THP_DISABLE. No page is huge here, whoever asks.
    pub no_huge_pages: AtomicBool,
    /// What the process has registered for with membarrier(2), as MEMBARRIER_CMD_REGISTER_* bits.
    pub membarriers: AtomicU32,
    /// Bytes by which the kernel's heap has grown while it ran: roughly what it has made the kernel keep.
    pub(super) heap_grown: AtomicU64,
    /// `/proc/PID/oom_score_adj`.
    pub oom_score: Lock<OomScore>,
    /// The number of the control group that it is in. Changes under the tree's lock.
    pub(super) cgroup: AtomicU32,
    /// What it had used when it came there, ns.
    pub(super) cgroup_cpu_base: AtomicU64,
    /// Set before it runs.
    pub(super) on_exit: OnceLock<OnExit>,
    /// Whose it was, once it has no thread any more.
    pub(super) ended_as: OnceLock<Arc<Cred>>,
}

impl ThreadGroup {
    pub(super) fn new(
        (tgid, number): (i32, i32),
        pids: Arc<PidNamespace>,
        actions: Actions,
        limits: Limits,
    ) -> Arc<Self> {
        Arc::new(ThreadGroup {
            tgid,
            renames: AtomicBool::new(false),
            unkillable: AtomicBool::new(number == INIT && !pids.is_first()),
            pids,
            number,
            parent: AtomicI32::new(0),
            state: Lock::new(
                Rank::Group,
                GroupState {
                    threads: Vec::new(),
                    actions,
                    pending: Pending::new(),
                    exit: None,
                    execing: None,
                    dump: None,
                    finishing: 0,
                    stop: Stop::None,
                    stop_signal: 0,
                    continued: 0,
                },
            ),
            limits: Lock::new(Rank::Limits, limits),
            child_wait: WaitQueue::new(),
            signal_wait: WaitQueue::new(),
            exit_wait: WaitQueue::new(),
            timers: Lock::new(Rank::ProcessTimers, ProcessTimers::default()),
            dead_usage: Lock::new(Rank::DeadUsage, Usage::default()),
            dead: AtomicBool::new(false),
            reaped: AtomicBool::new(false),
            shifts: Shifts::default(),
            personality: AtomicU32::new(0),
            no_huge_pages: AtomicBool::new(false),
            membarriers: AtomicU32::new(0),
            heap_grown: AtomicU64::new(0),
            oom_score: Lock::new(Rank::OomScore, OomScore::default()),
            cgroup: AtomicU32::new(0),
            cgroup_cpu_base: AtomicU64::new(0),
            on_exit: OnceLock::new(),
            ended_as: OnceLock::new(),
        })
    }

    /// Takes over what a child process has from its parent.
    pub(super) fn inherit(&self, parent: &ThreadGroup) {
        self.shifts.follow(&parent.shifts);
        let score = *parent.oom_score.lock();
        *self.oom_score.lock() = score;
        self.no_huge_pages.store(parent.no_huge_pages.load(Ordering::Relaxed), Ordering::Relaxed);
        for (to, from) in [
            (&self.personality, &parent.personality),
            (&self.membarriers, &parent.membarriers),
            (&self.cgroup, &parent.cgroup),
        ] {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// It takes these credentials.
    pub(super) fn note_user_ns(&self, cred: &Cred) {
        if !cred.user_ns.is_first() {
            self.renames.store(true, Ordering::Relaxed);
        }
    }

    /// Whether signals that it has no handler for do nothing to it because of who it is.
    pub(in crate::kernel) fn is_protected(&self) -> bool {
        self.unkillable.load(Ordering::Relaxed)
    }

    /// Whether it is the init of a pid namespace other than the first.
    pub(super) fn is_namespace_init(&self) -> bool {
        self.number == INIT && !self.pids.is_first()
    }

    /// Its live threads, oldest first.
    pub fn threads(&self) -> Vec<Arc<Task>> {
        self.state.lock().threads.clone()
    }

    /// Whose it is, or was when its last thread ended.
    pub(super) fn cred(&self) -> Option<Arc<Cred>> {
        let first = self.state.lock().threads.first().cloned();
        first.map(|task| task.cred()).or_else(|| self.ended_as.get().cloned())
    }

    /// Its real user, as SIGCHLD tells it.
    pub(super) fn real_uid(&self) -> u32 {
        self.cred().map_or(0, |cred| cred.uid.real)
    }

    /// Whether all of it is stopped.
    pub fn is_stopped(&self) -> bool {
        self.state.lock().stop == Stop::Stopped
    }

    /// Whether it is on its way to its end: it was killed, or exits.
    pub fn is_ending(&self) -> bool {
        self.state.lock().exit.is_some()
    }

    /// How it ends as a whole, if it does.
    pub(super) fn exit_status(&self) -> Option<WaitStatus> {
        self.state.lock().exit
    }

    /// Whether it has ended.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Whether it has ended and been waited for.
    pub fn is_reaped(&self) -> bool {
        self.reaped.load(Ordering::SeqCst)
    }

    pub(super) fn set_reaped(&self) {
        self.reaped.store(true, Ordering::SeqCst);
        self.exit_wait.notify(!0);
    }

    /// Notes who its parent is.
    pub(super) fn set_parent(&self, parent: i32) {
        self.parent.store(self.pids.number_of(parent), Ordering::Relaxed);
    }

    pub(super) fn set_dead(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    /// Notes how large an address space has become that it lets go of.
    pub(super) fn note_max_rss(&self, mm: &Mm) {
        let peak = mm.peak_resident() / 1024;
        let mut dead = self.dead_usage.lock();
        dead.max_rss = dead.max_rss.max(peak);
    }

    /// What all its threads have used, the dead ones included.
    pub fn usage(&self) -> Usage {
        let live = self.threads();
        live.iter().fold(*self.dead_usage.lock(), |sum, task| sum.plus(task.usage()))
    }
}

#[cfg(test)]
mod tests {
    use super::WaitStatus;

    #[test]
    fn wait_status_encoding() {
        assert_eq!(WaitStatus::exited(3).0, 0x300);
        assert_eq!(WaitStatus::exited(256 + 3).0, 0x300);
        assert_eq!(WaitStatus::killed(11, true).0, 0x8b);
        assert_eq!(WaitStatus::stopped(20).0, 0x147f);
        assert_eq!(WaitStatus::exited(7).shell_code(), 7);
        assert_eq!(WaitStatus::killed(15, false).shell_code(), 143);
    }
}
