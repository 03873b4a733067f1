//! Sandboxes seen from outside: idle ones, killed ones, and machines whose /dev/kvm is none.

use super::{Case, Place, TIMEOUT, case, succeeds};
use crate::guest::{Outcome, Step};

/// How long an idle sandbox is watched, in seconds.
const WATCHED: &str = "10";

/// `probe` on a whole `pillbox do`.
fn probe(place: &Place, how: &[&str], command: &[&str]) -> Step {
    let probe = place.program("probe");
    let sandbox = [&place.pillbox, "do", "--platform", &place.platform, "--"];
    let words = [probe.as_str()].into_iter().chain(how.iter().copied()).chain(sandbox);
    Step::new(words.chain(command.iter().copied())).timeout(TIMEOUT * 2)
}

/// Nothing of an idle sandbox runs, whatever it waits for.
pub fn idle(place: &Place) -> Vec<Case> {
    let (sh, events) = (place.shell(), place.program("probe"));
    let sleeping = [sh.as_slice(), &["-c", "sleep 600; exit 1"]].concat();
    let reading = [sh.as_slice(), &["-c", "read line; exit 1"]].concat();
    let waits: [(&str, &[&str]); 3] =
        [("sleep", &sleeping), ("a blocked read", &reading), ("an event loop", &[&events, "events"])];
    waits
        .into_iter()
        .map(|(name, command)| {
            let step = probe(place, &["idle", WATCHED], command);
            case(&format!("idle in {name}: no context switches"), step, succeeds)
        })
        .collect()
}

/// Whichever process of a sandbox is killed, none is left, and the caller learns of it.
pub fn killed(place: &Place) -> Vec<Case> {
    let sh = place.shell();
    let command = [sh.as_slice(), &["-c", "sleep 600; exit $?"]].concat();
    vec![case("each process of a sandbox killed in turn", probe(place, &["kill"], &command), succeeds)]
}

/// What `doctor`, `--platform=auto` and `--platform=kvm` make of devices that are no KVM.
pub fn without_kvm(place: &Place) -> Vec<Case> {
    let doctor = |device: &str| place.pillbox(&["doctor", "--json", "--kvm-device", device], &[] as &[&str]);
    let run = |platform: &str, device: &str| {
        place.pillbox(&["do", "--platform", platform, "--kvm-device", device, "--"], &["/bin/true"])
    };
    let hang = Step::new([
        place.program("probe").as_str(),
        "hang",
        &place.pillbox,
        "doctor",
        "--json",
        "--kvm-device",
        "{}",
    ]);
    let verdict = Step::new([place.program("probe").as_str(), "verdict", &place.pillbox]);
    let permission = Step::new([place.program("probe").as_str(), "permission", &place.pillbox]);
    let mut cases = vec![
        case("doctor ends in time beside a device that hangs", hang.timeout(TIMEOUT), |got| {
            succeeds(got)?;
            rejected(got, "did not end")
        }),
        case("a verdict is kept, and only our own is believed", verdict.timeout(TIMEOUT), succeeds),
        case("a device that is closed to the user", permission.timeout(TIMEOUT), succeeds),
        case("auto without a device says nothing", run("auto", "/dev/no-such-device"), |got| {
            succeeds(got)?;
            if got.stderr.is_empty() { Ok(()) } else { Err("it says something".to_owned()) }
        }),
    ];
    for (what, device, reason) in [
        ("a device that is no KVM", "/dev/null", "self-test"),
        ("a directory", "/", "EISDIR"),
        ("a file", "/etc/passwd", "self-test"),
    ] {
        let check = move |got: &Outcome| succeeds(got).and_then(|()| rejected(got, reason));
        cases.push(case(&format!("doctor rejects {what}"), doctor(device), check));
    }
    let absent = |got: &Outcome| succeeds(got).and_then(|()| rejected(got, "does not exist"));
    cases.push(case("doctor says that there is no device", doctor("/dev/no-such-device"), absent));
    for (what, device) in [("no device", "/dev/no-such-device"), ("another device", "/dev/null")] {
        cases.push(case(
            &format!("--platform=kvm with {what} is an error"),
            run("kvm", device),
            move |got| match got.status {
                125 => one_line(got, &["kvm", device]),
                status => Err(format!("status {status}")),
            },
        ));
    }
    cases
}

/// One line on standard error, with all of these in it.
fn one_line(got: &Outcome, parts: &[&str]) -> Result<(), String> {
    let text = String::from_utf8_lossy(&got.stderr);
    let missing: Vec<_> = parts.iter().filter(|part| !text.contains(**part)).collect();
    match text.lines().count() {
        1 if missing.is_empty() => Ok(()),
        1 => Err(format!("{missing:?} is missing")),
        lines => Err(format!("{lines} lines")),
    }
}

/// The report says that kvm cannot be used and why, what to do, and that systrap would be.
fn rejected(got: &Outcome, reason: &str) -> Result<(), String> {
    let report: serde_json::Value = serde_json::from_slice(&got.stdout).map_err(|e| e.to_string())?;
    let platforms = report["platforms"].as_array().ok_or("no platforms")?;
    let named = |name: &str| platforms.iter().find(|platform| platform["name"] == name);
    let (kvm, systrap) = (named("kvm").ok_or("no kvm")?, named("systrap").ok_or("no systrap")?);
    let said = kvm["reason"].as_str().unwrap_or_default();
    let holds = kvm["usable"] == false
        && said.contains(reason)
        && kvm["advice"].as_str().is_some_and(|advice| !advice.is_empty())
        && systrap["usable"] == true
        && report["auto"] == "systrap";
    if holds { Ok(()) } else { Err(format!("kvm: {kvm}; auto: {}", report["auto"])) }
}
