//! Connections to the outside, by sockets of the host.
//!
//! Which world a socket is of is known when it connects. Options that it was given before are then told to the socket of
//! the host, in order; they were looked at when they were set.

use super::{Listener, Role, State, TcpSocket};
use crate::abi::{Errno, Result};
use crate::mm::IoDst;
use crate::net::Value;
use crate::net::inet::endpoint::unspecified;
use crate::net::inet::ip;
use crate::net::outside::Outside;
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

impl TcpSocket {
    /// The socket of the host that it has, if it is connected to the outside.
    pub(super) fn outside(&self) -> Option<Arc<Outside>> {
        match &self.state.lock().role {
            Role::Outside(outside) => Some(outside.clone()),
            _ => None,
        }
    }

    /// Begins to connect to what is not local.
    pub(super) fn begin_outside(&self, state: &mut State, remote: SocketAddr) -> Result<Option<()>> {
        let Some(way) = &self.network.outside else { return Err(Errno::ENETUNREACH) };
        if state.bound.is_some_and(|bound| bound.ip().is_loopback()) {
            // From a loopback address there is no way.
            return Err(Errno::EINVAL);
        }
        Outside::may_send(remote)?;
        if let Some(door) = state.door.take() {
            return self.connect_by(state, Outside::reserved(door, &way.watch, &self.core)?, remote);
        }
        let outside = Outside::new(&way.watch, &self.core, remote)?;
        for (level, name, value) in &state.told {
            // What the host does not do is done without.
            let _ = outside.set_option(*level, *name, value);
        }
        if let Some(hold) = state.hold.as_ref().filter(|hold| hold.is_bound()) {
            outside.bind(SocketAddr::new(unspecified(remote.is_ipv6()), hold.port()))?;
        }
        self.connect_by(state, outside, remote)
    }

    fn connect_by(&self, state: &mut State, outside: Outside, remote: SocketAddr) -> Result<Option<()>> {
        let done = outside.connect(remote)?;
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
        Ok(done.then_some(()))
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
        if !TOLD.contains(&(level, name)) {
            return Ok(());
        }
        let bytes = value.text(4)?;
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
