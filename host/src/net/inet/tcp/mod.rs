//! TCP sockets.
//!
//! | module | what |
//! |---|---|
//! | here | the socket, its names |
//! | `connect` | bind, listen, connect, accept |
//! | `end` | shutdown, disconnect, and the end |
//! | `connection` | two ends and what is between them |
//! | `buffer` | bytes on their way |
//! | `options` | options of the level IPPROTO_TCP |
//! | `outward` | connections by sockets of the host |
//! | `gate` | listeners of the host |
//! | `ops` | what it does as a socket |
//!
//! Lock order: a socket's state, then ports or a connection; never the states of two sockets.

mod buffer;
mod connect;
mod connection;
mod end;
mod gate;
mod ops;
mod options;
mod outward;
mod urgent;

use super::endpoint::{shown, unspecified};
use super::ip::{self, IpOptions};
use super::ports::{Claim, Hold};
use super::tables::Row;
use crate::abi::Errno;
use crate::net::options::Options;
use crate::net::outside::{Door, Outside};
use crate::net::waiters::Waiters;
use crate::net::{Address, Core, Kind, Making, Namespace};
use crate::sync::{Lock, Rank};
use connection::{Connection, state};
pub(in crate::net) use gate::{Gate, Leads};
use linux_raw_sys::net as n;
use options::TcpOptions;
use outward::Told;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

/// The middle numbers of net.ipv4.tcp_wmem and tcp_rmem, and what the first becomes with use.
const SEND_BUFFER: u32 = 16_384;
const RECEIVE_BUFFER: u32 = 131_072;
const SEND_BUFFER_GROWN: u32 = 2_626_560;

#[derive(Default)]
enum Role {
    #[default]
    Closed,
    Listening(Listener),
    /// Whom it asks has no room for it so far.
    Asking(SocketAddr),
    /// Also when the connection is over.
    Connected(Arc<Connection>, usize),
    /// By a socket of the host.
    Outside(Arc<Outside>),
}

/// What a listener has.
struct Listener {
    backlog: usize,
    accepted: VecDeque<Arc<TcpSocket>>,
    /// Where those outside come in.
    gate: Option<Arc<Gate>>,
    /// Who asks, and finds no room.
    asking: Waiters<TcpSocket>,
}

#[derive(Default)]
struct State {
    role: Role,
    /// Its port, unless a connection has it.
    hold: Option<Hold<TcpSocket>>,
    /// The address that it has bound, if any in particular, and its port.
    bound: Option<SocketAddr>,
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    /// A connect(2) has begun and none has told how it ended.
    connecting: bool,
    /// Nobody has it open.
    released: bool,
    /// What shutdown(2) said while there was no connection.
    shut: (bool, bool),
    error: Option<Errno>,
    ip: IpOptions,
    tcp: TcpOptions,
    /// What was set, in order, that a socket of the host is to be told: level, number, value.
    told: Told,
    /// The port of the host that was taken with its own.
    door: Option<Door>,
}

/// A TCP socket.
pub struct TcpSocket {
    me: Weak<TcpSocket>,
    core: Arc<Core>,
    network: Arc<Namespace>,
    v6: bool,
    state: Lock<State>,
}

impl TcpSocket {
    pub(super) fn new(making: &Making<'_>, v6: bool) -> Arc<TcpSocket> {
        let options =
            Options { send_buffer: SEND_BUFFER, receive_buffer: RECEIVE_BUFFER, ..Options::default() };
        let uid = making.by.cred.uid.effective;
        Self::with(making.network, v6, uid, options, State::default())
    }

    fn with(network: &Arc<Namespace>, v6: bool, uid: u32, options: Options, state: State) -> Arc<TcpSocket> {
        let domain = if v6 { n::AF_INET6 } else { n::AF_INET } as u16;
        Arc::new_cyclic(|me| TcpSocket {
            me: me.clone(),
            core: Arc::new(Core::new(Kind::Stream, domain, super::TCP as u16, uid, options)),
            network: network.clone(),
            v6,
            state: Lock::new(Rank::TcpSocket, state),
        })
    }

    /// The connection, and which end of it this is.
    #[inline]
    fn connection(&self) -> Option<(Arc<Connection>, usize)> {
        match &self.state.lock().role {
            Role::Connected(connection, end) => Some((connection.clone(), *end)),
            _ => None,
        }
    }

    fn only_v6(&self, state: &State) -> bool {
        self.v6 && state.ip.is_on(ip::IPV6, ip::name::IPV6_V6ONLY)
    }

    /// What it wants of a port, at an address.
    fn claim(&self, state: &State, ip: IpAddr) -> Claim {
        Claim::new(&self.core, self.only_v6(state), ip)
    }

    /// The state, as programs see it.
    fn state_number(&self) -> u8 {
        match &self.state.lock().role {
            Role::Closed => state::CLOSE,
            Role::Listening(_) => state::LISTEN,
            Role::Asking(_) => state::SYN_SENT,
            Role::Connected(connection, end) => connection.state(*end),
            Role::Outside(outside) => outside.tcp_state(),
        }
    }

    /// What others are told of it; nothing of one that has nothing to do with others.
    pub(super) fn row(&self) -> Option<Row> {
        let state_number = self.state_number();
        if state_number == state::CLOSE {
            return None;
        }
        let (connection, outside) = (self.connection(), self.outside());
        let state = self.state.lock();
        let (mut received, mut sent) = (0, 0);
        if let Role::Listening(listener) = &state.role {
            (received, sent) = (listener.accepted.len() as u32, listener.backlog as u32);
        }
        let (local, remote, only_v6) = (state.local?, state.remote, self.only_v6(&state));
        drop(state);
        if let Some((connection, end)) = connection {
            received = connection.readable(end) as u32;
        }
        let named = outside.and_then(|outside| outside.name(false).ok());
        Some(Row {
            v6: self.v6,
            only_v6,
            state: state_number,
            local: named.unwrap_or(local),
            remote,
            received,
            sent,
            uid: self.core.uid,
            ino: self.core.ino,
        })
    }

    fn shown(&self, address: Option<SocketAddr>) -> Address {
        let none = SocketAddr::new(unspecified(self.v6), 0);
        Address::Inet(shown(self.v6, address.unwrap_or(none)))
    }
}
