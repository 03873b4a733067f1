//! Into and out of ring 0.
//!
//! # What hardware has done on arrival
//! * `syscall` (SDM vol. 2B): rip in rcx, rflags in r11, flags in SFMASK cleared (so IF, DF, AC, TF, NT and IOPL are 0),
//!   CS and SS from STAR. Nothing else: the stack pointer, GS and every other register are the interrupted code's, which
//!   is a program's or kernel code's. Which one: **IOPL in r11**. The exits to user mode set IOPL to 1 (it grants ring 3
//!   nothing), kernel code always runs with 0.
//! * an exception or interrupt: SS, rsp, rflags, CS, rip and for some an error code on the interrupt stack that the gate
//!   names. IF is cleared, but IOPL, AC and DF are still the interrupted code's, so clean flags are loaded before kernel
//!   code runs (else the next host call would look like the program's).
//!
//! # What happens
//! * From user mode: registers go to the `UserRegs` at `Cpu::regs`, FP state to `Cpu::fp`, and the suspended
//!   [`switch_to_user`] returns the vector. No stack is used by the `syscall` path.
//! * From kernel code: every register goes to `Cpu::exit_regs`, and `hlt` hands the context to the host. `hlt` exits
//!   without decoding on every processor; no interrupt controller is in the kernel.
//!   On bare metal nobody would take it (`Cpu::hosted` says so): there `hlt` is skipped.
//! * Behind each `hlt` the guest continues with whatever context [`enter_guest`] suspended, an ordinary
//!   function return.
//!
//! The entry code runs at its kernel-half address. The interrupt stack is left (by switching to the kernel stack) before
//! anything that may fault.

use crate::cpu::{Cpu, ExceptionStack, KernelRegs};
use crate::regs::UserRegs;
use crate::tables::{gate_parameters, selector};
use crate::trap::SYSCALL;
use core::arch::{global_asm, naked_asm};
use core::mem::offset_of;
use ring0::Exit;

/// RFLAGS bits that a program may set: CF, PF, AF, ZF, SF, TF, DF, OF, NT excluded, RF, AC, ID.
const USER_FLAGS: u64 = 0x0025_0dd5;
/// IF, the always-one bit, and IOPL = 1, the marker of user code.
const USER_FLAGS_SET: u64 = 1 << 9 | 1 << 1 | MARKER;
/// IOPL = 1.
const MARKER: u64 = 1 << 12;
/// The IOPL field.
const IOPL: u64 = 3 << 12;
/// TF and RF: SYSRET does not restore them as wanted.
const EXACT_FLAGS: u64 = 1 << 8 | 1 << 16;

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
/// `root` is a CR3 value to load, or 0 to keep the loaded one. `exact` forces the exit through IRET.
///
/// # Safety
/// In the guest: `cpu` is the low address of this vCPU's initialised block, `regs` and `fp` are valid arena memory, rip
/// and both segment bases are canonical, the FP image is sanitised, and the table in force maps image, arena and
/// kernel half.
#[unsafe(naked)]
pub unsafe extern "C" fn switch_to_user(
    cpu: *mut Cpu,
    regs: *mut UserRegs,
    fp: *mut crate::fp::FpState,
    root: u64,
    exact: u64,
) -> u64 {
    naked_asm!(
        "mov eax, cs",
        "test al, 3",
        "mov rax, -1",
        "jz 2f",
        "ret",
        "2:",
        "push rbp", "push rbx", "push r12", "push r13", "push r14", "push r15",
        "mov [rdi + {kernel_sp}], rsp",
        "mov [rdi + {regs}], rsi",
        "mov [rdi + {fp}], rdx",
        "test rcx, rcx",
        "jz 3f",
        "mov cr3, rcx",
        "3:",
        "mov r9, rdx",
        "mov eax, [rdi + {fp_mask}]",
        "mov edx, [rdi + {fp_mask} + 4]",
        "cmp dword ptr [rdi + {fp_mode}], 0",
        "je 4f",
        "xrstor64 [r9]",
        "jmp 5f",
        "4: fxrstor64 [r9]",
        "5:",
        "cmp dword ptr [rdi + {fsgsbase}], 0",
        "je 7f",
        "mov rax, [rsi + {fs_base}]",
        "wrfsbase rax",
        "swapgs",
        "mov rax, [rsi + {gs_base}]",
        "wrgsbase rax",
        "8:",
        "mov rcx, [rsi + {rip}]",
        "mov r11, [rsi + {eflags}]",
        // SYSRET loads rip from rcx and rflags from r11: right only where the program's rcx and r11 hold just that.
        "test r8, r8",
        "jnz 6f",
        "cmp rcx, [rsi + {rcx}]",
        "jne 6f",
        "cmp r11, [rsi + {r11}]",
        "jne 6f",
        "test r11d, {exact_flags}",
        "jnz 6f",
        "and r11d, {user_flags}",
        "or r11d, {flags_set}",
        "mov rbx, [rsi + {rbx}]", "mov rbp, [rsi + {rbp}]", "mov r12, [rsi + {r12}]", "mov r13, [rsi + {r13}]",
        "mov r14, [rsi + {r14}]", "mov r15, [rsi + {r15}]", "mov rax, [rsi + {rax}]", "mov rdx, [rsi + {rdx}]",
        "mov rdi, [rsi + {rdi}]", "mov r8, [rsi + {r8}]", "mov r9, [rsi + {r9}]", "mov r10, [rsi + {r10}]",
        "mov rsp, [rsi + {rsp}]",
        "mov rsi, [rsi + {rsi}]",
        "sysretq",
        "6:",
        "and r11d, {user_flags}",
        "or r11d, {flags_set}",
        "push {user_ss}",
        "push [rsi + {rsp}]",
        "push r11",
        "push {user_cs}",
        "push rcx",
        "mov rbx, [rsi + {rbx}]", "mov rbp, [rsi + {rbp}]", "mov r12, [rsi + {r12}]", "mov r13, [rsi + {r13}]",
        "mov r14, [rsi + {r14}]", "mov r15, [rsi + {r15}]", "mov rax, [rsi + {rax}]", "mov rdx, [rsi + {rdx}]",
        "mov rcx, [rsi + {rcx}]", "mov r11, [rsi + {r11}]",
        "mov rdi, [rsi + {rdi}]", "mov r8, [rsi + {r8}]", "mov r9, [rsi + {r9}]", "mov r10, [rsi + {r10}]",
        "mov rsi, [rsi + {rsi}]",
        "iretq",
        // Without FSGSBASE: the same through the registers' MSRs.
        "7:",
        "mov ecx, {msr_fs_base}",
        "mov eax, [rsi + {fs_base}]",
        "mov edx, [rsi + {fs_base} + 4]",
        "wrmsr",
        "mov ecx, {msr_kernel_gs_base}",
        "mov eax, [rsi + {gs_base}]",
        "mov edx, [rsi + {gs_base} + 4]",
        "wrmsr",
        "swapgs",
        "jmp 8b",
        kernel_sp = const offset_of!(Cpu, kernel_sp),
        regs = const offset_of!(Cpu, regs),
        fp = const offset_of!(Cpu, fp),
        fp_mask = const offset_of!(Cpu, fp_mask),
        fp_mode = const offset_of!(Cpu, fp_mode),
        fsgsbase = const offset_of!(Cpu, fsgsbase),
        msr_fs_base = const MSR_FS_BASE,
        msr_kernel_gs_base = const MSR_KERNEL_GS_BASE,
        fs_base = const offset_of!(UserRegs, fs_base),
        gs_base = const offset_of!(UserRegs, gs_base),
        rip = const offset_of!(UserRegs, rip),
        eflags = const offset_of!(UserRegs, eflags),
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
        exact_flags = const EXACT_FLAGS,
        user_flags = const USER_FLAGS,
        flags_set = const USER_FLAGS_SET,
        user_ss = const selector::USER_DATA,
        user_cs = const selector::USER_CODE,
    )
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
    ".pushsection .ring0.text, \"ax\", @progbits",
    ".balign 64",
    ".globl ring0_syscall_entry",
    "ring0_syscall_entry:",
    "test r11d, {marker}",
    "jz 5f",
    "swapgs",
    // Without the fence a mispredicted branch would run on with the program's GS base (CVE-2019-1125).
    "lfence",
    "mov gs:[{scratch}], rsp",
    "mov rsp, gs:[{cpu_regs}]",
    "mov [rsp + {rax}], rax",
    "mov [rsp + {orig_rax}], rax",
    "mov [rsp + {rcx}], rcx",
    "mov [rsp + {rip}], rcx",
    "and r11d, {not_iopl}",
    "mov [rsp + {r11}], r11",
    "mov [rsp + {eflags}], r11",
    "mov rax, gs:[{scratch}]",
    "mov [rsp + {rsp_}], rax",
    "mov [rsp + {rbx}], rbx", "mov [rsp + {rdx}], rdx", "mov [rsp + {rsi}], rsi", "mov [rsp + {rdi}], rdi",
    "mov [rsp + {rbp}], rbp", "mov [rsp + {r8}], r8", "mov [rsp + {r9}], r9", "mov [rsp + {r10}], r10",
    "mov [rsp + {r12}], r12", "mov [rsp + {r13}], r13", "mov [rsp + {r14}], r14", "mov [rsp + {r15}], r15",
    "mov ebx, {syscall}",
    "mov rdi, rsp",

    // rdi = UserRegs, rbx = vector, GS = the block, general registers saved.
    "ring0_return_from_user:",
    "cmp dword ptr gs:[{fsgsbase}], 0",
    "je 13f",
    "rdfsbase rax",
    "mov [rdi + {fs_base}], rax",
    "swapgs", "rdgsbase rax", "swapgs",
    "mov [rdi + {gs_base}], rax",
    "mov rax, gs:[{kernel_fs_base}]",
    "wrfsbase rax",
    "12:",
    "mov rcx, gs:[{cpu_fp}]",
    "mov eax, gs:[{fp_mask}]",
    "mov edx, gs:[{fp_mask} + 4]",
    "cmp dword ptr gs:[{fp_mode}], 1",
    "jb 3f", "je 2f",
    "xsaveopt64 [rcx]",
    "jmp 4f",
    "2: xsave64 [rcx]",
    "jmp 4f",
    "3: fxsave64 [rcx]",
    "4:",
    "fninit",
    "ldmxcsr gs:[{mxcsr}]",
    "mov rsp, gs:[{kernel_sp}]",
    "mov rax, rbx",
    "pop r15", "pop r14", "pop r13", "pop r12", "pop rbx", "pop rbp",
    "ret",

    // Without FSGSBASE. The program cannot write its bases then, but loading a selector changes them.
    "13:",
    "mov ecx, {msr_fs_base}",
    "rdmsr",
    "mov [rdi + {fs_base}], eax",
    "mov [rdi + {fs_base} + 4], edx",
    "mov eax, gs:[{kernel_fs_base}]",
    "mov edx, gs:[{kernel_fs_base} + 4]",
    "wrmsr",
    "mov ecx, {msr_kernel_gs_base}",
    "rdmsr",
    "mov [rdi + {gs_base}], eax",
    "mov [rdi + {gs_base} + 4], edx",
    "jmp 12b",

    // A host call: `syscall` in kernel code. The host executes it again, natively, at the same instruction.
    "5:",
    "lfence",
    "mov gs:[{x} + {x_rax}], rax",
    "mov gs:[{x} + {x_rsi}], rsi", "mov gs:[{x} + {x_rdi}], rdi", "mov gs:[{x} + {x_rdx}], rdx",
    "sub rcx, 2",
    "mov gs:[{x} + {x_rip}], rcx",
    "mov gs:[{x} + {x_rcx}], rcx",
    "mov gs:[{x} + {x_rflags}], r11",
    "mov gs:[{x} + {x_rsp}], rsp",
    "mov esi, {host_call}",
    "ring0_exit:",
    // rax, rcx, rdx, rsi, rdi, rip, rflags and rsp are saved; rsi = the reason; GS = the block.
    "mov gs:[{x} + {x_rbx}], rbx", "mov gs:[{x} + {x_rbp}], rbp",
    "mov gs:[{x} + {x_r8}], r8", "mov gs:[{x} + {x_r9}], r9", "mov gs:[{x} + {x_r10}], r10",
    "mov gs:[{x} + {x_r11}], r11", "mov gs:[{x} + {x_r12}], r12", "mov gs:[{x} + {x_r13}], r13",
    "mov gs:[{x} + {x_r14}], r14", "mov gs:[{x} + {x_r15}], r15",
    "mov eax, gs:[{fp_mask}]",
    "mov edx, gs:[{fp_mask} + 4]",
    "cmp dword ptr gs:[{fp_mode}], 0",
    "je 6f",
    "xsave64 gs:[{exit_fp}]",
    "jmp 7f",
    "6: fxsave64 gs:[{exit_fp}]",
    "7:",
    "mov gs:[{exit}], rsi",
    "cmp qword ptr gs:[{hosted}], 0",
    "je ring0_continue",
    "hlt",

    // The host ran the guest again: continue what `enter_guest` suspended. The first entry of a vCPU is here too.
    ".globl ring0_continue",
    "ring0_continue:",
    "mov rsp, gs:[{context_sp}]",
    // An IRET ends the blocking of NMIs, should the last exit have come from one.
    "mov rax, rsp",
    "mov ecx, {kernel_ss}",
    "push rcx", "push rax", "push 2", "push {kernel_cs}",
    "lea rcx, [rip + 8f]",
    "push rcx",
    "iretq",
    "8:",
    "ldmxcsr [rsp]", "fldcw [rsp + 4]", "add rsp, 8",
    "pop r15", "pop r14", "pop r13", "pop r12", "pop rbx", "pop rbp",
    "ret",

    // Exceptions and interrupts: [rsp] = vector, error code, rip, cs, rflags, rsp, ss.
    ".balign 16",
    "ring0_exception:",
    "test byte ptr [rsp + 24], 3",
    "jz 9f",
    "swapgs",
    "lfence",
    "push rdi",
    "mov rdi, gs:[{cpu_regs}]",
    "mov [rdi + {rax}], rax", "mov [rdi + {rbx}], rbx", "mov [rdi + {rcx}], rcx", "mov [rdi + {rdx}], rdx",
    "mov [rdi + {rsi}], rsi", "mov [rdi + {rbp}], rbp", "mov [rdi + {r8}], r8", "mov [rdi + {r9}], r9",
    "mov [rdi + {r10}], r10", "mov [rdi + {r11}], r11", "mov [rdi + {r12}], r12", "mov [rdi + {r13}], r13",
    "mov [rdi + {r14}], r14", "mov [rdi + {r15}], r15",
    "pop rax", "mov [rdi + {rdi_}], rax",
    "mov rbx, [rsp]",
    "mov rax, [rsp + 8]", "mov gs:[{trap_error}], rax",
    "mov rax, [rsp + 16]", "mov [rdi + {rip}], rax",
    "mov rax, [rsp + 32]", "and eax, {not_iopl}", "mov [rdi + {eflags}], rax",
    "mov rax, [rsp + 40]", "mov [rdi + {rsp_}], rax",
    "mov qword ptr [rdi + {orig_rax}], -1",
    "mov rax, cr2", "mov gs:[{trap_cr2}], rax",
    // The kernel stack, clean flags, and a stack segment that is not the null one an interrupt leaves. IRET also ends
    // NMI blocking.
    "mov rsp, gs:[{kernel_sp}]",
    "mov rax, rsp",
    "mov ecx, {kernel_ss}",
    "push rcx", "push rax", "push 2", "push {kernel_cs}",
    "lea rcx, [rip + ring0_return_from_user]",
    "push rcx",
    "iretq",

    // From kernel code. GS is not to be trusted here (an NMI may hit between swapgs and sysret): the block is named in
    // the first word of the interrupt stack.
    "9:",
    "lfence",
    "cmp qword ptr [rsp], {debug}",
    "je 10f",
    "push rax",
    "mov rax, rsp",
    "and rax, -{stack_size}",
    "mov rax, [rax]",
    "mov [rax + {x} + {x_rsi}], rsi", "mov [rax + {x} + {x_rdi}], rdi", "mov [rax + {x} + {x_rdx}], rdx",
    "pop rsi", "mov [rax + {x} + {x_rax}], rsi",
    "mov rsi, [rsp]", "mov [rax + {exit_vector}], rsi",
    "mov rsi, [rsp + 8]", "mov [rax + {exit_error}], rsi",
    "mov rsi, [rsp + 16]", "mov [rax + {x} + {x_rip}], rsi",
    "mov rsi, [rsp + 32]", "mov [rax + {x} + {x_rflags}], rsi",
    "mov rsi, [rsp + 40]", "mov [rax + {x} + {x_rsp}], rsi",
    "mov rsi, cr2", "mov [rax + {exit_cr2}], rsi",
    "mov [rax + {x} + {x_rcx}], rcx",
    "cmp dword ptr [rax + {fsgsbase}], 0",
    "je 14f",
    "wrgsbase rax",
    "mov esi, {fault}",
    "jmp ring0_exit",
    "14:",
    "mov rdx, rax",
    "shr rdx, 32",
    "mov ecx, {msr_gs_base}",
    "wrmsr",
    "mov esi, {fault}",
    "jmp ring0_exit",
    // A debug exception in kernel code is one that the program left pending (MOV SS then SYSCALL): drop it.
    "10:",
    "add rsp, 16",
    "iretq",

    // Stubs, one for each vector below 33: 16 bytes apart.
    ".balign 16",
    ".globl ring0_exception_stubs",
    "ring0_exception_stubs:",
    ".set vector, 0",
    ".rept 33",
    ".balign 16",
    ".if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30",
    ".else",
    "push 0",
    ".endif",
    "push vector",
    "jmp ring0_exception",
    ".set vector, vector + 1",
    ".endr",
    ".popsection",
    marker = const MARKER,
    not_iopl = const !IOPL as u32,
    syscall = const SYSCALL,
    debug = const crate::trap::DEBUG,
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
    rdi_ = const offset_of!(UserRegs, rdi),
    rbp = const offset_of!(UserRegs, rbp),
    rsp_ = const offset_of!(UserRegs, rsp),
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
    fn ring0_syscall_entry();
    fn ring0_continue();
    fn ring0_exception_stubs();
}

/// Low address of the `syscall` entry.
pub fn syscall_entry() -> u64 {
    ring0_syscall_entry as *const () as u64
}

/// Low address at which a vCPU starts: it continues the context at `Cpu::context_sp`.
pub fn start() -> u64 {
    ring0_continue as *const () as u64
}

/// Fills a block's IDT with the gates of every vector that has a handler, at their kernel-half addresses.
pub fn fill_idt(cpu: &mut Cpu) {
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
