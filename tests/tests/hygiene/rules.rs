//! The rules: each says what is wrong with a tree.

use std::collections::{BTreeMap, BTreeSet};

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::exceptions::{
    ARCH_AWARE, ARCH_EXCEPTIONS, DESCRIPTOR_OWNERS, LIBC_CALLERS, LONG, MAX_FUNCTION, MAX_LINES, SPRAWLING,
    UNSAFE_MODULES, UPWARD,
};
use crate::tree::{Tree, Word, parse};

/// No file is longer than 500 lines: past that it holds two ideas.
pub(crate) fn files_are_short(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in tree.sources() {
        let lines = text.lines().count();
        let allowed = LONG.iter().find(|(long, _)| *long == path).map_or(MAX_LINES, |(_, max)| *max);
        if lines > allowed {
            wrong.push(format!("{path} has {lines} lines, {allowed} are allowed"));
        }
        if allowed > MAX_LINES && lines <= MAX_LINES - 20 {
            wrong.push(format!("{path} needs no exception any more"));
        }
    }
    let gone = LONG.iter().filter(|(path, _)| !tree.has(path));
    wrong.extend(gone.map(|(path, _)| format!("{path} is excepted and not there")));
    wrong
}

/// No function of `host` or the ring-0 crates is longer than 60 lines.
pub(crate) fn functions_are_short(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (path, text) in tree.sources().filter(|(path, _)| !path.starts_with("tests/")) {
        let mut functions = Functions(Vec::new());
        functions.visit_file(&parse(path, text));
        for (name, lines) in functions.0 {
            let known =
                SPRAWLING.iter().position(|(at, function, _)| (*at, *function) == (path, name.as_str()));
            let allowed = known.map_or(MAX_FUNCTION, |index| SPRAWLING[index].2);
            used.extend(known.filter(|_| lines > MAX_FUNCTION));
            if lines > allowed {
                wrong.push(format!("{path} {name} has {lines} lines, {allowed} are allowed"));
            }
        }
    }
    let idle = SPRAWLING.iter().enumerate().filter(|(index, _)| !used.contains(index));
    wrong.extend(idle.map(|(_, known)| format!("{known:?} is no exception any more")));
    wrong
}

/// Names and lines of a file's functions.
struct Functions(Vec<(String, usize)>);

impl Functions {
    fn note(&mut self, name: &syn::Ident, whole: proc_macro2::Span) {
        self.0.push((name.to_string(), whole.end().line - whole.start().line + 1));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.note(&function.sig.ident, function.sig.span().join(function.block.span()).expect("one file"));
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.note(&function.sig.ident, function.sig.span().join(function.block.span()).expect("one file"));
        visit::visit_impl_item_fn(self, function);
    }
}

/// Modules of `host` use what stands above them in the table of host/src/lib.rs, or beside them.
pub(crate) fn layers_depend_downward(tree: &Tree) -> Vec<String> {
    let layer_of = layers(tree.text("host/src/lib.rs"));
    let mut wrong = BTreeSet::new();
    if layer_of.len() < 10 {
        wrong.insert("the table of layers in host/src/lib.rs was not understood".to_owned());
    }
    let mut used = BTreeSet::new();
    for (path, words) in tree.host() {
        let own = path.split(['/', '.']).next().unwrap_or_default();
        let Some(own_layer) = layer_of.get(own) else { continue };
        for other in from_the_root(&words) {
            if layer_of.get(other).is_none_or(|layer| layer <= own_layer) {
                continue;
            }
            match UPWARD.iter().position(|known| *known == (own, other, path)) {
                Some(index) => _ = used.insert(index),
                None => _ = wrong.insert(format!("{path} uses crate::{other}")),
            }
        }
    }
    let idle = UPWARD.iter().enumerate().filter(|(index, _)| !used.contains(index));
    wrong.extend(idle.map(|(_, known)| format!("{known:?} is no exception any more")));
    wrong.into_iter().collect()
}

/// The layer of each module, by the rows of the table.
fn layers(lib: &str) -> BTreeMap<String, usize> {
    let rows = lib.lines().filter(|line| line.starts_with("//! | [`"));
    let mut layer_of = BTreeMap::new();
    for (layer, row) in rows.enumerate() {
        let names = row.split('|').nth(1).unwrap_or_default();
        for name in names.split("[`").skip(1) {
            layer_of.insert(name.split('`').next().unwrap_or_default().to_owned(), layer);
        }
    }
    layer_of
}

/// The names that follow the crate's root in paths, however it is spelled: `crate::`, or as many `super::` as it takes.
fn from_the_root(words: &[Word]) -> Vec<&str> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let start = at;
        let root = match words[at].text.as_str() {
            "crate" => true,
            "super" => {
                let mut climbed = 1;
                while text(words, at + 1) == "::" && text(words, at + 2) == "super" {
                    climbed += 1;
                    at += 2;
                }
                climbed >= words[start].depth
            }
            _ => false,
        };
        at += 1;
        if root && text(words, at) == "::" {
            first_names(words, at + 1, &mut found);
        }
    }
    found
}

fn text(words: &[Word], at: usize) -> &str {
    words.get(at).map_or("", |word| word.text.as_str())
}

/// The name at `at`, or the first of each branch where a group opens there.
fn first_names<'a>(words: &'a [Word], at: usize, found: &mut Vec<&'a str>) {
    if text(words, at) != "{" {
        found.extend(words.get(at).map(|word| word.text.as_str()));
        return;
    }
    let mut nested = 0;
    for index in at..words.len() {
        match text(words, index) {
            "{" => nested += 1,
            "}" => nested -= 1,
            _ => {}
        }
        if nested == 0 {
            break;
        }
        if nested == 1 && matches!(text(words, index), "{" | ",") {
            found.extend(words.get(index + 1).map(|word| word.text.as_str()));
        }
    }
}

/// libc's functions are called in `hostsys` and where threads and signal handlers are set up, by that name.
pub(crate) fn only_hostsys_calls_libc(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (path, words) in tree.host().filter(|(path, _)| !path.starts_with("hostsys/")) {
        for complaint in libc_uses(&words) {
            match LIBC_CALLERS.iter().find(|known| **known == path) {
                Some(known) => _ = used.insert(*known),
                None => wrong.push(format!("{path} {complaint}")),
            }
        }
    }
    let idle = LIBC_CALLERS.iter().filter(|known| !used.contains(*known));
    wrong.extend(idle.map(|known| format!("{known} needs no exception any more")));
    wrong
}

/// Descriptors of the host are `HostFd`s, in one table, and files of the host are opened by `HostFiles`.
pub(crate) fn descriptors_have_one_owner(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    let elsewhere = tree.host().filter(|(path, _)| {
        !path.starts_with("hostsys/")
            && *path != "hostfd.rs"
            && !path.ends_with("/tests.rs")
            && !path.contains("/tests/")
    });
    for (path, words) in elsewhere {
        for complaint in descriptor_uses(&words) {
            match DESCRIPTOR_OWNERS.iter().position(|(known, _)| path.starts_with(known)) {
                Some(index) => _ = used.insert(index),
                None => wrong.push(format!("{path} {complaint}")),
            }
        }
    }
    let idle = DESCRIPTOR_OWNERS.iter().enumerate().filter(|(index, _)| !used.contains(index));
    wrong.extend(idle.map(|(_, known)| format!("{known:?} is no exception any more")));
    wrong
}

/// Types of std that are descriptors, or lead to their numbers. (A `UdpSocket` is one of ours, too.)
const DESCRIPTORS: &[&str] = &[
    "OwnedFd",
    "RawFd",
    "BorrowedFd",
    "AsFd",
    "AsRawFd",
    "FromRawFd",
    "IntoRawFd",
    "UnixStream",
    "UnixListener",
    "UnixDatagram",
    "TcpStream",
    "TcpListener",
    "OpenOptions",
    "PipeReader",
    "PipeWriter",
];
/// What opens, in modules that have other uses.
const OPENERS: &[(&str, &str)] = &[("file", "openat"), ("confine", "copy_of_mounts"), ("io", "pipe")];

fn descriptor_uses(words: &[Word]) -> Vec<String> {
    let mut found = Vec::new();
    for at in 0..words.len() {
        let word = text(words, at);
        if DESCRIPTORS.contains(&word) {
            found.push(format!("names {word}"));
        }
        if text(words, at + 1) != "::" {
            continue;
        }
        let mut names = Vec::new();
        first_names(words, at + 2, &mut names);
        for name in names {
            if OPENERS.contains(&(word, name)) || (word, name) == ("std", "fs") {
                found.push(format!("uses {word}::{name}"));
            } else if word == "rustix" && matches!(name, "fs" | "pipe" | "pty") {
                found.push(format!("uses rustix::{name}"));
            }
        }
    }
    found
}

/// How a file gets at libc's functions. Constants and most types are no functions and are everybody's.
fn libc_uses(words: &[Word]) -> Vec<String> {
    let is_function = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.starts_with("c_") && !name.ends_with("_t")
    };
    let mut found = Vec::new();
    for at in 0..words.len() {
        if text(words, at) != "libc" {
            continue;
        }
        let imported = (0..at).rev().map(|at| text(words, at)).find(|word| *word != "::") == Some("use");
        if imported && matches!(text(words, at + 1), "as") {
            found.push("renames libc".to_owned());
        }
        if text(words, at + 1) != "::" {
            continue;
        }
        let name = text(words, at + 2);
        if imported {
            let mut names = Vec::new();
            first_names(words, at + 2, &mut names);
            let functions = names.into_iter().filter(|name| is_function(name));
            found.extend(functions.map(|name| format!("imports libc::{name}")));
        } else if is_function(name) && text(words, at + 3) == "(" {
            found.push(format!("calls libc::{name}"));
        }
    }
    found
}

/// The architecture is asked for where machines differ, and nowhere else.
pub(crate) fn the_architecture_is_chosen_in_few_places(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, words) in tree.host() {
        let asks = words.iter().any(|word| word.text == "target_arch");
        let may = ARCH_AWARE.iter().any(|place| path.starts_with(place));
        let excepted = ARCH_EXCEPTIONS.contains(&path);
        if asks && !may && !excepted {
            wrong.push(format!("{path} asks for the architecture"));
        }
        if excepted && !asks {
            wrong.push(format!("{path} needs no exception any more"));
        }
    }
    wrong
}

/// Unsafe code is allowed for the modules that are listed, at the line that declares them.
pub(crate) fn unsafe_has_an_address(tree: &Tree) -> Vec<String> {
    let mut found = BTreeSet::new();
    for (path, text) in tree.sources() {
        if path.starts_with("tests/") || path.contains("/tests/") {
            continue;
        }
        for (at, _) in text.match_indices("[expect(unsafe_code") {
            let rest = &text[at..];
            let behind = rest.find("]\n").map(|end| &rest[end + 2..]).unwrap_or_default();
            // The attribute may be followed by others (cfg, path) before what it is for.
            let declared =
                behind.lines().find(|line| !line.trim_start().starts_with('#')).unwrap_or_default();
            let mut words = declared.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let name =
                words.find(|word| !matches!(*word, "" | "pub" | "crate" | "super" | "mod" | "fn" | "unsafe"));
            found.insert(format!("{path} {}", name.unwrap_or("?")));
        }
    }
    let known: BTreeSet<String> = UNSAFE_MODULES.iter().map(|name| (*name).to_owned()).collect();
    let new = found.difference(&known).map(|name| format!("{name} is newly unsafe"));
    let gone = known.difference(&found).map(|name| format!("{name} is not unsafe any more"));
    new.chain(gone).collect()
}

/// In `host` the locks are `sync`'s, which have ranks and know where they may be held: others would not. (Files of tests may
/// have others, by which tests take turns.)
pub(crate) fn locks_have_ranks(tree: &Tree) -> Vec<String> {
    const OTHERS: [&str; 7] =
        ["Mutex", "RwLock", "Condvar", "Barrier", "ReentrantLock", "SpinMutex", "parking_lot"];
    let mut wrong = Vec::new();
    for (path, words) in tree.host().filter(|(path, _)| !path.ends_with("tests.rs")) {
        let other = words.iter().map(|word| word.text.as_str()).find(|word| OTHERS.contains(word));
        wrong.extend(other.map(|word| format!("{path} has a {word}")));
    }
    wrong
}

/// Every crate of the workspace opts into its lints.
pub(crate) fn every_crate_opts_into_the_lints(tree: &Tree) -> Vec<String> {
    let manifests = tree.texts().filter(|(path, _)| path.ends_with("/Cargo.toml"));
    let deaf = manifests.filter(|(_, text)| !text.contains("[lints]\nworkspace = true"));
    deaf.map(|(path, _)| format!("{path} does not opt into the workspace's lints")).collect()
}

/// What the tree refers to is in the tree: files that comments and documents name, and no place of a machine.
pub(crate) fn nothing_points_outside_the_repository(tree: &Tree) -> Vec<String> {
    // Spelled in two parts, or this file would be the one offender.
    let places = [concat!("/wo", "rk/"), concat!("\"/w", "t/"), concat!("../sha", "red")];
    let mut wrong = nowhere(tree, &places);
    for (path, text) in tree.texts() {
        for line in text.lines() {
            let prose = match path.ends_with(".md") {
                true => line,
                false => line.find("//").map(|at| &line[at..]).unwrap_or_default(),
            };
            let cited = prose.split(|c: char| !(c.is_ascii_alphanumeric() || "_-./".contains(c)));
            for name in cited.map(|name| name.trim_matches('.')).filter(|name| is_path(name)) {
                // `src` may be left out, as in a picture.
                let tail = format!("/{name}");
                let short = |there: &str| there.replace("/src/", "/").ends_with(&tail[1..]);
                if !tree.texts().any(|(there, _)| there == name || there.ends_with(&tail) || short(there)) {
                    wrong.push(format!("{path} cites {name}"));
                }
            }
        }
    }
    wrong
}

/// Whether a word is the name of a source or a document.
fn is_path(word: &str) -> bool {
    let stem = [".rs", ".md", ".S", ".ld"].iter().find_map(|ending| word.strip_suffix(ending));
    stem.is_some_and(|stem| !stem.is_empty())
}

/// Nothing is left to be done.
pub(crate) fn unfinished_code_is_not_merged(tree: &Tree) -> Vec<String> {
    nowhere(tree, &[concat!("todo", "!("), concat!("unimplemented", "!(")])
}

/// Texts that have one of these words, but for the script that may: CI runs beside what it mentions.
fn nowhere(tree: &Tree, words: &[&str]) -> Vec<String> {
    let found = |(path, text): (&str, &str)| {
        let there = words.iter().filter(|word| text.contains(**word));
        there.map(|word| format!("{path} has {word}")).collect::<Vec<_>>()
    };
    tree.texts().filter(|(path, _)| !path.starts_with(".ci/")).flat_map(found).collect()
}
