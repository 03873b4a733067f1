//! The six arguments of a call, read as what the caller meant by them.
//!
//! C passes `int` in the low half of a register and leaves the upper half undefined, so every accessor says which
//! width it reads.

/// The argument registers of one call.
#[derive(Clone, Copy, Debug)]
pub struct Args(pub [u64; 6]);

impl Args {
    /// An address, or any 64-bit value.
    #[inline]
    pub fn addr(&self, index: usize) -> u64 {
        self.0[index]
    }

    /// The start of a range of memory: an address that may carry a tag where the architecture has tags.
    #[inline]
    pub fn range_start(&self, index: usize) -> u64 {
        crate::arch::untagged(self.0[index])
    }

    /// `int`.
    #[inline]
    pub fn int(&self, index: usize) -> i32 {
        self.0[index] as i32
    }

    /// `unsigned int`; flags and modes too.
    #[inline]
    pub fn uint(&self, index: usize) -> u32 {
        self.0[index] as u32
    }

    /// `long`, `off_t`.
    #[inline]
    pub fn long(&self, index: usize) -> i64 {
        self.0[index] as i64
    }

    /// `size_t`.
    #[inline]
    pub fn size(&self, index: usize) -> usize {
        self.0[index] as usize
    }

    /// A descriptor.
    #[inline]
    pub fn fd(&self, index: usize) -> i32 {
        self.0[index] as i32
    }

    /// A file offset split as `preadv` does it: low half in `index`, high half (unused with 64-bit longs) behind it.
    #[inline]
    pub fn offset(&self, index: usize) -> i64 {
        self.0[index] as i64
    }
}
