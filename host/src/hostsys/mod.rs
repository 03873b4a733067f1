//! Raw host system calls: the only module that names `libc` functions or executes `syscall`/`svc` for the host.
//!
//! Calls here work from ring 0 too: the instruction leaves the guest once and is re-executed natively. None of
//! them touches libc's `errno`.

mod auxv;
pub mod change;
pub mod clock;
pub mod confine;
pub mod cpu;
pub mod fault;
pub mod fd;
pub mod file;
pub mod futex;
pub mod identity;
pub mod last_close;
pub mod mem;
pub mod overflow;
pub mod poll;
pub mod process;
mod raw;
pub mod socket;
pub mod stub;
pub mod told;
pub mod tty;

pub use auxv::{auxv_random, auxval};
#[cfg(test)]
pub use raw::harmless;
pub use raw::{Syscall, syscall};
