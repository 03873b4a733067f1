//! `cargo xtest`: every test there is but the soak and the Intel PC, and one line at the end that counts them.
//!
//! With arguments only the layers named run. Each check prints one line as it ends; what cannot run says
//! so as loudly as what fails.

mod guests;

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Parser, ValueEnum};
use guests::{in_guest, in_guests, nested, small_guest};
use tests::arch::{Arch, Board};
use tests::bare::{self, Image, Machine};
use tests::cases::{self, Case, Fuzz, Place, Verdict};
use tests::guest;
use tests::packages::{Cache, workspace_root};
use tests::setup;

/// Runs every test but the soak and the Intel PC: on this machine, and in nested guests of both architectures.
#[derive(Parser)]
#[command(name = "cargo xtest")]
struct Cli {
    /// Fuzzes for ten minutes each instead of one, from seeds that were never tried.
    #[arg(long)]
    nightly: bool,
    /// Soaks for so many minutes, 20 if no number is given; else the layer does for one, and for 20 at night.
    #[arg(long, num_args = 0..=1, default_missing_value = "20")]
    minutes: Option<u64>,
    /// Soaks in the nested x86_64 guest, too.
    #[arg(long)]
    kvm: bool,
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
    /// Containers, by the command line of engines and by podman.
    Containers,
    /// Real programs: servers, compilers, languages.
    Programs,
    /// Programs that mean harm, here and in the nested guests.
    Hold,
    /// Random system calls, executables and signal frames, here and in the nested guests.
    Fuzz,
    /// Programs that mean harm, all at once, for long: nothing is lost.
    Soak,
    /// Sandboxes in a nested x86_64 guest.
    #[value(name = "x86_64")]
    X86_64,
    /// Sandboxes in a nested aarch64 guest.
    Aarch64,
    /// Sandboxes on KVM on VMX, in an emulated Intel PC.
    Intel,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A soak has a command of its own: `cargo soak`. The Intel PC is for the night, or to be asked for.
    let asked = [Layer::Soak, Layer::Intel];
    let usual: Vec<_> =
        Layer::value_variants().iter().copied().filter(|layer| !asked.contains(layer)).collect();
    let layers = if cli.layers.is_empty() { &usual } else { &cli.layers };
    let mut tally = Tally::new(if cli.nightly { WHOLE_NIGHT } else { WHOLE });
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
            Layer::Containers => containers(&mut tally),
            Layer::Programs => programs(&mut tally),
            Layer::Hold => in_all_places(&mut tally, cases::hold),
            Layer::Fuzz => fuzz(&mut tally, cli.nightly),
            Layer::Soak => soak(&mut tally, cli.minutes.unwrap_or(if cli.nightly { 20 } else { 1 }), cli.kvm),
            Layer::X86_64 | Layer::Aarch64 | Layer::Intel => {
                let guests = |layer: &&Layer| matches!(layer, Layer::X86_64 | Layer::Aarch64 | Layer::Intel);
                let all: Vec<_> = layers.iter().filter(guests).copied().collect();
                if all.first() != Some(layer) {
                    // The first one has done them all.
                    continue;
                }
                nested(&mut tally, &all, cli.nightly);
            }
        }
        let name = layer.to_possible_value().map(|value| value.get_name().to_owned());
        println!("     {} took {} s", name.unwrap_or_default(), start.elapsed().as_secs());
    }
    tally.close()
}

/// How long all of it may take. Less than an hour where nothing else runs; who is slower than this is told what had no time
/// left, instead of being ended without a word.
const WHOLE: Duration = Duration::from_mins(80);

/// The same of a night.
const WHOLE_NIGHT: Duration = Duration::from_hours(6);

/// What has been checked so far.
struct Tally {
    deadline: Instant,
    passed: u64,
    failures: Vec<String>,
    skipped: BTreeMap<String, String>,
    /// What Linux itself does in several ways.
    unsteady: BTreeMap<String, String>,
}

impl Tally {
    fn new(limit: Duration) -> Self {
        Self {
            deadline: Instant::now() + limit,
            passed: 0,
            failures: Vec::new(),
            skipped: BTreeMap::new(),
            unsteady: BTreeMap::new(),
        }
    }

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

    fn case(&mut self, name: &str, verdict: Verdict) {
        match verdict {
            Verdict::Holds => self.passed(name),
            Verdict::Unsteady(why) => {
                println!("NOTE {name}: natively it is not always the same: {why}");
                self.unsteady.insert(name.to_owned(), why);
                self.passed(name);
            }
            Verdict::Fails(why) => self.failed(name, &why),
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
        for (name, why) in &self.unsteady {
            println!("NOTE {name}: natively it is not always the same: {why}");
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
    for arch in Arch::ALL {
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
    run_here(tally, |tally, place| {
        let (idle, killed, jail) = (cases::idle(place), cases::killed(place), cases::jail(place));
        let cases = [cases::here(place), idle, killed, jail, cases::without_kvm(place)];
        let mut cases: Vec<Case> = cases.into_iter().flatten().collect();
        for sanitized in cases::compile_sanitized(place.programs.as_ref()) {
            match sanitized.program {
                Ok(_) => cases.extend(cases::sanitized(place, &sanitized.name)),
                Err(why) => tally.skipped(&format!("here, systrap: {}", sanitized.name), &why),
            }
        }
        let (engines, missing) = cases::engines(place);
        cases.extend(engines);
        for name in missing {
            tally.skipped(&format!("here, systrap: {name}"), "it is not installed");
        }
        let (debuggers, missing) = cases::debuggers(place, place.programs.as_ref());
        cases.extend(debuggers);
        for why in missing {
            tally.skipped("here, systrap: debuggers", &why);
        }
        match cases::neighbours(place) {
            Ok(neighbours) => cases.extend(neighbours),
            Err(why) => tally.skipped("here, systrap: network", &why),
        }
        cases
    });
    in_debug(tally);
}

/// Every system call in a debug build: it checks the order of locks, and what may not be done with one held.
fn in_debug(tally: &mut Tally) {
    let built = guest::build_programs(Arch::HOST).and_then(|programs| {
        let debug = guest::build_debug(Arch::HOST)?;
        Ok((programs.to_string_lossy().into_owned(), format!("{}/pillbox", debug.display())))
    });
    let (programs, pillbox) = match built {
        Ok(built) => built,
        Err(error) => return tally.failed("building with debug assertions", &error.to_string()),
    };
    let place = Place { pillbox, platform: "systrap".to_owned(), arch: Arch::HOST, programs };
    let cases = cases::abi(&place);
    place.run_here(&cases, tally.deadline, |case, verdict| {
        tally.case(&format!("here, systrap, debug build: {}", case.name), verdict)
    });
}

/// Builds, and runs cases on this machine.
fn run_here(tally: &mut Tally, cases: impl FnOnce(&mut Tally, &Place) -> Vec<Case>) {
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
    let cases = cases(tally, &place);
    place.run_here(&cases, tally.deadline, |case, verdict| {
        tally.case(&format!("here, systrap: {}", case.name), verdict)
    });
}

fn containers(tally: &mut Tally) {
    run_here(tally, |tally, place| match cases::containers(place) {
        Ok((cases, missing)) => {
            for (name, why) in missing {
                tally.skipped(&format!("here, systrap: containers: {name}"), &why);
            }
            cases
        }
        Err(why) => {
            tally.skipped("here, systrap: containers", &why);
            Vec::new()
        }
    });
}

fn programs(tally: &mut Tally) {
    run_here(tally, |tally, place| {
        let (cases, missing) = cases::programs(place);
        for (name, why) in missing {
            tally.skipped(&format!("here, systrap: programs: {name}"), &why);
        }
        cases
    });
}

/// The same cases on both platforms: here and in both guests.
fn in_all_places(tally: &mut Tally, cases: impl Fn(&Place) -> Vec<Case> + Sync) {
    run_here(tally, |_, place| cases(place));
    in_guests(tally, &Arch::ALL, |arch, guests| {
        guests.run(&format!("nested {arch}"), small_guest(arch, Board::Usual), &cases(&in_guest(arch)));
    });
}

/// Short runs begin at the same place each time: what they find was not there before.
fn fuzz(tally: &mut Tally, nightly: bool) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (seconds, seed) = if nightly { (600, now) } else { (60, 1) };
    let cases = |place: &Place| {
        let seconds = if place.emulated() && !nightly { seconds / 2 } else { seconds };
        cases::fuzz(place, Fuzz { seconds, seed })
    };
    run_here(tally, |_, place| cases(place));
    in_guests(tally, &Arch::ALL, |arch, guests| {
        guests.run(&format!("nested {arch}"), small_guest(arch, Board::Usual), &cases(&in_guest(arch)));
    });
}

/// One sandbox in which everything goes on at once.
fn soak(tally: &mut Tally, minutes: u64, kvm: bool) {
    run_here(tally, |_, place| cases::soak(place, minutes));
    if kvm {
        in_guests(tally, &[Arch::X86_64], |arch, guests| {
            let cases = cases::soak(&in_guest(arch), minutes);
            guests.run("nested x86_64", small_guest(arch, Board::Usual), &cases);
        });
    }
}
