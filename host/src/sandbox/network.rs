//! What programs reach of the network, and who reaches them.

use super::{Error, Network, Spec};
use crate::net::outer::Outer;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

/// A port of the host that leads to one inside: `[ADDR:]HOSTPORT:PORT[/udp]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The address of the host; all of them when not given.
    pub address: Option<IpAddr>,
    /// The host's port.
    pub outside: u16,
    /// The port inside.
    pub inside: u16,
    /// Datagrams.
    pub udp: bool,
    text: String,
}

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ports, udp) = match text.rsplit_once('/') {
            None => (text, false),
            Some((ports, "tcp")) => (ports, false),
            Some((ports, "udp")) => (ports, true),
            Some(_) => return Err("a port is of tcp or udp".to_owned()),
        };
        let wrong = || "expected [ADDR:]HOSTPORT:PORT[/udp]".to_owned();
        let (front, inside) = ports.rsplit_once(':').ok_or_else(wrong)?;
        let (address, outside) = match front.rsplit_once(':') {
            None => (None, front),
            Some((address, port)) => {
                let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                (Some(bare.unwrap_or(address).parse().map_err(|_| wrong())?), port)
            }
        };
        let port = |text: &str| text.parse().ok().filter(|port| *port != 0).ok_or_else(wrong);
        Ok(Publish { address, outside: port(outside)?, inside: port(inside)?, udp, text: text.to_owned() })
    }
}

/// The host's network, with what is to be published of it. None for `--network none`.
///
/// # Errors
/// Which port of the host cannot be had, and why.
pub(super) fn outer(spec: &Spec) -> Result<Option<Arc<Outer>>, Error> {
    if spec.network == Network::None {
        let first = spec.publish.first();
        return first.map_or(Ok(None), |first| {
            Err(Error::Publish {
                what: first.text.clone(),
                reason: "there is no network to publish to (--network none)".to_owned(),
            })
        });
    }
    let outer = Outer::own();
    for publish in &spec.publish {
        let failed = |source: crate::abi::Errno| Error::Publish {
            what: publish.text.clone(),
            reason: source.to_string(),
        };
        let open = |ip| outer.publish(SocketAddr::new(ip, publish.outside), !publish.udp, publish.inside);
        match publish.address {
            Some(ip) => open(ip).map_err(failed)?,
            None => {
                open(Ipv4Addr::UNSPECIFIED.into()).map_err(failed)?;
                match open(Ipv6Addr::UNSPECIFIED.into()) {
                    // A host without IPv6.
                    Err(crate::abi::Errno::EAFNOSUPPORT | crate::abi::Errno::EADDRNOTAVAIL) => {}
                    other => other.map_err(failed)?,
                }
            }
        }
    }
    Ok(Some(Arc::new(outer)))
}

#[cfg(test)]
mod tests {
    use super::Publish;

    #[test]
    fn ports_are_published_as_written() {
        let parse = |text: &str| text.parse::<Publish>();
        let plain = parse("8080:80").expect("two ports");
        assert_eq!((plain.address, plain.outside, plain.inside, plain.udp), (None, 8080, 80, false));
        let full = parse("[::1]:53:5353/udp").expect("an address");
        assert_eq!((full.address, full.outside, full.udp), (Some("::1".parse().unwrap()), 53, true));
        assert!(parse("127.0.0.1:1:2/tcp").is_ok());
        for wrong in ["80", "0:80", "80:0", "x:1:2", "1:2/sctp", "70000:1", ":1", "1:", "127.0.0.1:80"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
