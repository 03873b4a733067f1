//! The kvm platform from outside: its self-test, what a crash in ring 0 looks like, and that the hot paths
//! leave the VM alone.

use super::{Case, Place};
use crate::guest::{Outcome, Step};

/// Operations that a sandbox serves without leaving the VM.
const EXIT_FREE: &[&str] = &["null", "read", "pipe", "futex", "mmap", "fault", "thread", "signal"];
/// Exits to the host loop per operation that count as none: a timer may fire.
const NO_EXITS: f64 = 0.001;

/// Cases for the platform itself, where it is kvm.
pub fn platform(place: &Place) -> Vec<Case> {
    let crash = |how: &str| place.pillbox(&["self-test", "--crash", how], &[] as &[&str]);
    let mut cases = vec![
        case("the platform's self-test", place.pillbox(&["self-test"], &[] as &[&str]), |got| {
            let text = String::from_utf8_lossy(&got.stdout);
            match got.status {
                0 => Ok(()),
                status => Err(format!("status {status}: {text}")),
            }
        }),
        case("a null read in ring 0 is an ordinary SIGSEGV", crash("null"), died_of_sigsegv),
        case("a kernel stack that overflows is an ordinary SIGSEGV", crash("overflow"), died_of_sigsegv),
        case("a panic in ring 0 is caught", crash("panic"), |got| match got.status {
            0 => Ok(()),
            status => Err(format!("status {status}: {}", errors(got))),
        }),
    ];
    for name in EXIT_FREE {
        let step = place.pillbox(&["bench", "--json", name], &[] as &[&str]);
        cases.push(case(&format!("mb {name} makes no exits"), step, no_exits));
    }
    cases
}

fn case(name: &str, step: Step, check: impl Fn(&Outcome) -> Result<(), String> + 'static) -> Case {
    Case {
        name: name.to_owned(),
        steps: vec![step],
        check: Box::new(move |outcomes| match outcomes {
            [got] => check(got),
            _ => Err("not run".to_owned()),
        }),
    }
}

fn errors(got: &Outcome) -> String {
    String::from_utf8_lossy(&got.stderr).lines().take(8).collect::<Vec<_>>().join("\n    ")
}

/// The handler names signal, address and return addresses, and ends the sandbox with a status of ours.
fn died_of_sigsegv(got: &Outcome) -> Result<(), String> {
    const OURS: i32 = 125;
    let text = errors(got);
    let told = ["SIGSEGV at address 0x", "\n      from 0x"].iter().all(|part| text.contains(part));
    if got.status == OURS && told { Ok(()) } else { Err(format!("status {}: {text}", got.status)) }
}

fn no_exits(got: &Outcome) -> Result<(), String> {
    if got.status != 0 {
        return Err(format!("status {}: {}", got.status, errors(got)));
    }
    let row: serde_json::Value = serde_json::from_slice(&got.stdout).map_err(|e| e.to_string())?;
    let exits = |reason: &str| row["exits"][reason].as_f64().unwrap_or(0.0);
    match exits("KVM_RUN").max(exits("drops to native")) {
        few if few <= NO_EXITS => Ok(()),
        _ => Err(format!("exits per operation: {}", row["exits"])),
    }
}
