//! systrap: application code in stub processes, its system calls trapped by seccomp. Needs no KVM.
//!
//! Each address space is a process with nothing mapped but the stub (a page of code, a read-only page of orders, a
//! slot per thread) and the program's pages, which come from the memory file behind the arena's page-frame region.
//! Nothing else of the kernel is reachable there. Each task has a thread in the process of its space; the thread and
//! the worker take turns.
//!
//! | module | what |
//! |---|---|
//! | `layout` | addresses and structures shared with the assembly |
//! | `x86_64`, `aarch64` | the stub's code and the signal frame |
//! | `filter`, `image` | what program threads may call; the stub as an executable |
//! | `shared` | memory that the stubs write too |
//! | `process`, `holdings` | the zygote, stub processes, orders, the keeper; their order pages and slots |
//! | `runs`, `space` | address spaces: what is wanted, what is mirrored |
//! | `outside` | what the host keeps for a stub process |
//! | `patches` | system call instructions made into jumps |
//! | `worker`, `pace`, `context` | CPUs, kicks, the switch |
//! | `patience` | how long a kick may stay unanswered |
//!
//! **What a program can do to us.** It can jump to any instruction of the stub with registers of its choice and write
//! to its slots. So: its threads' filter lets through only futex(2) WAIT and WAKE, rt_sigreturn(2) and rt_sigprocmask(2), at
//! four sites; everything that changes the process is done by the mapper thread, which takes orders from a page that the
//! process cannot write, keeps no state in memory, takes no signals (a frame would be memory) and is filtered, too (this replaces orders by seccomp user notification: no comparison of
//! arguments to get wrong, and one hand-over for a batch instead of two per call); signal frames are copied once, and
//! pointers and lengths in them are never used. A program that breaks its own stub dies as by SIGKILL, and so does one
//! that does not answer a kick within a second. Stubs have no capabilities, leave no core, and see an empty root
//! directory where the host lets us change it.

mod context;
mod filter;
mod holdings;
mod image;
mod kicks;
mod layout;
mod outside;
mod pace;
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "calls are rewritten on x86_64 only"))]
mod patches;
mod patience;
mod process;
mod runs;
#[expect(unsafe_code, reason = "memory that other processes write")]
mod shared;
mod space;
#[expect(unsafe_code, reason = "a pointer to the current worker in TLS")]
mod worker;
mod zygote;

#[cfg(target_arch = "aarch64")]
#[expect(unsafe_code, reason = "stub code")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "stub code")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

use crate::abi::Result;
use crate::arena::region;
use crate::hostsys::stub;
use crate::metrics::Counter;
use crate::platform::{AddressSpace, Capabilities, Context, Platform};
use crate::sync::{Lock, Rank};
use process::Nursery;
use std::sync::Arc;
use worker::Worker;

/// What contexts use of the platform.
struct Shares {
    nursery: Arc<Nursery>,
    /// Signals blocked while a program runs: all but those that bring it back.
    mask: u64,
    switches: Counter,
    faults: Counter,
    spread: Counter,
    rewritten: Counter,
    direct: Counter,
    frames_made: Counter,
}

/// Where stubs lie in programs' address spaces.
pub const STUB_WINDOW: (u64, u64) = (layout::STUB_BASE, layout::STUB_END);

/// The platform.
pub struct Systrap {
    shares: Arc<Shares>,
    cpus: Vec<usize>,
    /// The worker with id 0 starts here, so that sandboxes started together spread over the CPUs.
    first_cpu: usize,
    workers: Lock<Vec<Option<Arc<Worker>>>>,
}

impl Systrap {
    /// Creates the memory file for application memory, puts it behind the arena's page-frame region, and starts the
    /// first stub process. Once per process: there is one arena.
    ///
    /// # Errors
    /// What making files, mappings and processes returned; ENOSYS on a CPU or host that cannot do it
    /// (see [`unusable`]).
    pub fn new() -> Result<Self> {
        if unusable().is_some() {
            return Err(crate::abi::Errno::ENOSYS);
        }
        let frames = stub::memory_file(c"pillbox-frames", region::FRAMES_LEN, false)?;
        region::back_frames_by(&frames)?;
        let signals = process::SYNCHRONOUS.into_iter().chain([process::KICK]);
        let mask = !signals.fold(0u64, |mask, signal| mask | 1 << (signal - 1));
        let shares = Arc::new(Shares {
            nursery: Nursery::start(frames)?,
            mask,
            switches: Counter::default(),
            faults: Counter::default(),
            spread: Counter::default(),
            rewritten: Counter::default(),
            direct: Counter::default(),
            frames_made: Counter::default(),
        });
        let cpus = stub::cpus(0);
        let current = stub::current_cpu();
        let first_cpu = cpus.iter().position(|cpu| *cpu == current).unwrap_or(0);
        Ok(Systrap { shares, cpus, first_cpu, workers: Lock::new(Rank::StubWorkers, Vec::new()) })
    }

    fn worker(&self, id: usize) -> Arc<Worker> {
        let mut workers = self.workers.lock();
        if workers.len() <= id {
            workers.resize(id + 1, None);
        }
        let cpu = |id: usize| self.cpus.get((self.first_cpu + id) % self.cpus.len().max(1)).copied();
        let (own, other) = (cpu(id).unwrap_or(0), cpu(id + 1));
        workers[id].get_or_insert_with(|| Worker::new(own, other.filter(|other| *other != own))).clone()
    }
}

/// Why this host cannot run programs this way, as a sentence for the user.
pub fn unusable() -> Option<&'static str> {
    arch::unusable()
}

impl Drop for Systrap {
    fn drop(&mut self) {
        self.shares.nursery.end();
    }
}

impl Platform for Systrap {
    fn name(&self) -> &'static str {
        "systrap"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            page_size: 4096,
            task_size: arch::task_size(),
            reserved: [STUB_WINDOW, (STUB_WINDOW.1, STUB_WINDOW.1)],
            maps_host_files: false,
            cheap_map: false,
        }
    }

    fn new_space(&self) -> Result<Arc<dyn AddressSpace>> {
        Ok(Arc::new(space::Space::new(&self.shares.nursery)?))
    }

    fn new_context(&self) -> Result<Box<dyn Context>> {
        Ok(Box::new(context::StubContext::new(self.shares.clone())))
    }

    fn run_worker(&self, id: usize, body: &mut dyn FnMut()) -> Result<()> {
        worker::bind(&self.worker(id), body);
        Ok(())
    }

    fn kick(&self, id: usize) {
        self.worker(id).kick(&self.shares.nursery);
    }

    fn pause(&self, on: bool) {
        self.shares.nursery.pause(on);
    }

    fn when_a_space_is_lost(&self, tell: Box<dyn Fn() + Send + Sync>) {
        // Only the first kernel on a platform is told; there is one.
        let _second = self.shares.nursery.lost.set(tell);
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("systrap.switches", self.shares.switches.value()),
            ("systrap.switches on two CPUs", self.shares.spread.value()),
            ("systrap.faults", self.shares.faults.value()),
            ("systrap.calls rewritten", self.shares.rewritten.value()),
            ("systrap.calls without a trap", self.shares.direct.value()),
            ("systrap.frames made for them", self.shares.frames_made.value()),
        ]
    }
}
