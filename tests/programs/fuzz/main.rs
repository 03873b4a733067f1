//! Chance as an attacker: system calls, executables and signal frames that nobody would think of.
//!
//! | command | what |
//! |---|---|
//! | `fuzz calls SECONDS SEED TABLE` | system calls with arguments of the kinds that TABLE (`pillbox syscalls --json`) names |
//! | `fuzz programs SECONDS SEED` | ELF files and `#!` chains with something wrong in them, executed |
//! | `fuzz frames SECONDS SEED` | signal frames and the stub's memory, scribbled over |
//! | `fuzz objects SECONDS SEED` | namespaces, mounts, control groups, tracees and names, in an order that makes sense now and then |
//! | `fuzz round WHAT SEED [TABLE]` | one round, to look at what a longer run has found |
//!
//! Only inside a sandbox, as its first process: it ends every process that it can reach, again and again. What it does
//! has no right result; it says how much it did, and whoever started it sees whether the sandbox is as it was.

#[path = "../hold/sys.rs"]
#[macro_use]
#[expect(unsafe_code, reason = "system calls are the subject of this program")]
mod sys;

#[expect(unsafe_code, reason = "a handler is set")]
mod calls;
#[expect(unsafe_code, reason = "frames of handlers are written to, and so is memory that may not be there")]
mod frames;
mod links;
mod objects;
mod programs;
mod table;
mod values;

use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long one round may take.
const ROUND: Duration = Duration::from_millis(700);
/// How many processes of a round run at once: what harms others needs others.
const PROCESSES: u64 = 2;
/// How late a heart may beat, on any machine.
const LATE: Duration = Duration::from_secs(20);
/// Where a round may leave its files.
const SCRATCH: &str = "/tmp/fuzz";

/// What one process of a round does, from a seed.
type Attack<'a> = dyn Fn(u64) -> i32 + 'a;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        // What is executed in the middle of something.
        ["none"] => Ok(()),
        ["round", what, seed, rest @ ..] => attack(what, rest, |attack| round(number(seed)?, attack)),
        [what, seconds, seed, rest @ ..] => {
            attack(what, rest, |attack| rounds(number(seconds)?, number(seed)?, attack))
        }
        _ => Err("usage: fuzz calls SECONDS SEED TABLE | programs SECONDS SEED | frames SECONDS SEED | objects SECONDS SEED \
                  | round WHAT SEED [TABLE]"
            .to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("fuzz: {why}");
            ExitCode::FAILURE
        }
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|e| format!("{word}: {e}"))
}

fn attack(
    what: &str,
    rest: &[&str],
    run: impl FnOnce(&Attack<'_>) -> Result<(), String>,
) -> Result<(), String> {
    if std::process::id() != 1 {
        return Err("only as the first process of a sandbox: it would end all others".to_owned());
    }
    match (what, rest) {
        ("calls", [table]) => {
            let table = table::read(table)?;
            run(&|seed| calls::victim(seed, &table))
        }
        ("programs", []) => run(&programs::victim),
        ("frames", []) => run(&frames::victim),
        ("objects", []) => run(&objects::victim),
        _ => Err(format!("no such attack: {what}")),
    }
}

/// Rounds until `seconds` have passed. Says of which seed each is: the last one is where it ended, should it.
fn rounds(seconds: u64, seed: u64, attack: &Attack<'_>) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut count, mut seed) = (0_u64, seed);
    while Instant::now() < end {
        println!("round {seed}");
        round(seed, attack)?;
        seed = seed.wrapping_add(PROCESSES);
        count += 1;
    }
    println!("{count} rounds");
    if count == 0 { Err("there was no time for a single round".to_owned()) } else { Ok(()) }
}

/// Some processes do their worst; then none of them is left, and neither are their files.
fn round(seed: u64, attack: &Attack<'_>) -> Result<(), String> {
    // Root's rounds may have put something else in its place, or in that of the directory above.
    for place in ["/tmp", SCRATCH] {
        if !std::fs::symlink_metadata(place).is_ok_and(|found| found.is_dir()) {
            let _left = std::fs::remove_file(place);
        }
    }
    let _left = std::fs::remove_dir_all(SCRATCH);
    std::fs::create_dir_all(SCRATCH).map_err(|e| format!("{SCRATCH}: {e}"))?;
    for number in 0..PROCESSES {
        sys::fork(|| attack(seed.wrapping_add(number)))?;
    }
    let start = Instant::now();
    let mut left = PROCESSES;
    while left > 0 && start.elapsed() < ROUND {
        match sys::reap() {
            Some(_) => left -= 1,
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    let asked = start.elapsed();
    end_all()?;
    objects::clear();
    // What outlives its process, and may be there a few times only.
    for id in 0..16 {
        sys!(libc::SYS_shmctl, id, libc::IPC_RMID, 0);
        sys!(libc::SYS_msgctl, id, libc::IPC_RMID, 0);
        sys!(libc::SYS_semctl, id, 0, libc::IPC_RMID, 0);
    }
    if asked > ROUND + LATE { Err(format!("a beat {asked:?} late, seed {seed}")) } else { Ok(()) }
}

/// Who is left, and what he does.
fn left() -> String {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.parse::<u32>().is_ok_and(|pid| pid != 1).then_some(name)
    });
    let told = |pid: String| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let known = ["Name", "State", "PPid", "TracerPid", "NSpid", "Threads", "ShdPnd", "SigBlk"];
        let line =
            |name: &&str| status.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap_or("");
        known.iter().map(line).collect::<Vec<_>>().join(" ").replace('\t', "")
    };
    pids.map(told).collect::<Vec<_>>().join("; ")
}

/// Ends all processes but this one, and waits for them.
fn end_all() -> Result<(), String> {
    let start = Instant::now();
    loop {
        // All but process 1, which this is.
        sys!(libc::SYS_kill, -1, libc::SIGKILL);
        match sys!(libc::SYS_wait4, -1, 0, libc::WNOHANG, 0) {
            result if result == -i64::from(libc::ECHILD) => return Ok(()),
            0 => std::thread::sleep(Duration::from_millis(1)),
            _ => {}
        }
        if start.elapsed() > LATE {
            return Err(format!("processes live on {LATE:?} after SIGKILL: {}", left()));
        }
    }
}
