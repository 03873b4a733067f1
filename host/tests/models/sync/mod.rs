//! As in `host`, as far as models need it.

pub(crate) use crate::primitive;

/// The order of locks is another test's business.
#[cfg(debug_assertions)]
mod held {
    pub(super) fn check(_: super::Rank, _: bool) {}
    pub(super) fn taken(_: usize, _: super::Rank) {}
    pub(super) fn released(_: usize) {}
}
#[path = "../../../src/sync/lock.rs"]
mod lock;
#[path = "../../../src/sync/rank.rs"]
mod rank;
#[path = "../../../src/sync/wait.rs"]
mod wait;

pub(crate) use lock::{Lock, LockGuard};
pub(crate) use rank::Rank;
pub(crate) use wait::{WaitQueue, Waiter, Wake};
