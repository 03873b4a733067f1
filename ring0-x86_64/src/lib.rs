//! ring0 for x86_64.
#![no_std]

pub mod fp;
pub mod regs;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "switches stacks in assembly")]
pub mod stack;
