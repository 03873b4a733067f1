//! The programs: position-independent pieces of assembly.

use core::arch::global_asm;

/// `program!(NAME, "instructions", ...)` makes `NAME()`, the bytes of the assembled piece.
macro_rules! program {
    ($name:ident, $($line:literal),+ $(,)?) => {
        global_asm!(
            ".pushsection .rodata.test_programs, \"a\"",
            ".balign 16",
            concat!(".globl test_", stringify!($name), "_begin"),
            concat!("test_", stringify!($name), "_begin:"),
            $($line,)+
            concat!(".globl test_", stringify!($name), "_end"),
            concat!("test_", stringify!($name), "_end:"),
            ".popsection",
        );
        pub(crate) fn $name() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = concat!("test_", stringify!($name), "_begin")]
                static BEGIN: u8;
                #[link_name = concat!("test_", stringify!($name), "_end")]
                static END: u8;
            }
            let begin = &raw const BEGIN;
            // SAFETY: the two symbols delimit one object in read-only data.
            unsafe { core::slice::from_raw_parts(begin, &raw const END as usize - begin as usize) }
        }
    };
}

program!(null_calls, "2:", "mov eax, 39", "syscall", "jmp 2b");
program!(touch, "2:", "mov rbx, [rdi]", "mov [rdi], rsi", "syscall", "jmp 2b");
program!(spin, "2:", "inc rbx", "jmp 2b");
program!(nops, "nop", "nop", "nop", "2:", "jmp 2b");
program!(illegal, "ud2");
program!(divide, "xor edx, edx", "xor ecx, ecx", "mov eax, 1", "div ecx");
program!(breakpoint, "int3");
program!(int80, "mov eax, 1", "int 0x80");
program!(noncanonical, "mov rax, 0x8000000000000000", "mov rbx, [rax]");
program!(call_rax, "2:", "call rax", "syscall", "jmp 2b");
// Every register into the next, so that all of them must arrive and leave.
program!(
    registers,
    "2:",
    "add rax, 1",
    "add rbx, 2",
    "add rdx, 3",
    "add rsi, 4",
    "add rdi, 5",
    "add rbp, 6",
    "add r8, 7",
    "add r9, 8",
    "add r10, 9",
    "add r12, 10",
    "add r13, 11",
    "add r14, 12",
    "add r15, 13",
    "syscall",
    "jmp 2b",
);
program!(
    floats,
    "2:",
    "addpd xmm0, xmm1",
    "paddq xmm15, xmm1",
    "vaddpd ymm2, ymm3, ymm3",
    "mov eax, 1",
    "syscall",
    "jmp 2b",
);
program!(bases, "2:", "rdfsbase rbx", "rdgsbase rbp", "wrfsbase rdi", "wrgsbase rsi", "syscall", "jmp 2b");
// Every system call number from rbx on, with the arguments it was given.
program!(all_numbers, "2:", "mov rax, rbx", "syscall", "inc rbx", "jmp 2b");
// Writes rsi to [rdi + n * 8] for all n below rdx, again and again.
program!(
    scribble,
    "3:",
    "xor ecx, ecx",
    "2:",
    "mov [rdi + rcx * 8], rsi",
    "inc rcx",
    "cmp rcx, rdx",
    "jb 2b",
    "jmp 3b"
);
// One call to stop at, then a jump with all registers as given.
program!(jump_r15, "syscall", "jmp r15");
// Copies a page from rsi to rdi.
program!(read_text, "mov ecx, 512", "rep movsq", "syscall");
program!(
    compat,
    "push 0x23",
    "lea rax, [rip + 2f]",
    "push rax",
    ".byte 0x48, 0xcb",
    "2:",
    "mov eax, 20",
    "syscall",
    "mov eax, 20",
    "int 0x80",
    "ud2",
);

// Calls that can be rewritten. r9 gets the bytes of the call as the program sees them.
program!(
    hot,
    "nop",
    "2:",
    "inc rbx",
    "lea r8, [rip + 3f]",
    "mov r9, [r8]",
    "3: mov eax, 39",
    "syscall",
    "jmp 2b",
);
// Every register changes, flags and vectors too. No stack is used: what is below rsp is the program's.
program!(
    hot_registers,
    "nop",
    "2:",
    "add rbx, 2",
    "add rdx, 3",
    "add rsi, 4",
    "add rdi, 5",
    "add r8, 7",
    "add r9, 8",
    "add r10, 9",
    "add r12, 10",
    "add r13, 11",
    "add r14, 12",
    "add r15, 13",
    "addpd xmm0, xmm1",
    "vaddpd ymm2, ymm2, ymm3",
    // Other flags each time.
    "movabs rax, 0x7ffffffffffffff1",
    "add rbp, rax",
    "mov eax, 39",
    "syscall",
    "jmp 2b",
);
// As libc reads.
program!(
    hot_read,
    "nop",
    "2:",
    "inc rbx",
    "lea r8, [rip + 3f]",
    "mov r9, [r8]",
    "call 3f",
    "jmp 2b",
    "3:",
    "xor eax, eax",
    "syscall",
    "cmp rax, -4096",
    "ja 4f",
    "ret",
    ".byte 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0",
    "4:",
    "ud2",
);
// As libc's syscall(3) does it.
program!(
    hot_function,
    "nop",
    "2:",
    "inc rbx",
    "lea r12, [rip + 3f + 18]",
    "mov r12, [r12]",
    "mov rdi, 39",
    "mov [rsp], rbx",
    "call 3f",
    "mov r13, r9",
    "jmp 2b",
    "3:",
    "mov rax, rdi",
    "mov rdi, rsi",
    "mov rsi, rdx",
    "mov rdx, rcx",
    "mov r10, r8",
    "mov r8, r9",
    "mov r9, [rsp + 8]",
    "syscall",
    "ret",
);
// A call, again and again, until rdi is not 0: then GS base is rsi's first.
program!(
    hot_bases,
    "nop",
    "2:",
    "inc rbx",
    "test rdi, rdi",
    "jz 3f",
    "wrgsbase rsi",
    "3: mov eax, 39",
    "syscall",
    "jmp 2b",
);
