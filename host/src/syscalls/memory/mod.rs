//! Address spaces: mapping, protecting, advising.

pub(super) mod lock;
pub(super) mod madvise;
pub(super) mod mmap;
pub(super) mod seal;
