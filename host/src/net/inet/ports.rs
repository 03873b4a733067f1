//! Who has which port, and may have it (inet_connection_sock.c).
//!
//! Whoever binds, connects or was accepted holds a port as long as its [`Hold`] lives; who closed a connection first, a
//! while longer: that keeps others from binding there who have not said SO_REUSEADDR. Such waits are looked at only when
//! somebody wants a port, and are few: they need no timers.

use crate::abi::{Errno, Result};
use crate::net::interfaces::LO;
use crate::net::options::Options;
use crate::net::outside::Door;
use crate::net::{Core, Namespace};
use crate::sync::{Lock, Rank};
use crate::time::monotonic_ns;
use linux_raw_sys::net as n;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// TCP_TIMEWAIT_LEN, ns.
const TIME_WAIT: u64 = 60_000_000_000;
/// Most ports that are held on after their sockets' end (net.ipv4.tcp_max_tw_buckets, of a small machine).
const WAITS_MAX: usize = 4096;

/// How often the host is asked for a port that nobody here has.
const TRIES: usize = 16;

/// What a socket wants of a port.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The address, or none in particular.
    pub ip: IpAddr,
    /// IPV6_V6ONLY: no particular IPv6 address is no IPv4 one.
    pub only_v6: bool,
    /// SO_REUSEADDR.
    pub reuse_address: bool,
    /// SO_REUSEPORT.
    pub reuse_port: bool,
    /// Whose socket it is.
    pub uid: u32,
    /// SO_BINDTODEVICE.
    pub device: u32,
}

impl Claim {
    /// What a socket wants that has these options.
    pub(super) fn new(core: &Core, only_v6: bool, ip: IpAddr) -> Self {
        let options = core.options.lock();
        let (reuse_address, reuse_port) = (options.is_on(n::SO_REUSEADDR), options.is_on(n::SO_REUSEPORT));
        Claim { ip, only_v6, reuse_address, reuse_port, uid: core.uid, device: options.device }
    }

    /// Whether there is an address that both would have.
    fn meets(&self, other: &Claim) -> bool {
        if self.device != 0 && other.device != 0 && self.device != other.device {
            return false;
        }
        let covers = |any: &Claim| any.ip.is_unspecified() && !any.only_v6;
        match (self.ip, other.ip) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                self.ip.is_unspecified() || other.ip.is_unspecified() || self.ip == other.ip
            }
            (IpAddr::V6(_), IpAddr::V4(_)) => covers(self),
            (IpAddr::V4(_), IpAddr::V6(_)) => covers(other),
        }
    }

    /// How well it fits what is sent to `ip`, which comes in by the loopback interface as all that is local; none if not at
    /// all.
    fn fits(&self, ip: IpAddr) -> Option<u32> {
        self.fits_by(ip, LO)
    }

    /// The same of what comes in by any interface.
    fn fits_by(&self, ip: IpAddr, interface: u32) -> Option<u32> {
        if self.device != 0 && self.device != interface {
            return None;
        }
        let fits = match (self.ip, ip) {
            (own, ip) if own == ip => Some(2),
            (IpAddr::V4(own), IpAddr::V4(_)) if own.is_unspecified() => Some(1),
            (IpAddr::V6(own), IpAddr::V6(_)) if own.is_unspecified() => Some(1),
            (IpAddr::V6(own), IpAddr::V4(_)) if own.is_unspecified() && !self.only_v6 => Some(0),
            _ => None,
        };
        fits.map(|fits| 2 * fits + u32::from(self.device != 0))
    }
}

struct Holder<S> {
    claim: Claim,
    /// Whom it is connected with.
    remote: Option<SocketAddr>,
    /// It has gone, and is waited for.
    waits: bool,
    socket: Weak<S>,
}

/// Where a holder is: its port; listeners first; its number.
type Key = (u16, bool, u64);

/// The ports of one protocol.
pub struct Ports<S> {
    table: Lock<Table<S>>,
}

struct Table<S> {
    holders: BTreeMap<Key, Holder<S>>,
    /// When who is not waited for any more (CLOCK_MONOTONIC ns), oldest first.
    waits: VecDeque<(u64, Key)>,
    numbers: u64,
}

impl<S> Default for Ports<S> {
    fn default() -> Self {
        let table = Table { holders: BTreeMap::new(), waits: VecDeque::new(), numbers: 0 };
        Ports { table: Lock::new(Rank::Ports, table) }
    }
}

impl<S> Table<S> {
    /// Who has the port, listeners first.
    fn on(&self, port: u16) -> impl Iterator<Item = (&Key, &Holder<S>)> {
        self.holders.range((port, false, 0)..=(port, true, u64::MAX))
    }

    /// Whether `claim` cannot be had beside those who have the port. With `strict` nothing is shared: the port was not asked
    /// for. `own` is not in its own way.
    fn conflicts(&self, port: u16, claim: &Claim, strict: bool, own: u64) -> bool {
        self.on(port).any(|(key, holder)| {
            if key.2 == own || !claim.meets(&holder.claim) {
                return false;
            }
            let listens = !key.1;
            let theirs = &holder.claim;
            let both_reuse = claim.reuse_address && theirs.reuse_address && !listens;
            let same_user = holder.waits || claim.uid == theirs.uid;
            let group = claim.reuse_port && theirs.reuse_port && same_user;
            strict || !(both_reuse || group)
        })
    }

    /// Whether somebody at this port is connected just so.
    fn has_pair(&self, port: u16, local: IpAddr, remote: SocketAddr) -> bool {
        self.on(port).any(|(_, holder)| holder.remote == Some(remote) && holder.claim.ip == local)
    }

    fn insert(&mut self, port: u16, holder: Holder<S>) -> u64 {
        self.numbers += 1;
        self.holders.insert((port, true, self.numbers), holder);
        self.numbers
    }

    /// Forgets whom it has waited for long enough.
    fn expire(&mut self) {
        let now = if self.waits.is_empty() { 0 } else { monotonic_ns() };
        while self.waits.front().is_some_and(|(until, _)| *until <= now) || self.waits.len() > WAITS_MAX {
            if let Some((_, key)) = self.waits.pop_front() {
                self.holders.remove(&key);
            }
        }
    }
}

/// The ports that are given to those who ask for none: from a random one on, around.
fn ephemeral(network: &Namespace) -> impl Iterator<Item = u16> {
    let (first, last) = &network.settings.local_ports;
    let (first, last) = (first.load(Ordering::Relaxed), last.load(Ordering::Relaxed));
    let count = last.saturating_sub(first) + 1;
    let start = (network.random.word() % u64::from(count)) as u32;
    (0..count).map(move |step| (first + (start + step) % count) as u16)
}

impl<S> Ports<S> {
    /// Binds `port`, or any that is free if that is 0.
    ///
    /// # Errors
    /// EADDRINUSE.
    pub fn bind(
        self: &Arc<Self>,
        network: &Namespace,
        port: u16,
        claim: Claim,
        socket: Weak<S>,
    ) -> Result<Hold<S>> {
        let mut table = self.table.lock();
        table.expire();
        let bound = port != 0;
        let port = match port {
            0 => ephemeral(network).find(|&port| !table.conflicts(port, &claim, true, 0)),
            port => Some(port).filter(|&port| !table.conflicts(port, &claim, false, 0)),
        };
        let port = port.ok_or(Errno::EADDRINUSE)?;
        let number = table.insert(port, Holder { claim, remote: None, waits: false, socket });
        Ok(Hold { ports: self.clone(), key: (port, true, number), bound })
    }

    /// Binds a port that was not asked for, and that the host has given.
    ///
    /// # Errors
    /// EADDRINUSE.
    pub fn bind_given(self: &Arc<Self>, port: u16, claim: Claim, socket: Weak<S>) -> Result<Hold<S>> {
        let mut table = self.table.lock();
        table.expire();
        if table.conflicts(port, &claim, true, 0) {
            return Err(Errno::EADDRINUSE);
        }
        let number = table.insert(port, Holder { claim, remote: None, waits: false, socket });
        Ok(Hold { ports: self.clone(), key: (port, true, number), bound: false })
    }

    /// A port for a connection with `remote`: one that nobody has, or others for other connections.
    ///
    /// # Errors
    /// EADDRNOTAVAIL.
    pub fn connect(
        self: &Arc<Self>,
        network: &Namespace,
        claim: Claim,
        remote: SocketAddr,
        socket: Weak<S>,
    ) -> Result<Hold<S>> {
        let mut table = self.table.lock();
        table.expire();
        let usable = |&port: &u16| {
            // Who has bound a port has it for himself.
            table.on(port).all(|(key, holder)| key.1 && holder.remote.is_some())
                && !table.has_pair(port, claim.ip, remote)
        };
        let port = ephemeral(network).find(usable).ok_or(Errno::EADDRNOTAVAIL)?;
        let number = table.insert(port, Holder { claim, remote: Some(remote), waits: false, socket });
        Ok(Hold { ports: self.clone(), key: (port, true, number), bound: false })
    }

    /// The port of a listener, for a connection that it is to accept.
    pub fn share(self: &Arc<Self>, port: u16, claim: Claim, remote: SocketAddr, socket: Weak<S>) -> Hold<S> {
        let mut table = self.table.lock();
        let number = table.insert(port, Holder { claim, remote: Some(remote), waits: false, socket });
        Hold { ports: self.clone(), key: (port, true, number), bound: false }
    }

    /// Who listens for what is sent to `to`: who asked for just that address before others; of a group any.
    pub fn listener(&self, network: &Namespace, to: SocketAddr) -> Option<Arc<S>> {
        let table = self.table.lock();
        let listening = table.holders.range((to.port(), false, 0)..(to.port(), true, 0));
        let mut best: Option<(u32, Vec<&Holder<S>>)> = None;
        for (_, holder) in listening {
            let Some(score) = holder.claim.fits(to.ip()) else { continue };
            match &mut best {
                Some((known, group)) if *known == score => group.push(holder),
                Some((known, _)) if *known > score => {}
                _ => best = Some((score, vec![holder])),
            }
        }
        let (_, group) = best?;
        let index = if group.len() == 1 { 0 } else { network.random.word() as usize % group.len() };
        group[index].socket.upgrade()
    }
}

/// A holder of a port.
pub(super) struct Seen<S> {
    pub(super) port: u16,
    pub(super) claim: Claim,
    pub(super) remote: Option<SocketAddr>,
    pub(super) waits: bool,
    pub(super) socket: Option<Arc<S>>,
}

impl<S> Ports<S> {
    /// All who hold ports, or that port.
    pub(super) fn seen(&self, port: Option<u16>) -> Vec<Seen<S>> {
        let mut table = self.table.lock();
        table.expire();
        let seen = |(key, holder): (&Key, &Holder<S>)| Seen {
            port: key.0,
            claim: holder.claim,
            remote: holder.remote,
            waits: holder.waits,
            socket: holder.socket.upgrade(),
        };
        let all = match port {
            Some(port) => table.on(port).map(seen).collect(),
            None => table.holders.iter().map(seen).collect(),
        };
        drop(table);
        all
    }

    /// Who hears what `from` sends to `to`: who is connected with just him before others, who asked for just that address
    /// before others; of a group always the same, else who came last.
    pub fn receiver(&self, from: SocketAddr, to: SocketAddr) -> Option<Arc<S>> {
        let table = self.table.lock();
        let mut best: Option<(u32, &Holder<S>)> = None;
        let mut group: Vec<&Holder<S>> = Vec::new();
        for (_, holder) in table.on(to.port()) {
            let Some(fits) = holder.claim.fits(to.ip()) else { continue };
            let score = match holder.remote {
                None => fits,
                Some(remote) if remote == from => fits + 8,
                Some(_) => continue,
            };
            match best {
                Some((known, _)) if known > score => continue,
                Some((known, _)) if known == score => {}
                _ => group.clear(),
            }
            best = Some((score, holder));
            if holder.claim.reuse_port {
                group.push(holder);
            }
        }
        let (_, last) = best?;
        let chosen = if group.len() > 1 { group[usize::from(from.port()) % group.len()] } else { last };
        chosen.socket.upgrade()
    }
}

impl<S> Ports<S> {
    /// All who hear what `from` sends to an address that is for many, come in by an interface.
    pub(super) fn receivers(&self, from: SocketAddr, to: SocketAddr, interface: u32) -> Vec<Arc<S>> {
        let table = self.table.lock();
        let hears = |holder: &&Holder<S>| {
            let fits = holder.claim.fits_by(to.ip(), interface).is_some();
            fits && holder.remote.is_none_or(|remote| remote == from)
        };
        table
            .on(to.port())
            .map(|(_, holder)| holder)
            .filter(hears)
            .filter_map(|it| it.socket.upgrade())
            .collect()
    }
}

/// A port that is held.
pub struct Hold<S> {
    ports: Arc<Ports<S>>,
    key: Key,
    /// It was asked for by its number: the socket keeps it whatever becomes of its connections.
    bound: bool,
}

impl<S> Hold<S> {
    /// The port.
    pub fn port(&self) -> u16 {
        self.key.0
    }

    /// Whether it was asked for.
    pub fn is_bound(&self) -> bool {
        self.bound
    }

    fn change<R>(&self, body: impl FnOnce(&mut Holder<S>) -> R) -> Option<R> {
        self.ports.table.lock().holders.get_mut(&self.key).map(body)
    }

    /// What options of the socket mean to the port has become this.
    pub fn set_options(&self, options: &Options) {
        let (address, port) = (options.is_on(n::SO_REUSEADDR), options.is_on(n::SO_REUSEPORT));
        self.change(|holder| {
            let claim = &mut holder.claim;
            (claim.reuse_address, claim.reuse_port, claim.device) = (address, port, options.device);
        });
    }

    /// Hears who connects to the port from now on.
    ///
    /// # Errors
    /// EADDRINUSE if somebody else does.
    pub fn listen(&mut self) -> Result<()> {
        let ports = self.ports.clone();
        let mut table = ports.table.lock();
        let Some(holder) = table.holders.get(&self.key) else { return Err(Errno::EADDRINUSE) };
        let claim = holder.claim;
        // Its own wish to share with one that listens does not count any more, as it listens itself.
        if table.conflicts(self.key.0, &claim, false, self.key.2) {
            return Err(Errno::EADDRINUSE);
        }
        self.place(&mut table, true);
        Ok(())
    }

    /// Does not any more.
    pub fn unlisten(&mut self) {
        let ports = self.ports.clone();
        self.place(&mut ports.table.lock(), false);
    }

    fn place(&mut self, table: &mut Table<S>, listens: bool) {
        if let Some(holder) = table.holders.remove(&self.key) {
            self.key.1 = !listens;
            table.holders.insert(self.key, holder);
        }
    }

    /// Is connected from `local` to `remote` from now on.
    ///
    /// # Errors
    /// EADDRNOTAVAIL if there is such a connection.
    pub fn connect(&self, local: IpAddr, remote: SocketAddr) -> Result<()> {
        let mut table = self.ports.table.lock();
        if table.has_pair(self.key.0, local, remote) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        if let Some(holder) = table.holders.get_mut(&self.key) {
            holder.claim.ip = local;
            holder.remote = Some(remote);
        }
        Ok(())
    }

    /// Hears nobody but `remote` from now on.
    pub fn associate(&self, local: IpAddr, remote: SocketAddr) {
        self.change(|holder| {
            holder.claim.ip = local;
            holder.remote = Some(remote);
        });
    }

    /// Is connected no more; it is what was bound, again.
    pub fn disconnect(&self, local: IpAddr) {
        self.change(|holder| {
            holder.claim.ip = local;
            holder.remote = None;
        });
    }

    /// Keeps the port from others for a while (TIME_WAIT).
    pub fn wait(&self) {
        let mut table = self.ports.table.lock();
        table.expire();
        let Some(holder) = table.holders.get(&self.key) else { return };
        let (claim, remote) = (holder.claim, holder.remote);
        let number = table.insert(self.key.0, Holder { claim, remote, waits: true, socket: Weak::new() });
        let until = monotonic_ns() + TIME_WAIT;
        table.waits.push_back((until, (self.key.0, true, number)));
    }
}

impl<S> Drop for Hold<S> {
    fn drop(&mut self) {
        let gone = self.ports.table.lock().holders.remove(&self.key);
        drop(gone);
    }
}

/// Binds a port here, and of the host if those outside are to reach it.
///
/// # Errors
/// EADDRINUSE; ENOBUFS if the host has no descriptor for it.
pub(super) fn take<S>(
    ports: &Arc<Ports<S>>,
    network: &Namespace,
    address: SocketAddr,
    claim: Claim,
    socket: &Weak<S>,
    reserve: impl Fn(SocketAddr) -> Result<Option<Door>>,
) -> Result<(Hold<S>, Option<Door>)> {
    if !network.faces_outside(address.ip()) {
        return Ok((ports.bind(network, address.port(), claim, socket.clone())?, None));
    }
    let reserve = |at| match reserve(at) {
        Err(Errno::EMFILE | Errno::ENFILE) => Err(Errno::ENOBUFS),
        result => result,
    };
    if address.port() != 0 {
        let hold = ports.bind(network, address.port(), claim, socket.clone())?;
        return Ok((hold, reserve(address)?));
    }
    // One that is free on both sides. Those that are not are kept meanwhile, so as not to be given again.
    let mut unfit = Vec::new();
    for _ in 0..TRIES {
        let Some(door) = reserve(address)? else { break };
        match ports.bind_given(door.port(), claim, socket.clone()) {
            Ok(hold) => return Ok((hold, Some(door))),
            Err(_) => unfit.push(door),
        }
    }
    Ok((ports.bind(network, 0, claim, socket.clone())?, None))
}
