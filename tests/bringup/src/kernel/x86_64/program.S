// The user program: position-independent, one page, entered at its first byte with its number in rdi.
// System calls as in Linux: number in rax, arguments in rdi and rsi, result in rax; rcx and r11 are lost.

.pushsection .rodata.program, "a", @progbits
.globl program_start
program_start:
    mov rbx, rdi
    lea rdi, [rip + hello]
    lea rsi, [rip + hello_end]
    sub rsi, rdi
    mov eax, {WRITE}
    syscall
    mov eax, {YIELD}
    syscall
    // The page is there when it is needed, and each program has its own.
    mov r12, {DATA}
    mov [r12], rbx
    mov eax, {YIELD}
    syscall
    xor ebp, ebp
    cmp [r12], rbx
    setne bpl
    ud2
    // Registers survive that.
    lea rdi, [rip + back]
    lea rsi, [rip + back_end]
    sub rsi, rdi
    mov eax, {WRITE}
    syscall
    mov edi, ebp
    mov eax, {EXIT}
    syscall

hello: .ascii "hello from user mode"
hello_end:
back: .ascii "alive after the illegal instruction"
back_end:
.globl program_end
program_end:
.popsection
