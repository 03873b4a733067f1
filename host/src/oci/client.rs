//! Requests to a running sandbox (see [`crate::sandbox::control`]).

use super::error::{Doing, Error, Result};
use super::state::CONTROL;
use crate::hostfd::HostFd;
use crate::sandbox::control::{Asked, MOST, Reply, Request};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr};
use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long either side waits for the other in the middle of a request.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest answer, bytes.
const LONGEST: u32 = 64 << 20;

/// The socket's name below a state directory, however long that one's is (unix(7): 107 bytes at most).
fn name(dir: &File) -> String {
    format!("/proc/self/fd/{}/{CONTROL}", dir.as_raw_fd())
}

/// Makes the socket that requests come from.
pub(super) fn listen(dir: &Path) -> Result<UnixDatagram> {
    let opened = File::open(dir).doing(|| format!("state directory {}", dir.display()))?;
    UnixDatagram::bind(name(&opened)).doing(|| format!("a socket in {}", dir.display()))
}

/// Who is asked.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// The state directory of the sandbox.
    pub(super) dir: PathBuf,
    /// The container that it is about; the sandbox's first where none is named.
    pub(super) of: Option<String>,
}

/// Sends a request with descriptors. The answers come from the stream.
pub(super) fn send(to: &Address, what: Request, fds: &[BorrowedFd<'_>]) -> Result<UnixStream> {
    let dir = &to.dir;
    let stage = || "asking the sandbox".to_owned();
    let (ours, theirs) = UnixStream::pair().doing(stage)?;
    theirs.set_read_timeout(Some(PATIENCE)).doing(stage)?;
    theirs.set_write_timeout(Some(PATIENCE)).doing(stage)?;
    let opened = File::open(dir).doing(|| format!("state directory {}", dir.display()))?;
    let address = SocketAddrUnix::new(name(&opened)).doing(stage)?;
    let socket = UnixDatagram::unbound().doing(stage)?;
    let all: Vec<_> = std::iter::once(theirs.as_fd()).chain(fds.iter().copied()).collect();
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if all.len() > MOST || !control.push(SendAncillaryMessage::ScmRights(&all)) {
        return Err(Error::new("asking the sandbox: too many descriptors"));
    }
    sendmsg_addr(&socket, &address, &[IoSlice::new(b"r")], &mut control, SendFlags::empty())
        .map_err(|_| Error::new("container not running: its sandbox does not answer"))?;
    drop(theirs);
    write(&ours, &Asked { of: to.of.clone(), what })?;
    Ok(ours)
}

/// Writes a request to a stream.
pub(super) fn write(stream: &UnixStream, asked: &Asked) -> Result<()> {
    let stage = || "asking the sandbox".to_owned();
    let text = serde_json::to_vec(asked).doing(stage)?;
    let mut message = (text.len() as u32).to_le_bytes().to_vec();
    message.extend(text);
    (&*stream).write_all(&message).doing(stage)
}

/// A stream that another process of ours has made, and named by its number.
pub(super) fn inherited(fd: i32) -> Result<UnixStream> {
    let stream = HostFd::inherited(fd, "another process").and_then(HostFd::hand_over);
    stream.map(UnixStream::from).doing(|| "a stream from another process".to_owned())
}

/// The next answer; none where the sandbox has gone.
pub(super) fn receive(stream: &UnixStream) -> Option<Reply> {
    let mut length = [0; 4];
    (&*stream).read_exact(&mut length).ok()?;
    let length = u32::from_le_bytes(length);
    if length > LONGEST {
        return None;
    }
    let mut text = vec![0; length as usize];
    (&*stream).read_exact(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Sends a request and returns its one answer.
pub(super) fn ask(to: &Address, what: Request) -> Result<Reply> {
    let stream = send(to, what, &[])?;
    stream.set_read_timeout(Some(PATIENCE)).doing(|| "asking the sandbox".to_owned())?;
    match receive(&stream) {
        Some(Reply::Failed(_, message)) => Err(Error::new(message)),
        Some(reply) => Ok(reply),
        None => Err(Error::new("container not running: its sandbox did not answer")),
    }
}
