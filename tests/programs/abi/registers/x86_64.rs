//! The registers of x86_64, loaded, stored and named.

use core::arch::{asm, global_asm};

/// rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8 to r15.
pub(super) const NAMES: [&str; 16] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];
/// The system call's number and its result, its first three arguments, the stack pointer.
pub(super) const NUMBER: usize = 0;
pub(super) const RESULT: usize = 0;
pub(super) const ARGUMENTS: [usize; 3] = [5, 4, 3];
pub(super) const STACK: usize = 7;
/// What `syscall` itself overwrites: rcx and r11.
pub(super) const CLOBBERED: &[usize] = &[2, 11];
/// CF, PF, AF, ZF, SF, DF, OF.
pub(super) const FLAGS: u64 = 0xcd5;
/// The flags that the loop of `abi_spin` leaves alone: CF and DF.
pub(super) const FLAGS_OF_SPIN: u64 = 0x401;
/// What goes into rsp: no address at all.
pub(super) const ODD_STACK: u64 = 0x1234_5678_9abc_def1;

/// Everything that a routine loads or stores.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct State {
    pub(super) general: [u64; 16],
    pub(super) flags: u64,
    pad: [u64; 7],
    /// FXSAVE: x87, MXCSR, XMM.
    fx: [u8; 512],
    ymm: [[u8; 32]; 16],
    /// Whether to touch YMM.
    avx: u64,
}

/// What the routines load; what they store.
#[unsafe(no_mangle)]
pub(super) static mut ABI_IN: State = State::NONE;
#[unsafe(no_mangle)]
pub(super) static mut ABI_OUT: State = State::NONE;
/// Rounds of `abi_spin`.
#[unsafe(no_mangle)]
pub(super) static mut ABI_ROUNDS: u32 = 0;
/// The page that `abi_fault` touches.
#[repr(align(4096))]
pub(super) struct Page(#[expect(dead_code, reason = "touched by assembly")] [u8; 4096]);
#[unsafe(no_mangle)]
pub(super) static mut ABI_PAGE: Page = Page([0; 4096]);

global_asm!(
    ".bss",
    ".balign 8",
    "abi_saved_sp: .quad 0",
    ".text",
    ".macro abi_routine name, body:vararg",
    ".globl \\name",
    "\\name:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rip + abi_saved_sp], rsp",
    "lea rax, [rip + ABI_IN]",
    "fxrstor64 [rax + {fx}]",
    "cmp qword ptr [rax + {avx}], 0",
    "je 2f",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
    "vmovdqu ymm\\n, [rax + {ymm} + 32 * \\n]",
    ".endr",
    "2:",
    "push qword ptr [rax + {flags}]",
    "popfq",
    "mov rbx, [rax + 8]",
    "mov rcx, [rax + 16]",
    "mov rdx, [rax + 24]",
    "mov rsi, [rax + 32]",
    "mov rdi, [rax + 40]",
    "mov rbp, [rax + 48]",
    "mov rsp, [rax + 56]",
    ".irp n, 8, 9, 10, 11, 12, 13, 14, 15",
    "mov r\\n, [rax + 8 * \\n]",
    ".endr",
    "mov rax, [rax]",
    "\\body",
    "mov [rip + ABI_OUT], rax",
    "lea rax, [rip + ABI_OUT]",
    "mov [rax + 8], rbx",
    "mov [rax + 16], rcx",
    "mov [rax + 24], rdx",
    "mov [rax + 32], rsi",
    "mov [rax + 40], rdi",
    "mov [rax + 48], rbp",
    "mov [rax + 56], rsp",
    ".irp n, 8, 9, 10, 11, 12, 13, 14, 15",
    "mov [rax + 8 * \\n], r\\n",
    ".endr",
    "mov rsp, [rip + abi_saved_sp]",
    "pushfq",
    "pop qword ptr [rax + {flags}]",
    "cld",
    "fxsave64 [rax + {fx}]",
    "cmp qword ptr [rip + ABI_IN + {avx}], 0",
    "je 3f",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
    "vmovdqu [rax + {ymm} + 32 * \\n], ymm\\n",
    ".endr",
    "3:",
    "fninit",
    "push 0x1f80",
    "ldmxcsr [rsp]",
    "pop rax",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".endm",
    "abi_routine abi_syscall, syscall",
    "abi_routine abi_fault, mov byte ptr [rip + ABI_PAGE], 1",
    "abi_routine abi_break, int3",
    // In a macro of its own: a semicolon would end the statement above, not the one in it.
    ".macro abi_spin_body",
    "4: dec dword ptr [rip + ABI_ROUNDS]",
    "jnz 4b",
    ".endm",
    "abi_routine abi_spin, abi_spin_body",
    fx = const core::mem::offset_of!(State, fx),
    ymm = const core::mem::offset_of!(State, ymm),
    avx = const core::mem::offset_of!(State, avx),
    flags = const core::mem::offset_of!(State, flags),
);

impl State {
    const NONE: State =
        State { general: [0; 16], flags: 0, pad: [0; 7], fx: [0; 512], ymm: [[0; 32]; 16], avx: 0 };

    /// A value of its own in every register, of its own for each `seed`.
    pub(super) fn filled(seed: u64) -> State {
        let mut state = State::NONE;
        super::fill(&mut state.general, seed);
        state.general[STACK] = ODD_STACK;
        state.flags = super::pattern(seed, 99) & FLAGS | 0x202;
        state.avx = u64::from(std::arch::is_x86_feature_detected!("avx"));
        // x87: all eight in use, double precision, rounding up; MXCSR: rounding down, flush to zero, all masked.
        state.fx[..2].copy_from_slice(&0x0a7f_u16.to_le_bytes());
        state.fx[4] = 0xff;
        state.fx[24..28].copy_from_slice(&0xbf80_u32.to_le_bytes());
        for n in 0..8 {
            state.fx[32 + 16 * n..40 + 16 * n]
                .copy_from_slice(&(super::pattern(seed, 200 + n as u64) | 1 << 63).to_le_bytes());
            state.fx[40 + 16 * n..42 + 16 * n].copy_from_slice(&(0x3fff + n as u16).to_le_bytes());
        }
        for n in 0..16 {
            for half in 0..4 {
                let bytes = super::pattern(seed, 300 + 4 * n as u64 + half as u64).to_le_bytes();
                state.ymm[n][8 * half..8 * half + 8].copy_from_slice(&bytes);
            }
            state.fx[160 + 16 * n..176 + 16 * n].copy_from_slice(&state.ymm[n][..16]);
        }
        state
    }

    /// What differs of the vector and floating-point registers. (Where the last x87 instruction was is not kept by
    /// every processor; reserved bytes are nobody's.)
    pub(super) fn fp_differences(&self, other: &State) -> Vec<String> {
        let mut names = Vec::new();
        let mut compare = |name: String, range: core::ops::Range<usize>| {
            if self.fx[range.clone()] != other.fx[range] {
                names.push(name);
            }
        };
        compare("fcw".into(), 0..2);
        compare("fsw".into(), 2..4);
        compare("ftw".into(), 4..5);
        compare("mxcsr".into(), 24..28);
        (0..8).for_each(|n| compare(format!("st{n}"), 32 + 16 * n..42 + 16 * n));
        (0..16).for_each(|n| compare(format!("xmm{n}"), 160 + 16 * n..176 + 16 * n));
        if self.avx != 0 {
            names.extend((0..16).filter(|n| self.ymm[*n] != other.ymm[*n]).map(|n| format!("ymm{n}")));
        }
        names
    }
}

/// The state to spin with, and the one to find afterwards.
pub(super) fn spinning(state: State, rounds: u32) -> (State, State) {
    // SAFETY: single-threaded where it is used.
    unsafe { ABI_ROUNDS = rounds };
    (state, state)
}

/// Whether the spinning went on to its end.
pub(super) fn has_spun(_: &State) -> bool {
    // SAFETY: as above.
    unsafe { ABI_ROUNDS == 0 }
}

/// What a handler does so that `abi_break` goes on, with every register one higher.
pub(super) fn step_over(context: *mut libc::ucontext_t) {
    // SAFETY: the kernel passed it to a handler.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    let kept = [libc::REG_RIP, libc::REG_RSP, libc::REG_EFL].map(|n| n as usize);
    // The general registers are the first 17, rip and rsp among them.
    for (n, register) in registers.iter_mut().enumerate().take(17) {
        if !kept.contains(&n) {
            *register += 1;
        }
    }
}

/// How far `step_over` moves each register.
pub(super) fn stepped(n: usize) -> u64 {
    u64::from(n != STACK)
}

const ARCH_SET_GS: i32 = 0x1001;
const ARCH_SET_FS: i32 = 0x1002;
const ARCH_GET_FS: i32 = 0x1003;
const ARCH_GET_GS: i32 = 0x1004;

fn gs() -> u64 {
    let mut value = 0_u64;
    sys!(libc::SYS_arch_prctl, ARCH_GET_GS, &raw mut value);
    value
}

fn has_fsgsbase() -> bool {
    // SAFETY: reads the auxiliary vector.
    unsafe { libc::getauxval(libc::AT_HWCAP2) & 2 != 0 }
}

fn rdgsbase() -> u64 {
    let value: u64;
    // SAFETY: checked by the callers that there is such an instruction.
    unsafe { asm!("rdgsbase {}", out(reg) value, options(nomem, nostack)) };
    value
}

fn wrgsbase(value: u64) {
    // SAFETY: as above; nothing here uses GS.
    unsafe { asm!("wrgsbase {}", in(reg) value, options(nomem, nostack)) };
}

/// Segment bases: by system call, by instruction; each survives system calls, faults and other tasks.
pub(super) fn bases() {
    use crate::sys::report;
    let word = [0x1122_3344_5566_7788_u64];
    report("set gs", sys!(libc::SYS_arch_prctl, ARCH_SET_GS, word.as_ptr()));
    let read: u64;
    // SAFETY: GS names `word`.
    unsafe { asm!("mov {}, gs:[0]", out(reg) read, options(nostack)) };
    println!("through gs: {}, told: {}", read == word[0], gs() == word.as_ptr() as u64);
    for bad in [1_u64 << 47, 0x0100_0000_0000_0000, 0xffff_8000_0000_0000, u64::MAX] {
        report(&format!("set gs to {bad:#x}"), sys!(libc::SYS_arch_prctl, ARCH_SET_GS, bad));
        report(&format!("set fs to {bad:#x}"), sys!(libc::SYS_arch_prctl, ARCH_SET_FS, bad));
    }
    println!("gs is as before: {}", gs() == word.as_ptr() as u64);
    let mut fs = 0_u64;
    report("get fs", sys!(libc::SYS_arch_prctl, ARCH_GET_FS, &raw mut fs));
    let read: u64;
    // SAFETY: libc's thread block begins with a pointer to itself.
    unsafe { asm!("mov {}, fs:[0]", out(reg) read, options(nostack)) };
    println!("fs is the thread block: {}", read == fs);
    println!("the instructions: {}", has_fsgsbase());
    if has_fsgsbase() {
        let fs: u64;
        // FS is changed, carried over a system call, and put back, with nothing in between that uses it.
        // SAFETY: as said.
        unsafe {
            asm!("rdfsbase r12", "wrfsbase {value}", "syscall", "rdfsbase {value}", "wrfsbase r12", value = inout(reg) 0x5555_4444_3333_u64 => fs,
                inout("rax") libc::SYS_getppid => _, out("rcx") _, out("r11") _, out("r12") _);
        }
        println!("fs by instruction survives a call: {}", fs == 0x5555_4444_3333);
        kept_by_instruction(&[0, 0x1234_5678_9abc, (1 << 47) - 1]);
    }
    sys!(libc::SYS_arch_prctl, ARCH_SET_GS, 0);
}

/// GS bases that the instruction writes, over calls and faults.
fn kept_by_instruction(values: &[u64]) {
    for value in values {
        wrgsbase(*value);
        sys!(libc::SYS_getppid);
        let after_call = rdgsbase();
        super::drop_page();
        super::touch_page();
        let after_fault = rdgsbase();
        sys!(libc::SYS_sched_yield);
        println!("gs {value:#x}: {after_call:#x} {after_fault:#x} told {:#x}", gs());
    }
}

/// Bases in the upper half: no call sets them, but the instruction does.
pub(crate) fn upper_bases() {
    if has_fsgsbase() {
        kept_by_instruction(&[0xffff_8000_0000_0000, 0xffff_8050_0000_0000, u64::MAX, 0]);
    }
}

/// A base of the calling thread's own, for [`kept_base`].
pub(super) fn set_base(value: u64) {
    sys!(libc::SYS_arch_prctl, ARCH_SET_GS, value);
}

/// It.
pub(super) fn kept_base() -> u64 {
    gs()
}

// The first instructions of a program: what is in the registers then, written to standard output.
global_asm!(
    ".pushsection .rodata.abi_entry, \"a\", @progbits",
    ".globl abi_entry, abi_entry_end",
    "abi_entry:",
    "lea rsp, [rsp - 256]",
    "mov [rsp], rax",
    "mov [rsp + 8], rbx",
    "mov [rsp + 16], rcx",
    "mov [rsp + 24], rdx",
    "mov [rsp + 32], rsi",
    "mov [rsp + 40], rdi",
    "mov [rsp + 48], rbp",
    "mov qword ptr [rsp + 56], 0",
    ".irp n, 8, 9, 10, 11, 12, 13, 14, 15",
    "mov [rsp + 8 * \\n], r\\n",
    ".endr",
    "pushfq",
    "pop rbx",
    "mov rbp, rsp",
    "sub rsp, 8192",
    "and rsp, -64",
    "mov rdi, rsp",
    "xor eax, eax",
    "mov ecx, 1024 / 8",
    "rep stosq",
    "mov eax, 1",
    "mov r12, rbx",
    "cpuid",
    "test ecx, 1 << 27",
    "jz 2f",
    "mov eax, 7",
    "xor edx, edx",
    "xsave64 [rsp]",
    "jmp 3f",
    "2: fxsave64 [rsp]",
    "3:",
    "mov eax, 1",
    "mov edi, 1",
    "mov rsi, rbp",
    "mov edx, 128",
    "syscall",
    "push r12",
    "mov eax, 1",
    "mov edi, 1",
    "mov rsi, rsp",
    "mov edx, 8",
    "syscall",
    "pop rcx",
    "mov eax, 1",
    "mov edi, 1",
    "mov rsi, rsp",
    "mov edx, 832",
    "syscall",
    "mov eax, 60",
    "xor edi, edi",
    "syscall",
    "abi_entry_end:",
    ".popsection",
);

/// What a program must find at its first instruction, of what the code above wrote.
pub(super) fn judge_entry(bytes: &[u8]) {
    if bytes.len() != 128 + 8 + 832 {
        return println!("{} bytes", bytes.len());
    }
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    let dirty: Vec<&str> =
        NAMES.iter().enumerate().filter(|(n, _)| word(8 * n) != 0).map(|(_, name)| *name).collect();
    println!("general registers that are not zero: {dirty:?}");
    println!("flags: {:#x}", word(128) & FLAGS);
    let fp = &bytes[136..];
    let half = |at: usize| u16::from_le_bytes([fp[at], fp[at + 1]]);
    println!("fcw {:#x} fsw {:#x} ftw {:#x} mxcsr {:#x}", half(0), half(2), fp[4], half(24));
    println!("st and xmm are zero: {}", fp[32..416].iter().all(|b| *b == 0));
    println!("ymm is zero: {}", fp[576..832].iter().all(|b| *b == 0));
}
