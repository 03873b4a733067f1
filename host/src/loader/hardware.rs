//! What the auxiliary vector says about the CPU: what *our* ring 0 saves and restores.

use super::stack::{AT_HWCAP, AT_MINSIGSTKSZ};
use crate::hostsys::auxval;
use std::sync::OnceLock;

/// AT_HWCAP and friends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hardware {
    pub(super) hwcap: u64,
    pub(super) hwcap2: u64,
    /// Smallest alternate signal stack (AT_MINSIGSTKSZ); 0: not told.
    pub(super) min_signal_stack: u64,
}

/// The CPU's features. Found out once: the instructions that tell are slow in a VM. A property of the machine, not
/// of a sandbox.
static HARDWARE: OnceLock<Hardware> = OnceLock::new();

pub(super) fn hardware() -> Hardware {
    *HARDWARE.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Hardware {
    use super::stack::AT_HWCAP2;
    /// Ring 3 can use RDFSBASE and friends (arch/x86/include/uapi/asm/hwcap2.h).
    const HWCAP2_FSGSBASE: u64 = 1 << 1;
    Hardware {
        // CPUID leaf 1 EDX, as the host's own program start told this process.
        hwcap: auxval(AT_HWCAP),
        hwcap2: auxval(AT_HWCAP2) & HWCAP2_FSGSBASE,
        min_signal_stack: auxval(AT_MINSIGSTKSZ),
    }
}

#[cfg(target_arch = "aarch64")]
fn detect() -> Hardware {
    /// FP, ASIMD, EVTSTRM, AES, PMULL, SHA1, SHA2, CRC32, ATOMICS, FPHP, ASIMDHP, CPUID, ASIMDRDM, JSCVT, FCMA,
    /// LRCPC, DCPOP, SHA3, SM3, SM4, ASIMDDP, SHA512: state that is FP/SIMD registers only. Not SVE and what is
    /// above (PAC, BTI, MTE among them).
    const SAVED: u64 = (1 << 22) - 1;
    Hardware { hwcap: auxval(AT_HWCAP) & SAVED, hwcap2: 0, min_signal_stack: auxval(AT_MINSIGSTKSZ) }
}
