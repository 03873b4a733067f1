//! What is checked of a running sandbox: cases that are the same wherever one runs.
//!
//! A [`Case`] is a few command lines and a judgement over what they did. Most compare: the same program
//! natively and in the sandbox, on the same kernel, in the same boot. A [`Place`] says how to start the
//! sandbox there; [`Place::run_here`] runs cases on this machine, [`run_in_guest`] in a nested guest.

mod abi;
mod basics;
mod containers;
mod fuzz;
mod hold;
mod jail;
mod neighbours;
mod outside;
mod platform;
mod runtimes;

use std::time::{Duration, Instant};

use crate::arch::Arch;
use crate::guest::{Guest, Outcome, Step};
use crate::local;

pub use abi::{FAMILIES, abi};
pub use basics::{SCRIPT, SCRIPT_TEXT, anywhere, debian, here, small, smoke};
pub use containers::containers;
pub use fuzz::{Fuzz, fuzz};
pub use hold::hold;
pub use jail::jail;
pub use neighbours::neighbours;
pub use outside::{idle, killed, without_kvm};
pub use platform::{exact_clocks, platform};
pub use runtimes::{compile_sanitized, engines, sanitized};

/// Judges the outcomes of a case's steps; `Err` says what is wrong.
pub type Check = Box<dyn Fn(&[Outcome]) -> Result<(), String>>;

/// Judges one outcome.
type Judgement = fn(&Outcome) -> Result<(), String>;

/// One thing that must hold.
pub struct Case {
    /// What holds, in a few words.
    pub name: String,
    /// What to run for it.
    pub steps: Vec<Step>,
    /// Whether it holds.
    pub check: Check,
}

/// How a sandbox is started where the cases run.
#[derive(Clone, Debug)]
pub struct Place {
    /// Path of the `pillbox` executable there.
    pub pillbox: String,
    /// The platform to test.
    pub platform: String,
    /// The machine's architecture.
    pub arch: Arch,
    /// Directory of our own test programs there.
    pub programs: String,
}

/// How long a step may take unless it says otherwise, in seconds of its machine's clock. None takes a tenth of that, but
/// machines are busy.
const TIMEOUT: u64 = 300;

impl Place {
    /// A step that runs `command` in the sandbox.
    pub fn sandboxed<S: AsRef<str>>(&self, command: &[S]) -> Step {
        self.pillbox(&["do", "--platform", &self.platform, "--"], command)
    }

    /// A step that runs pillbox with these arguments in front of a command.
    pub fn pillbox<S: AsRef<str>>(&self, arguments: &[&str], command: &[S]) -> Step {
        let first = [self.pillbox.as_str()].into_iter().chain(arguments.iter().copied());
        Step::new(first.chain(command.iter().map(AsRef::as_ref))).timeout(TIMEOUT)
    }

    /// Whether it is a nested guest.
    pub fn emulated(&self) -> bool {
        self.programs == "/bin"
    }

    /// A shell there.
    pub fn shell(&self) -> Vec<&'static str> {
        // The guests have busybox only.
        if self.emulated() { vec!["/bin/busybox", "sh"] } else { vec!["/bin/sh"] }
    }

    /// The path of one of our own test programs.
    pub fn program(&self, name: &str) -> String {
        format!("{}/{name}", self.programs)
    }

    /// A case that holds if `command` ends well natively, and writes and returns the same in the sandbox.
    pub fn same<S: AsRef<str>>(&self, name: &str, command: &[S]) -> Case {
        self.compared(name, command, ends_well)
    }

    /// The same of a command whose failure is the point.
    pub fn same_failure<S: AsRef<str>>(&self, name: &str, command: &[S]) -> Case {
        self.compared(name, command, |native| match native.status {
            0 => Err("natively it does not fail".to_owned()),
            _ => Ok(()),
        })
    }

    fn compared<S: AsRef<str>>(&self, name: &str, command: &[S], as_it_should: Judgement) -> Case {
        let native = Step::new(command.iter().map(|s| s.as_ref().to_owned())).timeout(TIMEOUT);
        Case {
            name: name.to_owned(),
            steps: vec![native, self.sandboxed(command)],
            check: Box::new(move |outcomes| match outcomes {
                [native, ours] => as_it_should(native).and_then(|()| same(native, ours)),
                _ => Err("not run".to_owned()),
            }),
        }
    }

    /// A case that holds if `command` in the sandbox writes exactly `stdout` and returns `status`.
    pub fn gives<S: AsRef<str>>(&self, name: &str, command: &[S], stdout: &str, status: i32) -> Case {
        gives(name, self.sandboxed(command), stdout, status)
    }

    /// Runs the steps of `cases` on this machine, one by one, until `deadline`.
    pub fn run_here(
        &self,
        cases: &[Case],
        deadline: Instant,
        mut judged: impl FnMut(&Case, Result<(), String>),
    ) {
        for case in cases {
            let run = |step: &Step| {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(NO_TIME.to_owned());
                }
                local::run(step, left.min(Duration::from_secs(step.timeout.unwrap_or(TIMEOUT))))
            };
            let outcomes: Result<Vec<_>, _> = case.steps.iter().map(run).collect();
            judged(case, outcomes.and_then(|outcomes| (case.check)(&outcomes)));
        }
    }
}

/// A case that holds if `step` writes exactly `stdout` and returns `status`.
fn gives(name: &str, step: Step, stdout: &str, status: i32) -> Case {
    let want = Outcome { stdout: stdout.as_bytes().to_vec(), stderr: Vec::new(), status };
    case(name, step, move |got| differs(&want, got))
}

/// A case that holds if `check` finds nothing wrong with what `step` did. If it does, what the step complained of is told.
fn case(name: &str, step: Step, check: impl Fn(&Outcome) -> Result<(), String> + 'static) -> Case {
    Case {
        name: name.to_owned(),
        steps: vec![step],
        check: Box::new(move |outcomes| match outcomes {
            [got] => check(got).map_err(|why| format!("{why}; its errors:\n    {}", errors(got))),
            _ => Err("not run".to_owned()),
        }),
    }
}

/// The first lines that a step wrote on standard error.
fn errors(got: &Outcome) -> String {
    String::from_utf8_lossy(&got.stderr).lines().take(8).collect::<Vec<_>>().join("\n    ")
}

/// Nothing but success is right.
fn succeeds(got: &Outcome) -> Result<(), String> {
    if got.status == 0 { Ok(()) } else { Err(format!("status {}", got.status)) }
}

/// Compares status and standard output; the text of errors may differ.
pub(crate) fn same(want: &Outcome, got: &Outcome) -> Result<(), String> {
    differs(want, got).map_err(|why| format!("{why}; its errors:\n    {}", errors(got)))
}

/// What is compared with must have worked: two failures that are alike prove nothing.
fn ends_well(native: &Outcome) -> Result<(), String> {
    succeeds(native).map_err(|why| format!("natively: {why}; its errors:\n    {}", errors(native)))
}

fn differs(want: &Outcome, got: &Outcome) -> Result<(), String> {
    if (want.status, &want.stdout) == (got.status, &got.stdout) {
        return Ok(());
    }
    let difference = first_difference(&want.stdout, &got.stdout);
    Err(format!("status {} instead of {}; {difference}", got.status, want.status))
}

fn first_difference(want: &[u8], got: &[u8]) -> String {
    let (want, got) = (String::from_utf8_lossy(want), String::from_utf8_lossy(got));
    let (mut left, mut right) = (want.lines(), got.lines());
    for line in 1.. {
        let (want, got) = (left.next(), right.next());
        if want.is_none() && got.is_none() {
            break;
        }
        if want != got {
            let shown = |line: Option<&str>| line.map_or("nothing".to_owned(), |line| format!("{line:?}"));
            return format!("line {line} is {} instead of {}", shown(got), shown(want));
        }
    }
    "the output is the same".to_owned()
}

/// Why a case was not run that had no time left.
const NO_TIME: &str = "there was no time left for it";

/// Runs the cases in guests like this one, until `deadline`. A guest that dies fails the case it died in; the next case
/// gets a new boot.
pub fn run_in_guest(
    mut guest: Guest,
    cases: &[Case],
    deadline: Instant,
    mut judged: impl FnMut(&Case, Result<(), String>),
) {
    let mut rest = cases;
    while !rest.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            rest.iter().for_each(|case| judged(case, Err(NO_TIME.to_owned())));
            return;
        }
        guest.end_within(left);
        let steps: Vec<Step> = rest.iter().flat_map(|case| case.steps.iter().cloned()).collect();
        let (mut outcomes, ended) = match guest.run(&steps, |_, _| {}) {
            Ok(run) => (run.outcomes, run.ended.map_err(|e| e.to_string())),
            Err(error) => (Vec::new(), Err(error.to_string())),
        };
        let mut done = 0;
        for case in rest {
            if outcomes.len() < case.steps.len() {
                break;
            }
            let own: Vec<Outcome> = outcomes.drain(..case.steps.len()).collect();
            judged(case, (case.check)(&own));
            done += 1;
        }
        if done < rest.len() {
            let why = ended.err().unwrap_or_else(|| "the guest left it out".to_owned());
            judged(&rest[done], Err(why));
            done += 1;
        }
        rest = &rest[done..];
    }
}

/// How long a whole boot with many cases may take.
pub const BOOT_TIMEOUT: Duration = Duration::from_secs(3000);
