//! The process that keeps a detached container: the sandbox's parent, which reads what the program prints.

use super::log::Log;
use super::{ended, start};
use crate::oci::error::{Doing, Result};
use crate::oci::state::{self, Locked, State};
use crate::oci::{Global, args, client};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};

/// Keeps it to its end.
pub(in crate::oci) fn main(global: &Global, args: &args::Keep) -> Result<u8> {
    let mut report = client::inherited(args.report)?;
    // The terminal's keys are not for it.
    let _session = rustix::process::setsid();
    let begun = begin(global, args);
    let word = match &begun {
        Ok(_) => "running\n".to_owned(),
        Err(error) => format!("error\n{}", error.message),
    };
    // Who asked may have gone; the container stays, as it would have a moment later.
    let _gone = report.write_all(word.as_bytes());
    drop(report);
    // Who asked says why.
    let Ok((mut child, outputs, state)) = begun else { return Ok(1) };
    // Nothing of the caller's is held.
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        let _same = rustix::stdio::dup2_stderr(&null);
    }
    let _elsewhere = std::env::set_current_dir("/");
    record(outputs, Log::new(&args.state));
    let status = child.wait().doing(|| "waiting for the sandbox".to_owned())?;
    let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)) as u8;
    ended(global, &state.id, (state.pid, state.started), status, args.remove)?;
    Ok(0)
}

/// Starts it. Who asked for it holds the lock meanwhile.
fn begin(global: &Global, args: &args::Keep) -> Result<(Child, [OwnedFd; 2], State)> {
    let locked = Locked::held_by_caller(&args.state)?;
    let mut state = locked.load()?;
    if let Some(own) = &mut state.own {
        let pid = std::process::id() as i32;
        own.keeper = Some((pid, state::start_of(pid).unwrap_or(0)));
    }
    let stage = || "a pipe for the log".to_owned();
    let (out, to_out) = pipe_with(PipeFlags::CLOEXEC).doing(stage)?;
    let (err, to_err) = pipe_with(PipeFlags::CLOEXEC).doing(stage)?;
    let ends = std::cell::RefCell::new(vec![to_err, to_out]);
    let next = || ends.borrow_mut().pop().map_or_else(Stdio::null, Stdio::from);
    let child = start(global, &locked, &mut state, &args.words, next)?;
    drop(ends);
    Ok((child, [out, err], state))
}

/// Writes down all that comes until nobody can write any more. What the log cannot take is lost: nothing waits for it.
fn record(outputs: [OwnedFd; 2], mut log: Log) {
    let mut open: Vec<(u8, std::fs::File)> = (1..).zip(outputs.map(std::fs::File::from)).collect();
    let mut room = vec![0; 64 << 10];
    while !open.is_empty() {
        let mut polled: Vec<_> =
            open.iter().map(|(_, file)| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)).collect();
        match poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        open.retain_mut(|(stream, file)| {
            if !ready.next().unwrap_or(false) {
                return true;
            }
            match file.read(&mut room) {
                Ok(0) => false,
                Ok(count) => {
                    log.add(*stream, &room[..count]);
                    true
                }
                Err(error) => error.kind() == ErrorKind::Interrupted,
            }
        });
    }
}
