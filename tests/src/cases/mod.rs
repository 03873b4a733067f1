//! What is checked of a running sandbox: cases that are the same wherever one runs.
//!
//! A [`Case`] is a few command lines and a judgement over what they did. Most compare: the same program
//! natively and in the sandbox, on the same kernel, in the same boot. A [`Place`] says how to start the
//! sandbox there; [`Place::run_here`] runs cases on this machine, [`run_in_guest`] in a nested guest.

mod abi;
mod basics;
mod containers;
mod debuggers;
mod fuzz;
mod hold;
mod jail;
mod neighbours;
mod outside;
mod platform;
mod programs;
mod runtimes;

use std::time::{Duration, Instant};

use crate::arch::Arch;
use crate::guest::{Guest, Outcome, Step};
use crate::local;

pub use abi::{FAMILIES, abi};
pub use basics::{SCRIPT, SCRIPT_TEXT, anywhere, debian, here, small, smoke};
pub use containers::containers;
pub use debuggers::debuggers;
pub use fuzz::{Fuzz, fuzz};
pub use hold::{hold, soak};
pub use jail::jail;
pub use neighbours::neighbours;
pub use outside::{idle, killed, without_kvm};
pub use platform::{exact_clocks, on_another_cpu, on_another_mmu, on_two_cpus, platform};
pub use programs::{PROGRAMS, PROGRAMS_TEXT, programs, programs_in_guest};
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
    /// Whether it holds, by the outcomes of the steps, as often as they were run.
    pub check: Check,
    /// How many more times the steps are run before the case has failed.
    pub more: usize,
}

/// What came of a case.
pub enum Verdict {
    /// It holds.
    Holds,
    /// It holds, but what it is compared with does not always do the same: what differed at first.
    Unsteady(String),
    /// It does not, and why.
    Fails(String),
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

/// What cannot run: its name, and why.
pub type Missing = Vec<(&'static str, String)>;

/// How long a step may take unless it says otherwise, in seconds of its machine's clock. None takes a tenth of that, but
/// machines are busy.
const TIMEOUT: u64 = 300;

/// What took longer than this is not run again to see whether Linux itself does it in several ways: a case that waited in vain
/// four times over took the time of all that follow it.
const AGAIN: Duration = Duration::from_secs(60);

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
        compared(name, native, self.sandboxed(command), as_it_should)
    }

    /// A case that holds if `command` in the sandbox writes exactly `stdout` and returns `status`.
    pub fn gives<S: AsRef<str>>(&self, name: &str, command: &[S], stdout: &str, status: i32) -> Case {
        gives(name, self.sandboxed(command), stdout, status)
    }

    /// Runs the steps of `cases` on this machine, one by one, until `deadline`.
    pub fn run_here(&self, cases: &[Case], deadline: Instant, mut judged: impl FnMut(&Case, Verdict)) {
        let run = |step: &Step| {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NO_TIME.to_owned());
            }
            local::run(step, left.min(Duration::from_secs(step.timeout.unwrap_or(TIMEOUT))))
        };
        let steps = |case: &Case, times: usize| -> Result<Vec<Outcome>, String> {
            (0..times).flat_map(|_| &case.steps).map(run).collect()
        };
        for case in cases {
            let begun = Instant::now();
            let verdict = match steps(case, 1) {
                Err(why) => Verdict::Fails(why),
                Ok(first) => match (case.check)(&first) {
                    Ok(()) => Verdict::Holds,
                    Err(why) if case.more == 0 || begun.elapsed() > AGAIN => Verdict::Fails(why),
                    Err(why) => case.judge_again(why, first, steps(case, case.more)),
                },
            };
            judged(case, verdict);
        }
    }
}

impl Case {
    /// The verdict after the first run was not as it should be.
    fn judge_again(&self, why: String, first: Vec<Outcome>, more: Result<Vec<Outcome>, String>) -> Verdict {
        match more.and_then(|more| (self.check)(&[first, more].concat())) {
            Ok(()) => Verdict::Unsteady(why),
            Err(again) if again == why => Verdict::Fails(why),
            Err(again) => Verdict::Fails(format!("{why}; with {} more runs: {again}", self.more)),
        }
    }
}

/// A case that holds if `native` ends as it should and `ours` does the same.
///
/// There are things that Linux itself does in one way or another (an interrupt that an emulated machine delivers late).
/// So where the two differ, both run three times more: all that the sandbox did must be what Linux did at least once.
/// Where Linux always does the same, that is no more than the first comparison asked for.
fn compared(name: &str, native: Step, ours: Step, as_it_should: Judgement) -> Case {
    Case {
        name: name.to_owned(),
        steps: vec![native, ours],
        check: Box::new(move |outcomes| compare(outcomes, as_it_should)),
        more: 3,
    }
}

/// Judges what `native, ours` did, run once or more.
fn compare(outcomes: &[Outcome], as_it_should: Judgement) -> Result<(), String> {
    let (pairs, []) = outcomes.as_chunks::<2>() else { return Err("not run".to_owned()) };
    let judged: Vec<_> = pairs.iter().map(|[native, _]| as_it_should(native).map(|()| native)).collect();
    let natives: Vec<&Outcome> = judged.iter().flatten().copied().collect();
    let Some(&one) = natives.first() else {
        return judged.into_iter().next().unwrap_or_else(|| Err("not run".to_owned())).map(drop);
    };
    for [native, ours] in pairs {
        if natives.iter().all(|native| same(native, ours).is_err()) {
            return same(if as_it_should(native).is_ok() { native } else { one }, ours);
        }
    }
    Ok(())
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
        more: 0,
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
/// gets a new boot. So do those that are to be run again.
pub fn run_in_guest(
    mut guest: Guest,
    cases: &[Case],
    deadline: Instant,
    mut judged: impl FnMut(&Case, Verdict),
) {
    let mut again = Vec::new();
    let all: Vec<&Case> = cases.iter().collect();
    run_times(&mut guest, &all, 1, deadline, |case, outcomes, took| {
        let verdict = outcomes.and_then(|outcomes| {
            let verdict = (case.check)(&outcomes);
            if let (Err(why), true) = (&verdict, case.more > 0 && took <= AGAIN) {
                again.push((case, why.clone(), outcomes));
                return Ok(None);
            }
            verdict.map(Some)
        });
        match verdict {
            Ok(Some(())) => judged(case, Verdict::Holds),
            Ok(None) => {}
            Err(why) => judged(case, Verdict::Fails(why)),
        }
    });
    for (case, why, first) in again {
        run_times(&mut guest, &[case], case.more, deadline, |case, more, _| {
            judged(case, case.judge_again(why.clone(), first.clone(), more));
        });
    }
}

/// Runs the steps of each case so many times. Says of each what came of it, and how long it took.
fn run_times<'a>(
    guest: &mut Guest,
    cases: &[&'a Case],
    times: usize,
    deadline: Instant,
    mut done: impl FnMut(&'a Case, Result<Vec<Outcome>, String>, Duration),
) {
    let mut rest = cases;
    while !rest.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            rest.iter().for_each(|case| done(case, Err(NO_TIME.to_owned()), Duration::ZERO));
            return;
        }
        guest.end_within(left);
        let repeated = |case: &&'a Case| (0..times).flat_map(|_| case.steps.clone()).collect::<Vec<_>>();
        let steps: Vec<Step> = rest.iter().flat_map(repeated).collect();
        // When each step was last heard of.
        let mut heard = vec![None; steps.len()];
        let run = guest.run(&steps, |step, _| {
            if let Some(heard) = heard.get_mut(step) {
                *heard = Some(Instant::now());
            }
        });
        let (mut outcomes, ended) = match run {
            Ok(run) => (run.outcomes, run.ended.map_err(|e| e.to_string())),
            Err(error) => (Vec::new(), Err(error.to_string())),
        };
        let (mut reached, mut heard) = (0, heard.into_iter());
        let mut before: Option<Instant> = None;
        for case in rest {
            let own = case.steps.len() * times;
            if outcomes.len() < own {
                break;
            }
            let last = heard.by_ref().take(own).flatten().last();
            let took = before.zip(last).map_or(Duration::ZERO, |(before, last)| last - before);
            before = last.or(before);
            done(case, Ok(outcomes.drain(..own).collect()), took);
            reached += 1;
        }
        rest = match rest.get(reached..) {
            Some([died, others @ ..]) => {
                let why = ended.err().unwrap_or_else(|| "the guest left it out".to_owned());
                done(died, Err(why), Duration::ZERO);
                others
            }
            _ => &[],
        };
    }
}

/// How long a whole boot with many cases may take.
pub const BOOT_TIMEOUT: Duration = Duration::from_secs(3000);

#[cfg(test)]
mod tests {
    use super::{compare, compared, ends_well};
    use crate::guest::{Outcome, Step};

    fn outcomes(said: &[&str]) -> Vec<Outcome> {
        let outcome =
            |text: &&str| Outcome { stdout: text.as_bytes().to_vec(), stderr: Vec::new(), status: 0 };
        said.iter().map(outcome).collect()
    }

    #[test]
    fn what_linux_does_in_two_ways_is_accepted_in_both_and_nothing_else() {
        let holds = |said: &[&str]| compare(&outcomes(said), ends_well).is_ok();
        assert!(holds(&["one", "one"]));
        assert!(!holds(&["one", "two"]));
        assert!(holds(&["one", "two", "two", "two", "two", "one"]));
        // Linux always does the same: that we did so later is not enough.
        assert!(!holds(&["one", "two", "one", "one", "one", "one"]));
        assert!(!holds(&["one", "two", "two", "three"]));
        assert!(!holds(&[]) && !holds(&["one"]));
    }

    #[test]
    fn what_does_not_end_well_natively_is_no_comparison() {
        let mut run = outcomes(&["one", "one"]);
        run[0].status = 1;
        assert!(compare(&run, ends_well).is_err());
        run.extend(outcomes(&["one", "one"]));
        assert!(compare(&run, ends_well).is_ok());
        run[0].stdout = b"two".to_vec();
        run[1].stdout = b"two".to_vec();
        assert!(compare(&run, ends_well).is_err(), "it was done only by one that failed");
    }

    #[test]
    fn a_comparison_that_fails_is_told_with_the_difference() {
        let case = compared("", Step::default(), Step::default(), ends_well);
        let why = (case.check)(&outcomes(&["a\nb", "a\nc"])).unwrap_err();
        assert!(why.contains("line 2 is \"c\" instead of \"b\""), "{why}");
    }
}
