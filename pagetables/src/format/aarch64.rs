//! VMSAv8-64, stage 1, 4 KiB granule, 48-bit addresses: ARM DDI 0487 (issue J), D8.3 "Translation table descriptor
//! formats", D8.4 "Memory access control", D8.5 "Memory region attributes".
//!
//! A table serves one half: TTBR0 the lower, TTBR1 the upper, each with a root of its own. The indices are the same.

use super::Format;
use crate::Attrs;

/// The format of aarch64.
#[derive(Debug)]
pub enum Aarch64 {}

/// Valid (D8.3.1).
const VALID: u64 = 1 << 0;
/// A table above level 0, a page at level 0; clear for a block.
const TABLE_OR_PAGE: u64 = 1 << 1;
/// AttrIndx[0]: index 1 of MAIR_EL1.
const ATTR_DEVICE: u64 = 1 << 2;
/// AP[1]: EL0 may access (D8.4.2.1).
const AP_USER: u64 = 1 << 6;
/// AP[2]: read-only.
const AP_READ_ONLY: u64 = 1 << 7;
/// SH: inner shareable (D8.5.2).
const SH_INNER: u64 = 0b11 << 8;
/// Access flag.
const AF: u64 = 1 << 10;
/// Not global: tagged with the ASID.
const NG: u64 = 1 << 11;
/// EL1 may not execute.
const PXN: u64 = 1 << 53;
/// EL0 may not execute.
const UXN: u64 = 1 << 54;

impl Aarch64 {
    /// MAIR_EL1 that goes with the leaves: 0 is normal write-back memory, 1 is Device-nGnRE (D19.2.97).
    pub const MAIR: u64 = 0x04_ff;
}

impl Format for Aarch64 {
    const LOWER_END: u64 = 1 << 48;
    const UPPER_START: u64 = !0 << 48;
    // D8.14.1 "Using break-before-make when updating translation table entries".
    const BREAK_BEFORE_MAKE: bool = true;
    const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
    const TABLE: u64 = VALID | TABLE_OR_PAGE;
    // Bits 58:55 of leaves are reserved for software, and table descriptors ignore 58:51 (D8.3.1).
    const FROZEN: u64 = 1 << 55;
    const OWN_MASK: u64 = VALID | TABLE_OR_PAGE | Self::FROZEN;
    const OWN_TABLE: u64 = VALID | TABLE_OR_PAGE;
    // Table descriptors ignore bits 11:2 (D8.3.1).
    const COUNT_SHIFT: u32 = 2;

    #[inline]
    fn leaf(attrs: Attrs, level: u32) -> u64 {
        let pick = |flag, yes, no| if attrs.contains(flag) { yes } else { no };
        // Code of the other privilege level never runs: user pages are PXN, kernel pages UXN.
        let never = pick(Attrs::USER, PXN, UXN);
        let not_executable = pick(Attrs::USER, UXN, PXN);
        VALID
            | SH_INNER
            | AF
            | never
            | pick(Attrs::EXECUTE, 0, not_executable)
            | pick(Attrs::WRITE, 0, AP_READ_ONLY)
            | pick(Attrs::USER, AP_USER, 0)
            | pick(Attrs::GLOBAL, 0, NG)
            | pick(Attrs::DEVICE, ATTR_DEVICE, 0)
            | if level == 0 { TABLE_OR_PAGE } else { 0 }
    }

    #[inline]
    fn attrs(leaf: u64) -> Attrs {
        let pick = |yes, flag| if yes { flag } else { Attrs::empty() };
        let user = leaf & AP_USER != 0;
        Attrs::READ
            | pick(leaf & AP_READ_ONLY == 0, Attrs::WRITE)
            | pick(leaf & if user { UXN } else { PXN } == 0, Attrs::EXECUTE)
            | pick(user, Attrs::USER)
            | pick(leaf & NG == 0, Attrs::GLOBAL)
            | pick(leaf & ATTR_DEVICE != 0, Attrs::DEVICE)
    }

    #[inline]
    fn is_leaf(entry: u64, level: u32) -> bool {
        level == 0 || entry & TABLE_OR_PAGE == 0
    }
}
