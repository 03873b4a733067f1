//! Register sets as ptrace(2) hands them to a tracer, and takes them back (linux/regset.h, uapi/linux/elf.h).
//!
//! What a tracer writes is as hostile as a signal frame, and is cut down in the same way: nothing that comes out of here
//! makes the return to the program fail in the kernel.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as machine;
#[cfg(target_arch = "x86_64")]
use x86_64 as machine;

pub use machine::{
    CORE_NOTES, begin_step, core_layout, end_step, entered, peek_user, poke_user, read, show_stop, step_code,
    unshow_stop, whole, write,
};

/// A register set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterSet {
    /// `NT_PRSTATUS`: what calculates and addresses.
    General,
    /// `NT_PRFPREG`.
    FloatingPoint,
    /// `NT_X86_XSTATE`: the whole XSAVE image.
    Extended,
    /// `NT_ARM_TLS`: the thread pointer.
    ThreadPointer,
    /// `NT_ARM_SYSTEM_CALL`: the number of the call that is made.
    SystemCall,
    /// `NT_ARM_HW_BREAK` and `NT_ARM_HW_WATCH`, of which there is none.
    Debug,
}

impl RegisterSet {
    /// The set of a note type, and the size of its elements: lengths are multiples of it.
    pub fn of(note: u64) -> Option<(RegisterSet, usize)> {
        let note = u32::try_from(note).ok()?;
        machine::SETS.iter().find(|(number, ..)| *number == note).map(|(_, set, unit)| (*set, *unit))
    }
}
