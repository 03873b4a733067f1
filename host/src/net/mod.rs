//! Sockets, and the networks they are in.
//!
//! What programs hold is a [`SocketFile`]; what it does is up to a [`Socket`], of which each family has its own kinds.
//! [`FAMILIES`] is what there is. System calls decode their arguments, make one call of [`Socket`] and encode what comes of
//! it; they name no family. Nothing here parks: what would block returns EAGAIN, or says what to wait for.
//!
//! | module | what |
//! |---|---|
//! | here | the trait, and making sockets |
//! | [`address`] | addresses, and what programs see of them |
//! | [`common`] | what every socket has, whatever its family |
//! | [`options`] | options of the level SOL_SOCKET |
//! | `file` | a socket as an open file |
//! | [`outside`] | sockets of the host, for what is not local |
//! | `door` | the same, bound and nothing else yet |
//! | [`toward`] | the same where a warden is asked, and for resolvers |
//! | [`guard`] | asking the warden |
//! | [`resolver`] | the resolvers of the host, as programs see them |
//! | [`outer`] | the network that the sandbox was started in |
//! | [`namespace`] | a network: ports, names, settings |
//! | [`ifreq`] | what ioctl(2) says of them |
//! | [`interfaces`] | interfaces, addresses, routes |
//! | [`links`] | those that programs make and change |
//! | `waiters` | sockets that wait for another one |
//! | [`unix`] | AF_UNIX |
//! | [`inet`] | AF_INET, AF_INET6 |
//! | `netlink` | AF_NETLINK |

mod abstracts;
pub mod address;
pub mod common;
mod door;
mod file;
pub mod guard;
pub mod ifreq;
pub mod inet;
pub mod interfaces;
pub mod links;
pub mod message;
pub mod namespace;
mod netlink;
pub mod options;
pub mod outer;
pub mod outside;
pub mod resolver;
pub mod toward;
pub mod unix;
mod waiters;

pub use address::{Address, Raw};
pub use common::{Core, Kind};
pub use file::SocketFile;
pub use message::{Control, Creds, Destination, How, Outgoing, Peer, Received};
pub use namespace::Namespace;
pub use options::{Answer, Value};

use crate::abi::{Errno, Result};
use crate::mm::{IoDst, IoSrc};
use crate::vfs::{Carrier, Flight, Ioctl, Lookup};
use std::any::Any;
use std::sync::Arc;

/// What becomes of a connect(2).
pub enum Connect {
    /// It is connected.
    Done,
    /// [`Socket::connected`] will say; the socket's own queue is notified.
    Underway,
    /// The other side has no room yet: to be tried again when that socket's queue is notified.
    Full(Arc<dyn Socket>),
}

/// A socket of some family. Methods that a family lacks answer as Linux does for it.
pub trait Socket: Send + Sync {
    /// What it has whatever its family.
    fn core(&self) -> &Core;

    /// bind(2).
    ///
    /// # Errors
    /// EINVAL, EADDRINUSE, EADDRNOTAVAIL, EACCES, and those of path names.
    fn bind(&self, by: &Lookup<'_>, address: &[u8]) -> Result<()>;

    /// listen(2); `peer` is what those who connect see.
    ///
    /// # Errors
    /// EOPNOTSUPP, EINVAL, EADDRINUSE.
    fn listen(&self, backlog: i32, peer: Peer) -> Result<()> {
        let _ = (backlog, peer);
        Err(Errno::EOPNOTSUPP)
    }

    /// Takes a waiting connection.
    ///
    /// # Errors
    /// EAGAIN, EOPNOTSUPP, EINVAL if it is not listening.
    fn accept(&self) -> Result<Arc<dyn Socket>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// connect(2); `peer` is what the other side sees. `nowait`: the caller will not wait for what it begins.
    ///
    /// # Errors
    /// ECONNREFUSED, EISCONN, EALREADY, EINVAL, ENETUNREACH, and those of path names.
    fn connect(&self, by: &Lookup<'_>, address: &[u8], peer: &Peer, nowait: bool) -> Result<Connect>;

    /// How a connect(2) that was [underway](Connect::Underway) has ended; `None` while it has not.
    fn connected(&self) -> Option<Result<()>> {
        Some(Ok(()))
    }

    /// Sends; streams what fits, messages whole.
    ///
    /// # Errors
    /// EAGAIN until the own queue is notified; EPIPE, ENOTCONN, EMSGSIZE, ECONNREFUSED, EFAULT and others.
    fn send(&self, src: &mut IoSrc<'_>, message: &mut Outgoing<'_>) -> Result<usize>;

    /// Sends what the kernel itself copies (sendfile).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn write(&self, src: &mut IoSrc<'_>) -> Result<usize>;

    /// Receives.
    ///
    /// # Errors
    /// EAGAIN until the own queue is notified; ENOTCONN, ECONNRESET, EFAULT and others.
    fn receive(&self, dst: &mut IoDst<'_>, how: How) -> Result<Received>;

    /// read(2).
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    fn read(&self, dst: &mut IoDst<'_>) -> Result<usize> {
        Ok(self.receive(dst, How::default())?.count)
    }

    /// shutdown(2).
    ///
    /// # Errors
    /// ENOTCONN.
    fn shutdown(&self, read: bool, write: bool) -> Result<()>;

    /// getsockname(2).
    fn name(&self) -> Address;

    /// getpeername(2), or the peer that accept(2) tells of.
    ///
    /// # Errors
    /// ENOTCONN.
    fn peer_name(&self) -> Result<Address>;

    /// The address that accept(2) reports, of a socket just accepted.
    fn accepted_from(&self) -> Address {
        self.peer_name().unwrap_or(Address::None)
    }

    /// Who is at the other end (SO_PEERCRED), where that is known.
    fn peer(&self) -> Option<Peer> {
        None
    }

    /// setsockopt(2).
    ///
    /// # Errors
    /// ENOPROTOOPT, EINVAL, EPERM, EFAULT and others.
    fn set_option(&self, by: &Lookup<'_>, level: u32, name: u32, value: &Value<'_>) -> Result<()>;

    /// getsockopt(2); `room` is how much the program has for the answer.
    ///
    /// # Errors
    /// ENOPROTOOPT, EINVAL and others.
    fn option(&self, level: u32, name: u32, room: usize) -> Result<Answer>;

    /// The pending error, taken (SO_ERROR).
    fn take_error(&self) -> Option<Errno>;

    /// Whether it accepts connections (SO_ACCEPTCONN).
    fn is_listening(&self) -> bool {
        false
    }

    /// Events that hold now, as poll(2) bits.
    fn poll(&self) -> u32;

    /// ioctl(2).
    ///
    /// # Errors
    /// ENOTTY.
    fn ioctl(&self, call: &Ioctl<'_>) -> Result<u64> {
        let _ = call;
        Err(Errno::ENOTTY)
    }

    /// Itself, if files can be on their way to it.
    fn carrier(&self) -> Option<&dyn Carrier> {
        None
    }

    /// Its last descriptor was closed.
    fn release(&self) {}

    /// For finding out what it is.
    fn as_any(&self) -> &dyn Any;
}

/// What a new socket is made from.
pub struct Making<'a> {
    /// The type's number (SOCK_STREAM, ...), without flags.
    pub kind: u32,
    /// The protocol.
    pub protocol: i32,
    /// Who makes it.
    pub by: &'a Lookup<'a>,
    /// Files on their way in the sandbox.
    pub flight: &'a Arc<Flight>,
    /// The network that it is in.
    pub network: &'a Arc<Namespace>,
}

/// Two sockets connected to each other.
pub type Pair = (Arc<dyn Socket>, Arc<dyn Socket>);

/// A family of sockets.
pub struct Family {
    /// Its number.
    pub domain: u16,
    /// socket(2).
    pub make: fn(&Making<'_>) -> Result<Arc<dyn Socket>>,
    /// socketpair(2); the peer is what each end sees of the other.
    pub pair: fn(&Making<'_>, Peer) -> Result<Pair>,
}

/// What families there are.
pub const FAMILIES: &[Family] = &[unix::FAMILY, inet::V4, inet::V6, netlink::FAMILY];

/// The family of that number.
///
/// # Errors
/// EAFNOSUPPORT.
pub fn family(domain: i32) -> Result<&'static Family> {
    FAMILIES.iter().find(|family| i32::from(family.domain) == domain).ok_or(Errno::EAFNOSUPPORT)
}

/// Types have smaller numbers (SOCK_MAX).
pub const TYPES: u32 = 11;
