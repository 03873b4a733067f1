//! The resolver that programs find in /etc/resolv.conf (resolv.conf(5)): an address of the sandbox's own loopback that stands
//! for a resolver of the host's, which may be one on the host's loopback that nothing else leads to.
//!
//! What is sent there is not looked at: a socket of the host is connected to that resolver, and programs see the address
//! that they know. Where there are rules it is the warden that answers ([`crate::warden`]).

use crate::hostsys::told;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

/// The first of them has this address, the next ones those that follow.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// MAXNS: what resolv.conf(5) has at most.
const MOST: usize = 3;
/// Where resolvers listen.
pub(super) const PORT: u16 = 53;
/// What programs look for.
pub const FILE: &str = "/etc/resolv.conf";

/// The host's resolvers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolvers {
    all: Vec<SocketAddr>,
    /// What else the file says.
    others: String,
}

impl Resolvers {
    /// As the host's file says: the host itself, if it names none. A host without one has nobody to ask, and programs see
    /// no file either.
    pub fn of_host() -> Resolvers {
        told::text(FILE).map(|text| Resolvers::read(&text)).unwrap_or_default()
    }

    fn read(text: &str) -> Resolvers {
        let mut resolvers = Resolvers::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("nameserver") {
                resolvers.others.extend([line, "\n"]);
            } else if let Some(ip) = words.next().and_then(address)
                && resolvers.all.len() < MOST
            {
                resolvers.all.push(ip);
            }
        }
        if resolvers.all.is_empty() {
            resolvers.all.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
        }
        resolvers
    }

    /// The file as programs are to see it.
    pub fn inside(&self) -> String {
        let lines = (0..self.all.len()).map(|index| format!("nameserver {}\n", own(index)));
        lines.chain([self.others.clone()]).collect()
    }

    /// All of them, in order.
    pub fn all(&self) -> &[SocketAddr] {
        &self.all
    }

    /// Which of them an address stands for, and where that is.
    pub fn behind(&self, to: SocketAddr) -> Option<(usize, SocketAddr)> {
        if to.port() != PORT || !to.ip().is_loopback() {
            return None;
        }
        let found = self.all.iter().enumerate().find(|(index, _)| IpAddr::V4(own(*index)) == to.ip());
        found.map(|(index, resolver)| (index, *resolver))
    }
}

fn own(index: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(FIRST) + index as u32)
}

/// An address with a scope, perhaps (`fe80::1%eth0`).
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, scope) = text.split_once('%').map_or((text, None), |(ip, scope)| (ip, Some(scope)));
    let number = |scope: &str| {
        let plain = scope.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let known = || told::text(&format!("/sys/class/net/{scope}/ifindex"))?.trim().parse().ok();
        scope.parse::<u32>().ok().or_else(|| if plain { known() } else { None })
    };
    Some(match (ip.parse().ok()?, scope) {
        (IpAddr::V6(v6), Some(scope)) => SocketAddr::V6(SocketAddrV6::new(v6, PORT, 0, number(scope)?)),
        (ip, _) => SocketAddr::new(ip, PORT),
    })
}

#[cfg(test)]
mod tests {
    use super::Resolvers;

    #[test]
    fn resolvers_have_addresses_inside_and_the_rest_stays() {
        let text = "# by hand\nnameserver 127.0.0.53\nsearch a.b c\n nameserver fe80::1%7 x\nnameserver no\noptions edns0\n";
        let resolvers = Resolvers::read(text);
        let inside = "nameserver 127.0.0.11\nnameserver 127.0.0.12\n# by hand\nsearch a.b c\noptions edns0\n";
        assert_eq!(resolvers.inside(), inside);
        let behind = |text: &str| resolvers.behind(text.parse().expect("an address"));
        assert_eq!(
            behind("127.0.0.11:53").map(|(at, to)| (at, to.to_string())),
            Some((0, "127.0.0.53:53".into()))
        );
        assert_eq!(
            behind("127.0.0.12:53").map(|(at, to)| (at, to.to_string())),
            Some((1, "[fe80::1%7]:53".into()))
        );
        assert!(
            ["127.0.0.11:54", "127.0.0.13:53", "127.0.0.10:53", "[::1]:53"]
                .iter()
                .all(|to| behind(to).is_none())
        );
    }

    #[test]
    fn the_host_itself_is_asked_where_nobody_is_named() {
        assert_eq!(Resolvers::read("").all(), ["127.0.0.1:53".parse().expect("an address")]);
        let many = "nameserver 1.1.1.1\n".repeat(5);
        assert_eq!(Resolvers::read(&many).all().len(), 3);
    }
}
