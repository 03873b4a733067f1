// From the PVH entry to 64-bit Rust.
//
// The loader (Xen's docs/misc/pvh.pandoc) enters with a flat 32-bit code and data segment, paging off, interrupts off, EBX
// the address of a start info that is not needed here, and no stack. Left to do: a page table that maps the first GiB to
// itself, long mode (Intel SDM vol. 3A, 10.8.5 "Initializing IA-32e Mode"), a 64-bit code segment, a stack.
// The tables and the stack serve until ring 0 loads its own.

.pushsection .note.pvh, "a", @note
    .balign 4
    .long 4                     // name
    .long 4                     // description
    .long 18                    // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long bringup_start
.popsection

.pushsection .boot.text, "ax", @progbits
.code32
.globl bringup_start
bringup_start:
    cld
    mov esp, offset boot_stack_end
    mov eax, cr4
    or eax, {PAE}
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, {EFER_MSR}
    rdmsr
    or eax, {EFER}
    wrmsr
    mov eax, cr0
    or eax, {PAGING}
    mov cr0, eax
    lgdt [boot_gdt_pointer]
    // The far return loads CS: from here on instructions are 64-bit.
    push {CODE}
    mov eax, offset boot_64
    push eax
    retf
.code64
boot_64:
    mov eax, {DATA}
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov rsp, offset boot_stack_end
    xor ebp, ebp
    call {boot}
    ud2
.popsection

.pushsection .data.boot, "aw", @progbits
.balign 8
boot_gdt:
    .quad 0, 0, {CODE_DESCRIPTOR}, {DATA_DESCRIPTOR}
boot_gdt_pointer:
    .word boot_gdt_pointer - boot_gdt - 1
    .long boot_gdt

// Present, writable; 0x80 marks a 2 MiB page (SDM vol. 3A, tables 4-15 to 4-18).
.balign 4096
boot_pml4:
    .quad boot_pdpt + 3
    .zero 4096 - 8
boot_pdpt:
    .quad boot_pd + 3
    .zero 4096 - 8
boot_pd:
    .set boot_page, 0
    .rept 512
    .quad boot_page + 0x83
    .set boot_page, boot_page + 0x200000
    .endr
.popsection

.pushsection .bss.boot, "aw", @nobits
.balign 16
    .zero 16384
boot_stack_end:
.popsection
