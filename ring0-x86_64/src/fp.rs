//! Floating-point and vector state.

use x86_64::registers::mxcsr::MxCsr;
use x86_64::registers::xcontrol::XCr0Flags;

/// Bytes of an XSAVE area with x87, SSE, AVX and AVX-512 (SDM vol. 1, 13.4), standard format: 2,688, and room to spare.
pub const FP_SIZE: usize = 2816;

/// MXCSR at reset: every exception masked, round to nearest.
pub const INITIAL_MXCSR: u32 = MxCsr::INVALID_OPERATION_MASK
    .union(MxCsr::DENORMAL_MASK)
    .union(MxCsr::DIVIDE_BY_ZERO_MASK)
    .union(MxCsr::OVERFLOW_MASK)
    .union(MxCsr::UNDERFLOW_MASK)
    .union(MxCsr::PRECISION_MASK)
    .bits();
/// MXCSR bits that exist on every processor with XSAVE (SDM vol. 1, 10.2.3); setting others faults.
const MXCSR_MASK: u32 = MxCsr::all().bits();
/// x87 control word after FNINIT.
pub(crate) const INITIAL_FCW: u16 = 0x037f;

/// Offsets in the legacy region and the XSAVE header.
const MXCSR: usize = 24;
const MXCSR_MASK_FIELD: usize = 28;
const HEADER: usize = 512;
const XSTATE_BV: usize = HEADER;
/// What is x87's: control, status and tag words and pointers before MXCSR, the registers behind it.
const X87: [core::ops::Range<usize>; 2] = [0..MXCSR, 32..160];
/// What is SSE's, beside MXCSR.
const XMM: core::ops::Range<usize> = 160..416;
/// The components of the legacy region.
const BOTH: XCr0Flags = XCr0Flags::X87.union(XCr0Flags::SSE);

/// Where state components lie in an image, by their numbers (CPUID leaf 0xd): offset and bytes. Of the first two, which are
/// at fixed places, nothing is read; no bytes: there is no such component.
pub type Components = [(usize, usize); 8];

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

    /// Makes every byte of an XSAVE image mean something, for others to read and change: XSAVEOPT leaves the bytes of a
    /// component in its initial state as they were, and says so in XSTATE_BV only (SDM vol. 1, 13.9). The initial values are
    /// written, and x87 and SSE are said to be there, as Linux does for programs that know FXSAVE only
    /// (`save_xstate_epilog`). MXCSR is always stored, and always loaded.
    pub fn complete(&mut self, components: &Components) {
        let present = u64::from_le_bytes(self.array(XSTATE_BV));
        if present & XCr0Flags::X87.bits() == 0 {
            X87.into_iter().for_each(|part| self.clear(part));
            self.put(0, &INITIAL_FCW.to_le_bytes());
        }
        if present & XCr0Flags::SSE.bits() == 0 {
            self.clear(XMM);
        }
        for (number, &(at, len)) in components.iter().enumerate().skip(2) {
            if present & 1 << number == 0 {
                self.clear(at..at + len);
            }
        }
        self.put(XSTATE_BV, &(present | BOTH.bits()).to_le_bytes());
    }

    /// Moves the components of a compacted image, which are those in `format`, to where the standard format has them
    /// (SDM vol. 1, 13.4.3). `aligned`: those that begin at multiples of 64. None lies further back than there: what is moved
    /// from the last one on is not overwritten before.
    pub fn expand(&mut self, format: u64, components: &Components, aligned: u64) {
        let mut starts = [0; 8];
        let mut next = HEADER + 64;
        for (number, &(_, len)) in components.iter().enumerate().skip(2).filter(|(n, _)| format & 1 << n != 0)
        {
            let start = if aligned & 1 << number != 0 { next.next_multiple_of(64) } else { next };
            starts[number] = start;
            next = start + len;
        }
        for (number, &(at, len)) in components.iter().enumerate().skip(2).rev() {
            let from = starts[number];
            if from != 0 && from <= at && at + len <= FP_SIZE {
                self.0.copy_within(from..from + len, at);
            }
        }
    }

    /// Back to the initial state, whichever instruction loads it: the legacy region for FXRSTOR, an empty XSTATE_BV for
    /// XRSTOR, which does not look at the rest.
    pub fn reset(&mut self) {
        X87.into_iter().for_each(|part| self.clear(part));
        self.clear(XMM);
        self.put(0, &INITIAL_FCW.to_le_bytes());
        self.put(MXCSR, &INITIAL_MXCSR.to_le_bytes());
        self.clear(HEADER..HEADER + 64);
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

    fn clear(&mut self, part: core::ops::Range<usize>) {
        if let Some(bytes) = self.0.get_mut(part) {
            bytes.fill(0);
        }
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

    /// As on Intel: AVX, opmask, the upper halves of ZMM0 to 15, ZMM16 to 31.
    const PLACES: super::Components =
        [(0, 0), (0, 0), (576, 256), (0, 0), (0, 0), (1088, 64), (1152, 512), (1664, 1024)];

    #[test]
    fn compacted_images_are_taken_apart() {
        for format in [0_u64, 4, 0x20, 0x24, 0xe0, 0xe4, 0x80] {
            let mut fp = FpState([0xa5; super::FP_SIZE]);
            let mut next = 576_usize;
            for (number, &(_, len)) in PLACES.iter().enumerate().filter(|(n, _)| format & 1 << n != 0) {
                next = if number == 6 { next.next_multiple_of(64) } else { next };
                fp.0[next..next + len].fill(number as u8);
                next += len;
            }
            fp.expand(format, &PLACES, 1 << 6);
            for (number, &(at, len)) in PLACES.iter().enumerate().filter(|(n, _)| format & 1 << n != 0) {
                assert!(fp.0[at..at + len].iter().all(|&byte| byte == number as u8), "{format:#x} {number}");
            }
        }
    }

    #[test]
    fn components_in_their_initial_state_are_written_out() {
        for present in [0u64, 1, 2, 4, 5, 6, 7, 0xe7, 0xe0, 0x22] {
            // What XSAVEOPT leaves of the image before in the places of what is in its initial state.
            let mut fp = FpState([0xa5; super::FP_SIZE]);
            fp.0[24..28].copy_from_slice(&0x9fc0_u32.to_le_bytes());
            fp.0[512..576].fill(0);
            fp.0[512..520].copy_from_slice(&present.to_le_bytes());
            let before = fp.clone();
            fp.complete(&PLACES);
            assert_eq!(fp.0[512..520], (present | 3).to_le_bytes());
            assert_eq!(fp.0[24..32], before.0[24..32], "MXCSR and its mask are always there");
            let kept = |bit: u32| present & 1 << bit != 0;
            let (fcw, rest) = if kept(0) { ([0xa5; 2], 0xa5) } else { ([0x7f, 3], 0) };
            assert_eq!(fp.0[..2], fcw);
            assert!(fp.0[2..24].iter().chain(&fp.0[32..160]).all(|byte| *byte == rest), "{present:#x}");
            let sse = if kept(1) { 0xa5 } else { 0 };
            assert!(fp.0[160..416].iter().all(|byte| *byte == sse), "{present:#x}");
            for (number, (at, len)) in PLACES.into_iter().enumerate().skip(2) {
                let byte = if kept(number as u32) { 0xa5 } else { 0 };
                assert!(fp.0[at..at + len].iter().all(|found| *found == byte), "{present:#x}, {number}");
            }
            // What is nobody's stays.
            assert!(fp.0[832..1088].iter().all(|byte| *byte == 0xa5));
            assert!(fp.is_loadable(0xe7));
        }
    }

    #[test]
    fn controls_are_what_the_manual_says() {
        assert_eq!((super::INITIAL_MXCSR, super::MXCSR_MASK), (0x1f80, 0xffff));
    }

    #[test]
    fn a_reset_image_is_the_initial_one_for_either_instruction() {
        let mut fp = FpState([0xa5; super::FP_SIZE]);
        fp.reset();
        assert!(fp.is_loadable(3));
        let initial = FpState::initial();
        assert!(fp.0[..28] == initial.0[..28] && fp.0[32..416] == initial.0[32..416]);
        assert!(fp.0[512..576].iter().all(|byte| *byte == 0));
    }

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
