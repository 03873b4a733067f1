//! Terminals: one is made outside, its master goes to the engine, its slave into the sandbox.

use super::error::{Doing, Error, Result};
use oci_spec::runtime::Box as Size;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Makes a terminal, sends its master to a socket, and returns its slave.
pub(super) fn make(socket: &Path, size: Option<&Size>) -> Result<OwnedFd> {
    let stage = || "making a terminal".to_owned();
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).doing(stage)?;
    grantpt(&master).doing(stage)?;
    unlockpt(&master).doing(stage)?;
    let name = ptsname(&master, Vec::new()).doing(stage)?;
    if let Some(size) = size {
        let winsize =
            Winsize { ws_row: size.height() as u16, ws_col: size.width() as u16, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, winsize).doing(stage)?;
    }
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let slave = rustix::fs::open(&*name, flags, rustix::fs::Mode::empty()).doing(stage)?;
    send(socket, &master, name.to_bytes())?;
    Ok(slave)
}

/// As runc does: one message, with the terminal's name and the descriptor.
fn send(socket: &Path, master: &OwnedFd, name: &[u8]) -> Result<()> {
    let stage = || format!("console socket {}", socket.display());
    let stream = UnixStream::connect(socket).doing(stage)?;
    let fds = [master.as_fd()];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Error::new(format!("{}: no room for a descriptor", stage())));
    }
    sendmsg(&stream, &[IoSlice::new(name)], &mut control, SendFlags::empty()).doing(stage)?;
    Ok(())
}

/// Another description of the terminal that `fd` is, which does not block, for a sandbox alone.
pub(super) fn description(fd: impl AsFd) -> Result<OwnedFd> {
    let stage = || "opening the terminal".to_owned();
    let name = rustix::termios::ttyname(fd, Vec::new()).doing(stage)?;
    let flags = rustix::fs::OFlags::RDWR
        | rustix::fs::OFlags::NOCTTY
        | rustix::fs::OFlags::NONBLOCK
        | rustix::fs::OFlags::CLOEXEC;
    let name = std::ffi::OsStr::from_bytes(name.to_bytes());
    rustix::fs::open(name, flags, rustix::fs::Mode::empty()).doing(stage)
}
