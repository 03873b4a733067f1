//! Into and out of ring 0.
//!
//! # What hardware has done on arrival
//! * `syscall` (SDM vol. 2B): rip in rcx, rflags in r11, flags in SFMASK cleared (so IF, DF, AC, TF, NT and IOPL are 0),
//!   CS and SS from STAR. Nothing else: the stack pointer, GS and every other register are the interrupted code's, which
//!   is a program's or kernel code's. Which one: **rcx**. Kernel code is in the image's window, where no page is
//!   executable for a program, so that it cannot have executed a `syscall` there.
//! * an exception or interrupt: SS, rsp, rflags, CS, rip and for some an error code on the interrupt stack that the gate
//!   names. IF is cleared, but AC and DF are still the interrupted code's, so clean flags are loaded before kernel
//!   code runs.
//!
//! # What happens
//! * From user mode: registers go to the `UserRegs` at `Cpu::regs`, FP state to `Cpu::fp`, and the suspended
//!   [`switch_to_user`] returns the vector. No stack is used by the `syscall` path. It exists twice (`entry.S`):
//!   without a question for processors with FSGSBASE and XSAVEOPT, and for all the others.
//! * From kernel code: every register goes to `Cpu::exit_regs`, and `hlt` hands the context to the host. `hlt` exits
//!   without decoding on every processor; no interrupt controller is in the kernel.
//!   On bare metal nobody would take it (`Cpu::hosted` says so): there `hlt` is skipped.
//! * Behind each `hlt` the guest continues with whatever context [`enter_guest`] suspended, an ordinary
//!   function return.
//!
//! The entry code runs at its kernel-half address. The interrupt stack is left (by switching to the kernel stack) before
//! anything that may fault.

use crate::cpu::{Cpu, ExceptionStack, FpMode, KernelRegs};
use crate::regs::UserRegs;
use crate::tables::{gate_parameters, selector};
use crate::trap::SYSCALL;
use core::arch::{asm, global_asm, naked_asm};
use core::mem::offset_of;
use ring0::Exit;
use ring0::layout::{IMAGE_BASE, IMAGE_END};
use x86_64::registers::rflags::RFlags;

// Sign-extended 32-bit immediates of the `syscall` entry.
const _: () = assert!(IMAGE_END - 1 <= i32::MAX as u64);

/// RFLAGS bits that a program may set.
const USER_FLAGS: u64 = RFlags::CARRY_FLAG
    .union(RFlags::PARITY_FLAG)
    .union(RFlags::AUXILIARY_CARRY_FLAG)
    .union(RFlags::ZERO_FLAG)
    .union(RFlags::SIGN_FLAG)
    .union(RFlags::TRAP_FLAG)
    .union(RFlags::DIRECTION_FLAG)
    .union(RFlags::OVERFLOW_FLAG)
    .union(RFlags::RESUME_FLAG)
    .union(RFlags::ALIGNMENT_CHECK)
    .union(RFlags::ID)
    .bits();
const _: () = assert!(USER_FLAGS == 0x0025_0dd5);
/// IF and the always-one bit.
const USER_FLAGS_SET: u64 = RFlags::INTERRUPT_FLAG.bits() | crate::init::RFLAGS;
/// TF and RF: SYSRET does not restore them as wanted.
const EXACT_FLAGS: u64 = RFlags::TRAP_FLAG.union(RFlags::RESUME_FLAG).bits();

/// IA32_FS_BASE, IA32_GS_BASE and IA32_KERNEL_GS_BASE, for processors whose FSGSBASE instructions are hidden.
const MSR_FS_BASE: u32 = 0xc000_0100;
const MSR_GS_BASE: u32 = 0xc000_0101;
const MSR_KERNEL_GS_BASE: u32 = 0xc000_0102;

/// What [`switch_to_user`] returns when it was called natively and did nothing.
pub const NATIVE: u64 = u64::MAX;

const _: () = assert!(offset_of!(ExceptionStack, cpu) == 0);

/// Runs user code with the registers at `regs` and the FP state at `fp` until it traps. Returns the trap's vector
/// ([`SYSCALL`] for a system call), or [`NATIVE`] at once when the calling code does not run in the guest.
///
/// `root` is a CR3 value to load, or 0 to keep the loaded one. Registers that a return from a system call clobbers are
/// loaded exactly wherever they hold anything else than such a return leaves in them.
///
/// Inlined on purpose: user code changes every register, so the caller saves its own where it keeps something in them,
/// which a loop around this does once, not every time.
///
/// # Safety
/// In the guest: `cpu` is the low address of this vCPU's initialised block, `regs` and `fp` are valid arena memory, rip
/// and both segment bases are canonical, the FP image is sanitised, and the table in force maps image, arena and
/// kernel half.
#[inline(always)]
pub unsafe fn switch_to_user(
    cpu: *mut Cpu,
    regs: *mut UserRegs,
    fp: *mut crate::fp::FpState,
    root: u64,
) -> u64 {
    let vector: u64;
    // SAFETY: the caller's. `install` has set the target, which preserves the stack pointer and nothing else: rbx and rbp
    // are saved here, since the compiler lets nobody name them; flags are clean as in any kernel code.
    unsafe {
        asm!(
            "push rbx", "push rbp",
            "call [rdi + {switch}]",
            "pop rbp", "pop rbx",
            switch = const offset_of!(Cpu, switch),
            inout("rdi") cpu => _, inout("rsi") regs => _, inout("rdx") fp => _, inout("rcx") root => _,
            lateout("rax") vector,
            lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
            clobber_abi("sysv64"),
        );
    }
    vector
}

/// Called natively: suspends the calling context and returns to the host loop, which runs the guest; there the call
/// returns.
///
/// # Safety
/// Called natively on a kernel stack in the arena, on the thread whose host loop is inside [`resume_native`] for `cpu`.
#[unsafe(naked)]
pub unsafe extern "C" fn enter_guest(cpu: *mut Cpu) {
    naked_asm!(
        "push rbp", "push rbx", "push r12", "push r13", "push r14", "push r15",
        "sub rsp, 8", "stmxcsr [rsp]", "fnstcw [rsp + 4]",
        "mov [rdi + {context_sp}], rsp",
        "mov rsp, [rdi + {host_sp}]",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbx", "pop rbp",
        "ret",
        context_sp = const offset_of!(Cpu, context_sp),
        host_sp = const offset_of!(Cpu, host_sp),
    )
}

/// Called in the guest: suspends the calling context and hands it to the host, where the call returns.
///
/// # Safety
/// Called in the guest on a kernel stack in the arena; `cpu` is this vCPU's block.
#[unsafe(naked)]
pub unsafe extern "C" fn leave_guest(cpu: *mut Cpu) {
    naked_asm!(
        "push rbp", "push rbx", "push r12", "push r13", "push r14", "push r15",
        "sub rsp, 8", "stmxcsr [rsp]", "fnstcw [rsp + 4]",
        "mov [rdi + {context_sp}], rsp",
        "mov qword ptr [rdi + {exit}], {leave}",
        "hlt",
        "jmp ring0_continue",
        context_sp = const offset_of!(Cpu, context_sp),
        exit = const offset_of!(Cpu, exit),
        leave = const Exit::Leave as u64,
    )
}

/// Called by the host loop: continues the context natively, in the way that `exit` (an [`Exit`] value) says. Returns
/// when that context calls [`enter_guest`].
///
/// # Safety
/// `cpu` holds a context suspended in that way: `context_sp` for [`Exit::Leave`], `exit_regs` and `exit_fp` else, with rip
/// in the image's text and rsp on a kernel stack.
#[unsafe(naked)]
pub unsafe extern "C" fn resume_native(cpu: *mut Cpu, exit: u64) {
    naked_asm!(
        "push rbp", "push rbx", "push r12", "push r13", "push r14", "push r15",
        "mov [rdi + {host_sp}], rsp",
        "cmp esi, {leave}",
        "jne 2f",
        "mov rsp, [rdi + {context_sp}]",
        "ldmxcsr [rsp]", "fldcw [rsp + 4]", "add rsp, 8",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbx", "pop rbp",
        "ret",
        "2:",
        "mov eax, [rdi + {fp_mask}]",
        "mov edx, [rdi + {fp_mask} + 4]",
        "cmp dword ptr [rdi + {fp_mode}], 0",
        "je 3f",
        "xrstor64 [rdi + {exit_fp}]",
        "jmp 4f",
        "3: fxrstor64 [rdi + {exit_fp}]",
        "4:",
        "mov rbx, [rdi + {regs} + {rbx}]", "mov rbp, [rdi + {regs} + {rbp}]", "mov rax, [rdi + {regs} + {rax}]",
        "mov rdx, [rdi + {regs} + {rdx}]", "mov r8, [rdi + {regs} + {r8}]", "mov r9, [rdi + {regs} + {r9}]",
        "mov r10, [rdi + {regs} + {r10}]", "mov r11, [rdi + {regs} + {r11}]", "mov r12, [rdi + {regs} + {r12}]",
        "mov r13, [rdi + {regs} + {r13}]", "mov r14, [rdi + {regs} + {r14}]", "mov r15, [rdi + {regs} + {r15}]",
        "cmp esi, {host_call}",
        "jne 5f",
        // A host call: `syscall` clobbers rcx anyway, so it can carry the block's address and then the target.
        "mov rsi, [rdi + {regs} + {rsi}]",
        "mov rcx, rdi",
        "mov rdi, [rdi + {regs} + {rdi}]",
        "push [rcx + {regs} + {rflags}]",
        "popfq",
        "mov rsp, [rcx + {regs} + {rsp}]",
        "jmp [rcx + {regs} + {rip}]",
        "5:",
        // A fault: every register is live. The frame for IRET was completed in place by the host loop.
        "mov rsi, [rdi + {regs} + {rsi}]",
        "mov rcx, [rdi + {regs} + {rcx}]",
        "lea rsp, [rdi + {regs} + {rip}]",
        "mov rdi, [rdi + {regs} + {rdi}]",
        "iretq",
        host_sp = const offset_of!(Cpu, host_sp),
        context_sp = const offset_of!(Cpu, context_sp),
        leave = const Exit::Leave as u64,
        host_call = const Exit::HostCall as u64,
        fp_mask = const offset_of!(Cpu, fp_mask),
        fp_mode = const offset_of!(Cpu, fp_mode),
        exit_fp = const offset_of!(Cpu, exit_fp),
        regs = const offset_of!(Cpu, exit_regs),
        rax = const offset_of!(KernelRegs, rax),
        rbx = const offset_of!(KernelRegs, rbx),
        rcx = const offset_of!(KernelRegs, rcx),
        rdx = const offset_of!(KernelRegs, rdx),
        rsi = const offset_of!(KernelRegs, rsi),
        rdi = const offset_of!(KernelRegs, rdi),
        rbp = const offset_of!(KernelRegs, rbp),
        r8 = const offset_of!(KernelRegs, r8),
        r9 = const offset_of!(KernelRegs, r9),
        r10 = const offset_of!(KernelRegs, r10),
        r11 = const offset_of!(KernelRegs, r11),
        r12 = const offset_of!(KernelRegs, r12),
        r13 = const offset_of!(KernelRegs, r13),
        r14 = const offset_of!(KernelRegs, r14),
        r15 = const offset_of!(KernelRegs, r15),
        rip = const offset_of!(KernelRegs, rip),
        rflags = const offset_of!(KernelRegs, rflags),
        rsp = const offset_of!(KernelRegs, rsp),
    )
}

global_asm!(
    include_str!("entry.S"),
    image_base = const IMAGE_BASE,
    image_last = const IMAGE_END - 1,
    exact_flags = const EXACT_FLAGS,
    user_flags = const USER_FLAGS,
    flags_set = const USER_FLAGS_SET,
    user_ss = const selector::USER_DATA,
    user_cs = const selector::USER_CODE,
    syscall = const SYSCALL,
    debug = const crate::trap::vector::DEBUG,
    host_call = const Exit::HostCall as u64,
    fault = const Exit::Fault as u64,
    kernel_cs = const selector::KERNEL_CODE,
    kernel_ss = const selector::KERNEL_DATA,
    stack_size = const crate::cpu::STACK_SIZE,
    scratch = const offset_of!(Cpu, scratch),
    cpu_regs = const offset_of!(Cpu, regs),
    cpu_fp = const offset_of!(Cpu, fp),
    fp_mask = const offset_of!(Cpu, fp_mask),
    fp_mode = const offset_of!(Cpu, fp_mode),
    mxcsr = const offset_of!(Cpu, kernel_mxcsr),
    kernel_sp = const offset_of!(Cpu, kernel_sp),
    kernel_fs_base = const offset_of!(Cpu, kernel_fs_base),
    fsgsbase = const offset_of!(Cpu, fsgsbase),
    msr_fs_base = const MSR_FS_BASE,
    msr_gs_base = const MSR_GS_BASE,
    msr_kernel_gs_base = const MSR_KERNEL_GS_BASE,
    trap_error = const offset_of!(Cpu, trap_error),
    trap_cr2 = const offset_of!(Cpu, trap_cr2),
    context_sp = const offset_of!(Cpu, context_sp),
    hosted = const offset_of!(Cpu, hosted),
    exit = const offset_of!(Cpu, exit),
    exit_vector = const offset_of!(Cpu, exit_vector),
    exit_error = const offset_of!(Cpu, exit_error),
    exit_cr2 = const offset_of!(Cpu, exit_cr2),
    exit_fp = const offset_of!(Cpu, exit_fp),
    x = const offset_of!(Cpu, exit_regs),
    x_rax = const offset_of!(KernelRegs, rax),
    x_rbx = const offset_of!(KernelRegs, rbx),
    x_rcx = const offset_of!(KernelRegs, rcx),
    x_rdx = const offset_of!(KernelRegs, rdx),
    x_rsi = const offset_of!(KernelRegs, rsi),
    x_rdi = const offset_of!(KernelRegs, rdi),
    x_rbp = const offset_of!(KernelRegs, rbp),
    x_r8 = const offset_of!(KernelRegs, r8),
    x_r9 = const offset_of!(KernelRegs, r9),
    x_r10 = const offset_of!(KernelRegs, r10),
    x_r11 = const offset_of!(KernelRegs, r11),
    x_r12 = const offset_of!(KernelRegs, r12),
    x_r13 = const offset_of!(KernelRegs, r13),
    x_r14 = const offset_of!(KernelRegs, r14),
    x_r15 = const offset_of!(KernelRegs, r15),
    x_rip = const offset_of!(KernelRegs, rip),
    x_rflags = const offset_of!(KernelRegs, rflags),
    x_rsp = const offset_of!(KernelRegs, rsp),
    fs_base = const offset_of!(UserRegs, fs_base),
    gs_base = const offset_of!(UserRegs, gs_base),
    rip = const offset_of!(UserRegs, rip),
    eflags = const offset_of!(UserRegs, eflags),
    orig_rax = const offset_of!(UserRegs, orig_rax),
    rax = const offset_of!(UserRegs, rax),
    rbx = const offset_of!(UserRegs, rbx),
    rcx = const offset_of!(UserRegs, rcx),
    rdx = const offset_of!(UserRegs, rdx),
    rsi = const offset_of!(UserRegs, rsi),
    rdi = const offset_of!(UserRegs, rdi),
    rbp = const offset_of!(UserRegs, rbp),
    rsp = const offset_of!(UserRegs, rsp),
    r8 = const offset_of!(UserRegs, r8),
    r9 = const offset_of!(UserRegs, r9),
    r10 = const offset_of!(UserRegs, r10),
    r11 = const offset_of!(UserRegs, r11),
    r12 = const offset_of!(UserRegs, r12),
    r13 = const offset_of!(UserRegs, r13),
    r14 = const offset_of!(UserRegs, r14),
    r15 = const offset_of!(UserRegs, r15),
);

unsafe extern "C" {
    fn ring0_switch_quick();
    fn ring0_switch_asking();
    fn ring0_syscall_quick();
    fn ring0_syscall_asking();
    fn ring0_continue();
    fn ring0_exception_stubs();
}

/// Low address of the `syscall` entry for a block that [`install`] has prepared.
pub fn syscall_entry(cpu: &Cpu) -> u64 {
    let quick = cpu.switch == ring0_switch_quick as *const () as u64;
    (if quick { ring0_syscall_quick } else { ring0_syscall_asking }) as *const () as u64
}

/// Low address at which a vCPU starts: it continues the context at `Cpu::context_sp`.
pub fn start() -> u64 {
    ring0_continue as *const () as u64
}

/// Chooses the code that fits an initialised block's processor, and fills its IDT with the gates of every vector that
/// has a handler, at their kernel-half addresses.
pub fn install(cpu: &mut Cpu) {
    let quick = cpu.fsgsbase != 0 && cpu.fp_mode == FpMode::Xsaveopt as u64;
    cpu.switch = (if quick { ring0_switch_quick } else { ring0_switch_asking }) as *const () as u64;
    let stubs = ring0_exception_stubs as *const () as u64 | crate::cpu::KERNEL_HALF;
    for (vector, gate) in cpu.idt.iter_mut().enumerate() {
        if let Some((ist, dpl)) = gate_parameters(vector as u8) {
            *gate = crate::tables::Gate::new(stubs + vector as u64 * 16, ist, dpl);
        }
    }
}

/// Reads and clears DR6 (which single-steps and breakpoints leave behind), if the calling code runs in the guest.
pub fn take_dr6() -> Option<u64> {
    let value: u64;
    // SAFETY: DR6 is only touched where the processor runs at ring 0; the check and the access cannot be separated by a
    // change of engine, because nothing between them can leave the guest.
    unsafe {
        core::arch::asm!(
            "mov {cs:e}, cs", "mov {value}, -1", "test {cs:l}, 3", "jnz 2f",
            "mov {value}, dr6", "mov {cs:e}, 0xffff0ff0", "mov dr6, {cs}", "2:",
            cs = out(reg) _, value = out(reg) value, options(nomem, nostack)
        );
    }
    (value != u64::MAX).then_some(value)
}

/// Invalidates this vCPU's translation of `va` in the loaded table, if the calling code runs in the guest and the loaded
/// table is `root`.
pub fn flush_page(root: u64, va: u64) -> bool {
    let done: u64;
    // SAFETY: as for `take_dr6`; an invalidation has no effect on memory.
    unsafe {
        core::arch::asm!(
            "mov {t:e}, cs", "xor {done:e}, {done:e}", "test {t:l}, 3", "jnz 2f",
            "mov {t}, cr3", "xor {t}, {root}", "shr {t}, 12", "jnz 2f",
            "invlpg [{va}]", "mov {done:e}, 1", "2:",
            t = out(reg) _, done = out(reg) done, root = in(reg) root, va = in(reg) va, options(nostack)
        );
    }
    done != 0
}

/// Whether the calling code runs in the guest.
pub fn in_guest() -> bool {
    let cs: u64;
    // SAFETY: reads a selector.
    unsafe { core::arch::asm!("mov {cs:e}, cs", cs = out(reg) cs, options(nomem, nostack)) };
    cs & 3 == 0
}
