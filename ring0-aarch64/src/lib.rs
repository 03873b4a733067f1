//! ring0 for aarch64.
#![no_std]

pub mod fp;
pub mod regs;
