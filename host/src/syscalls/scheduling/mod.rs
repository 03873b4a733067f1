//! Who runs where and how urgently.

pub(super) mod rseq;
pub(super) mod sched;
