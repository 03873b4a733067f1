//! Rules of the source tree that the compiler does not check.
//!
//! Every exception is written down here. Where a rule counts (lines, `cfg`s, unsafe modules), the test insists that the
//! number is exact: an improvement is to be recorded, so that it stays one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Longest file without an entry in [`LONG`].
const MAX_LINES: usize = 500;

/// Files that are longer, and how long they may be.
const LONG: &[(&str, usize)] = &[
    ("host/src/platform/systrap/process.rs", 660),
    ("host/src/vfs/file.rs", 530),
    ("tests/programs/abi/signals.rs", 590),
];

/// Dependencies against the order of the table in host/src/lib.rs: (from, to, where).
const UPWARD: &[(&str, &str, &str)] = &[
    ("hostsys", "arena", "hostsys/fault.rs"),
    ("kernel", "syscalls", "kernel/run.rs"),
    ("platform", "mm", "platform/selftest/mod.rs"),
];

/// Files outside `hostsys` that call libc functions: threads and signal handlers, which libc itself must set up.
const LIBC_CALLERS: &[&str] = &[
    "arena/heap.rs",
    "arena/thread.rs",
    "platform/kvm/aarch64/emulate.rs",
    "platform/kvm/image.rs",
    "platform/kvm/kick.rs",
    "platform/systrap/aarch64/mod.rs",
    "platform/systrap/x86_64/mod.rs",
];

/// Directories and files of `host` that may ask for the architecture.
const ARCH_AWARE: &[&str] = &["arch/", "abi/", "hostsys/", "platform/", "loader/", "mm/raw.rs"];
/// Others that do.
const ARCH_EXCEPTIONS: &[&str] = &["syscalls/event.rs", "syscalls/mmap.rs"];

/// Modules in which unsafe code is allowed, by the file that declares them.
const UNSAFE_MODULES: &[&str] = &[
    "host/src/arch/mod.rs counter",
    "host/src/arch/sigframe/mod.rs x86_64",
    "host/src/arch/mod.rs tests",
    "host/src/fs/mod.rs hostio",
    "host/src/kernel/mod.rs sched",
    "host/src/lib.rs arena",
    "host/src/lib.rs hostsys",
    "host/src/lib.rs sync",
    "host/src/loader/vdso/mod.rs image",
    "host/src/mm/mod.rs raw",
    "host/src/platform/kvm/mod.rs aarch64",
    "host/src/platform/kvm/mod.rs image",
    "host/src/platform/kvm/mod.rs kick",
    "host/src/platform/kvm/mod.rs machine",
    "host/src/platform/kvm/mod.rs tables",
    "host/src/platform/kvm/mod.rs vcpu",
    "host/src/platform/kvm/mod.rs x86_64",
    "host/src/platform/mod.rs local",
    "host/src/platform/selftest/mod.rs aarch64",
    "host/src/platform/selftest/mod.rs x86_64",
    "host/src/platform/systrap/mod.rs aarch64",
    "host/src/platform/systrap/mod.rs shared",
    "host/src/platform/systrap/mod.rs worker",
    "host/src/platform/systrap/mod.rs x86_64",
    "pagetables/src/lib.rs node",
    "ring0-aarch64/src/lib.rs entry",
    "ring0-aarch64/src/lib.rs stack",
    "ring0-aarch64/src/lib.rs timer",
    "ring0-aarch64/src/lib.rs tlb",
    "ring0-x86_64/src/lib.rs entry",
    "ring0-x86_64/src/lib.rs stack",
];

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the workspace").to_owned()
}

/// Every source file, by its path in the workspace.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if path.is_dir() {
                if name != "target" && name != ".git" {
                    dirs.push(path);
                }
            } else if name.ends_with(".rs") {
                let relative =
                    path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
                found.insert(relative, std::fs::read_to_string(&path).expect("text"));
            }
        }
    }
    found
}

/// A file without comments and without what follows its first test module.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod").unwrap_or(text.len());
    let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Sources of `host`, by their path in host/src, as [`code`].
fn host() -> BTreeMap<String, String> {
    let all = sources().into_iter();
    all.filter_map(|(path, text)| Some((path.strip_prefix("host/src/")?.to_owned(), code(&text)))).collect()
}

/// The words that follow `prefix` in `text`.
fn words_after<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(prefix).map(move |(at, _)| {
        let rest = &text[at + prefix.len()..];
        &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())]
    })
}

/// Looks at each file, and fails with all that `complain` was told of.
fn in_each(files: BTreeMap<String, String>, check: impl Fn(&str, &str, &mut dyn FnMut(String))) {
    let mut wrong = Vec::new();
    for (path, text) in &files {
        check(path, text, &mut |complaint| wrong.push(format!("{path} {complaint}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_are_short() {
    in_each(sources(), |path, text, complain| {
        let lines = text.lines().count();
        let allowed = LONG.iter().find(|(long, _)| *long == path).map_or(MAX_LINES, |(_, max)| *max);
        if lines > allowed {
            complain(format!("has {lines} lines, {allowed} are allowed"));
        }
        if allowed > MAX_LINES && lines <= MAX_LINES - 20 {
            complain("needs no exception any more".to_owned());
        }
    });
}

#[test]
fn layers_depend_downward() {
    let lib = std::fs::read_to_string(root().join("host/src/lib.rs")).expect("lib.rs");
    let rows = lib.lines().filter(|line| line.starts_with("//! | [`"));
    let mut layer_of = BTreeMap::new();
    for (layer, row) in rows.enumerate() {
        let names = row.split('|').nth(1).unwrap_or_default();
        words_after(names, "[`").for_each(|name| _ = layer_of.insert(name.to_owned(), layer));
    }
    assert!(layer_of.len() > 10, "the table of layers in lib.rs was not understood");
    let mut wrong = BTreeSet::new();
    let mut used = BTreeSet::new();
    for (path, text) in host() {
        let own = path.split(['/', '.']).next().unwrap_or_default();
        let Some(own_layer) = layer_of.get(own) else { continue };
        for other in words_after(&text, "crate::") {
            if layer_of.get(other).is_none_or(|layer| layer <= own_layer) {
                continue;
            }
            match UPWARD.iter().position(|known| *known == (own, other, path.as_str())) {
                Some(index) => _ = used.insert(index),
                None => _ = wrong.insert(format!("{path} uses crate::{other}")),
            }
        }
    }
    for (index, known) in UPWARD.iter().enumerate() {
        if !used.contains(&index) {
            wrong.insert(format!("{known:?} is no exception any more"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_hostsys_calls_libc() {
    in_each(host(), |path, text, complain| {
        if path.starts_with("hostsys/") || LIBC_CALLERS.contains(&path) {
            return;
        }
        // Functions are lower case and called; constants and types are not.
        for (at, _) in text.match_indices("libc::") {
            let rest = &text[at + 6..];
            let name = words_after(rest, "").next().unwrap_or_default();
            if name.starts_with(|c: char| c.is_ascii_lowercase()) && rest[name.len()..].starts_with('(') {
                complain(format!("calls libc::{name}"));
            }
        }
    });
}

#[test]
fn the_architecture_is_chosen_in_few_places() {
    in_each(host(), |path, text, complain| {
        let asks = text.contains("target_arch");
        let may = ARCH_AWARE.iter().any(|place| path.starts_with(place));
        let excepted = ARCH_EXCEPTIONS.contains(&path);
        if asks && !may && !excepted {
            complain("asks for the architecture".to_owned());
        }
        if excepted && !asks {
            complain("needs no exception any more".to_owned());
        }
    });
}

#[test]
fn unsafe_has_an_address() {
    let mut found = BTreeSet::new();
    for (path, text) in sources() {
        if path.starts_with("tests/") || path.contains("/tests/") {
            continue;
        }
        for (at, _) in text.match_indices("[expect(unsafe_code") {
            let rest = &text[at..];
            let behind = rest.find("]\n").map(|end| &rest[end + 2..]).unwrap_or_default();
            // The attribute may be followed by others (cfg, path) before the module.
            let module = behind.lines().find(|line| !line.trim_start().starts_with('#')).unwrap_or_default();
            let name = module.split_whitespace().last().unwrap_or_default().trim_end_matches([';', '{']);
            let name = if name.is_empty() { words_after(module, "mod ").next().unwrap_or("?") } else { name };
            found.insert(format!("{path} {name}"));
        }
    }
    let known: BTreeSet<String> = UNSAFE_MODULES.iter().map(|s| (*s).to_owned()).collect();
    let new: Vec<_> = found.difference(&known).collect();
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "new unsafe modules: {new:#?}; not unsafe any more: {gone:#?}"
    );
}

#[test]
fn every_crate_opts_into_the_lints() {
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    let members =
        workspace.lines().find(|line| line.starts_with("members")).expect("the members on one line");
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    assert!(members.len() >= 6, "the members were not understood: {members:?}");
    for member in members {
        let manifest = std::fs::read_to_string(root().join(member).join("Cargo.toml")).expect("a manifest");
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{member} does not opt into the workspace's lints"
        );
    }
}

#[test]
fn nothing_points_outside_the_repository() {
    // Spelled in two parts, or this file would be the one offender.
    nowhere(&[concat!("\"/wo", "rk/"), concat!("\"/w", "t/"), concat!("../sha", "red")]);
}

#[test]
fn unfinished_code_is_not_merged() {
    nowhere(&[concat!("todo", "!("), concat!("unimplemented", "!(")]);
}

/// Fails if a source has one of these words.
fn nowhere(words: &[&str]) {
    in_each(sources(), |_, text, complain| {
        for word in words.iter().filter(|word| text.contains(**word)) {
            complain(format!("has {word}"));
        }
    });
}
