//! Floating-point state in frames. A CPU that tracks which components are in their initial state does not store those: what a
//! frame says of them must not be what was there before.

use super::handle;
use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::ptr::addr_of;

const FCW: usize = 0;
const MXCSR: usize = 24;
const XMM15: usize = 160 + 15 * 16;
const SOFTWARE: usize = 464;
const XSTATE_BV: usize = 512;
const MAGIC1: u32 = 0x4650_5853;

/// Control words and a register that C does not use for arguments.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
struct Fp {
    xmm15: u128,
    mxcsr: u32,
    fcw: u16,
}

/// What a program of its own would have.
const INITIAL: Fp = Fp { xmm15: 0, mxcsr: 0x1f80, fcw: 0x37f };
/// Something else.
const OTHER: Fp = Fp { xmm15: 0x0123_4567_89ab_cdef_1122_3344_5566_7788, mxcsr: 0x9fc0, fcw: 0x27f };

impl Fp {
    fn show(&self) -> String {
        format!("xmm15 {:#x}, MXCSR {:#x}, FCW {:#x}", self.xmm15, self.mxcsr, self.fcw)
    }
}

/// What the handler found in its own registers and in its frame, and what it writes there.
static mut OWN: Fp = INITIAL;
static mut FRAME: Fp = INITIAL;
static mut LEGACY_BITS: u64 = 0;
static mut CHANGE: Change = Change::Nothing;

#[derive(Clone, Copy)]
enum Change {
    Nothing,
    Legacy,
    /// A byte at that offset for so many bytes, and that bit of XSTATE_BV.
    Wide(usize, usize, u64),
}

/// # Safety
/// `at` is an FP image of a signal frame.
unsafe fn get<T: Copy>(at: *const u8, offset: usize) -> T {
    // SAFETY: the caller's; images are 64-byte aligned and longer than every offset used here.
    unsafe { at.add(offset).cast::<T>().read_unaligned() }
}

/// # Safety
/// As [`get`].
unsafe fn put<T: Copy>(at: *mut u8, offset: usize, value: T) {
    // SAFETY: as above.
    unsafe { at.add(offset).cast::<T>().write_unaligned(value) }
}

extern "C" fn handler(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let mut own = INITIAL;
    // SAFETY: stores registers to a local; the statics are this thread's, which waits for the handler.
    unsafe {
        asm!("movdqu [{0}], xmm15", "stmxcsr [{0} + 16]", "fnstcw [{0} + 20]", in(reg) &raw mut own, options(nostack));
        OWN = own;
        let image = (*context.cast::<libc::ucontext_t>()).uc_mcontext.fpregs.cast::<u8>();
        FRAME = Fp { xmm15: get(image, XMM15), mxcsr: get(image, MXCSR), fcw: get(image, FCW) };
        // Without XSAVE there is no header; there the two are always there.
        let extended = get::<u32>(image, SOFTWARE) == MAGIC1;
        LEGACY_BITS = if extended { get::<u64>(image, XSTATE_BV) & 3 } else { 3 };
        match CHANGE {
            Change::Nothing => {}
            Change::Legacy => {
                put(image, XMM15, OTHER.xmm15);
                put(image, MXCSR, OTHER.mxcsr);
                put(image, FCW, OTHER.fcw);
            }
            Change::Wide(at, len, bit) => {
                image.add(at).write_bytes(0x5a, len);
                put(image, XSTATE_BV, get::<u64>(image, XSTATE_BV) | bit);
            }
        }
    }
}

/// Runs instructions with `OTHER` loaded, gets a signal, and stores what is in the registers then.
macro_rules! signal_after {
    ($($line:literal),* ; $($behind:literal),* ; $wide:expr) => {{
        let (pid, tid) = (sys!(libc::SYS_getpid), sys!(libc::SYS_gettid));
        let (mut after, other, normal) = (INITIAL, OTHER, INITIAL);
        // SAFETY: loads and stores the locals and `$wide`, and leaves the control words as they were.
        unsafe {
            asm!(
                "movdqu xmm15, [{other}]", "ldmxcsr [{other} + 16]", "fldcw [{other} + 20]",
                $($line,)*
                "syscall",
                "movdqu [{after}], xmm15", "stmxcsr [{after} + 16]", "fnstcw [{after} + 20]",
                $($behind,)*
                "fninit", "ldmxcsr [{normal} + 16]",
                other = in(reg) &raw const other, after = in(reg) &raw mut after, normal = in(reg) &raw const normal,
                inlateout("rax") libc::SYS_tgkill => _, in("rdi") pid, in("rsi") tid, in("rdx") libc::SIGUSR1,
                in("r8") $wide, out("rcx") _, out("r11") _, out("xmm15") _, clobber_abi("C"),
            );
        }
        after
    }};
}

fn change(change: Change) {
    handle(libc::SIGUSR1, handler, 0);
    // SAFETY: no signal is on its way.
    unsafe { CHANGE = change }
}

fn frame() -> String {
    // SAFETY: the handler has run.
    let (fp, bits) = unsafe { (addr_of!(FRAME).read(), addr_of!(LEGACY_BITS).read()) };
    format!("{}, bits {bits}", fp.show())
}

fn has_avx() -> bool {
    // OSXSAVE and AVX.
    __cpuid(1).ecx & (1 << 27 | 1 << 28) == 1 << 27 | 1 << 28
}

/// Registers back in their initial state, after a frame in which they were not.
pub(super) fn initial_components() {
    change(Change::Nothing);
    println!("loaded: {} and after {}", signal_after!(; ; 0).show(), frame());
    println!("fninit: {} and after {}", signal_after!("fninit"; ; 0).show(), frame());
    println!("pxor: {} and after {}", signal_after!("pxor xmm15, xmm15"; ; 0).show(), frame());
    if has_avx() {
        println!("vzeroall: {} and after {}", signal_after!("vzeroall"; ; 0).show(), frame());
        println!("both: {} and after {}", signal_after!("vzeroall", "fninit"; ; 0).show(), frame());
    }
}

/// What a handler writes to x87 and SSE holds, whatever was in use.
pub(super) fn changed() {
    change(Change::Legacy);
    println!("loaded: {} and after {}", signal_after!("pxor xmm15, xmm15"; ; 0).show(), frame());
    println!("fninit: {} and after {}", signal_after!("fninit"; ; 0).show(), frame());
    if has_avx() {
        println!("vzeroall: {} and after {}", signal_after!("vzeroall", "fninit"; ; 0).show(), frame());
    }
}

/// The same of wider registers, where there are any.
pub(super) fn changed_wide() {
    let mut wide = [0_u8; 64];
    let at = &raw mut wide;
    if has_avx() {
        change(Change::Wide(576 + 15 * 16, 16, 4));
        signal_after!("vzeroall"; "vmovdqu [r8], ymm15"; at);
        println!("ymm15 {:x?}", &wide[..32]);
    }
    // AVX-512 F, and the state to be had.
    let offered =
        has_avx() && __cpuid_count(7, 0).ebx & 1 << 16 != 0 && __cpuid_count(0xd, 0).eax & 0xe0 == 0xe0;
    if offered {
        let place = |component| __cpuid_count(0xd, component).ebx as usize;
        change(Change::Wide(place(7) + 15 * 64, 64, 0x80));
        signal_after!("vpxord zmm31, zmm31, zmm31"; "vmovdqu64 [r8], zmm31"; at);
        let high = wide == [0x5a; 64];
        change(Change::Wide(place(6) + 15 * 32, 32, 0x40));
        signal_after!("vzeroall"; "vmovdqu64 [r8], zmm15"; at);
        let upper = wide[32..] == [0x5a; 32] && wide[..32] == [0; 32];
        change(Change::Wide(place(5) + 8, 2, 0x20));
        signal_after!("kxorw k1, k1, k1"; "kmovw [r8], k1"; at);
        println!("zmm31 {high}, upper half of zmm15 {upper}, k1 {:x?}", &wide[..2]);
    }
}

/// A handler does not inherit what it interrupts.
pub(super) fn fresh_state() {
    change(Change::Nothing);
    let after = signal_after!(; ; 0);
    // SAFETY: the handler has run.
    let own = unsafe { addr_of!(OWN).read() };
    println!("in the handler: {}; behind it as before: {}", own.show(), after == OTHER);
}
