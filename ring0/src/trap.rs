/// What an access wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch.
    Execute,
}

/// A synchronous exception from user code, as the hardware describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// x86: the vector. aarch64: the exception class.
    pub class: u8,
    /// x86: the error code. aarch64: ESR_EL1.
    pub code: u64,
    /// x86: CR2, or DR6 for debug exceptions. aarch64: FAR_EL1.
    pub addr: u64,
}

/// Why user code stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// A system call.
    Syscall,
    /// An access the tables do not allow.
    PageFault {
        /// The address accessed.
        addr: u64,
        /// What was wanted.
        access: Access,
        /// Hardware's error code (x86) or syndrome (aarch64).
        code: u64,
    },
    /// Any other synchronous exception.
    Exception(Exception),
    /// An interrupt from the host.
    Kick,
    /// The memory behind an access is gone on the host (its file was truncated, or it is a guard).
    HostMemoryGone {
        /// The address, where the hardware reports it.
        addr: Option<u64>,
    },
    /// The program waits for an event or an interrupt (aarch64 WFE, WFI).
    Yield,
}
