//! UDP sockets.
//!
//! A datagram goes from its sender straight into its receiver's queue. If nobody has the port the sender hears of it at
//! once, which an ICMP message would have told it: by an error if it is connected, by its queue of errors if it wants
//! that (IP_RECVERR). A receiver that is full loses what comes.
//!
//! | module | what |
//! |---|---|
//! | here | the socket: names, connecting |
//! | `send` | where a datagram goes |
//! | `many` | what is for many |
//! | `receive` | queues, and what comes with a datagram |
//! | `outward` | what is not local, by sockets of the host |
//! | `window` | ports of the host that lead inside |
//! | `ops` | what it does as a socket |
//!
//! Lock order: a socket's state, then ports; never the states of two sockets.

mod many;
mod ops;
mod outward;
mod receive;
mod send;
mod window;

pub(super) use send::is_broadcast;
pub(in crate::net) use window::Window;

use super::datagram::Waiting;
use super::endpoint::{peer, shown, unspecified};
use super::ip::{self, IpOptions};
use super::multicast::Groups;
use super::ports::{self, Claim, Hold};
use super::tables::Row;
use super::{bind_address, may_bind};
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::net::interfaces::LO;
use crate::net::links::Home;
use crate::net::options::Options;
use crate::net::outside::{Outside, reserve};
use crate::net::{Address, Core, Kind, Making, Namespace};
use crate::sync::{Lock, Rank};
use linux_raw_sys::net as n;
use receive::Failure;
use send::Corked;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

/// Options of the level IPPROTO_UDP (udp(7)).
const UDP_CORK: u32 = 1;
const UDP_SEGMENT: u32 = 103;
const UDP_GRO: u32 = 104;

#[derive(Default)]
struct State {
    hold: Option<Hold<UdpSocket>>,
    /// The address that was bound, and whether the port was asked for by its number.
    bound: Option<IpAddr>,
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    /// What reaches what is not local, and whom it has been found to be allowed to reach last.
    outside: Option<Arc<Outside>>,
    permitted: Option<SocketAddr>,
    /// Sockets of the host that reach one each, where that is how it goes.
    peers: Vec<(SocketAddr, Arc<Outside>)>,
    /// Which of these was heard first the last time.
    turn: usize,
    queue: Waiting,
    error: Option<Errno>,
    failures: VecDeque<Failure>,
    corked: Option<Corked>,
    /// UDP_CORK, UDP_SEGMENT, UDP_GRO.
    cork: bool,
    segment: u16,
    gro: bool,
    shut: (bool, bool),
    ip: IpOptions,
    groups: Groups,
}

impl State {
    /// All sockets of the host that it has.
    fn ways(&self) -> Vec<Arc<Outside>> {
        self.outside.iter().chain(self.peers.iter().map(|(_, peer)| peer)).cloned().collect()
    }
}

/// A UDP socket.
pub struct UdpSocket {
    me: Weak<UdpSocket>,
    core: Arc<Core>,
    network: Arc<Namespace>,
    v6: bool,
    /// The process that made it.
    process: i32,
    state: Lock<State>,
}

impl UdpSocket {
    pub(super) fn new(making: &Making<'_>, v6: bool) -> Arc<UdpSocket> {
        let domain = if v6 { n::AF_INET6 } else { n::AF_INET } as u16;
        let uid = making.by.cred.uid.effective;
        Arc::new_cyclic(|me| UdpSocket {
            me: me.clone(),
            core: Arc::new(Core::new(Kind::Datagram, domain, super::UDP as u16, uid, Options::default())),
            network: making.network.clone(),
            v6,
            process: making.by.caller.pid,
            state: Lock::new(Rank::UdpSocket, State::default()),
        })
    }

    fn only_v6(&self, state: &State) -> bool {
        self.v6 && state.ip.is_on(ip::IPV6, ip::name::IPV6_V6ONLY)
    }

    fn claim(&self, state: &State, ip: IpAddr) -> Claim {
        Claim::new(&self.core, self.only_v6(state), ip)
    }

    fn bind_to(&self, cred: &Cred, raw: &[u8]) -> Result<()> {
        let mut state = self.state.lock();
        let address = bind_address(self.v6, raw)?;
        may_bind(&self.network, cred, self.only_v6(&state), address, true)?;
        if state.hold.is_some() {
            return Err(Errno::EINVAL);
        }
        let claim = self.claim(&state, address.ip());
        let told = self.told_first(&state);
        let reserve = |at| reserve(Kind::Datagram, at, claim.only_v6, &told);
        let (hold, door) = ports::take(&self.network.udp, &self.network, address, claim, &self.me, reserve)?;
        if let (Some(door), Some(way)) = (door, &self.network.outside) {
            state.outside = Some(Arc::new(Outside::reserved(door, &way.watch, &self.core)?));
        }
        Self::has_port(&mut state, address.ip(), hold);
        Ok(())
    }

    /// Gives it a port, if it has none. One that sends outside gets a port there when it does.
    fn autobind(&self, state: &mut State) -> Result<()> {
        if state.hold.is_some() {
            return Ok(());
        }
        let ip = unspecified(self.v6);
        let hold = self.network.udp.bind(&self.network, 0, self.claim(state, ip), self.me.clone());
        Self::has_port(state, ip, hold.map_err(|_| Errno::EAGAIN)?);
        Ok(())
    }

    fn has_port(state: &mut State, ip: IpAddr, hold: Hold<UdpSocket>) {
        state.bound = Some(ip);
        state.local = Some(SocketAddr::new(ip, hold.port()));
        state.hold = Some(hold);
    }

    /// connect(2): says where datagrams go that name no address, and whose are heard.
    fn associate(&self, raw: &[u8]) -> Result<()> {
        let mut state = self.state.lock();
        self.autobind(&mut state)?;
        let remote = peer(self.v6, self.only_v6(&state), raw)?;
        let ip = remote.ip();
        let out = self.out_for_many(&state, remote)?;
        if let Some(toward) = self.toward(&state, remote).filter(|_| out != Some(LO)) {
            drop(state);
            return self.associate_toward(remote, toward);
        }
        if matches!(self.home(ip, out)?, Home::Outside) {
            return self.associate_outside(&mut state, remote);
        }
        let local = match self.own_address(&state) {
            Some(own) if own.is_ipv4() == ip.is_ipv4() => own,
            Some(_) => return Err(Errno::EINVAL),
            None => state.groups.sends_from(ip).unwrap_or_else(|| self.source(ip)),
        };
        if let Some(hold) = &state.hold {
            hold.associate(local, remote);
            state.local = Some(SocketAddr::new(local, hold.port()));
        }
        state.remote = Some(remote);
        Ok(())
    }

    /// connect(2) to nowhere.
    fn dissociate(&self) {
        let mut state = self.state.lock();
        if state.remote.take().is_none() {
            return;
        }
        let outside = (state.outside.take(), std::mem::take(&mut state.peers));
        let ip = state.bound.unwrap_or(unspecified(self.v6));
        let keeps = state.hold.as_ref().is_some_and(Hold::is_bound);
        let dropped = if keeps {
            if let Some(hold) = &state.hold {
                hold.disconnect(ip);
            }
            state.local = state.local.map(|local| SocketAddr::new(ip, local.port()));
            None
        } else {
            state.local = Some(SocketAddr::new(ip, 0));
            state.hold.take()
        };
        drop(state);
        drop((dropped, outside));
    }

    /// What others are told of it.
    pub(super) fn row(&self) -> Row {
        let state = self.state.lock();
        let none = SocketAddr::new(unspecified(self.v6), 0);
        Row {
            v6: self.v6,
            only_v6: self.only_v6(&state),
            // TCP_ESTABLISHED, or TCP_CLOSE.
            state: if state.remote.is_some() { 1 } else { 7 },
            local: state.local.unwrap_or(none),
            remote: state.remote,
            received: state.queue.used() as u32,
            sent: 0,
            uid: self.core.uid,
            ino: self.core.ino,
        }
    }

    fn shown(&self, address: Option<SocketAddr>) -> Address {
        let none = SocketAddr::new(unspecified(self.v6), 0);
        Address::Inet(shown(self.v6, address.unwrap_or(none)))
    }
}
