//! Looks at a sandbox from outside: `probe idle SECONDS CMD...`, `probe kill CMD...`, `probe hang CMD...`,
//! `probe verdict PILLBOX`, `probe permission PILLBOX`,
//! `probe posture PILLBOX PLATFORM`, `probe garbage ABI PILLBOX...`. Prints what it finds, and exits with 0 if that is as it must be.
//!
//! `probe events` is something to look at: a program whose event loop has nothing to do.

mod fuse;
mod garbage;
mod permission;
mod posture;
mod verdict;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::procs;

/// How long a sandbox may take to come to rest.
const START: Duration = Duration::from_secs(120);
/// How long it must have been at rest before it is looked at.
const REST: Duration = Duration::from_millis(700);
/// How long the rest of a sandbox may outlive one of its processes.
const LINGER: Duration = Duration::from_secs(1);
/// How long it may on a machine that has other things to do, and how often what should be quick is tried there.
const AT_LAST: Duration = Duration::from_secs(60);
const TRIES: u32 = 5;
/// `doctor` ends within this, whatever the device does.
const DOCTOR: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["idle", seconds, command @ ..] if !command.is_empty() => idle(seconds, command),
        ["kill", command @ ..] if !command.is_empty() => kill(command),
        ["hang", command @ ..] if !command.is_empty() => hang(command),
        ["verdict", pillbox] => verdict::check(pillbox),
        ["permission", pillbox] => permission::check(pillbox),
        ["posture", pillbox, platform] => posture::check(pillbox, platform),
        ["garbage", abi, pillbox @ ..] if !pillbox.is_empty() => garbage::check(abi, pillbox),
        ["events"] => events(),
        _ => Err("usage: probe idle SECONDS CMD... | kill CMD... | hang CMD... | verdict PILLBOX | \
                  permission PILLBOX | posture PILLBOX PLATFORM | garbage ABI PILLBOX... | events"
            .to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("probe: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Starts a command whose standard input stays open and silent.
fn start(command: &[&str], output: Stdio) -> Result<Child, String> {
    Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{}: {e}", command[0]))
}

/// Waits until nothing in the sandbox has run for a while, nor is about to, and says which processes it has.
fn at_rest(child: &mut Child) -> Result<BTreeSet<u32>, String> {
    let end = Instant::now() + START;
    let mut before = (BTreeSet::new(), Default::default());
    while Instant::now() < end {
        let family = procs::family(child.id());
        let now = (family.clone(), procs::switches(&family));
        if child.try_wait().map_err(|e| e.to_string())?.is_some() {
            return Err(format!("it ended: {}", errors(child)));
        }
        if now == before && procs::asleep(&family) {
            return Ok(family);
        }
        before = now;
        sleep(REST);
    }
    Err("it does not come to rest".to_owned())
}

fn errors(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _partial = stderr.read_to_string(&mut text);
    }
    text.trim().to_owned()
}

/// Ends a sandbox and everything it started.
fn end(child: &mut Child, family: &BTreeSet<u32>) {
    for &pid in family {
        signal_kill(pid);
    }
    let _status = child.wait();
}

fn signal_kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// No thread of an idle sandbox may run.
fn idle(seconds: &str, command: &[&str]) -> Result<(), String> {
    let seconds = seconds.parse().map_err(|e| format!("{seconds}: {e}"))?;
    let mut child = start(command, Stdio::null())?;
    let family = at_rest(&mut child)?;
    let before = procs::switches(&family);
    sleep(Duration::from_secs(seconds));
    let after = procs::switches(&procs::family(child.id()));
    end(&mut child, &family);
    println!("{} processes, {} threads, {seconds} s", family.len(), before.len());
    let woken: Vec<String> = after
        .iter()
        .filter(|(thread, count)| before.get(*thread) != Some(count))
        .map(|(thread, count)| format!("{thread}: {:?} -> {count}", before.get(thread)))
        .collect();
    if woken.is_empty() { Ok(()) } else { Err(format!("it ran: {}", woken.join(", "))) }
}

/// Whichever process of a sandbox is killed, all others end, and the caller learns of it.
fn kill(command: &[&str]) -> Result<(), String> {
    let (mut victim, mut late) = (0, 0);
    loop {
        let mut child = start(command, Stdio::null())?;
        let family = at_rest(&mut child)?;
        let Some(&pid) = family.iter().nth(victim) else {
            end(&mut child, &family);
            println!("{victim} processes, each killed once");
            return if victim > 0 { Ok(()) } else { Err("there was none".to_owned()) };
        };
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        signal_kill(pid);
        let start = Instant::now();
        let left = loop {
            // Reaps it, so that it is no longer found.
            let _running = child.try_wait();
            let left: Vec<u32> = family.iter().copied().filter(|pid| procs::alive(*pid)).collect();
            if left.is_empty() || start.elapsed() > AT_LAST {
                break left;
            }
            sleep(Duration::from_millis(10));
        };
        let took = start.elapsed();
        if !left.is_empty() {
            end(&mut child, &family);
            return Err(format!(
                "process {victim} ({}) killed, left behind: {left:?} of {family:?}",
                name.trim()
            ));
        }
        let status = child.wait().map_err(|e| e.to_string())?;
        let said = errors(&mut child);
        println!("process {victim}: {status}; {said}");
        if !told(status, &said) {
            return Err(format!("process {victim} ({}) killed, and all it says is {status}", name.trim()));
        }
        if took <= LINGER {
            (victim, late) = (victim + 1, 0);
        } else if late < TRIES {
            late += 1;
        } else {
            return Err(format!("process {victim} ({}) killed, the rest ends {took:?} later", name.trim()));
        }
    }
}

/// Killed itself, its program's status of SIGKILL, or an error of its own with a message.
fn told(status: ExitStatus, said: &str) -> bool {
    status.signal() == Some(9)
        || status.code() == Some(137)
        || (status.code() == Some(125) && !said.is_empty())
}

/// Runs a command, with `{}` for a device whose open(2) is never answered: it ends in time, if not each time on a machine
/// that has other things to do. (A process that hangs there cannot be killed.)
fn hang(command: &[&str]) -> Result<(), String> {
    let device = fuse::Hanging::new()?;
    let words: Vec<String> = command.iter().map(|word| word.replace("{}", &device.path())).collect();
    let mut took = Vec::new();
    let output = loop {
        let start = Instant::now();
        let output = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| e.to_string())?;
        took.push(start.elapsed());
        if start.elapsed() < DOCTOR || !output.status.success() {
            break output;
        }
        if took.len() >= TRIES as usize {
            return Err(format!("it took {took:?}"));
        }
    };
    std::io::stdout().write_all(&output.stdout).map_err(|e| e.to_string())?;
    if device.opened() == 0 {
        return Err("nobody opened the device".to_owned());
    }
    if output.status.success() { Ok(()) } else { Err(output.status.to_string()) }
}

/// Waits for events that do not come.
fn events() -> Result<(), String> {
    use rustix::event::epoll;
    let error = |e: rustix::io::Errno| e.to_string();
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(error)?;
    let (read, _write) = rustix::pipe::pipe().map_err(error)?;
    epoll::add(&set, &read, epoll::EventData::new_u64(1), epoll::EventFlags::IN).map_err(error)?;
    let mut buffer = Vec::with_capacity(4);
    epoll::wait(&set, rustix::buffer::spare_capacity(&mut buffer), None).map_err(error)?;
    Err("an event".to_owned())
}
