//! Everything at once for a long time: attacks on time, storms of forks, memory bombs, kills. At the end there is as much as in
//! the beginning: memory and tasks inside, descriptors, processes and threads on the host.
//!
//! Who soaks is a sandbox's first process. Twice, when nothing else runs, it says so ([`QUIET`]) and waits until somebody
//! outside has counted.

use crate::{bounds, storm, sys};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the soaking program says when it is alone.
const QUIET: &str = "quiet";
/// How many attack at a time.
const AT_ONCE: usize = 4;
/// How long they do, in milliseconds.
const ROUND: std::ops::Range<u64> = 200..1200;
const BEAT: Duration = Duration::from_millis(50);
/// How late a beat may be, with all of this on few CPUs that may have other things to do; and how late it is told of.
const LATE: Duration = Duration::from_secs(30);
const TOLD: Duration = Duration::from_secs(2);
/// How long it takes at most until all is given back.
const SETTLES: Duration = Duration::from_secs(20);
/// What may be kept: memory for the next time, KiB; descriptors of files that others may open again.
const KEPT_MEMORY: u64 = 40 << 10;
const KEPT_DESCRIPTORS: usize = 32;

/// Inside: soaks for some seconds, with these attacks all the time or with any.
///
/// # Errors
/// Something was lost, or a beat came much too late.
pub(crate) fn soak(seconds: &str, attacks: &[&str]) -> Result<(), String> {
    let time = Duration::from_secs(seconds.parse().map_err(|e| format!("{seconds}: {e}"))?);
    let all: Vec<_> = storm::usual().collect();
    let named = |name: &&str| {
        let found = all.iter().find(|attack| attack.name == *name).copied();
        found.ok_or_else(|| format!("no such attack: {name}"))
    };
    let attacks = attacks.iter().map(named).collect::<Result<Vec<_>, _>>()?;
    // What is kept for good is kept from the first time on.
    for attack in &all {
        round(&[*attack], Extra::None)?;
    }
    round(&[], Extra::Forks)?;
    round(&[], Extra::Bomb)?;
    let before = settled(0)?;
    tell_quiet()?;
    let (begun, mut rounds, mut late) = (Instant::now(), 0_u64, Duration::ZERO);
    while begun.elapsed() < time {
        let chosen = match attacks.as_slice() {
            [] => (0..AT_ONCE).filter_map(|_| fastrand::choice(&all).copied()).collect(),
            attacks => attacks.to_vec(),
        };
        let extra = [Extra::None, Extra::Forks, Extra::Bomb][fastrand::usize(..3)];
        let latest = round(&chosen, extra)?;
        if latest > TOLD {
            let names: Vec<_> = chosen.iter().map(|attack| attack.name).collect();
            eprintln!("hold: a beat {latest:?} late beside {names:?} and {extra:?}");
        }
        late = late.max(latest);
        rounds += 1;
    }
    let after = settled(before.free.saturating_sub(KEPT_MEMORY))?;
    tell_quiet()?;
    println!("{rounds} rounds; the latest beat {late:?} late; {before} before, {after} after");
    if after.tasks != before.tasks || after.free + KEPT_MEMORY < before.free {
        return Err("something was lost".to_owned());
    }
    if late > LATE { Err("a beat came too late".to_owned()) } else { Ok(()) }
}

/// What goes on beside the attacks.
#[derive(Clone, Copy, Debug)]
enum Extra {
    None,
    /// Children until there are no more tasks to be had.
    Forks,
    /// Memory until somebody is killed.
    Bomb,
}

/// Has some attack for a while, and ends them; the latest beat meanwhile.
fn round(attacks: &[&storm::Attack], extra: Extra) -> Result<Duration, String> {
    let mut groups = Vec::new();
    let mut start = |body: &dyn Fn() -> i32| -> Result<(), String> {
        let pid = sys::fork(|| {
            sys!(libc::SYS_setpgid, 0, 0);
            body()
        })?;
        sys!(libc::SYS_setpgid, pid, pid);
        groups.push(pid);
        Ok(())
    };
    for attack in attacks {
        start(&attack.run)?;
    }
    match extra {
        Extra::None => {}
        Extra::Forks => start(&forks)?,
        Extra::Bomb => start(&bomb)?,
    }
    let (begun, time) = (Instant::now(), Duration::from_millis(fastrand::u64(ROUND)));
    let mut late = Duration::ZERO;
    while begun.elapsed() < time {
        let start = Instant::now();
        std::thread::sleep(BEAT);
        late = late.max(start.elapsed().saturating_sub(BEAT));
        while sys::reap().is_some() {}
    }
    for group in groups {
        sys::kill(-group);
        sys::kill(group);
    }
    let begun = Instant::now();
    // The first process has all that is left.
    while sys!(libc::SYS_wait4, -1, 0, libc::WNOHANG, 0) >= 0 {
        if begun.elapsed() > SETTLES {
            return Err("somebody lives on after SIGKILL".to_owned());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(late)
}

fn forks() -> i32 {
    while sys::fork(|| {
        loop {
            std::thread::sleep(Duration::MAX);
        }
    })
    .is_ok()
    {}
    loop {
        std::thread::sleep(Duration::MAX);
    }
}

fn bomb() -> i32 {
    loop {
        bounds::touch(bounds::PIECE);
    }
}

/// What there is of the sandbox.
struct State {
    /// KiB of memory that are free, and that the kernel's heap has.
    free: u64,
    heap: u64,
    tasks: usize,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (free, heap) = (self.free >> 10, self.heap >> 10);
        write!(f, "{free} MiB free, {heap} MiB of heap and {} tasks", self.tasks)
    }
}

/// What there is once there is as much memory as that, or no more comes.
fn settled(free: u64) -> Result<State, String> {
    let begun = Instant::now();
    let mut state = state()?;
    let mut last = 0;
    while (state.free < free || state.free != last) && begun.elapsed() < SETTLES {
        last = state.free;
        std::thread::sleep(Duration::from_millis(300));
        state = self::state()?;
    }
    Ok(state)
}

fn state() -> Result<State, String> {
    let text = fs::read_to_string("/proc/meminfo").map_err(|e| e.to_string())?;
    let kib = |name: &str| -> Result<u64, String> {
        let of = |line: &str| line.strip_prefix(name)?.trim().split(' ').next()?.parse().ok();
        text.lines().find_map(of).ok_or_else(|| format!("no {name}"))
    };
    let names = fs::read_dir("/proc").map_err(|e| e.to_string())?;
    let tasks =
        names.flatten().filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok()).count();
    Ok(State { free: kib("MemFree:")?, heap: kib("Slab:")?, tasks })
}

/// Says that nothing else runs, and waits for an answer.
fn tell_quiet() -> Result<(), String> {
    println!("{QUIET}");
    std::io::stdout().flush().map_err(|e| e.to_string())?;
    std::io::stdin().lock().read_line(&mut String::new()).map(drop).map_err(|e| e.to_string())
}

/// Outside: runs a command that soaks, and counts what it has whenever it is quiet.
///
/// # Errors
/// It failed, or has more at the end than in the beginning.
pub(crate) fn watch(command: &[&str]) -> Result<(), String> {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{}: {e}", command[0]))?;
    let (Some(mut answers), Some(said)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("no pipes".to_owned());
    };
    let mut counted: Vec<Count> = Vec::new();
    for line in BufReader::new(said).lines() {
        let line = line.map_err(|e| e.to_string())?;
        if line == QUIET {
            counted.push(Count::of_descendants());
            writeln!(answers).map_err(|e| e.to_string())?;
        } else {
            println!("{line}");
        }
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    println!("on the host: {counted:?}");
    match counted.as_slice() {
        _ if !status.success() => Err(status.to_string()),
        [before, after] if after.is_no_more_than(before) => Ok(()),
        _ => Err("it has more than in the beginning".to_owned()),
    }
}

/// What a sandbox has of the host's.
#[derive(Debug)]
struct Count {
    descriptors: usize,
    processes: usize,
    threads: usize,
}

impl Count {
    /// Of all that descend from this process.
    fn of_descendants() -> Count {
        let mut parents = BTreeMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // Behind the name, which may have anything in it: the state, the parent.
            let parent =
                stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
            parent.map(|parent: u32| parents.insert(pid, parent));
        }
        let own = std::process::id();
        let descends = |pid: u32| {
            let above = std::iter::successors(parents.get(&pid), |parent| parents.get(parent));
            above.take(parents.len()).any(|parent| *parent == own)
        };
        let pids: Vec<u32> = parents.keys().copied().filter(|pid| descends(*pid)).collect();
        let count = |what: &str| -> usize {
            pids.iter()
                .map(|pid| fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count))
                .sum()
        };
        Count { descriptors: count("fd"), processes: pids.len(), threads: count("task") }
    }

    fn is_no_more_than(&self, before: &Count) -> bool {
        self.descriptors <= before.descriptors + KEPT_DESCRIPTORS
            && self.processes <= before.processes
            && self.threads <= before.threads
    }
}
