//! What a UDP socket does as a socket.

use super::{UDP_CORK, UDP_GRO, UDP_SEGMENT, UdpSocket};
use crate::abi::{Errno, Result};
use crate::mm::{IoDst, IoSrc};
use crate::net::address::family_of;
use crate::net::inet::datagram::events;
use crate::net::inet::multicast::{self, Whose};
use crate::net::inet::{UDP_LEVEL, ip};
use crate::net::options;
use crate::net::{Address, Answer, Connect, Core, How, Outgoing, Peer, Received, Socket, Value};
use crate::vfs::{Ioctl, Lookup};
use linux_raw_sys::general as c;
use linux_raw_sys::ioctl as i;
use linux_raw_sys::net as n;
use std::any::Any;

impl Socket for UdpSocket {
    fn core(&self) -> &Core {
        &self.core
    }

    fn bind(&self, by: &Lookup<'_>, address: &[u8]) -> Result<()> {
        self.bind_to(by.cred, address)
    }

    fn connect(&self, _: &Lookup<'_>, address: &[u8], _: &Peer, _: bool) -> Result<Connect> {
        match family_of(address) {
            None => return Err(Errno::EINVAL),
            Some(0) => self.dissociate(),
            Some(_) => self.associate(address)?,
        }
        Ok(Connect::Done)
    }

    fn send(&self, src: &mut IoSrc<'_>, message: &mut Outgoing<'_>) -> Result<usize> {
        self.send_datagram(src, message)
    }

    fn write(&self, src: &mut IoSrc<'_>) -> Result<usize> {
        self.send_datagram(src, &Outgoing::default())
    }

    fn receive(&self, dst: &mut IoDst<'_>, how: How) -> Result<Received> {
        self.take(dst, how)
    }

    fn shutdown(&self, read: bool, write: bool) -> Result<()> {
        let mut state = self.state.lock();
        state.shut = (state.shut.0 | read, state.shut.1 | write);
        let connected = state.remote.is_some();
        drop(state);
        self.core.wait.notify(c::POLLIN | c::POLLOUT | c::POLLHUP | c::POLLRDHUP);
        if connected { Ok(()) } else { Err(Errno::ENOTCONN) }
    }

    fn name(&self) -> Address {
        let local = self.state.lock().local;
        self.shown(local)
    }

    fn peer_name(&self) -> Result<Address> {
        let remote = self.state.lock().remote.ok_or(Errno::ENOTCONN)?;
        // Nobody in particular is nobody.
        if remote.port() == 0 { Err(Errno::ENOTCONN) } else { Ok(self.shown(Some(remote))) }
    }

    fn set_option(&self, by: &Lookup<'_>, level: u32, name: u32, value: &Value<'_>) -> Result<()> {
        match level {
            n::SOL_SOCKET => {
                options::set(&self.core, &self.network, by.cred, name, value)?;
                let options = *self.core.options.lock();
                if let Some(hold) = &self.state.lock().hold {
                    hold.set_options(&options);
                }
                self.tell_outside(name);
                Ok(())
            }
            UDP_LEVEL => self.set_udp_option(name, value),
            ip::IP | ip::IPV6 if multicast::knows(level, name) && (level == ip::IP || self.v6) => {
                let device = self.core.options.lock().device;
                let whose = Whose { network: &self.network, ino: self.core.ino, device };
                self.set_told(|state| state.groups.set(&whose, level, name, value))
            }
            ip::IPV6 | ip::IP if level == ip::IP || self.v6 => self.set_told(|state| {
                let bound = (level, name) == (ip::IPV6, ip::name::IPV6_V6ONLY) && state.hold.is_some();
                if bound && value.len >= 4 {
                    return Err(Errno::EINVAL);
                }
                state.ip.set(by.cred, false, level, name, value)
            }),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn option(&self, level: u32, name: u32, room: usize) -> Result<Answer> {
        match level {
            n::SOL_SOCKET => options::get(self, &self.network, name, room),
            UDP_LEVEL => {
                let state = self.state.lock();
                Ok(Answer::int(match name {
                    UDP_CORK => state.cork.into(),
                    UDP_SEGMENT => state.segment.into(),
                    UDP_GRO => state.gro.into(),
                    _ => return Err(Errno::ENOPROTOOPT),
                }))
            }
            ip::IPV6 | ip::IP if multicast::knows(level, name) && (level == ip::IP || self.v6) => {
                self.group_option(level, name)
            }
            ip::IPV6 | ip::IP if level == ip::IP || self.v6 => {
                let state = self.state.lock();
                state.ip.get(level, name, room, state.remote.is_some())
            }
            _ => Err(if self.v6 { Errno::ENOPROTOOPT } else { Errno::EOPNOTSUPP }),
        }
    }

    fn take_error(&self) -> Option<Errno> {
        let mut state = self.state.lock();
        let (own, ways) = (state.error.take(), state.ways());
        drop(state);
        own.or_else(|| ways.iter().find_map(|way| way.take_error()))
    }

    fn poll(&self) -> u32 {
        let state = self.state.lock();
        let mut events = events(&state.queue, state.shut);
        if state.error.is_some() || !state.failures.is_empty() {
            events |= c::POLLERR;
        }
        let ways = state.ways();
        drop(state);
        for way in ways {
            events |= way.poll() & (c::POLLIN | c::POLLRDNORM | c::POLLERR);
        }
        events
    }

    fn ioctl(&self, call: &Ioctl<'_>) -> Result<u64> {
        let value = match call.request {
            i::FIONREAD => self.first_len(),
            // What was sent is with whoever reads it.
            i::TIOCOUTQ => 0,
            _ => return crate::net::ifreq::ioctl(&self.network, call),
        };
        call.mm.write_val(call.arg, &(value as i32))?;
        Ok(0)
    }

    fn release(&self) {
        let mut state = self.state.lock();
        state.groups.leave_all(&self.network, self.core.ino);
        let gone = (state.hold.take(), state.outside.take(), std::mem::take(&mut state.peers));
        drop(state);
        drop(gone);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl UdpSocket {
    /// How long the datagram is that is read next.
    fn first_len(&self) -> usize {
        let state = self.state.lock();
        if let Some(first) = state.queue.first() {
            return first.bytes.len();
        }
        let ways = state.ways();
        drop(state);
        ways.iter().filter_map(|way| way.count(i::FIONREAD).ok()).find(|count| *count > 0).unwrap_or(0)
            as usize
    }

    fn set_udp_option(&self, name: u32, value: &Value<'_>) -> Result<()> {
        let value = value.int()?;
        let mut state = self.state.lock();
        match name {
            UDP_CORK => {
                state.cork = value != 0;
                drop(state);
                if value == 0 { self.flush() } else { Ok(()) }
            }
            UDP_SEGMENT => {
                state.segment = u16::try_from(value).map_err(|_| Errno::EINVAL)?;
                Ok(())
            }
            UDP_GRO => {
                state.gro = value != 0;
                Ok(())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }
}
