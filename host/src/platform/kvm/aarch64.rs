//! aarch64: vCPU set-up, exits, flushes, and exceptions in Linux's terms.
//!
//! The halves have roots of their own. TTBR1 holds the kernel half, which is small and the same for all. TTBR0 holds
//! image and arena while kernel code runs and user pages, nothing else, while user code runs: that stands in for PAN
//! where the core has none, and for separate page tables where it is vulnerable to Meltdown.

use super::super::{FaultInfo, SignalInfo, Trap};
use super::machine::{Error, Machine, failed};
use super::space::Space;
use super::tables::{Pool, Template, UserTables};
use super::vcpu::{self, Worker, count};
use crate::abi::Result;
use crate::arch::{FpState, UserRegs, counter as clock};
use crate::hostsys::{self, cpu};
use aarch64_cpu::registers::ESR_EL1::{EC, IL};
use core::sync::atomic::{AtomicU64, Ordering};
use kvm_bindings::{KVM_CAP_ARM_USER_IRQ, KVM_EXIT_MMIO, kvm_vcpu_events, kvm_vcpu_init};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use linux_raw_sys::general::{
    FPE_FLTDIV, FPE_FLTINV, FPE_FLTOVF, FPE_FLTRES, FPE_FLTUND, FPE_FLTUNK, ILL_ILLOPC,
};
use pagetables::{Attrs, PageSize};
use ring0::layout::{IMAGE_END, PERCPU_BASE, PERCPU_END};
use ring0::{Exception, Exit};
use ring0_aarch64::cpu::CPU_STRIDE;
use ring0_aarch64::init::{self, MemoryModel};
use ring0_aarch64::trap::class;
use ring0_aarch64::{entry, tlb, trap};

mod counter;
mod deliver;
mod emulate;

pub(super) use deliver::{acknowledge_kick, cancel_kick, interrupted, kick_after, kick_request};
pub(super) use emulate::IdRegisters;
pub(super) use entry::enter_guest;
pub(super) use pagetables::Aarch64 as Format;
pub(super) use ring0_aarch64::cpu::{Cpu, KERNEL_HALF};

/// 48-bit addresses, as Linux gives programs.
pub(super) const TASK_SIZE: u64 = 1 << 48;
/// The kernel half has a root of its own.
pub(super) const SPLIT_HALVES: bool = true;
/// Kernel mappings of the lower half carry ASID 0: were they global, user code could hit them in the TLB.
pub(super) const LOWER_HALF: Attrs = Attrs::READ;
/// The exit page: in the image's window, where no program maps anything, and above the image, which is its slot.
const EXIT_PAGE: u64 = IMAGE_END - 4096;
/// Pages of the kernel half that are devices.
pub(super) const DEVICE_PAGES: &[u64] = &[EXIT_PAGE];
/// TLB maintenance reaches every CPU.
pub(super) const BROADCASTS: bool = true;
/// More pages than this are flushed by address space, when it is entered next, instead of one by one.
const FLUSH_PAGES_MAX: u64 = 16;

/// KVM_SET_VCPU_EVENTS: `_IOW(KVMIO, 0xa0, struct kvm_vcpu_events)`.
const KVM_SET_VCPU_EVENTS: u64 = 0x4040_aea0;
/// `KVM_ARM_VCPU_PSCI_0_2`: without it, firmware calls look like version 0.1.
const VCPU_PSCI_0_2: u32 = 1 << 2;
/// What addresses need: image and arena end below 2^39.
const PHYSICAL_BITS: u32 = 39;
/// The guest-physical space that TCR_EL1 is set up for, if the host can.
const IPA_BITS: u32 = 40;

/// KVM's ids (Documentation/virt/kvm/api.rst, KVM_SET_ONE_REG): 64-bit system registers, and core registers by their
/// offset in `struct kvm_regs`.
const SYSTEM_REGISTER: u64 = 0x6030_0000_0013_0000;
const CORE_PC: u64 = 0x6030_0000_0010_0000 | (256 / 4);
const CORE_PSTATE: u64 = 0x6030_0000_0010_0000 | (264 / 4);
const CORE_SP_EL1: u64 = 0x6030_0000_0010_0000 | (272 / 4);

/// What KVM offers here.
pub(super) struct Features {
    ipa_bits: u32,
    /// Ticks of the virtual timer per nanosecond, times 2^32; 0 where KVM does not tell when its line rises.
    timer_rate: u64,
    /// What programs read from ID registers.
    pub(super) id: IdRegisters,
}

/// Checks what ring 0 needs of CPU and KVM.
pub(super) fn check(kvm: &Kvm) -> Result<Features, Error> {
    // Kernels without the capability give every VM 40 bits.
    let ipa_bits = match kvm.check_extension_int(Cap::ArmVmIPASize) {
        0 => IPA_BITS,
        bits => bits.unsigned_abs(),
    };
    for (have, name) in [
        (ipa_bits >= PHYSICAL_BITS, "39 bits of guest-physical address space"),
        (kvm.check_extension(Cap::OneReg), "KVM_CAP_ONE_REG"),
        (kvm.check_extension(Cap::UserMemory), "KVM_CAP_USER_MEMORY"),
        (kvm.check_extension(Cap::ImmediateExit), "KVM_CAP_IMMEDIATE_EXIT"),
    ] {
        if !have {
            return Err(Error::Missing(name));
        }
    }
    let told = kvm.check_extension_raw(KVM_CAP_ARM_USER_IRQ.into()) > 0;
    let hertz = clock::frequency().filter(|_| told).unwrap_or(0);
    let timer_rate = ((u128::from(hertz) << 32) / 1_000_000_000) as u64;
    Ok(Features { ipa_bits: ipa_bits.min(IPA_BITS), timer_rate, id: IdRegisters::read() })
}

/// What of it is used, for people.
pub(super) fn uses(features: &Features) -> String {
    let timer = if features.timer_rate == 0 { "kicks end time slices" } else { "virtual timer" };
    format!("ASIDs, {} bits of guest-physical address space, {timer}", features.ipa_bits)
}

/// Makes the VM.
pub(super) fn create_vm(kvm: &Kvm, features: &Features) -> Result<VmFd, Error> {
    // 40 bits is what a type of 0 means, also to kernels that know no other.
    let kind = if features.ipa_bits == IPA_BITS { 0 } else { u64::from(features.ipa_bits) };
    kvm.create_vm_with_type(kind).map_err(failed("KVM_CREATE_VM"))
}

/// Makes all vCPUs at once: making one resets the counter of the others (Linux before 6.4).
pub(super) fn create_vcpus(vm: &VmFd, count: usize) -> Result<Vec<VcpuFd>, Error> {
    let mut target = kvm_vcpu_init::default();
    vm.get_preferred_target(&mut target).map_err(failed("KVM_ARM_PREFERRED_TARGET"))?;
    target.features[0] |= VCPU_PSCI_0_2;
    let vcpus = (0..count as u64)
        .map(|id| {
            let vcpu = vm.create_vcpu(id).map_err(failed("KVM_CREATE_VCPU"))?;
            vcpu.vcpu_init(&target).map_err(failed("KVM_ARM_VCPU_INIT"))?;
            Ok(vcpu)
        })
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(first) = vcpus.first() {
        counter::synchronise(vm, first)?;
    }
    Ok(vcpus)
}

/// The largest page the arena is mapped with.
pub(super) fn largest_page() -> PageSize {
    PageSize::Size1G
}

/// A program's table: nothing in it is shared, the kernel half has its own root.
pub(super) fn user_tables(_: &Template, pool: Pool) -> Result<UserTables, pagetables::Error> {
    UserTables::new(pool)
}

/// Bounds of the ring-0 entry code.
pub(super) fn ring0_text() -> (u64, u64) {
    super::image::ring0_text()
}

/// Initialises worker `id`'s per-CPU block.
pub(super) fn init_cpu(id: usize, _: &Features) -> *mut Cpu {
    let address = PERCPU_BASE + id as u64 * CPU_STRIDE;
    assert!(address + CPU_STRIDE <= PERCPU_END, "too many workers");
    let cpu = address as *mut Cpu;
    // SAFETY: the region is mapped, zeroed or left by an ended worker of this number, and each worker has its own block.
    unsafe {
        core::ptr::write_bytes(cpu, 0, 1);
        (*cpu).kernel_tpidr = cpu::thread_pointer();
    }
    cpu
}

/// Loads a vCPU's first state: EL1, at the point where it continues the context in its block.
pub(super) fn init_vcpu(
    _: &Machine,
    vcpu: &VcpuFd,
    cpu: *mut Cpu,
    roots: super::image::Roots,
) -> Result<(), Error> {
    let mut mmfr0 = [0; 8];
    vcpu.get_one_reg(SYSTEM_REGISTER | u64::from(init::ID_AA64MMFR0_EL1), &mut mmfr0)
        .map_err(failed("KVM_GET_ONE_REG"))?;
    let model = MemoryModel::from_mmfr0(u64::from_le_bytes(mmfr0));
    if !model.granule_4k || model.physical_bits < PHYSICAL_BITS {
        return Err(Error::Missing("4 KiB pages or 39 bits of physical address space"));
    }
    let start = init::Start {
        model,
        kernel_ttbr0: roots.lower,
        ttbr1: roots.upper,
        vectors: entry::vectors(),
        tpidr: cpu::thread_pointer(),
        mair: Format::MAIR,
    };
    // SAFETY: this worker's block; the vCPU does not run yet.
    unsafe { (*cpu).init(roots.lower, EXIT_PAGE) };
    let system =
        init::registers(&start).map(|(register, value)| (SYSTEM_REGISTER | u64::from(register), value));
    let core =
        [(CORE_PC, entry::resume()), (CORE_PSTATE, init::PSTATE), (CORE_SP_EL1, cpu as u64 | KERNEL_HALF)];
    for (id, value) in system.into_iter().chain(core) {
        vcpu.set_one_reg(id, &value.to_le_bytes()).map_err(failed("KVM_SET_ONE_REG"))?;
    }
    Ok(())
}

/// Continues the context natively.
///
/// # Safety
/// As [`entry::resume_native`].
pub(super) unsafe fn resume_native(cpu: *mut Cpu, exit: Exit) {
    // SAFETY: the caller's.
    unsafe { entry::resume_native(cpu, exit) }
}

/// Leaves the guest if the caller runs in it.
///
/// # Safety
/// The caller is the context of `cpu`'s worker.
pub(super) unsafe fn leave(cpu: *mut Cpu) {
    // SAFETY: the caller's.
    unsafe { entry::leave_guest(cpu) }
}

/// KVM could not reach memory: an external abort tells the guest.
pub(super) fn inject_memory_fault(worker: &mut Worker) -> Result<()> {
    deliver::returned(worker);
    let mut events = kvm_vcpu_events::default();
    events.exception.ext_dabt_pending = 1;
    let args = [worker.fd() as u64, KVM_SET_VCPU_EVENTS, &raw const events as u64, 0, 0, 0];
    // SAFETY: the ioctl reads the structure.
    unsafe { hostsys::syscall(libc::SYS_ioctl, args) }.map(drop)
}

/// Handles exits that do not hand a context over: there are none.
pub(super) fn handle_exit(worker: &mut Worker, _: u32) -> bool {
    deliver::returned(worker);
    false
}

/// Whether the exit is by the exit instruction: a store to the page without memory.
pub(super) fn is_exit_instruction(worker: &Worker, reason: u32) -> bool {
    // SAFETY: KVM filled the page; the union's `mmio` is what this reason means.
    reason == KVM_EXIT_MMIO && unsafe { (*worker.run).__bindgen_anon_1.mmio.phys_addr } == EXIT_PAGE
}

/// Whether the context handed over may be resumed natively; completes its signal frame.
pub(super) fn is_resumable(worker: &mut Worker, exit: Exit) -> bool {
    // SAFETY: this worker's block; the guest is stopped.
    let cpu = unsafe { &mut *worker.cpu };
    match exit {
        Exit::Leave => return true,
        Exit::None => return false,
        Exit::HostCall => {}
        Exit::Fault => {
            cpu.frame.fill(&cpu.exit_regs, &cpu.exit_fp);
            let mask = &raw mut cpu.frame.mask as u64;
            // SAFETY: both calls write to the frame only.
            let known = unsafe {
                hostsys::syscall(libc::SYS_rt_sigprocmask, [0, 0, mask, 8, 0, 0]).and_then(|_| {
                    let stack = &raw mut cpu.frame.stack as u64;
                    hostsys::syscall(libc::SYS_sigaltstack, [0, stack, 0, 0, 0, 0])
                })
            };
            if known.is_err() {
                return false;
            }
        }
    }
    let (pc, sp) = (cpu.exit_regs.pc, cpu.exit_regs.sp);
    vcpu::is_kernel_code(worker, pc, sp)
}

/// What a fatal exit should say beyond its reason.
pub(super) fn describe<'a>(worker: &Worker, buffer: &'a mut [u8; 256]) -> &'a str {
    use std::io::Write;
    // SAFETY: this worker's block; the guest is stopped.
    let cpu = unsafe { &*worker.cpu };
    let regs = &cpu.exit_regs;
    let mut rest = &mut buffer[..];
    let _truncated = write!(
        rest,
        ", esr {:#x}, far {:#x}, pc {:#x}, sp {:#x}",
        cpu.exit_esr, cpu.exit_far, regs.pc, regs.sp
    );
    let left = rest.len();
    core::str::from_utf8(&buffer[..256 - left]).unwrap_or("")
}

/// Nothing in the registers can make their load fault.
#[inline]
pub(super) fn is_loadable(_: &UserRegs, _: &FpState) -> bool {
    true
}

/// Every value of every register can be loaded here; the entry code masks PSTATE.
pub(super) fn sanitize(_: &mut UserRegs, _: &mut FpState, _: &Features) -> Option<SignalInfo> {
    None
}

/// The TLB distinguishes address spaces: ASIDs always exist.
pub(super) fn has_contexts(_: &Features) -> bool {
    true
}

/// The TTBR0_EL1 value for a root; `context` is an ASID. Bit 0 asks the entry code for a flush of that.
pub(super) fn root(table: u64, context: u64, flush: bool) -> u64 {
    table | context << 48 | u64::from(flush)
}

/// Makes new entries visible to table walkers.
#[inline]
pub(super) fn publish() {
    tlb::publish();
}

/// Flushes the pages on every CPU, if that can be done here and now: in the guest, and not too many.
pub(super) fn flush_everywhere(start: u64, pages: u64) -> bool {
    if pages > FLUSH_PAGES_MAX || !in_guest() {
        // The new entries must be visible before the generation that announces them.
        tlb::publish();
        return false;
    }
    // SAFETY: at EL1, and nothing between the check and here can leave it.
    unsafe { tlb::flush(start, pages) };
    true
}

/// Nothing is flushed on this vCPU alone: see [`flush_everywhere`].
pub(super) fn flush_pages(_: &Space, _: u64, _: u64, _: u64) {}

/// Break-before-make: nobody uses the old translation when this returns true. On a thread that is no worker it returns
/// false: such threads edit only tables that no CPU runs on, and those are flushed when they are entered.
pub(super) fn invalidate(start: u64, bytes: u64) -> bool {
    let inside = enter_if_worker();
    if inside {
        // SAFETY: at EL1.
        unsafe { tlb::flush(start, bytes >> 12) };
    }
    inside
}

/// Goes on in the guest, at EL1, if the calling thread is a worker.
fn enter_if_worker() -> bool {
    let Some(cpu) = vcpu::current_cpu() else { return false };
    // SAFETY: the calling worker's block.
    unsafe { entry::enter_guest(cpu) };
    true
}

/// Adds one to a count that only the calling thread writes, before anything that it reads afterwards.
#[inline(always)]
pub(super) fn bump(count: &AtomicU64) {
    // A store with release and a load with acquire order stay in order (DDI 0487, B2.3.3).
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::SeqCst);
}

/// What user code stopped with, undecoded: the syndrome.
#[derive(Clone, Copy)]
pub(super) struct RawTrap(u64);

impl RawTrap {
    /// Whether it was a system call.
    #[inline(always)]
    pub(super) fn is_syscall(self) -> bool {
        trap::is_syscall(self.0)
    }
}

/// Runs user code, entering the guest first if need be.
///
/// # Safety
/// As [`entry::switch_to_user`].
#[inline(always)]
pub(super) unsafe fn switch_to_user(
    cpu: *mut Cpu,
    regs: &mut UserRegs,
    fp: &mut FpState,
    root: u64,
    drops: &AtomicU64,
) -> RawTrap {
    // SAFETY: the caller's.
    if !unsafe { entry::in_guest(cpu) } {
        count(drops);
    }
    // SAFETY: the caller's.
    unsafe {
        entry::switch_to_user(cpu, regs, fp, root);
        RawTrap((*cpu).trap_esr)
    }
}

/// Keeps what the call's result and its own registers will overwrite.
#[inline(always)]
pub(super) fn note_syscall(regs: &mut UserRegs) {
    regs.orig_x0 = regs.x[0];
    regs.syscall = regs.x[8];
}

/// The reason that the entry code stored, when it was no system call.
pub(super) fn decode(cpu: *const Cpu, raw: RawTrap, regs: &mut UserRegs) -> ring0::Trap {
    // SAFETY: this vCPU's block.
    let trap = trap::decode(raw.0, unsafe { (*cpu).trap_far });
    regs.syscall = !0;
    if trap == ring0::Trap::Yield {
        regs.pc += 4;
    }
    trap
}

/// What a signal frame says about a page fault: of addresses above a program's own, no more than what the program did
/// (Linux's `set_thread_esr`), as if the table's first level had no entry there.
pub(super) fn page_fault_info(addr: u64, code: u64) -> FaultInfo {
    /// EC, IL, and of data aborts CM and WnR (ARM DDI 0487, D19.2.37).
    const FETCH: u64 = EC.mask << EC.shift | IL::SET.value;
    const DATA: u64 = FETCH | trap::CM | trap::WNR;
    const TRANSLATION_LEVEL_0: u64 = 4;
    let err = match (code >> EC.shift) as u8 {
        _ if addr < TASK_SIZE => code,
        class::INSTRUCTION_ABORT => code & FETCH | TRANSLATION_LEVEL_0,
        _ => code & DATA | TRANSLATION_LEVEL_0,
    };
    FaultInfo { trapno: 0, err }
}

/// An exception as Linux reports it (arch/arm64/kernel/traps.c, debug-monitors.c, mm/fault.c), or nothing if the
/// instruction was emulated.
pub(super) fn exception(
    space: &Space,
    regs: &mut UserRegs,
    _: &FpState,
    exception: Exception,
) -> Option<Trap> {
    if matches!(exception.class, class::UNKNOWN | class::SYSTEM) && emulate::instruction(space, regs) {
        return None;
    }
    let (signo, code, addr) = match exception.class {
        class::DATA_ABORT => (libc::SIGBUS, libc::BUS_ADRALN, trap::untagged(exception.addr)),
        class::PC_ALIGNMENT => (libc::SIGBUS, libc::BUS_ADRALN, exception.addr),
        class::SP_ALIGNMENT => (libc::SIGBUS, libc::BUS_ADRALN, regs.sp),
        class::BRK | class::BREAKPOINT => (libc::SIGTRAP, libc::TRAP_BRKPT, regs.pc),
        class::SOFTWARE_STEP => (libc::SIGTRAP, libc::TRAP_TRACE, regs.pc),
        class::WATCHPOINT => (libc::SIGTRAP, libc::TRAP_HWBKPT, exception.addr),
        class::FP_EXCEPTION => (libc::SIGFPE, fp_code(exception.code), regs.pc),
        _ => (libc::SIGILL, ILL_ILLOPC as i32, regs.pc),
    };
    let info = FaultInfo { trapno: 0, err: exception.code };
    Some(Trap::Signal(SignalInfo { signo, code, addr, info }))
}

/// `si_code` of a trapped floating-point exception: the syndrome's flags, in Linux's order, if it says that they are valid.
fn fp_code(esr: u64) -> i32 {
    const VALID: u64 = 1 << 23;
    let codes = [FPE_FLTINV, FPE_FLTDIV, FPE_FLTOVF, FPE_FLTUND, FPE_FLTRES];
    let first = codes.iter().enumerate().find(|(bit, _)| esr & VALID != 0 && esr & 1 << bit != 0);
    first.map_or(FPE_FLTUNK, |(_, code)| *code) as i32
}

/// Whether the calling code runs inside the guest.
pub(super) fn in_guest() -> bool {
    // SAFETY: the calling worker's block.
    vcpu::current_cpu().is_some_and(|cpu| unsafe { entry::in_guest(cpu) })
}
