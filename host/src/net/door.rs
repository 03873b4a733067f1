//! Sockets of the host that are bound for one of ours, before it is known what becomes of them.

use super::outside::{IPV6, V6ONLY, domain, name_of};
use super::{Address, Core, Kind};
use crate::abi::{Errno, Result};
use crate::hostfd::HostFd;
use crate::hostsys::socket as host;
use linux_raw_sys::net as n;
use std::net::SocketAddr;

/// A socket of the host that is bound, and nothing else yet.
pub struct Door {
    pub(super) fd: HostFd,
    pub(super) v6: bool,
}

impl Door {
    /// Its port.
    pub fn port(&self) -> u16 {
        name_of(&self.fd).map_or(0, |at| at.port())
    }

    /// Tells it an option.
    pub fn tell(&self, level: u32, name: u32, value: &[u8]) {
        // What the host does not do is done without.
        let _ = host::set_option(&self.fd, level, name, value);
    }

    /// It listens from now on.
    ///
    /// # Errors
    /// EADDRINUSE.
    pub fn listen(self) -> Result<HostFd> {
        host::listen(&self.fd, Core::BACKLOG)?;
        Ok(self.fd)
    }
}

/// Binds a socket of the host for one of ours, which has said `told`. `None`: the host does not let us (low ports are root's,
/// whom the jail leaves nothing of it), or has no such address.
///
/// # Errors
/// EADDRINUSE; EMFILE, ENFILE, ENOBUFS, ENOMEM.
pub fn reserve(
    kind: Kind,
    at: SocketAddr,
    only_v6: bool,
    told: &[(u32, u32, Vec<u8>)],
) -> Result<Option<Door>> {
    let made = match host::socket(domain(at), kind.number(), 0) {
        // A host without IPv6.
        Err(Errno::EAFNOSUPPORT) if at.ip().is_unspecified() && !only_v6 => {
            host::socket(n::AF_INET as u16, kind.number(), 0).map(|fd| (fd, false))
        }
        made => made.map(|fd| (fd, at.is_ipv6())),
    };
    let bound = made.and_then(|(fd, v6)| {
        let door = Door { fd, v6 };
        for (level, name, value) in told {
            door.tell(*level, *name, value);
        }
        if v6 {
            door.tell(IPV6, V6ONLY, &i32::from(only_v6).to_ne_bytes());
        }
        let ip = if at.ip().is_unspecified() { super::inet::unspecified(v6) } else { at.ip() };
        host::bind(&door.fd, Address::Inet(SocketAddr::new(ip, at.port())).raw().bytes())?;
        Ok(door)
    });
    match bound {
        Ok(door) => Ok(Some(door)),
        Err(Errno::EACCES | Errno::EPERM | Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT) => Ok(None),
        Err(errno) => Err(errno),
    }
}
