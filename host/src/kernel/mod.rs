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
//! | [`seccomp`] | filters over programs' own calls |
//! | `clone`, `exec`, `exit`, `wait`, `lost` | a process's life |
//! | [`limits`], `timers` | resource limits; interval and POSIX timers |
//! | `load`, `oom` | what all of it has used; who would go first |
//! | [`poller`] | the one host thread that watches host descriptors and signals |
//!
//! # Lock order
//! `Kernel::tree` > `ThreadGroup::state` > `Task::pending`, `Task::resources`, `ThreadGroup::timers` >
//! futex buckets > `mm`'s > wait queues > scheduler queues. None is held across a park.
//!
//! # Panics
//! A panic in a handler unwinds to the task's loop, which says so in one line and kills that program; locks are
//! released by unwinding and are not poisoned.

mod clone;
#[expect(missing_docs, reason = "the names of the flags")]
mod clone_flags;
mod current;
mod exec;
mod exit;
pub mod futex;
pub mod group;
mod jobs;
pub mod limits;
mod load;
mod lost;
mod oom;
mod panic;
pub mod personality;
mod pi;
pub mod poller;
mod run;
#[expect(unsafe_code, reason = "switches stacks")]
pub mod sched;
pub mod seccomp;
pub mod signal;
pub mod task;
pub mod timers;
pub mod tree;
mod wait;

pub use clone::{CloneArgs, NAMESPACES};
pub use clone_flags::CloneFlags;
pub use current::{Current, Restart};
pub use exec::Program;
pub use group::{ThreadGroup, Usage, WaitStatus};
pub use load::memory;
pub use oom::OomScore;
pub use panic::install_hook as install_panic_hook;
pub use task::{RunState, Task};
pub use tree::Tree;
pub use wait::{WaitFor, WaitOptions, Waited};

use crate::abi::Result;
use crate::cred::Cred;
use crate::loader::vdso::Vdso;
use crate::metrics::Metrics;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::random::Random;
use crate::sync::Lock;
use crate::vfs::{FdTable, FsContext, Path};
use core::sync::atomic::{AtomicU32, Ordering};
use futex::Futexes;
use limits::Limits;
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
    /// `prctl(kernel::PROVOKE_BUG)` panics with a lock held. For the self-test: what becomes of the others?
    pub provoke_bugs: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { workers: 1, init_is_protected: false, hostname: b"pillbox".to_vec(), provoke_bugs: false }
    }
}

/// The `prctl` operation that is a bug of ours where [`Options::provoke_bugs`] says so, and unknown elsewhere.
pub const PROVOKE_BUG: u32 = 0x5042_4247;

/// The `prctl` operation that reads the host process's own memory in kernel code, under the same condition.
pub const READ_HOST: u32 = 0x5042_4248;

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
    /// Who waits on user words.
    pub futexes: Futexes,
    /// uname(2).
    pub uts: Lock<Uts>,
    /// Mapped into every program.
    pub vdso: Vdso,
    random: Random,
    /// CLOCK_MONOTONIC at boot: CLOCK_BOOTTIME and `/proc/uptime` count from here.
    pub boot_ns: u64,
    totals: load::Totals,
    options: Options,
    poller: OnceLock<Arc<Poller>>,
    /// How init ended. 0 = running; set once.
    ended: Lock<Option<WaitStatus>>,
    ended_word: AtomicU32,
    me: Weak<Kernel>,
}

impl Kernel {
    /// A kernel without tasks.
    pub fn new(platform: Arc<dyn Platform>, metrics: Metrics, options: Options) -> Arc<Kernel> {
        crate::time::calibrate();
        let sched = Scheduler::new(platform.clone(), options.workers);
        let uts = Uts { hostname: options.hostname.clone(), domainname: b"(none)".to_vec() };
        Arc::new_cyclic(|me| Kernel {
            platform,
            metrics,
            sched,
            tree: Lock::default(),
            futexes: Futexes::new(),
            uts: Lock::new(uts),
            vdso: Vdso::new(),
            random: Random::from_host(),
            boot_ns: crate::time::monotonic_ns(),
            totals: load::Totals::default(),
            options,
            poller: OnceLock::new(),
            ended: Lock::new(None),
            ended_word: AtomicU32::new(0),
            me: me.clone(),
        })
    }

    /// Panics with the lock held that ending a task needs, if [`Options::provoke_bugs`] says so.
    pub fn provoke_bug(&self, task: &Task) {
        if self.options.provoke_bugs {
            let _held = task.group.state.lock();
            panic!("a bug was asked for");
        }
    }

    /// A number made from the host process's environment, which lies on its first thread's stack: no window of ours. None
    /// unless [`Options::provoke_bugs`] says so.
    pub fn read_host(&self) -> Option<u32> {
        let hash = |sum: u32, byte: &u8| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        let read = || {
            std::env::vars_os().fold(7, |sum, (name, value)| {
                name.as_encoded_bytes().iter().chain(value.as_encoded_bytes()).fold(sum, hash)
            })
        };
        self.options.provoke_bugs.then(read)
    }

    /// Fills `out` with random bytes.
    pub fn random(&self, out: &mut [u8]) {
        self.random.fill(out);
    }

    /// Arms a timer; see [`Scheduler::add_timer`].
    pub fn add_timer(&self, deadline: u64, action: sched::Action) -> sched::TimerId {
        self.sched.add_timer(deadline, action)
    }

    /// Disarms a timer; false if it has fired (or is firing).
    pub fn cancel_timer(&self, id: sched::TimerId) -> bool {
        self.sched.cancel_timer(id)
    }

    /// What watches host descriptors.
    pub fn poller(&self) -> &Arc<Poller> {
        self.poller.get_or_init(|| Poller::new(self.me.clone()))
    }

    /// Creates process 1, ready to run.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn spawn_init(self: &Arc<Self>, init: Init) -> Result<Arc<Task>> {
        clone::spawn_init(self, init)
    }

    /// Runs workers until init has ended, and returns how. Called once, on a host thread of its own.
    ///
    /// # Errors
    /// A worker could not be set up.
    pub fn run(self: &Arc<Self>) -> Result<WaitStatus> {
        let poller = self.poller().clone();
        let kernel = Arc::downgrade(self);
        self.platform.when_a_space_is_lost(Box::new(move || {
            if let Some(kernel) = kernel.upgrade() {
                kernel.end_lost_processes();
            }
        }));
        let mut threads = Vec::new();
        let failure = Arc::new(Lock::new(None));
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
        self.sched.stop();
        let failed = *failure.lock();
        failed.map_or(Ok(status), Err)
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
