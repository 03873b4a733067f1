//! A step on this machine, which ends in time whatever it leaves behind.
//!
//! `timeout(1)` is not enough: it is stopped with the group that a program stops, and who waits for the end of an output
//! waits for every process that still holds it. Here the deadline is ours, and at the end of a step all that descends from
//! it is killed, told by name if the deadline had to come.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, wait};

use crate::guest::{Outcome, Step, job::TIMED_OUT};
use crate::procs;

/// How often the end of a step is looked for: short beside what the shortest takes.
const LOOK: Duration = Duration::from_millis(5);

/// Runs `step` with an empty standard input, for `limit` at most.
///
/// # Errors
///
/// What could not be started, and why.
pub fn run(step: &Step, limit: Duration) -> Result<Outcome, String> {
    let Some((program, arguments)) = step.argv.split_first() else {
        return Err("nothing to run".to_owned());
    };
    // Orphans come to us instead of to the machine's first process, so that they are found. (The kernel looks at
    // whether there is a process, not at which.)
    set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|e| format!("prctl(PR_SET_CHILD_SUBREAPER): {e}"))?;
    let mut command = Command::new(program);
    command.args(arguments).envs(step.env.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|e| format!("{program}: {e}"))?;
    let outcome = attend(&mut child, Instant::now() + limit);
    end_descendants();
    // Orphans are ours to bury; the child itself has been.
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    outcome.map_err(|e| format!("{program}: {e}"))
}

/// Waits for the end of `child` and of its output, or for the deadline.
fn attend(child: &mut Child, deadline: Instant) -> io::Result<Outcome> {
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let mut status = None;
    while status.is_none() && Instant::now() < deadline {
        status = child.try_wait()?;
        if status.is_none() {
            thread::sleep(LOOK);
        }
    }
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut late = status.is_none();
    for (from, into) in [(&stdout, &mut out), (&stderr, &mut err)] {
        // A short time even behind the deadline: it may all be there.
        let left = deadline.saturating_duration_since(Instant::now()).max(LOOK);
        match from.recv_timeout(left) {
            Ok(all) => *into = all?,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => late = true,
        }
    }
    if late {
        let mut said = format!("the deadline passed; then there were:\n{}", descendants());
        end_descendants();
        let _ended = child.wait()?;
        for (from, into) in [(&stdout, &mut out), (&stderr, &mut err)] {
            if let Ok(Ok(all)) = from.recv_timeout(Duration::from_secs(10)) {
                *into = all;
            }
        }
        said.push_str(&String::from_utf8_lossy(&err));
        return Ok(Outcome { stdout: out, stderr: said.into_bytes(), status: TIMED_OUT });
    }
    let status =
        status.map_or(TIMED_OUT, |status| status.code().unwrap_or(128 + status.signal().unwrap_or(0)));
    Ok(Outcome { stdout: out, stderr: err, status })
}

/// Reads all of an output beside whatever else happens.
fn collect(output: Option<impl Read + Send + 'static>) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (done, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut all = Vec::new();
        let read = output.map_or(Ok(0), |mut output| output.read_to_end(&mut all));
        // Nobody waits any more if the deadline passed.
        let _gone = done.send(read.map(|_| all));
    });
    receiver
}

/// The processes below this one.
fn below() -> BTreeSet<u32> {
    let own = std::process::id();
    let mut all = procs::family(own);
    all.remove(&own);
    all
}

/// A line of each process below this one: number, name, state, and where it waits.
fn descendants() -> String {
    let mut said = String::new();
    for pid in below() {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let state = procs::state_and_parent(pid).map_or('?', |(state, _)| state);
        let (name, waits, call) = (read("comm"), read("wchan"), read("syscall"));
        let _infallible = writeln!(said, "  {pid} {} {state} in {waits}, call {}", name.trim(), call.trim());
    }
    said
}

/// Kills what is below this process, and what that made meanwhile.
fn end_descendants() {
    for _ in 0..1000 {
        let left = below();
        if left.is_empty() {
            return;
        }
        for pid in left {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // It may have ended by itself.
                let _gone = kill_process(pid, Signal::KILL);
            }
        }
        thread::sleep(LOOK);
    }
}
