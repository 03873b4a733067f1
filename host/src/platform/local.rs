//! One word per worker: the kernel's pointer to the current worker.
//!
//! It lives in the worker thread's TLS, which is in the arena and thus reachable from ring 0. The accessors are never
//! inlined: LLVM assumes that a function stays on one thread and keeps the TLS address in a register, but kernel code
//! that parks may continue on another worker.

use core::cell::Cell;

thread_local! {
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// Sets the calling worker's word.
#[inline(never)]
pub fn set(value: usize) {
    WORKER.with(|word| word.set(value));
}

/// The calling worker's word; 0 outside a worker.
#[inline(never)]
pub fn get() -> usize {
    WORKER.with(Cell::get)
}
