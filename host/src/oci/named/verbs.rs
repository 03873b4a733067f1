//! `logs`, `ps`, `stop`, `rm`.

use super::Own;
use super::log::Reader;
use crate::oci::error::{Doing, Error, Result};
use crate::oci::state::{self, Locked, State, Status};
use crate::oci::{Global, args, client, pod};
use crate::sandbox::control::Request;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

const SIGTERM: i32 = 15;
/// How often somebody who follows or waits looks again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the end of a keeper is waited for when its sandbox has ended.
const KEEPER: Duration = Duration::from_secs(2);

/// `logs`.
pub(in crate::oci) fn logs(global: &Global, args: &args::Logs) -> Result<u8> {
    let locked = Locked::open(global, &args.id)?;
    let state = locked.load()?;
    let dir = locked.path.clone();
    drop(locked);
    if state.own.as_ref().is_none_or(|own| own.keeper.is_none()) {
        return Err(Error::new(format!("{}: no log is kept of it: only `run -d` has one", args.id)));
    }
    let mut reader = Reader::open(&dir);
    let mut each = |stream: u8, bytes: &[u8]| match stream {
        2 => std::io::stderr().write_all(bytes),
        _ => std::io::stdout().write_all(bytes),
    };
    loop {
        // Asked first: what is printed before the end is read after it.
        let done = !args.follow || !is_kept(&dir);
        if reader.read(&mut each).is_err() {
            // Who reads has gone.
            return Ok(0);
        }
        let _closed = std::io::stdout().flush();
        if done {
            return Ok(0);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether somebody still writes its log.
fn is_kept(dir: &std::path::Path) -> bool {
    let own = state::load(dir).ok().and_then(|state| state.own);
    own.is_some_and(|own| own.ended.is_none() && keeper_lives(&own))
}

fn keeper_lives(own: &Own) -> bool {
    own.keeper.is_some_and(|(pid, started)| state::start_of(pid) == Some(started))
}

/// `ps` of all containers.
pub(in crate::oci) fn list(global: &Global, all: bool, quiet: bool) -> Result<u8> {
    let mut found: Vec<State> = state::all(global);
    found.retain(|state| all || matches!(state.status(), Status::Running | Status::Paused));
    let mut out = std::io::stdout().lock();
    if !quiet {
        let _closed = writeln!(out, "{:<20} {:<30} {:<16} STATUS", "NAME", "COMMAND", "CREATED");
    }
    for state in found {
        let command = state.own.as_ref().map_or("(a bundle)", |own| own.command.as_str());
        let created = humantime::parse_rfc3339(&state.created).ok().map(since).unwrap_or_default();
        let short: String = command.chars().take(30).collect();
        // Nobody is left to tell when stdout is gone.
        let _closed = match quiet {
            true => writeln!(out, "{}", state.id),
            false => writeln!(out, "{:<20} {short:<30} {created:<16} {}", state.id, status(&state)),
        };
    }
    Ok(0)
}

fn status(state: &State) -> String {
    match state.status() {
        Status::Creating | Status::Created => "Created".to_owned(),
        Status::Running => "Up".to_owned(),
        Status::Paused => "Up (Paused)".to_owned(),
        Status::Stopped => match &state.own {
            Some(Own { ended: Some(status), finished, .. }) => {
                let at = SystemTime::UNIX_EPOCH + Duration::from_secs(*finished);
                format!("Exited ({status}) {}", since(at))
            }
            _ => "Exited".to_owned(),
        },
    }
}

/// How long ago that was.
fn since(then: SystemTime) -> String {
    let seconds = SystemTime::now().duration_since(then).map_or(0, |since| since.as_secs());
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// `stop`.
pub(in crate::oci) fn stop(global: &Global, args: &args::Stop) -> Result<u8> {
    each(&args.ids, |id| stop_one(global, id, Duration::from_secs(args.time)))
}

fn stop_one(global: &Global, id: &str, patience: Duration) -> Result<()> {
    let locked = Locked::open(global, id)?;
    let state = locked.load()?;
    let (address, dir) = (pod::address(&locked.path, &state), locked.path.clone());
    if state.status() == Status::Paused {
        state.cgroup.freeze(false)?;
    }
    // It may end meanwhile.
    let _ended = match state.status() {
        Status::Running => client::ask(&address, Request::Signal(SIGTERM)).map(drop),
        _ => Ok(()),
    };
    drop(locked);
    let end = Instant::now() + patience;
    while state.status() == Status::Running && Instant::now() < end {
        std::thread::sleep(PAUSE);
    }
    state.kill()?;
    // Its keeper notes how it ended, and its foreground command does.
    let end = Instant::now() + KEEPER;
    while is_kept(&dir) && Instant::now() < end {
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// `rm`.
pub(in crate::oci) fn remove(global: &Global, args: &args::Remove) -> Result<u8> {
    each(&args.ids, |id| {
        if !args.force && state::load(&global.root.join(id)).is_ok_and(|state| state.is_alive()) {
            return Err(Error::new(format!(
                "cannot remove container {id}, which is running: `stop` it first, or `rm -f`"
            )));
        }
        state::check_id(id)?;
        crate::oci::verbs::remove(global, id, args.force).map(drop)
    })
}

/// Does it for each, and prints the names of those that it was done for, as docker does.
fn each(ids: &[String], mut body: impl FnMut(&str) -> Result<()>) -> Result<u8> {
    let mut failed = Vec::new();
    for id in ids {
        match body(id) {
            Ok(()) => writeln!(std::io::stdout(), "{id}").doing(|| "standard output".to_owned())?,
            Err(error) => failed.push(error.message),
        }
    }
    if failed.is_empty() { Ok(0) } else { Err(Error::new(failed.join("; "))) }
}
