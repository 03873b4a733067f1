// Into user code and out of it, and out of the guest; `entry.rs` says what hardware does on arrival.
//
// The way into user code and the `syscall` entry exist twice, from one source: `quick` is for processors with FSGSBASE
// and XSAVEOPT and asks nothing, the other asks the block what there is. Which pair a vCPU gets is settled when it is
// made (`entry::install`). Exceptions, which are rare, always ask.

// What both exits to user mode load in the same way from the UserRegs at rsi: all but rcx, r11, rsp and rsi.
.macro load_common
    mov rbx, [rsi + {rbx}]
    mov rbp, [rsi + {rbp}]
    mov r12, [rsi + {r12}]
    mov r13, [rsi + {r13}]
    mov r14, [rsi + {r14}]
    mov r15, [rsi + {r15}]
    mov rax, [rsi + {rax}]
    mov rdx, [rsi + {rdx}]
    mov rdi, [rsi + {rdi}]
    mov r8, [rsi + {r8}]
    mov r9, [rsi + {r9}]
    mov r10, [rsi + {r10}]
.endm

// Loads FP state. rdi = the block, r9 = the FpState. Clobbers rax and rdx.
.macro load_fp quick
    mov eax, [rdi + {fp_mask}]
    mov edx, [rdi + {fp_mask} + 4]
.if \quick
    xrstor64 [r9]
.else
    cmp dword ptr [rdi + {fp_mode}], 0
    je 21f
    xrstor64 [r9]
    jmp 22f
21: fxrstor64 [r9]
22:
.endif
.endm

// `call` it with rdi = Cpu, rsi = UserRegs, rdx = FpState, rcx = a CR3 value to load or 0. It returns, with the vector in
// rax, when user code traps; only rsp is kept. Natively it returns NATIVE at once.
.macro switch_to_user quick
    mov eax, cs
    test al, 3
    jnz 11f
    mov [rdi + {kernel_sp}], rsp
    mov [rdi + {cpu_regs}], rsi
    mov [rdi + {cpu_fp}], rdx
    test rcx, rcx
    jnz 12f
10:
    mov r9, rdx
    load_fp \quick
.if \quick
    mov rax, [rsi + {fs_base}]
    wrfsbase rax
    swapgs
    mov rax, [rsi + {gs_base}]
    wrgsbase rax
.else
    cmp dword ptr [rdi + {fsgsbase}], 0
    je 13f
    mov rax, [rsi + {fs_base}]
    wrfsbase rax
    swapgs
    mov rax, [rsi + {gs_base}]
    wrgsbase rax
14:
.endif
    mov rcx, [rsi + {rip}]
    mov r11, [rsi + {eflags}]
    // SYSRET loads rip from rcx and rflags from r11: right only where the program's rcx and r11 hold just that.
    cmp rcx, [rsi + {rcx}]
    jne 15f
    cmp r11, [rsi + {r11}]
    jne 15f
    test r11d, {exact_flags}
    jnz 15f
    and r11d, {user_flags}
    or r11d, {flags_set}
    load_common
    mov rsp, [rsi + {rsp}]
    mov rsi, [rsi + {rsi}]
    sysretq
15:
    and r11d, {user_flags}
    or r11d, {flags_set}
    push {user_ss}
    push [rsi + {rsp}]
    push r11
    push {user_cs}
    push rcx
    mov rcx, [rsi + {rcx}]
    mov r11, [rsi + {r11}]
    load_common
    mov rsi, [rsi + {rsi}]
    iretq
11:
    mov rax, -1
    ret
12:
    mov cr3, rcx
    jmp 10b
.if \quick == 0
    // Without FSGSBASE: the same through the registers' MSRs.
13:
    mov ecx, {msr_fs_base}
    mov eax, [rsi + {fs_base}]
    mov edx, [rsi + {fs_base} + 4]
    wrmsr
    mov ecx, {msr_kernel_gs_base}
    mov eax, [rsi + {gs_base}]
    mov edx, [rsi + {gs_base} + 4]
    wrmsr
    swapgs
    jmp 14b
.endif
.endm

// The `syscall` entry.
.macro syscall_entry quick
    // rcx, the address behind the instruction, says whose it is: programs have no code in the image's window.
    cmp rcx, {image_last}
    ja 31f
    cmp rcx, {image_base}
    ja ring0_host_call
31:
    swapgs
    // Without the fence a mispredicted branch would run on with the program's GS base (CVE-2019-1125).
    lfence
    mov gs:[{scratch}], rsp
    mov rsp, gs:[{cpu_regs}]
    mov [rsp + {rax}], rax
    mov [rsp + {orig_rax}], rax
    mov [rsp + {rcx}], rcx
    mov [rsp + {rip}], rcx
    mov [rsp + {r11}], r11
    mov [rsp + {eflags}], r11
    mov rax, gs:[{scratch}]
    mov [rsp + {rsp}], rax
    mov [rsp + {rbx}], rbx
    mov [rsp + {rdx}], rdx
    mov [rsp + {rsi}], rsi
    mov [rsp + {rdi}], rdi
    mov [rsp + {rbp}], rbp
    mov [rsp + {r8}], r8
    mov [rsp + {r9}], r9
    mov [rsp + {r10}], r10
    mov [rsp + {r12}], r12
    mov [rsp + {r13}], r13
    mov [rsp + {r14}], r14
    mov [rsp + {r15}], r15
.if \quick
    rdfsbase rax
    mov [rsp + {fs_base}], rax
    swapgs
    rdgsbase rax
    swapgs
    mov [rsp + {gs_base}], rax
    mov rax, gs:[{kernel_fs_base}]
    wrfsbase rax
    mov rcx, gs:[{cpu_fp}]
    mov eax, gs:[{fp_mask}]
    mov edx, gs:[{fp_mask} + 4]
    xsaveopt64 [rcx]
    fninit
    ldmxcsr gs:[{mxcsr}]
    mov rsp, gs:[{kernel_sp}]
    mov eax, {syscall}
    ret
.else
    mov ebx, {syscall}
    mov rdi, rsp
    jmp ring0_return_from_user
.endif
.endm

    .pushsection .text.ring0_switch, "ax", @progbits
    .balign 64
    .globl ring0_switch_quick
ring0_switch_quick:
    switch_to_user 1
    .balign 64
    .globl ring0_switch_asking
ring0_switch_asking:
    switch_to_user 0
    .popsection

    .pushsection .ring0.text, "ax", @progbits
    .balign 64
    .globl ring0_syscall_quick
ring0_syscall_quick:
    syscall_entry 1
    .balign 64
    .globl ring0_syscall_asking
ring0_syscall_asking:
    syscall_entry 0

    // rdi = UserRegs, rbx = vector, GS = the block, general registers saved.
ring0_return_from_user:
    cmp dword ptr gs:[{fsgsbase}], 0
    je ring0_save_bases_by_msr
    rdfsbase rax
    mov [rdi + {fs_base}], rax
    swapgs
    rdgsbase rax
    swapgs
    mov [rdi + {gs_base}], rax
    mov rax, gs:[{kernel_fs_base}]
    wrfsbase rax
ring0_bases_saved:
    mov rcx, gs:[{cpu_fp}]
    mov eax, gs:[{fp_mask}]
    mov edx, gs:[{fp_mask} + 4]
    cmp dword ptr gs:[{fp_mode}], 1
    jb 3f
    je 2f
    xsaveopt64 [rcx]
    jmp 4f
2: xsave64 [rcx]
    jmp 4f
3: fxsave64 [rcx]
4:
    fninit
    ldmxcsr gs:[{mxcsr}]
    mov rsp, gs:[{kernel_sp}]
    mov rax, rbx
    ret

    // Without FSGSBASE. The program cannot write its bases then, but loading a selector changes them.
ring0_save_bases_by_msr:
    mov ecx, {msr_fs_base}
    rdmsr
    mov [rdi + {fs_base}], eax
    mov [rdi + {fs_base} + 4], edx
    mov eax, gs:[{kernel_fs_base}]
    mov edx, gs:[{kernel_fs_base} + 4]
    wrmsr
    mov ecx, {msr_kernel_gs_base}
    rdmsr
    mov [rdi + {gs_base}], eax
    mov [rdi + {gs_base} + 4], edx
    jmp ring0_bases_saved

    // A host call: `syscall` in kernel code. The host executes it again, natively, at the same instruction.
ring0_host_call:
    lfence
    mov gs:[{x} + {x_rax}], rax
    mov gs:[{x} + {x_rsi}], rsi
    mov gs:[{x} + {x_rdi}], rdi
    mov gs:[{x} + {x_rdx}], rdx
    sub rcx, 2
    mov gs:[{x} + {x_rip}], rcx
    mov gs:[{x} + {x_rcx}], rcx
    mov gs:[{x} + {x_rflags}], r11
    mov gs:[{x} + {x_rsp}], rsp
    mov esi, {host_call}
ring0_exit:
    // rax, rcx, rdx, rsi, rdi, rip, rflags and rsp are saved; rsi = the reason; GS = the block.
    mov gs:[{x} + {x_rbx}], rbx
    mov gs:[{x} + {x_rbp}], rbp
    mov gs:[{x} + {x_r8}], r8
    mov gs:[{x} + {x_r9}], r9
    mov gs:[{x} + {x_r10}], r10
    mov gs:[{x} + {x_r11}], r11
    mov gs:[{x} + {x_r12}], r12
    mov gs:[{x} + {x_r13}], r13
    mov gs:[{x} + {x_r14}], r14
    mov gs:[{x} + {x_r15}], r15
    mov eax, gs:[{fp_mask}]
    mov edx, gs:[{fp_mask} + 4]
    cmp dword ptr gs:[{fp_mode}], 0
    je 6f
    xsave64 gs:[{exit_fp}]
    jmp 7f
6: fxsave64 gs:[{exit_fp}]
7:
    mov gs:[{exit}], rsi
    cmp qword ptr gs:[{hosted}], 0
    je ring0_continue
    hlt

    // The host ran the guest again: continue what `enter_guest` suspended. The first entry of a vCPU is here too.
    .globl ring0_continue
ring0_continue:
    mov rsp, gs:[{context_sp}]
    // An IRET ends the blocking of NMIs, should the last exit have come from one.
    mov rax, rsp
    mov ecx, {kernel_ss}
    push rcx
    push rax
    push 2
    push {kernel_cs}
    lea rcx, [rip + 8f]
    push rcx
    iretq
8:
    ldmxcsr [rsp]
    fldcw [rsp + 4]
    add rsp, 8
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

    // Exceptions and interrupts: [rsp] = vector, error code, rip, cs, rflags, rsp, ss.
    .balign 16
ring0_exception:
    test byte ptr [rsp + 24], 3
    jz 9f
    swapgs
    lfence
    push rdi
    mov rdi, gs:[{cpu_regs}]
    mov [rdi + {rax}], rax
    mov [rdi + {rbx}], rbx
    mov [rdi + {rcx}], rcx
    mov [rdi + {rdx}], rdx
    mov [rdi + {rsi}], rsi
    mov [rdi + {rbp}], rbp
    mov [rdi + {r8}], r8
    mov [rdi + {r9}], r9
    mov [rdi + {r10}], r10
    mov [rdi + {r11}], r11
    mov [rdi + {r12}], r12
    mov [rdi + {r13}], r13
    mov [rdi + {r14}], r14
    mov [rdi + {r15}], r15
    pop rax
    mov [rdi + {rdi}], rax
    mov rbx, [rsp]
    mov rax, [rsp + 8]
    mov gs:[{trap_error}], rax
    mov rax, [rsp + 16]
    mov [rdi + {rip}], rax
    mov rax, [rsp + 32]
    mov [rdi + {eflags}], rax
    mov rax, [rsp + 40]
    mov [rdi + {rsp}], rax
    mov qword ptr [rdi + {orig_rax}], -1
    mov rax, cr2
    mov gs:[{trap_cr2}], rax
    // The kernel stack, clean flags, and a stack segment that is not the null one an interrupt leaves. IRET also ends
    // NMI blocking.
    mov rsp, gs:[{kernel_sp}]
    mov rax, rsp
    mov ecx, {kernel_ss}
    push rcx
    push rax
    push 2
    push {kernel_cs}
    lea rcx, [rip + ring0_return_from_user]
    push rcx
    iretq

    // From kernel code. GS is not to be trusted here (an NMI may hit between swapgs and sysret): the block is named in
    // the first word of the interrupt stack.
9:
    lfence
    cmp qword ptr [rsp], {debug}
    je 10f
    push rax
    mov rax, rsp
    and rax, -{stack_size}
    mov rax, [rax]
    mov [rax + {x} + {x_rsi}], rsi
    mov [rax + {x} + {x_rdi}], rdi
    mov [rax + {x} + {x_rdx}], rdx
    pop rsi
    mov [rax + {x} + {x_rax}], rsi
    mov rsi, [rsp]
    mov [rax + {exit_vector}], rsi
    mov rsi, [rsp + 8]
    mov [rax + {exit_error}], rsi
    mov rsi, [rsp + 16]
    mov [rax + {x} + {x_rip}], rsi
    mov rsi, [rsp + 32]
    mov [rax + {x} + {x_rflags}], rsi
    mov rsi, [rsp + 40]
    mov [rax + {x} + {x_rsp}], rsi
    mov rsi, cr2
    mov [rax + {exit_cr2}], rsi
    mov [rax + {x} + {x_rcx}], rcx
    cmp dword ptr [rax + {fsgsbase}], 0
    je 14f
    wrgsbase rax
    mov esi, {fault}
    jmp ring0_exit
14:
    mov rdx, rax
    shr rdx, 32
    mov ecx, {msr_gs_base}
    wrmsr
    mov esi, {fault}
    jmp ring0_exit
    // A debug exception in kernel code is one that the program left pending (MOV SS then SYSCALL): drop it.
10:
    add rsp, 16
    iretq

    // Stubs, one for each vector below 33: 16 bytes apart.
    .balign 16
    .globl ring0_exception_stubs
ring0_exception_stubs:
    .set vector, 0
    .rept 33
    .balign 16
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
    .else
    push 0
    .endif
    push vector
    jmp ring0_exception
    .set vector, vector + 1
    .endr
    .popsection
