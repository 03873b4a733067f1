//! Ports of the host that lead to a UDP port inside: what comes there is queued at whoever has the port, and what he sends
//! goes out there.

use crate::abi::Result;
use crate::hostfd::HostFd;
use crate::mm::IoSrc;
use crate::net::Namespace;
use crate::net::inet::datagram::Datagram;
use crate::net::outside::{Outside, Watch};
use crate::sync::{Lock, Rank, Wake};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};

/// Most datagrams taken in one go: others have something to say, too.
const BURST: usize = 64;
/// Of how many who have sent something it is known that they are outside.
const HEARD: usize = 256;
/// The hop limit that a datagram from outside is shown with.
const HOPS: u8 = 64;

/// A port of the host.
pub(in crate::net) struct Window {
    outside: Outside,
    network: Weak<Namespace>,
    port: u16,
    v6: bool,
    /// Who has sent something, latest last.
    heard: Lock<VecDeque<SocketAddr>>,
}

/// What the poller rings.
struct Bell(Weak<Window>);

impl Wake for Bell {
    fn wake(&self) {
        if let Some(window) = self.0.upgrade() {
            window.take();
        }
    }
}

impl Window {
    /// Has what comes to a socket of the host go to `port` of a network.
    ///
    /// # Errors
    /// ENOMEM, ENOSPC.
    pub(in crate::net) fn open(
        fd: HostFd,
        watch: &Arc<dyn Watch>,
        network: Weak<Namespace>,
        port: u16,
        v6: bool,
    ) -> Result<Arc<Window>> {
        let outside = Outside::unwatched(fd, watch, v6);
        let window = Arc::new(Window {
            outside,
            network,
            port,
            v6,
            heard: Lock::new(Rank::WindowHeard, VecDeque::new()),
        });
        window.ring()?;
        Ok(window)
    }

    fn ring(self: &Arc<Self>) -> Result<()> {
        self.outside.ring(Arc::new(Bell(Arc::downgrade(self))))
    }

    /// Whether it leads to that port, and to addresses like that one.
    pub(in crate::net) fn is_for(&self, port: u16, ip: IpAddr) -> bool {
        self.port == port && self.v6 == ip.is_ipv6()
    }

    /// Whether somebody outside has that address.
    pub(super) fn has_heard(&self, from: SocketAddr) -> bool {
        self.heard.lock().contains(&from)
    }

    /// Sends a datagram out.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn send(&self, src: &mut IoSrc<'_>, to: SocketAddr, flags: u32) -> Result<usize> {
        self.outside.send(src, Some(to), flags)
    }

    fn take(self: &Arc<Self>) {
        let Some(network) = self.network.upgrade() else { return };
        let ip = match self.v6 {
            false => IpAddr::V4(Ipv4Addr::LOCALHOST),
            true => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        for _ in 0..BURST {
            let Ok((bytes, from)) = self.outside.receive_any() else { return };
            let Some(receiver) = network.udp.receiver(from, SocketAddr::new(ip, self.port)) else { continue };
            self.note(from);
            let kept = network.memory.copy_of(&bytes);
            let time = crate::time::realtime_ns();
            receiver.queue(Datagram { bytes: kept, from, to: ip, tos: 0, ttl: HOPS, time });
        }
        // It was watched before: it can be again.
        let _ = self.ring();
    }

    fn note(&self, from: SocketAddr) {
        let mut heard = self.heard.lock();
        if heard.back() == Some(&from) {
            return;
        }
        heard.retain(|known| *known != from);
        if heard.len() >= HEARD {
            heard.pop_front();
        }
        heard.push_back(from);
    }
}
