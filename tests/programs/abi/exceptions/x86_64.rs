//! Instructions of x86_64 that trap, and those that a program may not execute.

use super::{jump, provoke};
use crate::sys;
use core::arch::{asm, global_asm};

/// Vector and error code, as signal frames carry them.
pub(super) fn reason(context: *mut libc::ucontext_t, _: i64) -> String {
    // SAFETY: the kernel passed it to a handler.
    let registers = unsafe { &(*context).uc_mcontext.gregs };
    format!(" vector {} error {:#x}", registers[libc::REG_TRAPNO as usize], registers[libc::REG_ERR as usize])
}

pub(super) fn instructions() {
    // SAFETY (every block): the exception is the point; it ends the child.
    let here = 0;
    provoke("ud2", here, || unsafe { asm!("ud2") });
    provoke("int3", here, || unsafe { asm!("int3") });
    provoke("hlt", here, || unsafe { asm!("hlt") });
    provoke("cli", here, || unsafe { asm!("cli") });
    provoke("out", here, || unsafe { asm!("out 0x80, al") });
    provoke("divide by zero", here, || unsafe {
        asm!("xor edx, edx", "mov eax, 1", "xor ecx, ecx", "div ecx", out("eax") _, out("ecx") _, out("edx") _);
    });
    provoke("divide overflow", here, || unsafe {
        asm!("mov edx, 2", "xor eax, eax", "mov ecx, 1", "div ecx", out("eax") _, out("ecx") _, out("edx") _);
    });
    provoke("non-canonical read", here, || {
        sys::peek(0x0100_0000_0000_0000);
    });
    provoke("non-canonical stack", here, || unsafe {
        asm!("mov r12, rsp", "mov rsp, {0}", "push rax", "mov rsp, r12", in(reg) 0x0100_0000_0000_0000_u64,
            out("r12") _);
    });
    provoke("non-canonical jump", here, || jump(0x0100_0000_0000_0000));
    provoke("SSE divide by zero, unmasked", here, || unsafe {
        let control = 0x1f80_u32 & !(1 << 9);
        asm!("ldmxcsr [{0}]", "divss {1}, {2}", in(reg) &raw const control, inout(xmm_reg) 1.0_f32 => _,
            in(xmm_reg) 0.0_f32);
    });
    provoke("SSE invalid, unmasked", here, || unsafe {
        let control = 0x1f80_u32 & !(1 << 7);
        asm!("ldmxcsr [{0}]", "divss {1}, {2}", in(reg) &raw const control, inout(xmm_reg) 0.0_f32 => _,
            in(xmm_reg) 0.0_f32);
    });
    provoke("x87 divide by zero, unmasked", here, || unsafe {
        let control = 0x037f_u16 & !(1 << 2);
        asm!("fldcw [{0}]", "fldz", "fld1", "fdivrp", "fwait", in(reg) &raw const control);
    });
    provoke("misaligned SSE", here, || unsafe {
        let area = [0_u8; 64];
        asm!("movaps xmm0, [{0}]", in(reg) (area.as_ptr() as usize & !15) + 1, out("xmm0") _);
    });
    provoke("alignment check", here, || unsafe {
        asm!("pushfq", "or qword ptr [rsp], 0x40000", "popfq", "mov rax, rsp", "mov eax, [rax + 1]", out("rax") _);
    });
    provoke("single step", here, || unsafe {
        asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop");
    });
    provoke("bad selector", here, || unsafe {
        asm!("mov ds, {0:x}", in(reg) 0xfff8_u32);
    });
    provoke("popf cannot take interrupts or IOPL", here, || {
        let (before, flags): (u64, u64);
        unsafe {
            asm!("pushfq", "pop {0}", "mov {1}, {0}", "xor {1}, 0x3200", "push {1}", "popfq", "pushfq", "pop {1}",
                out(reg) before, out(reg) flags);
        }
        println!("  interrupts and IOPL {:#x}, before {:#x}", flags & 0x3200, before & 0x3200);
    });
    provoke("rdpmc", here, || unsafe {
        asm!("rdpmc", in("ecx") 0, out("eax") _, out("edx") _);
    });
    provoke("invlpg", here, || unsafe { asm!("invlpg [rsp]") });
    provoke("rdmsr", here, || unsafe {
        asm!("rdmsr", in("ecx") 0x10, out("eax") _, out("edx") _);
    });
    provoke("mov from cr0", here, || unsafe {
        asm!("mov rax, cr0", out("rax") _);
    });
    provoke("int 0x20", here, || unsafe { asm!("int 0x20") });
    provoke("int 4", here, || unsafe { asm!("int 4") });
}

// `int n`, for every n: each eight bytes long, each ending in a return.
global_asm!(
    ".text",
    ".balign 8",
    "abi_interrupts:",
    ".set n, 0",
    ".rept 256",
    ".balign 8, 0x90",
    ".byte 0xcd, n",
    "ret",
    ".set n, n + 1",
    ".endr",
    ".globl abi_interrupts",
);

unsafe extern "C" {
    static abi_interrupts: u8;
}

/// The addresses of instructions vary with the compiler: those of these do not matter.
pub(super) fn more() {
    let interrupt = |n: i64| &raw const abi_interrupts as i64 + 8 * n;
    // 0x80 is the 32-bit system call, which the sandbox does not have.
    for n in (0..256).filter(|n| *n != 0x80) {
        provoke(&format!("int {n:#x}"), interrupt(n) + 2, || jump(interrupt(n)));
    }
    let here = 0;
    provoke("icebp", here, || unsafe { asm!(".byte 0xf1") });
    provoke("ud0", here, || unsafe { asm!(".byte 0x0f, 0xff, 0xc0") });
    provoke("ud1", here, || unsafe { asm!(".byte 0x0f, 0xb9, 0xc0") });
    provoke("an opcode that is none", here, || unsafe { asm!(".byte 0x06") });
    provoke("lock without memory", here, || unsafe { asm!(".byte 0xf0, 0x90") });
    provoke("sixteen prefixes", here, || unsafe {
        asm!(
            ".byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90"
        );
    });
    provoke("sti", here, || unsafe { asm!("sti") });
    provoke("in", here, || unsafe { asm!("in al, 0x80", out("al") _) });
    provoke("outsb", here, || unsafe {
        asm!("outsb", in("dx") 0x80, in("rsi") &raw const abi_interrupts, options(nostack))
    });
    provoke("wrmsr", here, || unsafe {
        asm!("wrmsr", in("ecx") 0xc000_0100_u32, in("eax") 0, in("edx") 0);
    });
    provoke("wrmsr of the interrupt controller", here, || unsafe {
        asm!("wrmsr", in("ecx") 0x1b_u32, in("eax") 0, in("edx") 0);
    });
    provoke("mov to cr3", here, || unsafe { asm!("mov cr3, rax", in("rax") 0_u64) });
    provoke("mov from cr3", here, || unsafe { asm!("mov rax, cr3", out("rax") _) });
    provoke("mov to cr4", here, || unsafe { asm!("mov cr4, rax", in("rax") 0_u64) });
    provoke("mov from dr7", here, || unsafe { asm!("mov rax, dr7", out("rax") _) });
    provoke("clts", here, || unsafe { asm!("clts") });
    provoke("invd", here, || unsafe { asm!("invd") });
    provoke("wbinvd", here, || unsafe { asm!("wbinvd") });
    provoke("swapgs", here, || unsafe { asm!("swapgs") });
    provoke("sysret", here, || unsafe { asm!("sysretq") });
    provoke("lgdt", here, || unsafe { asm!("lgdt [rsp]") });
    provoke("lidt", here, || unsafe { asm!("lidt [rsp]") });
    provoke("lldt", here, || unsafe { asm!("lldt ax") });
    provoke("ltr", here, || unsafe { asm!("ltr ax") });
    provoke("lmsw", here, || unsafe { asm!("lmsw ax") });
    provoke("xsetbv", here, || unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") 7, in("edx") 0);
    });
    provoke("stac", here, || unsafe { asm!(".byte 0x0f, 0x01, 0xcb") });
    provoke("monitor", here, || unsafe {
        asm!("monitor", in("rax") &raw const abi_interrupts, in("ecx") 0, in("edx") 0)
    });
    provoke("rsm", here, || unsafe { asm!("rsm") });
    selectors();
    arithmetic();
}

/// Selectors of kernel segments, of none, and returns through them.
fn selectors() {
    let here = 0;
    for selector in [0x10_u16, 0x18, 0x38, 0x3b, 0x40, 0xfffb] {
        provoke(&format!("mov ss, {selector:#x}"), here, || unsafe {
            asm!("mov ss, {0:x}", in(reg) selector);
        });
        provoke(&format!("mov es, {selector:#x}"), here, || unsafe {
            asm!("mov es, {0:x}", in(reg) selector);
        });
        provoke(&format!("far return to {selector:#x}"), here, || unsafe {
            asm!("push {0}", "lea {0}, [rip + 2f]", "push {0}", "retfq", "2:", inout(reg) u64::from(selector) => _);
        });
        provoke(&format!("iret to {selector:#x}"), here, || unsafe {
            asm!("mov {1}, rsp", "push 0x2b", "push {1}", "push 0x202", "push {0}", "lea {0}, [rip + 2f]", "push {0}",
                "iretq", "2:", inout(reg) u64::from(selector) => _, out(reg) _);
        });
    }
    provoke("iret to the same ring", here, || unsafe {
        asm!("mov {1}, rsp", "push 0x2b", "push {1}", "push 0x202", "push 0x33", "lea {0}, [rip + 2f]", "push {0}",
            "iretq", "2:", out(reg) _, out(reg) _);
    });
    provoke("far jump to the kernel", here, || unsafe {
        let target: [u8; 10] = [0, 0, 0, 0x70, 0, 0, 0, 0, 0x10, 0];
        asm!("rex64 ljmp [{0}]", in(reg) target.as_ptr());
    });
}

/// Every floating-point exception, with SSE and with x87.
fn arithmetic() {
    let here = 0;
    // What divides, overflows, underflows, is inexact, is denormal, is invalid.
    let operands = [
        ("invalid", 0_u32, 0.0_f32, 0.0_f32),
        ("denormal", 1, f32::from_bits(1), 1.0),
        ("divide", 2, 1.0, 0.0),
        ("overflow", 3, f32::MAX, f32::MIN_POSITIVE),
        ("underflow", 4, f32::MIN_POSITIVE, f32::MAX),
        ("precision", 5, 1.0, 3.0),
    ];
    for (name, bit, a, b) in operands {
        provoke(&format!("SSE {name}"), here, || unsafe {
            let control = 0x1f80_u32 & !(1 << (7 + bit));
            asm!("ldmxcsr [{0}]", "divss {1}, {2}", in(reg) &raw const control, inout(xmm_reg) a => _, in(xmm_reg) b);
        });
        provoke(&format!("x87 {name}"), here, || unsafe {
            let control = 0x007f_u16 & !(1 << bit);
            let mut result = 0_f32;
            asm!("fninit", "fldcw [{0}]", "fld dword ptr [{1}]", "fdiv dword ptr [{2}]", "fstp dword ptr [{3}]", "fwait",
                in(reg) &raw const control, in(reg) &raw const a, in(reg) &raw const b, in(reg) &raw mut result);
        });
    }
    provoke("x87 stack overflow", here, || unsafe {
        let control = 0x037e_u16;
        asm!("fninit", "fldcw [{0}]", ".rept 9", "fld1", ".endr", "fwait", in(reg) &raw const control);
    });
    provoke("idiv overflow", here, || unsafe {
        asm!("idiv ecx", inout("eax") i32::MIN => _, inout("edx") -1 => _, in("ecx") -1);
    });
}
