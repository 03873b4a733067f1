//! Tasks, processes, scheduling, signals, futexes, timers, limits.
//!
//! An application thread is a [`Task`]; the code that serves it runs on the task's own kernel stack, owns a [`Current`]
//! (registers, floating point, the platform's context) and is ordinary synchronous code that parks when it must
//! wait. Workers run tasks ([`sched`]).
//!
//! | module | what |
//! |---|---|
//! | [`sched`] | run queues, parking, timers, idle workers |
//! | [`task`], [`group`], [`tree`] | threads, processes, who is whose child |
//! | `current`, `run` | the running task: waiting, and the loop trap -> handler -> signals -> user code |
//! | [`signal`] | queues, actions, sending, delivery, frames |
//! | [`futex`] | waiting on user words |
//! | [`ipc`] | System V IPC |
//! | [`seccomp`] | filters over programs' own calls |
//! | `clone`, `exec`, `exit`, `wait`, `lost`, [`coredump`] | a process's life, and what it leaves behind |
//! | `spawn` | processes without a parent, in containers |
//! | `jobs`, `terminal` | process groups, sessions, and the terminals that control them |
//! | [`namespaces`], [`pids`] | what each task sees of all this: its namespaces |
//! | [`limits`], `timers` | resource limits; interval and POSIX timers |
//! | [`cgroups`] | groups of processes, and what they may have |
//! | [`peek`], [`trace`] | who may look into whom; tracing |
//! | `load`, `oom`, `shortage` | what all of it has used; who goes first when memory is short |
//! | [`poller`] | the one host thread that watches host descriptors and signals |
//!
//! # Lock order
//! [`Rank`](crate::sync::Rank) lists all. Of this module: `Kernel::tree` > `ThreadGroup::state` > `ThreadGroup::timers` >
//! `Task::pending` > `Task::resources` > futex buckets > `mm`'s > wait queues > scheduler queues. None is held across a park.
//!
//! # Panics
//! A panic in a handler unwinds to the task's loop, which says so and kills that program; unwinding releases locks.

pub mod cgroups;
mod clone;
#[expect(missing_docs, reason = "the names of the flags")]
mod clone_flags;
pub mod coredump;
mod current;
mod exec;
mod exit;
pub mod futex;
pub mod futexes;
pub mod group;
pub mod ipc;
mod jobs;
pub mod limits;
mod load;
pub mod log;
mod lost;
pub mod namespaces;
mod oom;
mod panic;
pub mod peek;
pub mod personality;
mod pi;
pub mod pids;
pub mod poller;
pub mod rseq;
mod run;
#[expect(unsafe_code, reason = "switches stacks")]
pub mod sched;
pub mod seccomp;
mod shortage;
mod sigio;
pub mod signal;
mod spawn;
pub mod task;
mod terminal;
pub mod timers;
pub mod trace;
pub mod tree;
mod turn;
mod wait;

pub use clone::{CloneArgs, NAMESPACES};
pub use clone_flags::CloneFlags;
pub use current::{Current, Restart};
pub use exec::Program;
pub use group::{OnExit, ThreadGroup, Usage, WaitStatus};
pub use jobs::Target;
pub use load::memory;
pub use oom::OomScore;
pub use panic::install_hook as install_panic_hook;
pub use spawn::{Home, Sharing};
pub use task::{RunState, Task};
pub use tree::{Tie, Tree};
pub use wait::{WaitFor, WaitOptions, Waited};

use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::hostfd::HostFd;
use crate::hostsys::file;
use crate::loader::vdso::Vdso;
use crate::metrics::Metrics;
use crate::mm::Mm;
use crate::net::interfaces::Interfaces;
use crate::net::outer::Outer;
use crate::net::outside::Way;
use crate::platform::Platform;
use crate::random::Random;
use crate::sync::{Lock, Rank};
use crate::vfs::{FdTable, FileLocks, FileSystems, Flight, FsContext, Path, Ruins};
use cgroups::Cgroups;
use core::sync::atomic::{AtomicU32, Ordering};
use futex::Futexes;
use limits::Limits;
use namespaces::Namespaces;
use pids::PidNamespace;
use poller::Poller;
use sched::Scheduler;
use std::sync::{Arc, OnceLock, Weak};

/// The kernel that programs are told they run on: what they may expect of system calls.
pub const RELEASE: &str = "6.12.0";
/// What `uname -v` says.
pub const VERSION: &str = "#1 SMP Pillbox";

/// Names that uname(2) reports.
#[derive(Clone, Debug)]
pub struct Uts {
    /// `nodename`.
    pub hostname: Vec<u8>,
    /// `domainname`.
    pub domainname: Vec<u8>,
}

/// Choices made for a sandbox.
#[derive(Clone, Debug)]
pub struct Options {
    /// Workers: CPUs granted.
    pub workers: usize,
    /// Init ignores signals that it has no handler for, as a pid namespace's does.
    pub init_is_protected: bool,
    /// Host name seen inside.
    pub hostname: Vec<u8>,
    /// The host's network, where sockets reach what it reaches.
    pub outer: Option<Arc<Outer>>,
    /// The most tasks there may be, those included that have ended and not been waited for. It does not count for process 1.
    pub max_tasks: usize,
    /// Microseconds of CPU time that the sandbox has in so many, for the root of control groups to show.
    pub cpu_quota: Option<(u64, u64)>,
    /// The host's /proc/cpuinfo, which cannot be opened once programs run.
    pub cpuinfo: Option<HostFd>,
    /// `prctl(kernel::PROVOKE_BUG)` panics with a lock held. For the self-test: what becomes of the others?
    pub provoke_bugs: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            workers: 1,
            outer: None,
            init_is_protected: false,
            hostname: b"pillbox".to_vec(),
            max_tasks: tree::PID_MAX as usize,
            cpu_quota: None,
            cpuinfo: None,
            provoke_bugs: false,
        }
    }
}

/// The `prctl` operation that overflows a kernel stack where [`Options::provoke_bugs`] says so, and unknown elsewhere.
pub const OVERFLOW: u32 = 0x5042_424a;
/// The `prctl` operation that is a bug of ours where [`Options::provoke_bugs`] says so, and unknown elsewhere.
pub const PROVOKE_BUG: u32 = 0x5042_4247;
/// The `prctl` operation that reads the host process's own memory in kernel code, under the same condition.
pub const READ_HOST: u32 = 0x5042_4248;
/// The `prctl` operation that makes a host call which no sandbox needs, under the same condition.
pub const REFUSED_CALL: u32 = 0x5042_4249;

/// The first program, loaded.
pub struct Init {
    /// Its memory.
    pub mm: Arc<Mm>,
    /// First instruction.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Open files.
    pub fds: Arc<FdTable>,
    /// Root and working directory.
    pub fs: Arc<FsContext>,
    /// Who it is.
    pub cred: Cred,
    /// Its name.
    pub comm: Vec<u8>,
    /// Resource limits.
    pub limits: Limits,
    /// Its file, for `/proc/PID/exe`.
    pub exe: Option<Path>,
    /// What it, and what it executes, may call and become.
    pub confinement: seccomp::Confinement,
    /// Signals that it ignores from the start.
    pub ignored: signal::SigSet,
    /// The number of its controlling terminal. Of process 1: what the kernel was told ([`Kernel::set_host_terminal`]).
    pub tty: Option<u64>,
    /// Told its number, before it runs.
    pub told: Option<Box<dyn FnOnce(i32) + Send>>,
    /// Told how it ended.
    pub on_exit: Option<OnExit>,
    /// The container that it is born in, if not process 1's.
    pub home: Option<Home>,
}

/// Root of all sandbox state.
pub struct Kernel {
    /// How application code runs.
    pub platform: Arc<dyn Platform>,
    /// Counters and the debug log.
    pub metrics: Metrics,
    /// Who runs when.
    pub sched: Arc<Scheduler>,
    /// Who exists.
    pub tree: Lock<Tree>,
    /// Control groups.
    pub cgroups: Arc<Cgroups>,
    /// Who waits on user words.
    pub futexes: Futexes,
    /// The names of the host in the first namespace.
    pub uts: Arc<Lock<Uts>>,
    /// The first pid namespace.
    pub pids: Arc<PidNamespace>,
    /// Who has locked which files.
    pub file_locks: FileLocks,
    /// Open files on their way between programs.
    pub flight: Arc<Flight>,
    /// File systems whose last mount has gone.
    pub ruins: Arc<Ruins>,
    /// What syslog(2) reads.
    pub log: log::Log,
    /// Settings of core dumps.
    pub core: coredump::Settings,
    /// Held while an epoll starts to watch another.
    pub epolls: Arc<Lock<()>>,
    undo_lists: ipc::undo::UndoLists,
    /// Mapped into every program.
    pub vdso: Vdso,
    random: Random,
    /// See [`veil`](Self::veil).
    veil: [u64; 2],
    /// CLOCK_MONOTONIC at boot: CLOCK_BOOTTIME and `/proc/uptime` count from here.
    pub boot_ns: u64,
    totals: load::Totals,
    shortage: shortage::Shortage,
    options: Options,
    poller: OnceLock<Arc<Poller>>,
    filesystems: OnceLock<Arc<dyn FileSystems>>,
    /// The number of the terminal that the sandbox was started on.
    host_terminal: OnceLock<u64>,
    namespaces: OnceLock<Arc<Namespaces>>,
    /// How init ended. 0 = running; set once.
    ended: Lock<Option<WaitStatus>>,
    ended_word: AtomicU32,
    me: Weak<Kernel>,
}

impl Kernel {
    /// A kernel without tasks.
    pub fn new(platform: Arc<dyn Platform>, metrics: Metrics, options: Options) -> Arc<Kernel> {
        crate::time::calibrate();
        let random = Random::from_host();
        let sched = Scheduler::new(platform.clone(), options.workers);
        let cgroups: Arc<Cgroups> = Arc::default();
        let tree = Tree::new(&cgroups);
        let uts = Uts { hostname: options.hostname.clone(), domainname: b"(none)".to_vec() };
        Arc::new_cyclic(|me| Kernel {
            uts: Arc::new(Lock::new(Rank::Uts, uts)),
            pids: namespaces::first_pids(),
            platform,
            metrics,
            ruins: sched.ruins(),
            sched,
            tree: Lock::new(Rank::Tree, tree),
            cgroups,
            futexes: Futexes::new(),
            file_locks: FileLocks::default(),
            flight: Arc::default(),
            log: log::Log::new(),
            core: coredump::Settings::default(),
            epolls: Arc::new(Lock::new(Rank::EpollNesting, ())),
            undo_lists: ipc::undo::UndoLists::default(),
            vdso: Vdso::new(),
            veil: [random.word(), random.word() | 1],
            random,
            boot_ns: crate::time::monotonic_ns(),
            totals: load::Totals::default(),
            shortage: shortage::Shortage::default(),
            options,
            poller: OnceLock::new(),
            filesystems: OnceLock::new(),
            host_terminal: OnceLock::new(),
            namespaces: OnceLock::new(),
            ended: Lock::new(Rank::Ended, None),
            ended_word: AtomicU32::new(0),
            me: me.clone(),
        })
    }

    /// Panics with the lock held that ending a task needs, if [`Options::provoke_bugs`] says so. Else there is no such operation.
    pub fn provoke_bug(&self, task: &Task) -> Errno {
        if self.options.provoke_bugs {
            let _held = task.group.state.lock();
            panic!("a bug was asked for");
        }
        Errno::EINVAL
    }

    /// Overflows the caller's kernel stack, if [`Options::provoke_bugs`] says so: in small calls (`size` 0), larger ones
    /// (1) or large ones. With a lock held, which is let go like everything else.
    pub fn overflow(&self, task: &Task, size: u64) -> Errno {
        if self.options.provoke_bugs {
            let _held = task.group.state.lock();
            panic::overflow(size);
        }
        Errno::EINVAL
    }

    /// A number made from what lies on the first thread's stack of the host process: no window of ours. None unless
    /// [`Options::provoke_bugs`] says so.
    pub fn read_host(&self) -> Option<u32> {
        let hash = |sum: u32, byte: u8| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        self.options.provoke_bugs.then(|| crate::hostsys::auxv_random().into_iter().fold(7, hash))
    }

    /// What the host says of its CPUs (`/proc/cpuinfo`); empty where it says nothing.
    pub fn host_cpuinfo(&self) -> String {
        let text = self.options.cpuinfo.as_ref().and_then(|file| file::read_all(file.raw()).ok());
        String::from_utf8_lossy(&text.unwrap_or_default()).into_owned()
    }

    /// Makes a host call that no sandbox needs, if [`Options::provoke_bugs`] says so.
    ///
    /// # Errors
    /// What the host says, where it is not refused.
    pub fn make_refused_call(&self) -> Result<u64> {
        if self.options.provoke_bugs { crate::hostsys::process::parent() } else { Err(Errno::EINVAL) }
    }

    /// Fills `out` with random bytes.
    pub fn random(&self, out: &mut [u8]) {
        self.random.fill(out);
    }

    /// An address as programs may learn of it: they can tell whether two are the same and put them in an order, and no more
    /// (kcmp(2)).
    pub fn veil(&self, address: u64) -> u64 {
        (address ^ self.veil[0]).wrapping_mul(self.veil[1])
    }

    /// Arms a timer; see [`Scheduler::add_timer`].
    pub fn add_timer(&self, deadline: u64, action: sched::Action) -> sched::TimerId {
        self.sched.add_timer(deadline, action)
    }

    /// Disarms a timer; false if it has fired (or is firing).
    pub fn cancel_timer(&self, id: sched::TimerId) -> bool {
        self.sched.cancel_timer(id)
    }

    /// What can be mounted.
    ///
    /// # Errors
    /// ENODEV before there is anything.
    pub fn filesystems(&self) -> Result<&Arc<dyn FileSystems>> {
        self.filesystems.get().ok_or(Errno::ENODEV)
    }

    /// Says what can be mounted. Called once.
    pub fn set_filesystems(&self, all: Arc<dyn FileSystems>) {
        let _ = self.filesystems.set(all);
    }

    /// What watches host descriptors.
    pub fn poller(&self) -> &Arc<Poller> {
        self.poller.get_or_init(|| Poller::new(self.me.clone()))
    }

    /// See [`Options::cpu_quota`].
    pub fn cpu_quota(&self) -> Option<(u64, u64)> {
        self.options.cpu_quota
    }

    /// See [`Options::max_tasks`].
    pub fn max_tasks(&self) -> usize {
        self.options.max_tasks
    }

    /// The interfaces of the network that the first program is in.
    pub fn interfaces(&self) -> Interfaces {
        self.options.outer.as_ref().map_or_else(Interfaces::loopback, |outer| outer.interfaces().clone())
    }

    /// The namespaces that process 1 begins in.
    pub fn first_namespaces(&self) -> Arc<Namespaces> {
        let first = || Namespaces::new(&self.uts, &self.pids, crate::net::Namespace::new(self.way_out()));
        self.namespaces.get_or_init(first).clone()
    }

    /// Says what became of connections, at the end.
    pub fn end_network(&self) {
        if let Some(guard) = self.options.outer.as_ref().and_then(|outer| outer.guard.as_ref()) {
            guard.finish();
        }
    }

    /// The network that the sandbox was started in, if it reaches that.
    pub fn outer(&self) -> Option<&Arc<Outer>> {
        self.options.outer.as_ref()
    }

    /// What networks reach the outside by.
    fn way_out(&self) -> Option<Way> {
        let outer = self.options.outer.clone()?;
        if let Some(guard) = &outer.guard {
            let kernel = self.me.clone();
            let name_of = move |process| {
                let comm = kernel.upgrade()?.process(process)?.threads().first()?.comm();
                Some(String::from_utf8_lossy(&comm).into_owned())
            };
            let _once = guard.name_of.set(Box::new(name_of));
        }
        Some(Way { watch: self.poller().clone(), outer })
    }

    /// Runs workers until init has ended, and returns how. Called once, on a host thread of its own; the other threads go on
    /// until the process ends.
    ///
    /// # Errors
    /// A worker could not be set up.
    pub fn run(self: &Arc<Self>) -> Result<WaitStatus> {
        let poller = self.poller().clone();
        self.watch_memory();
        let kernel = Arc::downgrade(self);
        self.platform.when_a_space_is_lost(Box::new(move || {
            if let Some(kernel) = kernel.upgrade() {
                kernel.end_lost_processes();
            }
        }));
        self.begin_spares();
        let mut threads = Vec::new();
        let failure = Arc::new(Lock::new(Rank::Ended, None));
        for id in 0..self.sched.worker_count() {
            let (kernel, failure) = (self.clone(), failure.clone());
            let body = move || {
                let result = kernel.platform.run_worker(id, &mut || kernel.sched.work(id));
                if let Err(errno) = result {
                    *failure.lock() = Some(errno);
                    kernel.end(WaitStatus::exited(125));
                }
            };
            threads.push(crate::arena::thread::spawn(&format!("pillbox-{id}"), body)?);
        }
        poller.run();
        let status = self.wait_for_end();
        let failed = *failure.lock();
        failed.map_or(Ok(status), Err)
    }

    /// Says how the scheduler gets threads for its spare workers.
    fn begin_spares(self: &Arc<Self>) {
        let kernel = Arc::downgrade(self);
        self.sched.begin_spares_by(Box::new(move |id| {
            let Some(kernel) = kernel.upgrade() else { return false };
            // A worker that the platform refuses never rests, and gets nothing to do.
            let body = move || {
                let _refused = kernel.platform.run_worker(id, &mut || kernel.sched.work(id));
            };
            crate::arena::thread::spawn(&format!("pillbox-{id}"), body).is_ok()
        }));
    }

    /// Marks the sandbox as ended and wakes [`run`](Self::run). The first status counts.
    pub(crate) fn end(&self, status: WaitStatus) {
        let mut ended = self.ended.lock();
        if ended.is_none() {
            *ended = Some(status);
            self.ended_word.store(1, Ordering::SeqCst);
            if let Some(poller) = self.poller.get() {
                poller.stop();
            }
            crate::hostsys::futex::wake(&self.ended_word, u32::MAX >> 1);
        }
    }

    fn wait_for_end(&self) -> WaitStatus {
        loop {
            if let Some(status) = *self.ended.lock() {
                return status;
            }
            crate::hostsys::futex::wait(&self.ended_word, 0, None);
        }
    }
}
