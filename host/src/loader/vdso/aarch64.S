// The functions of the vDSO on aarch64. Arguments in x0, x1; x2 to x17 are theirs to change (AAPCS64, 6.1.1). Constants named
// VDSO_* come from image.rs.

.set VDSO_MACHINE, 183
.set VDSO_SYMBOLS, 3
.set VDSO_VERSION_HASH, 0x075fcb89

.macro vdso_version_name
    .asciz "LINUX_2.6.39"
.endm

.macro vdso_symbols do:req
    \do __kernel_clock_gettime, clock_gettime, 0x12
    \do __kernel_gettimeofday, gettimeofday, 0x12
    \do __kernel_rt_sigreturn, rt_sigreturn, 0x12
.endm

.macro vdso_frame_state
    .byte 4, 0x78, 30                   // alignments 4 and -8, return address is register 30
    .byte 1, 0x1b
    .byte 0x0c, 31, 0                   // the frame starts at sp
.endm

// x5: CLOCK_MONOTONIC in ns; x7: what to add for CLOCK_REALTIME. Changes x3 to x12. `vdso_otherwise` must follow.
.macro vdso_monotonic
    adr x3, vdso_image - VDSO_DATA_SIZE
2:  ldar x4, [x3]                       // the sequence
    tbnz x4, 0, 3f
    isb                                 // not before the sequence was read (Arm ARM D11.1.2)
    mrs x5, cntvct_el0
    ldp x6, x12, [x3, VDSO_BASE_TICKS]  // and VALID_TICKS
    ldp x10, x8, [x3, VDSO_BASE_NS]     // and RATE
    ldp x11, x7, [x3, VDSO_LATEST]      // and REALTIME_OFFSET
    eor x9, x5, x5                      // nor after it is read again: by a dependency, since no barrier says so
    dmb ishld
    ldr x9, [x3, x9]
    cmp x9, x4
    b.ne 3f
    sub x5, x5, x6
    cmp x5, x12
    b.hi 9f
    mul x5, x5, x8
    add x5, x10, x5, lsr 32
    cmp x5, x11                         // kernel code may have read another counter
    csel x5, x5, x11, hs
.endm

// Where `vdso_monotonic` goes when the numbers change, and when only the kernel can tell the time.
.macro vdso_otherwise call:req
3:  yield
    b 2b
9:  mov x8, \call
    svc 0
    ret
.endm

// x6: seconds of the nanoseconds in x5; x5: the nanoseconds beyond. Changes x8, x9. (n / 10^9 = n / 2^9 / 5^9, and
// multiplying by ceil(2^75 / 5^9) / 2^75 is exact for what is below 2^55.)
.macro vdso_split
    ldr x8, .Lvdso_part_of_billion
    ldr x9, .Lvdso_billion
    lsr x6, x5, 9
    umulh x6, x6, x8
    lsr x6, x6, 11
    msub x5, x6, x9, x5
.endm

.macro vdso_functions
// int clock_gettime(clockid_t, struct timespec *)
.Lvdso_clock_gettime:
    cmp w0, 11
    b.hi 9f
    movz x2, VDSO_CLOCKS
    movk x2, VDSO_REALTIME_CLOCKS, lsl 32
    lsr x2, x2, x0
    tbz x2, 0, 9f
    vdso_monotonic
    tbz x2, 32, 5f
    add x5, x5, x7
5:  vdso_split
    stp x6, x5, [x1]
    mov w0, 0
    ret
    vdso_otherwise 113
.Lvdso_clock_gettime_end:

// int gettimeofday(struct timeval *, struct timezone *)
.balign 16
.Lvdso_gettimeofday:
    cbz x0, 5f
    vdso_monotonic
    add x5, x5, x7
    vdso_split
    mov w8, 1000
    udiv x5, x5, x8
    stp x6, x5, [x0]
5:  cbz x1, 6f
    str xzr, [x1]                       // UTC
6:  mov w0, 0
    ret
    vdso_otherwise 169
.Lvdso_gettimeofday_end:
.endm

// Where handlers return to. Unwinders know it by its two instructions, and look for other information at the one before.
.macro vdso_trampoline
    nop
.hidden vdso_rt_sigreturn
.globl vdso_rt_sigreturn
vdso_rt_sigreturn:
.Lvdso_rt_sigreturn:
    mov x8, 139
    svc 0
.Lvdso_rt_sigreturn_end:
.balign 8
.Lvdso_part_of_billion:
    .quad 0x44b82fa09b5a53
.Lvdso_billion:
    .quad 1000000000
.endm
