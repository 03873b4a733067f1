//! What a sandbox does about programs that mean it harm: nothing freezes, nothing crashes, nothing is left.
//!
//! Every case runs in the cage of the `hold` program: memory, tasks and time are bounded from outside, so that a sandbox
//! that fails harms nobody.

use super::{Case, Place, TIMEOUT, case, errors, succeeds};
use crate::guest::{Outcome, Step};

/// What a case may take: seconds, MiB, tasks. None is to come near.
const SECONDS: &str = "240";
const MIB: &str = "1500";
const TASKS: &str = "600";

/// Attacks on everybody's time, and by how many processes at once.
const STORMS: &[(&str, &str)] = &[
    ("spin", "2"),
    ("masked", "2"),
    ("timers", "2"),
    ("timerfds", "2"),
    ("intervals", "2"),
    ("eternal", "2"),
    ("populate", "2"),
    ("advise", "2"),
    ("punch", "2"),
    ("send", "2"),
    ("random", "2"),
    ("zero", "2"),
    ("sparse", "2"),
    ("peek", "2"),
    ("areas", "2"),
    ("unmap", "2"),
    ("hide", "2"),
    ("lower", "2"),
    ("relocate", "2"),
    ("discard", "2"),
    ("end", "2"),
    ("inherit", "2"),
    ("nested", "2"),
];

/// All of it.
pub fn hold(place: &Place) -> Vec<Case> {
    let storm = |(name, count): &(&str, &str)| {
        let step = caged(place, &["storm", name, count, slower(place)]);
        case(&format!("hold: {name} harms nobody"), step, harmless)
    };
    let mut cases: Vec<Case> = STORMS.iter().map(storm).collect();
    cases.push(case("hold: a pipe that nobody reads harms nobody", flood(place), harmless));
    for options in [&[][..], &["--cpus", "1"]] {
        let name = format!("hold: a host that does not come back keeps nobody else {}", options.join(" "));
        cases.push(case(&name, stubborn(place, options), harmless));
    }
    if !place.emulated() && has_silence() {
        for options in [&[][..], &["--cpus", "1"], &["--cpus", "40"]] {
            let name = format!("hold: a file whose host is silent keeps nobody else {}", options.join(" "));
            cases.push(case(&name, silent(place, options), harmless));
        }
    }
    cases.push(case("hold: no core file is left behind", core(place), |got| {
        let said = String::from_utf8_lossy(&got.stdout);
        if said == CORE { succeeds(got) } else { Err(format!("it says {said:?}")) }
    }));
    cases.push(case(
        "hold: no more tasks than --pids says",
        within(place, &["--pids", "40"], &["forks"]),
        |got| says(got, "39 processes, then fork: Resource temporarily unavailable (os error 11)\n", ZOMBIES),
    ));
    cases.push(case("hold: tasks are left to others", caged(place, &["forks", "60"]), |got| {
        says(got, "many processes, then fork: Resource temporarily unavailable (os error 11)\n", ZOMBIES)
    }));
    cases.push(case(
        "hold: who has most goes when memory is short",
        within(place, &["--memory", "200M"], &["memory"]),
        bombed,
    ));
    for what in ["files", "names", "links", "attributes"] {
        let step = within(place, &["--memory", "64M"], &["fill", what]);
        cases.push(case(&format!("hold: {what} end with an error"), step, move |got| {
            harmless(got)?;
            let first = format!("{what}: many true, then No space left on device (os error 28)\n");
            says(got, &first, "again afterwards: true\n")
        }));
    }
    // Messages outlive who has sent them: nobody is blamed, and there is an error.
    let ends = [
        ("pipes", "killed by 9"),
        ("streams", "killed by 9"),
        ("datagrams", "killed by 9"),
        ("messages", "exited 1"),
    ];
    for (what, end) in ends {
        let step = within(place, &["--memory", "128M"], &["hoard", what]);
        cases.push(case(&format!("hold: {what} count as memory"), step, move |got| {
            succeeds(got)?;
            let said = String::from_utf8_lossy(&got.stdout);
            let expected = format!("{what}: {end}\nanother one: exited 0\n");
            if said == expected { Ok(()) } else { Err(format!("it says {said:?}")) }
        }));
    }
    for what in ["mounts", "alarms", "senders"] {
        let step = within(place, &["--memory", "128M"], &["churn", what]);
        cases.push(case(&format!("hold: {what} go"), step, harmless));
    }
    let step = within(place, &["--pids", "140"], &["shares"]);
    cases.push(case("hold: one user leaves root what it needs", step, harmless));
    let step = within(place, &["--memory", "64M"], &["misses"]);
    cases.push(case("hold: names that are not there take little", step, harmless));
    if place.platform == "systrap" {
        // A guest's memory is not large enough for both.
        cases.push(case("hold: a neighbour outlives a memory bomb", beside_a_decoy(place), outlived));
    }
    cases.push(case("hold: what was opened for appending only grows", appending(place), |got| {
        let said = String::from_utf8_lossy(&got.stdout);
        if said == LOG { succeeds(got) } else { Err(format!("it says {said:?}")) }
    }));
    cases
}

/// Everything at once for so many minutes, in one sandbox, and memory bombs beside somebody else.
pub fn soak(place: &Place, minutes: u64) -> Vec<Case> {
    let (seconds, hold) = ((minutes * 60).to_string(), place.program("hold"));
    let most = minutes * 60 + 300;
    let outside = [&hold, "cage", &most.to_string(), MIB, TASKS, &hold, "soaked"];
    let sandbox =
        [&place.pillbox, "do", "--platform", &place.platform, "--memory", "512M", "--pids", "200", "--"];
    let words = [&outside[..], &sandbox, &[&hold, "soak", &seconds]].concat();
    let step = Step::new(words.into_iter().map(str::to_owned)).timeout(most + 60);
    let mut cases = vec![case("soak: nothing is lost", step, succeeds)];
    if place.platform == "systrap" {
        let bombs = (1..=minutes.min(20)).map(|bomb| {
            case(&format!("soak: a neighbour outlives memory bomb {bomb}"), beside_a_decoy(place), outlived)
        });
        cases.extend(bombs);
    }
    cases
}

/// The bomb was killed, and the decoy lives.
fn outlived(got: &Outcome) -> Result<(), String> {
    bombed(got)?;
    let lives = String::from_utf8_lossy(&got.stdout).ends_with("the decoy lives: true\n");
    if lives { Ok(()) } else { Err("the decoy does not live".to_owned()) }
}

/// One of our programs in a sandbox in a cage.
pub(super) struct Cage<'a> {
    /// When it is ended from outside.
    pub(super) seconds: &'a str,
    /// Those of `pillbox do`.
    pub(super) options: &'a [&'a str],
    /// The program's name.
    pub(super) program: &'a str,
}

const USUAL: Cage<'_> = Cage { seconds: SECONDS, options: &[], program: "hold" };

impl Cage<'_> {
    /// The command line, but for the program's arguments.
    fn words(&self, place: &Place) -> impl Iterator<Item = String> {
        let (hold, program) = (place.program("hold"), place.program(self.program));
        let cage = [&hold, "cage", self.seconds, MIB, TASKS];
        let sandbox = [&place.pillbox, "do", "--platform", &place.platform];
        let words = [&cage[..], &sandbox[..], self.options, &["--", &program]].concat();
        words.into_iter().map(str::to_owned).collect::<Vec<_>>().into_iter()
    }

    /// A shell that runs this with the command line as its words, in a directory of its own.
    pub(super) fn in_scratch(&self, place: &Place, script: &str) -> Step {
        let script = format!("d=$(mktemp -d) && cd $d || exit 9; {script}; s=$?; cd /; rm -r $d; exit $s");
        let words = [&place.shell()[..], &["-c", &script, "sh"]].concat().into_iter().map(str::to_owned);
        Step::new(words.chain(self.words(place))).timeout(TIMEOUT)
    }
}

/// The `hold` program with these words, in a sandbox in a cage.
fn caged(place: &Place, words: &[&str]) -> Step {
    within(place, &[], words)
}

/// The same in a sandbox with options.
fn within(place: &Place, options: &[&str], words: &[&str]) -> Step {
    let cage = Cage { options, ..USUAL };
    Step::new(cage.words(place).chain(words.iter().copied().map(str::to_owned))).timeout(TIMEOUT)
}

fn flood(place: &Place) -> Step {
    USUAL.in_scratch(place, &format!(r#"mkfifo f && "$@" storm flood 4 {} 0<>f"#, slower(place)))
}

/// A sandbox over a descriptor that keeps whoever writes to it: more programs do than there are workers and spare ones.
fn stubborn(place: &Place, options: &[&str]) -> Step {
    beside(place, "stubborn", options, &["storm", "kept", "6", slower(place)])
}

/// A sandbox with a file that nobody can read, and a program for each way to wait for it: all at once where there are as many
/// CPUs, some and those that wait for a place elsewhere.
fn silent(place: &Place, options: &[&str]) -> Step {
    beside(place, "silent", options, &["storm", "silence", "20", slower(place)])
}

/// Whether this user can make such a file here.
fn has_silence() -> bool {
    rustix::process::geteuid().is_root() && std::fs::File::open("/dev/fuse").is_ok()
}

/// The `hold` program in a sandbox with options, beside another one outside that does something.
fn beside(place: &Place, what: &str, options: &[&str], words: &[&str]) -> Step {
    let hold = place.program("hold");
    let outside = [&hold, "cage", SECONDS, MIB, TASKS, &hold, what, &place.pillbox, "do"];
    let sandbox = ["--platform", &place.platform];
    let words = [&outside[..], &sandbox, options, &["--", &hold], words].concat();
    Step::new(words.into_iter().map(str::to_owned)).timeout(TIMEOUT)
}

/// How many times slower than a usual machine with nothing else to do it may be there. An emulated one takes 100 to 400 ms
/// natively to tear down what `areas` and `timers` make; attacks that work freeze it for seconds, or for ever.
fn slower(place: &Place) -> &'static str {
    if place.emulated() { "8" } else { "3" }
}

fn core(place: &Place) -> Step {
    USUAL.in_scratch(place, r#"ulimit -c unlimited; "$@" core && echo files: *"#)
}

/// What [`core`] says: `*` is itself where there is nothing.
const CORE: &str = "killed: true\nfiles: *\n";

fn appending(place: &Place) -> Step {
    USUAL.in_scratch(place, r#"echo before >log; "$@" log >>log; echo "status $?"; cat log"#)
}

/// What [`appending`] says.
const LOG: &str = "status 0\nbefore\nEPERM EPERM EPERM\nafter\n";

/// A sandbox with the limit that it finds in its cage, and somebody else in there.
fn beside_a_decoy(place: &Place) -> Step {
    let hold = place.program("hold");
    let outside = [&hold, "cage", SECONDS, MIB, TASKS, &hold, "decoy", "200"];
    let inside = [&place.pillbox, "do", "--platform", &place.platform, "--", &hold, "memory"];
    Step::new(outside.into_iter().chain(inside).map(str::to_owned)).timeout(TIMEOUT)
}

/// The child was killed by the sandbox, with a line that names it; and by nobody else.
fn bombed(got: &Outcome) -> Result<(), String> {
    succeeds(got)?;
    let said = String::from_utf8_lossy(&got.stdout);
    if !said.starts_with("the bomb: killed by 9\nanother one: exited 0\n") {
        return Err(format!("it says {said:?}"));
    }
    let errors = errors(got);
    let lines: Vec<&str> = errors.lines().filter(|line| line.starts_with("pillbox: ")).collect();
    let expected = |line: &str| line.starts_with("pillbox: out of memory: killed process 2 (hold), ");
    if lines.len() == 1 && expected(lines[0]) { Ok(()) } else { Err(format!("it tells {lines:?}")) }
}

/// What the program says behind how many there were.
const ZOMBIES: &str = "zombies count: true; another one afterwards: true\n";

fn says(got: &Outcome, first: &str, rest: &str) -> Result<(), String> {
    let said = String::from_utf8_lossy(&got.stdout);
    if said == format!("{first}{rest}") { succeeds(got) } else { Err(format!("it says {said:?}")) }
}

/// The program says so, and the sandbox says nothing.
pub(super) fn harmless(got: &Outcome) -> Result<(), String> {
    succeeds(got)?;
    if errors(got).contains("pillbox: ") { Err("the sandbox complains".to_owned()) } else { Ok(()) }
}
