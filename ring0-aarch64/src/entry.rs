//! The assembly of `entry.S`, with its numbers, and safe-to-describe ways to call it.

use crate::cpu::{Cpu, KERNEL_HALF, KernelRegs};
use crate::fp::FpState;
use crate::regs::UserRegs;
use crate::{stack, trap};
use core::arch::{asm, global_asm};
use core::mem::offset_of;
use ring0::Exit;

global_asm!(
    include_str!("entry.S"),
    FRAME = const stack::FRAME,
    FPSR = const offset_of!(FpState, fpsr),
    SCRATCH = const offset_of!(Cpu, scratch),
    MARK_IRQ = const trap::MARK_IRQ,
    MARK_SERROR = const trap::MARK_SERROR,
    IN_GUEST = const offset_of!(Cpu, in_guest),
    REGS = const offset_of!(Cpu, regs),
    FP = const offset_of!(Cpu, fp),
    USER_TTBR0 = const offset_of!(Cpu, user_ttbr0),
    KERNEL_SP = const offset_of!(Cpu, kernel_sp),
    KERNEL_TPIDR = const offset_of!(Cpu, kernel_tpidr),
    KERNEL_TTBR0 = const offset_of!(Cpu, kernel_ttbr0),
    TRAP_ESR = const offset_of!(Cpu, trap_esr),
    TRAP_FAR = const offset_of!(Cpu, trap_far),
    USER_SP = const offset_of!(UserRegs, sp),
    USER_PSTATE = const offset_of!(UserRegs, pstate),
    KERNEL_HALF = const KERNEL_HALF,
    EXIT_X = const offset_of!(Cpu, exit_regs),
    EXIT_ESR = const offset_of!(Cpu, exit_esr),
    EXIT_FAR = const offset_of!(Cpu, exit_far),
    EXIT_FP = const offset_of!(Cpu, exit_fp),
    EXIT = const offset_of!(Cpu, exit),
    EXIT_ADDRESS = const offset_of!(Cpu, exit_address),
    CONTEXT_SP = const offset_of!(Cpu, context_sp),
    HOST_SP = const offset_of!(Cpu, host_sp),
    SVC = const trap::class::SVC,
    FAULT = const Exit::Fault as u64,
    HOST_CALL = const Exit::HostCall as u64,
    LEAVE = const Exit::Leave as u64,
    RT_SIGRETURN = const 139,
);

// The pairs that the assembly loads and stores together.
const _: () = assert!(offset_of!(Cpu, fp) == offset_of!(Cpu, regs) + 8);
const _: () = assert!(offset_of!(Cpu, kernel_sp) == offset_of!(Cpu, kernel_tpidr) + 8);
const _: () = assert!(offset_of!(UserRegs, pc) == offset_of!(UserRegs, sp) + 8);
const _: () = assert!(offset_of!(UserRegs, tpidr) == offset_of!(UserRegs, pstate) + 8);
const _: () = assert!(offset_of!(UserRegs, x) == 0 && offset_of!(KernelRegs, x) == 0);
const _: () = assert!(offset_of!(KernelRegs, sp) == 248 && offset_of!(KernelRegs, pc) == 256);
const _: () = assert!(offset_of!(FpState, fpcr) == offset_of!(FpState, fpsr) + 4);

unsafe extern "C" {
    static ring0_text_start: [u8; 0];
    static ring0_text_end: [u8; 0];
    static ring0_vectors: [u8; 0];
    static ring0_resume: [u8; 0];
    fn ring0_enter_guest(cpu: *mut Cpu);
    fn ring0_leave_guest(cpu: *mut Cpu);
    fn ring0_continue(cpu: *mut Cpu);
    fn ring0_continue_host_call(cpu: *mut Cpu);
    fn ring0_continue_fault(cpu: *mut Cpu, frame: *const u8);
}

/// Where the entry code lies in the image: page-aligned [start, end), to be mapped in the kernel half too.
pub fn text() -> (u64, u64) {
    ((&raw const ring0_text_start) as u64, (&raw const ring0_text_end) as u64)
}

/// Address of the vector table in the image.
pub fn vectors() -> u64 {
    (&raw const ring0_vectors) as u64
}

/// Address in the image of the instruction behind the exit instruction: the first PC of a vCPU.
pub fn resume() -> u64 {
    (&raw const ring0_resume) as u64
}

/// Whether kernel code of this worker runs in the guest.
///
/// # Safety
/// `cpu` is the calling worker's block.
#[inline]
pub unsafe fn in_guest(cpu: *mut Cpu) -> bool {
    // SAFETY: a worker's block is always readable. Only the guest and the host loop write the word, never while this
    // code runs.
    unsafe { (&raw const (*cpu).in_guest).read_volatile() != 0 }
}

/// Runs user code until it traps; then `cpu.trap_esr` and `cpu.trap_far` say why. Enters the guest first if need be.
///
/// Inlined on purpose: user code changes every register, so the caller saves its own where it keeps something in them,
/// which a loop around this does once, not every time.
///
/// # Safety
/// `cpu` is the calling worker's block; `regs` and `fp` lie in the arena and are not accessed otherwise meanwhile;
/// `ttbr0` is 0 for what was loaded last, or holds the root and the ASID of a table; the table stays alive.
#[inline(always)]
pub unsafe fn switch_to_user(cpu: *mut Cpu, regs: *mut UserRegs, fp: *mut FpState, ttbr0: u64) {
    // SAFETY: the caller's. The target keeps the stack pointer only, and puts x30 into the third word of the frame made
    // here; the other two are of registers that the compiler lets nobody name.
    unsafe {
        asm!(
            "stp x19, x29, [sp, #-32]!",
            "bl ring0_switch_to_user",
            "ldp x19, x29, [sp], #32",
            inout("x0") cpu => _, inout("x1") regs => _, inout("x2") fp => _, inout("x3") ttbr0 => _,
            lateout("x20") _, lateout("x21") _, lateout("x22") _, lateout("x23") _, lateout("x24") _,
            lateout("x25") _, lateout("x26") _, lateout("x27") _, lateout("x28") _,
            clobber_abi("C"),
        );
    }
}

/// Makes the calling context go on in the guest.
///
/// # Safety
/// `cpu` is the calling worker's block, and its host loop is the caller's.
#[inline]
pub unsafe fn enter_guest(cpu: *mut Cpu) {
    // SAFETY: the caller's.
    unsafe { ring0_enter_guest(cpu) }
}

/// Makes the calling context go on natively.
///
/// # Safety
/// As for [`enter_guest`].
#[inline]
pub unsafe fn leave_guest(cpu: *mut Cpu) {
    // SAFETY: the caller's.
    unsafe { ring0_leave_guest(cpu) }
}

/// Runs the context natively, the way `exit` suspended it, until it enters the guest. For [`Exit::Fault`] the block's
/// frame has been filled.
///
/// # Safety
/// Called by the host loop of `cpu`'s worker, natively, for the exit that the guest gave last (or [`Exit::Leave`]
/// for a fresh stack in `context_sp`); no lock or reference that the context may want is held.
pub unsafe fn resume_native(cpu: *mut Cpu, exit: Exit) {
    // SAFETY: the caller's.
    unsafe {
        match exit {
            Exit::HostCall => ring0_continue_host_call(cpu),
            Exit::Fault => ring0_continue_fault(cpu, (&raw const (*cpu).frame).cast()),
            Exit::Leave | Exit::None => ring0_continue(cpu),
        }
    }
}
