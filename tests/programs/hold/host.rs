//! A host that takes nothing: a call that it does not come back from.
//!
//! An event counter near its end is writable for poll(2), knows no RWF_NOWAIT, and keeps whoever adds more to it than it has
//! room for, until somebody reads it.

use crate::{fuse, silence};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long the host takes nothing, and how long it then takes all.
const KEEPS: Duration = Duration::from_secs(2);
const TAKES: Duration = Duration::from_millis(300);
const LOOK: Duration = Duration::from_millis(2);

/// Runs a command whose standard input is such a counter.
///
/// # Errors
/// The command could not be started, or failed.
pub(crate) fn stubborn(command: &[&str]) -> Result<(), String> {
    let counter =
        rustix::event::eventfd(1, rustix::event::EventfdFlags::CLOEXEC).map_err(|e| e.to_string())?;
    let input = counter.try_clone().map_err(|e| e.to_string())?;
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::from(input))
        .spawn()
        .map_err(|e| format!("{}: {e}", command[0]))?;
    let over = AtomicBool::new(false);
    let status = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(KEEPS);
                for _ in 0..TAKES.as_millis() / LOOK.as_millis() {
                    take(counter.as_raw_fd());
                    std::thread::sleep(LOOK);
                }
            }
        });
        let status = child.wait();
        over.store(true, Ordering::Relaxed);
        status
    });
    let status = status.map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

/// Empties the counter, if there is anything in it.
fn take(counter: i32) {
    let mut poll = libc::pollfd { fd: counter, events: libc::POLLIN, revents: 0 };
    if sys!(libc::SYS_ppoll, &raw mut poll, 1, [0_u64; 2].as_ptr(), 0) == 1 {
        let mut value = 0_u64;
        sys!(libc::SYS_read, counter, &raw mut value, 8);
    }
}

/// Has the host keep whoever this is, again and again.
pub(crate) fn kept() -> i32 {
    let most = u64::MAX - 1;
    loop {
        if sys!(libc::SYS_write, 0, &raw const most, 8) != 8 {
            return 1;
        }
    }
}

/// Runs a command that finds the path of a file in its environment that its host does not answer for.
///
/// # Errors
/// There is no such file to be had, or the command failed.
pub(crate) fn silent(command: &[&str]) -> Result<(), String> {
    let silent = fuse::Silent::mount()?;
    let status = Command::new(command[0]).args(&command[1..]).env(silence::PATH, silent.file()).status();
    let status = status.map_err(|e| format!("{}: {e}", command[0]))?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}
