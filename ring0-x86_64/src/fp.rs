//! Floating-point and vector state.

/// Bytes of an XSAVE area with x87, SSE, AVX and AVX-512 (SDM vol. 1, 13.4), standard format: 2,688, and room to spare.
pub const FP_SIZE: usize = 2816;

/// An XSAVE (or FXSAVE) image, standard (non-compacted) format.
#[repr(C, align(64))]
#[derive(Clone)]
pub struct FpState(pub [u8; FP_SIZE]);

impl FpState {
    /// The state a new program starts with: FCW 0x37f, MXCSR 0x1f80, everything else in its initial configuration.
    pub fn initial() -> Self {
        let mut bytes = [0; FP_SIZE];
        bytes[0] = 0x7f;
        bytes[1] = 0x03;
        bytes[24] = 0x80;
        bytes[25] = 0x1f;
        FpState(bytes)
    }
}
