//! What the processor offers, from CPUID leaves: pure.

use x86_64::registers::control::Cr4Flags;
use x86_64::registers::xcontrol::XCr0Flags;

/// One CPUID leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// The function (EAX).
    pub function: u32,
    /// The sub-function (ECX).
    pub index: u32,
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// XCR0 components that user and kernel code may use: x87, SSE, AVX, AVX-512. PKRU, AMX and CET are not offered until they
/// are designed for.
pub const XCR0_OFFERED: u64 = XCR0_BASE.union(XCr0Flags::AVX).union(XCR0_AVX512).bits();
/// What is there without XSAVE.
const XCR0_BASE: XCr0Flags = XCr0Flags::X87.union(XCr0Flags::SSE);
const XCR0_AVX512: XCr0Flags = XCr0Flags::OPMASK.union(XCr0Flags::ZMM_HI256).union(XCr0Flags::HI16_ZMM);

/// What matters to ring 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Supervisor-mode access prevention: required.
    pub smap: bool,
    /// Supervisor-mode execution prevention.
    pub smep: bool,
    /// User-mode instruction prevention.
    pub umip: bool,
    /// RDFSBASE and siblings.
    pub fsgsbase: bool,
    /// Process-context identifiers.
    pub pcid: bool,
    /// 1 GiB pages.
    pub gib_pages: bool,
    /// XSAVE.
    pub xsave: bool,
    /// XSAVEOPT.
    pub xsaveopt: bool,
    /// XCR0 for the guest: what the processor has of [`XCR0_OFFERED`].
    pub xcr0: u64,
    /// Physical-address bits.
    pub physical_bits: u8,
    /// SYSCALL, long mode and no-execute.
    pub long_mode: bool,
}

impl Features {
    /// Reads the features out of a list of leaves (as KVM_GET_SUPPORTED_CPUID returns it).
    pub fn from_leaves(leaves: &[Leaf]) -> Features {
        let find = |function, index| {
            leaves.iter().find(|l| l.function == function && l.index == index).copied().unwrap_or_default()
        };
        let one = find(1, 0);
        let seven = find(7, 0);
        let xsave = one.ecx & 1 << 26 != 0;
        let state = find(0xd, 0);
        let extended = find(0x8000_0001, 0);
        let has_xcr0 = (u64::from(state.edx) << 32 | u64::from(state.eax)) & XCR0_OFFERED;
        // The AVX-512 components come together or not at all (SDM vol. 1, 13.3).
        let avx512 = XCR0_AVX512.bits();
        let xcr0 = if has_xcr0 & avx512 == avx512 { has_xcr0 } else { has_xcr0 & !avx512 };
        Features {
            smap: seven.ebx & 1 << 20 != 0,
            smep: seven.ebx & 1 << 7 != 0,
            umip: seven.ecx & 1 << 2 != 0,
            fsgsbase: seven.ebx & 1 != 0,
            pcid: one.ecx & 1 << 17 != 0,
            gib_pages: extended.edx & 1 << 26 != 0,
            xsave,
            xsaveopt: xsave && find(0xd, 1).eax & 1 != 0,
            xcr0: if xsave { xcr0 } else { XCR0_BASE.bits() },
            physical_bits: find(0x8000_0008, 0).eax as u8,
            long_mode: extended.edx & (1 << 29 | 1 << 20 | 1 << 11) == (1 << 29 | 1 << 20 | 1 << 11),
        }
    }

    /// The CR4 to run with.
    pub fn cr4(&self) -> u64 {
        let when = |have, bit| if have { bit } else { Cr4Flags::empty() };
        let cr4 = crate::init::CR4_BASE
            | when(self.smap, Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION)
            | when(self.smep, Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION)
            | when(self.umip, Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION)
            | when(self.fsgsbase, Cr4Flags::FSGSBASE)
            | when(self.pcid, Cr4Flags::PCID)
            | when(self.xsave, Cr4Flags::OSXSAVE);
        cr4.bits()
    }
}

/// Removes from a leaf what our ring 0 neither saves nor offers (what programs see is what we keep):
/// nested virtualisation, protection keys, AMX, CET, MPX, 5-level paging, MONITOR, and XSAVE components beyond
/// [`XCR0_OFFERED`].
pub fn mask(leaf: &mut Leaf) {
    match (leaf.function, leaf.index) {
        (1, _) => leaf.ecx &= !(1 << 3 | 1 << 5),
        (7, 0) => {
            leaf.ebx &= !(1 << 14);
            leaf.ecx &= !(1 << 3 | 1 << 4 | 1 << 7 | 1 << 16);
            leaf.edx &= !(1 << 20 | 1 << 22 | 1 << 24 | 1 << 25);
        }
        (0xd, 0) => {
            leaf.eax &= XCR0_OFFERED as u32;
            leaf.edx = 0;
        }
        // XSAVES state (supervisor components): none.
        (0xd, 1) => {
            leaf.eax &= !(1 << 3);
            leaf.ecx = 0;
            leaf.edx = 0;
        }
        (0xd, component) if component >= 2 && (component > 63 || XCR0_OFFERED & 1 << component == 0) => {
            *leaf = Leaf { function: leaf.function, index: leaf.index, ..Leaf::default() };
        }
        (0x8000_0001, _) => leaf.ecx &= !(1 << 2),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{Features, Leaf, mask};

    #[test]
    fn avx512_is_all_or_nothing() {
        let leaf = |eax| {
            [
                Leaf { function: 1, ecx: 1 << 26, ..Leaf::default() },
                Leaf { function: 0xd, eax, ..Leaf::default() },
            ]
        };
        assert_eq!(Features::from_leaves(&leaf(0x2e7)).xcr0, 0xe7);
        assert_eq!(Features::from_leaves(&leaf(0x27)).xcr0, 7);
        assert_eq!(Features::from_leaves(&[]).xcr0, 3);
    }

    #[test]
    fn cr4_has_what_the_processor_has() {
        assert_eq!(Features::default().cr4(), 0x6a0);
        let all = Features {
            smap: true,
            smep: true,
            umip: true,
            fsgsbase: true,
            pcid: true,
            xsave: true,
            ..Features::default()
        };
        assert_eq!(all.cr4(), 0x37_0ea0);
    }

    #[test]
    fn protection_keys_are_hidden() {
        let mut leaf = Leaf { function: 7, ecx: !0, ..Leaf::default() };
        mask(&mut leaf);
        assert_eq!(leaf.ecx & 1 << 3, 0);
        assert_ne!(leaf.ecx & 1 << 2, 0);
    }
}
