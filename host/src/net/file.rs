//! A socket as an open file.

use super::Socket;
use crate::abi::{Errno, Result};
use crate::mm::{IoDst, IoSrc};
use crate::sync::{Rank, WaitQueue};
use crate::vfs::{Carrier, File, FileOps, Ioctl, LockSlot, Stat, makedev};
use linux_raw_sys::general as c;
use std::any::Any;
use std::sync::Arc;

/// `st_dev` of sockets.
const SOCK_DEV: u64 = makedev(0, 8);

/// An open socket. Its end is the socket's [release](Socket::release).
pub struct SocketFile {
    socket: Arc<dyn Socket>,
    locks: LockSlot,
}

impl SocketFile {
    /// An open file for a socket; of `flags` O_NONBLOCK counts.
    pub fn open(socket: Arc<dyn Socket>, flags: u32) -> Arc<File> {
        File::anon(
            Arc::new(SocketFile { socket, locks: LockSlot::new(Rank::FileLockSlot, None) }),
            c::O_RDWR | flags & c::O_NONBLOCK,
        )
    }

    /// The socket.
    #[inline]
    pub fn socket(&self) -> &Arc<dyn Socket> {
        &self.socket
    }
}

impl FileOps for SocketFile {
    fn read(&self, dst: &mut IoDst<'_>, offset: Option<u64>) -> Result<usize> {
        if offset.is_some() {
            return Err(Errno::ESPIPE);
        }
        // Unlike recv(2), read(2) of nothing neither waits nor takes a message.
        if dst.remaining() == 0 {
            return Ok(0);
        }
        self.socket.read(dst)
    }

    /// For the kernel's own copying (sendfile): programs' writes say who writes, and go through sendmsg's way.
    fn write(&self, src: &mut IoSrc<'_>, offset: Option<u64>) -> Result<usize> {
        if offset.is_some() {
            return Err(Errno::ESPIPE);
        }
        self.socket.write(src)
    }

    fn names_writer(&self) -> bool {
        true
    }

    fn poll(&self) -> u32 {
        self.socket.poll()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.socket.core().wait)
    }

    fn stat(&self) -> Option<Stat> {
        Some(Stat {
            dev: SOCK_DEV,
            ino: self.socket.core().ino,
            mode: c::S_IFSOCK | 0o777,
            nlink: 1,
            blksize: 4096,
            ..Stat::default()
        })
    }

    fn ioctl(&self, call: &Ioctl<'_>) -> Result<u64> {
        self.socket.ioctl(call)
    }

    fn sends_signals(&self) -> bool {
        true
    }

    fn carrier(&self) -> Option<&dyn Carrier> {
        self.socket.carrier()
    }

    fn magic(&self) -> u64 {
        0x534f_434b
    }

    fn lock_slot(&self) -> Option<&LockSlot> {
        Some(&self.locks)
    }

    fn describe(&self) -> String {
        format!("socket:[{}]", self.socket.core().ino)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.socket.release();
    }
}
