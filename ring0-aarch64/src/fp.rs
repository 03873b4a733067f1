//! Floating-point and SIMD state.

/// V0-V31, FPSR and FPCR: the payload of Linux's `struct fpsimd_context` (asm/sigcontext.h).
#[repr(C, align(16))]
#[derive(Clone)]
pub struct FpState {
    /// V0 to V31.
    pub v: [u128; 32],
    /// FPSR.
    pub fpsr: u32,
    /// FPCR.
    pub fpcr: u32,
}

impl FpState {
    /// The state a new program starts with: all zero.
    pub fn initial() -> Self {
        FpState { v: [0; 32], fpsr: 0, fpcr: 0 }
    }
}
