//! x86_64 4-level paging: Intel SDM vol. 3A, 4.5 "4-Level Paging and 5-Level Paging", tables 4-15 to 4-20.

use super::Format;
use crate::Attrs;

/// The format of x86_64.
#[derive(Debug)]
pub enum X86_64 {}

/// Present.
const P: u64 = 1 << 0;
/// Writable.
const RW: u64 = 1 << 1;
/// User.
const US: u64 = 1 << 2;
/// With PCD, index 3 of the PAT: uncacheable in its power-on value (SDM 3A, 12.12.4).
const PWT: u64 = 1 << 3;
/// Cache disable.
const PCD: u64 = 1 << 4;
/// Accessed.
const A: u64 = 1 << 5;
/// Dirty.
const D: u64 = 1 << 6;
/// Page size: a leaf above level 0.
const PS: u64 = 1 << 7;
/// Global.
const G: u64 = 1 << 8;
/// Execute disable (EFER.NXE).
const XD: u64 = 1 << 63;

impl Format for X86_64 {
    const LOWER_END: u64 = 1 << 47;
    const UPPER_START: u64 = !0 << 47;
    // SDM 3A, 4.10.4.2: a change of address or size wants an INVLPG afterwards, nothing before.
    const BREAK_BEFORE_MAKE: bool = false;
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    // Rights are decided by the leaf alone; accessed is preset so that hardware never writes.
    const TABLE: u64 = P | RW | US | A;
    // Bits 62:52 are ignored in entries that point to a table; in leaves 58:52 are, and 62:59 unless CR4.PKE is
    // set (protection keys are not offered).
    const FROZEN: u64 = 1 << 62;
    const OWN_MASK: u64 = P | PS | Self::FROZEN;
    const OWN_TABLE: u64 = P;
    const COUNT_SHIFT: u32 = 52;

    #[inline]
    fn leaf(attrs: Attrs, level: u32) -> u64 {
        let pick = |flag, bits| if attrs.contains(flag) { bits } else { 0 };
        P | A
            | D
            | pick(Attrs::WRITE, RW)
            | pick(Attrs::USER, US)
            | pick(Attrs::GLOBAL, G)
            | pick(Attrs::DEVICE, PCD | PWT)
            | if attrs.contains(Attrs::EXECUTE) { 0 } else { XD }
            | if level > 0 { PS } else { 0 }
    }

    #[inline]
    fn attrs(leaf: u64) -> Attrs {
        let pick = |bits, flag| if leaf & bits != 0 { flag } else { Attrs::empty() };
        Attrs::READ
            | pick(RW, Attrs::WRITE)
            | pick(US, Attrs::USER)
            | pick(G, Attrs::GLOBAL)
            | pick(PCD, Attrs::DEVICE)
            | if leaf & XD == 0 { Attrs::EXECUTE } else { Attrs::empty() }
    }

    #[inline]
    fn is_leaf(entry: u64, level: u32) -> bool {
        level == 0 || entry & PS != 0
    }
}
