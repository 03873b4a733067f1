//! What the bits of an entry mean.

mod aarch64;
mod x86_64;

pub use aarch64::Aarch64;
pub use x86_64::X86_64;

use crate::Attrs;

/// One entry format. Levels count from 0, the table of 4 KiB pages, to 3, the root.
///
/// An entry is zero, a leaf, or points to a table. What the walker asks most often is a mask, so that a step down
/// costs a load, an AND and a compare.
pub trait Format: 'static {
    /// One past the last address of the lower half.
    const LOWER_END: u64;
    /// First address of the upper half.
    const UPPER_START: u64;
    /// Whether a valid entry must be invalid, and flushed, before it may point elsewhere.
    const BREAK_BEFORE_MAKE: bool;
    /// The bits that hold the output address, in leaves and table entries alike.
    const ADDRESS: u64;
    /// The bits of an entry that points to a table.
    const TABLE: u64;
    /// Ignored by hardware: the entry is shared and must not be followed or changed by user operations.
    const FROZEN: u64;
    /// `entry & OWN_MASK == OWN_TABLE` iff the entry points to a table that is not shared.
    const OWN_MASK: u64;
    /// See [`OWN_MASK`](Self::OWN_MASK).
    const OWN_TABLE: u64;
    /// Lowest of ten bits of a table entry that hardware ignores: how many entries of that table are in use.
    const COUNT_SHIFT: u32;

    /// The bits of a leaf, all but the address. `attrs` allows something.
    fn leaf(attrs: Attrs, level: u32) -> u64;
    /// What a present leaf allows.
    fn attrs(leaf: u64) -> Attrs;
    /// Whether a present entry at this level is a leaf.
    fn is_leaf(entry: u64, level: u32) -> bool;
}
