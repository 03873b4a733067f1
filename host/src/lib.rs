//! Pillbox's host runner and kernel.
//!
//! Layers, each using only those above it in this list (checked by the hygiene test):
//!
//! | layer | what |
//! |---|---|
//! | [`abi`] | Linux constants and structs, `Errno` |
//! | [`hostsys`] | the only module that makes raw host calls |
//! | [`hostfd`] | the host descriptors that we hold, and the one way to open more |
//! | [`sync`], [`metrics`], [`random`], [`arena`], [`arch`], [`time`], [`cred`] | locks and wait queues, counters, random numbers, the memory window, the one `cfg(target_arch)`, clocks, credentials |
//! | [`platform`] | how application code runs: `kvm`, `systrap` |
//! | [`mm`], [`vfs`], [`loader`] | address spaces, names and open files, ELF |
//! | [`warden`] | the process that holds the rules about the network |
//! | [`net`] | sockets, and the networks they are in |
//! | [`kernel`] | tasks, scheduling, signals, futexes, pids, limits |
//! | [`fs`] | file systems |
//! | [`syscalls`] | one table: number, name, handler, support level, argument formats |
//! | [`sandbox`] | from a specification to a running kernel |
//! | [`oci`], [`cli`] | the runtime of container engines; the command line |

pub mod abi;
pub mod arch;

#[expect(unsafe_code, reason = "owns the fixed memory window, the allocator, stacks and threads")]
pub mod arena;
pub mod cli;
pub mod cred;
pub mod fs;
pub mod hostfd;
#[expect(unsafe_code, reason = "raw host system calls")]
pub mod hostsys;
pub mod kernel;
pub mod loader;
pub mod metrics;
pub mod mm;
pub mod net;
pub mod oci;
pub mod platform;
pub mod random;
pub mod sandbox;
#[expect(unsafe_code, reason = "lock cells")]
pub mod sync;
pub mod syscalls;
pub mod time;
pub mod vfs;
pub mod warden;
