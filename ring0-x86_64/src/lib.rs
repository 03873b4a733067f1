//! ring0 for x86_64.
#![no_std]

pub mod fp;
pub mod regs;
