//! Addresses of sockets, and the bytes that programs see of them (`struct sockaddr_*`).

use linux_raw_sys::net as n;
use std::net::SocketAddr;
use std::sync::Arc;

/// The longest address (`struct sockaddr_storage`).
pub const MAX: usize = 128;
/// sizeof(struct sockaddr_in), and sizeof(struct sockaddr_in6).
pub const INET: usize = 16;
/// See [`INET`].
pub const INET6: usize = 28;

/// An address of some family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Address {
    /// None at all, not even a family.
    #[default]
    None,
    /// `sun_path`: a name, or a zero byte and an abstract name; `None` has the family only.
    Unix(Option<Arc<[u8]>>),
    /// Of an IPv4 or an IPv6 socket.
    Inet(SocketAddr),
    /// Of a netlink socket: its port, and groups.
    Netlink(u32, u32),
}

/// An address as programs see it.
#[derive(Clone, Copy)]
pub struct Raw {
    bytes: [u8; MAX],
    len: u8,
}

impl Raw {
    /// Room for an address of `len` bytes. `None` if none is as long.
    pub fn with_len(len: usize) -> Option<Raw> {
        (len <= MAX).then_some(Raw { bytes: [0; MAX], len: len as u8 })
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }

    /// The same, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len as usize]
    }

    fn push(&mut self, bytes: &[u8]) {
        let start = self.len as usize;
        let len = bytes.len().min(MAX - start);
        self.bytes[start..start + len].copy_from_slice(&bytes[..len]);
        self.len += len as u8;
    }
}

impl Address {
    /// As programs see it.
    pub fn raw(&self) -> Raw {
        let mut raw = Raw { bytes: [0; MAX], len: 0 };
        match self {
            Address::None => {}
            Address::Unix(name) => {
                raw.push(&(n::AF_UNIX as u16).to_ne_bytes());
                if let Some(name) = name {
                    raw.push(name);
                    // Paths end with a zero, abstract names with their length.
                    if name.first().is_some_and(|&b| b != 0) {
                        raw.push(&[0]);
                    }
                }
            }
            Address::Netlink(port, groups) => {
                raw.push(&(n::AF_NETLINK as u16).to_ne_bytes());
                raw.push(&[0; 2]);
                raw.push(&port.to_ne_bytes());
                raw.push(&groups.to_ne_bytes());
            }
            Address::Inet(SocketAddr::V4(to)) => {
                raw.push(&(n::AF_INET as u16).to_ne_bytes());
                raw.push(&to.port().to_be_bytes());
                raw.push(&to.ip().octets());
                raw.push(&[0; 8]);
            }
            Address::Inet(SocketAddr::V6(to)) => {
                raw.push(&(n::AF_INET6 as u16).to_ne_bytes());
                raw.push(&to.port().to_be_bytes());
                raw.push(&to.flowinfo().to_be_bytes());
                raw.push(&to.ip().octets());
                raw.push(&to.scope_id().to_ne_bytes());
            }
        }
        raw
    }
}

/// The family that an address says it is of; `None` if it is too short to say.
pub fn family_of(raw: &[u8]) -> Option<u16> {
    raw.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::{Address, INET, INET6};

    #[test]
    fn addresses_are_as_long_as_linux_says() {
        let len = |text: &str| Address::Inet(text.parse().expect("an address")).raw().bytes().len();
        assert_eq!(len("127.0.0.1:80"), INET);
        assert_eq!(len("[::1]:80"), INET6);
        let unix = |name: &[u8]| Address::Unix(Some(name.into())).raw().bytes().len();
        assert_eq!((unix(b"/s"), unix(b"\0s")), (5, 4));
        assert_eq!(Address::Unix(None).raw().bytes().len(), 2);
        assert_eq!(Address::None.raw().bytes().len(), 0);
    }
}
