//! What all terminals have in common: reads that wait as their settings say, and the job control of who uses them.

use super::hostterm::HostTerminal;
use super::pty::{Pace, Slave};
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::kernel::signal::{SIGTTIN, SIGTTOU};
use crate::kernel::{Current, Kernel};
use crate::mm::IoDst;
use crate::vfs::{Caller, File, FileOps, Ioctl};
use linux_raw_sys::general as c;
use linux_raw_sys::ioctl as i;

/// Nanoseconds in what VTIME counts.
const TENTH: u64 = 100_000_000;

/// The side of a terminal that programs use.
pub trait Terminal: FileOps {
    /// Its device number.
    fn number(&self) -> u64;

    /// Reads what is there: at most one line, where lines are edited. 0 is an end of file.
    ///
    /// # Errors
    /// EAGAIN when there is nothing yet.
    fn take(&self, dst: &mut IoDst<'_>) -> Result<usize>;

    /// How long reads wait.
    fn pace(&self) -> Pace;

    /// TOSTOP.
    fn stops_background_writes(&self) -> bool;
}

/// The terminal that an open file is.
pub fn of(file: &File) -> Option<&dyn Terminal> {
    let pty = file.downcast::<Slave>().map(|slave| slave as &dyn Terminal);
    pty.or_else(|| file.downcast::<HostTerminal>().map(|host| host as &dyn Terminal))
}

/// read(2): stops a background process; waits for VMIN bytes, for VTIME after each, or for VTIME at most (termios(3),
/// "Canonical and noncanonical mode").
///
/// # Errors
/// EAGAIN with `nowait`, ERESTARTSYS, EIO.
pub fn read(cur: &mut Current, terminal: &dyn Terminal, dst: &mut IoDst<'_>, nowait: bool) -> Result<usize> {
    cur.kernel.check_terminal(&cur.task, terminal.number(), SIGTTIN)?;
    if dst.remaining() == 0 {
        return Ok(0);
    }
    let pace = terminal.pace();
    let pause = pace.time * TENTH;
    let enough = if pace.canonical { 1 } else { pace.min.max(1) };
    // Without a minimum the time counts from the beginning; with one, from each byte.
    let mut deadline = None;
    if !pace.canonical && pace.min == 0 {
        deadline = Some(crate::time::monotonic_ns() + pause);
    }
    let mut done = 0;
    loop {
        let mut attempt = || match terminal.take(dst) {
            Err(Errno::EAGAIN) => None,
            other => Some(other),
        };
        let expired = deadline.is_some_and(|deadline| crate::time::monotonic_ns() >= deadline);
        let result = match attempt() {
            Some(result) => result,
            None if expired => return Ok(done),
            None if nowait => Err(Errno::EAGAIN),
            None => {
                let Some(queue) = terminal.wait_queue() else { return Err(Errno::EAGAIN) };
                let events = c::POLLIN | c::POLLHUP | c::POLLERR;
                match cur.wait_on(&[(queue, events)], deadline, &mut attempt) {
                    Err(Errno::ETIMEDOUT) => return Ok(done),
                    other => other.and_then(|result| result),
                }
            }
        };
        match result {
            Ok(0) => return Ok(done),
            Ok(count) => done += count,
            Err(_) if done > 0 => return Ok(done),
            Err(errno) => return Err(errno),
        }
        if done >= enough || dst.remaining() == 0 {
            return Ok(done);
        }
        if pause > 0 {
            deadline = Some(crate::time::monotonic_ns() + pause);
        }
    }
}

/// Before write(2): stops a background process where the terminal is set so.
///
/// # Errors
/// ERESTARTSYS, EIO.
pub fn check_write(cur: &Current, terminal: &dyn Terminal) -> Result<()> {
    if terminal.stops_background_writes() {
        cur.kernel.check_terminal(&cur.task, terminal.number(), SIGTTOU)?;
    }
    Ok(())
}

/// What a caller calls the process, group or session `id`.
fn called(kernel: &Kernel, caller: Caller, id: i32) -> Result<i32> {
    Ok(kernel.task(caller.tid).ok_or(Errno::ESRCH)?.group.pids.number_of(id))
}

/// The ioctls about sessions and foreground groups of terminal `tty`, from its side or its master's; `None` for others.
pub fn job_control(kernel: &Kernel, tty: u64, call: &Ioctl<'_>, master: bool) -> Option<Result<u64>> {
    let (mm, arg, caller) = (call.mm, call.arg, call.caller);
    // Who holds the master may ask about any session; others about their own.
    let allowed = || if master { Ok(()) } else { kernel.must_control(caller, tty) };
    let result = match call.request {
        i::TIOCGPGRP => allowed()
            .and_then(|()| {
                kernel.terminal_tie(tty).map_or(Ok(0), |tie| called(kernel, caller, tie.foreground))
            })
            .and_then(|group| mm.write_val(arg, &group)),
        i::TIOCGSID => allowed()
            .and_then(|()| kernel.terminal_tie(tty).ok_or(Errno::ENOTTY))
            .and_then(|tie| called(kernel, caller, tie.sid))
            .and_then(|sid| mm.write_val(arg, &sid)),
        i::TIOCSPGRP => match kernel.may_change_terminal(caller, tty) {
            Err(Errno::EIO) => Err(Errno::ENOTTY),
            Err(errno) => Err(errno),
            Ok(()) => mm.read_val(arg).and_then(|group| kernel.set_foreground(caller, tty, group)),
        },
        i::TIOCSCTTY => kernel.acquire_terminal(caller.pid, tty, arg == 1 && call.cred.has(Caps::SYS_ADMIN)),
        i::TIOCNOTTY if master => Err(Errno::ENOTTY),
        i::TIOCNOTTY => kernel.give_up_terminal(caller.pid, tty),
        _ => return None,
    };
    Some(result.map(|()| 0))
}
