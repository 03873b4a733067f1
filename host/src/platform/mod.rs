//! How application code runs.
//!
//! A [`Platform`] owns address spaces ([`AddressSpace`]), per-task execution state ([`Context`]) and the
//! worker threads' binding to CPUs. It knows page frames, not VMAs; traps, not tasks.
//!
//! Frames are named by their arena address ([`Frame`]): kernel code reaches a frame's bytes at that address
//! on every platform, and on kvm it is the guest-physical address too.

use crate::abi::Result;
use crate::arch::{FpState, UserRegs};
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

pub mod choose;
pub mod kvm;
#[expect(unsafe_code, reason = "thread-local words, by assembly")]
pub mod local;
pub mod selftest;
pub mod systrap;

/// Why application code stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// A system call; number and arguments are in the registers, ip behind the instruction.
    Syscall,
    /// An access that the space's tables do not allow. `mm` resolves it or turns it into a signal.
    PageFault {
        /// The address accessed.
        addr: u64,
        /// What the access wanted.
        access: Access,
        /// For the signal frame.
        info: FaultInfo,
    },
    /// A synchronous exception, already in Linux's terms.
    Signal(SignalInfo),
    /// Asked to come back (see [`Platform::kick`]); registers are exact.
    Kick,
    /// The program gave the CPU away (arm64 WFI/WFE, trapped); ip is behind the instruction.
    Yield,
    /// What ran the code is gone (a stub process was killed): the program is dead, as by SIGKILL.
    Dead,
}

/// What an access wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch.
    Execute,
}

/// What signal frames carry about a fault (x86: `trapno`, `err`; arm64: `esr` in `err`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultInfo {
    /// Exception vector (x86) or 0.
    pub trapno: u64,
    /// Error code (x86) or ESR_EL1 as Linux exports it.
    pub err: u64,
}

/// A synchronous exception as Linux reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalInfo {
    /// SIGSEGV, SIGFPE, ...
    pub signo: i32,
    /// `si_code`.
    pub code: i32,
    /// `si_addr`.
    pub addr: u64,
    /// For the signal frame.
    pub info: FaultInfo,
}

bitflags::bitflags! {
    /// Rights of user code on a page. A page is present iff READ is set (PROT_NONE is "not mapped",
    /// PROT_WRITE and PROT_EXEC imply READ).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Prot: u8 {
        /// Readable.
        const READ = 1;
        /// Writable.
        const WRITE = 2;
        /// Executable.
        const EXEC = 4;
    }
}

/// A 4 KiB page frame, named by its arena address (page aligned).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frame(pub u64);

/// What a platform can do.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// Smallest page that user code can have different rights on, bytes.
    pub page_size: u64,
    /// User address space: first address user code can never map (TASK_SIZE).
    pub task_size: u64,
    /// Windows that belong to the kernel, ascending (an empty one if there is but one): programs cannot have accessible
    /// memory there, and nothing is put there that may become so.
    pub reserved: [(u64, u64); 2],
    /// Whether frames inside `layout::FILES_*` (host files mapped in the arena) may be mapped into spaces.
    /// Where not (systrap), file pages are copied into ordinary frames.
    pub maps_host_files: bool,
    /// Whether `map` is a page-table edit (kvm). Where each call costs host system calls (systrap),
    /// callers map larger runs at a time.
    pub cheap_map: bool,
}

/// A way to run application code.
pub trait Platform: Send + Sync {
    /// "kvm" or "systrap".
    fn name(&self) -> &'static str;
    /// What it can do.
    fn capabilities(&self) -> Capabilities;
    /// An empty user address space.
    ///
    /// # Errors
    /// ENOMEM when page-table memory or stub processes run out.
    fn new_space(&self) -> Result<Arc<dyn AddressSpace>>;
    /// Execution state for one task.
    ///
    /// # Errors
    /// ENOMEM.
    fn new_context(&self) -> Result<Box<dyn Context>>;
    /// Binds the calling host thread as worker `id` and runs `body` on it; inside, `arch::switch_stacks`
    /// moves between kernel stacks and [`local`] works. Returns when `body` does.
    ///
    /// # Errors
    /// What setting the worker up (vCPU creation) returned.
    fn run_worker(&self, id: usize, body: &mut dyn FnMut()) -> Result<()>;
    /// Makes worker `id` leave user code soon: its `switch` returns `Trap::Kick` (or another trap that
    /// happened first). Sent to a worker in kernel code it makes the next `switch` return at once. Callable from any
    /// thread; may make a host call. Kicks coalesce.
    fn kick(&self, id: usize);
    /// Has `tell` called, on some host thread, whenever the host has ended what a space runs in
    /// ([`AddressSpace::is_lost`]): its tasks may be waiting for something and would never find out.
    fn when_a_space_is_lost(&self, tell: Box<dyn Fn() + Send + Sync>) {
        drop(tell);
    }
    /// As [`kick`](Self::kick) for callers that have changed something which a worker in kernel code looks at anyway
    /// before it enters user code (`pending` of [`UserSpace::run`]): it need not be kicked then.
    fn kick_out_of_user(&self, id: usize) {
        self.kick(id);
    }
    /// Makes the calling worker `id` leave user code, which it is about to enter, after `ns` nanoseconds, as by
    /// [`kick`](Self::kick) but without another thread's help. The latest call counts. False, and nothing happens, where
    /// that cannot be done.
    fn kick_after(&self, id: usize, ns: u64) -> bool {
        let _ = (id, ns);
        false
    }
    /// Takes the calling worker's [`kick_after`](Self::kick_after) back where that costs next to nothing; elsewhere it may
    /// still come.
    fn cancel_kick(&self, id: usize) {
        let _ = id;
    }
    /// Stops what runs application code outside this process, or lets it go on: this process is about to stop, or has been
    /// continued.
    fn pause(&self, on: bool) {
        let _ = on;
    }
    /// Counters for `--stats`: name and value.
    fn stats(&self) -> Vec<(&'static str, u64)>;
}

/// One user address space. Ranges are page aligned, below `task_size`, and never overlap
/// [`Capabilities::reserved`] (the caller clips; implementations refuse).
pub trait AddressSpace: Send + Sync {
    /// Maps `frames.len()` pages from `va` on, replacing what is there.
    ///
    /// # Errors
    /// ENOMEM.
    fn map(&self, va: u64, frames: &[Frame], prot: Prot) -> Result<()>;
    /// Removes all mappings in the range, calling `gone` for each page that was mapped. Other workers may use stale
    /// translations until [`sync`](Self::sync): do not reuse the frames before.
    fn unmap(&self, va: u64, len: u64, gone: &mut dyn FnMut(u64, Frame));
    /// Changes rights of the pages mapped in the range (holes stay holes). An empty `prot` unmaps without telling.
    /// Lowered rights hold for other workers after [`sync`](Self::sync).
    fn protect(&self, va: u64, len: u64, prot: Prot);
    /// What is mapped at `va`, if anything.
    fn lookup(&self, va: u64) -> Option<(Frame, Prot)>;
    /// Calls `each` for every mapped page in the range, ascending.
    fn for_each(&self, va: u64, len: u64, each: &mut dyn FnMut(u64, Frame, Prot));
    /// Where a part of the range ends that begins at its start and has about `pages` pages, and one at least: at the range's
    /// end if it has no more. Takes no longer than it has pages, however long it is.
    fn reach(&self, va: u64, len: u64, pages: u64) -> u64;
    /// Waits until no worker can use a translation removed or lowered before the call. Cheap when this space is not
    /// running elsewhere. Call without holding a lock that a worker may need to leave user code.
    fn sync(&self);
    /// Says who knows what its pages are. Once, before code runs in it; a platform that does not care need not be told.
    fn set_areas(&self, _areas: Weak<dyn Areas>) {}
    /// Whether no code can run in it any more, because the host has ended what it ran in.
    fn is_lost(&self) -> bool {
        false
    }
    /// Bytes that it takes outside the arena: what the host keeps for it.
    fn overhead(&self) -> u64 {
        0
    }
    /// For downcasting by the platform itself.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// What the owner of an address space knows of its pages and the space does not.
pub trait Areas: Send + Sync {
    /// Whether the page at `va` is code that nobody but the program can change, and it only after more than a store:
    /// executable, not writable, not shared. Called without any lock of the platform.
    fn is_private_code(&self, va: u64) -> bool;
}

/// Per-task execution state that the platform needs (nothing on kvm; a stub thread on systrap).
pub trait Context: Send {
    /// Runs application code until it traps. `regs` and `fp` are loaded before and saved after (`fp` at the latest when
    /// asked to by [`save_fp`](Self::save_fp)). `regs` may hold
    /// anything a program can put there; what no CPU accepts becomes the signal Linux would send.
    fn switch(&mut self, space: &Arc<dyn AddressSpace>, regs: &mut UserRegs, fp: &mut FpState) -> Trap;
    /// Before `fp` is read: after a system call it may be older than what the CPU has, until this is called.
    fn save_fp(&mut self, _fp: &mut FpState) {}
    /// Before `fp` is overwritten: what the CPU may still have does not matter any more.
    fn drop_fp(&mut self) {}
}

/// An address space as a task keeps it to run in: with the answer to whose it is, which every switch would ask for.
pub struct UserSpace {
    space: Arc<dyn AddressSpace>,
    kvm: Option<kvm::SpaceRef>,
}

impl UserSpace {
    /// A reference to `space`.
    pub fn new(space: Arc<dyn AddressSpace>) -> Self {
        let kvm = kvm::SpaceRef::of(&space);
        UserSpace { space, kvm }
    }

    /// Runs application code in the space until it traps, as [`Context::switch`] does. True for a system call; else `trap`
    /// is the reason, or `None` if `pending` is not zero. That is looked at once [`Platform::kick_out_of_user`] would
    /// bring the worker back, so that whoever stores to it and then calls that is noticed, either way.
    ///
    /// The platform that all system calls should be fast on is called directly and inlined, and its most frequent result
    /// is not a value of seven words.
    #[inline(always)]
    pub fn run(
        &self,
        context: &mut dyn Context,
        regs: &mut UserRegs,
        fp: &mut FpState,
        pending: &AtomicU32,
        trap: &mut Option<Trap>,
    ) -> bool {
        match &self.kvm {
            Some(space) => space.run(regs, fp, pending, trap),
            None => self.run_through(context, regs, fp, pending, trap),
        }
    }

    #[inline(never)]
    fn run_through(
        &self,
        context: &mut dyn Context,
        regs: &mut UserRegs,
        fp: &mut FpState,
        pending: &AtomicU32,
        trap: &mut Option<Trap>,
    ) -> bool {
        // A kick that comes any later makes the switch return at once.
        let none = pending.load(Ordering::SeqCst) == 0;
        *trap = none.then(|| context.switch(&self.space, regs, fp));
        *trap == Some(Trap::Syscall)
    }
}

/// Whether the calling kernel code runs inside the VM (always false where there is none).
pub fn in_guest() -> bool {
    kvm::in_guest()
}
