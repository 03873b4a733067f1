//! The PCs that Bochs emulates: Intel's VMX whole, and AMD's SVM with what QEMU leaves out.
//!
//! Bochs is an interpreter of 40 to 95 million instructions a second. Its guest's clock is the count of these, so a second in there
//! takes about 25 of ours, whatever else runs here. It boots from nothing but drives: GRUB's loader, the kernel and the
//! initramfs come on a CD.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::{Error, Options, io_error};
use crate::arch::Board;
use crate::packages::{Bochs, Kernel, quiet};

/// Models whose names are commonly shortened; what is not here is passed on.
const MODELS: &[(&str, &str)] = &[
    ("icelake_u", "corei7_icelake_u"),
    ("skylake_x", "corei7_skylake_x"),
    ("haswell", "corei7_haswell_4770"),
    ("broadwell", "broadwell_ult"),
];

/// The kernel's command line beside what every board has.
///
/// FSRM (CPUID bit 580) hangs the kernel in the emulator's `rep movsb`; compacted XSAVE areas (321, `noxsaves`) leave MXCSR as
/// it was in its XRSTOR. The machine is turned off by a triple fault, because it would boot again after any other kind of reset.
const APPEND: &[&str] = &[
    "quiet",
    "panic=-1",
    "reboot=t",
    "nokaslr",
    "cryptomgr.notests",
    "console=ttyS0,115200n8",
    "vt.global_cursor_default=0",
    "clearcpuid=580,321",
    "noxsaves",
    "vsyscall=xonly",
    "mitigations=off",
];

/// Prepares a machine in the directory `run` and returns its command line. The console goes to the file `console`, frames to
/// what is standard input then.
pub(super) fn command(
    bochs: &Bochs,
    options: &Options,
    kernel: &Kernel,
    initramfs: &Path,
    disk: Option<&Path>,
    console: &Path,
    run: &Path,
) -> Result<Command, Error> {
    let cd = run.join("cd");
    let more = options.append.iter().map(String::as_str);
    let append = APPEND.iter().copied().chain(more).collect::<Vec<_>>().join(" ");
    bochs.make_cd(run, &kernel.image, initramfs, &append, &cd)?;
    let (config, orders) = (run.join("bochsrc"), run.join("debugger"));
    let text = configuration(bochs, options, &cd, disk, console, run);
    fs::write(&config, text).map_err(io_error(&config))?;
    // Debian's is built with a debugger, which waits to be told.
    fs::write(&orders, "c\n").map_err(io_error(&orders))?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).args(bochs.words("bochs-bin"));
    command.arg("-q").arg("-f").arg(&config).arg("-rc").arg(&orders);
    // The size of a screen that is no terminal.
    command.envs(bochs.environment()).envs([("TERM", "xterm"), ("LINES", "50"), ("COLUMNS", "132")]);
    Ok(command)
}

/// What the machine is made of.
fn configuration(
    bochs: &Bochs,
    options: &Options,
    cd: &Path,
    disk: Option<&Path>,
    console: &Path,
    run: &Path,
) -> String {
    let model = options.cpu.as_deref().unwrap_or(match options.board {
        Board::Ryzen => "ryzen",
        _ => "icelake_u",
    });
    let model = MODELS.iter().find(|(short, _)| *short == model).map_or(model, |(_, name)| name);
    let (cpus, memory) = (options.cpus(), options.memory());
    let log = run.join("bochs");
    let [bios, vga] =
        ["BIOS-bochs-latest", "VGABIOS-lgpl-latest"].map(|name| bochs.file("usr/share/bochs").join(name));
    let mut text = format!(
        "plugin_ctrl: unmapped=1, biosdev=1, speaker=0, extfpuirq=1, parallel=0, serial=1, iodebug=0\n\
         config_interface: textconfig\n\
         display_library: term\n\
         memory: guest={memory}, host={memory}\n\
         romimage: file={}, options=fastboot\n\
         vgaromimage: file={}\n\
         cpu: model={model}, count={cpus}:1:1, quantum=16, ips=20000000, reset_on_triple_fault=0, ignore_bad_msrs=1\n\
         clock: sync=none, time0=1700000000, rtc_sync=0\n\
         ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
         ata0-master: type=cdrom, path={}, status=inserted\n\
         boot: cdrom\n\
         log: {}\n\
         com1: enabled=1, mode=file, dev={}\n\
         com2: enabled=1, mode=file, dev=/proc/self/fd/0\n",
        bios.display(),
        vga.display(),
        cd.display(),
        log.display(),
        console.display(),
    );
    // Errors are not logged: a timer's signal handler would, while standard output is locked, and wait for ever.
    text.push_str("panic: action=fatal\nerror: action=ignore\ninfo: action=ignore\ndebug: action=ignore\n");
    if let Some(disk) = disk {
        // What is written to it ends with the machine.
        let _infallible = writeln!(
            text,
            "ata0-slave: type=disk, path={}, mode=volatile, journal={}",
            disk.display(),
            run.join("journal").display()
        );
    }
    text
}

/// Reads whatever the emulator shows, until it ends: it makes a terminal for its screen, names that in its `log`, and waits for
/// ever when nobody reads there.
pub(super) fn watch_screen(log: PathBuf) {
    std::thread::spawn(move || {
        let end = Instant::now() + SCREEN;
        let name = loop {
            let said = fs::read_to_string(&log).unwrap_or_default();
            let named = said.split_once(SCREEN_IS).and_then(|(_, rest)| rest.split_once('"'));
            match named {
                Some((name, _)) => break name.to_owned(),
                None if Instant::now() > end => return,
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        // Gone already if the emulator is.
        let flags = OFlags::RDONLY | OFlags::NOCTTY;
        let Ok(screen) = rustix::fs::open(name, flags, Mode::empty()) else { return };
        if let Ok(mut termios) = tcgetattr(&screen) {
            termios.make_raw();
            let _gone = tcsetattr(&screen, OptionalActions::Now, &termios);
        }
        let _ended = std::io::copy(&mut fs::File::from(screen), &mut std::io::sink());
    });
}

/// How the emulator says where its screen is, and how long that may take.
const SCREEN_IS: &str = "Bochs connected to screen \"";
const SCREEN: Duration = Duration::from_secs(120);

/// The program at `path` without its line numbers, beside it.
pub(super) fn stripped(path: &Path) -> Result<PathBuf, Error> {
    let mut name = path.as_os_str().as_bytes().to_vec();
    name.extend(b".stripped");
    let stripped = PathBuf::from(OsStr::from_bytes(&name));
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let source = changed(path).map_err(io_error(path))?;
    if changed(&stripped).is_ok_and(|time| time > source) {
        return Ok(stripped);
    }
    // Others may be at it as well.
    let unfinished = stripped.with_extension(std::process::id().to_string());
    quiet(Command::new("strip").arg("-o").arg(&unfinished).arg(path))?;
    fs::rename(&unfinished, &stripped).map_err(io_error(&stripped))?;
    Ok(stripped)
}
