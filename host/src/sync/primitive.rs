//! What hand-overs between threads are made of: this one place, so that models can put something in it that tries every
//! order (`tests/models` of this crate compiles the same sources with other primitives).

pub use core::hint::spin_loop;
pub use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

/// Spins before a thread that waits for a [`Lock`](super::Lock) sleeps. The holder is a worker that will not park; it is slow
/// only when its host thread lost the CPU or dropped out of the guest.
pub const SPINS: u32 = 100;
