//! Runs a bare-metal image in QEMU: cargo's runner for the targets without an operating system.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tests::bare::{Image, Machine};
use tests::packages::{self, Cache};

/// Boots an image and ends with its status.
#[derive(Parser)]
struct Cli {
    /// The ELF file that cargo built.
    image: PathBuf,
    /// The board, if not the usual one.
    #[arg(long)]
    machine: Option<Machine>,
    /// Waits for a debugger on port 1234 before the first instruction.
    #[arg(long)]
    gdb: bool,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("bare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<u8, Box<dyn Error>> {
    let image = Image::of(&cli.image)?;
    packages::qemu(&Cache::open()?, image.arch)?;
    let machines = Machine::with(image.arch);
    let machine = cli.machine.unwrap_or(machines[0]);
    if !machines.contains(&machine) {
        return Err(format!("this image is for {}, which that board is not", image.arch).into());
    }
    let mut qemu = image.command(machine);
    if cli.gdb {
        qemu.args(["-s", "-S"]);
    }
    let ended = qemu.status()?;
    let status = ended.code().and_then(|code| image.status(code));
    status.ok_or_else(|| format!("{} ended without a word from the image: {ended}", image.arch.qemu()).into())
}
