//! A kernel on bare metal, made of `ring0*`, `pagetables` and a few hundred lines: what the sandbox's ring 0 is
//! without a host around it.
//!
//! It brings up the MMU with our page tables, installs ring 0, runs two copies of an embedded program in user mode, each in
//! an address space of its own, serves their system calls, page faults and illegal instructions with one line each on
//! the serial port, faults on purpose in kernel code, and powers off with a status. `README.md` tells how to start
//! from it on another board.
//!
//! | module | what |
//! |---|---|
//! | `kernel` | the kernel proper: the same on both architectures |
//! | `kernel::arch` | what it asks of an architecture |
//! | `kernel::memory` | where the image lies, and pages for everything else |
//! | `kernel::{x86_64, aarch64}` | boot code, the loading of ring 0's registers, UART, the user program |
//!
//! Kernel addresses are physical addresses: the image runs where it was loaded, below 4 GiB, mapped to itself. What the
//! entry code needs (its text, the per-CPU block) is mapped a second time in the kernel half, as under KVM.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod kernel;

/// `cargo build --workspace` builds every member for the machine at hand, this one too.
#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "bringup runs on bare metal: cargo run -p bringup --target x86_64-unknown-none (or aarch64-unknown-none)"
    );
    std::process::ExitCode::FAILURE
}
