//! The commands on a container that there is.

use super::args::{self, Global};
use super::error::{Doing, Error, Result};
use super::state::{self, Locked, Status};
use super::{client, hooks, log, named, pod, spec};
use crate::sandbox::control::{Reply, Request};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, Spec};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// What a limit on memory leaves to programs: the rest is what they cannot be charged for.
const OURS: u64 = 16 << 20;
/// SIGKILL, SIGSTOP.
const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;
/// How long the end of what was killed is waited for before more is done.
const PATIENCE: Duration = Duration::from_secs(5);

fn print(text: &str) -> Result<u8> {
    // Nobody is left to tell when stdout is gone.
    let _closed = writeln!(std::io::stdout(), "{text}");
    Ok(0)
}

/// `start`.
pub(super) fn start(global: &Global, id: &str) -> Result<u8> {
    let locked = Locked::open(global, id)?;
    let mut state = locked.load()?;
    match state.status() {
        Status::Created => {}
        Status::Stopped => {
            return Err(Error::new(format!("cannot start a container that has stopped: {id}")));
        }
        _ => return Err(Error::new(format!("container {id} has been started already"))),
    }
    client::ask(&pod::address(&locked.path, &state), Request::Start)?;
    state.start_requested = true;
    locked.save(&state)?;
    if let Some(all) = state::config(&locked.path)?.hooks() {
        let ran = hooks::run("poststart", all.poststart().as_ref(), &state.shown(Status::Running));
        if let Err(error) = ran {
            // As the specification has it: it is said, and the container goes on.
            log::warning(global, &error.message);
        }
    }
    Ok(0)
}

/// `state`.
pub(super) fn state(global: &Global, id: &str) -> Result<u8> {
    let state = Locked::open(global, id)?.load()?;
    let shown = serde_json::to_string_pretty(&state.shown(state.status()));
    print(&shown.doing(|| "the state".to_owned())?)
}

/// `kill`.
pub(super) fn kill(global: &Global, args: &args::Kill) -> Result<u8> {
    let signo = signal(&args.signal)?;
    let locked = Locked::open(global, &args.id)?;
    let state = locked.load()?;
    let status = state.status();
    if status == Status::Stopped {
        // All of none are told.
        return if args.all { Ok(0) } else { Err(Error::new("container not running")) };
    }
    let address = pod::address(&locked.path, &state);
    if signo == SIGKILL || status == Status::Created {
        // In another's kernel what is inside is told first, and ends before the process that waits for it does.
        let inside = status == Status::Running && state.sandbox.is_some();
        if !inside || client::ask(&address, Request::Signal(SIGKILL)).is_err() {
            state.signal(SIGKILL)?;
        }
        return Ok(0);
    }
    if signo == SIGSTOP {
        return Err(Error::new("signal STOP: `pause` stops a container"));
    }
    client::ask(&address, Request::Signal(signo)).map(|_| 0)
}

/// A signal's number, by number or name.
fn signal(text: &str) -> Result<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = NAMES.iter().position(|known| *known == name).map(|at| at as i32 + 1);
    let real_time = || match name.strip_prefix("RTMIN+") {
        Some(more) => more.parse::<i32>().ok().map(|more| 34 + more),
        None => (name == "RTMIN").then_some(34),
    };
    let numbered = name.parse::<i32>().ok();
    numbered
        .or(named)
        .or_else(real_time)
        .filter(|signo| (1..=64).contains(signo))
        .ok_or_else(|| Error::new(format!("signal {text}: there is none of that name")))
}

/// `delete`.
pub(super) fn delete(global: &Global, args: &args::Delete) -> Result<u8> {
    remove(global, &args.id, args.force)
}

/// Removes what a container has outside.
pub(super) fn remove(global: &Global, id: &str, force: bool) -> Result<u8> {
    let locked = match Locked::open(global, id) {
        Ok(locked) => locked,
        Err(_) if force && !global.root.join(id).exists() => return Ok(0),
        Err(error) => return Err(error),
    };
    remove_locked(global, locked, force)
}

/// The same of one that is locked.
pub(super) fn remove_locked(global: &Global, locked: Locked, force: bool) -> Result<u8> {
    let state = locked.load()?;
    let id = &state.id;
    match state.status() {
        Status::Stopped => {}
        // One that was never started can go: runc's `delete` does that, too.
        Status::Created => state.kill()?,
        _ if force => end(&locked, &state)?,
        status => {
            let status = serde_json::to_value(status).unwrap_or_default();
            return Err(Error::new(format!(
                "cannot delete container {id} that is not stopped: {}",
                status.as_str().unwrap_or_default()
            )));
        }
    }
    let removed = state.cgroup.remove();
    if let Ok(config) = state::config(&locked.path)
        && let Some(all) = config.hooks()
        && let Err(error) = hooks::run("poststop", all.poststop().as_ref(), &state.shown(Status::Stopped))
    {
        log::warning(global, &error.message);
    }
    locked.remove()?;
    removed.map(|()| 0)
}

/// Kills one that runs, and waits for its end.
fn end(locked: &Locked, state: &state::State) -> Result<()> {
    let address = pod::address(&locked.path, state);
    if address.of.is_some() {
        state.cgroup.freeze(false).ok();
        let _thawed = client::ask(&address, Request::Freeze(false));
        if client::ask(&address, Request::Signal(SIGKILL)).is_ok() {
            let until = Instant::now() + PATIENCE;
            while state.is_alive() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
    state.kill()
}

/// `ps`.
pub(super) fn ps(global: &Global, args: &args::Ps) -> Result<u8> {
    let Some(id) = &args.id else { return named::list(global, args.all, args.quiet) };
    let locked = Locked::open(global, id)?;
    let state = locked.load()?;
    if !matches!(state.status(), Status::Running | Status::Paused) {
        return Err(Error::new("container not running"));
    }
    if args.format == "json" {
        return print(&format!("[{}]", state.pid));
    }
    let Reply::Processes(all) = client::ask(&pod::address(&locked.path, &state), Request::Processes)? else {
        return Err(Error::new("the sandbox answered something else"));
    };
    let mut text = format!("{:<8} {:>7} {:>7} CMD", "UID", "PID", "PPID");
    for process in all {
        text += &format!("\n{:<8} {:>7} {:>7} {}", process.uid, process.pid, process.parent, process.name);
    }
    print(&text)
}

/// `descriptors`: what the sandbox's process has open on the host, and how it could be opened again.
pub(super) fn descriptors(global: &Global, id: &str) -> Result<u8> {
    let locked = Locked::open(global, id)?;
    let state = locked.load()?;
    if !matches!(state.status(), Status::Running | Status::Paused) {
        return Err(Error::new("container not running"));
    }
    match client::ask(&pod::address(&locked.path, &state), Request::Descriptors)? {
        Reply::Descriptors(all) => print(&all.join("\n")),
        _ => Err(Error::new("the sandbox answered something else")),
    }
}

/// `list`.
pub(super) fn list(global: &Global, args: &args::List) -> Result<u8> {
    let all = state::all(global);
    if args.quiet {
        for state in &all {
            print(&state.id)?;
        }
        return Ok(0);
    }
    if args.format == "json" {
        let shown: Vec<_> = all.iter().map(|state| state.shown(state.status())).collect();
        return print(&serde_json::Value::from(shown).to_string());
    }
    print(&format!("{:<20} {:>8} {:<9} {:<40} CREATED", "ID", "PID", "STATUS", "BUNDLE"))?;
    for state in &all {
        let status = state.status();
        let pid = if status == Status::Stopped { 0 } else { state.pid };
        let word = serde_json::to_value(status).unwrap_or_default();
        let (word, bundle) = (word.as_str().unwrap_or_default(), state.bundle.display().to_string());
        print(&format!("{:<20} {pid:>8} {word:<9} {bundle:<40} {}", state.id, state.created))?;
    }
    Ok(0)
}

/// `pause`, `resume`.
pub(super) fn pause(global: &Global, id: &str, paused: bool) -> Result<u8> {
    let locked = Locked::open(global, id)?;
    let state = locked.load()?;
    match (state.status(), paused) {
        (Status::Running, true) | (Status::Paused, false) => {
            let address = pod::address(&locked.path, &state);
            if address.of.is_some() {
                client::ask(&address, Request::Freeze(paused))?;
            }
            state.cgroup.freeze(paused).map(|()| 0)
        }
        (_, true) => Err(Error::new(format!("container {id} is not running"))),
        (_, false) => Err(Error::new(format!("container {id} is not paused"))),
    }
}

/// `events`.
pub(super) fn events(global: &Global, args: &args::Events) -> Result<u8> {
    loop {
        let locked = Locked::open(global, &args.id)?;
        let state = locked.load()?;
        if state.status() == Status::Stopped {
            return if args.stats { Err(Error::new("container not running")) } else { Ok(0) };
        }
        let data = usage(&locked, &state);
        drop(locked);
        let event = serde_json::json!({ "type": "stats", "id": args.id, "data": data });
        print(&event.to_string())?;
        if args.stats {
            return Ok(0);
        }
        std::thread::sleep(args.interval);
    }
}

/// What a container uses: in another's kernel that is not what its control group outside holds.
fn usage(locked: &Locked, state: &state::State) -> serde_json::Value {
    let mut all = state.cgroup.usage();
    let address = pod::address(&locked.path, state);
    if address.of.is_some()
        && let Ok(Reply::Usage(inside)) = client::ask(&address, Request::Usage)
    {
        all["cpu"]["usage"]["total"] = inside.cpu_ns.into();
        all["memory"]["usage"]["usage"] = inside.memory.into();
        all["pids"]["current"] = inside.tasks.into();
    }
    all
}

/// `update`.
pub(super) fn update(global: &Global, args: &args::Update) -> Result<u8> {
    let resources = resources(args)?;
    let locked = Locked::open(global, &args.id)?;
    let state = locked.load()?;
    if state.status() == Status::Stopped {
        return Err(Error::new("container not running"));
    }
    state.cgroup.apply(&resources)?;
    let positive =
        |limit: Option<i64>| limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0);
    let memory = positive(resources.memory().and_then(|memory| memory.limit()));
    let tasks = positive(resources.pids().map(|pids| pids.limit()));
    let address = pod::address(&locked.path, &state);
    // The sandbox kills at its own limit before the host does at its.
    let inside = |limit: u64| match address.of {
        Some(_) => limit,
        None => limit.saturating_sub(OURS + limit / 32).max(OURS),
    };
    if state.status() == Status::Running && (memory.is_some() || tasks.is_some()) {
        client::ask(&address, Request::Limits { memory: memory.map(inside), tasks })?;
    }
    Ok(0)
}

fn resources(args: &args::Update) -> Result<LinuxResources> {
    if let Some(path) = &args.resources {
        let stage = || format!("reading {}", path.display());
        let mut text = Vec::new();
        if path.as_os_str() == "-" {
            std::io::stdin().read_to_end(&mut text).doing(stage)?;
        } else {
            text = std::fs::read(path).doing(stage)?;
        }
        return serde_json::from_slice(&text).doing(stage);
    }
    let mut all = LinuxResources::default();
    all.set_devices(None);
    if args.memory.is_some() {
        let mut memory = LinuxMemory::default();
        memory.set_limit(args.memory);
        all.set_memory(Some(memory));
    }
    let mut cpu = LinuxCpu::default();
    cpu.set_quota(args.cpu_quota).set_period(args.cpu_period).set_shares(args.cpu_share);
    all.set_cpu(Some(cpu));
    if let Some(limit) = args.pids_limit {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        all.set_pids(Some(pids));
    }
    Ok(all)
}

/// `spec`.
pub(super) fn spec(args: &args::Spec) -> Result<u8> {
    let path = args.bundle.join("config.json");
    if path.exists() {
        return Err(Error::new(format!("{} exists already", path.display())));
    }
    let mut spec = Spec::default();
    if let Some(process) = spec.process_mut() {
        process.set_args(Some(vec!["sh".to_owned()])).set_terminal(Some(true));
    }
    let text = serde_json::to_string_pretty(&spec).doing(|| "config.json".to_owned())?;
    std::fs::write(&path, text + "\n").doing(|| format!("writing {}", path.display()))?;
    Ok(0)
}

/// `features`.
pub(super) fn features() -> Result<u8> {
    let capabilities = spec::NAMES.map(|name| format!("CAP_{name}")).to_vec();
    print(
        &serde_json::json!({
            "ociVersionMin": "1.0.0",
            "ociVersionMax": "1.2.0",
            "hooks": ["prestart", "createRuntime", "createContainer", "poststart", "poststop"],
            "mountOptions": [
                "ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "bind", "rbind", "tmpcopyup",
            ],
            "linux": {
                "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "uts"],
                "capabilities": capabilities,
                "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false },
                "seccomp": { "enabled": false },
                "apparmor": { "enabled": false },
                "selinux": { "enabled": false },
            },
            "potentiallyUnsafeConfigAnnotations": [],
        })
        .to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::signal;

    #[test]
    fn signals_have_names_and_numbers() {
        let of = |text: &str| signal(text).ok();
        assert_eq!(
            (of("TERM"), of("sigkill"), of("10"), of("SIGRTMIN+3")),
            (Some(15), Some(9), Some(10), Some(37))
        );
        assert_eq!((of("0"), of("65"), of("NONE"), of("")), (None, None, None, None));
    }
}
