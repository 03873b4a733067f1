//! The per-CPU block: everything the entry code reaches through SP_EL1.
//!
//! It lies in the arena and is mapped twice: at its own address (TTBR0, for kernel code) and in the kernel half (TTBR1,
//! for the entry code, whichever TTBR0 is loaded). SP_EL1 always names the kernel-half address, so that a vector has
//! a place for two registers before it has a register.

use crate::fp::FpState;
use crate::frame::SignalFrame;

/// The top bits of the kernel half: `address | KERNEL_HALF` is where a page that the entry code needs is mapped a
/// second time.
pub const KERNEL_HALF: u64 = 0xffff_0000_0000_0000;

/// Registers of kernel code that left the guest in the middle.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelRegs {
    /// x0 to x30.
    pub x: [u64; 31],
    /// Stack pointer.
    pub sp: u64,
    /// The instruction to execute natively.
    pub pc: u64,
    /// SPSR_EL1: the flags are in it.
    pub pstate: u64,
}

/// The block. The entry code's load and store pairs reach 504 bytes: what they use comes first.
#[repr(C, align(4096))]
pub struct Cpu {
    /// The program's x0 and x1, on the way in and out.
    pub scratch: [u64; 2],
    /// The program's registers: a `UserRegs` in the arena. Valid while user code runs.
    pub regs: u64,
    /// The program's [`FpState`] in the arena. Valid while user code runs.
    pub fp: u64,
    /// The worker's TPIDR_EL0: loaded before any compiled code runs.
    pub kernel_tpidr: u64,
    /// Stack pointer of the suspended `switch_to_user`.
    pub kernel_sp: u64,
    /// TTBR0_EL1 for kernel code: image and arena, nothing of the program's.
    pub kernel_ttbr0: u64,
    /// TTBR0_EL1 for user code, as loaded last.
    pub user_ttbr0: u64,
    /// ESR_EL1 of the last trap from user code, or one of [`crate::trap`]'s markers.
    pub trap_esr: u64,
    /// FAR_EL1 then.
    pub trap_far: u64,
    /// Kernel-half address of the page that nothing backs: a store to it leaves the guest.
    pub exit_address: u64,
    /// Which engine runs kernel code: 1 in the guest, 0 natively. There is no register that tells at EL0.
    pub in_guest: u64,
    /// Stack pointer of kernel code suspended by `enter_guest` or `leave_guest`.
    pub context_sp: u64,
    /// Stack pointer of the host loop while the context runs natively.
    pub host_sp: u64,
    /// A [`ring0::Exit`], set right before the exit instruction; the host clears it on reading.
    pub exit: u64,
    /// ESR_EL1 of the exception that caused [`ring0::Exit::Fault`].
    pub exit_esr: u64,
    /// FAR_EL1 then.
    pub exit_far: u64,
    /// Registers at a host call or fault.
    pub exit_regs: KernelRegs,
    /// FP state at a host call or fault.
    pub exit_fp: FpState,
    /// What resumes a fault natively.
    pub frame: SignalFrame,
}

/// Bytes of address space per block.
pub const CPU_STRIDE: u64 = size_of::<Cpu>() as u64;

const _: () = assert!(core::mem::offset_of!(Cpu, exit_regs) + size_of::<KernelRegs>() - 16 <= 504);

impl Cpu {
    /// Fills a zeroed block. `kernel_ttbr0` is the kernel's root; `exit_page` is a guest-physical page without memory,
    /// mapped at `exit_page | KERNEL_HALF`.
    pub fn init(&mut self, kernel_ttbr0: u64, exit_page: u64) {
        self.kernel_ttbr0 = kernel_ttbr0;
        self.exit_address = exit_page | KERNEL_HALF;
    }
}
