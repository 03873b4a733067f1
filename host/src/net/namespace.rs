//! A network: what a task's sockets are in (network_namespaces(7)).

use super::abstracts::AbstractNames;
use super::inet::icmp;
use super::inet::multicast::Joined;
use super::inet::ports::Ports;
use super::inet::tcp::TcpSocket;
use super::inet::tcp::{Gate, Leads};
use super::inet::udp::{UdpSocket, Window};
use super::interfaces::Interfaces;
use super::links::{Book, Home, Links};
use super::outside::Way;
use super::unix::tables::Sockets;
use crate::abi::{Errno, Result};
use crate::cred::userns::UserNs;
use crate::random::Random;
use crate::sync::{Lock, Rank};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// A network. Sockets stay in the one that they were made in.
pub struct Namespace {
    /// The user namespace that it belongs to.
    pub owner: UserNs,
    /// Unix sockets' names that are no files.
    pub names: AbstractNames,
    /// Which Unix sockets there are.
    pub unix: Sockets,
    /// Who has which TCP port.
    pub tcp: Arc<Ports<TcpSocket>>,
    /// The same of UDP.
    pub udp: Arc<Ports<UdpSocket>>,
    /// Who pings.
    pub icmp: icmp::Sockets,
    /// Who has joined which groups.
    pub joined: Joined,
    /// Who has which netlink port: protocol, port.
    pub netlink: Lock<BTreeSet<(u16, u32)>>,
    /// Its interfaces, addresses and ways.
    pub(super) links: Links,
    /// What programs may change.
    pub settings: Settings,
    /// Bytes of memory that sockets' buffers take, in all networks that were made of the first.
    pub memory: Arc<Memory>,
    /// What reaches the outside; none where nothing does.
    pub outside: Option<Way>,
    /// Listeners of the host that lead inside, by the port that they lead to.
    gates: Lock<Vec<(u16, Arc<Gate>)>>,
    /// The same for datagrams.
    windows: Lock<Vec<Arc<Window>>>,
    /// For numbers that nobody should guess.
    pub random: Random,
}

/// Below /proc/sys/net.
pub struct Settings {
    /// ipv4/ip_local_port_range: the first and the last port that sockets get that ask for none.
    pub local_ports: (AtomicU32, AtomicU32),
    /// ipv4/ip_unprivileged_port_start.
    pub unprivileged_ports: AtomicU32,
    /// ipv4/ping_group_range: first and last.
    pub ping_groups: (AtomicU32, AtomicU32),
    /// core/somaxconn.
    pub backlog_max: AtomicU32,
}

impl Settings {
    /// As they are at first; nobody may ping unless somebody is said to.
    fn with_ping_groups(groups: Option<(u32, u32)>) -> Self {
        let (first, last) = groups.unwrap_or((1, 0));
        Settings {
            local_ports: (AtomicU32::new(32_768), AtomicU32::new(60_999)),
            unprivileged_ports: AtomicU32::new(1024),
            ping_groups: (AtomicU32::new(first), AtomicU32::new(last)),
            backlog_max: AtomicU32::new(4096),
        }
    }
}

/// What buffers of all sockets of a network take (tcp_mem): beyond a half of the limit nobody gets more than a little, and
/// nobody anything beyond the limit.
pub struct Memory {
    used: AtomicUsize,
    /// Large chunks that were used before.
    store: Lock<Vec<Box<[u8]>>>,
}

impl Default for Memory {
    fn default() -> Self {
        Memory { used: AtomicUsize::new(0), store: Lock::new(Rank::SmallBlocks, Vec::new()) }
    }
}

impl Memory {
    const LIMIT: usize = 256 << 20;
    /// The size of the chunks in the store, and most of them.
    const STORED: usize = 64 << 10;
    const STORE: usize = 64;

    /// A chunk of `size` bytes, with anything in it. It counts until it is dropped.
    pub fn take(self: &Arc<Self>, size: usize) -> Chunk {
        self.used.fetch_add(size, Ordering::Relaxed);
        let stored = if size == Self::STORED { self.store.lock().pop() } else { None };
        let bytes = stored.unwrap_or_else(|| vec![0; size].into_boxed_slice());
        Chunk { bytes, memory: self.clone() }
    }

    /// A chunk that has these bytes in it.
    pub fn copy_of(self: &Arc<Self>, bytes: &[u8]) -> Chunk {
        let mut chunk = self.take(bytes.len());
        chunk.copy_from_slice(bytes);
        chunk
    }

    /// Charges `size` bytes that lie elsewhere.
    ///
    /// # Errors
    /// ENOMEM where memory is scarce.
    pub fn charge(&self, size: usize) -> Result<()> {
        if self.is_scarce() {
            return Err(Errno::ENOMEM);
        }
        self.used.fetch_add(size, Ordering::Relaxed);
        Ok(())
    }

    /// Takes such a charge back.
    pub fn pay_back(&self, size: usize) {
        self.used.fetch_sub(size, Ordering::Relaxed);
    }

    fn give_back(&self, chunk: Box<[u8]>) {
        self.used.fetch_sub(chunk.len(), Ordering::Relaxed);
        if chunk.len() == Self::STORED {
            let mut store = self.store.lock();
            if store.len() < Self::STORE {
                store.push(chunk);
            }
        }
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether buffers should be small.
    pub fn is_scarce(&self) -> bool {
        self.used() > Self::LIMIT / 2
    }

    /// Whether there is none left.
    pub fn is_spent(&self) -> bool {
        self.used() > Self::LIMIT
    }
}

/// Bytes of a socket's buffer, which go back where they were taken from as they are dropped.
pub struct Chunk {
    bytes: Box<[u8]>,
    memory: Arc<Memory>,
}

impl Deref for Chunk {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Chunk {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.memory.give_back(std::mem::take(&mut self.bytes));
    }
}

impl Namespace {
    /// A network with a loopback interface, and a way out if there is one.
    pub fn new(outside: Option<Way>) -> Arc<Namespace> {
        Self::make(outside, UserNs::FIRST, Arc::default(), (&Arc::default(), true))
    }

    /// One that reaches nothing but itself, and belongs to the user namespace `owner`: its loopback interface is down. What its
    /// sockets take counts here.
    pub fn beside(&self, owner: UserNs) -> Arc<Namespace> {
        Self::make(None, owner, self.memory.clone(), (self.links.book(), false))
    }

    fn make(
        outside: Option<Way>,
        owner: UserNs,
        memory: Arc<Memory>,
        (book, up): (&Arc<Book>, bool),
    ) -> Arc<Namespace> {
        let groups = outside.as_ref().and_then(|way| way.outer.ping_groups);
        let outer = outside.as_ref().map(|way| way.outer.clone());
        let network = Arc::new_cyclic(|me: &Weak<Namespace>| Namespace {
            owner,
            names: AbstractNames::default(),
            unix: Sockets::default(),
            tcp: Arc::default(),
            udp: Arc::default(),
            icmp: icmp::Sockets::default(),
            joined: Joined::default(),
            netlink: Lock::new(Rank::NetlinkPorts, BTreeSet::new()),
            links: Links::new(book, me.clone(), outer, up),
            settings: Settings::with_ping_groups(groups),
            memory,
            outside,
            gates: Lock::new(Rank::Gates, Vec::new()),
            windows: Lock::new(Rank::Windows, Vec::new()),
            random: Random::from_host(),
        });
        network.publish();
        network
    }

    /// Its interfaces, as they are now.
    pub fn interfaces(&self) -> Interfaces {
        match &self.outside {
            Some(way) if !self.links.has_made() => way.outer.interfaces().clone(),
            _ => self.links.interfaces(),
        }
    }

    /// Opens the ports of the host that lead inside.
    fn publish(self: &Arc<Self>) {
        let Some(way) = &self.outside else { return };
        let all = std::mem::take(&mut *way.outer.published.lock());
        for published in all {
            let fd = published.fd;
            if published.stream {
                let leads =
                    Leads::Inside { network: Arc::downgrade(self), port: published.port, v6: published.v6 };
                if let Ok(gate) = Gate::open(fd, &way.watch, leads) {
                    self.gates.lock().push((published.port, gate));
                }
            } else {
                let (port, v6) = (published.port, published.v6);
                if let Ok(window) = Window::open(fd, &way.watch, Arc::downgrade(self), port, v6) {
                    self.windows.lock().push(window);
                }
            }
        }
    }

    /// A listener at `port` has room again.
    pub(super) fn has_room(&self, port: u16) {
        let gates = self.gates.lock();
        if gates.is_empty() {
            return;
        }
        let leading: Vec<_> = gates.iter().filter(|gate| gate.0 == port).map(|gate| gate.1.clone()).collect();
        drop(gates);
        for gate in leading {
            gate.has_room();
        }
    }

    /// What a datagram from `port` to an address goes out by, if the port is a published one.
    pub(super) fn window(&self, port: u16, to: IpAddr) -> Option<Arc<Window>> {
        self.windows.lock().iter().find(|window| window.is_for(port, to)).cloned()
    }

    /// Whether an address is one of its own: a loopback address, or of an interface.
    pub fn is_local(&self, ip: IpAddr) -> bool {
        self.links.has(ip) || self.is_interface(ip)
    }

    /// Where what is sent to an address arrives.
    pub(super) fn home(self: &Arc<Self>, ip: IpAddr) -> Home {
        if self.is_local(ip) { Home::Here } else { self.links.beyond(ip) }
    }

    /// Whether an address is one of the host's interfaces, which are its own, too.
    pub fn is_interface(&self, ip: IpAddr) -> bool {
        self.outside.as_ref().is_some_and(|way| way.outer.has(ip))
    }

    /// Whether who listens at an address is to be reached from outside.
    pub fn faces_outside(&self, ip: IpAddr) -> bool {
        self.outside.as_ref().is_some_and(|way| !way.outer.is_walled())
            && (ip.is_unspecified() || self.is_interface(ip))
    }
}
