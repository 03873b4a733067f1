// The functions of the vDSO on x86_64. Arguments in rdi, rsi; what they use besides is the caller's to save (System V AMD64
// ABI, 3.2.1). Constants named VDSO_* come from image.rs.

.set VDSO_MACHINE, 62
.set VDSO_SYMBOLS, 6
.set VDSO_VERSION_HASH, 0x03ae75f6

.macro vdso_version_name
    .asciz "LINUX_2.6"
.endm

// Each under its own name and, weakly, under that of the C library's function (as Linux).
.macro vdso_symbols do:req
    \do __vdso_clock_gettime, clock_gettime, 0x12
    \do __vdso_gettimeofday, gettimeofday, 0x12
    \do __vdso_time, time, 0x12
    \do clock_gettime, clock_gettime, 0x22
    \do gettimeofday, gettimeofday, 0x22
    \do time, time, 0x22
.endm

.macro vdso_frame_state
    .byte 1, 0x78, 16                   // alignments 1 and -8, return address is register 16
    .byte 1, 0x1b
    .byte 0x0c, 7, 8, 0x90, 1           // the frame starts at rsp + 8, the return address lies at -8
.endm

// rax: CLOCK_MONOTONIC in ns, r8: the data page; rcx: what to add for CLOCK_REALTIME. Changes rdx, r9. `vdso_otherwise`
// must follow.
.macro vdso_monotonic
    lea r8, [rip + vdso_image - VDSO_DATA_SIZE]
2:  mov r9, [r8 + VDSO_SEQUENCE]
    test r9b, 1
    jnz 3f
    lfence                              // not before the sequence was read (SDM, RDTSC)
    rdtsc
    shl rdx, 32
    or rax, rdx
    sub rax, [r8 + VDSO_BASE_TICKS]
    cmp rax, [r8 + VDSO_VALID_TICKS]
    ja 9f
    imul rax, [r8 + VDSO_RATE]
    shr rax, 32
    add rax, [r8 + VDSO_BASE_NS]
    mov rcx, [r8 + VDSO_REALTIME_OFFSET]
    cmp r9, [r8 + VDSO_SEQUENCE]
    jne 3f
.endm

// Where `vdso_monotonic` goes when the numbers change, and when only the kernel can tell the time.
.macro vdso_otherwise call:req
3:  pause
    jmp 2b
9:  mov eax, \call
    syscall
    ret
.endm

// rdx: seconds of the nanoseconds in rax; rcx: the nanoseconds beyond. Changes rax. (n / 10^9 = n / 2^9 / 5^9, and
// multiplying by ceil(2^75 / 5^9) / 2^75 is exact for what is below 2^55.)
.macro vdso_split
    mov rcx, rax
    shr rax, 9
    movabs rdx, 0x44b82fa09b5a53
    mul rdx
    shr rdx, 11
    imul rax, rdx, 1000000000
    sub rcx, rax
.endm

.macro vdso_functions
// int clock_gettime(clockid_t, struct timespec *)
.Lvdso_clock_gettime:
    cmp edi, 11
    ja 9f
    mov eax, VDSO_CLOCKS
    bt eax, edi
    jnc 9f
    vdso_monotonic
    xor edx, edx
    mov r10d, VDSO_REALTIME_CLOCKS
    bt r10d, edi
    cmovc rdx, rcx
    add rax, rdx
    vdso_split
    mov [rsi], rdx
    mov [rsi + 8], rcx
    xor eax, eax
    ret
    vdso_otherwise 228
.Lvdso_clock_gettime_end:

// int gettimeofday(struct timeval *, struct timezone *)
.balign 16
.Lvdso_gettimeofday:
    test rdi, rdi
    jz 5f
    vdso_monotonic
    add rax, rcx
    vdso_split
    mov [rdi], rdx
    mov eax, ecx                        // below 10^9: / 1000 by a multiplication that is exact below 2^32
    imul rax, rax, 0x10624dd3
    shr rax, 38
    mov [rdi + 8], rax
5:  test rsi, rsi
    jz 6f
    mov qword ptr [rsi], 0              // UTC
6:  xor eax, eax
    ret
    vdso_otherwise 96
.Lvdso_gettimeofday_end:

// time_t time(time_t *)
.balign 16
.Lvdso_time:
    vdso_monotonic
    add rax, rcx
    vdso_split
    test rdi, rdi
    jz 5f
    mov [rdi], rdx
5:  mov rax, rdx
    ret
    vdso_otherwise 201
.Lvdso_time_end:
.endm

.macro vdso_trampoline
.endm
