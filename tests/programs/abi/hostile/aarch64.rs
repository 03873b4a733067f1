//! What aarch64 can be asked to load.

use super::with_context;
use core::arch::asm;

/// What the handler of the fault is told of the interrupted code.
pub(super) fn describe(code: i32, address: i64, context: *mut libc::ucontext_t) -> String {
    // SAFETY: the kernel passed it to a handler.
    let (pc, sp) = unsafe { ((*context).uc_mcontext.pc, (*context).uc_mcontext.sp) };
    match address as u64 {
        at if at == pc => format!("code {code} at {at:#x}"),
        // A frame that is none.
        at if at == sp => format!("code {code} at its stack pointer"),
        _ => format!("code {code} elsewhere"),
    }
}

macro_rules! set {
    ($what:literal, $field:ident, $($value:expr),*) => {$(
        with_context(&format!("{} {:#x}", $what, $value as u64), |context| {
            // SAFETY: the kernel passed it to a handler.
            unsafe { (*context).uc_mcontext.$field = $value };
        }, || ());
    )*};
}

/// Instruction and stack pointers that are no addresses, states that are not a program's.
pub(super) fn registers() {
    set!(
        "pc",
        pc,
        0,
        0x1000,
        0x1002,
        0x0000_ffff_ffff_f000,
        0x0001_0000_0000_0000,
        0x0100_0000_0000_0000,
        0x0080_0000_0000_0000,
        0xffff_0000_0000_0000,
        0xffff_0000_7000_0000,
        0xffff_0050_0000_0000,
        !3,
        !0
    );
    set!("sp", sp, 0, 1, 8, 0x0001_0000_0000_0000, 0x0100_0000_0000_0000, 0xffff_0000_0000_0000, !15);
    // EL1h, EL1t, EL2h, AArch32, interrupts masked, an illegal state, single step, reserved bits.
    set!(
        "pstate",
        pstate,
        0x5,
        0x4,
        0x9,
        0x10,
        0x1f,
        0x3c0,
        1 << 20,
        1 << 21,
        0x0fc0_0000,
        0x0100_0000_0000,
        !0
    );
}

/// A word of the records behind the registers: magic number, size, contents.
fn record(context: *mut libc::ucontext_t, at: usize, value: u32) {
    // SAFETY: the kernel wrote at least the floating-point record there: 528 bytes.
    unsafe {
        let machine = &raw mut (*context).uc_mcontext;
        // The records follow `pstate`, aligned to sixteen bytes.
        let records = ((&raw mut (*machine).pstate) as usize + 8).next_multiple_of(16);
        ((records + at) as *mut u32).write(value);
    }
}

fn show() {
    let (control, status): (u64, u64);
    // SAFETY: reads two registers and puts the control register back.
    unsafe { asm!("mrs {0}, fpcr", "mrs {1}, fpsr", "msr fpcr, xzr", out(reg) control, out(reg) status) };
    println!("  fpcr {control:#x} fpsr {:#x}", status & !0x9f);
}

/// Floating-point records that are none, and control registers with every bit set.
pub(super) fn fp() {
    with_context("an untouched record", |_| (), show);
    with_context("every bit of fpsr", |context| record(context, 8, !0), show);
    with_context("every bit of fpcr", |context| record(context, 12, !0), show);
    with_context("an unknown magic number", |context| record(context, 0, 0x1234_5678), show);
    with_context("no record", |context| record(context, 0, 0), show);
    with_context("a size too small", |context| record(context, 4, 16), show);
    with_context("a size too large", |context| record(context, 4, 0x10000), show);
    with_context("a misaligned size", |context| record(context, 4, 529), show);
    with_context("no size", |context| record(context, 4, 0), show);
}

/// Makes the call with the stack pointer there.
pub(super) fn sigreturn_at(address: u64) -> i32 {
    // SAFETY: what becomes of it is the point.
    unsafe {
        asm!("mov sp, {}", "svc #0", "udf #0", in(reg) address, in("x8") libc::SYS_rt_sigreturn, options(noreturn))
    }
}
