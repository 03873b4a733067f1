//! x86_64: vCPU set-up, exits, and running user code.

use super::super::{FaultInfo, SignalInfo};
use super::image::Roots;
use super::machine::{Error, Machine, failed};
use super::space::Space;
use super::tables::{Pool, Template, UserTables};
use super::vcpu::{self, Worker, count};
use crate::abi::Result;
use crate::arch::{FpState, UserRegs};
use crate::hostsys;
use core::sync::atomic::{AtomicU64, Ordering};
use kvm_bindings::{
    KVM_EXIT_HLT, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_device_attr, kvm_dtable, kvm_msr_entry, kvm_regs,
    kvm_segment, kvm_xcr, kvm_xcrs,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use linux_raw_sys::general::SEGV_MAPERR;
use pagetables::{Attrs, PageSize};
use ring0::Exit;
use ring0::layout::{PERCPU_BASE, PERCPU_END};
use ring0_x86_64::cpu::{CPU_STRIDE, FpMode};
use ring0_x86_64::features::{Leaf, mask};
use ring0_x86_64::tables::{GDT_LIMIT, IDT_LIMIT, TSS_LIMIT, selector};
use ring0_x86_64::trap::vector;
use ring0_x86_64::{entry, init, trap};
use std::os::fd::AsRawFd;
use x86_64::VirtAddr;
use x86_64::registers::debug::Dr6Flags;
use x86_64::registers::xcontrol::XCr0Flags;
use x86_64::structures::idt::PageFaultErrorCode;

mod deliver;
mod exception;

pub(super) use deliver::{acknowledge_kick, cancel_kick, handle_exit, interrupted, kick_after, kick_request};
pub(super) use entry::{enter_guest, in_guest};
pub(super) use exception::{exception, page_fault_info};
pub(super) use pagetables::X86_64 as Format;
pub(super) use ring0_x86_64::cpu::{Cpu, KERNEL_HALF};

/// Both halves hang off one root.
pub(super) const SPLIT_HALVES: bool = false;
/// Kernel mappings of the lower half are in every table.
pub(super) const LOWER_HALF: Attrs = Attrs::READ.union(Attrs::GLOBAL);
/// Pages of the kernel half that are devices.
pub(super) const DEVICE_PAGES: &[u64] = &[];
/// User code ends one page below the canonical hole.
pub(super) const TASK_SIZE: u64 = (1 << 47) - 4096;
/// Other CPUs' TLBs are out of reach.
pub(super) const BROADCASTS: bool = false;
/// More pages than this are flushed by a reload of the root instead of one by one.
const FLUSH_PAGES_MAX: u64 = 16;
/// KVM_NMI: `_IO(KVMIO, 0x9a)`.
const KVM_NMI: u64 = 0xae9a;
/// KVM_SET_DEVICE_ATTR: `_IOW(KVMIO, 0xe1, struct kvm_device_attr)`; on a vCPU, group 0 attribute 0 is the TSC offset.
const KVM_SET_DEVICE_ATTR: u64 = 0x4018_aee1;
/// IA32_ARCH_CAPABILITIES; bit 0 is RDCL_NO: not vulnerable to Meltdown.
const MSR_ARCH_CAPABILITIES: u32 = 0x10a;
/// EM: emulate 64-bit entries by 4 GiB-below pages that no slot covers (Intel only; KVM wants an address).
const TSS_ADDRESS: usize = 0xfffb_d000;
const IDENTITY_MAP_ADDRESS: u64 = 0xfffb_c000;

/// What KVM offers here.
pub(super) struct Features {
    cpu: ring0_x86_64::features::Features,
    cpuid: kvm_bindings::CpuId,
}

fn leaf(entry: &kvm_bindings::kvm_cpuid_entry2) -> Leaf {
    Leaf {
        function: entry.function,
        index: entry.index,
        eax: entry.eax,
        ebx: entry.ebx,
        ecx: entry.ecx,
        edx: entry.edx,
    }
}

/// Checks what ring 0 needs of CPU and KVM.
pub(super) fn check(kvm: &Kvm) -> Result<Features, Error> {
    let mut cpuid =
        kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(failed("KVM_GET_SUPPORTED_CPUID"))?;
    for entry in cpuid.as_mut_slice() {
        let mut masked = leaf(entry);
        mask(&mut masked);
        (entry.eax, entry.ebx, entry.ecx, entry.edx) = (masked.eax, masked.ebx, masked.ecx, masked.edx);
        // OSXSAVE is not "supported" by KVM: it follows CR4, which we set.
        if entry.function == 1 && entry.ecx & 1 << 26 != 0 {
            entry.ecx |= 1 << 27;
        }
    }
    let leaves: Vec<Leaf> = cpuid.as_slice().iter().map(leaf).collect();
    let cpu = ring0_x86_64::features::Features::from_leaves(&leaves);
    for (have, name) in [
        (cpu.long_mode, "64-bit mode with SYSCALL and NX"),
        (cpu.smap, "SMAP (it keeps a program's memory from being read as the kernel's)"),
        (cpu.physical_bits >= 39, "39 bits of guest-physical address space"),
        (kvm.check_extension(Cap::ImmediateExit), "KVM_CAP_IMMEDIATE_EXIT"),
    ] {
        if !have {
            return Err(Error::Missing(name));
        }
    }
    let intel = leaves.iter().any(|l| l.function == 0 && l.ebx == u32::from_le_bytes(*b"Genu"));
    if intel && !has_rdcl_no(kvm) {
        return Err(Error::Vulnerable("Meltdown: no RDCL_NO"));
    }
    Ok(Features { cpu, cpuid })
}

/// What of it is used, for people.
pub(super) fn uses(features: &Features) -> String {
    let cpu = &features.cpu;
    let state = match fp_mode(cpu) {
        FpMode::Xsaveopt => "XSAVEOPT",
        FpMode::Xsave => "XSAVE",
        FpMode::Fxsave => "FXSAVE",
    };
    let avx512 = cpu.xcr0 & XCr0Flags::OPMASK.bits() != 0;
    // Identifiers are flushed as CR3 is loaded, so INVPCID, where there is one, has nothing to do.
    let pcid = if cpu.pcid { "PCID (flushed by CR3, without INVPCID)" } else { "no PCID" };
    let named = [
        (true, pcid),
        (true, state),
        (avx512, "AVX-512"),
        (cpu.fsgsbase, "FSGSBASE"),
        (cpu.smep, "SMEP"),
        (cpu.smap, "SMAP"),
        (cpu.umip, "UMIP"),
        (cpu.gib_pages, "1 GiB pages"),
    ];
    named.into_iter().filter(|(have, _)| *have).map(|(_, name)| name).collect::<Vec<_>>().join(", ")
}

/// The best way there is to save floating point.
fn fp_mode(cpu: &ring0_x86_64::features::Features) -> FpMode {
    match (cpu.xsave, cpu.xsaveopt) {
        (_, true) => FpMode::Xsaveopt,
        (true, false) => FpMode::Xsave,
        _ => FpMode::Fxsave,
    }
}

fn has_rdcl_no(kvm: &Kvm) -> bool {
    let entry = kvm_msr_entry { index: MSR_ARCH_CAPABILITIES, ..Default::default() };
    let Ok(mut msrs) = Msrs::from_entries(&[entry]) else { return false };
    kvm.get_msrs(&mut msrs) == Ok(1) && msrs.as_slice()[0].data & 1 != 0
}

/// Makes the VM.
pub(super) fn create_vm(kvm: &Kvm, _: &Features) -> Result<VmFd, Error> {
    let vm = kvm.create_vm().map_err(failed("KVM_CREATE_VM"))?;
    vm.set_identity_map_address(IDENTITY_MAP_ADDRESS).map_err(failed("KVM_SET_IDENTITY_MAP_ADDR"))?;
    vm.set_tss_address(TSS_ADDRESS).map_err(failed("KVM_SET_TSS_ADDR"))?;
    Ok(vm)
}

/// vCPUs are made by the threads that run them.
pub(super) fn create_vcpus(_: &VmFd, _: usize) -> Result<Vec<VcpuFd>, Error> {
    Ok(Vec::new())
}

/// The largest page the arena is mapped with.
pub(super) fn largest_page() -> PageSize {
    // CPUID on the host; the guest sees the same bit because KVM's list is filtered, never extended.
    let edx = core::arch::x86_64::__cpuid(0x8000_0001).edx;
    if edx & 1 << 26 != 0 { PageSize::Size1G } else { PageSize::Size2M }
}

/// Initialises worker `id`'s per-CPU block.
pub(super) fn init_cpu(id: usize, features: &Features) -> *mut Cpu {
    let address = PERCPU_BASE + id as u64 * CPU_STRIDE;
    assert!(address + CPU_STRIDE <= PERCPU_END, "too many workers");
    let cpu = address as *mut Cpu;
    let mode = fp_mode(&features.cpu);
    // SAFETY: the region is mapped, zeroed or left by an ended worker of this number, and each worker has its own block.
    unsafe {
        core::ptr::write_bytes(cpu, 0, 1);
        (*cpu).init(mode, features.cpu.xcr0, features.cpu.fsgsbase);
        entry::install(&mut *cpu);
        (*cpu).kernel_fs_base = hostsys::cpu::fs_base();
    }
    cpu
}

/// Loads a vCPU's first state: ring 0, at the point where it continues the context in its block.
pub(super) fn init_vcpu(machine: &Machine, vcpu: &VcpuFd, cpu: *mut Cpu, roots: Roots) -> Result<(), Error> {
    let features = machine.features();
    vcpu.set_cpuid2(&features.cpuid).map_err(failed("KVM_SET_CPUID2"))?;
    let mut sregs = vcpu.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
    let flat = |selector: u16, type_: u8, dpl: u8, long: u8| kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl,
        db: 1 - long,
        s: 1,
        l: long,
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    };
    let high = cpu as u64 | KERNEL_HALF;
    let field = |offset: usize| high + offset as u64;
    sregs.cs = flat(selector::KERNEL_CODE, 0xb, 0, 1);
    sregs.ss = flat(selector::KERNEL_DATA, 3, 0, 0);
    let user = flat(selector::USER_DATA, 3, 3, 0);
    (sregs.ds, sregs.es) = (user, user);
    sregs.fs = kvm_segment { base: hostsys::cpu::fs_base(), ..user };
    sregs.gs = kvm_segment { base: high, ..user };
    sregs.tr = kvm_segment {
        base: field(core::mem::offset_of!(Cpu, tss)),
        limit: TSS_LIMIT,
        selector: selector::TSS,
        type_: 0xb,
        present: 1,
        ..Default::default()
    };
    sregs.ldt = kvm_segment { unusable: 1, ..Default::default() };
    sregs.gdt =
        kvm_dtable { base: field(core::mem::offset_of!(Cpu, gdt)), limit: GDT_LIMIT, padding: [0; 3] };
    sregs.idt =
        kvm_dtable { base: field(core::mem::offset_of!(Cpu, idt)), limit: IDT_LIMIT, padding: [0; 3] };
    sregs.cr0 = init::CR0;
    sregs.cr3 = roots.lower;
    sregs.cr4 = features.cpu.cr4();
    sregs.efer = init::EFER;
    vcpu.set_sregs(&sregs).map_err(failed("KVM_SET_SREGS"))?;
    if features.cpu.xsave {
        let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
        xcrs.xcrs[0] = kvm_xcr { xcr: 0, reserved: 0, value: features.cpu.xcr0 };
        vcpu.set_xcrs(&xcrs).map_err(failed("KVM_SET_XCRS"))?;
    }
    // SAFETY: this worker's block, which nothing writes at present.
    let handler = entry::syscall_entry(unsafe { &*cpu });
    let entries = init::msrs(handler | KERNEL_HALF).map(|(index, data)| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    });
    let msrs = Msrs::from_entries(&entries).map_err(|_| Error::Missing("memory for the MSR list"))?;
    let set = vcpu.set_msrs(&msrs).map_err(failed("KVM_SET_MSRS"))?;
    if set != entries.len() {
        return Err(Error::Missing("a model-specific register that KVM refused to set"));
    }
    set_tsc_offset(vcpu);
    let regs = kvm_regs { rip: entry::start() | KERNEL_HALF, rflags: init::RFLAGS, ..Default::default() };
    vcpu.set_regs(&regs).map_err(failed("KVM_SET_REGS"))
}

/// Makes the guest's TSC the host's where KVM can (5.16 and later). The clock does not rely on it: it checks.
fn set_tsc_offset(vcpu: &VcpuFd) {
    let zero = 0u64;
    let attr = kvm_device_attr { flags: 0, group: 0, attr: 0, addr: &raw const zero as u64 };
    let args = [vcpu.as_raw_fd() as u64, KVM_SET_DEVICE_ATTR, &raw const attr as u64, 0, 0, 0];
    // SAFETY: the ioctl reads the attribute and the value it points to.
    let _unsupported = unsafe { hostsys::syscall(libc::SYS_ioctl, args) };
}

/// Continues the context natively.
///
/// # Safety
/// As [`entry::resume_native`].
pub(super) unsafe fn resume_native(cpu: *mut Cpu, exit: Exit) {
    // SAFETY: the caller's.
    unsafe { entry::resume_native(cpu, exit as u64) }
}

/// Leaves the guest if the caller runs in it.
///
/// # Safety
/// The caller is the context of `cpu`'s worker.
pub(super) unsafe fn leave(cpu: *mut Cpu) {
    if entry::in_guest() {
        // SAFETY: in the guest, on a kernel stack.
        unsafe { entry::leave_guest(cpu) }
    }
}

/// KVM could not reach memory: an NMI tells the guest.
pub(super) fn inject_memory_fault(worker: &mut Worker) -> Result<()> {
    // SAFETY: an ioctl without an argument.
    unsafe { hostsys::syscall(libc::SYS_ioctl, [worker.fd() as u64, KVM_NMI, 0, 0, 0, 0]) }.map(drop)
}

/// Whether the exit is by the exit instruction.
pub(super) fn is_exit_instruction(_: &Worker, reason: u32) -> bool {
    reason == KVM_EXIT_HLT
}

/// Whether the context handed over may be resumed natively; completes its IRET frame.
pub(super) fn is_resumable(worker: &mut Worker, exit: Exit) -> bool {
    // SAFETY: this worker's block; the guest is stopped.
    let cpu = unsafe { &mut *worker.cpu };
    match exit {
        Exit::Leave => true,
        Exit::None => false,
        Exit::HostCall | Exit::Fault => {
            let regs = &mut cpu.exit_regs;
            if exit == Exit::Fault && cpu.exit_vector == u64::from(vector::BREAKPOINT) {
                // A trap is reported behind its instruction; natively it is to happen again.
                regs.rip = regs.rip.wrapping_sub(1);
            }
            (regs.cs, regs.ss) = (selector::USER_CODE.into(), selector::USER_DATA.into());
            let (rip, rsp) = (regs.rip, regs.rsp);
            vcpu::is_kernel_code(worker, rip, rsp)
        }
    }
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
        ", vector {}, error {:#x}, cr2 {:#x}, rip {:#x}, rsp {:#x}",
        cpu.exit_vector, cpu.exit_error, cpu.exit_cr2, regs.rip, regs.rsp
    );
    let left = rest.len();
    core::str::from_utf8(&buffer[..256 - left]).unwrap_or("")
}

/// Whether the registers can be loaded as they are: the quick answer for addresses in the lower half.
///
/// An FP image that a program wrote was sanitised where it came in (sigreturn), and XSAVE writes loadable ones only.
#[inline]
pub(super) fn is_loadable(regs: &UserRegs, fp: &FpState) -> bool {
    debug_assert!(fp.is_loadable(ring0_x86_64::features::XCR0_OFFERED), "an FP image was not sanitised");
    (regs.rip | regs.fs_base | regs.gs_base) >> 47 == 0
}

/// Makes registers and FP state loadable, or says which signal Linux would send.
pub(super) fn sanitize(regs: &mut UserRegs, fp: &mut FpState, features: &Features) -> Option<SignalInfo> {
    let fault = |signo| SignalInfo {
        signo,
        code: libc::SI_KERNEL,
        addr: 0,
        info: FaultInfo { trapno: vector::GENERAL_PROTECTION.into(), err: 0 },
    };
    if regs.rip >= 1 << 47 {
        // IRET takes any canonical address; the fetch there is what fails.
        return Some(if is_canonical(regs.rip) {
            SignalInfo {
                signo: libc::SIGSEGV,
                code: SEGV_MAPERR as i32,
                addr: regs.rip,
                info: page_fault_info(regs.rip, FETCH_BY_USER),
            }
        } else {
            fault(libc::SIGSEGV)
        });
    }
    // A non-canonical stack pointer is no fault until it is used; a non-canonical base cannot be loaded at all, and
    // arch_prctl(2) refuses it.
    if !is_canonical(regs.fs_base) || !is_canonical(regs.gs_base) {
        return Some(fault(libc::SIGSEGV));
    }
    if !fp.is_loadable(features.cpu.xcr0) {
        fp.sanitize(features.cpu.xcr0);
    }
    None
}

/// Page-fault error code of a fetch in user mode (SDM vol. 3A, 4.7).
const FETCH_BY_USER: u64 = PageFaultErrorCode::USER_MODE.union(PageFaultErrorCode::INSTRUCTION_FETCH).bits();

fn is_canonical(address: u64) -> bool {
    VirtAddr::try_new(address).is_ok()
}

/// Whether the TLB distinguishes address spaces.
pub(super) fn has_contexts(features: &Features) -> bool {
    features.cpu.pcid
}

/// The CR3 value for a root; `context` is a process-context identifier.
pub(super) fn root(table: u64, context: u64, flush: bool) -> u64 {
    // Bit 63 keeps the identifier's entries; it exists with PCID only.
    table | context | if flush || context == 0 { 0 } else { 1 << 63 }
}

/// Flushes pages here, if they are few and the table is loaded.
pub(super) fn flush_pages(space: &Space, start: u64, pages: u64, before: u64) {
    let done =
        pages <= FLUSH_PAGES_MAX && (0..pages).all(|i| entry::flush_page(space.root, start + i * 4096));
    if done {
        vcpu::note_flushed(space, before);
    }
}

/// x86 has no broadcast: other CPUs are told by the generation, and by kicks.
pub(super) fn flush_everywhere(_: u64, _: u64) -> bool {
    false
}

/// Table walkers see every store.
#[inline]
pub(super) fn publish() {}

/// x86 does not need break-before-make: never called between break and make.
pub(super) fn invalidate(_: u64, _: u64) -> bool {
    true
}

/// Bounds of the ring-0 entry code.
pub(super) fn ring0_text() -> (u64, u64) {
    super::image::ring0_text()
}

/// A program's table: a copy of the upper nodes of the shared part.
pub(super) fn user_tables(template: &Template, pool: Pool) -> Result<UserTables, pagetables::Error> {
    template.instantiate(pool)
}

/// Adds one to a count that only the calling thread writes, before anything that it reads afterwards.
#[inline(always)]
pub(super) fn bump(count: &AtomicU64) {
    // One instruction, where a store of the sum would be an exchange and two more.
    count.fetch_add(1, Ordering::SeqCst);
}

/// What user code stopped with, undecoded: the vector.
#[derive(Clone, Copy)]
pub(super) struct RawTrap(u64);

impl RawTrap {
    /// Whether it was a system call.
    #[inline(always)]
    pub(super) fn is_syscall(self) -> bool {
        self.0 == trap::SYSCALL
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
    loop {
        // SAFETY: the caller's.
        let vector = unsafe { entry::switch_to_user(cpu, regs, fp, root) };
        if vector != entry::NATIVE {
            return RawTrap(vector);
        }
        count(drops);
        // SAFETY: native, on a kernel stack, inside this worker's host loop.
        unsafe { entry::enter_guest(cpu) };
    }
}

/// The entry code has left everything as a system call needs it.
#[inline(always)]
pub(super) fn note_syscall(_: &mut UserRegs) {}

/// The reason that the entry code stored, when it was no system call.
pub(super) fn decode(cpu: *const Cpu, raw: RawTrap, _: &mut UserRegs) -> ring0::Trap {
    // SAFETY: this vCPU's block.
    let (error, mut detail) = unsafe { ((*cpu).trap_error, (*cpu).trap_cr2) };
    if raw.0 == u64::from(vector::DEBUG) {
        detail = entry::take_dr6().unwrap_or(Dr6Flags::STEP.bits());
    }
    trap::decode(raw.0, error, detail)
}
