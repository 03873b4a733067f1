//! `cargo nested`: runs pillbox, or any program, in a Linux guest with KVM, on a machine that has none.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tests::arch::{Arch, Board};
use tests::guest::frames::Frame;
use tests::guest::{Guest, Options, PILLBOX, Step};
use tests::words::words;

/// Boots a Debian kernel under an emulator with nested virtualisation and runs a command there.
///
/// Without --native or --exec the arguments are pillbox's: `cargo nested x86_64 -- do -- /bin/sh -c ls`.
/// Its output is streamed, its exit status is this command's.
#[derive(Parser)]
#[command(name = "cargo nested")]
struct Cli {
    /// The guest's architecture.
    arch: Arch,
    /// Count instructions instead of time (one CPU; repeatable to about 1 %).
    #[arg(long)]
    icount: bool,
    /// Adds a file or directory under its own path; a program's libraries come along.
    #[arg(long, value_name = "PATH")]
    with: Vec<PathBuf>,
    /// A Debian user land (bash, coreutils, python3, luajit, perl) instead of busybox alone.
    #[arg(long)]
    debian: bool,
    /// Another machine than the architecture's usual one.
    #[arg(long, value_enum, default_value_t)]
    board: Board,
    /// CPUs of the guest [default: 2, with Bochs 1]
    #[arg(long)]
    smp: Option<u32>,
    /// CPU model of the guest, in the emulator's words (`EPYC,-fsgsbase`; `icelake_u`, `tigerlake`, `skylake_x`)
    #[arg(long, visible_alias = "model")]
    cpu: Option<String>,
    /// Memory of the guest in MiB [default: 2048, with Bochs 1024]
    #[arg(long)]
    mem: Option<u32>,
    /// Parameter of the guest's KVM module, kvm-intel or kvm-amd (`ept=0`)
    #[arg(long, value_name = "NAME=VALUE")]
    kvm: Vec<String>,
    /// More of the guest kernel's command line (`noxsave`)
    #[arg(long, value_name = "WORDS")]
    append: Vec<String>,
    /// The arguments are a command of the guest, to run without pillbox.
    #[arg(long, conflicts_with = "exec")]
    native: bool,
    /// Runs this program of this machine in the guest, as root, instead of pillbox.
    #[arg(long, value_name = "FILE")]
    exec: Option<PathBuf>,
    /// Runs each line of this file: `native CMD...` without pillbox, anything else as pillbox's arguments.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["native", "exec"])]
    script: Option<PathBuf>,
    /// Seconds after which the guest is given up, forty times as many where Bochs is the emulator.
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// Prints the emulator's command line.
    #[arg(long, short)]
    verbose: bool,
    /// What to run.
    #[arg(last = true)]
    args: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("nested: {error}");
            ExitCode::from(125)
        }
    }
}

fn run(cli: &Cli) -> Result<u8, Box<dyn std::error::Error>> {
    let options = Options {
        icount: cli.icount,
        board: cli.board,
        smp: cli.smp,
        cpu: cli.cpu.clone(),
        memory: cli.mem,
        kvm: cli.kvm.clone(),
        append: cli.append.clone(),
        timeout: Duration::from_secs(cli.timeout) * cli.board.slower(),
        verbose: cli.verbose,
    };
    let steps = steps(cli)?;
    let mut guest = Guest::new(cli.arch, options)?;
    if cli.debian {
        guest = guest.with_debian()?;
    }
    for path in &cli.with {
        guest.with(path)?;
    }
    if let Some(file) = &cli.exec {
        guest.program(&std::fs::canonicalize(file)?, "/bin/program")?;
    }
    if steps.iter().any(|(_, step)| step.argv.first().is_some_and(|p| p == PILLBOX)) {
        guest = guest.with_pillbox()?;
    }
    let labelled = cli.script.is_some();
    let (labels, steps): (Vec<String>, Vec<Step>) = steps.into_iter().unzip();
    let mut announced = None;
    let run = guest.run(&steps, |step, frame| {
        if labelled && announced != Some(step) && step < labels.len() {
            println!("==> {}", labels[step]);
            announced = Some(step);
        }
        match frame {
            Frame::Stdout(bytes) => pass(&mut std::io::stdout(), bytes),
            Frame::Stderr(bytes) => pass(&mut std::io::stderr(), bytes),
            Frame::Done(status) if labelled => println!("<== {status}"),
            _ => {}
        }
    })?;
    run.ended?;
    let worst = run.outcomes.iter().map(|outcome| outcome.status).find(|&status| status != 0);
    Ok(u8::try_from(worst.unwrap_or(0)).unwrap_or(255))
}

/// What to run, each with a label.
fn steps(cli: &Cli) -> Result<Vec<(String, Step)>, Box<dyn std::error::Error>> {
    if let Some(script) = &cli.script {
        let text = std::fs::read_to_string(script).map_err(|e| format!("{}: {e}", script.display()))?;
        let lines = text.lines().map(str::trim);
        return lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                let words = words(line).ok_or_else(|| format!("unbalanced quotes: {line}"))?;
                let argv = match words.split_first() {
                    Some((first, rest)) if first == "native" => rest.to_vec(),
                    _ => [vec![PILLBOX.to_owned()], words].concat(),
                };
                Ok((line.to_owned(), Step::new(argv)))
            })
            .collect();
    }
    let first = match (&cli.exec, cli.native) {
        (Some(_), _) => Some("/bin/program"),
        (None, false) => Some(PILLBOX),
        (None, true) => None,
    };
    let argv = first.map(str::to_owned).into_iter().chain(cli.args.iter().cloned());
    let step = Step::new(argv);
    if step.argv.is_empty() {
        return Err("nothing to run: give a command after --".into());
    }
    Ok(vec![(cli.args.join(" "), step)])
}

fn pass(to: &mut impl Write, bytes: &[u8]) {
    // A reader that has had enough is no reason to stop the guest.
    let _ = to.write_all(bytes);
    let _ = to.flush();
}
