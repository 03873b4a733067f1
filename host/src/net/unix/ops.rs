//! What a Unix socket does as a socket.

use super::names::path_of;
use super::send::Message;
use super::{IN, OUT, Role, UnixSocket};
use crate::abi::{Errno, Result};
use crate::mm::{IoDst, IoSrc};
use crate::net::address::family_of;
use crate::net::message::MSG_OOB;
use crate::net::options;
use crate::net::{Address, Answer, Connect, Core, Creds, How, Kind, Outgoing, Peer, Received, Socket, Value};
use crate::vfs::{Carrier, File, Ioctl, Lookup, Parcel};
use linux_raw_sys::general as c;
use linux_raw_sys::ioctl as i;
use linux_raw_sys::net as n;
use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A sender who was not noted: users and groups that have no number here.
const UNKNOWN: Creds = Creds { pid: 0, uid: 65534, gid: 65534 };

impl Socket for UnixSocket {
    fn core(&self) -> &Core {
        &self.core
    }

    fn bind(&self, by: &Lookup<'_>, address: &[u8]) -> Result<()> {
        self.bind_to(by, path_of(address)?)
    }

    fn listen(&self, backlog: i32, peer: Peer) -> Result<()> {
        self.start_listening(backlog, peer)
    }

    fn accept(&self) -> Result<Arc<dyn Socket>> {
        Ok(self.next_connection()?)
    }

    fn connect(&self, by: &Lookup<'_>, address: &[u8], peer: &Peer, _: bool) -> Result<Connect> {
        if family_of(address) == Some(0) && self.core.kind == Kind::Datagram {
            self.disconnect();
            return Ok(Connect::Done);
        }
        let name = path_of(address)?;
        if name.is_empty() {
            return Err(Errno::EINVAL);
        }
        let target = self.find(by, name)?;
        match self.connect_to(&target, peer.clone()) {
            Ok(()) => Ok(Connect::Done),
            Err(Errno::EAGAIN) => Ok(Connect::Full(target)),
            Err(errno) => Err(errno),
        }
    }

    fn send(&self, src: &mut IoSrc<'_>, message: &mut Outgoing<'_>) -> Result<usize> {
        if message.flags & MSG_OOB != 0 && (self.core.kind != Kind::Stream || src.remaining() == 0) {
            return Err(Errno::EOPNOTSUPP);
        }
        if let Some(to) = message.to.filter(|to| message.target.is_none() && !to.address.bytes().is_empty()) {
            message.target = self.destination(to.by, to.address.bytes())?;
        }
        let target = message.target.clone();
        let target = target.as_ref().and_then(|target| target.as_any().downcast_ref::<UnixSocket>());
        let target = target.and_then(|target| target.me.upgrade());
        self.send_to(src, target.as_ref(), message)
    }

    fn write(&self, src: &mut IoSrc<'_>) -> Result<usize> {
        self.send_to(src, None, &mut Outgoing::default())
    }

    fn receive(&self, dst: &mut IoDst<'_>, how: How) -> Result<Received> {
        if how.flags & MSG_OOB != 0 {
            return self.receive_urgent(dst, how);
        }
        let mut received = self.take(dst, how.peek())?;
        received.creds = match self.pass_creds.load(Ordering::Relaxed) {
            true => Some(received.creds.unwrap_or(UNKNOWN)),
            false => None,
        };
        Ok(received)
    }

    fn shutdown(&self, read: bool, write: bool) -> Result<()> {
        self.shut(read, write);
        Ok(())
    }

    fn name(&self) -> Address {
        Address::Unix(self.known_name())
    }

    fn peer_name(&self) -> Result<Address> {
        Ok(Address::Unix(self.known_peer_name()?))
    }

    fn accepted_from(&self) -> Address {
        Address::Unix(self.known_peer_name().unwrap_or(None))
    }

    fn peer(&self) -> Option<Peer> {
        self.state.lock().peer_creds.clone()
    }

    fn set_option(&self, by: &Lookup<'_>, level: u32, name: u32, value: &Value<'_>) -> Result<()> {
        if level != n::SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        if name == n::SO_PASSCRED {
            self.pass_creds.store(value.int()? != 0, Ordering::Relaxed);
            return Ok(());
        }
        options::set(&self.core, &self.network, by.cred, name, value)?;
        if matches!(name, n::SO_SNDBUF | n::SO_SNDBUFFORCE) {
            self.send_buffer_changed();
        }
        Ok(())
    }

    fn option(&self, level: u32, name: u32, room: usize) -> Result<Answer> {
        if level != n::SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        match name {
            n::SO_PASSCRED => Ok(Answer::int(self.pass_creds.load(Ordering::Relaxed).into())),
            n::SO_PEERGROUPS => options::peer_groups(self, room),
            _ => options::get(self, &self.network, name, room),
        }
    }

    fn take_error(&self) -> Option<Errno> {
        self.state.lock().error.take()
    }

    fn is_listening(&self) -> bool {
        matches!(self.state.lock().role, Role::Listening { .. })
    }

    fn poll(&self) -> u32 {
        let state = self.state.lock();
        let mut events = 0;
        if !state.queue.is_empty() || state.read_shut {
            events |= IN;
        }
        if state.urgent.is_some() {
            events |= c::POLLPRI;
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
                if self.core.kind != Kind::Datagram {
                    events |= c::POLLHUP;
                }
                None
            }
            Role::Connected { peer } if self.core.kind == Kind::Datagram => peer.upgrade(),
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
        if self.has_room() {
            return events | OUT;
        }
        self.lacks_space();
        // It may have come meanwhile.
        if self.has_room() { events | OUT } else { events }
    }

    fn ioctl(&self, call: &Ioctl<'_>) -> Result<u64> {
        let value = match call.request {
            i::FIONREAD | i::TIOCOUTQ if self.is_listening() => return Err(Errno::EINVAL),
            i::FIONREAD => self.state.lock().unread(self.core.kind),
            i::TIOCOUTQ => self.charged() as usize,
            i::SIOCATMARK if self.core.kind != Kind::Stream => return Err(Errno::EOPNOTSUPP),
            i::SIOCATMARK => self.state.lock().at_mark().into(),
            // Libraries ask any socket for names of interfaces.
            _ => return crate::net::ifreq::ioctl(&self.network, call),
        };
        call.mm.write_val(call.arg, &(value as i32))?;
        Ok(0)
    }

    fn carrier(&self) -> Option<&dyn Carrier> {
        Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl UnixSocket {
    /// The socket that a message is addressed to; none where the connection says it.
    fn destination(&self, by: &Lookup<'_>, address: &[u8]) -> Result<Option<Arc<dyn Socket>>> {
        match self.core.kind {
            Kind::Stream if self.is_connected() => Err(Errno::EISCONN),
            Kind::Stream => Err(Errno::EOPNOTSUPP),
            Kind::SeqPacket => Ok(None),
            Kind::Datagram | Kind::Raw => {
                let name = path_of(address)?;
                if name.is_empty() {
                    return Err(Errno::EINVAL);
                }
                Ok(Some(self.find(by, name)?))
            }
        }
    }

    fn is_connected(&self) -> bool {
        matches!(self.state.lock().role, Role::Connected { .. })
    }

    /// Calls `each` with the messages that wait here, and with those that wait at connections that were not accepted.
    fn each_queue(&self, each: &mut dyn FnMut(&mut VecDeque<Message>)) {
        let mut state = self.state.lock();
        each(&mut state.queue);
        let pending: Vec<Arc<UnixSocket>> = match &state.role {
            Role::Listening { pending, .. } => pending.iter().cloned().collect(),
            _ => Vec::new(),
        };
        drop(state);
        for socket in pending {
            each(&mut socket.state.lock().queue);
        }
    }
}

impl Carrier for UnixSocket {
    fn show(&self, see: &mut dyn FnMut(&Arc<File>)) {
        self.each_queue(&mut |queue| {
            queue
                .iter()
                .filter_map(|message| message.files.as_ref())
                .flat_map(Parcel::files)
                .for_each(&mut *see);
        });
    }

    fn unload(&self) -> Vec<Parcel> {
        let mut all = Vec::new();
        self.each_queue(&mut |queue| all.extend(queue.iter_mut().filter_map(|message| message.files.take())));
        all
    }
}
