//! The machines that QEMU emulates.
//!
//! Every flag here is there for a reason that was measured: software page-table isolation on arm64
//! makes system calls ten times slower under emulation, the clock of a two-CPU x86 guest is not believed
//! without `tsc_early_khz`, and so on. The x86_64 kernel boots with its default mitigations, as distributions ship
//! it; on arm64 they are off, for the reason given. Tables print the command line they were measured with.

use std::path::Path;
use std::process::Command;

use super::Options;
use crate::arch::{Arch, Board};
use crate::packages::Kernel;

/// The serial port of the guest that carries frames.
pub(super) fn channel(arch: Arch, board: Board) -> &'static str {
    match (arch, board) {
        (Arch::X86_64, _) => "/dev/ttyS1",
        // Its first port belongs to the Bluetooth chip, says the device tree: there is no /dev/ttyAMA0.
        (Arch::Aarch64, Board::Raspi4b) => "/dev/console",
        (Arch::Aarch64, _) => "/dev/ttyAMA1",
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
    // util-linux's: whatever ends this process, the emulator ends, too.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", arch.qemu()]);
    // Nested SVM on one host thread only: with a thread per CPU the emulator (10.0) now and then refuses its guest
    // kernel the instruction after VMRUN (a page fault without a cause, for ever), and nested guests triple fault.
    let single = options.icount || arch == Arch::X86_64;
    let accel = if single { "tcg,thread=single" } else { "tcg,thread=multi" };
    qemu.args(["-accel", accel, "-nodefaults", "-display", "none", "-no-reboot"]);
    // The kernel's tests of its cryptography are a third of the time from power-on to init.
    let mut append = vec!["quiet", "panic=-1", "nokaslr", "cryptomgr.notests"];
    if arch == Arch::Aarch64 {
        append.push("mitigations=off");
    }
    let console = format!("file:{}", console.display());
    let mut serial = [console.as_str(), "stdio"];
    let mut cpu = options.cpu.as_deref();
    match (arch, options.board) {
        (Arch::X86_64, _) => {
            cpu = cpu.or(Some("EPYC,+svm"));
            // As most kernels but Debian's have it: old programs' calls of fixed addresses work.
            append.extend(["console=ttyS0", "no_timer_check", "vsyscall=xonly"]);
            if !options.icount {
                append.push("tsc_early_khz=2445000");
                // On a busy machine the watchdog takes the emulator's pauses for drift and gives the counter up.
                append.push("tsc=reliable");
            }
        }
        (Arch::Aarch64, Board::Raspi4b) => {
            qemu.args(["-M", "raspi4b"]);
            cpu = None;
            serial.reverse();
            // The emulator lacks HDMI, I2C and clock controllers that the kernel would otherwise fault on.
            // Frames and the kernel's own words share the first port: an interrupt of the second one
            // (the mini UART) never goes away. What the kernel says is kept down to last words.
            serial[1] = "null";
            append.extend(["console=ttyAMA0,115200", "loglevel=1", "kpti=off", "clk_ignore_unused"]);
            append.push("initcall_blacklist=brcmstb_l2_driver_init,brcmstb_i2c_driver_init");
        }
        (Arch::Aarch64, Board::Pages16k) => {
            qemu.args(["-M", "virt,virtualization=on,gic-version=3"]);
            cpu = cpu.or(Some("cortex-a76"));
            append.extend(["console=ttyAMA0", "kpti=off"]);
        }
        (Arch::Aarch64, _) => {
            qemu.args(["-M", "virt,virtualization=on,gic-version=2"]);
            cpu = cpu.or(Some("cortex-a72"));
            append.extend(["console=ttyAMA0", "kpti=off"]);
        }
    }
    // The Pi comes as it is: four such CPUs, 2 GiB.
    if let Some(cpu) = cpu {
        let (smp, memory) = (options.cpus().to_string(), options.memory().to_string());
        qemu.args(["-cpu", cpu, "-smp", &smp, "-m", &memory]);
    }
    if options.icount {
        qemu.args(["-icount", "shift=0,sleep=off", "-seed", "1"]);
        qemu.args(["-rtc", "base=2026-01-01,clock=vm"]);
    }
    for port in serial {
        qemu.args(["-serial", port]);
    }
    if let Some(disk) = disk {
        let drive = format!("file={},if=none,format=raw,snapshot=on,id=root", disk.display());
        qemu.args(["-drive", &drive, "-device", "nvme,drive=root,serial=1"]);
    }
    if let Some(tree) = &kernel.device_tree {
        qemu.arg("-dtb").arg(tree);
    }
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initramfs);
    append.extend(options.append.iter().map(String::as_str));
    qemu.args(["-append", &append.join(" ")]);
    // For a look inside: `-monitor unix:/some/socket,server,nowait`, `-d int -D /some/log`, `-s`.
    if let Ok(more) = std::env::var("NESTED_QEMU_ARGS") {
        qemu.args(more.split_whitespace());
    }
    qemu
}
