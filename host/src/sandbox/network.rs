//! What programs reach of the network, and who reaches them.

use super::{Error, Network, Spec};
use crate::fs::world::World;
use crate::hostfd;
use crate::hostsys::told;
use crate::kernel::Kernel;
use crate::net::guard::Guard;
use crate::net::outer::Outer;
use crate::net::resolver::{self, Resolvers};
use crate::warden::{self, rules::Rules, wire::Setup};
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

/// Who may ping: first and last group (icmp(7)).
fn ping_groups() -> Option<(u32, u32)> {
    let text = told::text("/proc/sys/net/ipv4/ping_group_range")?;
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The host's network, with what is to be published of it. None for `--network none`.
///
/// # Errors
/// Which port of the host cannot be had, and why.
pub(super) fn outer(spec: &Spec, threads: usize) -> Result<Option<Arc<Outer>>, Error> {
    if spec.network == Network::None {
        if spec.rules != Rules::default() || spec.net_log.is_some() {
            let reason = "rules about the network: there is none (--network none)";
            return Err(Error::Host(reason.to_owned()));
        }
        let first = spec.publish.first();
        return first.map_or(Ok(None), |first| {
            Err(Error::Publish {
                what: first.text.clone(),
                reason: "there is no network to publish to (--network none)".to_owned(),
            })
        });
    }
    let mut outer = Outer::own();
    outer.ping_groups = ping_groups();
    // An engine has written its containers' file.
    if spec.container.control.is_none() {
        outer.resolvers = Resolvers::of_host();
    }
    outer.host_loopback = spec.rules.host_loopback.clone();
    outer.guard = guard(spec, &outer, threads)?;
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

/// A warden, where there are rules or a log.
fn guard(spec: &Spec, outer: &Outer, threads: usize) -> Result<Option<Arc<Guard>>, Error> {
    let (walls, logs) = (spec.rules.are_some(), spec.net_log.is_some());
    if !walls && !logs {
        return Ok(None);
    }
    if walls && let Some(udp) = spec.publish.iter().find(|publish| publish.udp) {
        let reason = "with rules about the network only ports of TCP can be published".to_owned();
        return Err(Error::Publish { what: udp.text.clone(), reason });
    }
    let log = match &spec.net_log {
        None => None,
        Some(path) => {
            let file = hostfd::files().open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND);
            Some(file.map_err(|source| Error::NetLog { path: path.clone(), source })?)
        }
    };
    let setup = Setup { rules: spec.rules.clone(), resolvers: outer.resolvers.all().to_vec(), logs };
    let ends = warden::start(&setup, log, threads + SPARE_ENDS)
        .map_err(|error| Error::Host(format!("the process that holds the network's rules: {error}")))?;
    Ok(Some(Guard::new(ends, walls, logs)))
}

/// Connections with the warden beside those of workers: who waits for an answer is not always one.
const SPARE_ENDS: usize = 4;

/// Writes /etc/resolv.conf, where the root has an /etc. A file that is mounted there hides it.
pub(super) fn name_resolvers(spec: &Spec, kernel: &Kernel, world: &World) {
    let Some(outer) = kernel.outer() else { return };
    if outer.resolvers.all().is_empty() || spec.container.writes_root {
        return;
    }
    // What cannot be written there is done without: a root may have nothing of the kind.
    let _none = world.write_file(resolver::FILE.as_bytes(), outer.resolvers.inside().as_bytes());
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
