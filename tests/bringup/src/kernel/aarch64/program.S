// The user program: position-independent, one page, entered at its first byte with its number in x0.
// System calls as in Linux: number in x8, arguments in x0 and x1, result in x0.

.pushsection .rodata.program, "a", @progbits
.balign 8
.globl program_start
program_start:
    mov x19, x0
    adr x0, hello
    mov x1, #hello_end - hello
    mov x8, #{WRITE}
    svc #0
    mov x8, #{YIELD}
    svc #0
    // The page is there when it is needed, and each program has its own.
    ldr x20, data
    str x19, [x20]
    mov x8, #{YIELD}
    svc #0
    ldr x1, [x20]
    cmp x1, x19
    cset x21, ne
    udf #0
    // Registers survive that.
    adr x0, back
    mov x1, #back_end - back
    mov x8, #{WRITE}
    svc #0
    mov x0, x21
    mov x8, #{EXIT}
    svc #0

hello: .ascii "hello from user mode"
hello_end:
back: .ascii "alive after the illegal instruction"
back_end:
.balign 8
data: .quad {DATA}
.globl program_end
program_end:
.popsection
