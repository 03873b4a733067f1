//! `pillbox bench`: one program of small operations, natively and in the sandbox, and what each costs.
//!
//! The program (`mb`, built with the tests) is the same file on both sides and checks its own results. Exits are
//! counted from outside: ours as the difference between two runs of different length, so that what starting costs
//! cancels out; KVM's own from debugfs, read while the program holds still before and after it is timed.

mod programs;

use super::{EXIT_OURS, fail};
use crate::hostsys::process::children_cpu_ns;
use crate::sandbox::PlatformChoice;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

// Arguments of `pillbox bench`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// What runs the sandboxed side
    #[arg(long, value_enum, default_value = "kvm")]
    platform: PlatformChoice,
    /// Print one JSON object per operation
    #[arg(long)]
    json: bool,
    /// The program to measure with [default: the mb beside this executable]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Operations to measure [default: all], or `programs`: whole programs instead
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// One row of the table. Times are nanoseconds per operation, exits are per operation.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    native: f64,
    ours: f64,
    ratio: f64,
    /// What the host loop and the engine counted, by reason; only what is not zero.
    exits: BTreeMap<String, f64>,
    /// What KVM itself counted, where debugfs tells.
    kvm_exits: Option<f64>,
}

/// How long a sandbox takes to start, in nanoseconds.
#[derive(Debug, Serialize)]
struct Start {
    name: &'static str,
    /// From execve to the end of a program that exits at once.
    native: u64,
    ours: u64,
    /// How much later the sandboxed program gets to read the clock than the native one.
    first_instruction: u64,
    /// The part of `ours` in which nothing of it ran.
    idle: u64,
}

/// The name of the row that is no operation of the program.
const START: &str = "start";
/// The name that stands for whole programs.
const PROGRAMS: &str = "programs";
/// KVM's exits of all live VMs.
const KVM_EXITS: &str = "/sys/kernel/debug/kvm/exits";

/// Measures and prints.
pub(super) fn main(args: &Args) -> ExitCode {
    match Bench::new(args).and_then(|bench| bench.run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&format!("bench: {why}"), EXIT_OURS),
    }
}

struct Bench {
    pillbox: PathBuf,
    program: PathBuf,
    platform: String,
}

impl Bench {
    fn new(args: &Args) -> Result<Self, String> {
        let pillbox = std::env::current_exe().map_err(|e| format!("finding this executable: {e}"))?;
        let program = args.program.clone().unwrap_or_else(|| pillbox.with_file_name("mb"));
        if !program.is_file() && args.names != [PROGRAMS] {
            return Err(format!("{}: no such program; see --program", program.display()));
        }
        let platform = clap::ValueEnum::to_possible_value(&args.platform);
        let platform = platform.map_or_else(String::new, |value| value.get_name().to_owned());
        Ok(Bench { pillbox, program, platform })
    }

    fn run(&self, args: &Args) -> Result<(), String> {
        if args.names == [PROGRAMS] {
            return self.programs(args.json);
        }
        let known = self.operations()?;
        let wanted = |name: &str| args.names.is_empty() || args.names.iter().any(|n| n == name);
        if let Some(name) = args.names.iter().find(|n| *n != START && !known.iter().any(|(k, _)| k == *n)) {
            return Err(format!("there is no operation {name}"));
        }
        if !args.json {
            say(&format!(
                "{:<8} {:>12} {:>12} {:>7} {:>10} {:>10}  exits by reason\n",
                "", "native", "ours", "ratio", "exits", "KVM's own"
            ));
        }
        for (name, times) in known.iter().filter(|(name, _)| wanted(name)) {
            let row = self.measure(name, *times)?;
            say(&if args.json { json(&row) } else { table(&row) });
        }
        if wanted(START) {
            let start = self.start()?;
            say(&if args.json { json(&start) } else { start_table(&start) });
        }
        Ok(())
    }

    /// The program's operations and how often it does each.
    fn operations(&self) -> Result<Vec<(String, u64)>, String> {
        let listed = output(Command::new(&self.program).arg("--list"))?;
        let lines = listed.lines().filter_map(|line| line.split_once(' '));
        Ok(lines.filter_map(|(name, times)| Some((name.to_owned(), times.parse().ok()?))).collect())
    }

    fn sandboxed(&self, stats: bool) -> Command {
        let mut command = Command::new(&self.pillbox);
        // One worker: what is measured is the cost of an operation, not of waking another CPU.
        command.args(["do", "--cpus", "1", "--platform", &self.platform]);
        if stats {
            command.arg("--stats");
        }
        command.arg("--").arg(&self.program);
        command
    }

    fn measure(&self, name: &str, times: u64) -> Result<Row, String> {
        let native = parse(&output(Command::new(&self.program).arg(name))?)?;
        let (ours, kvm_exits) = held(self.sandboxed(false).args(["--hold", name]))?;
        let few = (times / 10).max(1);
        let many = self.counted(name, times + few)?;
        let few = self.counted(name, few)?;
        let exits = many
            .into_iter()
            .map(|(reason, count)| {
                let more = count.saturating_sub(few.get(&reason).copied().unwrap_or(0));
                (reason, more as f64 / times as f64)
            })
            .filter(|(reason, count)| *count > 0.0 && is_exit(reason))
            .collect();
        Ok(Row { name: name.to_owned(), native, ours, ratio: ours / native, exits, kvm_exits })
    }

    /// The counters of a sandbox that does the operation `times` times.
    fn counted(&self, name: &str, times: u64) -> Result<BTreeMap<String, u64>, String> {
        let mut command = self.sandboxed(true);
        command.args(["--untimed", "--n", &times.to_string(), name]).stdin(Stdio::null());
        let run = command.output().map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&run.stderr).into_owned();
        if !run.status.success() {
            return Err(format!("{name} in the sandbox: {}: {}", run.status, text.trim()));
        }
        let lines = text.lines().skip_while(|line| !line.starts_with("pillbox statistics"));
        let rows = lines.skip(1).take_while(|line| !line.contains("system calls, answered"));
        Ok(rows
            .filter_map(|line| {
                let (name, value) = line.trim().rsplit_once(' ')?;
                Some((name.trim().to_owned(), value.parse().ok()?))
            })
            .collect())
    }

    fn start(&self) -> Result<Start, String> {
        // The first run warms caches up.
        let mut native = (0, 0, 0);
        let mut ours = (0, 0, 0);
        for _ in 0..2 {
            native = started(&mut Command::new(&self.program))?;
            ours = started(&mut self.sandboxed(false))?;
        }
        Ok(Start {
            name: START,
            native: native.0,
            ours: ours.0,
            first_instruction: ours.1.saturating_sub(native.1),
            idle: ours.0.saturating_sub(ours.2),
        })
    }
}

/// Starts the program so that it prints the time: nanoseconds from before it started to its end, to its reading the
/// clock, and of CPU.
fn started(command: &mut Command) -> Result<(u64, u64, u64), String> {
    let cpu = children_cpu_ns();
    let start = Instant::now();
    let before = crate::hostsys::clock::now(libc::CLOCK_MONOTONIC);
    let printed = output(command.arg("now"))?;
    let elapsed = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let read: u64 = printed.trim().parse().map_err(|_| format!("unexpected output: {printed}"))?;
    Ok((elapsed, read.saturating_sub(before), children_cpu_ns().saturating_sub(cpu)))
}

/// Runs a program that waits for a byte before and after what it times. Returns nanoseconds per operation and KVM's
/// exits per operation.
fn held(command: &mut Command) -> Result<(f64, Option<f64>), String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("starting the sandbox: {e}"))?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("no pipes".to_owned());
    };
    let mut stdout = BufReader::new(stdout);
    let mut line = || {
        let mut text = String::new();
        match stdout.read_line(&mut text) {
            Ok(1..) => Ok(text),
            _ => Err("the sandboxed program ended early".to_owned()),
        }
    };
    let mut go_on = || stdin.write_all(b".").map_err(|e| e.to_string());
    let ready = line();
    let before = kvm_exits();
    let result = ready.and_then(|_ready| go_on()).and_then(|()| line());
    let after = kvm_exits();
    let _ended = go_on();
    let status = child.wait().map_err(|e| e.to_string())?;
    let result = result?;
    if !status.success() {
        return Err(format!("the sandboxed program: {status}"));
    }
    let times = result.split(' ').nth(1).and_then(|n| n.parse::<f64>().ok()).unwrap_or(1.0);
    let exits = before.zip(after).map(|(before, after)| after.saturating_sub(before) as f64 / times);
    Ok((parse(&result)?, exits))
}

fn kvm_exits() -> Option<u64> {
    std::fs::read_to_string(KVM_EXITS).ok()?.trim().parse().ok()
}

/// Runs a program to its end and returns what it printed.
fn output(command: &mut Command) -> Result<String, String> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let run = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("{shown}: {e}"))?;
    if !run.status.success() {
        return Err(format!("{shown}: {}", run.status));
    }
    Ok(String::from_utf8_lossy(&run.stdout).into_owned())
}

/// Nanoseconds per operation from a line of the program: name, times, nanoseconds in all.
fn parse(line: &str) -> Result<f64, String> {
    let mut words = line.split_whitespace().skip(1).map(str::parse::<f64>);
    match (words.next(), words.next()) {
        (Some(Ok(times)), Some(Ok(ns))) => Ok(ns / times),
        _ => Err(format!("unexpected output: {line}")),
    }
}

/// Whether a counter says that the VM was left, or that the kernel's code went on natively.
fn is_exit(reason: &str) -> bool {
    reason == "KVM_RUN" || reason.starts_with("exit:") || reason.starts_with("drops")
}

fn table(row: &Row) -> String {
    let runs = row.exits.get("KVM_RUN").copied().unwrap_or(0.0);
    let kvm = row.kvm_exits.map_or_else(|| "-".to_owned(), |exits| format!("{exits:.4}"));
    let mut text = format!(
        "{:<8} {:>12.0} {:>12.0} {:>7.2} {:>10.4} {:>10}  ",
        row.name, row.native, row.ours, row.ratio, runs, kvm
    );
    for (reason, count) in row.exits.iter().filter(|(reason, _)| *reason != "KVM_RUN") {
        let _ = write!(text, "{} {count:.4}  ", reason.trim_start_matches("exit: "));
    }
    text.trim_end().to_owned() + "\n"
}

fn start_table(start: &Start) -> String {
    format!(
        "{:<8} {:>12} {:>12} {:>7}   first instruction {} later than natively; idle {}\n",
        start.name, start.native, start.ours, "", start.first_instruction, start.idle
    )
}

fn json(row: &impl Serialize) -> String {
    serde_json::to_string(row).unwrap_or_default() + "\n"
}

fn say(text: &str) {
    // A reader that has had enough is no error.
    let _closed = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::{Row, parse, table};

    #[test]
    fn a_line_of_the_program_is_time_per_operation() {
        assert_eq!(parse("null 1000 250000\n"), Ok(250.0));
        assert!(parse("null").is_err());
    }

    #[test]
    fn the_table_names_reasons() {
        let exits = [("KVM_RUN".to_owned(), 1.5), ("exit: host call".to_owned(), 1.25)].into();
        let row =
            Row { name: "pipe".to_owned(), native: 10.0, ours: 5.0, ratio: 0.5, exits, kvm_exits: Some(2.0) };
        assert!(table(&row).ends_with("0.50     1.5000     2.0000  host call 1.2500\n"));
    }
}
