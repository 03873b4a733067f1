//! `pillbox syscalls`: the compatibility table, from the table that dispatch uses.

use crate::syscalls::{ROWS, Row, Support, format::ArgFormat};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;

// Arguments of `pillbox syscalls`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// One JSON object per call
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line {
    name: &'static str,
    x86_64: Option<u16>,
    aarch64: Option<u16>,
    support: &'static str,
    note: Option<&'static str>,
    arguments: &'static [ArgFormat],
}

/// Prints the table.
pub(super) fn main(args: &Args) -> ExitCode {
    let lines = ROWS.iter().map(line);
    let text = if args.json { json(lines) } else { table(lines) };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::fail(&format!("cannot write to stdout: {error}"), super::EXIT_OURS),
    }
}

fn line(row: &Row) -> Line {
    let (support, note) = match row.support {
        Support::Full => ("full", None),
        Support::Partial(note) => ("partial", Some(note)),
        Support::Missing => ("none", None),
    };
    Line {
        name: row.name,
        x86_64: row.nr_x86_64,
        aarch64: row.nr_aarch64,
        support,
        note,
        arguments: row.format,
    }
}

fn json(lines: impl Iterator<Item = Line>) -> String {
    // Serialising a struct of numbers and strings cannot fail.
    lines.filter_map(|l| serde_json::to_string(&l).ok()).map(|l| l + "\n").collect()
}

fn table(lines: impl Iterator<Item = Line>) -> String {
    let number = |n: Option<u16>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let mut text = format!("{:>6} {:>7}  {:<24} {}\n", "x86_64", "aarch64", "name", "support");
    let (mut works, mut all) = (0, 0);
    for line in lines {
        all += 1;
        works += usize::from(line.support != "none");
        let note = line.note.map(|n| format!(": {n}")).unwrap_or_default();
        let (x86_64, aarch64) = (number(line.x86_64), number(line.aarch64));
        let _ = writeln!(text, "{x86_64:>6} {aarch64:>7}  {:<24} {}{note}", line.name, line.support);
    }
    let _ = writeln!(text, "{works} of {all} are implemented; the others answer ENOSYS.");
    text
}
