//! The `abi` program's families: what each system call does, natively and in the sandbox.

use super::{Case, Place};

/// The program's families, as `abi --families` prints them.
const FAMILIES: &[&str] = &[
    "process",
    "signals",
    "exceptions",
    "instructions",
    "registers",
    "code",
    "calls",
    "hostile",
    "windows",
    "memory",
    "files",
    "busy",
    "names",
    "pipes",
    "events",
    "inotify",
    "sockets",
    "threads",
    "locks",
    "time",
    "vdso",
    "limits",
    "credentials",
    "seccomp",
    "proc",
    "misc",
    "controls",
    "options",
];

/// One case per family: the program says the same in both worlds.
pub fn abi(place: &Place) -> Vec<Case> {
    let machine: &[&str] = if place.platform == "kvm" { &["machine"] } else { &[] };
    families(place, &[FAMILIES, machine].concat())
}

/// The same of some families.
pub(super) fn families(place: &Place, families: &[&str]) -> Vec<Case> {
    let program = place.program("abi");
    let case =
        |family: &&str| place.same(&format!("system calls: {family}"), &[&program, "--family", family]);
    families.iter().map(case).collect()
}
