//! Signal frames: what a handler finds on its stack, and sigreturn(2) restores.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "reads XCR0")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub use aarch64::{RED_ZONE, bad_frame, fault, pop, prepare, push};
#[cfg(target_arch = "x86_64")]
pub use x86_64::{RED_ZONE, bad_frame, fault, pop, prepare, push};
#[cfg(target_arch = "x86_64")]
pub(in crate::arch) use x86_64::{RESTORED_FLAGS, complete, xstate_components, xstate_layout};

/// What a frame is made from beside registers.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Signal number.
    pub signo: i32,
    /// `siginfo_t`.
    pub info: [u8; 128],
    /// The handler.
    pub handler: u64,
    /// Where it returns to.
    pub restorer: u64,
    /// Where the frame goes: below this.
    pub top: u64,
    /// Blocked signals to restore.
    pub mask: u64,
    /// `uc_stack`: address, flags, size.
    pub altstack: [u64; 3],
    /// See [`fault`].
    pub fault: [u64; 3],
}

/// What a frame restores beside registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Blocked signals.
    pub mask: u64,
    /// `uc_stack`.
    pub altstack: [u64; 3],
}
