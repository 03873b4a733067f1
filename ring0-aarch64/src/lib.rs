//! ring0 for aarch64.
#![no_std]

pub mod fp;
pub mod regs;
#[cfg(target_arch = "aarch64")]
#[expect(unsafe_code, reason = "switches stacks in assembly")]
pub mod stack;
