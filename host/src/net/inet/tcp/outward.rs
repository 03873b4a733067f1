//! Connections to the outside, by sockets of the host.
//!
//! Which world a socket is of is known when it connects. Options that it was given before are then told to the socket of
//! the host, in order; they were looked at when they were set.

use super::connect::OVER;
use super::{Listener, Role, State, TcpSocket};
use crate::abi::{Errno, Result};
use crate::mm::IoDst;
use crate::net::Value;
use crate::net::guard::Account;
use crate::net::inet::endpoint::unspecified;
use crate::net::inet::ip;
use crate::net::outside::Outside;
use crate::net::toward::{self, Toward};
use linux_raw_sys::general as c;
use linux_raw_sys::net as n;
use std::net::SocketAddr;
use std::sync::Arc;

/// IPPROTO_TCP as a level of options.
const TCP: u32 = super::super::TCP as u32;

/// What a socket of the host is to be told, in order: level, number, value.
pub(super) type Told = Vec<(u32, u32, Vec<u8>)>;

/// Options that mean something to a socket of the host: level and number. Not SO_LINGER, for which closing would wait.
const TOLD: &[(u32, u32)] = &[
    (n::SOL_SOCKET, n::SO_KEEPALIVE),
    (n::SOL_SOCKET, n::SO_OOBINLINE),
    (n::SOL_SOCKET, n::SO_RCVLOWAT),
    (n::SOL_SOCKET, n::SO_SNDBUF),
    (n::SOL_SOCKET, n::SO_RCVBUF),
    (n::SOL_SOCKET, n::SO_REUSEADDR),
    (n::SOL_SOCKET, n::SO_REUSEPORT),
    (TCP, n::TCP_NODELAY),
    (TCP, n::TCP_MAXSEG),
    (TCP, n::TCP_CORK),
    (TCP, n::TCP_KEEPIDLE),
    (TCP, n::TCP_KEEPINTVL),
    (TCP, n::TCP_KEEPCNT),
    (TCP, n::TCP_SYNCNT),
    (TCP, n::TCP_LINGER2),
    (TCP, n::TCP_WINDOW_CLAMP),
    (TCP, n::TCP_QUICKACK),
    (TCP, n::TCP_USER_TIMEOUT),
    (TCP, n::TCP_NOTSENT_LOWAT),
    (ip::IP, ip::name::IP_TOS),
    (ip::IP, ip::name::IP_TTL),
];

/// Whether the host's answer is the one that counts.
pub(super) fn is_the_hosts(level: u32, name: u32) -> bool {
    matches!((level, name), (TCP, n::TCP_INFO | n::TCP_MAXSEG) | (ip::IP, ip::name::IP_MTU))
}

impl State {
    /// Whether somebody else has connected or closed it while its lock was let go of.
    fn is_taken(&self) -> bool {
        self.connecting || self.released || !matches!(self.role, Role::Closed)
    }
}

impl TcpSocket {
    /// The socket of the host that it has, if it is connected to the outside.
    pub(super) fn outside(&self) -> Option<Arc<Outside>> {
        match &self.state.lock().role {
            Role::Outside(outside) => Some(outside.clone()),
            _ => None,
        }
    }

    /// Begins to connect to what is not local, with an account of what goes over it.
    pub(super) fn begin_outside(
        &self,
        state: &mut State,
        remote: SocketAddr,
        account: Option<&Arc<Account>>,
    ) -> Result<Option<()>> {
        let Some(way) = &self.network.outside else { return Err(Errno::ENETUNREACH) };
        if state.bound.is_some_and(|bound| bound.ip().is_loopback()) {
            // From a loopback address there is no way.
            return Err(Errno::EINVAL);
        }
        if state.door.is_some() {
            // A new one looks at that itself.
            Outside::may_send(remote)?;
        }
        if let Some(door) = state.door.take() {
            let outside = Outside::reserved(door, &way.watch, &self.core)?;
            return self.connect_by(state, outside.counted(account.cloned()), remote);
        }
        let outside = Outside::new(&way.watch, &self.core, remote)?;
        for (level, name, value) in &state.told {
            // What the host does not do is done without.
            let _ = outside.set_option(*level, *name, value);
        }
        if let Some(hold) = state.hold.as_ref().filter(|hold| hold.is_bound()) {
            outside.bind(SocketAddr::new(unspecified(remote.is_ipv6()), hold.port()))?;
        }
        self.connect_by(state, outside.counted(account.cloned()), remote)
    }

    /// The same, if the warden permits it.
    fn begin_permitted(&self, process: i32, remote: SocketAddr) -> Result<Option<()>> {
        let guard = self.network.outside.as_ref().and_then(|way| way.outer.guard.as_ref());
        let granted = guard.ok_or(Errno::EACCES)?.connect(process, true, remote, false)?;
        let mut state = self.state.lock();
        let begun = if state.is_taken() {
            Err(Errno::EALREADY)
        } else {
            self.begin_outside(&mut state, remote, granted.account.as_ref())
        };
        // Before the account: of its end the warden is told.
        drop(state);
        begun
    }

    /// Where a connection goes that no socket inside and no ordinary one of the host is for.
    pub(super) fn elsewhere(&self, remote: SocketAddr) -> Option<Toward> {
        let guarded = || self.network.is_guarded() && !self.network.is_local(remote.ip());
        self.network.resolver(remote).or_else(|| guarded().then_some(Toward::World))
    }

    /// Nobody inside listens: that is all, unless the host's own loopback is meant then.
    pub(super) fn refused(&self, process: i32, remote: SocketAddr, nowait: bool) -> Result<Option<()>> {
        let host = self.network.host_loopback(remote);
        let told = nowait && host.is_none();
        let mut state = self.state.lock();
        state.error = told.then_some(Errno::ECONNREFUSED);
        state.connecting = told;
        state.shut = (told, told);
        let hold = self.forget_connection(&mut state);
        drop(state);
        drop(hold);
        if let Some(toward) = host {
            return self.begin_toward(process, remote, toward);
        }
        self.core.wait.notify(OVER);
        if nowait { Ok(None) } else { Err(Errno::ECONNREFUSED) }
    }

    /// Begins to connect where an ordinary socket of the host does not lead, or the warden is asked first.
    pub(super) fn begin_toward(
        &self,
        process: i32,
        remote: SocketAddr,
        toward: Toward,
    ) -> Result<Option<()>> {
        if toward == Toward::World && !self.network.is_walled() {
            return self.begin_permitted(process, remote);
        }
        let Some(way) = &self.network.outside else { return Err(Errno::ENETUNREACH) };
        let (outside, done) = toward::connect(way, &self.core, remote, toward, process)?;
        let mut state = self.state.lock();
        if state.is_taken() {
            drop(state);
            drop(outside);
            return Err(Errno::EALREADY);
        }
        for (level, name, value) in &state.told {
            // What the host does not do is done without.
            let _ = outside.set_option(*level, *name, value);
        }
        self.connected_by(&mut state, outside, remote, done);
        drop(state);
        if done {
            self.core.wait.notify(c::POLLOUT | c::POLLWRNORM);
        }
        Ok(done.then_some(()))
    }

    fn connect_by(&self, state: &mut State, outside: Outside, remote: SocketAddr) -> Result<Option<()>> {
        let done = outside.connect(remote)?;
        self.connected_by(state, outside, remote, done);
        Ok(done.then_some(()))
    }

    fn connected_by(&self, state: &mut State, outside: Outside, remote: SocketAddr, done: bool) {
        state.error = None;
        state.shut = (false, false);
        state.connecting = !done;
        state.remote = Some(remote);
        // It has that port of the host's, which others may have for other connections.
        if let Ok(local) = outside.name(false) {
            let claim = self.claim(state, local.ip());
            state.local = Some(local);
            match &state.hold {
                Some(hold) => hold.associate(local.ip(), remote),
                None => {
                    let me = self.me.clone();
                    state.hold = Some(self.network.tcp.share(local.port(), claim, remote, me));
                }
            }
        }
        state.role = Role::Outside(Arc::new(outside));
    }

    /// Receives by the socket of the host, if there is one.
    #[cold]
    pub(super) fn receive_outside(&self, dst: &mut IoDst<'_>, flags: u32) -> Result<usize> {
        match self.outside() {
            Some(outside) => outside.receive(dst, flags),
            None => self.cannot_receive(),
        }
    }

    /// Tells the socket of the host what was set, or notes it until there is one.
    pub(super) fn tell_outside(&self, level: u32, name: u32, value: &Value<'_>) -> Result<()> {
        let (name, bytes) = match (level, name) {
            // Where a warden connects it is not for programs to say.
            (n::SOL_SOCKET, n::SO_BINDTODEVICE | n::SO_BINDTOIFINDEX) if self.network.is_walled() => {
                return Ok(());
            }
            // The host has the same interfaces by the same numbers.
            (n::SOL_SOCKET, n::SO_BINDTODEVICE | n::SO_BINDTOIFINDEX) => {
                (n::SO_BINDTOIFINDEX, self.core.options.lock().device.to_ne_bytes().to_vec())
            }
            told if !TOLD.contains(&told) => return Ok(()),
            (_, name) => (name, value.text(4)?),
        };
        let mut state = self.state.lock();
        match &state.role {
            Role::Outside(outside) => outside.set_option(level, name, &bytes)?,
            Role::Listening(Listener { gate: Some(gate), .. }) => gate.tell(level, name, &bytes),
            _ => {}
        }
        if let Some(door) = &state.door {
            door.tell(level, name, &bytes);
        }
        state.told.retain(|told| (told.0, told.1) != (level, name));
        state.told.push((level, name, bytes));
        Ok(())
    }
}
