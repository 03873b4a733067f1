//! A worker's vCPU and its host loop.
//!
//! The host loop runs on the worker thread's own stack and shares the thread's TLS with the kernel context, which it may
//! have interrupted anywhere, an allocation included: it makes raw system calls only, allocates nothing, takes no
//! lock.

use super::super::{Context, FaultInfo, SignalInfo, Trap};
use super::machine::Error;
use super::space::Space;
use super::{Shared, arch};
use crate::abi::{Errno, Result};
use crate::arch::{FpState, UserRegs};
use crate::arena::stack::KernelStack;
use crate::hostsys::{self, process};
use crate::platform::AddressSpace;
use arch::Cpu;
use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};
use kvm_bindings::{KVM_EXIT_FAIL_ENTRY, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_SHUTDOWN, kvm_run};
use ring0::{Exit, SwitchOpts};
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
}

/// Adds one. Counters are per sandbox, written rarely and read at the end.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// How many process-context identifiers a vCPU cycles through (0 is for "no PCID").
const PCIDS: usize = 6;

/// What belongs to one worker. Only its own thread touches it.
pub(super) struct Worker {
    id: usize,
    shared: Arc<Shared>,
    /// What others may know of it: its entry in `shared.workers`.
    state: *const super::WorkerState,
    pub(super) cpu: *mut Cpu,
    pub(super) run: *mut kvm_run,
    fd: i32,
    /// This worker's published count (see `WorkerState::entries`) while in kernel code: even.
    entries: u64,
    /// Space and generation that the vCPU's root register and TLB are up to date with.
    loaded: (u64, u64),
    /// The same per process-context identifier.
    contexts: [(u64, u64); PCIDS],
    next_context: usize,
    body: *mut (dyn FnMut() + 'static),
    done: bool,
}

std::thread_local! {
    static CURRENT: Cell<*mut Worker> = const { Cell::new(core::ptr::null_mut()) };
}

/// The calling worker. Never inlined: see `platform::local`.
#[inline(never)]
fn current() -> *mut Worker {
    CURRENT.with(Cell::get)
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
    let mut vcpu = shared.machine.create_vcpu(id).map_err(setup)?;
    let stack = KernelStack::new()?;
    let cpu = arch::init_cpu(id, shared.machine.features());
    arch::init_vcpu(&shared.machine, &vcpu, cpu, shared.kernel.roots()).map_err(setup)?;
    // SAFETY: only the lifetime is erased: the pointer is used until `host_loop` returns, below.
    let body = unsafe { core::mem::transmute::<*mut (dyn FnMut() + '_), *mut (dyn FnMut() + 'static)>(body) };
    let run = core::ptr::from_mut(vcpu.get_kvm_run());
    let fd = std::os::fd::AsRawFd::as_raw_fd(&vcpu);
    let mut worker = Box::new(Worker {
        id,
        shared: shared.clone(),
        state: &raw const shared.workers[id],
        cpu,
        run,
        fd,
        entries: shared.workers[id].entries.load(Ordering::Relaxed),
        loaded: (0, 0),
        contexts: [(0, 0); PCIDS],
        next_context: 0,
        body,
        done: false,
    });
    let pointer = &raw mut *worker;
    CURRENT.with(|c| c.set(pointer));
    shared.workers[id].tid.store(process::thread_id(), Ordering::Release);
    arch::bind_kick(run);
    // SAFETY: the block is initialised and this thread's; the stack is fresh; `worker` outlives the loop.
    unsafe {
        (*cpu).context_sp = crate::arch::prepare_stack(stack.top(), context_main, pointer as usize);
        host_loop(pointer);
    }
    arch::bind_kick(core::ptr::null_mut());
    shared.workers[id].tid.store(0, Ordering::Release);
    shared.workers[id].loading.store(0, Ordering::SeqCst);
    shared.workers[id].loaded.store(0, Ordering::SeqCst);
    CURRENT.with(|c| c.set(core::ptr::null_mut()));
    drop(vcpu);
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
                count(&worker.shared.counters.interrupted);
                arch::interrupted(worker);
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

#[cfg(target_arch = "x86_64")]
pub(super) fn counters(worker: &Worker) -> &Counters {
    &worker.shared.counters
}

/// What root to load for `space` on this vCPU: 0 if it is loaded and nothing changed.
#[inline]
fn choose_root(worker: &mut Worker, space: &Space) -> u64 {
    // SAFETY: `run_worker` set it to this worker's entry in `shared`, which the worker keeps alive.
    let state = unsafe { &*worker.state };
    if worker.loaded.0 != space.id {
        state.loading.store(space.id, Ordering::SeqCst);
    }
    worker.entries += 2;
    state.entries.store(worker.entries - 1, Ordering::SeqCst);
    let generation = space.generation.load(Ordering::SeqCst);
    if worker.loaded == (space.id, generation) { 0 } else { load_root(worker, space, generation) }
}

/// The root register's value for a space that is not loaded, or not as it is now.
fn load_root(worker: &mut Worker, space: &Space, generation: u64) -> u64 {
    let shared = &worker.shared;
    let changed = worker.loaded.0 != space.id;
    worker.loaded = (space.id, generation);
    if changed {
        shared.reap();
    }
    if !arch::has_contexts(shared.machine.features()) {
        return arch::root(space.root, 0, true);
    }
    let found = worker.contexts.iter().position(|(id, _)| *id == space.id);
    let slot = found.unwrap_or_else(|| {
        worker.next_context = (worker.next_context + 1) % PCIDS;
        worker.next_context
    });
    let flush = worker.contexts[slot] != worker.loaded;
    worker.contexts[slot] = worker.loaded;
    arch::root(space.root, slot as u64 + 1, flush)
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
    if worker.loaded == (space.id, before) {
        worker.loaded.1 = before + 1;
        for context in worker.contexts.iter_mut().filter(|c| **c == (space.id, before)) {
            context.1 = before + 1;
        }
    }
}

/// Nothing of a task lives outside its registers on this platform.
#[derive(Default)]
pub(super) struct KvmContext {
    /// Address of the last space that was found to be one of this platform's; 0 at first. A task keeps its space for
    /// thousands of switches, and comparing an address is a tenth of asking for a type.
    space: usize,
}

impl KvmContext {
    /// The platform's own view of `space`.
    #[inline]
    fn own<'a>(&mut self, space: &'a Arc<dyn AddressSpace>) -> &'a Space {
        let address = Arc::as_ptr(space).cast::<Space>();
        if address as usize != self.space {
            assert!(space.as_any().is::<Space>(), "a space of another platform");
            self.space = address as usize;
        }
        // SAFETY: the caller's `Arc` keeps what lies at this address alive. It was a `Space` when it was looked at, and a
        // kernel has one platform, whose spaces are all that it ever passes here.
        unsafe { &*address }
    }
}

impl Context for KvmContext {
    #[inline]
    fn switch(&mut self, space: &Arc<dyn AddressSpace>, regs: &mut UserRegs, fp: &mut FpState) -> Trap {
        let space = self.own(space);
        let worker = current();
        assert!(!worker.is_null(), "switch outside a worker");
        // SAFETY: this thread's worker; nothing below parks.
        let worker = unsafe { &mut *worker };
        if !arch::is_loadable(regs, fp)
            && let Some(signal) = arch::sanitize(regs, fp, worker.shared.machine.features())
        {
            return Trap::Signal(signal);
        }
        match run_user(worker, space, regs, fp) {
            ring0::Trap::Syscall => Trap::Syscall,
            trap => other_trap(worker, space, regs, fp, trap),
        }
    }
}

/// What the kernel hears of a trap that is not a system call. Goes on in user code where the trap was for the platform.
fn other_trap(
    worker: &mut Worker,
    space: &Space,
    regs: &mut UserRegs,
    fp: &mut FpState,
    mut trap: ring0::Trap,
) -> Trap {
    loop {
        let exception = match trap {
            ring0::Trap::Syscall => return Trap::Syscall,
            ring0::Trap::Kick => {
                arch::acknowledge_kick(&worker.shared.machine, worker.id);
                return Trap::Kick;
            }
            ring0::Trap::Yield => return Trap::Yield,
            ring0::Trap::PageFault { addr, access, code } => {
                let access = match access {
                    ring0::Access::Read => super::super::Access::Read,
                    ring0::Access::Write => super::super::Access::Write,
                    ring0::Access::Execute => super::super::Access::Execute,
                };
                return Trap::PageFault { addr, access, info: arch::page_fault_info(code) };
            }
            ring0::Trap::HostMemoryGone { addr } => {
                return Trap::Signal(SignalInfo {
                    signo: libc::SIGBUS,
                    code: libc::BUS_ADRERR,
                    addr: addr.unwrap_or(0),
                    info: FaultInfo::default(),
                });
            }
            ring0::Trap::Exception(exception) => exception,
        };
        if let Some(trap) = arch::exception(space, regs, fp, exception) {
            return trap;
        }
        trap = run_user(worker, space, regs, fp);
    }
}

/// Runs user code once; the registers are loadable.
#[inline]
fn run_user(worker: &mut Worker, space: &Space, regs: &mut UserRegs, fp: &mut FpState) -> ring0::Trap {
    let root = choose_root(worker, space);
    let opts = SwitchOpts { root, exact: false };
    // SAFETY: the block is this vCPU's; `regs` and `fp` live on kernel stacks or the heap, in the arena, and were
    // sanitised; the root maps the shared part.
    let trap = unsafe { arch::switch_to_user(worker.cpu, regs, fp, opts, &worker.shared.counters.drops) };
    // SAFETY: as in `choose_root`.
    let state = unsafe { &*worker.state };
    if root != 0 {
        state.loaded.store(space.id, Ordering::SeqCst);
    }
    state.entries.store(worker.entries, Ordering::Release);
    trap
}
