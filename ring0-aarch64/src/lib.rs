//! ring0 for aarch64: EL1 in a VM whose kernel is the host process.
//!
//! | module | what |
//! |---|---|
//! | [`cpu`] | the per-CPU block |
//! | [`regs`], [`fp`] | the program's registers |
//! | [`frame`] | Linux's signal frame: the only way to load every register at EL0 |
//! | `entry` | vectors, the switch to user code, the exit to the host and both ways back (assembly) |
//! | `stack` | moving between kernel stacks |
//! | `tlb` | TLB maintenance |
//! | `timer` | time slices |
//! | [`init`] | what a vCPU starts with: pure data |
//! | [`trap`] | syndrome to [`ring0::Trap`]: pure |
//!
//! # How it differs from x86_64
//! * Kernel code runs at EL1t: its stack is SP_EL0, exceptions arrive on SP_EL1, which names the per-CPU block. An
//!   overflowing kernel stack cannot recurse.
//! * TTBR0 is switched on the way in and out. The kernel's root has image and arena and no user page, a program's
//!   has user pages only: a host address that kernel code touches by mistake faults, PAN or not (Cortex-A72 has none).
//!   ASIDs make that free of flushes.
//! * Nothing tells EL0 from EL1 without trapping, so which engine runs kernel code is a word in the per-CPU block.
//! * The exit is a store to a guest-physical page without memory: KVM reports it as MMIO.
#![no_std]

pub mod cpu;
#[cfg(target_arch = "aarch64")]
#[expect(unsafe_code, reason = "the entry code is assembly")]
pub mod entry;
pub mod fp;
pub mod frame;
pub mod init;
pub mod regs;
#[cfg(target_arch = "aarch64")]
#[expect(unsafe_code, reason = "switches stacks in assembly")]
pub mod stack;
#[cfg(target_arch = "aarch64")]
#[expect(unsafe_code, reason = "privileged instructions")]
pub mod timer;
#[cfg(target_arch = "aarch64")]
#[expect(unsafe_code, reason = "privileged instructions")]
pub mod tlb;
pub mod trap;
