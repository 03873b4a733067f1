//! ring0 for x86_64: the per-CPU block, descriptor tables, entry and exit code, FP state, CPU features.
//!
//! | module | what |
//! |---|---|
//! | [`cpu`] | the per-CPU block |
//! | [`tables`] | GDT, TSS, IDT |
//! | [`init`] | the state a vCPU starts with |
//! | [`entry`] | the assembly: `syscall` and exception entries, exits to user mode, exits to the host |
//! | [`trap`] | vector to [`ring0::Trap`] |
//! | [`regs`], [`fp`] | what is saved of a program |
//! | [`stack`] | moving between kernel stacks |
//! | [`features`] | CPUID |
//!
//! Everything but [`entry`] and [`stack`] is pure and tested on any host.
#![no_std]

pub mod cpu;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the entry and exit code is assembly")]
pub mod entry;
pub mod features;
pub mod fp;
pub mod init;
pub mod regs;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "switches stacks in assembly")]
pub mod stack;
pub mod tables;
pub mod trap;
