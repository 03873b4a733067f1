//! The way out: sockets of the host, in the network that the sandbox was started in.
//!
//! What is not local to a network of ours goes through one. A host socket belongs to one socket of ours, does not block,
//! and is registered with the poller once, for every edge: what happens to it notifies the socket's queue.
//!
//! Nothing here leads to the host itself: neither to its loopback addresses, which are the sandbox's own, nor to those of
//! its interfaces, nor to where machines in clouds keep their secrets.

use super::address::Raw;
pub use super::door::{Door, reserve};
use super::guard::Account;
use super::outer::Outer;
use super::{Address, Core, Received};
use crate::abi::{Errno, Result};
use crate::hostfd::HostFd;
use crate::hostsys::file::poll_now;
use crate::hostsys::socket as host;
use crate::mm::{IoDst, IoSrc};
use crate::net::message::MSG_TRUNC;
use crate::sync::{Wake, event};
use crate::warden::reach;
use linux_raw_sys::general as c;
use linux_raw_sys::net as n;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Largest part that goes through a buffer when user pages cannot be held.
const BOUNCE: usize = 64 << 10;
/// IPPROTO_TCP as a level of options.
const TCP: u32 = 6;
/// IPPROTO_IP: what tells of hops is IP_RECVTTL of it, or IPV6_RECVHOPLIMIT.
const IP: u32 = 0;
const RECVTTL: u32 = 12;
const RECVHOPLIMIT: u32 = 51;
/// IPPROTO_IPV6, and IPV6_V6ONLY of it.
pub(super) const IPV6: u32 = 41;
pub(super) const V6ONLY: u32 = 26;
/// Most datagrams in a row that are thrown away.
const UNHEARD: usize = 64;
/// What is told of urgent data.
const TOLD: u32 = super::message::MSG_OOB | MSG_TRUNC;
/// What a datagram can have.
const DATAGRAM: usize = 64 << 10;

/// Who watches host descriptors.
pub trait Watch: Send + Sync {
    /// Has `wake` told of every change of `fd` from now on.
    ///
    /// # Errors
    /// ENOMEM, ENOSPC.
    fn watch_edges(&self, fd: i32, wake: Arc<dyn Wake>) -> Result<()>;

    /// Does not any more; called before the descriptor is closed.
    fn unwatch_edges(&self, fd: i32);
}

impl Wake for Core {
    fn wake(&self) {
        self.wait.notify(!0);
    }

    fn wake_for(&self, events: u32) {
        // What is urgent is told with every change until it was read: the host does not say when it came.
        let events = if events & c::POLLPRI != 0 { events | event::URGENT } else { events };
        // Whoever waits for the one waits for the other.
        let events = if events & c::POLLIN != 0 { events | c::POLLRDNORM } else { events };
        let events = if events & c::POLLOUT != 0 { events | c::POLLWRNORM } else { events };
        self.wait.notify(events);
    }
}

/// What a network has of the outside.
pub struct Way {
    /// What tells of changes of the host's sockets.
    pub watch: Arc<dyn Watch>,
    /// The host's network.
    pub outer: Arc<Outer>,
}

/// A socket of the host.
pub struct Outside {
    fd: HostFd,
    watch: Arc<dyn Watch>,
    /// It is an IPv6 one: IPv4 addresses are mapped ones.
    v6: bool,
    /// The name to be shown in place of the one that it has.
    named: Option<SocketAddr>,
    /// Whom programs take the other side for, where it was connected before they have it.
    peer: Option<SocketAddr>,
    /// What counts its bytes.
    account: Option<Arc<Account>>,
}

/// The family of an address.
pub(super) fn domain(to: SocketAddr) -> u16 {
    if to.is_ipv4() { n::AF_INET as u16 } else { n::AF_INET6 as u16 }
}

/// An address that the host says.
pub fn parsed(raw: &[u8]) -> Option<SocketAddr> {
    let v6 = super::address::family_of(raw).map(u32::from) == Some(n::AF_INET6);
    super::inet::parse(v6, raw).ok()
}

/// What a socket of the host is called there.
pub(super) fn name_of(fd: &HostFd) -> Option<SocketAddr> {
    host::name(fd).ok().and_then(|raw| parsed(&raw))
}

impl Outside {
    /// A socket of the host for what is sent to `to`, which `core` is told about.
    ///
    /// # Errors
    /// EACCES, ECONNREFUSED for what is not permitted; EMFILE and others of the host.
    pub fn new(watch: &Arc<dyn Watch>, core: &Arc<Core>, to: SocketAddr) -> Result<Outside> {
        Self::may_send(to)?;
        let fd = host::socket(domain(to), core.kind.number(), 0)?;
        Self::watched(fd, watch, core, to.is_ipv6(), None)
    }

    fn watched(
        fd: HostFd,
        watch: &Arc<dyn Watch>,
        core: &Arc<Core>,
        v6: bool,
        named: Option<SocketAddr>,
    ) -> Result<Outside> {
        let outside = Outside { fd, watch: watch.clone(), v6, named, peer: None, account: None };
        outside.ring(core.clone())?;
        Ok(outside)
    }

    /// A socket of the host that tells nobody so far.
    pub fn unwatched(fd: HostFd, watch: &Arc<dyn Watch>, v6: bool) -> Outside {
        Outside { fd, watch: watch.clone(), v6, named: None, peer: None, account: None }
    }

    /// Has `wake` told of every change from now on, and of what holds now.
    ///
    /// # Errors
    /// ENOMEM, ENOSPC.
    pub fn ring(&self, wake: Arc<dyn Wake>) -> Result<()> {
        self.watch.watch_edges(self.fd.raw(), wake)
    }

    /// What a socket of the host becomes that was [reserved](reserve).
    ///
    /// # Errors
    /// ENOMEM, ENOSPC.
    pub fn reserved(door: Door, watch: &Arc<dyn Watch>, core: &Arc<Core>) -> Result<Outside> {
        Self::watched(door.fd, watch, core, door.v6, None)
    }

    /// A connection of the host's, which is shown as `named` if it is not to be shown as what it is.
    ///
    /// # Errors
    /// ENOMEM, ENOSPC.
    pub fn accepted(
        fd: HostFd,
        watch: &Arc<dyn Watch>,
        core: &Arc<Core>,
        named: Option<SocketAddr>,
    ) -> Result<Outside> {
        Self::watched(fd, watch, core, false, named)
    }

    /// One that is connected, or on its way: how it and the other side are called.
    ///
    /// # Errors
    /// ENOMEM, ENOSPC.
    pub fn connected_to(
        fd: HostFd,
        watch: &Arc<dyn Watch>,
        core: &Arc<Core>,
        (named, to): (Option<SocketAddr>, SocketAddr),
    ) -> Result<Outside> {
        let mut outside = Self::watched(fd, watch, core, to.is_ipv6(), named)?;
        outside.peer = Some(to);
        Ok(outside)
    }

    /// The same, with what counts its bytes.
    pub fn counted(mut self, account: Option<Arc<Account>>) -> Outside {
        self.account = account;
        self
    }

    fn note(&self, received: usize, sent: usize) {
        if let Some(account) = &self.account {
            account.received.fetch_add(received as u64, Ordering::Relaxed);
            account.sent.fetch_add(sent as u64, Ordering::Relaxed);
        }
    }

    /// An address as the socket of the host has it.
    fn raw(&self, to: SocketAddr) -> Raw {
        Address::Inet(super::inet::shown(self.v6, to)).raw()
    }

    /// Closing it tells the other end that not all was read.
    pub fn reset(&self) {
        let linger = [1_i32.to_ne_bytes(), [0; 4]].concat();
        let _ = host::set_option(&self.fd, n::SOL_SOCKET, n::SO_LINGER, &linger);
    }

    /// Whether the outside may be asked for an address at all.
    ///
    /// # Errors
    /// EACCES for what nobody gets, broadcasts among them; ECONNREFUSED for the host itself.
    pub fn may_send(to: SocketAddr) -> Result<()> {
        if reach::is_metadata(to.ip()) {
            return Err(Errno::EACCES);
        }
        if reach::is_self(to.ip()) {
            return Err(Errno::ECONNREFUSED);
        }
        // What the host would send from the address that it is sent to is its own.
        let probe = host::socket(domain(to), n::SOCK_DGRAM, 0)?;
        match host::connect(&probe, Address::Inet(to).raw().bytes()).map(|()| name_of(&probe)) {
            Ok(own) if own.is_some_and(|own| own.ip() == to.ip()) => Err(Errno::ECONNREFUSED),
            // A broadcast, which the host hears itself.
            Err(Errno::EACCES) => Err(Errno::EACCES),
            _ => Ok(()),
        }
    }

    /// Begins to connect; true: it is connected.
    ///
    /// # Errors
    /// The host's.
    pub fn connect(&self, to: SocketAddr) -> Result<bool> {
        match host::connect(&self.fd, self.raw(to).bytes()) {
            Ok(()) => Ok(true),
            Err(Errno::EINPROGRESS) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Binds an address.
    ///
    /// # Errors
    /// The host's.
    pub fn bind(&self, at: SocketAddr) -> Result<()> {
        host::bind(&self.fd, self.raw(at).bytes())
    }

    /// How a connect has ended; `None` while it has not.
    pub fn connected(&self) -> Option<Result<()>> {
        if poll_now(self.fd.raw(), c::POLLOUT as i16) == 0 {
            return None;
        }
        Some(self.take_error().map_or(Ok(()), Err))
    }

    /// The pending error, taken.
    pub fn take_error(&self) -> Option<Errno> {
        let value = host::option(&self.fd, n::SOL_SOCKET, n::SO_ERROR, 4).ok()?;
        let errno = value.try_into().map_or(0, i32::from_ne_bytes);
        (errno != 0).then_some(Errno(errno))
    }

    /// Its name, or its peer's.
    ///
    /// # Errors
    /// ENOTCONN.
    pub fn name(&self, peer: bool) -> Result<SocketAddr> {
        let shown = if peer { self.peer } else { self.named };
        if let Some(shown) = shown {
            return Ok(shown);
        }
        let raw = if peer { host::peer_name(&self.fd) } else { host::name(&self.fd) }?;
        parsed(&raw).ok_or(Errno::ENOTCONN)
    }

    /// Sends, straight from the program's pages where that can be.
    ///
    /// # Errors
    /// EAGAIN; the host's others; EFAULT.
    pub fn send(&self, src: &mut IoSrc<'_>, to: Option<SocketAddr>, flags: u32) -> Result<usize> {
        let raw = to.map(|to| self.raw(to));
        let name = raw.as_ref().map_or(&[][..], Raw::bytes);
        let want = src.remaining();
        let pinned = if want == 0 { None } else { Some(src.pin(want)?) };
        // A datagram goes whole or not at all.
        if let Some(pinned) =
            pinned.filter(|pinned| !pinned.is_empty() && (to.is_none() || pinned.len() == want))
        {
            let count = pinned.send_to(&self.fd, name, flags)?;
            self.note(0, count);
            src.advance(count);
            return Ok(count);
        }
        let mut bytes = vec![0; want.min(BOUNCE)];
        let len = if want == 0 { 0 } else { src.peek().read_bytes(&mut bytes)? };
        let count = host::send_bytes(&self.fd, &bytes[..len], name, flags)?;
        self.note(0, count);
        src.advance(count);
        Ok(count)
    }

    /// Receives from a stream, straight into the program's pages where that can be.
    ///
    /// # Errors
    /// EAGAIN; the host's others; EFAULT.
    pub fn receive(&self, dst: &mut IoDst<'_>, flags: u32) -> Result<usize> {
        let count = self.receive_stream(dst, flags)?;
        if flags & super::message::MSG_PEEK == 0 {
            self.note(count, 0);
        }
        Ok(count)
    }

    /// Receives urgent data of a stream, and says with it what the host's socket has said of it.
    ///
    /// # Errors
    /// EINVAL, EAGAIN; EFAULT.
    pub fn receive_urgent(&self, dst: &mut IoDst<'_>, flags: u32) -> Result<Received> {
        let mut bytes = [0_u8; 1];
        let want = dst.remaining().min(1);
        let got = host::receive_bytes(&self.fd, &mut bytes[..want], false, flags)?;
        if flags & super::message::MSG_PEEK == 0 {
            self.note(got.count, 0);
        }
        if flags & MSG_TRUNC == 0 {
            dst.write_bytes(&bytes[..got.count.min(want)])?;
        }
        Ok(Received { count: got.count, full: got.count, flags: got.flags & TOLD, ..Received::default() })
    }

    fn receive_stream(&self, dst: &mut IoDst<'_>, flags: u32) -> Result<usize> {
        let want = dst.remaining();
        let pinned = if want == 0 { None } else { Some(dst.pin(want)?) };
        if let Some(pinned) = pinned.filter(|pinned| !pinned.is_empty()) {
            let count = pinned.receive_from(&self.fd, flags)?;
            dst.advance(count);
            return Ok(count);
        }
        let mut bytes = vec![0_u8; want.min(BOUNCE)];
        let got = host::receive_bytes(&self.fd, &mut bytes, false, flags)?;
        if flags & MSG_TRUNC != 0 {
            return Ok(got.count);
        }
        dst.write_bytes(&bytes[..got.count])
    }

    /// Receives a datagram from whoever sent it.
    ///
    /// # Errors
    /// EAGAIN; the host's others.
    pub fn receive_any(&self) -> Result<(Vec<u8>, SocketAddr)> {
        let mut bytes = vec![0_u8; DATAGRAM];
        let got = host::receive_bytes(&self.fd, &mut bytes, true, 0)?;
        bytes.truncate(got.count);
        Ok((bytes, parsed(&got.name).ok_or(Errno::EAGAIN)?))
    }

    /// Wants to be told how many hops what comes has left.
    pub fn hear_hops(&self) {
        let (level, name) = if self.v6 { (IPV6, RECVHOPLIMIT) } else { (IP, RECVTTL) };
        // A host that does not tell is done without.
        let _ = self.set_option(level, name, &1_i32.to_ne_bytes());
    }

    /// Sends a datagram of the kernel's own.
    ///
    /// # Errors
    /// EAGAIN; the host's others.
    pub fn send_bytes(&self, bytes: &[u8], to: SocketAddr) -> Result<usize> {
        host::send_bytes(&self.fd, bytes, self.raw(to).bytes(), 0)
    }

    /// Receives a datagram, with who sent it and how many hops it has left; 0: the host does not say.
    ///
    /// # Errors
    /// EAGAIN; the host's others.
    pub fn receive_hops(&self) -> Result<(Vec<u8>, SocketAddr, u8)> {
        let mut bytes = vec![0_u8; DATAGRAM];
        let (got, hops) = host::receive_hops(&self.fd, &mut bytes)?;
        bytes.truncate(got.count);
        Ok((bytes, parsed(&got.name).ok_or(Errno::EAGAIN)?, hops))
    }

    /// Receives a datagram: its bytes, and who sent it, which is not the host itself.
    ///
    /// # Errors
    /// EAGAIN; the host's others.
    pub fn receive_datagram(&self, peek: bool, outer: &Outer) -> Result<(Vec<u8>, SocketAddr)> {
        let mut bytes = vec![0_u8; DATAGRAM];
        for _ in 0..UNHEARD {
            let flags = if peek { super::message::MSG_PEEK } else { 0 };
            let got = host::receive_bytes(&self.fd, &mut bytes, true, flags)?;
            if let Some(peer) = self.peer {
                self.note(if peek { 0 } else { got.count }, 0);
                bytes.truncate(got.count);
                return Ok((bytes, peer));
            }
            let from = parsed(&got.name).ok_or(Errno::EAGAIN)?;
            if !reach::is_self(from.ip()) && !outer.has(from.ip()) {
                bytes.truncate(got.count);
                return Ok((bytes, from));
            }
            // The host itself is not heard.
            if peek {
                host::receive_bytes(&self.fd, &mut [], false, 0)?;
            }
        }
        Err(Errno::EAGAIN)
    }

    /// shutdown(2).
    ///
    /// # Errors
    /// ENOTCONN.
    pub fn shutdown(&self, read: bool, write: bool) -> Result<()> {
        match (read, write) {
            (true, true) => host::shutdown(&self.fd, 2),
            (_, true) => host::shutdown(&self.fd, 1),
            _ => host::shutdown(&self.fd, 0),
        }
    }

    /// Events that hold now.
    pub fn poll(&self) -> u32 {
        let asked = c::POLLIN | c::POLLOUT | c::POLLRDHUP | c::POLLPRI | c::POLLRDNORM | c::POLLWRNORM;
        poll_now(self.fd.raw(), asked as i16) as u16 as u32
    }

    /// The state of a connection, as TCP_INFO has it.
    pub fn tcp_state(&self) -> u8 {
        // A connection with the warden has no such state: it is established.
        let none = if self.peer.is_some() { 1 } else { 7 };
        host::option(&self.fd, TCP, n::TCP_INFO, 8)
            .ok()
            .and_then(|info| info.first().copied())
            .unwrap_or(none)
    }

    /// Sets an option.
    ///
    /// # Errors
    /// The host's.
    pub fn set_option(&self, level: u32, name: u32, value: &[u8]) -> Result<()> {
        host::set_option(&self.fd, level, name, value)
    }

    /// What an option is.
    ///
    /// # Errors
    /// The host's.
    pub fn option(&self, level: u32, name: u32, room: usize) -> Result<Vec<u8>> {
        host::option(&self.fd, level, name, room)
    }

    /// Bytes that can be read (FIONREAD), or were sent and not acknowledged (TIOCOUTQ).
    ///
    /// # Errors
    /// EINVAL.
    pub fn count(&self, request: u32) -> Result<i32> {
        let mut value = [0; 256];
        crate::hostsys::file::ioctl(self.fd.raw(), request, &mut value)?;
        Ok(i32::from_ne_bytes(std::array::from_fn(|i| value[i])))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.watch.unwatch_edges(self.fd.raw());
    }
}

#[cfg(test)]
mod tests {
    use super::Outside;
    use crate::abi::Errno;
    use std::net::SocketAddr;

    #[test]
    fn no_spelling_leads_to_what_is_refused() {
        let to = |text: &str| Outside::may_send(SocketAddr::new(text.parse().expect("an address"), 80));
        for text in ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::169.254.169.254", "fd00:ec2::254"]
        {
            assert_eq!(to(text), Err(Errno::EACCES), "{text}");
        }
        for text in ["127.0.0.1", "::1", "64:ff9b::127.1.2.3", "::127.0.0.1", "0.0.0.0"] {
            assert_eq!(to(text), Err(Errno::ECONNREFUSED), "{text}");
        }
    }
}
