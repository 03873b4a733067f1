//! Floating-point and vector state.

/// Bytes of an XSAVE area with x87, SSE, AVX and AVX-512 (SDM vol. 1, 13.4), standard format: 2,688, and room to spare.
pub const FP_SIZE: usize = 2816;

/// MXCSR at reset: every exception masked, round to nearest.
pub const INITIAL_MXCSR: u32 = 0x1f80;
/// MXCSR bits that exist on every processor with XSAVE (SDM vol. 1, 10.2.3); setting others faults.
const MXCSR_MASK: u32 = 0xffff;
/// x87 control word after FNINIT.
const INITIAL_FCW: u16 = 0x037f;

/// Offsets in the legacy region and the XSAVE header.
const MXCSR: usize = 24;
const MXCSR_MASK_FIELD: usize = 28;
const HEADER: usize = 512;
const XSTATE_BV: usize = HEADER;

/// An XSAVE (or FXSAVE) image, standard (non-compacted) format.
#[repr(C, align(64))]
#[derive(Clone)]
pub struct FpState(pub [u8; FP_SIZE]);

impl FpState {
    /// The state a new program starts with: FCW 0x37f, MXCSR 0x1f80, everything else in its initial configuration.
    pub const fn initial() -> Self {
        let mut bytes = [0; FP_SIZE];
        bytes[0] = INITIAL_FCW as u8;
        bytes[1] = (INITIAL_FCW >> 8) as u8;
        bytes[MXCSR] = INITIAL_MXCSR as u8;
        bytes[MXCSR + 1] = (INITIAL_MXCSR >> 8) as u8;
        FpState(bytes)
    }

    /// Whether XRSTOR would load the image. True for everything that XSAVE stored; a few loads, for every switch.
    #[inline]
    pub fn is_loadable(&self, xcr0: u64) -> bool {
        let word = |at: usize| u64::from_le_bytes(self.array(at));
        let reserved = (HEADER + 8..HEADER + 64).step_by(8).fold(0, |all, at| all | word(at));
        let mxcsr = u32::from_le_bytes(self.array(MXCSR));
        reserved == 0 && word(XSTATE_BV) & !xcr0 == 0 && mxcsr & !MXCSR_MASK == 0
    }

    /// Makes an image that a program wrote loadable: XRSTOR and FXRSTOR fault on reserved bits (SDM vol. 1, 13.8.1),
    /// and a fault there would be ring 0's. Linux clears the same bits (`sanitize_restored_user_xstate`).
    pub fn sanitize(&mut self, xcr0: u64) {
        let mxcsr = u32::from_le_bytes(self.array(MXCSR)) & MXCSR_MASK;
        self.put(MXCSR, &mxcsr.to_le_bytes());
        self.put(MXCSR_MASK_FIELD, &MXCSR_MASK.to_le_bytes());
        let components = u64::from_le_bytes(self.array(XSTATE_BV)) & xcr0;
        self.put(HEADER, &[0; 64]);
        self.put(XSTATE_BV, &components.to_le_bytes());
    }

    #[inline]
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        for (to, from) in self.0.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::FpState;

    #[test]
    fn hostile_images_lose_what_would_fault() {
        let mut fp = FpState([0xff; super::FP_SIZE]);
        assert!(!fp.is_loadable(7));
        fp.sanitize(7);
        assert!(fp.is_loadable(7) && FpState::initial().is_loadable(3));
        assert_eq!(fp.0[24..32], [0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0]);
        assert_eq!(fp.0[512..520], 7u64.to_le_bytes());
        assert!(fp.0[520..576].iter().all(|b| *b == 0));
        assert_eq!(fp.0[576], 0xff);
    }
}
