//! User pages that the host itself reads and writes.

use crate::abi::Result;
use crate::hostfd::HostFd;
use crate::mm::{frames, raw};
use crate::platform::Frame;

/// User pages held in place while the host reads or writes them directly.
#[derive(Default)]
pub struct Pinned {
    pub(super) pieces: Vec<(u64, usize)>,
    frames: Vec<Frame>,
    pub(super) len: usize,
}

impl Pinned {
    /// Arena address and length of each piece, in order: what a host `preadv` or `pwritev` takes. Empty if nothing
    /// could be held (a page of a host file): copy instead.
    pub fn pieces(&self) -> &[(u64, usize)] {
        &self.pieces
    }

    /// Bytes in all pieces.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Lets the host read from `file` into the pieces, at `offset` or at the descriptor's own position.
    ///
    /// # Errors
    /// What the host returned.
    pub fn read_from(&self, file: &HostFd, offset: Option<u64>) -> Result<usize> {
        raw::preadv(file.raw(), &self.pieces, offset)
    }

    /// Lets the host write the pieces to `file`, at `offset` or at the descriptor's own position.
    ///
    /// # Errors
    /// What the host returned.
    pub fn write_to(&self, file: &HostFd, offset: Option<u64>) -> Result<usize> {
        raw::pwritev(file.raw(), &self.pieces, offset)
    }

    /// Lets the host send the pieces through a socket, to `name` if that is not empty.
    ///
    /// # Errors
    /// What the host returned.
    pub fn send_to(&self, socket: &HostFd, name: &[u8], flags: u32) -> Result<usize> {
        raw::send(socket, &self.pieces, name, flags)
    }

    /// Lets the host receive into the pieces from a socket.
    ///
    /// # Errors
    /// What the host returned.
    pub fn receive_from(&self, socket: &HostFd, flags: u32) -> Result<usize> {
        raw::receive(socket, &self.pieces, flags)
    }

    pub(super) fn push(&mut self, frame: Frame, offset: u64, len: u64) {
        let at = frame.0 + offset;
        self.frames.push(frame);
        self.len += len as usize;
        match self.pieces.last_mut() {
            Some((start, size)) if *start + *size as u64 == at => *size += len as usize,
            _ => self.pieces.push((at, len as usize)),
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        frames::put_many(&self.frames);
    }
}
