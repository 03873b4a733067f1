//! No program may choose how deep the kernel's stack gets: every recursion of our own is known, with its bound.
//!
//! The calls are those of the executable itself (`objdump -d`, a development build, where most is a function of its own). What
//! is called through a table of functions (`dyn`, function pointers) is not seen, nor what goes by way of C. Of the former there
//! is, where it could come back to itself: the drop of a `File` in a message that was sent, which `vfs::flight` does one after
//! another; `poll` of an epoll in an epoll, which `fs::epoll::nesting` bounds; and `Inode` and `FileOps`, whose implementations
//! call none of their own kind but for a device node's.

mod bounds;
mod graph;

use bounds::BOUNDS;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Our own crates.
const OURS: [&str; 5] = ["host::", "pagetables::", "ring0::", "ring0_x86_64::", "ring0_aarch64::"];

/// Whether a function is of our crates, whatever types it is made for. What a type's drop does is the type's.
fn is_ours(name: &str) -> bool {
    if name.starts_with("core::ptr::drop_in_place") {
        return OURS.iter().any(|own| name.contains(own));
    }
    let path = without_arguments(name);
    OURS.iter().any(|own| path.contains(own))
}

/// A name without what stands in angle brackets behind a name: `<a::B<c::D>>::e::<f::G>` is `<a::B>::e::`.
fn without_arguments(name: &str) -> String {
    let mut path = String::new();
    let mut depth = 0_usize;
    let mut last = ' ';
    for letter in name.chars() {
        match letter {
            '<' if depth > 0 || last == ':' || last == '_' || last.is_alphanumeric() => depth += 1,
            // The arrow of a function's type closes nothing.
            '>' if depth > 0 && last != '-' => depth -= 1,
            _ if depth == 0 => path.push(letter),
            _ => {}
        }
        last = letter;
    }
    path
}

/// A disassembly without the hashes of crates: `host[cb63565b76439cb2]::cli`.
fn without_hashes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('[') {
        plain.push_str(before);
        let named = before.ends_with(|last: char| last == '_' || last.is_alphanumeric());
        let hash = behind.split_once(']').filter(|(hash, _)| {
            named
                && !hash.is_empty()
                && hash.len() <= 16
                && hash.bytes().all(|digit| digit.is_ascii_hexdigit())
        });
        rest = match hash {
            Some((_, behind)) => behind,
            None => {
                plain.push('[');
                behind
            }
        };
    }
    plain.push_str(rest);
    plain
}

/// Recursion without a bound, and bounds without recursion.
fn complaints(disassembly: &str) -> Vec<String> {
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for cycle in graph::cycles(disassembly) {
        let own: Vec<&str> = cycle.into_iter().filter(|name| is_ours(name)).collect();
        let covers =
            |(parts, _): &&bounds::Bound| own.iter().all(|name| parts.iter().any(|part| name.contains(part)));
        match BOUNDS.iter().find(covers) {
            _ if own.is_empty() => {}
            Some((parts, _)) => _ = used.insert(parts),
            None => wrong.push(format!("without a known bound: {own:#?}")),
        }
    }
    let idle = BOUNDS.iter().filter(|(parts, _)| !used.contains(parts));
    wrong.extend(idle.map(|(parts, _)| format!("is no recursion any more: {parts:?}")));
    wrong
}

/// The executable of the same build as this test.
fn disassembly() -> String {
    let own = std::env::current_exe().expect("the path of this test");
    let build = own.parent().and_then(Path::parent).expect("a directory above");
    let objdump =
        Command::new("objdump").args(["-d", "-C", "--no-show-raw-insn"]).arg(build.join("pillbox")).output();
    let output = objdump.expect("objdump, of the same package as the linker");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    without_hashes(&String::from_utf8_lossy(&output.stdout))
}

#[test]
fn names_are_told_from_what_they_are_made_for() {
    assert_eq!(
        without_hashes("call 7 <<a[12ab]::B as c[3]::D>::e[f; 2]>"),
        "call 7 <<a::B as c::D>::e[f; 2]>"
    );
    assert_eq!(without_arguments("<a::B<c::D, fn() -> e::F>>::g::<h::I>"), "<a::B>::g::");
    assert!(
        is_ours("<host::a::B as core::fmt::Debug>::fmt") && is_ours("core::ptr::drop_in_place::<host::a::B>")
    );
    assert!(!is_ours("core::slice::sort::stable::quicksort::quicksort::<host::a::B, alloc::vec::Vec<u8>>"));
}

#[test]
fn every_recursion_has_a_bound() {
    let found = disassembly();
    let wrong = complaints(&found);
    assert!(wrong.is_empty(), "{wrong:#?}");
    // And what comes back to itself, by whatever way, is seen.
    const PLANTED: &str = "
00000000f0000000 <host::planted::first>:
    f0000000:\tpush   rbp
    f0000001:\tcall   f0000010 <<host::planted::Second as core::ops::drop::Drop>::drop>

00000000f0000010 <<host::planted::Second as core::ops::drop::Drop>::drop>:
    f0000010:\tje     f0000012 <<host::planted::Second as core::ops::drop::Drop>::drop+0x2>
    f0000012:\tjmp    f0000000 <host::planted::first>
";
    let seen = complaints(&(found + PLANTED));
    assert!(seen.len() == 1 && seen[0].contains("planted::Second"), "{seen:#?}");
}
