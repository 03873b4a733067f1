//! The contract between the kernel and its ring-0 (EL1) code.
//!
//! What it is: the words both sides of the VM boundary use. The architecture crates (`ring0-x86_64`, `ring0-aarch64`)
//! implement it in assembly; the host's kvm platform drives it from outside; a bare-metal image drives it without any
//! host. Nothing here knows Linux, allocates, locks, formats or unwinds.
//!
//! # The four rules of ring-0 entry code
//! 1. No thread-local storage: until the worker's own base is loaded, it belongs to the program.
//! 2. No floating point before the program's state is saved: so saving happens in assembly.
//! 3. No stack of the interrupted code: it may be the program's, and kernel code has a red zone below its own.
//! 4. No call that may fail: whatever the guest cannot do is handed to the host at the same instruction.
//!
//! # One context, two engines
//! Kernel code is suspended in one of three ways ([`Exit`]) and continued by the other engine:
//!
//! | how it stopped | what is live | how the host continues it |
//! |---|---|---|
//! | [`Exit::Leave`] | what a function call preserves | returns from the call |
//! | [`Exit::HostCall`] | every register but the ones a system call clobbers | jumps to the instruction again |
//! | [`Exit::Fault`] | every register | returns to the instruction as from an interrupt |
//!
//! The guest is always continued in the first way: it stopped right behind its exit instruction and loads whatever
//! context `enter_guest` suspended last.
#![no_std]

pub mod layout;
mod trap;

pub use trap::{Access, Exception, Trap};

/// Why the guest handed its context to the host: the value of the per-CPU exit word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Exit {
    /// Nothing handed over: an exit instruction was reached by something other than the exit code. Fatal.
    None = 0,
    /// Kernel code asked to continue natively.
    Leave = 1,
    /// Kernel code executed a host system call.
    HostCall = 2,
    /// An exception in kernel code.
    Fault = 3,
}

impl Exit {
    /// The reason stored in an exit word.
    pub const fn from_raw(word: u64) -> Option<Exit> {
        match word {
            1 => Some(Exit::Leave),
            2 => Some(Exit::HostCall),
            3 => Some(Exit::Fault),
            _ => None,
        }
    }
}
