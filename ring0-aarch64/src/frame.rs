//! Linux's `struct rt_sigframe` (arch/arm64/kernel/signal.c, asm/sigcontext.h): the only way to load every register and the
//! PC at once at EL0 is rt_sigreturn(2).

use crate::cpu::KernelRegs;
use crate::fp::FpState;

/// `FPSIMD_MAGIC`.
const FPSIMD_MAGIC: u32 = 0x4650_8001;
/// The condition flags: all of PSTATE that EL0 code may have live here.
pub const NZCV: u64 = {
    use aarch64_cpu::registers::SPSR_EL1::{C, N, V, Z};
    N::SET.value | Z::SET.value | C::SET.value | V::SET.value
};
const _: () = assert!(NZCV == 0xf000_0000);

/// `stack_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SignalStack {
    /// `ss_sp`.
    pub sp: u64,
    /// `ss_flags`.
    pub flags: u32,
    pad: u32,
    /// `ss_size`.
    pub size: u64,
}

/// `struct fpsimd_context`: a record in the frame's reserved area.
#[repr(C)]
#[derive(Clone, Copy)]
struct FpRecord {
    magic: u32,
    size: u32,
    fpsr: u32,
    fpcr: u32,
    v: [u128; 32],
}

/// The frame, as rt_sigreturn(2) expects it at the stack pointer.
#[repr(C, align(16))]
pub struct SignalFrame {
    info: [u64; 16],
    flags: u64,
    link: u64,
    /// Becomes the alternate stack: pass the current one.
    pub stack: SignalStack,
    /// Becomes the signal mask: pass the current one.
    pub mask: u64,
    unused: [u8; 120],
    pad: u64,
    fault_address: u64,
    x: [u64; 31],
    sp: u64,
    pc: u64,
    pstate: u64,
    fp: FpRecord,
    /// A record of zeros ends the list.
    end: [u32; 2],
    rest: [u8; 4096 - size_of::<FpRecord>() - 8],
}

const _: () = assert!(core::mem::offset_of!(SignalFrame, flags) == 128);
const _: () = assert!(core::mem::offset_of!(SignalFrame, fault_address) == 128 + 176);
const _: () = assert!(core::mem::offset_of!(SignalFrame, fp) == 128 + 176 + 288);
const _: () = assert!(size_of::<FpRecord>() == 528);

impl SignalFrame {
    /// Fills in what rt_sigreturn(2) loads. Alternate stack and mask are the caller's to set.
    pub fn fill(&mut self, regs: &KernelRegs, fp: &FpState) {
        (self.flags, self.link) = (0, 0);
        (self.x, self.sp, self.pc, self.pstate) = (regs.x, regs.sp, regs.pc, regs.pstate & NZCV);
        self.fp.magic = FPSIMD_MAGIC;
        self.fp.size = size_of::<FpRecord>() as u32;
        (self.fp.fpsr, self.fp.fpcr, self.fp.v) = (fp.fpsr, fp.fpcr, fp.v);
        self.end = [0; 2];
    }
}
