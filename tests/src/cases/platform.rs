//! The kvm platform from outside: its self-test, what a crash in ring 0 looks like, and that the hot paths
//! leave the VM alone.

use super::{Case, Place, case, errors, gives, succeeds};
use crate::arch::Arch;
use crate::guest::{Outcome, Step};

/// Operations that a sandbox serves without leaving the VM.
const EXIT_FREE: &[&str] = &[
    "null", "read", "pipe", "futex", "mmap", "fault", "down", "cow", "fork", "thread", "signal", "tcp",
    "tcp16k", "connect", "udp",
];
/// Exits to the host loop per operation that count as none: a timer may fire.
const NO_EXITS: f64 = 0.001;
/// Time slices per operation that may end, by the VM's timer or by a kick, and the exits that one costs: an emulator's own
/// host lets 10 ms pass between two instructions now and then. On a busy machine it does so all the time: at most as
/// often as there are so many nanoseconds in what the operations take, which is measured in another run.
const SLICES: f64 = 0.005;
const SLICE_NS: f64 = 20e6;
const EXITS_PER_SLICE: f64 = 3.0;

/// The exit status that is ours.
const OURS: i32 = 125;
/// A hundred thousand kicks take a while under emulation.
const STRESS_TIMEOUT: u64 = 1200;
/// Half of the ABI cases, twice.
const GARBAGE_TIMEOUT: u64 = 1200;

/// Cases for the platform itself, where it is kvm.
pub fn platform(place: &Place) -> Vec<Case> {
    let (abi, exact) = (place.program("abi"), place.arch == Arch::X86_64);
    let crash = |how: &str| place.pillbox(&["self-test", "--crash", how], &[] as &[&str]);
    let mut cases = vec![
        self_test(place),
        case("a null read in ring 0 is an ordinary SIGSEGV", crash("null"), died_of_sigsegv),
        case("a kernel stack that overflows is an ordinary SIGSEGV", crash("overflow"), died_of_sigsegv),
        case("a panic in ring 0 is caught", crash("panic"), succeeds),
    ];
    cases.push(case(
        "kicks, engines, registers and clocks under stress",
        place.pillbox(&["self-test", "--stress"], &[] as &[&str]).timeout(STRESS_TIMEOUT),
        move |got| match got.status {
            0 if exact => never_backwards(got),
            0 => Ok(()),
            status => Err(format!("status {status}: {}", String::from_utf8_lossy(&got.stdout))),
        },
    ));
    if place.arch == Arch::Aarch64 {
        let (pillbox, platform) = (&place.pillbox, &place.platform);
        let start = format!("{pillbox} do --platform {platform} --cpus 1 --stats --");
        let script = format!("{start} {abi} windows_turns");
        let step = Step::new(["/bin/busybox", "sh", "-c", script.as_str()]).timeout(super::TIMEOUT);
        cases.push(case("time slices by the guest's virtual timer", step, time_slices));
    }
    let garbage = [
        &place.program("probe"),
        "garbage",
        &abi,
        &place.pillbox,
        "self-test",
        "--platform",
        &place.platform,
        "--with-bug",
    ];
    cases.push(case(
        "garbage wherever the host process has memory",
        Step::new(garbage).timeout(GARBAGE_TIMEOUT),
        succeeds,
    ));
    cases.extend(broken(place));
    cases.extend(exit_free(place, EXIT_FREE));
    cases
}

/// A handful of instructions, and what comes of each.
fn self_test(place: &Place) -> Case {
    case("the platform's self-test", place.pillbox(&["self-test"], &[] as &[&str]), |got| {
        let text = String::from_utf8_lossy(&got.stdout);
        match got.status {
            0 => Ok(()),
            status => Err(format!("status {status}: {text}")),
        }
    })
}

/// These operations leave the VM alone.
fn exit_free(place: &Place, names: &[&str]) -> Vec<Case> {
    let measured = |name: &&str| {
        let step = place.pillbox(&["bench", "--json", name], &[] as &[&str]);
        case(&format!("mb {name} makes no exits"), step, no_exits)
    };
    names.iter().map(measured).collect()
}

/// What knows the CPU it runs on: for KVM on another maker's, where all the rest is checked on the usual one. `whole` is all
/// families and all operations.
pub fn on_another_cpu(place: &Place, whole: bool) -> Vec<Case> {
    let mut cases = vec![self_test(place), doctor(place)];
    cases.extend(super::jail(place));
    cases.extend(super::smoke(place));
    if whole {
        cases.extend(super::abi(place));
        cases.extend(exit_free(place, EXIT_FREE));
    } else {
        cases.extend(super::abi::families(place, KNOW_THE_CPU));
        cases.extend(exit_free(place, &["null", "fault", "fork", "pipe"]));
    }
    cases
}

/// The least of that: for each way in which a vendor's module can run a VM.
pub fn on_another_mmu(place: &Place) -> Vec<Case> {
    let mut cases = vec![self_test(place)];
    cases.extend(super::smoke(place));
    cases.extend(super::abi::families(place, KNOW_THE_CPU));
    cases
}

/// Two virtual CPUs that take turns after a few instructions each.
pub fn on_two_cpus(place: &Place) -> Vec<Case> {
    let mut cases = vec![self_test(place)];
    cases.extend(super::abi::families(place, &["threads"]));
    cases
}

/// Families in which registers, FP state, exceptions and page tables are what is looked at.
const KNOW_THE_CPU: &[&str] = &[
    "registers",
    "frames",
    "hostile",
    "exceptions",
    "instructions",
    "signals",
    "process",
    "memory",
    "code",
    "threads",
    "machine",
];

/// It names the module, what of the CPU is used, and finds everything in order.
fn doctor(place: &Place) -> Case {
    case("doctor names what is used", place.pillbox(&["doctor"], &[] as &[&str]), |got| {
        succeeds(got)?;
        let text = String::from_utf8_lossy(&got.stdout);
        let told = |part: &&str| text.contains(*part);
        let vendor = ["kvm_intel (ept=", "kvm_amd (npt="].iter().any(told);
        let rest = ["  virtual CPU ", "\nkvm: usable", "\nsystrap: usable", "runs programs on kvm"];
        match rest.iter().find(|part| !told(part)) {
            None if vendor && !text.contains("does not hold") => Ok(()),
            missing => Err(format!("vendor {vendor}, missing {missing:?}: {text}")),
        }
    })
}

/// Threads that make no calls take turns on one worker, because the VM's timer interrupts them and nobody else does.
fn time_slices(got: &Outcome) -> Result<(), String> {
    let text = String::from_utf8_lossy(&got.stderr);
    let counter = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.and_then(|count| count.trim().parse::<u64>().ok())
    };
    let (slices, sent) = (counter("exit: time slice"), counter("kicks sent"));
    let turns = String::from_utf8_lossy(&got.stdout)
        .starts_with("10 rounds in which every thread got on; all ended: true");
    let told = format!("slices {slices:?}, kicks sent {sent:?}, status {}", got.status);
    if got.status == 0 && turns && slices >= Some(20) { Ok(()) } else { Err(told) }
}

/// Where host and guest have one counter, to the tick (x86_64; arm64 from Linux 6.4 on): no clock runs backwards, ever.
pub fn exact_clocks(place: &Place) -> Case {
    let step = place.pillbox(&["self-test", "--stress", "clocks"], &[] as &[&str]).timeout(STRESS_TIMEOUT);
    case("clocks of host and guest never run backwards", step, never_backwards)
}

fn never_backwards(got: &Outcome) -> Result<(), String> {
    let text = String::from_utf8_lossy(&got.stdout);
    let mut clocks = text.split(" at most ").skip(1).peekable();
    let never =
        clocks.peek().is_some() && clocks.all(|clock| clock.starts_with("0 ns behind, the host 0 ns"));
    if got.status == 0 && never { Ok(()) } else { Err(format!("status {}: {text}", got.status)) }
}

/// Sandboxes in which something is wrong: with us, or with the host.
fn broken(place: &Place) -> Vec<Case> {
    let abi = place.program("abi");
    let with_bug = |arguments: &[&str], child: &str| {
        let first = [&["self-test", "--platform", &place.platform], arguments, &["--with-bug"]].concat();
        place.pillbox(&first, &[abi.as_str(), "--child", child])
    };
    let pillbox = &place.pillbox;
    let platform = &place.platform;
    let start = format!("{pillbox} do --platform {platform} --");
    let shell = |script: &str| Step::new(["/bin/busybox", "sh", "-c", script]).timeout(super::TIMEOUT);
    vec![
        gives("a bug of ours kills one program", with_bug(&[], "bug"), BUG, 0),
        case("a kernel stack that overflows kills one program", with_bug(&[], "overflow"), one_overflowed),
        gives("memory runs out", with_bug(&["--memory", "96"], "memory"), MEMORY, 0),
        case(
            "the host's descriptors run out",
            shell(&format!("ulimit -n 80; {start} {abi} --child descriptors")),
            |got| {
                let text = String::from_utf8_lossy(&got.stdout);
                let right = DESCRIPTORS.iter().all(|line| text.contains(line));
                if got.status == 0 && right { Ok(()) } else { Err(format!("status {}: {text}", got.status)) }
            },
        ),
        gives(
            "the caller's limit of descriptors is the program's",
            shell(&format!("ulimit -S -n 70; {start} /bin/busybox sh -c 'ulimit -S -n'")),
            "70\n",
            0,
        ),
        case(
            "address space runs out",
            shell(&format!("ulimit -v 4000000; {start} /bin/busybox true")),
            refused,
        ),
    ]
}

/// One line of ours, and our status.
fn refused(got: &Outcome) -> Result<(), String> {
    let text = errors(got);
    let one_line = text.starts_with("pillbox: ") && text.lines().count() == 1;
    if got.status == OURS && one_line { Ok(()) } else { Err(format!("status {}", got.status)) }
}

const BUG: &str = "0: killed by 9\nsaid: 6 \"before\"\n1: killed by 9\nsaid: 6 \"before\"\n2: killed by 9\n\
    said: 6 \"before\"\nthreads: killed by 9\nanother: exited 7\nOk(\"still here\")\n";
const MEMORY: &str = "too much: refused\na little: exited 1\ntoo much: refused\na little: exited 1\n\
    too much: refused\na little: exited 1\nhere: true\n";
const DESCRIPTORS: &[&str] = &["pipes 50", "again true and 4", "a child: exited 5"];

/// What is left of programs whose kernel stacks overflow, and a line for each.
fn one_overflowed(got: &Outcome) -> Result<(), String> {
    let each = |size| format!("{size}: killed by 9\nsaid: 6 \"before\"\n");
    let sizes: String = [0, 1, 2, 0, 1, 2].map(each).concat();
    let expected = format!("{sizes}threads: killed by 9\nanother: exited 7\nOk(\"still here\")\n");
    let (said, told) = (String::from_utf8_lossy(&got.stdout), errors(got));
    let lines: Vec<&str> = told.lines().filter(|line| line.trim_start().starts_with("pillbox: ")).collect();
    let one = |line: &&str| line.ends_with(", which is killed: kernel stack overflow");
    if got.status == 0 && said == expected && lines.len() == 7 && lines.iter().all(one) {
        Ok(())
    } else {
        Err(format!("status {}, it says {said:?} and tells {lines:?}", got.status))
    }
}

/// The handler names signal, address and return addresses, and ends the sandbox with a status of ours.
fn died_of_sigsegv(got: &Outcome) -> Result<(), String> {
    let text = errors(got);
    let told = ["SIGSEGV at address 0x", "\n      from 0x"].iter().all(|part| text.contains(part));
    if got.status == OURS && told { Ok(()) } else { Err(format!("status {}", got.status)) }
}

fn no_exits(got: &Outcome) -> Result<(), String> {
    succeeds(got)?;
    let row: serde_json::Value = serde_json::from_slice(&got.stdout).map_err(|e| e.to_string())?;
    let exits = |reason: &str| row["exits"][reason].as_f64().unwrap_or(0.0);
    let slices = exits("exit: time slice") + exits("exit: signal");
    let most = SLICES.max(row["ours"].as_f64().unwrap_or(0.0) / SLICE_NS);
    match exits("KVM_RUN").max(exits("drops to native")) - slices * EXITS_PER_SLICE {
        few if few <= NO_EXITS && slices <= most => Ok(()),
        _ => Err(format!("exits per operation: {}", row["exits"])),
    }
}
