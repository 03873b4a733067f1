//! `cargo peers`: Pillbox beside gVisor's runsc and native Linux, on this machine, without KVM.
//!
//! The sides take turns, because a shared machine drifts by the minute; medians are compared. Operations
//! are timed inside by the same program on every side, commands from outside from start to end, memory as
//! what all processes of a sandbox hold while it sleeps.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Parser;
use serde::Serialize;
use tests::arch::Arch;
use tests::guest;
use tests::packages::{self, Cache};
use tests::procs;

/// Compares Pillbox's systrap platform with runsc's and with native Linux.
#[derive(Parser)]
#[command(name = "cargo peers")]
struct Cli {
    /// Print one JSON object per line of the table.
    #[arg(long)]
    json: bool,
    /// How often each side runs; medians are compared.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Only these lines.
    names: Vec<String>,
}

/// One line of the table: medians in nanoseconds, or bytes.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    unit: &'static str,
    native: Option<f64>,
    /// An ordinary container, where that is a comparison.
    crun: Option<f64>,
    runsc: Option<f64>,
    pillbox: Option<f64>,
    ratio: Option<f64>,
}

/// What a line measures.
enum What {
    /// An operation of `mb`, this many times.
    Operation(&'static str, u64),
    /// A command, from start to end.
    Elapsed(&'static [&'static str]),
    /// Memory held while sleeping.
    Memory,
}

const LINES: &[(&str, What)] = &[
    ("null", What::Operation("null", 20_000)),
    ("read", What::Operation("read", 20_000)),
    ("pipe", What::Operation("pipe", 2_000)),
    ("mmap", What::Operation("mmap", 200)),
    ("fork+exec", What::Operation("exec", 30)),
    ("find", What::Elapsed(&["/usr/bin/find", FILES, "-type", "f", "-newer", "/etc/passwd"])),
    ("python", What::Elapsed(&["/usr/bin/python3", "-c", "import json"])),
    ("true", What::Elapsed(&["/bin/true"])),
    ("memory", What::Memory),
];

/// A directory of 200 files, made here.
const FILES: &str = "/tmp/pillbox-peers-files";

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One way to run a command.
struct Side {
    name: &'static str,
    prefix: Vec<String>,
}

fn run(cli: &Cli) -> Result<(), Box<dyn std::error::Error>> {
    let cache = Cache::open()?;
    let runsc = packages::runsc(&cache)?;
    let crun = crun_bundle(&cache)?;
    let pillbox = guest::build(Arch::HOST, &["-p", "host", "--bin", "pillbox"])?.join("pillbox");
    let mb = guest::build_programs(Arch::HOST)?.join("mb");
    for n in 0..200 {
        let dir = Path::new(FILES).join((n % 10).to_string());
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(n.to_string()), "x")?;
    }
    // Processes that a sandbox leaves behind become ours, so that their memory is found.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let runsc_text = runsc.display().to_string();
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let runsc_flags = ["--platform=systrap", "--network=none", "--ignore-cgroups", "do"];
    let pillbox_text = pillbox.display().to_string();
    let sides = [
        Side { name: "native", prefix: Vec::new() },
        Side { name: "runsc", prefix: words(&[&[runsc_text.as_str()], runsc_flags.as_slice()].concat()) },
        Side { name: "pillbox", prefix: words(&[&pillbox_text, "do", "--platform", "systrap", "--"]) },
    ];

    if !cli.json {
        let version = Command::new(&runsc).arg("--version").output()?;
        let version = String::from_utf8_lossy(&version.stdout).lines().next().unwrap_or_default().to_owned();
        let load = fs::read_to_string("/proc/loadavg")?;
        println!("{version}; load {}; medians of {} alternating runs", load.trim(), cli.rounds);
        println!(
            "{:<10} {:>4} {:>12} {:>12} {:>12} {:>12} {:>14}",
            "", "", "native", "crun", "runsc", "pillbox", "pillbox/runsc"
        );
    }
    for (name, what) in LINES {
        if !cli.names.is_empty() && !cli.names.iter().any(|wanted| wanted == name) {
            continue;
        }
        let mut samples: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for _ in 0..cli.rounds {
            for side in &sides {
                match sample(side, what, &mb) {
                    Ok(value) => samples.entry(side.name).or_default().push(value),
                    Err(why) => eprintln!("peers: {name}, {}: {why}", side.name),
                }
            }
            if *name == "true"
                && let Some(bundle) = &crun
            {
                match elapsed(&mut crun_command(bundle)) {
                    Ok(value) => samples.entry("crun").or_default().push(value),
                    Err(why) => eprintln!("peers: {name}, crun: {why}"),
                }
            }
        }
        let mut median = |side: &str| samples.get_mut(side).and_then(|values| median(values));
        let (runsc, pillbox) = (median("runsc"), median("pillbox"));
        let line = Line {
            name,
            unit: if matches!(what, What::Memory) { "MiB" } else { "us" },
            native: median("native"),
            crun: median("crun"),
            runsc,
            pillbox,
            ratio: pillbox.zip(runsc).map(|(ours, theirs)| ours / theirs),
        };
        print(&line, cli.json);
    }
    fs::remove_dir_all(FILES)?;
    Ok(())
}

fn print(line: &Line, json: bool) {
    if json {
        println!("{}", serde_json::to_string(line).unwrap_or_default());
        return;
    }
    let scale = if line.unit == "MiB" { f64::from(1 << 20) } else { 1000.0 };
    let shown = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{:.2}", value / scale));
    println!(
        "{:<10} {:>4} {:>12} {:>12} {:>12} {:>12} {:>14}",
        line.name,
        line.unit,
        shown(line.native),
        shown(line.crun),
        shown(line.runsc),
        shown(line.pillbox),
        line.ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
    );
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn sample(side: &Side, what: &What, mb: &Path) -> Result<f64, String> {
    match what {
        What::Operation(name, times) => {
            let times = times.to_string();
            let mb = mb.display().to_string();
            let output = command(side, &[&mb, "--n", &times, name]).output().map_err(|e| e.to_string())?;
            let text = String::from_utf8_lossy(&output.stdout);
            let mut numbers = text.split_whitespace().skip(1).map(str::parse::<f64>);
            match (numbers.next(), numbers.next()) {
                (Some(Ok(times)), Some(Ok(ns))) => Ok(ns / times),
                _ => Err(format!("{} {}", output.status, String::from_utf8_lossy(&output.stderr).trim())),
            }
        }
        What::Elapsed(words) => elapsed(&mut command(side, words)),
        What::Memory => {
            let mut child = Sleeper(command(side, &["/bin/sleep", "30"]).spawn().map_err(|e| e.to_string())?);
            // Long enough for everything to have started and settled.
            sleep(Duration::from_millis(1500));
            let memory = memory_of_descendants()?;
            child.end();
            Ok(memory)
        }
    }
}

fn command(side: &Side, words: &[&str]) -> Command {
    let mut all = side.prefix.iter().map(String::as_str).chain(words.iter().copied());
    let mut command = Command::new(all.next().unwrap_or_default());
    // Not a terminal: runsc would write to the console itself.
    command.args(all).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn elapsed(command: &mut Command) -> Result<f64, String> {
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    let elapsed = start.elapsed();
    if !output.status.success() {
        return Err(format!("{} {}", output.status, String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(elapsed.as_nanos() as f64)
}

/// A sleeping sandbox, ended with all it started.
struct Sleeper(Child);

impl Sleeper {
    fn end(&mut self) {
        for pid in procs::family(std::process::id()) {
            if pid == std::process::id() {
                continue;
            }
            if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = self.0.wait();
        // Orphans are ours to reap.
        while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::empty()) {}
    }
}

/// Bytes held by all processes below this one: their share of what they map, and every page of their
/// memory files, mapped or not.
fn memory_of_descendants() -> Result<f64, String> {
    let mut bytes = 0;
    let mut files: BTreeMap<u64, u64> = BTreeMap::new();
    let own = std::process::id();
    for pid in procs::family(own).into_iter().filter(|pid| *pid != own) {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let Ok(rollup) = fs::read_to_string(proc.join("smaps_rollup")) else { continue };
        let field = |name: &str| -> u64 {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        bytes += (field("Pss:").saturating_sub(field("Pss_Shmem:"))) << 10;
        for sub in ["fd", "map_files"] {
            for entry in fs::read_dir(proc.join(sub)).into_iter().flatten().flatten() {
                let Ok(to) = fs::read_link(entry.path()) else { continue };
                let to = to.to_string_lossy();
                if (to.starts_with("/memfd:") || to.starts_with("/dev/zero"))
                    && let Ok(metadata) = fs::metadata(entry.path())
                {
                    files.insert(metadata.ino(), metadata.blocks() * 512);
                }
            }
        }
    }
    let files: u64 = files.values().sum();
    match bytes + files {
        0 => Err("no process left".to_owned()),
        total => Ok(total as f64),
    }
}

/// crun on a bundle, in a mount namespace of its own: where cgroups are mounted both ways (version 1, and version 2 in
/// `unified`), crun 1.8 takes the second for the only one and fails, so it is taken away; and it cannot pivot into the
/// root it is in, so that is mounted once more. The shell that does this is part of what is timed: a few milliseconds.
fn crun_command(bundle: &Path) -> Command {
    let mut command = Command::new("unshare");
    let script = "umount /sys/fs/cgroup/unified 2>/dev/null; mount --bind / \"$0/rootfs\" && \
        exec crun --cgroup-manager=disabled run -b \"$0\" peers";
    command.args(["--mount", "--propagation", "private", "/bin/sh", "-c", script]).arg(bundle);
    command
}

/// A bundle that runs /bin/true in the machine's own root, if crun can be had and works.
fn crun_bundle(cache: &Cache) -> Result<Option<PathBuf>, Box<dyn std::error::Error>> {
    if let Err(error) = packages::install(cache, "crun", &["crun"]) {
        eprintln!("peers: without crun: {error}");
        return Ok(None);
    }
    let bundle = cache.dir().join("crun");
    fs::create_dir_all(bundle.join("rootfs"))?;
    let config = bundle.join("config.json");
    let _ = fs::remove_file(&config);
    Command::new("crun").arg("spec").current_dir(&bundle).output()?;
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&config)?)?;
    spec["root"] = serde_json::json!({ "path": "rootfs", "readonly": true });
    spec["process"]["args"] = serde_json::json!(["/bin/true"]);
    spec["process"]["terminal"] = false.into();
    fs::write(&config, serde_json::to_vec(&spec)?)?;
    if let Err(why) = elapsed(&mut crun_command(&bundle)) {
        eprintln!("peers: without crun, which does not run on this machine: {why}");
        return Ok(None);
    }
    Ok(Some(bundle))
}
