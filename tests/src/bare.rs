//! Bare-metal images (tests/bringup) on QEMU's boards: what a boot loader wants of them, the command line, and how a status
//! gets out.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::ValueEnum;
use object::Endianness;
use object::elf::{EM_AARCH64, EM_X86_64, FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::arch::Arch;
use crate::cases::same;
use crate::guest::Outcome;
use crate::packages::{Error, quiet, workspace_root};

/// How long a boot may take, in seconds. Half a second is usual.
const TIMEOUT: &str = "300";

/// A board that QEMU emulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Machine {
    /// A PC with PCI Express.
    Q35,
    /// An older PC.
    Pc,
    /// A PC without most of a PC.
    Microvm,
    /// QEMU's own arm64 board, with a Cortex-A72 that starts at EL1.
    Virt,
    /// The same, started at EL2.
    VirtEl2,
    /// The Raspberry Pi 4.
    Raspi4b,
}

impl Machine {
    /// The boards with a processor of `arch`, the usual one first.
    pub fn with(arch: Arch) -> &'static [Self] {
        match arch {
            Arch::X86_64 => &[Self::Q35, Self::Pc, Self::Microvm],
            Arch::Aarch64 => &[Self::Virt, Self::VirtEl2, Self::Raspi4b],
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Q35 => &["-M", "q35", "-cpu", "max", "-m", "64"],
            Self::Pc => &["-M", "pc", "-cpu", "max", "-m", "64"],
            Self::Microvm => &["-M", "microvm", "-cpu", "max", "-m", "64"],
            Self::Virt => &["-M", "virt", "-cpu", "cortex-a72", "-m", "64"],
            Self::VirtEl2 => &["-M", "virt,virtualization=on", "-cpu", "cortex-a72", "-m", "64"],
            // Its memory is what the board has.
            Self::Raspi4b => &["-M", "raspi4b"],
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value();
        f.write_str(name.as_ref().map_or("a board", |value| value.get_name()))
    }
}

/// The target of bare-metal programs.
pub fn target(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "x86_64-unknown-none",
        Arch::Aarch64 => "aarch64-unknown-none",
    }
}

/// Builds the bring-up image with cargo and returns the ELF file.
pub fn build(arch: Arch) -> Result<PathBuf, Error> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "-q", "-p", "bringup", "--target", target(arch)]);
    quiet(cargo.current_dir(workspace_root()).env_remove("CARGO_MANIFEST_DIR").stdin(Stdio::null()))?;
    let output = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let output = output.unwrap_or_else(|| workspace_root().join("target"));
    Ok(output.join(target(arch)).join("debug/bringup"))
}

/// An image that a boot loader takes.
#[derive(Clone, Debug)]
pub struct Image {
    /// The processor it is for.
    pub arch: Arch,
    /// The file.
    pub path: PathBuf,
}

impl Image {
    /// Makes one of an ELF file. PVH loaders take that as it is; for arm64 `kernel8.img` is written beside it, flat, as
    /// firmware and QEMU take Linux: the first byte of the file is the first byte in memory.
    pub fn of(elf: &Path) -> Result<Self, Error> {
        let data = fs::read(elf).map_err(Error::io(elf))?;
        let (machine, flat) = flatten(&data).map_err(|e| {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidData, e.to_string());
            Error::io(elf)(source)
        })?;
        match machine {
            EM_X86_64 => Ok(Self { arch: Arch::X86_64, path: elf.to_owned() }),
            EM_AARCH64 => {
                let path = elf.with_file_name("kernel8.img");
                fs::write(&path, flat).map_err(Error::io(&path))?;
                Ok(Self { arch: Arch::Aarch64, path })
            }
            _ => {
                let source = std::io::Error::new(std::io::ErrorKind::InvalidData, "no architecture of ours");
                Err(Error::io(elf)(source))
            }
        }
    }

    /// The emulator's command line: the serial port is its standard output.
    pub fn command(&self, machine: Machine) -> Command {
        let mut qemu = Command::new(self.arch.qemu());
        qemu.args(machine.arguments());
        qemu.args(["-accel", "tcg", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]);
        match self.arch {
            Arch::X86_64 => qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]),
            Arch::Aarch64 => qemu.args(["-semihosting-config", "enable=on,target=native"]),
        };
        qemu.arg("-kernel").arg(&self.path);
        qemu
    }

    /// Boots the bring-up image and compares what it says and its status with what they should be.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn check(&self, machine: Machine) -> Result<(), String> {
        let expected = workspace_root().join(format!("tests/bringup/transcripts/{}", self.arch));
        let expected = fs::read(&expected).map_err(|error| format!("{}: {error}", expected.display()))?;
        let qemu = self.command(machine);
        // A board that hangs does so for ever.
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", TIMEOUT]).arg(qemu.get_program()).args(qemu.get_args());
        let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
        let status = output.status.code().and_then(|code| self.status(code));
        let mut stdout = output.stdout;
        stdout.retain(|&byte| byte != b'\r');
        // A word of the emulator's own, if it failed.
        let got = Outcome { stdout, stderr: output.stderr, status: status.map_or(-1, i32::from) };
        same(&Outcome { stdout: expected, stderr: Vec::new(), status: 0 }, &got)
    }

    /// The status that the image powered off with, if `code`, the emulator's, says that it did.
    pub fn status(&self, code: i32) -> Option<u8> {
        /// Set in all statuses that are the image's: QEMU ends with 1 when it fails itself.
        const OURS: i32 = 0x40;
        let written = match self.arch {
            // isa-debug-exit ends with 2 * value + 1.
            Arch::X86_64 => code >> 1,
            Arch::Aarch64 => code,
        };
        (written & OURS != 0).then_some((written & (OURS - 1)) as u8)
    }
}

/// The machine that an ELF file is for, and what its segments look like in memory, from the first one's address on.
fn flatten(data: &[u8]) -> object::read::Result<(object::elf::Machine, Vec<u8>)> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let mut flat = Vec::new();
    let segments = header.program_headers(endian, data)?.iter();
    let mut first = None;
    for segment in segments.filter(|segment| segment.p_type(endian) == PT_LOAD) {
        let address = segment.p_paddr(endian);
        let start = (address - *first.get_or_insert(address)) as usize;
        flat.resize(start, 0);
        flat.extend_from_slice(segment.data(endian, data).unwrap_or_default());
    }
    Ok((header.e_machine(endian), flat))
}
