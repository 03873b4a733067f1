//! What a socket of ICMP does as a socket.

use super::IcmpSocket;
use crate::abi::{Errno, Result};
use crate::mm::{IoDst, IoSrc};
use crate::net::address::family_of;
use crate::net::inet::datagram::events;
use crate::net::inet::endpoint::shown;
use crate::net::inet::{ip, multicast};
use crate::net::options;
use crate::net::{Address, Answer, Connect, Core, How, Outgoing, Peer, Received, Socket, Value};
use crate::vfs::{Ioctl, Lookup};
use linux_raw_sys::general as c;
use linux_raw_sys::ioctl as i;
use linux_raw_sys::net as n;
use std::any::Any;

/// The level of raw sockets' options, and what there is at it (raw(7)).
const RAW: u32 = 255;
const ICMP_FILTER: u32 = 1;
const IPV6_CHECKSUM: u32 = 7;
/// Where the checksum of ICMPv6 is.
const CHECKSUM_AT: i32 = 2;
/// The level of ICMPv6 (RFC 3542); its filter.
const ICMPV6: u32 = 58;
const ICMPV6_FILTER: u32 = 1;

impl Socket for IcmpSocket {
    fn core(&self) -> &Core {
        &self.core
    }

    fn bind(&self, _: &Lookup<'_>, address: &[u8]) -> Result<()> {
        self.bind_to(address)
    }

    fn connect(&self, _: &Lookup<'_>, address: &[u8], _: &Peer, _: bool) -> Result<Connect> {
        match family_of(address) {
            None => return Err(Errno::EINVAL),
            Some(0) => self.state.lock().remote = None,
            Some(_) => self.associate(address)?,
        }
        Ok(Connect::Done)
    }

    fn send(&self, src: &mut IoSrc<'_>, message: &mut Outgoing<'_>) -> Result<usize> {
        self.send_message(src, message)
    }

    fn write(&self, src: &mut IoSrc<'_>) -> Result<usize> {
        self.send_message(src, &Outgoing::default())
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
        Address::Inet(shown(self.v6, self.local(&self.state.lock())))
    }

    fn peer_name(&self) -> Result<Address> {
        let remote = self.state.lock().remote.filter(|remote| remote.port() != 0);
        remote.map(|remote| Address::Inet(shown(self.v6, remote))).ok_or(Errno::ENOTCONN)
    }

    fn set_option(&self, by: &Lookup<'_>, level: u32, name: u32, value: &Value<'_>) -> Result<()> {
        match (level, name) {
            (n::SOL_SOCKET, _) => options::set(&self.core, &self.network, by.cred, name, value),
            (RAW, ICMP_FILTER) if self.is_raw() && !self.v6 => {
                let filter = value.bytes::<4>()?;
                self.state.lock().filter.0[..4].copy_from_slice(&filter);
                Ok(())
            }
            // It is where it is.
            (RAW, IPV6_CHECKSUM) if self.is_raw() && self.v6 => match value.int()? {
                CHECKSUM_AT => Ok(()),
                _ => Err(Errno::EINVAL),
            },
            (ICMPV6, ICMPV6_FILTER) if self.is_raw() && self.v6 => {
                let filter = value.bytes::<32>()?;
                self.state.lock().filter.0 = filter;
                Ok(())
            }
            (ip::IPV6 | ip::IP, _) if multicast::knows(level, name) && (level == ip::IP || self.v6) => {
                let device = self.core.options.lock().device;
                let whose = multicast::Whose { network: &self.network, ino: self.core.ino, device };
                self.state.lock().groups.set(&whose, level, name, value)
            }
            (ip::IPV6, _) if self.v6 => self.state.lock().ip.set(by.cred, false, level, name, value),
            (ip::IP, _) => self.state.lock().ip.set(by.cred, false, level, name, value),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn option(&self, level: u32, name: u32, room: usize) -> Result<Answer> {
        let state = self.state.lock();
        match (level, name) {
            (n::SOL_SOCKET, _) => {
                drop(state);
                options::get(self, &self.network, name, room)
            }
            (RAW, ICMP_FILTER) if self.is_raw() && !self.v6 => {
                Ok(Answer::Value(state.filter.0[..4].to_vec()))
            }
            (RAW, IPV6_CHECKSUM) if self.is_raw() && self.v6 => Ok(Answer::int(CHECKSUM_AT)),
            (ICMPV6, ICMPV6_FILTER) if self.is_raw() && self.v6 => Ok(Answer::Value(state.filter.0.to_vec())),
            (ip::IPV6 | ip::IP, _) if multicast::knows(level, name) && (level == ip::IP || self.v6) => {
                state.groups.get(level, name).map(Answer::Value).ok_or(Errno::ENOPROTOOPT)
            }
            (ip::IPV6, _) if self.v6 => state.ip.get(level, name, room, state.remote.is_some()),
            (ip::IP, _) => state.ip.get(level, name, room, state.remote.is_some()),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn take_error(&self) -> Option<Errno> {
        self.ways().iter().find_map(|(_, way)| way.take_error())
    }

    fn poll(&self) -> u32 {
        let state = self.state.lock();
        let mut events = events(&state.queue, state.shut);
        drop(state);
        for (_, way) in self.ways() {
            events |= way.poll() & (c::POLLIN | c::POLLRDNORM | c::POLLERR);
        }
        events
    }

    fn ioctl(&self, call: &Ioctl<'_>) -> Result<u64> {
        let value = match call.request {
            i::FIONREAD if self.is_raw() => {
                let _ = self.fetch();
                self.state.lock().queue.first().map_or(0, |first| first.bytes.len())
            }
            // What was sent is with whoever reads it.
            i::TIOCOUTQ if self.is_raw() => 0,
            _ => return crate::net::ifreq::ioctl(&self.network, call),
        };
        call.mm.write_val(call.arg, &(value as i32))?;
        Ok(0)
    }

    fn release(&self) {
        let mut state = self.state.lock();
        state.groups.leave_all(&self.network, self.core.ino);
        let gone = (state.hold.take(), std::mem::take(&mut state.outside));
        drop(state);
        drop(gone);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
