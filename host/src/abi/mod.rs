//! Linux's numbers and structures: facts without behaviour.
//!
//! Constants and `repr(C)` structs come from `linux-raw-sys` (`linux_raw_sys::general` and friends);
//! what it lacks is defined here, with the man page or uapi header it comes from.

pub mod errno;
pub mod ipc;
pub mod stat;

pub use errno::{Errno, Result};
