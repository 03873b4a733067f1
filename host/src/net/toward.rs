//! Where what is not local goes, other than by an ordinary socket of the host: to a resolver, to the host's own loopback, and
//! to anywhere at all where a warden is asked ([`super::guard`]).
//!
//! Such a socket is connected from the beginning, also one for datagrams: a socket of ours that sends to several has several.
//! It is made without any lock, since the warden is another process.

use super::guard::Granted;
use super::outside::{Outside, Way, domain, name_of};
use super::{Address, Core, Namespace};
use crate::abi::{Errno, Result};
use crate::hostfd::HostFd;
use crate::hostsys::socket as host;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// To a resolver of the host's: its place in the list, and where it is.
    Resolver(usize, SocketAddr),
    /// To a port of the host's own loopback.
    Host,
    /// Out, if the warden permits it.
    World,
}

impl Namespace {
    /// The resolver that an address stands for.
    #[inline]
    pub fn resolver(&self, to: SocketAddr) -> Option<Toward> {
        if to.port() != super::resolver::PORT {
            return None;
        }
        let (index, real) = self.outside.as_ref()?.outer.resolvers.behind(to)?;
        Some(Toward::Resolver(index, real))
    }

    /// What leads to a port of the host's own, if nobody inside has it.
    pub fn host_loopback(&self, to: SocketAddr) -> Option<Toward> {
        let outer = &self.outside.as_ref()?.outer;
        outer.host_loopback.iter().any(|ports| ports.has(to.port())).then_some(Toward::Host)
    }

    /// Whether a warden is to be asked about what is not local.
    pub fn is_guarded(&self) -> bool {
        self.outside.as_ref().is_some_and(|way| way.outer.guard.is_some())
    }

    /// Whether nothing is reached but by a warden.
    pub fn is_walled(&self) -> bool {
        self.outside.as_ref().is_some_and(|way| way.outer.is_walled())
    }
}

/// A socket of the host that is connected to `to`, as a program calls it, or on its way (false); `process` is the program's.
///
/// # Errors
/// EACCES, ECONNREFUSED for what is not permitted; what connecting said.
pub fn connect(
    way: &Way,
    core: &Arc<Core>,
    to: SocketAddr,
    toward: Toward,
    process: i32,
) -> Result<(Outside, bool)> {
    let stream = core.kind == super::Kind::Stream;
    let guard = way.outer.guard.as_ref();
    let own = SocketAddr::new(
        if to.is_ipv4() { LOOPBACK } else { IpAddr::V6(std::net::Ipv6Addr::LOCALHOST) },
        to.port(),
    );
    let (granted, real) = match (toward, guard) {
        (Toward::Resolver(index, _), Some(guard)) => {
            let granted = Granted { fd: Some(guard.resolve(stream, index)?), done: true, account: None };
            (granted, to)
        }
        (Toward::Resolver(_, real), None) => (Granted { fd: None, done: false, account: None }, real),
        (Toward::Host, Some(guard)) => (guard.connect(process, stream, own, true)?, own),
        (Toward::Host, None) => (Granted { fd: None, done: false, account: None }, own),
        // (Who may be asked at all is asked by the warden.)
        (Toward::World, Some(guard)) => (guard.connect(process, stream, to, false)?, to),
        (Toward::World, None) => return Err(Errno::EACCES),
    };
    let (fd, done) = match granted.fd {
        Some(fd) => (fd, granted.done),
        None => begin(core, real)?,
    };
    // What is the host's own is shown as the sandbox's.
    let named = match toward {
        Toward::World => None,
        Toward::Host | Toward::Resolver(..) => {
            let port = name_of(&fd).map_or(0, |at| at.port());
            Some(SocketAddr::new(own.ip(), port))
        }
    };
    let outside = Outside::connected_to(fd, &way.watch, core, (named, to))?;
    Ok((outside.counted(granted.account), done))
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn begin(core: &Core, to: SocketAddr) -> Result<(HostFd, bool)> {
    let fd = host::socket(domain(to), core.kind.number(), 0)?;
    match host::connect(&fd, Address::Inet(to).raw().bytes()) {
        Ok(()) => Ok((fd, true)),
        Err(Errno::EINPROGRESS) => Ok((fd, false)),
        Err(errno) => Err(errno),
    }
}
