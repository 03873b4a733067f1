//! A task: one thread of a program, as others see it.

use super::Uts;
use super::clone::VforkDone;
use super::group::ThreadGroup;
use super::ipc::{IpcNamespace, undo::UndoList};
use super::namespaces::Namespaces;
use super::sched::{Entity, Scheduler};
use super::seccomp::{Confinement, Mode};
use super::signal::{Pending, SigSet};
use super::trace::Trace;
use crate::cred::Cred;
use crate::mm::Mm;
use crate::net::Namespace as Network;
use crate::sync::{Lock, Rank, Wake};
use crate::vfs::{FdTable, FsContext, Path};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// Reasons for a task to look around before it enters user code, and to stop waiting.
pub(super) mod work {
    /// An unblocked signal may be pending.
    pub(crate) const SIGNAL: u32 = 1;
    /// The task has to end: its process does, or another thread calls execve.
    pub(crate) const KILL: u32 = 2;
    /// The process stops.
    pub(crate) const STOP: u32 = 4;
    /// A blocked-signal set was replaced for one call and is to be put back.
    pub(crate) const RESTORE_MASK: u32 = 8;
    /// The thread was preempted, moved or sent to a handler, and has registered with rseq(2).
    pub(crate) const RSEQ: u32 = 16;
    /// The stop of its process that is under way waits for it.
    pub(crate) const COUNTED: u32 = 32;
    /// It is to stop for its tracer.
    pub(crate) const TRAP: u32 = 64;
    /// Its next instruction is to trap.
    pub(crate) const STEP: u32 = 128;
    /// It is to wait until its control group is thawed.
    pub(crate) const FREEZE: u32 = 256;
    /// It does.
    pub(crate) const FROZEN: u32 = 512;
    /// It is to take file systems apart before its program goes on.
    pub(crate) const RUINS: u32 = 1024;
    /// It is on its way out: no core dump waits for it.
    pub(crate) const LEAVING: u32 = 2048;
    /// What ends an interruptible wait.
    pub(crate) const INTERRUPT: u32 = SIGNAL | KILL | STOP | TRAP | FREEZE;
}

/// Length of a task's name, with its zero byte.
pub const COMM_LEN: usize = 16;

/// What a task does, as `/proc/PID/stat` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// On a worker or waiting for one.
    Running,
    /// Waits for something.
    Sleeping,
    /// Stopped by a signal.
    Stopped,
    /// Stopped for its tracer.
    Traced,
    /// Ended, not yet waited for.
    Zombie,
}

impl RunState {
    /// The letter in `/proc/PID/stat`.
    pub fn letter(self) -> char {
        match self {
            RunState::Running => 'R',
            RunState::Sleeping => 'S',
            RunState::Stopped => 'T',
            RunState::Traced => 't',
            RunState::Zombie => 'Z',
        }
    }
}

/// What the task uses that others may look at, and who it is: execve(2) changes all of it at once.
#[derive(Clone)]
pub(super) struct Resources {
    pub(super) mm: Option<Arc<Mm>>,
    pub(super) fds: Option<Arc<FdTable>>,
    pub(super) fs: Option<Arc<FsContext>>,
    pub(super) cred: Arc<Cred>,
    pub(super) comm: [u8; COMM_LEN],
    /// The program's file, for `/proc/PID/exe`.
    pub(super) exe: Option<Path>,
    pub(super) namespaces: Arc<Namespaces>,
}

/// What sched_setscheduler(2) and friends keep; the scheduler itself is fair and ignores it.
#[derive(Clone, Copy, Debug)]
pub struct SchedPolicy {
    /// `SCHED_*`.
    pub policy: u32,
    /// Nice value.
    pub nice: i32,
    /// SCHED_RESET_ON_FORK.
    pub reset_on_fork: bool,
    /// CPUs allowed, one bit each.
    pub affinity: u64,
    /// ioprio_set(2): class and level, 0 for none. There is no I/O scheduler to use it.
    pub io_priority: u16,
}

/// One thread of a program.
pub struct Task {
    tid: AtomicI32,
    /// What it is called in its own pid namespace.
    number: AtomicI32,
    /// Its process.
    pub group: Arc<ThreadGroup>,
    pub(super) entity: Entity,
    pub(super) sched: Arc<Scheduler>,
    me: Weak<Task>,
    /// [`work`] bits.
    pub(super) work: AtomicU32,
    /// The worker on which it ran user code last, or is about to, plus one.
    pub(super) worker: AtomicUsize,
    /// Blocked signals; written by the task itself only.
    blocked: AtomicU64,
    /// Signals sent to this thread. Order: after `group.state`.
    pub(super) pending: Lock<Pending>,
    /// Signals that sigtimedwait(2) waits for: they wake although blocked.
    pub(super) awaited: AtomicU64,
    pub(super) resources: Lock<Resources>,
    /// Scheduling parameters.
    pub policy: Lock<SchedPolicy>,
    /// CLOCK_MONOTONIC at creation.
    pub started_ns: u64,
    /// Signal to get when the parent dies (prctl).
    pub(super) parent_death_signal: AtomicI32,
    /// Page faults served (minor, major).
    pub(super) faults: [AtomicU64; 2],
    /// Timer slack (prctl), ns: how late timers may be. They never use it.
    pub timer_slack: AtomicU64,
    /// What PR_SET_TIMERSLACK goes back to.
    pub default_slack: AtomicU64,
    /// set_robust_list(2).
    pub robust_list: AtomicU64,
    /// It has handed over its priority-inheritance locks for the last time.
    pub(super) pi_dead: AtomicBool,
    /// Its calls take the longer path: they are screened, traced, counted or printed. Set once and for all.
    pub(crate) watched: AtomicBool,
    /// It has been taken out of its process: it has ended for all others.
    pub(super) has_left: AtomicBool,
    /// Whom it tells that it uses its parent's memory no more.
    pub(super) vfork_done: OnceLock<Arc<VforkDone>>,
    /// Semaphores that its end adjusts. Order: after `group.state`.
    pub(super) undo: Lock<Option<Arc<UndoList>>>,
    /// Order: after `group.state`.
    pub(super) confinement: Lock<Confinement>,
    /// Order: after `group.state`.
    pub(super) trace: Lock<Trace>,
    /// What of that it looks at without the lock ([`tracing`](super::trace::tracing)).
    pub(super) tracing: AtomicU32,
}

impl Task {
    pub(super) fn new(
        (tid, number): (i32, i32),
        group: Arc<ThreadGroup>,
        sched: Arc<Scheduler>,
        resources: Resources,
        blocked: SigSet,
        policy: SchedPolicy,
        confinement: Confinement,
    ) -> Arc<Task> {
        Arc::new_cyclic(|me| Task {
            tid: AtomicI32::new(tid),
            number: AtomicI32::new(number),
            group,
            entity: Entity::new(),
            sched,
            me: me.clone(),
            work: AtomicU32::new(0),
            worker: AtomicUsize::new(0),
            blocked: AtomicU64::new(blocked.0),
            pending: Lock::new(Rank::Pending, Pending::new()),
            awaited: AtomicU64::new(0),
            resources: Lock::new(Rank::TaskResources, resources),
            policy: Lock::new(Rank::Policy, policy),
            started_ns: crate::time::monotonic_ns(),
            parent_death_signal: AtomicI32::new(0),
            faults: [AtomicU64::new(0), AtomicU64::new(0)],
            timer_slack: AtomicU64::new(50_000),
            default_slack: AtomicU64::new(50_000),
            robust_list: AtomicU64::new(0),
            pi_dead: AtomicBool::new(false),
            watched: AtomicBool::new(confinement.mode != Mode::Off),
            has_left: AtomicBool::new(false),
            vfork_done: OnceLock::new(),
            undo: Lock::new(Rank::TaskUndo, None),
            confinement: Lock::new(Rank::Confinement, confinement),
            trace: Lock::new(Rank::Trace, Trace::default()),
            tracing: AtomicU32::new(0),
        })
    }

    /// Its thread id. It changes once at most: execve(2) gives the calling thread the process's.
    #[inline]
    pub fn tid(&self) -> i32 {
        self.tid.load(Ordering::Relaxed)
    }

    /// What it is called in its own pid namespace (gettid(2)).
    #[inline]
    pub fn number(&self) -> i32 {
        self.number.load(Ordering::Relaxed)
    }

    /// It takes the place of its process's first thread.
    pub(super) fn lead(&self) {
        self.tid.store(self.group.tgid, Ordering::Relaxed);
        self.number.store(self.group.number, Ordering::Relaxed);
    }

    /// Its process's id.
    #[inline]
    pub fn tgid(&self) -> i32 {
        self.group.tgid
    }

    /// A reference to itself; none while it is being freed.
    pub fn arc(&self) -> Option<Arc<Task>> {
        self.me.upgrade()
    }

    /// Whether an interruptible wait has to end.
    #[inline]
    pub fn interrupted(&self) -> bool {
        self.work.load(Ordering::SeqCst) & work::INTERRUPT != 0
    }

    /// Whether it has to end.
    #[inline]
    pub fn killed(&self) -> bool {
        self.work.load(Ordering::SeqCst) & work::KILL != 0
    }

    /// The signals it blocks.
    pub fn blocked(&self) -> SigSet {
        SigSet(self.blocked.load(Ordering::SeqCst))
    }

    pub(super) fn store_blocked(&self, set: SigSet) {
        self.blocked.store(set.minus(SigSet::UNBLOCKABLE).0, Ordering::SeqCst);
    }

    /// Has it look at its work bits soon: out of a wait, out of user code.
    pub(super) fn interrupt(&self, bits: u32) {
        self.work.fetch_or(bits, Ordering::SeqCst);
        self.sched.wake(self);
        // Read after the bits were set. The task stores its worker, announces user code there and then reads the bits:
        // one of the two sees what the other did. Where it waits for a worker, or is the caller, it will read them anyway.
        let worker = self.worker.load(Ordering::SeqCst);
        if worker != 0 && self.entity.is_on_worker() && !self.sched.is_current(worker - 1) {
            self.sched.kick_out_of_user(worker - 1);
        }
        if bits & work::KILL != 0 {
            self.sched.outlive(self);
        }
    }

    /// Says how late its timers may be, ns; 0 is what it began with (prctl(PR_SET_TIMERSLACK)).
    pub fn set_timer_slack(&self, ns: u64) {
        let slack = if ns == 0 { self.default_slack.load(Ordering::Relaxed) } else { ns };
        self.timer_slack.store(slack, Ordering::Relaxed);
    }

    /// prctl(PR_SET_PDEATHSIG).
    pub fn set_parent_death_signal(&self, signo: i32) {
        self.parent_death_signal.store(signo, Ordering::Relaxed);
    }

    /// prctl(PR_GET_PDEATHSIG).
    pub fn parent_death_signal(&self) -> i32 {
        self.parent_death_signal.load(Ordering::Relaxed)
    }

    /// Its address space; none once it has exited.
    pub fn mm(&self) -> Option<Arc<Mm>> {
        self.resources.lock().mm.clone()
    }

    /// Its descriptors; none once it has exited.
    pub fn fds(&self) -> Option<Arc<FdTable>> {
        self.resources.lock().fds.clone()
    }

    /// Root and working directory; none once it has exited.
    pub fn fs(&self) -> Option<Arc<FsContext>> {
        self.resources.lock().fs.clone()
    }

    /// Its namespaces.
    pub fn namespaces(&self) -> Arc<Namespaces> {
        self.resources.lock().namespaces.clone()
    }

    /// The names of the host that it sees.
    pub fn uts(&self) -> Arc<Lock<Uts>> {
        self.resources.lock().namespaces.uts.of.clone()
    }

    /// The System V objects that it sees.
    pub fn ipc(&self) -> Arc<IpcNamespace> {
        self.resources.lock().namespaces.ipc.of.clone()
    }

    /// The network that its new sockets are in.
    pub fn network(&self) -> Arc<Network> {
        self.resources.lock().namespaces.network.of.clone()
    }

    /// Its credentials.
    pub fn cred(&self) -> Arc<Cred> {
        self.resources.lock().cred.clone()
    }

    /// Its name, up to the zero byte.
    pub fn comm(&self) -> Vec<u8> {
        let comm = self.resources.lock().comm;
        comm.iter().copied().take_while(|byte| *byte != 0).collect()
    }

    /// Sets its name, cut to 15 bytes.
    pub fn set_comm(&self, name: &[u8]) {
        self.resources.lock().comm = comm_of(name);
    }

    /// What it does at the moment.
    pub fn run_state(&self) -> RunState {
        if self.is_trace_stopped() {
            RunState::Traced
        } else if self.work.load(Ordering::SeqCst) & work::STOP != 0 && self.group.is_stopped() {
            RunState::Stopped
        } else if self.entity.is_parked() {
            RunState::Sleeping
        } else {
            RunState::Running
        }
    }

    /// The CPU that programs see its user code run on last.
    pub fn last_cpu(&self) -> usize {
        self.sched.cpu_of(self.worker.load(Ordering::Relaxed).wrapping_sub(1))
    }

    /// CPU time used, ns.
    pub fn cpu_ns(&self) -> u64 {
        let since = self.entity.running_since.load(Ordering::Relaxed);
        let running = if since == 0 { 0 } else { crate::arch::counter::read().saturating_sub(since) };
        crate::time::ticks_to_ns(self.entity.cpu_ticks.load(Ordering::Relaxed) + running)
    }
}

/// A name as tasks keep it.
pub(super) fn comm_of(name: &[u8]) -> [u8; COMM_LEN] {
    let mut comm = [0; COMM_LEN];
    let len = name.len().min(COMM_LEN - 1);
    comm[..len].copy_from_slice(&name[..len]);
    comm
}

impl Wake for Task {
    fn wake(&self) {
        self.sched.wake(self);
    }
}

impl core::fmt::Debug for Task {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "task {}/{}", self.tgid(), self.tid())
    }
}
