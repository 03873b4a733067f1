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

fn is_ours(name: &str) -> bool {
    OURS.iter().any(|own| name.contains(own))
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
    String::from_utf8_lossy(&output.stdout).into_owned()
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
