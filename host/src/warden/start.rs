//! Starting a warden: this program once more, with a connection as its standard input and the log as its output.

use super::wire::{self, DESCRIPTORS, Setup};
use crate::hostfd::HostFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The verb by which this program is a warden.
pub const VERB: &str = "warden";
/// After how long a warden that does not answer is taken for dead.
const PATIENCE: Duration = Duration::from_secs(10);

fn pair(flags: SocketFlags) -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags | SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Starts a warden that `count` threads can ask at once, by what is returned.
///
/// # Errors
/// The host's.
pub fn start(setup: &Setup, log: Option<HostFd>, count: usize) -> io::Result<Vec<HostFd>> {
    let (own, its) = pair(SocketFlags::empty())?;
    let log =
        log.map(HostFd::hand_over).transpose().map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
    // (No more than posix_spawn(3) can do: a fork would lack the memory that is not its own to copy.)
    let mut command = Command::new("/proc/self/exe");
    command.arg(VERB).env_clear().stdin(Stdio::from(its));
    command.stdout(log.map_or_else(Stdio::null, Stdio::from));
    drop(command.spawn()?);
    // What the command still has of the other end.
    drop(command);
    let mut ends = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..count.max(1) {
        let (end, other) = pair(SocketFlags::empty())?;
        sockopt::set_socket_timeout(&end, sockopt::Timeout::Recv, Some(PATIENCE))?;
        ends.push(HostFd::given(end, "the warden").map_err(|errno| io::Error::from_raw_os_error(errno.0))?);
        theirs.push(other);
    }
    for part in theirs.chunks(DESCRIPTORS) {
        let with: Vec<_> = part.iter().map(AsFd::as_fd).collect();
        wire::send(&own, setup, &with)?;
    }
    Ok(ends)
}
