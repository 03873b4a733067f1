//! An open socket as a file.

use super::{Extra, IN, Kind, OUT, Role, UnixSocket};
use crate::abi::{Errno, Result};
use crate::mm::{IoDst, IoSrc};
use crate::sync::WaitQueue;
use crate::vfs::{FileOps, Ioctl, Stat, makedev};
use linux_raw_sys::general as c;
use linux_raw_sys::ioctl as i;
use std::any::Any;

/// `st_dev` of sockets.
const SOCK_DEV: u64 = makedev(0, 8);

impl FileOps for UnixSocket {
    fn read(&self, dst: &mut IoDst<'_>, offset: Option<u64>) -> Result<usize> {
        if offset.is_some() {
            return Err(Errno::ESPIPE);
        }
        // Unlike recv(2), read(2) of nothing neither waits nor takes a message.
        if dst.remaining() == 0 {
            return Ok(0);
        }
        Ok(self.receive(dst, false)?.count)
    }

    /// For the kernel's own copying (sendfile): programs' writes say who writes, and go through sendmsg's way.
    fn write(&self, src: &mut IoSrc<'_>, offset: Option<u64>) -> Result<usize> {
        if offset.is_some() {
            return Err(Errno::ESPIPE);
        }
        self.send(src, None, &mut Extra::default())
    }

    fn names_writer(&self) -> bool {
        true
    }

    fn poll(&self) -> u32 {
        let state = self.state.lock();
        let mut events = 0;
        if !state.queue.is_empty() || state.read_shut {
            events |= IN;
        }
        if state.error.is_some() {
            events |= c::POLLERR;
        }
        if state.read_shut {
            events |= c::POLLRDHUP;
        }
        if state.read_shut && state.write_shut {
            events |= c::POLLHUP;
        }
        let peer = match &state.role {
            Role::Listening { pending, .. } => {
                return if pending.is_empty() { events } else { events | IN };
            }
            Role::Fresh => {
                if self.kind != Kind::Datagram {
                    events |= c::POLLHUP;
                }
                None
            }
            Role::Connected { peer } if self.kind == Kind::Datagram => peer.upgrade(),
            Role::Connected { .. } => None,
        };
        drop(state);
        if let Some(peer) = peer {
            let mut state = peer.state.lock();
            if state.is_full_for(self) {
                state.stall(self);
                return events;
            }
        }
        if self.has_room() { events | OUT } else { events }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.wait)
    }

    fn stat(&self) -> Option<Stat> {
        Some(Stat {
            dev: SOCK_DEV,
            ino: self.ino,
            mode: c::S_IFSOCK | 0o777,
            nlink: 1,
            blksize: 4096,
            ..Stat::default()
        })
    }

    fn ioctl(&self, call: &Ioctl<'_>) -> Result<u64> {
        let value = match call.request {
            i::FIONREAD | i::TIOCOUTQ if self.is_listening() => return Err(Errno::EINVAL),
            i::FIONREAD => {
                let state = self.state.lock();
                match self.kind {
                    Kind::Datagram => state.queue.front().map_or(0, |message| message.len()),
                    Kind::Stream | Kind::SeqPacket => state.queue.iter().map(|message| message.len()).sum(),
                }
            }
            i::TIOCOUTQ => self.charged() as usize,
            _ => return Err(Errno::ENOTTY),
        };
        call.mm.write_val(call.arg, &(value as i32))?;
        Ok(0)
    }

    fn describe(&self) -> String {
        format!("socket:[{}]", self.ino)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
