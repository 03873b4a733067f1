//! The layers that run in nested guests: which guests follow each other, and which run side by side.

use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tests::arch::{Arch, Board};
use tests::cases::{self, Case, Place, Verdict};
use tests::guest::{self, Guest, Options};

use super::{Layer, Tally};

/// What becomes of cases in guests, as those who run them tell it.
enum Told {
    Case(String, Verdict),
    Failed(String, String),
}

/// The guests of one architecture.
pub(super) struct Guests {
    deadline: Instant,
    tell: mpsc::Sender<Told>,
}

impl Guests {
    /// Runs cases in a guest.
    pub(super) fn run(&self, layer: &str, guest: Result<Guest, guest::Error>, cases: &[Case]) {
        // Whoever listens does so until all have told.
        match guest {
            Ok(guest) => cases::run_in_guest(guest, cases, self.deadline, |case, verdict| {
                let _heard = self.tell.send(Told::Case(format!("{layer}: {}", case.name), verdict));
            }),
            Err(error) => {
                let _heard = self.tell.send(Told::Failed(layer.to_owned(), error.to_string()));
            }
        }
    }
}

/// Runs something in guests of each kind, as many at once as there are CPUs, but two at least: an emulator takes one.
pub(super) fn in_guests<K: Copy + Send + Sync>(
    tally: &mut Tally,
    kinds: &[K],
    run: impl Fn(K, &Guests) + Sync,
) {
    let (deadline, run, left) = (tally.deadline, &run, Mutex::new(kinds.iter()));
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let cpus = std::thread::available_parallelism().map_or(2, |cpus| cpus.get().max(2));
    let (tell, told) = mpsc::channel();
    let well = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cpus.min(kinds.len()))
            .map(|_| {
                let guests = Guests { deadline, tell: tell.clone() };
                scope.spawn(move || {
                    while let Some(&kind) = next() {
                        run(kind, &guests);
                    }
                })
            })
            .collect();
        drop(tell);
        for told in told {
            match told {
                Told::Case(name, verdict) => tally.case(&name, verdict),
                Told::Failed(layer, why) => tally.failed(&layer, &why),
            }
        }
        threads.into_iter().all(|thread| thread.join().is_ok())
    });
    if !well {
        tally.failed("nested guests", "the harness failed");
    }
}

/// How a sandbox is started in a guest.
pub(super) fn in_guest(arch: Arch) -> Place {
    Place {
        pillbox: guest::PILLBOX.to_owned(),
        platform: "kvm".to_owned(),
        arch,
        programs: "/bin".to_owned(),
    }
}

/// A guest with busybox and pillbox.
pub(super) fn small_guest(arch: Arch, board: Board) -> Result<Guest, guest::Error> {
    let options = Options { board, timeout: cases::BOOT_TIMEOUT, ..Options::default() };
    Guest::new(arch, options).and_then(Guest::with_pillbox)
}

/// A chain of guests, each of which follows the one before.
#[derive(Clone, Copy)]
enum Chain {
    /// The usual machine of an architecture and its other boards.
    Of(Arch),
    /// An Intel PC.
    Intel,
    /// One with two CPUs; at night also the ways in which it runs a VM when it is told to.
    IntelTwo,
}

pub(super) fn nested(tally: &mut Tally, layers: &[Layer], nightly: bool) {
    let chains = |layer: &Layer| match layer {
        Layer::X86_64 => vec![Chain::Of(Arch::X86_64)],
        Layer::Aarch64 => vec![Chain::Of(Arch::Aarch64)],
        _ => vec![Chain::Intel, Chain::IntelTwo],
    };
    let chains: Vec<Chain> = layers.iter().flat_map(chains).collect();
    in_guests(tally, &chains, |chain, guests| match chain {
        Chain::Of(arch) => in_guests_of(arch, guests),
        Chain::Intel => intel(guests, nightly),
        Chain::IntelTwo => intel_two(guests, nightly),
    });
}

/// How long one boot of an Intel PC may take, by day and at night. (Its steps have deadlines by its own clock, which are hours.)
const INTEL_BOOT: [Duration; 2] = [Duration::from_mins(25), Duration::from_hours(2)];

/// Ways in which kvm-intel can run a VM.
const INTEL_VARIANTS: &[&str] = &["ept=0", "vpid=0", "unrestricted_guest=0", "enable_apicv=0"];

/// A guest with KVM on VMX, or on what else the board has.
fn intel_guest(board: Board, smp: u32, kvm: &[&str], nightly: bool) -> Result<Guest, guest::Error> {
    let kvm = kvm.iter().map(|&parameter| parameter.to_owned()).collect();
    let timeout = INTEL_BOOT[usize::from(nightly)];
    let options = Options { board, smp: Some(smp), kvm, timeout, ..Options::default() };
    Guest::new(Arch::X86_64, options).and_then(Guest::with_pillbox)
}

/// What knows its CPU, on VMX; at night every family.
fn intel(guests: &Guests, nightly: bool) {
    let cases = cases::on_another_cpu(&in_guest(Arch::X86_64), nightly);
    guests.run("nested Intel", intel_guest(Board::Intel, 1, &[], nightly), &cases);
}

/// Two virtual CPUs on two; at night also the module's other ways, and the other maker's CPU.
fn intel_two(guests: &Guests, nightly: bool) {
    let place = in_guest(Arch::X86_64);
    let run = |name: &str, board, smp, kvm: &[&str], cases: &[Case]| {
        guests.run(&format!("nested {name}"), intel_guest(board, smp, kvm, nightly), cases);
    };
    run("Intel, two CPUs", Board::Intel, 2, &[], &cases::on_two_cpus(&place));
    if nightly {
        let cases = cases::on_another_mmu(&place);
        for variant in INTEL_VARIANTS {
            run(&format!("Intel, {variant}"), Board::Intel, 1, &[variant], &cases);
        }
        run("Ryzen", Board::Ryzen, 1, &[], &cases);
    }
}

/// All that is checked in guests of one architecture, one guest after the other.
fn in_guests_of(arch: Arch, guests: &Guests) {
    let place = in_guest(arch);
    let small = |board| small_guest(arch, board);
    let run = |layer: String, guest: Result<Guest, guest::Error>, cases: &[Case]| {
        guests.run(&layer, guest, cases);
    };
    let (idle, killed, jail) = (cases::idle(&place), cases::killed(&place), cases::jail(&place));
    let cases = [cases::platform(&place), cases::small(&place), idle, killed, jail];
    let mut cases: Vec<Case> = cases.into_iter().flatten().collect();
    let usual = small(Board::Usual).and_then(|mut guest| {
        // What this machine compiles runs in guests of its kind. (What is missing has been said on the way here.)
        if let (true, Ok(built)) = (arch == Arch::HOST, guest::build_programs(arch)) {
            for sanitized in cases::compile_sanitized(&built) {
                let Ok(program) = sanitized.program else { continue };
                guest.program(&program, format!("/bin/{}", sanitized.name))?;
                cases.extend(cases::sanitized(&place, &sanitized.name));
            }
        }
        Ok(guest)
    });
    run(format!("nested {arch}"), usual, &cases);
    let debian = small(Board::Usual).and_then(Guest::with_debian).map(|mut guest| {
        guest.tree().bytes(cases::SCRIPT, cases::SCRIPT_TEXT);
        guest.tree().bytes(cases::PROGRAMS, cases::PROGRAMS_TEXT);
        guest
    });
    let mut debian_cases = cases::debian(&place);
    debian_cases.extend(cases::programs_in_guest(&place));
    run(format!("nested {arch}, Debian"), debian, &debian_cases);
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
