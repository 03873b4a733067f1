//! What x86_64 can be asked to load.

use super::with_context;
use core::arch::asm;

/// What the handler of the fault is told of the interrupted code.
pub(super) fn describe(code: i32, address: i64, context: *mut libc::ucontext_t) -> String {
    // SAFETY: the kernel passed it to a handler.
    let registers = unsafe { &(*context).uc_mcontext.gregs };
    let of = |n: i32| registers[n as usize];
    let ip = of(libc::REG_RIP);
    // What is our own code is where the compiler put it.
    let place =
        if (0x40_0000..0x80_0000).contains(&ip) { "our own code".to_owned() } else { format!("{ip:#x}") };
    format!(
        "code {code} at {address:#x} in {place} vector {} error {:#x}",
        of(libc::REG_TRAPNO),
        of(libc::REG_ERR)
    )
}

fn register(context: *mut libc::ucontext_t, n: i32, value: u64) {
    // SAFETY: the kernel passed it to a handler.
    unsafe { (*context).uc_mcontext.gregs[n as usize] = value as i64 };
}

macro_rules! set {
    ($what:literal, $register:ident, $($value:expr),*) => {$(
        with_context(&format!("{} {:#x}", $what, { let value: u64 = $value; value }), |context| register(context, libc::$register, $value), || ());
    )*};
}

/// Instruction and stack pointers that are no addresses, flags that are not a program's.
pub(super) fn registers() {
    set!(
        "rip",
        REG_RIP,
        0,
        0x1000,
        0x7fff_ffff_e000,
        0x7fff_ffff_f000,
        0x8000_0000_0000,
        0x0100_0000_0000_0000,
        0xffff_8000_0000_0000,
        0xffff_8000_7000_0000,
        0xffff_8050_0000_0000,
        !0
    );
    set!("rsp", REG_RSP, 0, 1, 0x8000_0000_0000, 0x0100_0000_0000_0000, 0xffff_8000_0000_0000, !0);
    // IOPL, NT, IF, VM, VIF, VIP and the reserved bits: none of them changes anything.
    set!("eflags", REG_EFL, 0, 0x1a_7202, 0x3f_a002);
    set!("eflags with the trap flag", REG_EFL, 0x302);
    with_context(
        "flags that a program may not set",
        |context| register(context, libc::REG_EFL, 0x3a7202),
        || {
            let flags: u64;
            // SAFETY: reads the flags.
            unsafe { asm!("pushfq", "pop {}", out(reg) flags) };
            println!("  of them are set: {:#x}", flags & 0x1a_7000);
        },
    );
}

/// The header of an XSAVE image in a signal frame: MXCSR at 24, software's words at 464, the header proper at 512.
fn image(context: *mut libc::ucontext_t) -> *mut u8 {
    // SAFETY: the kernel passed it to a handler.
    unsafe { (*context).uc_mcontext.fpregs.cast() }
}

fn put<T>(context: *mut libc::ucontext_t, at: usize, value: T) {
    // SAFETY: the image is on the handler's stack, longer than any place used here.
    unsafe { image(context).add(at).cast::<T>().write_unaligned(value) };
}

fn pointer(context: *mut libc::ucontext_t, change: impl Fn(u64) -> u64) {
    // SAFETY: the kernel passed it to a handler.
    unsafe { (*context).uc_mcontext.fpregs = change(image(context) as u64) as *mut _ };
}

/// Says that x87 and SSE are present, and that the image is a compacted one of this format.
fn compacted(context: *mut libc::ucontext_t, format: u64) {
    put(context, 512, 3_u64);
    put(context, 520, 1_u64 << 63 | format);
}

fn show() {
    let (mut control, mut word) = (0_u32, 0_u16);
    // SAFETY: stores two control words.
    unsafe { asm!("stmxcsr [{}]", "fnstcw [{}]", in(reg) &raw mut control, in(reg) &raw mut word) };
    println!("  mxcsr {control:#x} fcw {word:#x}");
}

/// Floating-point images that the processor refuses to load, and pointers to none.
pub(super) fn fp() {
    with_context("an untouched image", |_| (), show);
    with_context("another rounding mode", |context| put(context, 24, 0x7f80_u32), show);
    // Reserved bits of MXCSR are left out: the emulator loads them. (A unit test has them.)
    with_context("reserved bits of the control word", |context| put(context, 0, 0xffff_u16), show);
    with_context("the header's unknown components", |context| put(context, 512, !0_u64), show);
    with_context("a component that is the system's", |context| put(context, 512, 1_u64 << 8 | 3), show);
    // Where XRSTOR takes such images at all it takes this one, and not those that have more than they say.
    with_context("a compacted image", |context| compacted(context, 3), show);
    with_context("one with more than it says", |context| compacted(context, 1), show);
    with_context("one with what nobody has", |context| compacted(context, 3 | 1 << 62), show);
    with_context("the header's reserved words", |context| put(context, 560, !0_u64), show);
    with_context("no component", |context| put(context, 512, 0_u64), show);
    with_context("the wrong first magic number", |context| put(context, 464, 0_u32), show);
    with_context("a huge size", |context| put(context, 468, !0_u32), show);
    with_context("a huge state", |context| put(context, 480, !0_u32), show);
    with_context("unknown features", |context| put(context, 472, !0_u64), show);
    with_context("no image", |context| pointer(context, |_| 0), show);
    with_context("an image near null", |context| pointer(context, |_| 64), show);
    with_context("an image in the kernel", |context| pointer(context, |_| 0xffff_8000_0000_0000), show);
    with_context(
        "an image outside of everything",
        |context| pointer(context, |_| 0x0100_0000_0000_0000),
        show,
    );
    with_context(
        "an image across the end of memory",
        |context| pointer(context, |_| (1 << 47) - 4096 - 64),
        show,
    );
}

/// Makes the call with the stack pointer there.
pub(super) fn sigreturn_at(address: u64) -> i32 {
    // SAFETY: what becomes of it is the point.
    unsafe {
        asm!("mov rsp, {}", "syscall", "ud2", in(reg) address, in("rax") libc::SYS_rt_sigreturn, options(noreturn))
    }
}
