//! The architectures that the guests come in, and the words each tool has for them.

use std::fmt;

/// An architecture that Pillbox runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Arch {
    /// x86_64 with nested SVM.
    #[value(name = "x86_64")]
    X86_64,
    /// aarch64 as on the Raspberry Pi 4: Cortex-A72, GICv2, KVM in nVHE mode.
    #[value(name = "aarch64")]
    Aarch64,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];
    /// The machine that this program itself was built for.
    pub const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// The Rust target of programs that run in the guest.
    pub fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Debian's name for the architecture.
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The directory below `/lib` and `/usr/lib` where Debian keeps this architecture's libraries.
    pub fn multiarch(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
        }
    }

    /// Where Debian keeps the dynamic linker of this architecture's programs.
    pub fn loader(self) -> &'static str {
        match self {
            Self::X86_64 => "usr/lib64/ld-linux-x86-64.so.2",
            Self::Aarch64 => "usr/lib/ld-linux-aarch64.so.1",
        }
    }

    /// The emulator's program name.
    pub fn qemu(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86_64",
            Self::Aarch64 => "qemu-system-aarch64",
        }
    }

    /// The package that holds the emulator.
    pub fn qemu_package(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86",
            Self::Aarch64 => "qemu-system-arm",
        }
    }
}

/// A machine other than the usual one of its architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Board {
    /// x86_64: a PC with nested SVM; aarch64: QEMU's `virt` with the Raspberry Pi 4's core.
    #[default]
    #[value(name = "usual")]
    Usual,
    /// aarch64: QEMU's model of the whole Raspberry Pi 4 (four CPUs, no disk).
    #[value(name = "raspi4b")]
    Raspi4b,
    /// aarch64: a kernel with pages of 16 KiB, on a core that has them (Cortex-A76, VHE, GICv3).
    #[value(name = "16k")]
    Pages16k,
    /// x86_64: Bochs' model of a PC with an Intel CPU: VMX, EPT, VPID, PCID, tracked XSAVE state.
    #[value(name = "intel")]
    Intel,
    /// x86_64: the same PC with an AMD CPU: SVM with all that QEMU's lacks (NRIPS, decode assists).
    #[value(name = "ryzen")]
    Ryzen,
}

impl Board {
    /// The meta package of the board's kernel, and whether it comes from backports.
    pub fn kernel(self, arch: Arch) -> (&'static str, bool) {
        match (self, arch) {
            (Self::Usual | Self::Intel | Self::Ryzen, Arch::X86_64) => {
                ("linux-image-cloud-amd64:amd64", false)
            }
            (Self::Usual | Self::Intel | Self::Ryzen, Arch::Aarch64) => {
                ("linux-image-cloud-arm64:arm64", false)
            }
            // The cloud kernel lacks the board's drivers.
            (Self::Raspi4b, _) => ("linux-image-arm64:arm64", true),
            (Self::Pages16k, _) => ("linux-image-arm64-16k:arm64", true),
        }
    }
}

impl Board {
    /// Whether Bochs emulates it, and not QEMU.
    pub fn is_bochs(self) -> bool {
        matches!(self, Self::Intel | Self::Ryzen)
    }

    /// Whether there is such a machine of that architecture.
    pub fn is_of(self, arch: Arch) -> bool {
        match self {
            Self::Usual => true,
            Self::Raspi4b | Self::Pages16k => arch == Arch::Aarch64,
            Self::Intel | Self::Ryzen => arch == Arch::X86_64,
        }
    }

    /// Seconds of ours that a second of the board's clock may take: the clock of Bochs follows instructions.
    pub fn slower(self) -> u32 {
        if self.is_bochs() { 40 } else { 1 }
    }

    /// CPUs and MiB of memory, unless more are asked for.
    pub fn size(self) -> (u32, u32) {
        // All CPUs of Bochs share one of ours.
        if self.is_bochs() { (1, 1024) } else { (2, 2048) }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        })
    }
}
