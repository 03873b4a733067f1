//! The kvm platform: application code in ring 3 (EL0) of a virtual machine whose ring 0 (EL1) runs this very process's
//! kernel code.
//!
//! One worker is one host thread and one vCPU. Kernel code is a context that the host loop ([`vcpu`]) resumes natively, or
//! inside the guest; which engine runs it changes only at `enter_guest` (before user code runs) and at whatever
//! the guest cannot do (a host call, a fault), where the host continues it at the same instruction.
//!
//! | module | what |
//! |---|---|
//! | `machine` | /dev/kvm, what it must offer, the VM and its memory slots |
//! | `image`, `tables` | the kernel's own page tables; where table pages come from |
//! | `space` | a user address space: its table, and the flush protocol |
//! | `contexts` | what a vCPU's TLB may hold, and what has to go |
//! | `vcpu` | a worker's vCPU, its host loop, switching to user code |
//! | `x86_64`, `aarch64` | vCPU set-up and what differs |
//! | `kick` | x86_64: the signal that brings a worker back from user code |
//!
//! # The flush protocol
//! Whoever lowers or removes a translation bumps the space's generation *after* editing the table. A worker
//! publishes "in user code of space S" (its `entries` count becomes odd) and *then* reads the generation; if it changed
//! since this vCPU last loaded the space, it flushes. Both sides are sequentially consistent, so either the
//! worker sees the new generation or [`space::Space::sync`] sees it in user code, kicks it and waits for its count
//! to change. Frames and table pages are reused after that.

use super::{AddressSpace, Capabilities, Context, Platform};
use crate::abi::{Errno, Result};
use crate::sync::{Lock, Rank};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};

mod contexts;
#[expect(unsafe_code, reason = "reads linker symbols and program headers")]
mod image;
#[expect(unsafe_code, reason = "signal handler and its thread-local")]
mod kick;
#[expect(unsafe_code, reason = "gives memory to the VM")]
mod machine;
mod space;
#[expect(unsafe_code, reason = "hands out page-table pages")]
mod tables;
#[expect(unsafe_code, reason = "runs the guest and resumes contexts")]
mod vcpu;

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vCPU set-up and entry code")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

#[cfg(target_arch = "aarch64")]
#[expect(unsafe_code, reason = "vCPU set-up and entry code")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
use aarch64 as arch;

pub use machine::Error;
pub(super) use vcpu::SpaceRef;

/// User code ends here: the last page of the lower half is never mappable (an instruction fetch that runs off it would
/// leave a non-canonical return address).
const TASK_SIZE: u64 = arch::TASK_SIZE;

/// What other threads may know of a worker.
#[derive(Default)]
struct WorkerState {
    /// Host thread id, 0 before the worker runs.
    tid: AtomicI32,
    /// A kick is on its way.
    kicked: AtomicBool,
    /// Odd while in (or on the way into) user code; counts both ways.
    entries: AtomicU64,
    /// Id of the space that it runs, or is about to run, in user code.
    loading: AtomicU64,
    /// Id of the space whose root the vCPU has loaded. It follows `loading` only when the new root is in force: until
    /// then kernel code runs on the old one, also if it drops to native and enters the guest again on the way.
    loaded: AtomicU64,
}

/// What all parts of the platform share.
struct Shared {
    machine: machine::Machine,
    kernel: image::KernelTables,
    pool: tables::Pool,
    workers: Vec<WorkerState>,
    /// Spaces that were dropped while some vCPU had their root loaded.
    graveyard: Lock<Vec<(u64, tables::UserTables)>>,
    buried: AtomicUsize,
    next_space: AtomicU64,
    counters: vcpu::Counters,
}

impl Shared {
    /// Frees the tables of dead spaces that no vCPU has loaded any more.
    fn reap(&self) {
        if self.buried.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut dead = Vec::new();
        {
            let mut graveyard = self.graveyard.lock();
            let mut i = 0;
            while i < graveyard.len() {
                if self.is_loaded(graveyard[i].0) {
                    i += 1;
                } else {
                    dead.push(graveyard.swap_remove(i).1);
                }
            }
            self.buried.store(graveyard.len(), Ordering::Relaxed);
        }
        drop(dead);
    }

    fn is_loaded(&self, space: u64) -> bool {
        let is = |id: &AtomicU64| id.load(Ordering::SeqCst) == space;
        self.workers.iter().any(|w| is(&w.loading) || is(&w.loaded))
    }

    fn kick(&self, worker: usize) {
        let Some(state) = self.workers.get(worker) else { return };
        if state.tid.load(Ordering::Acquire) == 0 {
            return;
        }
        vcpu::count(&self.counters.kicks);
        // Who kicked without end would otherwise keep the worker from ever leaving the signal's handler.
        if !state.kicked.swap(true, Ordering::SeqCst) {
            // Read only now: a worker that begins takes back what its predecessor was kicked for.
            kick::send(state.tid.load(Ordering::SeqCst));
        }
    }
}

/// Whether the calling code runs inside the guest.
pub fn in_guest() -> bool {
    arch::in_guest()
}

/// The platform.
pub struct Kvm {
    shared: Arc<Shared>,
}

impl Kvm {
    /// Opens `device` (normally /dev/kvm), checks that it offers what ring 0 needs, and makes a VM for up to `workers`
    /// workers.
    ///
    /// # Errors
    /// One named reason; see [`Error`].
    pub fn new(device: &std::path::Path, workers: usize) -> Result<Self, Error> {
        crate::arena::ensure();
        let machine = machine::Machine::new(device, workers)?;
        crate::arena::region::advise_huge_frames();
        let pool = tables::Pool::new();
        let kernel = image::build(&pool).map_err(|_| Error::OutOfTables)?;
        kick::install();
        Ok(Kvm {
            shared: Arc::new(Shared {
                machine,
                kernel,
                pool,
                workers: (0..workers).map(|_| WorkerState::default()).collect(),
                graveyard: Lock::new(Rank::Graveyard, Vec::new()),
                buried: AtomicUsize::new(0),
                next_space: AtomicU64::new(1),
                counters: vcpu::Counters::default(),
            }),
        })
    }
}

impl Kvm {
    /// What of the CPU and its KVM is used, for people.
    pub fn describe(&self) -> String {
        arch::uses(self.shared.machine.features())
    }
}

impl Platform for Kvm {
    fn name(&self) -> &'static str {
        "kvm"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            page_size: 4096,
            task_size: TASK_SIZE,
            reserved: tables::RESERVED,
            maps_host_files: true,
            cheap_map: true,
        }
    }

    fn new_space(&self) -> Result<Arc<dyn AddressSpace>> {
        Ok(Arc::new(space::Space::new(&self.shared)?))
    }

    fn new_context(&self) -> Result<Box<dyn Context>> {
        Ok(Box::new(vcpu::KvmContext))
    }

    fn run_worker(&self, id: usize, body: &mut dyn FnMut()) -> Result<()> {
        if id >= self.shared.workers.len() {
            return Err(Errno::EINVAL);
        }
        vcpu::run_worker(&self.shared, id, body)
    }

    fn kick(&self, id: usize) {
        self.shared.kick(id);
    }

    fn kick_out_of_user(&self, id: usize) {
        if self.shared.workers.get(id).is_some_and(|state| state.entries.load(Ordering::SeqCst) & 1 != 0) {
            self.shared.kick(id);
        }
    }

    fn kick_after(&self, _: usize, ns: u64) -> bool {
        arch::kick_after(self.shared.machine.features(), ns)
    }

    fn cancel_kick(&self, _: usize) {
        arch::cancel_kick();
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        self.shared.counters.list()
    }
}
