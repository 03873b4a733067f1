//! What a netlink socket does as a socket.

use super::NetlinkSocket;
use crate::abi::{Errno, Result};
use crate::mm::{IoDst, IoSrc};
use crate::net::address::family_of;
use crate::net::message::{MSG_ERRQUEUE, MSG_OOB, MSG_PEEK, MSG_TRUNC};
use crate::net::{Address, Answer, Connect, Core, How, Outgoing, Peer, Received, Socket, Value, options};
use crate::vfs::{Ioctl, Lookup};
use linux_raw_sys::general as c;
use linux_raw_sys::net as n;
use std::any::Any;

/// SOL_NETLINK.
const LEVEL: u32 = 270;
/// NETLINK_ADD_MEMBERSHIP, NETLINK_DROP_MEMBERSHIP, NETLINK_LIST_MEMBERSHIPS.
const ADD: u32 = 1;
const DROP: u32 = 2;
const LIST: u32 = 9;
/// NETLINK_PKTINFO, _BROADCAST_ERROR, _NO_ENOBUFS, _LISTEN_ALL_NSID (which takes a privilege), _CAP_ACK, _EXT_ACK,
/// _GET_STRICT_CHK.
const SWITCHES: [u32; 6] = [3, 4, 5, 10, 11, 12];
/// sizeof(struct sockaddr_nl).
const NAME: usize = 12;
/// Groups that are kept: of those with larger numbers nobody is told anything.
const GROUPS: i32 = 32;

/// Port and groups of an address.
fn parse(raw: &[u8]) -> Result<(u32, u32)> {
    if raw.len() < NAME || family_of(raw).map(u32::from) != Some(n::AF_NETLINK) {
        return Err(Errno::EINVAL);
    }
    let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|i| raw[at + i]));
    Ok((word(4), word(8)))
}

impl NetlinkSocket {
    /// Receives the next message.
    fn take(&self, dst: &mut IoDst<'_>, how: How) -> Result<Received> {
        let mut state = self.state.lock();
        if let Some(errno) = state.error.take() {
            return Err(errno);
        }
        self.refill(&mut state);
        let first = state.queue.front().ok_or(Errno::EAGAIN)?;
        let (full, want) = (first.len(), first.len().min(dst.remaining()));
        let count = if want == 0 { 0 } else { dst.write_bytes(&first[..want])? };
        if dst.has_missed() {
            return Err(Errno::EFAULT);
        }
        if how.flags & MSG_PEEK == 0
            && let Some(gone) = state.queue.pop_front()
        {
            state.used -= full + super::OVERHEAD;
            drop(state);
            drop(gone);
        }
        if count < want {
            return Err(Errno::EFAULT);
        }
        Ok(Received {
            count,
            full,
            from: Address::Netlink(0, 0),
            flags: if want < full { MSG_TRUNC } else { 0 },
            ..Received::default()
        })
    }
}

impl Socket for NetlinkSocket {
    fn core(&self) -> &Core {
        &self.core
    }

    fn bind(&self, by: &Lookup<'_>, address: &[u8]) -> Result<()> {
        let (port, groups) = parse(address)?;
        let mut state = self.state.lock();
        match state.port {
            Some(own) if own != port => return Err(Errno::EINVAL),
            Some(_) => {}
            None => self.take_port(&mut state, port, by.caller.pid)?,
        }
        state.groups = groups;
        Ok(())
    }

    fn connect(&self, by: &Lookup<'_>, address: &[u8], _: &Peer, _: bool) -> Result<Connect> {
        let mut state = self.state.lock();
        match family_of(address) {
            None => return Err(Errno::EINVAL),
            Some(0) => {
                state.remote = None;
                return Ok(Connect::Done);
            }
            Some(_) => {}
        }
        let (port, groups) = parse(address)?;
        if (port != 0 || groups != 0) && !self.admin {
            return Err(Errno::EPERM);
        }
        if state.port.is_none() {
            self.take_port(&mut state, 0, by.caller.pid)?;
        }
        state.remote = Some((port, groups));
        Ok(Connect::Done)
    }

    fn send(&self, src: &mut IoSrc<'_>, message: &mut Outgoing<'_>) -> Result<usize> {
        if message.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let to = match message.to {
            Some(to) => Some(parse(to.address.bytes())?),
            None => None,
        };
        let mut state = self.state.lock();
        let (port, groups) = to.or(state.remote).unwrap_or_default();
        if (port != 0 || groups != 0) && to.is_some() && !self.admin {
            return Err(Errno::EPERM);
        }
        if state.port.is_none() {
            self.take_port(&mut state, 0, message.creds.pid)?;
        }
        drop(state);
        let len = src.remaining();
        if len == 0 {
            return Err(Errno::ENODATA);
        }
        if len > (self.core.options.lock().send_buffer as usize).saturating_sub(32) {
            return Err(Errno::EMSGSIZE);
        }
        let bytes = src.whole_message(len)?;
        src.advance(len);
        if port != 0 {
            // Nobody but the kernel is there to hear.
            return Err(Errno::ECONNREFUSED);
        }
        self.serve(&bytes, message.networks, &|| src.pause())?;
        Ok(len)
    }

    fn write(&self, src: &mut IoSrc<'_>) -> Result<usize> {
        self.send(src, &mut Outgoing::default())
    }

    fn receive(&self, dst: &mut IoDst<'_>, how: How) -> Result<Received> {
        if how.flags & MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if how.flags & MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
        }
        dst.held(|dst| self.take(dst, how))
    }

    fn shutdown(&self, _: bool, _: bool) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn name(&self) -> Address {
        let state = self.state.lock();
        Address::Netlink(state.port.unwrap_or(0), state.groups)
    }

    fn peer_name(&self) -> Result<Address> {
        let (port, groups) = self.state.lock().remote.unwrap_or_default();
        Ok(Address::Netlink(port, groups))
    }

    fn set_option(&self, by: &Lookup<'_>, level: u32, name: u32, value: &Value<'_>) -> Result<()> {
        if level == n::SOL_SOCKET {
            return options::set(&self.core, &self.network, by.cred, name, value);
        }
        if level != LEVEL {
            return Err(Errno::ENOPROTOOPT);
        }
        let value = if value.len >= 4 { value.int()? } else { 0 };
        let mut state = self.state.lock();
        match name {
            ADD | DROP if value <= 0 => Err(Errno::EINVAL),
            ADD | DROP => {
                let bit = if value <= GROUPS { 1 << (value - 1) } else { 0 };
                state.groups = if name == ADD { state.groups | bit } else { state.groups & !bit };
                Ok(())
            }
            name if SWITCHES.contains(&name) => {
                state.switches = state.switches & !(1 << name) | u32::from(value != 0) << name;
                Ok(())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn option(&self, level: u32, name: u32, room: usize) -> Result<Answer> {
        if level == n::SOL_SOCKET {
            return options::get(self, &self.network, name, room);
        }
        if level != LEVEL {
            return Err(Errno::ENOPROTOOPT);
        }
        let state = self.state.lock();
        match name {
            name if SWITCHES.contains(&name) && room < 4 => Err(Errno::EINVAL),
            name if SWITCHES.contains(&name) => Ok(Answer::int((state.switches >> name & 1) as i32)),
            LIST => Ok(Answer::int(state.groups as i32)),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn take_error(&self) -> Option<Errno> {
        self.state.lock().error.take()
    }

    fn poll(&self) -> u32 {
        let state = self.state.lock();
        let mut events = c::POLLOUT | c::POLLWRNORM | c::POLLWRBAND;
        if !state.queue.is_empty() || state.dump.is_some() {
            events |= c::POLLIN | c::POLLRDNORM;
        }
        if state.error.is_some() {
            events |= c::POLLERR;
        }
        events
    }

    fn ioctl(&self, call: &Ioctl<'_>) -> Result<u64> {
        crate::net::ifreq::ioctl(&self.network, call)
    }

    fn release(&self) {
        self.forget();
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
