//! A worker's vCPU and its host loop.
//!
//! The host loop runs on the worker thread's own stack and shares the thread's TLS with the kernel context, which it may
//! have interrupted anywhere, an allocation included: it makes raw system calls only, allocates nothing, takes no
//! lock.

use super::super::{Context, FaultInfo, SignalInfo, Trap};
use super::contexts::Contexts;
use super::machine::Error;
use super::space::Space;
use super::{Shared, arch, kick};
use crate::abi::{Errno, Result};
use crate::arch::{FpState, UserRegs};
use crate::arena::stack::KernelStack;
use crate::hostsys::{self, process};
use crate::platform::{AddressSpace, local};
use arch::Cpu;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use kvm_bindings::{KVM_EXIT_FAIL_ENTRY, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_SHUTDOWN, kvm_run};
use ring0::Exit;
use std::sync::Arc;

/// KVM_RUN: `_IO(KVMIO, 0x80)`.
const KVM_RUN: u64 = 0xae80;

macro_rules! counters {
    ($($field:ident: $name:literal),* $(,)?) => {
        /// What `--stats` reports.
        #[derive(Default)]
        pub(super) struct Counters { $(#[doc = $name] pub(super) $field: AtomicU64),* }

        impl Counters {
            pub(super) fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$(($name, self.$field.load(Ordering::Relaxed))),*]
            }
        }
    };
}

counters! {
    runs: "KVM_RUN",
    host_calls: "exit: host call",
    faults: "exit: fault in ring 0",
    leaves: "exit: leave",
    windows: "exit: interrupt window",
    memory_gone: "exit: host memory gone",
    interrupted: "exit: signal",
    slices: "exit: time slice",
    other: "exit: other",
    kicks: "kicks sent",
    injected: "kicks delivered",
    drops: "drops to native",
}

impl Worker {
    /// The vCPU's descriptor.
    pub(super) fn fd(&self) -> i32 {
        self.fd
    }

    /// The machine, and which of its workers this is.
    #[cfg(target_arch = "aarch64")]
    pub(super) fn place(&self) -> (&super::machine::Machine, usize) {
        (&self.shared.machine, self.id)
    }
}

/// Takes a kick that `worker` is to deliver, if there is one.
pub(super) fn take_kick(worker: &Worker) -> bool {
    let taken = kick::take(worker.run);
    if taken {
        // From here on the next kick is another one.
        worker.shared.workers[worker.id].kicked.store(false, Ordering::SeqCst);
    }
    taken
}

/// Adds one. Counters are per sandbox, written rarely and read at the end.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What belongs to one worker. Only its own thread touches it.
pub(super) struct Worker {
    id: usize,
    shared: Arc<Shared>,
    /// What others may know of it: its entry in `shared.workers`.
    state: *const super::WorkerState,
    pub(super) cpu: *mut Cpu,
    pub(super) run: *mut kvm_run,
    fd: i32,
    /// What the vCPU's root register and TLB are up to date with.
    contexts: Contexts,
    body: *mut (dyn FnMut() + 'static),
    done: bool,
}

/// The calling worker; null elsewhere.
#[inline(always)]
fn current() -> *mut Worker {
    local::platform() as *mut Worker
}

/// The calling worker's number, if the caller is a worker.
pub(super) fn worker_id() -> Option<usize> {
    let worker = current();
    // SAFETY: a non-null pointer is to this thread's worker, alive until `run_worker` clears it.
    (!worker.is_null()).then(|| unsafe { (*worker).id })
}

/// The calling worker's per-CPU block, if the caller is a worker.
#[cfg(target_arch = "aarch64")]
pub(super) fn current_cpu() -> Option<*mut Cpu> {
    let worker = current();
    // SAFETY: as above.
    (!worker.is_null()).then(|| unsafe { (*worker).cpu })
}

/// Stack of a context that `run_worker` starts: runs the body, then hands the thread back to the host loop for good.
extern "C" fn context_main(worker: usize) -> ! {
    let worker = worker as *mut Worker;
    // SAFETY: `run_worker` passes its worker and body, both alive until the host loop returns; only this thread uses
    // them.
    unsafe {
        (*(*worker).body)();
        // The body may have ended on another engine than it began.
        arch::leave((*worker).cpu);
        (*worker).done = true;
        arch::enter_guest((*worker).cpu);
    }
    process::die(&["pillbox: a finished worker was resumed; this is a bug in pillbox\n"]);
}

/// Makes worker `id`'s vCPU on this thread and runs `body` as its kernel context.
pub(super) fn run_worker(shared: &Arc<Shared>, id: usize, body: &mut dyn FnMut()) -> Result<()> {
    let setup = |error: Error| match error {
        Error::Ioctl(_, errno) => errno,
        _ => Errno::ENODEV,
    };
    let (listed, vcpu) = shared.machine.create_vcpu(id).map_err(setup)?;
    // Whichever way this ends, the entry in the table goes before the descriptor is closed.
    let (mut vcpu, listed) = (vcpu, listed);
    let stack = KernelStack::new()?;
    let cpu = arch::init_cpu(id, shared.machine.features());
    arch::init_vcpu(&shared.machine, &vcpu, cpu, shared.kernel.roots()).map_err(setup)?;
    // SAFETY: only the lifetime is erased: the pointer is used until `host_loop` returns, below.
    let body = unsafe { core::mem::transmute::<*mut (dyn FnMut() + '_), *mut (dyn FnMut() + 'static)>(body) };
    let run = core::ptr::from_mut(vcpu.get_kvm_run());
    let fd = listed.raw();
    let mut worker = Box::new(Worker {
        id,
        shared: shared.clone(),
        state: &raw const shared.workers[id],
        cpu,
        run,
        fd,
        contexts: Contexts::default(),
        body,
        done: false,
    });
    let pointer = &raw mut *worker;
    local::set_platform(pointer as usize);
    shared.workers[id].kicked.store(false, Ordering::SeqCst);
    shared.workers[id].tid.store(process::thread_id(), Ordering::SeqCst);
    kick::bind(run);
    // SAFETY: the block is initialised and this thread's; the stack is fresh; `worker` outlives the loop.
    unsafe {
        (*cpu).context_sp = crate::arch::prepare_stack(stack.top(), context_main, pointer as usize);
        host_loop(pointer);
    }
    kick::bind(core::ptr::null_mut());
    shared.workers[id].tid.store(0, Ordering::Release);
    shared.workers[id].loading.store(0, Ordering::SeqCst);
    shared.workers[id].loaded.store(0, Ordering::SeqCst);
    local::set_platform(0);
    drop((listed, vcpu));
    Ok(())
}

/// Resumes the context natively until it asks for the guest, runs the guest until it hands the context back, and so on.
///
/// # Safety
/// The worker's block holds a context prepared for [`Exit::Leave`].
unsafe fn host_loop(worker: *mut Worker) {
    let mut exit = Exit::Leave;
    loop {
        // SAFETY: `run_guest` validated the context (or it is the first one).
        unsafe {
            arch::resume_native((*worker).cpu, exit);
            if (*worker).done {
                return;
            }
            exit = run_guest(&mut *worker);
        }
    }
}

/// Runs the vCPU until kernel code in it hands its context over.
fn run_guest(worker: &mut Worker) -> Exit {
    loop {
        count(&worker.shared.counters.runs);
        // SAFETY: runs the guest, whose memory is this process's image and arena: see `Machine::new`.
        let result = unsafe { hostsys::syscall(libc::SYS_ioctl, [worker.fd as u64, KVM_RUN, 0, 0, 0, 0]) };
        match result {
            Ok(_) => {}
            Err(Errno::EINTR) => {
                let timer = arch::interrupted(worker);
                let counters = &worker.shared.counters;
                count(if timer { &counters.slices } else { &counters.interrupted });
                continue;
            }
            Err(Errno::EAGAIN) => continue,
            // Memory behind the guest is gone: the guest gets an exception, and kernel code touches it natively.
            Err(Errno::EFAULT) => {
                count(&worker.shared.counters.memory_gone);
                if arch::inject_memory_fault(worker).is_err() {
                    fatal(worker, "cannot report missing memory to the guest");
                }
                continue;
            }
            Err(Errno::ENOMEM) => process::die(&["pillbox: the host is out of memory\n"]),
            Err(_) => fatal(worker, "KVM_RUN failed"),
        }
        // SAFETY: KVM filled the page before KVM_RUN returned.
        let reason = unsafe { (*worker.run).exit_reason };
        if arch::handle_exit(worker, reason) {
            continue;
        }
        if arch::is_exit_instruction(worker, reason) {
            // SAFETY: the block is this worker's; the guest is stopped.
            let word = unsafe { core::mem::replace(&mut (*worker.cpu).exit, 0) };
            match Exit::from_raw(word) {
                Some(exit) if arch::is_resumable(worker, exit) => {
                    let counters = &worker.shared.counters;
                    match exit {
                        Exit::HostCall => count(&counters.host_calls),
                        Exit::Fault => count(&counters.faults),
                        _ => count(&counters.leaves),
                    }
                    return exit;
                }
                _ => fatal(worker, "the guest stopped outside the exit protocol"),
            }
        }
        count(&worker.shared.counters.other);
        fatal(
            worker,
            match reason {
                KVM_EXIT_SHUTDOWN => "triple fault in the guest",
                KVM_EXIT_FAIL_ENTRY => "the CPU refused to enter the guest",
                KVM_EXIT_INTERNAL_ERROR => "KVM could not run or emulate an instruction",
                _ => "unexpected exit from the guest",
            },
        );
    }
}

/// Ends the sandbox: the context cannot be continued in either engine.
fn fatal(worker: &Worker, what: &str) -> ! {
    // SAFETY: KVM's page and the block are readable; the guest is stopped.
    let reason = unsafe { (*worker.run).exit_reason };
    process::die(&[
        "pillbox: ",
        what,
        " (KVM exit reason ",
        process::decimal(reason.into(), &mut [0; 20]),
        arch::describe(worker, &mut [0; 256]),
        "); this is a bug in pillbox or in the host's KVM\n",
    ])
}

/// Whether a context may be resumed at `ip` with the stack at `sp`: code of the image or the vDSO, and a kernel stack of
/// the arena.
pub(super) fn is_kernel_code(worker: &Worker, ip: u64, sp: u64) -> bool {
    use ring0::layout::{STACKS_BASE, STACKS_END};
    let is_code = worker.shared.machine.code.iter().any(|(low, high)| (*low..*high).contains(&ip));
    is_code && (STACKS_BASE..=STACKS_END).contains(&sp)
}

pub(super) fn counters(worker: &Worker) -> &Counters {
    &worker.shared.counters
}

/// Announces that this vCPU is about to run user code of `space`.
#[inline(always)]
fn announce(state: &super::WorkerState, space: &Space) {
    // Written by this thread only, so this reads what it wrote last.
    if state.loading.load(Ordering::Relaxed) != space.id {
        state.loading.store(space.id, Ordering::SeqCst);
    }
    arch::bump(&state.entries);
}

/// Announces that this vCPU is back in kernel code.
#[inline(always)]
fn withdraw(state: &super::WorkerState) {
    state.entries.store(state.entries.load(Ordering::Relaxed) + 1, Ordering::Release);
}

/// What root to load for `space` on this vCPU: 0 if it is loaded and nothing changed. Called once announced.
#[inline(always)]
fn choose_root(worker: &mut Worker, space: &Space) -> u64 {
    let generation = space.generation.load(Ordering::SeqCst);
    if worker.contexts.is_loaded(space.id, generation) { 0 } else { load_root(worker, space, generation) }
}

/// The root register's value for a space that is not loaded, or not as it is now.
#[cold]
fn load_root(worker: &mut Worker, space: &Space, generation: u64) -> u64 {
    let shared = &worker.shared;
    let changed = !worker.contexts.has_loaded(space.id);
    let load = worker.contexts.load(space.id, generation, arch::has_contexts(shared.machine.features()));
    if changed {
        shared.reap();
    }
    arch::root(space.root, load.tag, load.flush)
}

/// Notes that the calling vCPU's TLB was brought from generation `before` to the next one by flushing pages.
#[cfg(target_arch = "x86_64")]
pub(super) fn note_flushed(space: &Space, before: u64) {
    let worker = current();
    if worker.is_null() {
        return;
    }
    // SAFETY: this thread's worker.
    let worker = unsafe { &mut *worker };
    worker.contexts.flushed(space.id, before);
}

/// A space that is known to be one of this platform's.
pub(in crate::platform) struct SpaceRef {
    /// Keeps what `address` names alive.
    _space: Arc<dyn AddressSpace>,
    address: *const Space,
}

// SAFETY: it is a shared reference to a `Space`, which is `Send` and `Sync`.
unsafe impl Send for SpaceRef {}
// SAFETY: as above.
unsafe impl Sync for SpaceRef {}

impl SpaceRef {
    /// The platform's own view of `space`; `None` for another platform's.
    pub(in crate::platform) fn of(space: &Arc<dyn AddressSpace>) -> Option<Self> {
        let address = core::ptr::from_ref(space.as_any().downcast_ref::<Space>()?);
        Some(SpaceRef { _space: space.clone(), address })
    }

    /// See [`crate::platform::UserSpace::run`].
    #[inline(always)]
    pub(in crate::platform) fn run(
        &self,
        regs: &mut UserRegs,
        fp: &mut FpState,
        pending: &AtomicU32,
        trap: &mut Option<Trap>,
    ) -> bool {
        // SAFETY: `_space` keeps it alive.
        run(unsafe { &*self.address }, regs, fp, pending, trap)
    }
}

/// Nothing of a task lives outside its registers on this platform.
#[derive(Default)]
pub(super) struct KvmContext;

impl Context for KvmContext {
    fn switch(&mut self, space: &Arc<dyn AddressSpace>, regs: &mut UserRegs, fp: &mut FpState) -> Trap {
        let Some(space) = space.as_any().downcast_ref() else { panic!("a space of another platform") };
        let mut trap = None;
        loop {
            if run(space, regs, fp, &AtomicU32::new(0), &mut trap) {
                return Trap::Syscall;
            }
            if let Some(trap) = trap {
                return trap;
            }
        }
    }
}

/// Runs user code; see [`crate::platform::UserSpace::run`].
#[inline(always)]
fn run(
    space: &Space,
    regs: &mut UserRegs,
    fp: &mut FpState,
    pending: &AtomicU32,
    trap: &mut Option<Trap>,
) -> bool {
    let worker = current();
    assert!(!worker.is_null(), "switch outside a worker");
    // SAFETY: this thread's worker; nothing below parks.
    let worker = unsafe { &mut *worker };
    // SAFETY: `run_worker` set it to this worker's entry in `shared`, which the worker keeps alive.
    let state = unsafe { &*worker.state };
    announce(state, space);
    if pending.load(Ordering::SeqCst) != 0 {
        withdraw(state);
        *trap = None;
        return false;
    }
    // Only now: the signal for what cannot be loaded is among what is pending the next time.
    if !arch::is_loadable(regs, fp)
        && let Some(signal) = arch::sanitize(regs, fp, worker.shared.machine.features())
    {
        withdraw(state);
        *trap = Some(Trap::Signal(signal));
        return false;
    }
    let root = choose_root(worker, space);
    // SAFETY: the block is this vCPU's; `regs` and `fp` live on kernel stacks or the heap, in the arena, and were
    // sanitised; the root maps the shared part.
    let raw = unsafe { arch::switch_to_user(worker.cpu, regs, fp, root, &worker.shared.counters.drops) };
    if root != 0 {
        state.loaded.store(space.id, Ordering::SeqCst);
    }
    withdraw(state);
    if raw.is_syscall() {
        arch::note_syscall(regs);
        return true;
    }
    other_trap(worker, space, regs, fp, raw, trap)
}

/// What the kernel hears of a trap that is not a system call. False like `run`, unless the trap was for the platform and
/// user code has gone on meanwhile.
#[cold]
#[inline(never)]
fn other_trap(
    worker: &mut Worker,
    space: &Space,
    regs: &mut UserRegs,
    fp: &mut FpState,
    raw: arch::RawTrap,
    trap: &mut Option<Trap>,
) -> bool {
    let exception = match arch::decode(worker.cpu, raw, regs) {
        ring0::Trap::Syscall => return true,
        ring0::Trap::Kick => {
            arch::acknowledge_kick(&worker.shared.machine, worker.id);
            *trap = Some(Trap::Kick);
            return false;
        }
        ring0::Trap::Yield => {
            *trap = Some(Trap::Yield);
            return false;
        }
        ring0::Trap::PageFault { addr, access, code } => {
            let access = match access {
                ring0::Access::Read => super::super::Access::Read,
                ring0::Access::Write => super::super::Access::Write,
                ring0::Access::Execute => super::super::Access::Execute,
            };
            *trap = Some(Trap::PageFault { addr, access, info: arch::page_fault_info(addr, code) });
            return false;
        }
        ring0::Trap::HostMemoryGone { addr } => {
            *trap = Some(Trap::Signal(SignalInfo {
                signo: libc::SIGBUS,
                code: libc::BUS_ADRERR,
                addr: addr.unwrap_or(0),
                info: FaultInfo::default(),
            }));
            return false;
        }
        ring0::Trap::Exception(exception) => exception,
    };
    // None if the instruction was emulated: the caller comes back.
    *trap = arch::exception(space, regs, fp, exception);
    false
}
