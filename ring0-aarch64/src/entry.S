// The vectors, the way into user code and back, and the way out of the guest.
//
// All of this is one page-aligned section that is mapped twice: in the image (TTBR0) and in the kernel half (TTBR1). It is
// position independent and touches no memory but the per-CPU block (SP_EL1, kernel half) and, while the kernel's
// TTBR0 is loaded, what that points to.
//
// On arrival hardware has saved PC and PSTATE in ELR_EL1 and SPSR_EL1, masked interrupts and selected SP_EL1. It has not
// touched any other register, nor TTBR0: after a trap from user code that is still the program's, and no
// lower-half address may be used before it is replaced (the core may lack PAN).

// What a suspended kernel stack holds: the frame of `stack::switch`.
.macro push_frame
    sub sp, sp, #{FRAME}
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mrs x9, fpcr
    str x9, [sp, #160]
.endm

.macro pop_frame_and_return
    ldp x19, x20, [sp]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    ldr x9, [sp, #160]
    msr fpcr, x9
    add sp, sp, #{FRAME}
    ret
.endm

.macro save_fp base, w1, w2, x1, x2
    stp q0, q1, [\base]
    stp q2, q3, [\base, #32]
    stp q4, q5, [\base, #64]
    stp q6, q7, [\base, #96]
    stp q8, q9, [\base, #128]
    stp q10, q11, [\base, #160]
    stp q12, q13, [\base, #192]
    stp q14, q15, [\base, #224]
    stp q16, q17, [\base, #256]
    stp q18, q19, [\base, #288]
    stp q20, q21, [\base, #320]
    stp q22, q23, [\base, #352]
    stp q24, q25, [\base, #384]
    stp q26, q27, [\base, #416]
    stp q28, q29, [\base, #448]
    stp q30, q31, [\base, #480]
    mrs \x1, fpsr
    mrs \x2, fpcr
    add \base, \base, #{FPSR}
    stp \w1, \w2, [\base]
.endm

.macro load_fp base, w1, w2, x1, x2
    ldp q0, q1, [\base]
    ldp q2, q3, [\base, #32]
    ldp q4, q5, [\base, #64]
    ldp q6, q7, [\base, #96]
    ldp q8, q9, [\base, #128]
    ldp q10, q11, [\base, #160]
    ldp q12, q13, [\base, #192]
    ldp q14, q15, [\base, #224]
    ldp q16, q17, [\base, #256]
    ldp q18, q19, [\base, #288]
    ldp q20, q21, [\base, #320]
    ldp q22, q23, [\base, #352]
    ldp q24, q25, [\base, #384]
    ldp q26, q27, [\base, #416]
    ldp q28, q29, [\base, #448]
    ldp q30, q31, [\base, #480]
    add \base, \base, #{FPSR}
    ldp \w1, \w2, [\base]
    msr fpsr, \x1
    msr fpcr, \x2
.endm

.section .ring0.text, "ax", %progbits
.balign 4096
.global ring0_text_start
ring0_text_start:

// VBAR_EL1: 16 slots of 128 bytes (ARM DDI 0487, D1.3.1.1).
.global ring0_vectors
ring0_vectors:
// Current EL with SP_EL0: kernel code.
    b from_kernel
.balign 128
    b broken
.balign 128
    b broken
.balign 128
    b broken
.balign 128
// Current EL with SP_ELx: this file. It must not fault.
.rept 4
    b broken
.balign 128
.endr
// Lower EL, AArch64: user code.
    stp x0, x1, [sp, #{SCRATCH}]
    mrs x0, esr_el1
    b from_user
.balign 128
    stp x0, x1, [sp, #{SCRATCH}]
    mov x0, #{MARK_IRQ}
    b from_user
.balign 128
    stp x0, x1, [sp, #{SCRATCH}]
    mov x0, #{MARK_IRQ}
    b from_user
.balign 128
    stp x0, x1, [sp, #{SCRATCH}]
    mov x0, #{MARK_SERROR}
    b from_user
.balign 128
// Lower EL, AArch32: never entered, since PSTATE is sanitised.
.rept 4
    b broken
.balign 128
.endr

// Suspends this kernel stack and runs user code; returns when that traps, with only the stack pointer kept and FPCR zero,
// as kernel code has it. The caller keeps a free place for x30 at sp + 16.
// x0: Cpu (lower half). x1: UserRegs. x2: FpState. x3: TTBR0_EL1 of the program, 0 for the one loaded last; bit 0 asks
// for its ASID to be flushed on this CPU.
.global ring0_switch_to_user
ring0_switch_to_user:
    str x30, [sp, #16]
    ldr x9, [x0, #{IN_GUEST}]
    cbz x9, 3f
1:
    cbnz x3, 4f
    ldr x3, [x0, #{USER_TTBR0}]
5:
    mov x9, sp
    stp x1, x2, [x0, #{REGS}]
    str x9, [x0, #{KERNEL_SP}]
    load_fp x2, w4, w5, x4, x5
    ldp x4, x5, [x1, #{USER_SP}]
    ldp x6, x7, [x1, #{USER_PSTATE}]
    // Condition flags are all that a program chooses; EL0t and open interrupts are ours.
    and x6, x6, #0xf0000000
    msr spsel, #1
    msr sp_el0, x4
    msr elr_el1, x5
    msr spsr_el1, x6
    msr tpidr_el0, x7
    adr x4, 2f
    orr x4, x4, #{KERNEL_HALF}
    br x4
2:
    // In the kernel half: TTBR0 may go.
    ldp x4, x5, [x1]
    stp x4, x5, [sp, #{SCRATCH}]
    mov x0, x3
    ldp x2, x3, [x1, #16]
    ldp x4, x5, [x1, #32]
    ldp x6, x7, [x1, #48]
    ldp x8, x9, [x1, #64]
    ldp x10, x11, [x1, #80]
    ldp x12, x13, [x1, #96]
    ldp x14, x15, [x1, #112]
    ldp x16, x17, [x1, #128]
    ldp x18, x19, [x1, #144]
    ldp x20, x21, [x1, #160]
    ldp x22, x23, [x1, #176]
    ldp x24, x25, [x1, #192]
    ldp x26, x27, [x1, #208]
    ldp x28, x29, [x1, #224]
    ldr x30, [x1, #240]
    // The exception return synchronises the write (D8.2.3); until then only global addresses are used.
    msr ttbr0_el1, x0
    ldp x0, x1, [sp, #{SCRATCH}]
    eret
    // No speculation past the return.
    dsb nsh
    isb
3:
    stp x0, x1, [sp, #-32]!
    stp x2, x3, [sp, #16]
    bl ring0_enter_guest
    ldp x2, x3, [sp, #16]
    ldp x0, x1, [sp], #32
    b 1b
4:
    tbz x3, #0, 6f
    and x3, x3, #~1
    and x9, x3, #0xffff000000000000
    dsb nshst
    tlbi aside1, x9
    dsb nsh
    isb
6:
    str x3, [x0, #{USER_TTBR0}]
    b 5b

// A trap from user code. x0: ESR_EL1 or a marker; the program's x0 and x1 are in scratch.
from_user:
    str x0, [sp, #{TRAP_ESR}]
    ldr x1, [sp, #{KERNEL_TTBR0}]
    msr ttbr0_el1, x1
    isb
    ldr x0, [sp, #{REGS}]
    stp x2, x3, [x0, #16]
    stp x4, x5, [x0, #32]
    stp x6, x7, [x0, #48]
    stp x8, x9, [x0, #64]
    stp x10, x11, [x0, #80]
    stp x12, x13, [x0, #96]
    stp x14, x15, [x0, #112]
    stp x16, x17, [x0, #128]
    stp x18, x19, [x0, #144]
    stp x20, x21, [x0, #160]
    stp x22, x23, [x0, #176]
    stp x24, x25, [x0, #192]
    stp x26, x27, [x0, #208]
    stp x28, x29, [x0, #224]
    str x30, [x0, #240]
    ldp x2, x3, [sp, #{SCRATCH}]
    stp x2, x3, [x0]
    mrs x2, sp_el0
    mrs x3, elr_el1
    stp x2, x3, [x0, #{USER_SP}]
    mrs x4, spsr_el1
    mrs x5, tpidr_el0
    stp x4, x5, [x0, #{USER_PSTATE}]
    mrs x6, far_el1
    str x6, [sp, #{TRAP_FAR}]
    ldr x1, [sp, #{FP}]
    save_fp x1, w2, w3, x2, x3
    ldp x2, x3, [sp, #{KERNEL_TPIDR}]
    msr tpidr_el0, x2
    msr sp_el0, x3
    msr spsel, #0
    msr fpcr, xzr
    ldr x30, [sp, #16]
    ret

// An exception in kernel code: a host system call, or something that only the host can do.
from_kernel:
    stp x0, x1, [sp, #{EXIT_X}]
    stp x2, x3, [sp, #{EXIT_X} + 16]
    stp x4, x5, [sp, #{EXIT_X} + 32]
    stp x6, x7, [sp, #{EXIT_X} + 48]
    stp x8, x9, [sp, #{EXIT_X} + 64]
    stp x10, x11, [sp, #{EXIT_X} + 80]
    stp x12, x13, [sp, #{EXIT_X} + 96]
    stp x14, x15, [sp, #{EXIT_X} + 112]
    stp x16, x17, [sp, #{EXIT_X} + 128]
    stp x18, x19, [sp, #{EXIT_X} + 144]
    stp x20, x21, [sp, #{EXIT_X} + 160]
    stp x22, x23, [sp, #{EXIT_X} + 176]
    stp x24, x25, [sp, #{EXIT_X} + 192]
    stp x26, x27, [sp, #{EXIT_X} + 208]
    stp x28, x29, [sp, #{EXIT_X} + 224]
    mrs x0, sp_el0
    stp x30, x0, [sp, #{EXIT_X} + 240]
    mrs x1, elr_el1
    mrs x2, spsr_el1
    mrs x3, esr_el1
    mrs x4, far_el1
    str x3, [sp, #{EXIT_ESR}]
    str x4, [sp, #{EXIT_FAR}]
    add x5, sp, #{EXIT_FP}
    save_fp x5, w6, w7, x6, x7
    // A system call is reported behind the instruction, a fault at it: the host executes the instruction itself.
    ubfx x3, x3, #26, #6
    cmp x3, #{SVC}
    sub x6, x1, #4
    csel x1, x6, x1, eq
    mov x7, #{FAULT}
    mov x8, #{HOST_CALL}
    csel x0, x8, x7, eq
    stp x1, x2, [sp, #{EXIT_X} + 256]

// Hands the context to the host. x0: the reason.
leave:
    str x0, [sp, #{EXIT}]
    str xzr, [sp, #{IN_GUEST}]
    ldr x1, [sp, #{EXIT_ADDRESS}]
    // One register, no writeback: KVM needs the syndrome to say so (ISV).
    str xzr, [x1]
// Behind the exit instruction, where the first KVM_RUN starts and every later one goes on: continues the context
// that `enter_guest` suspended.
.global ring0_resume
ring0_resume:
    mov x0, #1
    str x0, [sp, #{IN_GUEST}]
    ldr x0, [sp, #{CONTEXT_SP}]
    msr sp_el0, x0
    msr spsel, #0
    pop_frame_and_return

// An exception that cannot happen: the host sees an exit without a reason, with the registers of the moment.
broken:
    stp x0, x1, [sp, #{EXIT_X}]
    mrs x0, esr_el1
    mrs x1, far_el1
    str x0, [sp, #{EXIT_ESR}]
    str x1, [sp, #{EXIT_FAR}]
    mrs x0, elr_el1
    mrs x1, spsr_el1
    stp x0, x1, [sp, #{EXIT_X} + 256]
    mov x0, #0
    b leave

// Continues in the guest; returns at once if this is the guest. x0: Cpu.
.global ring0_enter_guest
ring0_enter_guest:
    ldr x9, [x0, #{IN_GUEST}]
    cbnz x9, 1f
    push_frame
    mov x9, sp
    str x9, [x0, #{CONTEXT_SP}]
    ldr x9, [x0, #{HOST_SP}]
    mov sp, x9
    pop_frame_and_return
1:
    ret

// Continues natively; returns at once if this is not the guest. x0: Cpu.
.global ring0_leave_guest
ring0_leave_guest:
    ldr x9, [x0, #{IN_GUEST}]
    cbz x9, 1f
    push_frame
    mov x9, sp
    str x9, [x0, #{CONTEXT_SP}]
    msr spsel, #1
    mov x0, #{LEAVE}
    b leave
1:
    ret

// Runs natively from here on, called by the host loop; they return when the context calls `ring0_enter_guest`.

// The context suspended by `ring0_leave_guest`, or a fresh stack. x0: Cpu.
.global ring0_continue
ring0_continue:
    push_frame
    mov x9, sp
    str x9, [x0, #{HOST_SP}]
    ldr x9, [x0, #{CONTEXT_SP}]
    mov sp, x9
    pop_frame_and_return

// The context stopped at a system call: every register but x17, which no system call site keeps anything in. x0: Cpu.
.global ring0_continue_host_call
ring0_continue_host_call:
    push_frame
    mov x9, sp
    str x9, [x0, #{HOST_SP}]
    add x1, x0, #{EXIT_FP}
    load_fp x1, w2, w3, x2, x3
    ldp x17, x1, [x0, #{EXIT_X} + 256]
    msr nzcv, x1
    ldp x30, x1, [x0, #{EXIT_X} + 240]
    mov sp, x1
    ldp x2, x3, [x0, #{EXIT_X} + 16]
    ldp x4, x5, [x0, #{EXIT_X} + 32]
    ldp x6, x7, [x0, #{EXIT_X} + 48]
    ldp x8, x9, [x0, #{EXIT_X} + 64]
    ldp x10, x11, [x0, #{EXIT_X} + 80]
    ldp x12, x13, [x0, #{EXIT_X} + 96]
    ldp x14, x15, [x0, #{EXIT_X} + 112]
    ldr x16, [x0, #{EXIT_X} + 128]
    ldp x18, x19, [x0, #{EXIT_X} + 144]
    ldp x20, x21, [x0, #{EXIT_X} + 160]
    ldp x22, x23, [x0, #{EXIT_X} + 176]
    ldp x24, x25, [x0, #{EXIT_X} + 192]
    ldp x26, x27, [x0, #{EXIT_X} + 208]
    ldp x28, x29, [x0, #{EXIT_X} + 224]
    ldp x0, x1, [x0, #{EXIT_X}]
    br x17

// The context stopped at a fault: every register, by rt_sigreturn. x0: Cpu. x1: a `struct rt_sigframe`.
.global ring0_continue_fault
ring0_continue_fault:
    push_frame
    mov x9, sp
    str x9, [x0, #{HOST_SP}]
    mov sp, x1
    mov x8, #{RT_SIGRETURN}
    svc #0
    brk #1

.balign 4096
.global ring0_text_end
ring0_text_end:
.text
