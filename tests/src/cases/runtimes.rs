//! Run-times that have their own ideas about addresses: sanitizers, which fix them, and engines, which pick them at random.
//!
//! The real ones, where this machine has them. What there is not is named, so that whoever runs the tests can say so.

use super::{Case, Place};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is compiled.
const PROGRAM: &str = include_str!("sanitized.c");
/// Compilers and the sanitizers that each may have.
const COMPILERS: [(&str, &[&str]); 2] =
    [("gcc", &["address", "thread", "undefined", "leak"]), ("clang", &["address", "thread", "memory"])];

/// A program with a sanitizer in it.
pub struct Sanitized {
    /// Its file's name: that of compiler and sanitizer.
    pub name: String,
    /// Where it is, or why there is none.
    pub program: Result<PathBuf, String>,
}

/// Compiles the program with each sanitizer that this machine's compilers have, into `directory`.
pub fn compile_sanitized(directory: &Path) -> Vec<Sanitized> {
    let source = directory.join("sanitized.c");
    let written = std::fs::write(&source, PROGRAM).map_err(|error| error.to_string());
    let all = COMPILERS.iter().flat_map(|(compiler, kinds)| kinds.iter().map(move |kind| (*compiler, *kind)));
    let compile = |(compiler, kind): (&str, &str)| {
        let name = format!("{compiler}-{kind}");
        let program = directory.join(&name);
        let mut command = Command::new(compiler);
        command.args(["-g", "-O1", "-w", "-pthread", "-fno-sanitize-recover=all"]);
        command.arg(format!("-fsanitize={kind}")).arg(&source).arg("-o").arg(&program);
        let outcome = written.clone().and_then(|()| match command.stdin(Stdio::null()).output() {
            Err(error) => Err(format!("{compiler}: {error}")),
            Ok(output) if output.status.success() => Ok(program),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(format!("{compiler} cannot: {}", said.lines().next_back().unwrap_or_default()))
            }
        });
        Sanitized { name, program: outcome }
    };
    all.map(compile).collect()
}

/// It runs, and finds what is wrong, as it does natively: what is wrong is a use of freed memory, a race and an overflow,
/// which other sanitizers do not look for.
pub fn sanitized(place: &Place, name: &str) -> Vec<Case> {
    let program = place.program(name);
    let mut cases = vec![place.same(&format!("{name}: a program without faults"), &[program.as_str()])];
    if ["address", "thread", "undefined"].iter().any(|kind| name.ends_with(kind)) {
        let wrong = [program.as_str(), "wrong"];
        cases.push(place.same_failure(&format!("{name}: a program with faults"), &wrong));
    }
    cases
}

/// V8 asks for pages all over 46 bits: for its code, for each worker, as the heaps grow.
const WORKERS: &str = "const {Worker} = require('worker_threads'); let left = 4; \
    for (let i = 0; i < 4; i++) new Worker('let a = []; for (let i = 0; i < 3e5; i++) a.push({i}); \
    require(\"worker_threads\").parentPort.postMessage(a.length)', {eval: true}) \
    .on('message', n => { if (n == 3e5 && --left == 0) console.log('done'); })";

/// A heap with compressed pointers, with one where those do not reach, and a class-data archive.
const JAVA: [(&str, &[&str]); 3] = [
    ("a small heap", &["-Xmx64m", "-version"]),
    ("a heap above 4 GiB", &["-Xmx6g", "-XX:HeapBaseMinAddress=2g", "-version"]),
    ("a heap too large for compressed pointers", &["-Xmx40g", "-version"]),
];

/// Engines and languages that this machine has, and the names of those that it lacks.
pub fn engines(place: &Place) -> (Vec<Case>, Vec<&'static str>) {
    let (mut cases, mut missing) = (Vec::new(), Vec::new());
    let there = |program: &str| {
        let found = Command::new(program).arg("--version").stdin(Stdio::null()).output();
        found.is_ok()
    };
    if there("node") {
        cases.push(place.gives("node with four workers", &["node", "-e", WORKERS], "done\n", 0));
    } else {
        missing.push("node");
    }
    if there("java") {
        cases.extend(
            JAVA.map(|(what, arguments)| {
                place.same(&format!("java: {what}"), &[&["java"], arguments].concat())
            }),
        );
    } else {
        missing.push("java");
    }
    (cases, missing)
}
