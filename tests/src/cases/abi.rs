//! The `abi` program's families: what each system call does, natively and in the sandbox.

use super::{Case, Place, TIMEOUT, ends_well};
use crate::guest::{Outcome, Step};

/// The program's families, as `abi --families` prints them: the program does not build with others.
pub const FAMILIES: &[&str] = &[
    "process",
    "signals",
    "jobs",
    "terminals",
    "exceptions",
    "instructions",
    "registers",
    "frames",
    "code",
    "calls",
    "hostile",
    "windows",
    "memory",
    "files",
    "busy",
    "filelocks",
    "details",
    "names",
    "races",
    "pipes",
    "events",
    "epoll",
    "sigio",
    "splice",
    "inet",
    "netlink",
    "inotify",
    "sockets",
    "sysvipc",
    "mqueue",
    "threads",
    "locks",
    "time",
    "vdso",
    "limits",
    "credentials",
    "setid",
    "peek",
    "ptrace",
    "coredump",
    "seccomp",
    "proc",
    "misc",
    "controls",
    "options",
    "recent",
    "timers",
    "mounts",
    "namespaces",
    "users",
    "cgroups",
];

/// One case per family: the program says the same in both worlds.
pub fn abi(place: &Place) -> Vec<Case> {
    let machine: &[&str] = if place.platform == "kvm" { &["machine"] } else { &[] };
    families(place, &[FAMILIES, machine].concat())
}

/// What works alike on a directory of the host that is written through. (The others either need no files, or make devices, or
/// execute set-id programs, which a volume has none of.)
const ON_A_VOLUME: &[&str] =
    &["files", "busy", "filelocks", "names", "races", "memory", "splice", "sockets", "pipes", "mounts"];

/// These families with /tmp, where they work, written through.
pub(super) fn on_a_volume(place: &Place) -> Vec<Case> {
    let program = place.program("abi");
    let case = |family: &&str| {
        let command = [program.as_str(), "--family", family];
        let options = ["do", "--platform", &place.platform, "-v", "/tmp:/tmp", "--"];
        let native = Step::new(command).timeout(TIMEOUT);
        let name = format!("system calls on a volume: {family}");
        super::compared(&name, native, place.pillbox(&options, &command), |native| {
            ends_well(native).and_then(|()| every_case_ended(native))
        })
    };
    // What the host makes of it does not depend on the platform.
    let families = if place.emulated() { &["files", "memory"] } else { ON_A_VOLUME };
    families.iter().map(case).collect()
}

/// The same of some families.
pub(super) fn families(place: &Place, families: &[&str]) -> Vec<Case> {
    let program = place.program("abi");
    let case = |family: &&str| {
        let command = [&program, "--family", family];
        place.compared(&format!("system calls: {family}"), &command, |native| {
            ends_well(native).and_then(|()| every_case_ended(native))
        })
    };
    families.iter().map(case).collect()
}

/// Two cases that die alike are not the same: the program says so of each that does not end by itself.
fn every_case_ended(native: &Outcome) -> Result<(), String> {
    let said = String::from_utf8_lossy(&native.stdout);
    let died = |line: &&str| line.starts_with("== exited") || line.starts_with("== killed");
    said.lines().find(died).map_or(Ok(()), |line| Err(format!("natively a case ends with {line:?}")))
}

#[cfg(test)]
mod tests {
    use super::every_case_ended;
    use crate::guest::Outcome;

    #[test]
    fn a_case_that_dies_natively_is_no_comparison() {
        let said = |text: &str| Outcome { stdout: text.into(), stderr: Vec::new(), status: 0 };
        assert!(every_case_ended(&said("== signal_pipe\nwrite: EPIPE\n")).is_ok());
        assert!(every_case_ended(&said("== signal_pipe\n== killed by 13\n")).is_err());
        assert!(every_case_ended(&said("== signal_pipe\n== exited 101\n")).is_err());
    }
}
