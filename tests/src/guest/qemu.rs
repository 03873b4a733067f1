//! The emulated machines.
//!
//! Every flag here is there for a reason that was measured: software page-table isolation on arm64
//! makes system calls ten times slower under emulation, the clock of a two-CPU x86 guest is not believed
//! without `tsc_early_khz`, and so on. Tables print the command line they were measured with.

use std::path::Path;
use std::process::Command;

use super::Options;
use crate::arch::Arch;
use crate::packages::Kernel;

/// The serial port of the guest that carries frames.
pub(super) fn channel(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "/dev/ttyS1",
        Arch::Aarch64 => "/dev/ttyAMA1",
    }
}

/// Builds the emulator's command line. The console goes to the file `console`, frames to standard output.
pub(super) fn command(
    arch: Arch,
    options: &Options,
    kernel: &Kernel,
    initramfs: &Path,
    disk: Option<&Path>,
    console: &Path,
) -> Command {
    let mut qemu = Command::new(arch.qemu());
    let accel = if options.icount { "tcg,thread=single" } else { "tcg,thread=multi" };
    let smp = if options.icount { 1 } else { options.smp };
    qemu.args(["-accel", accel, "-nodefaults", "-display", "none", "-no-reboot"]);
    qemu.args(["-smp", &smp.to_string(), "-m", &options.memory.to_string()]);
    let mut append = vec!["quiet", "panic=-1", "mitigations=off", "nokaslr"];
    match arch {
        Arch::X86_64 => {
            qemu.args(["-cpu", options.cpu.as_deref().unwrap_or("EPYC,+svm")]);
            append.extend(["console=ttyS0", "no_timer_check"]);
            if !options.icount {
                append.push("tsc_early_khz=2445000");
            }
        }
        Arch::Aarch64 => {
            qemu.args(["-M", "virt,virtualization=on,gic-version=2"]);
            qemu.args(["-cpu", options.cpu.as_deref().unwrap_or("cortex-a72")]);
            append.extend(["console=ttyAMA0", "kpti=off"]);
        }
    }
    if options.icount {
        qemu.args(["-icount", "shift=0,sleep=off", "-seed", "1"]);
        qemu.args(["-rtc", "base=2026-01-01,clock=vm"]);
    }
    qemu.arg("-serial").arg(format!("file:{}", console.display()));
    qemu.args(["-serial", "stdio"]);
    if let Some(disk) = disk {
        let drive = format!("file={},if=none,format=raw,snapshot=on,id=root", disk.display());
        qemu.args(["-drive", &drive, "-device", "nvme,drive=root,serial=1"]);
    }
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initramfs);
    qemu.args(["-append", &append.join(" ")]);
    qemu
}
