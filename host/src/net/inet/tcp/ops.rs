//! What a TCP socket does as a socket.

use super::{Role, TcpSocket, outward};
use crate::abi::{Errno, Result};
use crate::mm::{IoDst, IoSrc};
use crate::net::address::family_of;
use crate::net::inet::{TCP, ip};
use crate::net::message::{MSG_ERRQUEUE, MSG_OOB};
use crate::net::options;
use crate::net::{Address, Answer, Connect, Core, How, Outgoing, Peer, Received, Socket, Value};
use crate::vfs::{Ioctl, Lookup};
use linux_raw_sys::general as c;
use linux_raw_sys::ioctl as i;
use linux_raw_sys::net as n;
use std::any::Any;
use std::sync::Arc;

const TCP_LEVEL: u32 = TCP as u32;

impl Socket for TcpSocket {
    fn core(&self) -> &Core {
        &self.core
    }

    fn bind(&self, by: &Lookup<'_>, address: &[u8]) -> Result<()> {
        self.bind_to(by.cred, address)
    }

    fn listen(&self, backlog: i32, _: Peer) -> Result<()> {
        self.start_listening(backlog)
    }

    fn accept(&self) -> Result<Arc<dyn Socket>> {
        Ok(self.next_connection()?)
    }

    fn connect(&self, by: &Lookup<'_>, address: &[u8], _: &Peer, nowait: bool) -> Result<Connect> {
        match family_of(address) {
            None => return Err(Errno::EINVAL),
            Some(0) => {
                self.disconnect();
                return Ok(Connect::Done);
            }
            Some(_) => {}
        }
        Ok(match self.begin(by.caller.pid, address, nowait)? {
            Some(()) => Connect::Done,
            None => Connect::Underway,
        })
    }

    fn connected(&self) -> Option<Result<()>> {
        self.conclude()
    }

    fn send(&self, src: &mut IoSrc<'_>, message: &mut Outgoing<'_>) -> Result<usize> {
        self.send_flagged(src, message.flags & MSG_OOB)
    }

    fn write(&self, src: &mut IoSrc<'_>) -> Result<usize> {
        self.send_flagged(src, 0)
    }

    fn receive(&self, dst: &mut IoDst<'_>, how: How) -> Result<Received> {
        if how.flags & MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
        }
        if how.flags & MSG_OOB != 0 {
            return self.receive_urgent(dst, how.flags);
        }
        let mut stop = false;
        let count = match self.connection() {
            Some((connection, end)) => connection.receive(end, dst, how.flags, &mut stop)?,
            None => self.receive_outside(dst, how.flags)?,
        };
        Ok(Received { count, full: count, stop, ..Received::default() })
    }

    fn read(&self, dst: &mut IoDst<'_>) -> Result<usize> {
        match self.connection() {
            Some((connection, end)) => connection.receive(end, dst, 0, &mut false),
            None => self.receive_outside(dst, 0),
        }
    }

    fn shutdown(&self, read: bool, write: bool) -> Result<()> {
        self.shut(read, write)
    }

    fn name(&self) -> Address {
        let named = self.outside().and_then(|outside| outside.name(false).ok());
        let local = named.or(self.state.lock().local);
        self.shown(local)
    }

    fn peer_name(&self) -> Result<Address> {
        if let Some(outside) = self.outside() {
            return outside.name(true).map(|peer| self.shown(Some(peer)));
        }
        let state = self.state.lock();
        let Role::Connected(connection, end) = &state.role else { return Err(Errno::ENOTCONN) };
        if connection.state(*end) == super::state::CLOSE {
            return Err(Errno::ENOTCONN);
        }
        Ok(self.shown(state.remote))
    }

    fn accepted_from(&self) -> Address {
        let remote = self.state.lock().remote;
        self.shown(remote)
    }

    fn set_option(&self, by: &Lookup<'_>, level: u32, name: u32, value: &Value<'_>) -> Result<()> {
        self.set_own_option(by, level, name, value)?;
        self.tell_outside(level, name, value)
    }

    fn option(&self, level: u32, name: u32, room: usize) -> Result<Answer> {
        if let Some(outside) = self.outside().filter(|_| outward::is_the_hosts(level, name)) {
            return Ok(Answer::Value(outside.option(level, name, room)?));
        }
        self.own_option(level, name, room)
    }

    fn take_error(&self) -> Option<Errno> {
        let own = self.state.lock().error.take();
        let own = own.or_else(|| self.outside().and_then(|outside| outside.take_error()));
        own.or_else(|| self.connection().and_then(|(connection, end)| connection.take_error(end)))
    }

    fn is_listening(&self) -> bool {
        matches!(self.state.lock().role, Role::Listening(_))
    }

    fn poll(&self) -> u32 {
        let state = self.state.lock();
        let mut events = match &state.role {
            Role::Listening(listener) if listener.accepted.is_empty() => return 0,
            Role::Listening(_) => return c::POLLIN | c::POLLRDNORM,
            Role::Connected(connection, end) => {
                let (connection, end) = (connection.clone(), *end);
                drop(state);
                return connection.poll(end);
            }
            Role::Outside(outside) => {
                let outside = outside.clone();
                drop(state);
                return outside.poll();
            }
            Role::Asking(_) => 0,
            Role::Closed => c::POLLHUP | c::POLLOUT | c::POLLWRNORM,
        };
        if state.shut.0 || state.error.is_some() {
            events |= c::POLLIN | c::POLLRDNORM | c::POLLRDHUP;
        }
        if state.error.is_some() {
            events |= c::POLLERR;
        }
        events
    }

    fn ioctl(&self, call: &Ioctl<'_>) -> Result<u64> {
        let value = match call.request {
            i::FIONREAD | i::TIOCOUTQ if self.is_listening() => return Err(Errno::EINVAL),
            i::FIONREAD | i::TIOCOUTQ if self.outside().is_some() => {
                self.outside().map_or(Ok(0), |outside| outside.count(call.request))? as usize
            }
            i::SIOCATMARK => match self.outside() {
                Some(outside) => outside.count(call.request)? as usize,
                None => self.connection().is_some_and(|(connection, end)| connection.at_mark(end)).into(),
            },
            i::FIONREAD => self.connection().map_or(0, |(connection, end)| connection.readable(end)),
            // What was sent is where the other end reads it.
            i::TIOCOUTQ => 0,
            _ => return crate::net::ifreq::ioctl(&self.network, call),
        };
        call.mm.write_val(call.arg, &(value as i32))?;
        Ok(0)
    }

    fn release(&self) {
        self.end();
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl TcpSocket {
    fn send_flagged(&self, src: &mut IoSrc<'_>, flags: u32) -> Result<usize> {
        match self.connection() {
            Some((connection, end)) => connection.send(end, src, flags & MSG_OOB != 0),
            None => match self.outside() {
                Some(outside) => outside.send(src, None, flags),
                None => Err(self.cannot_send()),
            },
        }
    }

    #[cold]
    fn receive_urgent(&self, dst: &mut IoDst<'_>, flags: u32) -> Result<Received> {
        match self.connection() {
            Some((connection, end)) => connection.receive_urgent(end, dst, flags),
            None => match self.outside() {
                Some(outside) => outside.receive_urgent(dst, flags),
                None if self.is_listening() => Err(Errno::ENOTCONN),
                None => Err(Errno::EINVAL),
            },
        }
    }

    fn set_own_option(&self, by: &Lookup<'_>, level: u32, name: u32, value: &Value<'_>) -> Result<()> {
        match level {
            n::SOL_SOCKET => {
                options::set(&self.core, &self.network, by.cred, name, value)?;
                self.options_changed();
                Ok(())
            }
            TCP_LEVEL => self.set_tcp_option(name, value),
            ip::IPV6 if self.v6 => {
                let mut state = self.state.lock();
                // Which addresses a port is of is said before it is taken.
                if name == ip::name::IPV6_V6ONLY && state.hold.is_some() && value.len >= 4 {
                    return Err(Errno::EINVAL);
                }
                state.ip.set(by.cred, true, level, name, value)
            }
            ip::IP => self.state.lock().ip.set(by.cred, true, level, name, value),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn own_option(&self, level: u32, name: u32, room: usize) -> Result<Answer> {
        match level {
            n::SOL_SOCKET => options::get(self, &self.network, name, room),
            TCP_LEVEL => self.tcp_option(name, room),
            ip::IPV6 | ip::IP if level == ip::IP || self.v6 => {
                let connected = self.connection().is_some();
                self.state.lock().ip.get(level, name, room, connected)
            }
            _ => Err(if self.v6 { Errno::ENOPROTOOPT } else { Errno::EOPNOTSUPP }),
        }
    }

    /// Why nothing can be sent while there is no connection.
    #[cold]
    fn cannot_send(&self) -> Errno {
        let mut state = self.state.lock();
        match state.role {
            Role::Asking(_) if state.error.is_none() => Errno::EAGAIN,
            _ => state.error.take().unwrap_or(Errno::EPIPE),
        }
    }

    /// What there is to receive while there is no connection.
    #[cold]
    pub(super) fn cannot_receive(&self) -> Result<usize> {
        let mut state = self.state.lock();
        match state.role {
            Role::Asking(_) if state.error.is_none() => Err(Errno::EAGAIN),
            Role::Listening(_) => Err(Errno::ENOTCONN),
            _ => match state.error.take() {
                Some(errno) => Err(errno),
                // A connect(2) that failed has shut everything.
                None if state.shut.0 || state.connecting => Ok(0),
                None => Err(Errno::ENOTCONN),
            },
        }
    }

    /// Hands on what options of the socket mean to its port and to its buffers.
    fn options_changed(&self) {
        let options = *self.core.options.lock();
        let state = self.state.lock();
        if let Some(hold) = &state.hold {
            hold.set_options(&options);
        }
        let Role::Connected(connection, end) = &state.role else { return };
        let (connection, end) = (connection.clone(), *end);
        drop(state);
        connection.with_hold(end, |hold| hold.set_options(&options));
        connection.buffers_changed();
    }
}
