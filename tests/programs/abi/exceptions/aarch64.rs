//! Instructions of aarch64 that trap, those that a program may not execute, and those that Linux emulates.

use super::{jump, provoke};
use crate::sys::{self, memory};
use core::arch::asm;

/// Syndrome and address, as signal frames carry them: of aborts without what depends on the state of page tables, and with the
/// address as a distance from `address`.
pub(super) fn reason(context: *mut libc::ucontext_t, address: i64) -> String {
    const ESR_MAGIC: u32 = 0x4553_5201;
    // SAFETY: the kernel passed it to a handler; the records end with an empty one (uapi/asm/sigcontext.h).
    let (esr, at) = unsafe {
        let machine = &raw const (*context).uc_mcontext;
        let mut record = ((&raw const (*machine).pstate) as usize + 8).next_multiple_of(16) as *const u32;
        while record.read() != ESR_MAGIC && record.read() != 0 {
            record = record.byte_add(record.add(1).read() as usize);
        }
        let esr = (record.read() == ESR_MAGIC).then(|| record.add(2).cast::<u64>().read());
        (esr, (*machine).fault_address as i64)
    };
    let shown = esr.map(|esr| match (esr >> 26, esr & 0x3f) {
        (0x20 | 0x24, 4..8) => esr & !3,
        // Access flag or permission: Linux may have made the page old.
        (0x20 | 0x24, 8..16) => esr & !7,
        _ => esr,
    });
    let place = if at == 0 { 0 } else { at.wrapping_sub(address) };
    format!(" syndrome {shown:x?} at {place:#x}{}", if at == 0 { " itself" } else { "" })
}

pub(super) fn instructions() {
    let here = 0;
    // SAFETY (every block): the exception is the point; it ends the child.
    provoke("udf", here, || unsafe { asm!("udf #0") });
    provoke("brk", here, || unsafe { asm!("brk #1") });
    provoke("hvc", here, || unsafe { asm!("hvc #0") });
    provoke("msr daifset", here, || unsafe { asm!("msr daifset, #2") });
    provoke("mrs sctlr_el1", here, || unsafe {
        asm!("mrs {0}, sctlr_el1", out(reg) _);
    });
    let odd = memory(4096) + 1;
    provoke("misaligned exclusive", odd, || unsafe {
        asm!("ldxr {0}, [{1}]", out(reg) _, in(reg) odd);
    });
    provoke("misaligned jump", here, || jump(0x1001));
}

macro_rules! one {
    ($what:literal, $($code:tt)*) => {
        provoke($what, 0, || unsafe { asm!($($code)*, out("x0") _) })
    };
}

macro_rules! shown {
    ($($register:literal)*) => {$(
        provoke(concat!("mrs ", $register), 0, || {
            let value: u64;
            unsafe { asm!(concat!("mrs {}, ", $register), out(reg) value) };
            println!("  {value:#x}");
        });
    )*};
}

/// The addresses of instructions vary with the compiler: those of these do not matter.
pub(super) fn more() {
    one!("brk 0", "brk #0");
    one!("brk 0xffff", "brk #0xffff");
    one!("smc", ".inst 0xd4000003");
    one!("hvc 0x4a48", "hvc #0x4a48");
    one!("hlt", "hlt #1");
    one!("dcps1", "dcps1");
    one!("eret", "eret");
    one!("msr daifclr", "msr daifclr, #15");
    one!("mrs daif", "mrs x0, daif");
    one!("msr spsel", "msr spsel, #1");
    one!("mrs currentel", "mrs x0, currentel");
    one!("mrs sp_el0", "mrs x0, sp_el0");
    one!("msr ttbr0_el1", "msr ttbr0_el1, x0");
    one!("mrs ttbr1_el1", "mrs x0, ttbr1_el1");
    one!("msr vbar_el1", "msr vbar_el1, x0");
    one!("mrs tpidr_el1", "mrs x0, tpidr_el1");
    one!("msr tpidrro_el0", "msr tpidrro_el0, x0");
    one!("mrs elr_el1", "mrs x0, elr_el1");
    one!("msr cntkctl_el1", "msr cntkctl_el1, x0");
    one!("mrs cntv_ctl_el0", "mrs x0, cntv_ctl_el0");
    one!("msr cntv_tval_el0", "msr cntv_tval_el0, x0");
    one!("mrs cntp_ctl_el0", "mrs x0, cntp_ctl_el0");
    one!("msr pmcr_el0", "msr pmcr_el0, x0");
    one!("mrs mdscr_el1", "mrs x0, mdscr_el1");
    one!("mrs actlr_el1", "mrs x0, actlr_el1");
    one!("tlbi", "tlbi vmalle1");
    one!("at", "at s1e0r, x0");
    one!("ic iallu", "ic iallu");
    one!("dc isw", "dc isw, x0");
    one!("dc ivac", "mov x0, sp", "dc ivac, x0");
    one!("msr oslar", "msr S2_0_C1_C0_4, x0");
    // What this core does not have.
    one!("ldadd (LSE)", ".inst 0xf8200020");
    one!("rdvl (SVE)", ".inst 0x04bf5020");
    one!("irg (MTE)", ".inst 0x9ac01000");
    one!("pacga (PAC)", ".inst 0x9ac03000");
    one!("msr pan", ".inst 0xd500419f");
    one!("mrs rndr", ".inst 0xd53b2400");
    one!("sb", ".inst 0xd50330ff");
    // What lies in the space of hints does nothing where it is unknown.
    one!("bti", ".inst 0xd503245f");
    one!("paciasp", ".inst 0xd503233f", "mov x0, #0");
    one!("esb", ".inst 0xd503221f");
    one!("wfe", "sevl", "wfe");
    one!("wfi and wfe, many", "mov x0, #100", "2: wfi", "sub x0, x0, #1", "cbnz x0, 2b");
    one!("yield", "yield");
    system_registers();
    calls();
    memory_accesses();
}

fn system_registers() {
    shown!("midr_el1" "revidr_el1" "id_aa64pfr0_el1" "id_aa64pfr1_el1" "id_aa64dfr0_el1" "id_aa64isar0_el1"
        "id_aa64isar1_el1" "id_aa64mmfr0_el1" "id_aa64mmfr1_el1" "id_aa64mmfr2_el1" "S3_0_C0_C4_4" "S3_0_C0_C7_7"
        "S3_0_C0_C2_0" "S3_0_C0_C3_0" "S3_0_C0_C1_0" "S3_0_C0_C0_1" "ctr_el0" "dczid_el0" "cntfrq_el0" "fpcr" "fpsr" "nzcv");
    provoke("the multiprocessor register", 0, || {
        let value: u64;
        unsafe { asm!("mrs {}, mpidr_el1", out(reg) value) };
        println!("  {:#x}", value & !0xff);
    });
    provoke("an identity register into the zero register", 0, || unsafe {
        asm!("mrs xzr, id_aa64isar0_el1")
    });
    let count = || {
        let value: u64;
        unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) value) };
        value
    };
    let mut last = count();
    let forward = (0..10_000).all(|_| {
        let now = count();
        std::mem::replace(&mut last, now) <= now
    });
    println!("the counter runs forward: {forward}");
    one!("the physical counter", "mrs x0, cntpct_el0");
    let fpcr: u64;
    unsafe { asm!("msr fpcr, {0}", "isb", "mrs {0}, fpcr", "msr fpcr, xzr", inout(reg) u64::MAX => fpcr) };
    println!("what fpcr takes: {fpcr:#x}");
}

/// The number in `svc` is nobody's business.
fn calls() {
    let call = |result: i64| println!("svc: {}", sys::show(result));
    let mut result: i64;
    unsafe { asm!("svc #1", in("x8") libc::SYS_close, inout("x0") -1_i64 => result) };
    call(result);
    unsafe { asm!("svc #0xffff", in("x8") libc::SYS_close, inout("x0") -1_i64 => result) };
    call(result);
    unsafe { asm!("svc #0x80", in("x8") libc::SYS_close, inout("x0") -1_i64 => result) };
    call(result);
}

fn memory_accesses() {
    let page = memory(8192);
    sys::poke(page + 100, 7);
    unsafe {
        asm!("dc zva, {0}", "dc cvac, {0}", "dc civac, {0}", "dc cvau, {0}", "ic ivau, {0}", in(reg) page + 64)
    };
    println!("dc zva: {}", sys::peek(page + 100));
    sys!(libc::SYS_mprotect, page + 4096, 4096, libc::PROT_NONE);
    provoke("dc zva without rights", page + 4096 + 64, || unsafe {
        asm!("dc zva, {0}", in(reg) page + 4096 + 64)
    });
    provoke("dc cvac without rights", page + 4096 + 8, || unsafe {
        asm!("dc cvac, {0}", in(reg) page + 4096 + 8)
    });
    provoke("ic ivau without rights", page + 4096 + 8, || unsafe {
        asm!("ic ivau, {0}", in(reg) page + 4096 + 8)
    });
    sys!(libc::SYS_mprotect, page + 4096, 4096, libc::PROT_READ);
    provoke("dc zva of a read-only page", page + 4096, || unsafe {
        asm!("dc zva, {0}", in(reg) page + 4096)
    });
    provoke("misaligned load-acquire", page + 1, || unsafe {
        asm!("ldar {0}, [{1}]", out(reg) _, in(reg) page + 1);
    });
    provoke("misaligned store-exclusive", page + 2, || unsafe {
        asm!("ldaxr {0}, [{1}]", "stlxr {3:w}, {0}, [{2}]", out(reg) _, in(reg) page, in(reg) page + 2, out(reg) _);
    });
    let stack = memory(256 << 10) + (128 << 10) + 8;
    provoke("misaligned stack pointer", stack, || unsafe {
        asm!("mov x20, sp", "mov sp, {0}", "ldr x21, [sp]", "mov sp, x20", in(reg) stack, out("x20") _, out("x21") _);
    });
    provoke("tagged read", 0, || {
        let value: u64;
        unsafe { asm!("ldr {0}, [{1}]", out(reg) value, in(reg) page | 0x5a << 56) };
        println!("  {value}");
    });
    let hole = page + 4096;
    sys!(libc::SYS_munmap, hole, 4096);
    provoke("tagged read of a hole", hole, || {
        sys::peek(hole | 0x5a << 56);
    });
    provoke("a call of a misaligned address", page + 2, || jump(page + 2));
    provoke("a pair across the end", page + 4096, || unsafe {
        asm!("ldp {0}, {1}, [{2}]", out(reg) _, out(reg) _, in(reg) page + 4088);
    });
}
