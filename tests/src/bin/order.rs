//! `cargo order`: renews `linker/start.ld`, the order of functions in the executable.
//!
//! Starts and ends sandboxes in the nested x86_64 guest (more than one: the first finds out what later ones know) with an
//! emulator that lists what it translates, finds by the linker's map which sections that is, and writes their names in the
//! order in which they were first executed, without what changes from build to build.

use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode};

use ::tests::packages::workspace_root;

/// Where an image may be (`.cargo/config.toml`).
const IMAGE: &str = "0x70000000..0x72000000";

/// A part of the names of the command that starts them.
const BENCH: &str = "_4host3cli5bench";

/// Parts of names that have others on another architecture.
const ARCH: [&str; 3] = ["12ring0_x86_64", "6x86_64", "6X86_64"];

/// What the file says of itself.
const HEADER: &str = "\
/*
 * Written by `cargo order`: the functions that run between the start and the end of a sandbox, in the order in which they first
 * do. They lie together, before all others, so that they take few pages: each one is a fault of the host, and in a virtual
 * machine another one.
 *
 * What is not there any more matches nothing, and what is new is not in order: a list that is out of date costs time and
 * nothing else. Renew it when `cargo nested x86_64 --icount -- bench start` has become worse (by 1,700,000 instructions if
 * there is none at all), and with a new compiler.
 *
 * The names are those of v0 mangling (`-Csymbol-mangling-version=v0` in `.cargo/config.toml`), which has the whole path of
 * a function and its types, and wildcards for what depends on the build: crates' hashes, positions, numbers of `impl` blocks.
 * They are found on x86_64 and used on both architectures, which differ in a fiftieth of them.
 * Only executables of release builds are linked by it (`host/build.rs`): a linker takes seconds to match so many.
 */
";

fn main() -> ExitCode {
    match run() {
        Ok(count) => {
            println!("linker/start.ld: {count} sections");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("order: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<usize, Box<dyn Error>> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_root().join("target"), Into::into);
    let (map, trace) = (target.join("order.map"), target.join("order.trace"));
    let argument = format!("-Clink-arg=-Wl,-Map={}", map.display());
    cargo(Command::new("cargo").args(["rustc", "--release", "-p", "host", "--bin", "pillbox"]).args([
        "--target",
        "x86_64-unknown-linux-gnu",
        "--",
        &argument,
    ]))?;
    let program = target.join("x86_64-unknown-linux-gnu/release/pillbox");
    let emulator = format!("-d in_asm -D {} -dfilter {IMAGE}", trace.display());
    let mut nested = Command::new("cargo");
    nested.args(["nested", "x86_64", "--icount", "--exec"]).arg(program).args(["--", "bench", "start"]);
    cargo(nested.env("NESTED_QEMU_ARGS", emulator))?;
    let sections = Sections::read(&map)?;
    let mut lines = Vec::new();
    let mut known = HashSet::new();
    for line in BufReader::new(fs::File::open(&trace)?).lines() {
        let line = line?;
        let Some(address) = address(&line) else { continue };
        let Some(pattern) = sections.at(address).and_then(pattern) else { continue };
        if known.insert(pattern.clone()) {
            lines.push(pattern);
        }
    }
    if lines.len() < 500 {
        return Err(format!("only {} sections were executed: not written", lines.len()).into());
    }
    let mut script = HEADER.to_owned();
    script.push_str("SECTIONS\n{\n  .start.text :\n  {\n");
    lines.iter().try_for_each(|line| writeln!(script, "    {line}"))?;
    script.push_str("  }\n}\nINSERT BEFORE .text;\n");
    fs::write(workspace_root().join("linker/start.ld"), script)?;
    fs::remove_file(trace)?;
    Ok(lines.len())
}

fn cargo(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let status = command.current_dir(workspace_root()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

/// The address that a line of the emulator's listing is about.
fn address(line: &str) -> Option<u64> {
    u64::from_str_radix(line.strip_prefix("0x")?.split(':').next()?, 16).ok()
}

/// A piece of an object file that has become a piece of the executable.
struct Section {
    len: u64,
    file: String,
    name: String,
}

/// All that hold code, by address.
struct Sections(BTreeMap<u64, Section>);

impl Sections {
    /// Those of a linker's (lld's) map: address, load address, size, alignment, `FILE:(SECTION)`; of an archive `FILE` is
    /// `ARCHIVE(MEMBER)`.
    fn read(map: &Path) -> Result<Self, Box<dyn Error>> {
        let mut all = BTreeMap::new();
        for line in fs::read_to_string(map)?.lines() {
            if let Some((at, section)) = section(line) {
                all.insert(at, section);
            }
        }
        Ok(Sections(all))
    }

    fn at(&self, address: u64) -> Option<&Section> {
        let (at, section) = self.0.range(..=address).next_back()?;
        (address - at < section.len).then_some(section)
    }
}

fn section(line: &str) -> Option<(u64, Section)> {
    let mut words = line.split_ascii_whitespace();
    let at = u64::from_str_radix(words.next()?, 16).ok()?;
    let len = u64::from_str_radix(words.nth(1)?, 16).ok()?;
    let (file, name) = words.nth(1)?.rsplit_once(":(")?;
    let name = name.strip_suffix(')')?;
    let holds_code = name == ".text" || name.starts_with(".text.");
    (holds_code && len > 0).then(|| (at, Section { len, file: file.to_owned(), name: name.to_owned() }))
}

/// What matches a section of this name in another build, too.
fn pattern(section: &Section) -> Option<String> {
    if let Some(at) = section.name.find("._R") {
        let (kind, name) = section.name.split_at(at + 1);
        // What a function of one unit is called that others use.
        let name = name.split_once(".llvm.").map_or(name, |(name, _)| name);
        // It measures the others.
        if name.contains(BENCH) {
            return None;
        }
        let name = ARCH.iter().fold(without_numbers(name), |name, own| name.replace(own, "*"));
        return Some(format!("*({kind}{name}*)"));
    }
    // The C library is not in pieces: of each of its files all.
    if section.name == ".text" || section.file.contains("/libc.a(") {
        let (archive, member) = section.file.rsplit_once('/')?.1.strip_suffix(')')?.split_once('(')?;
        return (archive == "libc.a").then(|| format!("*libc.a:{member}({})", section.name));
    }
    Some(format!("*({})", section.name))
}

/// A mangled name (v0) with wildcards in place of the numbers of crates (`Cs…_`) and `impl` blocks (`Ms…_`, `Xs…_`), and of the
/// positions of what is named again (`B…_`). Where that takes part of an identifier for one, more matches.
fn without_numbers(name: &str) -> String {
    let mut out = String::new();
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let prefix = match first {
            'C' | 'M' | 'X' if rest[1..].starts_with('s') => 2,
            'B' => 1,
            _ => 0,
        };
        let number = &rest[prefix..];
        let len = number.find(|digit: char| !digit.is_ascii_alphanumeric()).unwrap_or(number.len());
        let is_number = number[len..].starts_with('_') && (first != 'B' || len <= 3);
        if prefix > 0 && is_number {
            out.push_str(&rest[..prefix]);
            out.push_str("*_");
            rest = &number[len + 1..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{address, pattern, section, without_numbers};

    #[test]
    fn names_keep_what_they_are_of() {
        let name = "_RNvMs3_NtNtCshsD2K00knHa_4host6kernel4taskNtB5_4Task3new";
        assert_eq!(without_numbers(name), "_RNvMs*_NtNtCs*_4host6kernel4taskNtB*_4Task3new");
        // Letters in identifiers stay where no number can be meant.
        assert_eq!(without_numbers("_RNvNtCs1_4host9Blank_two"), "_RNvNtCs*_4host9Blank_two");
    }

    #[test]
    fn lines_of_the_map_are_sections() {
        let text = "        70085167         70085167       2a     1         /x/libhost.rlib(host.cgu.03.rcgu.o):(.text.unlikely._RNvCs1_4host3new.llvm.77)";
        let (at, found) = section(text).expect("a section");
        assert_eq!((at, found.len), (0x7008_5167, 0x2a));
        assert_eq!(pattern(&found).as_deref(), Some("*(.text.unlikely._RNvCs*_4host3new*)"));
        let text = "70085200 70085200 10 16 /usr/lib/libc.a(malloc.o):(.text)";
        let (_, found) = section(text).expect("a section");
        assert_eq!(pattern(&found).as_deref(), Some("*libc.a:malloc.o(.text)"));
        assert!(section("70085200 70085200 10 16 /x/libhost.rlib(a.o):(.rodata.b)").is_none());
        assert_eq!(address("0x7005d3c0:  31 ed                    xorl     %ebp, %ebp"), Some(0x7005_d3c0));
    }
}
