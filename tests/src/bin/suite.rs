//! `cargo xtest`: every test there is, and one line at the end that counts them.
//!
//! With arguments only the layers named run. Each check prints one line as it ends; what cannot run says
//! so as loudly as what fails.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use tests::arch::{Arch, Board};
use tests::bare::{self, Image, Machine};
use tests::cases::{self, Case, Place};
use tests::guest::{self, Guest, Options};
use tests::packages::{Cache, workspace_root};
use tests::setup;

/// Runs every test: on this machine, and in nested guests of both architectures.
#[derive(Parser)]
#[command(name = "cargo xtest")]
struct Cli {
    /// Only these layers.
    layers: Vec<Layer>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Layer {
    /// Formatting and lints.
    Lint,
    /// `cargo test` of every crate.
    Unit,
    /// The bring-up images on emulated boards.
    Bare,
    /// Sandboxes on this machine, on the platform that needs no KVM.
    Here,
    /// Sandboxes in a nested x86_64 guest.
    #[value(name = "x86_64")]
    X86_64,
    /// Sandboxes in a nested aarch64 guest.
    Aarch64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let layers = if cli.layers.is_empty() { Layer::value_variants() } else { &cli.layers };
    let mut tally = Tally::default();
    let ready = Cache::open().and_then(|cache| setup::everything(&cache));
    if let Err(error) = ready {
        tally.failed("set-up", &error.to_string());
    }
    for layer in layers {
        let start = Instant::now();
        match layer {
            Layer::Lint => lint(&mut tally),
            Layer::Unit => unit(&mut tally),
            Layer::Bare => bare(&mut tally),
            Layer::Here => here(&mut tally),
            Layer::X86_64 => nested(&mut tally, Arch::X86_64),
            Layer::Aarch64 => nested(&mut tally, Arch::Aarch64),
        }
        let name = layer.to_possible_value().map(|value| value.get_name().to_owned());
        println!("     {} took {} s", name.unwrap_or_default(), start.elapsed().as_secs());
    }
    tally.close()
}

/// What has been checked so far.
#[derive(Default)]
struct Tally {
    passed: u64,
    failures: Vec<String>,
    skipped: BTreeMap<String, String>,
}

impl Tally {
    fn passed(&mut self, name: &str) {
        println!("ok   {name}");
        self.passed += 1;
    }

    fn failed(&mut self, name: &str, why: &str) {
        println!("FAIL {name}: {why}");
        self.failures.push(name.to_owned());
    }

    fn skipped(&mut self, name: &str, why: &str) {
        println!("SKIP {name}: {why}");
        self.skipped.insert(name.to_owned(), why.to_owned());
    }

    fn judged(&mut self, name: &str, verdict: Result<(), String>) {
        match verdict {
            Ok(()) => self.passed(name),
            Err(why) => self.failed(name, &why),
        }
    }

    fn close(self) -> ExitCode {
        println!();
        for name in &self.failures {
            println!("FAIL {name}");
        }
        for (name, why) in &self.skipped {
            println!("SKIP {name}: {why}");
        }
        let (failed, skipped) = (self.failures.len(), self.skipped.len());
        println!("{} passed, {failed} failed, {skipped} skipped", self.passed);
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).current_dir(workspace_root()).stdin(Stdio::null());
    cargo
}

fn lint(tally: &mut Tally) {
    const LINTS: [&str; 7] = ["clippy", "-q", "--workspace", "--all-targets", "--", "-D", "warnings"];
    const BARE: [&str; 5] = ["clippy", "-q", "-p", "bringup", "--target"];
    let bare = |arch| [&BARE[..], &[bare::target(arch), "--", "-D", "warnings"]].concat();
    let checks: [(&str, &[&str]); 5] = [
        ("formatting", &["fmt", "--all", "--check"]),
        ("lints", &LINTS),
        ("lints, aarch64", &[&LINTS[..2], &["--target", Arch::Aarch64.target()], &LINTS[2..]].concat()),
        ("lints, bare x86_64", &bare(Arch::X86_64)),
        ("lints, bare aarch64", &bare(Arch::Aarch64)),
    ];
    for (name, arguments) in checks {
        let verdict = match cargo(arguments).output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => {
                let said = [output.stdout, output.stderr].concat();
                let said = String::from_utf8_lossy(&said);
                Err(said.lines().take(40).collect::<Vec<_>>().join("\n    "))
            }
            Err(error) => Err(error.to_string()),
        };
        tally.judged(name, verdict);
    }
}

/// Runs `cargo test` and counts what it reports, test by test.
fn unit(tally: &mut Tally) {
    let output = cargo(&["test", "--workspace", "--no-fail-fast"]).stderr(Stdio::inherit()).output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return tally.failed("cargo test", &error.to_string()),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let mut failures = 0;
    for line in said.lines() {
        let Some(test) = line.strip_prefix("test ") else { continue };
        if test.starts_with("result:") {
            continue;
        }
        match test.rsplit_once(" ... ") {
            Some((_, "ok")) => tally.passed += 1,
            Some((name, "FAILED")) => {
                failures += 1;
                tally.failed(name, "see above");
            }
            Some((name, ignored)) if ignored.starts_with("ignored") => tally.skipped(name, ignored),
            _ => {}
        }
    }
    if !output.status.success() {
        println!("{said}");
        if failures == 0 {
            tally.failed("cargo test", "it did not get through");
        }
    }
}

fn bare(tally: &mut Tally) {
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let image = match bare::build(arch).and_then(|elf| Image::of(&elf)) {
            Ok(image) => image,
            Err(error) => {
                tally.failed(&format!("building the bring-up image for {arch}"), &error.to_string());
                continue;
            }
        };
        for &machine in Machine::with(arch) {
            tally.judged(&format!("bring-up on {machine}"), image.check(machine));
        }
    }
}

fn here(tally: &mut Tally) {
    let built = guest::build(Arch::HOST, &["-p", "host", "--bin", "pillbox"])
        .and_then(|_| guest::build_programs(Arch::HOST));
    let built = match built {
        Ok(built) => built.to_string_lossy().into_owned(),
        Err(error) => return tally.failed("building for this machine", &error.to_string()),
    };
    let place = Place {
        pillbox: format!("{built}/pillbox"),
        platform: "systrap".to_owned(),
        arch: Arch::HOST,
        programs: built,
    };
    let cases = [cases::here(&place), cases::idle(&place), cases::killed(&place), cases::without_kvm(&place)];
    let cases: Vec<Case> = cases.into_iter().flatten().collect();
    place.run_here(&cases, |case, verdict| tally.judged(&format!("here, systrap: {}", case.name), verdict));
}

fn nested(tally: &mut Tally, arch: Arch) {
    let place = Place {
        pillbox: guest::PILLBOX.to_owned(),
        platform: "kvm".to_owned(),
        arch,
        programs: "/bin".to_owned(),
    };
    let small = |board| {
        let options = Options { board, timeout: cases::BOOT_TIMEOUT, ..Options::default() };
        Guest::new(arch, options).and_then(Guest::with_pillbox)
    };
    let mut run = |layer: String, guest: Result<Guest, guest::Error>, cases: &[Case]| match guest {
        Ok(guest) => cases::run_in_guest(&guest, cases, |case, verdict| {
            tally.judged(&format!("{layer}: {}", case.name), verdict);
        }),
        Err(error) => tally.failed(&layer, &error.to_string()),
    };
    let cases = [cases::platform(&place), cases::small(&place), cases::idle(&place), cases::killed(&place)];
    let cases: Vec<Case> = cases.into_iter().flatten().collect();
    run(format!("nested {arch}"), small(Board::Usual), &cases);
    let debian = small(Board::Usual).and_then(Guest::with_debian).map(|mut guest| {
        guest.tree().bytes(cases::SCRIPT, cases::SCRIPT_TEXT);
        guest
    });
    run(format!("nested {arch}, Debian"), debian, &cases::debian(&place));
    if arch == Arch::Aarch64 {
        // On x86_64 this machine itself shows it.
        let systrap = Place { platform: "systrap".to_owned(), ..place.clone() };
        run(format!("nested {arch}, systrap"), small(Board::Usual), &cases::anywhere(&systrap));
        let mut pages_16k = cases::smoke(&place);
        pages_16k.push(cases::exact_clocks(&place));
        run(format!("nested {arch}, 16 KiB pages"), small(Board::Pages16k), &pages_16k);
        run(format!("nested {arch}, Raspberry Pi 4"), small(Board::Raspi4b), &cases::smoke(&place));
    }
}
