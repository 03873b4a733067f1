//! Sandboxes and others on the network: what comes in, and what goes out. In network namespaces of this machine's, for which
//! it takes root, iproute2 and Python.

use super::{Case, Place, TIMEOUT, case, succeeds};
use crate::guest::Step;
use crate::packages::workspace_root;
use std::process::{Command, Stdio};

/// What there is: the name in `neighbours.py`, and what holds.
const CASES: &[(&str, &str)] = &[
    ("listeners", "listeners are reached from outside, and not from the host itself"),
    ("ports", "a port of a wildcard address is free on both sides"),
    ("published", "published ports lead inside"),
    ("resolvers", "names are found by a resolver that stands for the host's"),
    ("rules", "rules about who may be talked to hold, and each way that they close is one without them"),
    ("rebinding", "names whose addresses change, and floods of names"),
    ("logged", "connections are in the log; the host's own loopback, if it is asked for"),
];

/// The cases, or why there are none here.
///
/// # Errors
/// What is missing.
pub fn neighbours(place: &Place) -> Result<Vec<Case>, String> {
    for (program, version) in [("unshare", "--version"), ("ip", "-V"), ("python3", "--version")] {
        let found = Command::new(program).arg(version).stdin(Stdio::null()).output();
        found.map_err(|_| format!("there is no {program}"))?;
    }
    let trial = Command::new("unshare").args(["-mn", "ip", "link", "set", "lo", "up"]).output();
    if !trial.is_ok_and(|output| output.status.success()) {
        return Err("network namespaces take a privilege of root".to_owned());
    }
    let script = workspace_root().join("tests/src/cases/neighbours.py");
    let script = script.to_string_lossy();
    let words = ["unshare", "-mn", "--fork", "python3", &script, &place.pillbox, &place.platform];
    Ok(CASES
        .iter()
        .map(|(name, what)| {
            let step = Step::new(words.iter().copied().chain([*name])).timeout(TIMEOUT);
            case(&format!("network: {what}"), step, succeeds)
        })
        .collect())
}
