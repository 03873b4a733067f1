//! Rules of the source tree that the compiler does not check.
//!
//! A rule is a function from a [`Tree`] to what is wrong with it. Each is applied twice: to this tree, where it must find
//! nothing, and to this tree with a violation planted in it, which it must find: a check that cannot fail holds nothing.
//! Every exception is written down in [`exceptions`], and an exception that is not needed any more is a complaint too.

mod exceptions;
mod rules;
mod tree;

use tree::Tree;

/// A rule: what is wrong with a tree, one complaint each.
type Rule = fn(&Tree) -> Vec<String>;

/// A violation: what is appended to which file, and what the complaint about it says.
type Planted = (&'static str, &'static str, &'static str);

/// Applies `rule` to the tree as it is and with each violation planted.
fn holds(rule: Rule, planted: &[Planted]) {
    let tree = Tree::read();
    let wrong = rule(&tree);
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (path, text, complaint) in planted {
        let found = rule(&tree.planted(path, text));
        let seen = found.iter().any(|line| line.contains(complaint));
        assert!(seen, "planted in {path} and not seen: {text:?}; complaints: {found:#?}");
    }
}

#[test]
fn files_are_short() {
    let long: &'static str = Box::leak("// a line\n".repeat(501).into_boxed_str());
    holds(rules::files_are_short, &[("host/src/new.rs", long, "host/src/new.rs has 501 lines")]);
}

#[test]
fn functions_are_short() {
    let body = "    call();\n".repeat(80);
    let long: &'static str = Box::leak(format!("\nfn sprawling() {{\n{body}}}\n").into_boxed_str());
    holds(rules::functions_are_short, &[("host/src/vfs/path.rs", long, "sprawling has 82 lines")]);
}

#[test]
fn layers_depend_downward() {
    holds(
        rules::layers_depend_downward,
        &[
            ("host/src/mm/mod.rs", "\nuse crate::kernel::Task;\n", "mm/mod.rs uses crate::kernel"),
            ("host/src/mm/mod.rs", "\nuse crate::{abi, kernel::Task};\n", "mm/mod.rs uses crate::kernel"),
            ("host/src/vfs/path.rs", "\nuse super::super::kernel::Task;\n", "vfs/path.rs uses crate::kernel"),
            ("host/src/mm/mod.rs", "\nfn f() { log!(crate::kernel::x()) }\n", "mm/mod.rs uses crate::kernel"),
            // Behind a module of tests: rules once stopped reading there.
            (
                "host/src/mm/frames.rs",
                "\n#[cfg(test)]\nmod t {}\nuse crate::kernel::Task;\n",
                "mm/frames.rs uses crate::kernel",
            ),
        ],
    );
}

#[test]
fn only_hostsys_calls_libc() {
    holds(
        rules::only_hostsys_calls_libc,
        &[
            ("host/src/vfs/path.rs", "\nfn f() { libc::getpid(); }\n", "vfs/path.rs calls libc::getpid"),
            ("host/src/vfs/path.rs", "\nuse libc::{getpid};\n", "vfs/path.rs imports libc::getpid"),
            ("host/src/vfs/path.rs", "\nuse libc::getpid as who;\n", "vfs/path.rs imports libc::getpid"),
            ("host/src/vfs/path.rs", "\nuse libc as c;\n", "vfs/path.rs renames libc"),
            (
                "host/src/vfs/path.rs",
                "\n#[cfg(test)]\nmod t {}\nfn f() { libc::getpid(); }\n",
                "libc::getpid",
            ),
        ],
    );
}

#[test]
fn descriptors_have_one_owner() {
    holds(
        rules::descriptors_have_one_owner,
        &[
            ("host/src/vfs/path.rs", "\nuse std::os::fd::OwnedFd;\n", "vfs/path.rs names OwnedFd"),
            (
                "host/src/vfs/path.rs",
                "\nfn f(x: &X) -> i32 { std::os::fd::AsRawFd::as_raw_fd(x) }\n",
                "vfs/path.rs names AsRawFd",
            ),
            ("host/src/vfs/path.rs", "\nuse std::{fs, io};\n", "vfs/path.rs uses std::fs"),
            ("host/src/vfs/path.rs", "\nfn f() { std::fs::read(\"/a\"); }\n", "vfs/path.rs uses std::fs"),
            (
                "host/src/vfs/path.rs",
                "\nfn f() { crate::hostsys::file::openat(0, b\"\", 0, w); }\n",
                "vfs/path.rs uses file::openat",
            ),
            ("host/src/vfs/path.rs", "\nuse crate::hostsys::file::{self, openat};\n", "uses file::openat"),
            ("host/src/vfs/path.rs", "\nfn f() { rustix::fs::open(x); }\n", "uses rustix::fs"),
        ],
    );
}

#[test]
fn the_architecture_is_chosen_in_few_places() {
    holds(
        rules::the_architecture_is_chosen_in_few_places,
        &[
            (
                "host/src/vfs/path.rs",
                "\n#[cfg(target_arch = \"x86_64\")]\nfn f() {}\n",
                "vfs/path.rs asks for the architecture",
            ),
            (
                "host/src/vfs/path.rs",
                "\nfn f() -> bool { cfg!(target_arch = \"x86_64\") }\n",
                "vfs/path.rs asks for the architecture",
            ),
            (
                "host/src/vfs/path.rs",
                "\n#[cfg(target_arch = \"x86_64\")]\nmod inner;\n",
                "vfs/path.rs asks for the architecture",
            ),
        ],
    );
}

#[test]
fn unsafe_has_an_address() {
    holds(
        rules::unsafe_has_an_address,
        &[
            (
                "host/src/vfs/mod.rs",
                "\n#[expect(unsafe_code, reason = \"none\")]\n#[cfg(unix)]\nmod planted;\n",
                "host/src/vfs/mod.rs planted",
            ),
            (
                "host/src/vfs/mod.rs",
                "\n#[expect(unsafe_code, reason = \"none\")]\nfn planted() {}\n",
                "host/src/vfs/mod.rs planted",
            ),
        ],
    );
}

#[test]
fn locks_have_ranks() {
    holds(
        rules::locks_have_ranks,
        &[
            ("host/src/vfs/path.rs", "\nuse std::sync::{Arc, Mutex};\n", "vfs/path.rs has a Mutex"),
            ("host/src/vfs/path.rs", "\nstatic A: spin::RwLock<u8> = x();\n", "vfs/path.rs has a RwLock"),
            (
                "host/src/vfs/path.rs",
                "\n#[cfg(test)]\nmod t {}\nfn f() { let _ = std::sync::Condvar::new(); }\n",
                "vfs/path.rs has a Condvar",
            ),
        ],
    );
}

#[test]
fn every_crate_opts_into_the_lints() {
    holds(rules::every_crate_opts_into_the_lints, &[("planted/Cargo.toml", "[package]\n", "planted")]);
}

#[test]
fn nothing_points_outside_the_repository() {
    // Spelled in two parts, or this file would be an offender.
    let cited = concat!("\n// see nowhere/at_all", ".rs\n");
    let place = concat!("\n// see /wo", "rk/main\n");
    holds(
        rules::nothing_points_outside_the_repository,
        &[
            ("host/src/vfs/path.rs", cited, "cites nowhere/at_all.rs"),
            ("README.md", cited, "cites nowhere/at_all.rs"),
            ("host/src/vfs/path.rs", place, "host/src/vfs/path.rs has /wo"),
        ],
    );
}

#[test]
fn unfinished_code_is_not_merged() {
    let planted = concat!("\nfn f() { todo", "!() }\n");
    holds(
        rules::unfinished_code_is_not_merged,
        &[("host/src/vfs/path.rs", planted, "host/src/vfs/path.rs has todo")],
    );
}
