// From the entry of a Linux Image to Rust at EL1.
//
// The loader (Linux's Documentation/arch/arm64/booting.rst) puts the image anywhere, cleans it to the point of coherency,
// and enters at its first byte with MMU and data cache off, at EL2 or EL1; x0 is the address of a device tree, which is not
// needed here. Other cores wait in the firmware. Left to do: EL1, relocation, bss, a stack.
//
// Until the MMU is on, memory is Device memory: no unaligned access (the target has strict-align), no exclusive access.

.pushsection .boot.text, "ax", @progbits
    // The header (booting.rst, section 4).
    b boot_start
    .long 0
    .quad 0x80000               // from the start of RAM: what QEMU and the Raspberry Pi's firmware are used to
    .quad __image_size
    .quad 1 << 1 | 1 << 3       // little-endian, 4 KiB pages, anywhere in RAM
    .quad 0, 0, 0
    .ascii "ARM\x64"
    .long 0

boot_start:
    mrs x1, CurrentEL
    ubfx x1, x1, #2, #2
    cmp x1, #1
    b.eq boot_el1
    cmp x1, #2
    b.eq boot_el2
    // EL3: no loader that follows the protocol enters there.
0:  wfe
    b 0b

// Gives EL1 everything and goes there (the registers: ARM DDI 0487, D19.2; the timer's: D19.12).
boot_el2:
    mov x1, #{HCR}
    msr hcr_el2, x1
    isb
    mov x1, #0x33ff             // RES1 bits: floating point does not trap
    msr cptr_el2, x1
    msr hstr_el2, xzr
    mov x1, #{CNTHCTL}
    msr cnthctl_el2, x1
    msr cntvoff_el2, xzr
    mrs x1, midr_el1
    msr vpidr_el2, x1
    mrs x1, mpidr_el1
    msr vmpidr_el2, x1
    ldr w1, =0x30d00800         // SCTLR_EL1: RES1 bits of ARMv8.0 alone, so MMU and caches off
    msr sctlr_el1, x1
    mov x1, #{PSTATE}
    msr spsr_el2, x1
    adr x1, boot_el1
    msr elr_el2, x1
    eret

boot_el1:
    msr daifset, #0xf
    msr spsel, #1
    mov x1, #{CPACR}
    msr cpacr_el1, x1
    isb

    // Linked at 0: what must be added to every address is where the image is.
    adrp x1, __text_start
    adrp x2, __rela_start
    add x2, x2, :lo12:__rela_start
    adrp x3, __rela_end
    add x3, x3, :lo12:__rela_end
1:  cmp x2, x3
    b.hs 2f
    // An Elf64_Rela of type R_AARCH64_RELATIVE, the only one in a static image: offset, type, addend.
    ldp x4, x5, [x2], #16
    ldr x6, [x2], #8
    add x6, x6, x1
    str x6, [x1, x4]
    b 1b

2:  adrp x2, __bss_start
    add x2, x2, :lo12:__bss_start
    adrp x3, __bss_end
    add x3, x3, :lo12:__bss_end
3:  cmp x2, x3
    b.hs 4f
    stp xzr, xzr, [x2], #16
    b 3b

4:  adrp x1, boot_stack_end
    add x1, x1, :lo12:boot_stack_end
    mov sp, x1
    mov x29, xzr
    mov x30, xzr
    b {boot}
.popsection

.pushsection .bss.boot, "aw", @nobits
.balign 16
    .zero 16384
boot_stack_end:
.popsection
