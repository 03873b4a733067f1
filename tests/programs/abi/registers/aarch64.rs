//! The registers of aarch64, loaded, stored and named.

use core::arch::{asm, global_asm};

/// x0 to x30 and the stack pointer.
pub(super) const NAMES: [&str; 32] = [
    "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
    "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x29", "x30",
    "sp",
];
/// The system call's number, its first three arguments, its result, the stack pointer.
pub(super) const NUMBER: usize = 8;
pub(super) const RESULT: usize = 0;
pub(super) const ARGUMENTS: [usize; 3] = [0, 1, 2];
pub(super) const STACK: usize = 31;
/// What `svc` itself overwrites: nothing.
pub(super) const CLOBBERED: &[usize] = &[];
/// N, Z, C, V.
pub(super) const FLAGS: u64 = 0xf000_0000;
/// The loop of `abi_spin` compares nothing.
pub(super) const FLAGS_OF_SPIN: u64 = FLAGS;
/// What goes into the stack pointer: not even aligned.
pub(super) const ODD_STACK: u64 = 0x0012_3456_789a_bcd1;

/// FPCR: rounding down, flush to zero, default NaN. FPSR: every cumulative flag.
const FPCR: u64 = 0x0380_0000;
const FPSR: u64 = 0x0800_009f;

/// Everything that a routine loads or stores.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct State {
    pub(super) general: [u64; 32],
    pub(super) flags: u64,
    fpcr: u64,
    fpsr: u64,
    pad: u64,
    v: [[u64; 2]; 32],
}

/// What the routines load; what they store.
#[unsafe(no_mangle)]
pub(super) static mut ABI_IN: State = State::NONE;
#[unsafe(no_mangle)]
pub(super) static mut ABI_OUT: State = State::NONE;
/// Rounds of `abi_spin`: x9 counts them, so they are in no memory here.
const COUNTER: usize = 9;
/// The page that `abi_fault` touches: x10 holds its address.
const POINTER: usize = 10;
#[repr(align(4096))]
pub(super) struct Page(#[expect(dead_code, reason = "touched by assembly")] [u8; 4096]);
pub(super) static mut ABI_PAGE: Page = Page([0; 4096]);

global_asm!(
    ".bss",
    ".balign 8",
    "abi_saved: .quad 0, 0",
    ".text",
    ".macro abi_routine name, body:vararg",
    ".globl \\name",
    "\\name:",
    "stp x29, x30, [sp, #-160]!",
    "stp x19, x20, [sp, #16]",
    "stp x21, x22, [sp, #32]",
    "stp x23, x24, [sp, #48]",
    "stp x25, x26, [sp, #64]",
    "stp x27, x28, [sp, #80]",
    "stp d8, d9, [sp, #96]",
    "stp d10, d11, [sp, #112]",
    "stp d12, d13, [sp, #128]",
    "stp d14, d15, [sp, #144]",
    "adrp x0, abi_saved",
    "add x0, x0, :lo12:abi_saved",
    "mov x1, sp",
    "mrs x2, tpidr_el0",
    "stp x1, x2, [x0]",
    "adrp x30, ABI_IN",
    "add x30, x30, :lo12:ABI_IN",
    "add x0, x30, #{v}",
    ".irp n, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30",
    "ldr q\\n, [x0, #16 * \\n]",
    ".endr",
    ".irp n, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31",
    "ldr q\\n, [x0, #16 * \\n]",
    ".endr",
    "ldr x1, [x30, #{flags}]",
    "msr nzcv, x1",
    "ldr x1, [x30, #{fpcr}]",
    "msr fpcr, x1",
    "ldr x1, [x30, #{fpsr}]",
    "msr fpsr, x1",
    "ldr x1, [x30, #31 * 8]",
    "mov sp, x1",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30",
    "ldr x\\n, [x30, #8 * \\n]",
    ".endr",
    "\\body",
    // The thread pointer is free here: it lends its place to x30.
    "msr tpidr_el0, x30",
    "adrp x30, ABI_OUT",
    "add x30, x30, :lo12:ABI_OUT",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29",
    "str x\\n, [x30, #8 * \\n]",
    ".endr",
    "mrs x1, tpidr_el0",
    "mov x2, sp",
    "stp x1, x2, [x30, #30 * 8]",
    "mrs x1, nzcv",
    "str x1, [x30, #{flags}]",
    "mrs x1, fpcr",
    "str x1, [x30, #{fpcr}]",
    "mrs x1, fpsr",
    "str x1, [x30, #{fpsr}]",
    "add x0, x30, #{v}",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
    "str q\\n, [x0, #16 * \\n]",
    ".endr",
    "msr fpcr, xzr",
    "msr fpsr, xzr",
    "adrp x0, abi_saved",
    "add x0, x0, :lo12:abi_saved",
    "ldp x1, x2, [x0]",
    "mov sp, x1",
    "msr tpidr_el0, x2",
    "ldp d14, d15, [sp, #144]",
    "ldp d12, d13, [sp, #128]",
    "ldp d10, d11, [sp, #112]",
    "ldp d8, d9, [sp, #96]",
    "ldp x27, x28, [sp, #80]",
    "ldp x25, x26, [sp, #64]",
    "ldp x23, x24, [sp, #48]",
    "ldp x21, x22, [sp, #32]",
    "ldp x19, x20, [sp, #16]",
    "ldp x29, x30, [sp], #160",
    "ret",
    ".endm",
    "abi_routine abi_syscall, svc #0",
    "abi_routine abi_fault, strb w9, [x10]",
    "abi_routine abi_break, brk #1",
    // In a macro of its own: a semicolon would end the statement above, not the one in it.
    ".macro abi_spin_body",
    "4: sub x9, x9, #1",
    "cbnz x9, 4b",
    ".endm",
    "abi_routine abi_spin, abi_spin_body",
    v = const core::mem::offset_of!(State, v),
    flags = const core::mem::offset_of!(State, flags),
    fpcr = const core::mem::offset_of!(State, fpcr),
    fpsr = const core::mem::offset_of!(State, fpsr),
);

impl State {
    const NONE: State = State { general: [0; 32], flags: 0, fpcr: 0, fpsr: 0, pad: 0, v: [[0; 2]; 32] };

    /// A value of its own in every register, of its own for each `seed`.
    pub(super) fn filled(seed: u64) -> State {
        let mut state = State::NONE;
        super::fill(&mut state.general, seed);
        state.general[STACK] = ODD_STACK;
        state.general[POINTER] = &raw const ABI_PAGE as u64;
        state.flags = super::pattern(seed, 99) & FLAGS;
        (state.fpcr, state.fpsr) = (FPCR, FPSR);
        for (n, register) in state.v.iter_mut().enumerate() {
            *register = [super::pattern(seed, 300 + n as u64), super::pattern(seed, 400 + n as u64)];
        }
        state
    }

    /// What differs of the vector and floating-point registers.
    pub(super) fn fp_differences(&self, other: &State) -> Vec<String> {
        let mut names: Vec<String> =
            (0..32).filter(|n| self.v[*n] != other.v[*n]).map(|n| format!("v{n}")).collect();
        if self.fpcr != other.fpcr {
            names.push("fpcr".to_owned());
        }
        if self.fpsr != other.fpsr {
            names.push("fpsr".to_owned());
        }
        names
    }
}

/// The state to spin with, and the one to find afterwards.
pub(super) fn spinning(mut state: State, rounds: u32) -> (State, State) {
    let mut after = state;
    state.general[COUNTER] = rounds.into();
    after.general[COUNTER] = 0;
    (state, after)
}

/// Whether the spinning went on to its end.
pub(super) fn has_spun(after: &State) -> bool {
    after.general[COUNTER] == 0
}

/// What a handler does so that `abi_break` goes on, with every register one higher.
pub(super) fn step_over(context: *mut libc::ucontext_t) {
    // SAFETY: the kernel passed it to a handler.
    let machine = unsafe { &mut (*context).uc_mcontext };
    machine.pc += 4;
    machine.regs.iter_mut().for_each(|register| *register += 1);
}

/// How far `step_over` moves each register.
pub(super) fn stepped(n: usize) -> u64 {
    u64::from(n != STACK)
}

fn tpidr() -> u64 {
    let value: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, tpidr_el0", out(reg) value, options(nomem, nostack)) };
    value
}

/// The thread pointer survives system calls, faults and other tasks, whatever is in it.
pub(super) fn bases() {
    for value in [0_u64, 1, 0x1234_5678_9abc_def0, u64::MAX] {
        let after: u64;
        // It is changed, carried over a call, and put back, with nothing in between that uses it.
        // SAFETY: as said.
        unsafe {
            asm!("mrs x20, tpidr_el0", "msr tpidr_el0, {value}", "svc #0", "mrs {value}, tpidr_el0",
                "msr tpidr_el0, x20", value = inout(reg) value => after, in("x8") libc::SYS_getppid, lateout("x0") _,
                out("x20") _);
        }
        println!("thread pointer {value:#x}: {after:#x}");
    }
    let before = tpidr();
    super::drop_page();
    super::touch_page();
    sys!(libc::SYS_sched_yield);
    println!("the thread pointer is as before: {}", tpidr() == before);
    let read_only: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, tpidrro_el0", out(reg) read_only, options(nomem, nostack)) };
    println!("the read-only one: {read_only:#x}");
}

/// Any value is a thread pointer: nothing more to try.
pub(crate) fn upper_bases() {}

/// libc has put a base of its own into each thread.
pub(super) fn set_base(_: u64) {}

/// The thread pointer.
pub(super) fn kept_base() -> u64 {
    tpidr()
}

// The first instructions of a program: what is in the registers then, written to standard output.
global_asm!(
    ".pushsection .rodata.abi_entry, \"a\", %progbits",
    ".balign 4",
    ".globl abi_entry, abi_entry_end",
    "abi_entry:",
    "sub sp, sp, #1024",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30",
    "str x\\n, [sp, #8 * \\n]",
    ".endr",
    "mrs x0, nzcv",
    "mrs x1, fpcr",
    "mrs x2, fpsr",
    "mrs x3, tpidr_el0",
    "str x0, [sp, #248]",
    "stp x1, x2, [sp, #256]",
    "str x3, [sp, #272]",
    "add x4, sp, #288",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
    "str q\\n, [x4, #16 * \\n]",
    ".endr",
    "mov x0, #1",
    "mov x1, sp",
    "mov x2, #800",
    "mov x8, #64",
    "svc #0",
    "mov x0, #0",
    "mov x8, #94",
    "svc #0",
    "abi_entry_end:",
    ".popsection",
);

/// What a program must find at its first instruction, of what the code above wrote.
pub(super) fn judge_entry(bytes: &[u8]) {
    if bytes.len() != 800 {
        return println!("{} bytes", bytes.len());
    }
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    let dirty: Vec<&str> =
        NAMES[..31].iter().enumerate().filter(|(n, _)| word(8 * n) != 0).map(|(_, name)| *name).collect();
    println!("general registers that are not zero: {dirty:?}");
    println!("flags: {:#x} fpcr {:#x} fpsr {:#x} tpidr {:#x}", word(248), word(256), word(264), word(272));
    println!("v is zero: {}", bytes[288..].iter().all(|b| *b == 0));
}
