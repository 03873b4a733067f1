//! Rules about who may be talked to: `NAME`, `*.NAME`, an address or a prefix, each with ports or without.
//!
//! What a rule denies is denied, whatever others allow. Once there is one that allows, nothing else is reachable. Names are
//! rules about what is resolved, and about addresses that were resolved so ([`super::grants`]); a number is judged by the
//! rules about numbers.

use super::reach;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::str::FromStr;

/// Ports from one to another. All of them where a rule has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports(pub u16, pub u16);

impl Ports {
    /// Every port.
    pub const ALL: Ports = Ports(0, u16::MAX);

    /// Whether it is one of them.
    pub fn has(self, port: u16) -> bool {
        (self.0..=self.1).contains(&port)
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no port, and no range of ports");
        let port = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(wrong),
            false => Err(wrong()),
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        if first <= last { Ok(Ports(first, last)) } else { Err(wrong()) }
    }
}

/// A name as rules are about it: in small letters, without the last dot, and of letters that host names have (and `_`), so
/// that no two names look alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostName(String);

impl HostName {
    /// The longest (RFC 1035).
    const LONGEST: usize = 253;

    /// From its labels.
    pub fn of<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<HostName> {
        let mut name = String::new();
        for label in labels {
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if label.is_empty() || label.len() > 63 || !label.iter().all(plain) {
                return None;
            }
            if !name.is_empty() {
                name.push('.');
            }
            name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        }
        (!name.is_empty() && name.len() <= Self::LONGEST).then_some(HostName(name))
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_suffix('.').unwrap_or(text);
        let name = HostName::of(bare.split('.').map(str::as_bytes));
        let name = name.ok_or_else(|| {
            format!(
                "'{text}' is no host name (those with other letters are written as xn--...) and no address"
            )
        })?;
        // What looks like an address is none with a mistake in it.
        let last = name.0.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") {
            return Err(format!("'{text}' is no address"));
        }
        Ok(name)
    }
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Target {
    Name(HostName),
    /// All below it.
    Below(HostName),
    Prefix(IpNet),
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    target: Target,
    ports: Ports,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix('[') {
            let (inside, behind) = rest.split_once(']').ok_or("a '[' without ']'")?;
            let target = prefix(inside).filter(|net| net.addr().is_ipv6() || inside.contains(':'));
            let target =
                target.map(Target::Prefix).ok_or_else(|| format!("'{inside}' is no IPv6 address"))?;
            let ports = match behind {
                "" => Ports::ALL,
                _ => behind.strip_prefix(':').ok_or("expected :PORT behind ']'")?.parse()?,
            };
            return Ok(Rule { target, ports });
        }
        if let Some(net) = prefix(text) {
            return Ok(Rule { target: Target::Prefix(net), ports: Ports::ALL });
        }
        let (target, ports) = match text.rsplit_once(':') {
            Some((target, ports)) => (target, ports.parse()?),
            None => (text, Ports::ALL),
        };
        let target = match (prefix(target), target.strip_prefix("*.")) {
            (Some(net), _) if net.addr().is_ipv4() => Target::Prefix(net),
            (_, Some(name)) => Target::Below(name.parse()?),
            _ => Target::Name(target.parse()?),
        };
        Ok(Rule { target, ports })
    }
}

/// An address or a prefix; mapped ones are of IPv4.
fn prefix(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match reach::canonical(IpAddr::V6(v6.addr())) {
            IpAddr::V4(v4) => IpNet::new(v4.into(), v6.prefix_len() - 96).ok().map(|net| net.trunc()),
            IpAddr::V6(_) => Some(net.trunc()),
        },
        _ => Some(net.trunc()),
    }
}

impl Rule {
    fn is_about_name(&self, name: &HostName) -> bool {
        match &self.target {
            Target::Name(own) => own == name,
            Target::Below(above) => {
                name.0.strip_suffix(&above.0).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
            }
            Target::Prefix(_) => false,
        }
    }

    /// Whether it is about an address as it is, or about the one that it is a way to.
    fn is_about(&self, ip: IpAddr) -> bool {
        let spellings = [reach::canonical(ip), reach::embedded(ip)];
        matches!(&self.target, Target::Prefix(net) if spellings.iter().any(|ip| net.contains(ip)))
    }

    /// Whether it means the metadata services of clouds, and not only everything.
    fn names_metadata(&self) -> bool {
        match &self.target {
            Target::Prefix(IpNet::V4(net)) => net.prefix_len() >= 16,
            Target::Prefix(IpNet::V6(net)) => net.prefix_len() >= 32,
            _ => false,
        }
    }
}

/// All rules of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// What may be reached; anything where there is none.
    pub allow: Vec<Rule>,
    /// What may not, whatever else is said.
    pub deny: Vec<Rule>,
    /// Ports of the machine's own loopback that may be reached.
    pub host_loopback: Vec<Ports>,
}

impl Rules {
    /// Whether there are any about the outside.
    pub fn are_some(&self) -> bool {
        !self.allow.is_empty() || !self.deny.is_empty()
    }

    /// Whether a name may be resolved.
    pub fn may_resolve(&self, name: &HostName) -> bool {
        let about = |rules: &[Rule]| rules.iter().any(|rule| rule.is_about_name(name));
        !self.is_denied(name) && (self.allow.is_empty() || about(&self.allow))
    }

    /// Whether a name is denied altogether.
    pub fn is_denied(&self, name: &HostName) -> bool {
        self.deny.iter().any(|rule| rule.ports == Ports::ALL && rule.is_about_name(name))
    }

    /// Whether a permitted name may have this address.
    pub fn may_have(&self, ip: IpAddr) -> bool {
        let covered = self.allow.iter().any(|rule| rule.is_about(ip));
        if reach::is_metadata(ip) { self.meets_metadata(ip) } else { !reach::is_inner(ip) || covered }
    }

    /// Whether an address may be reached at a port, by its number or by one of the `names` that it was handed out for.
    pub fn may_reach<'a>(&self, ip: IpAddr, port: u16, names: impl Iterator<Item = &'a HostName>) -> bool {
        let about = |rules: &[Rule]| rules.iter().any(|rule| rule.ports.has(port) && rule.is_about(ip));
        // Who has an IPv4 address has a whole network by 6to4, of which a rule that allows the one says nothing.
        let relay = reach::relay(ip);
        let behind = |rule: &Rule| rule.ports.has(port) && relay.is_some_and(|ip| rule.is_about(ip));
        if about(&self.deny)
            || self.deny.iter().any(behind)
            || (reach::is_metadata(ip) && !self.meets_metadata(ip))
            // Who hears what is sent to a group no rule about addresses of its members says.
            || (reach::canonical(ip).is_multicast() && !about(&self.allow))
        {
            return false;
        }
        let mut names = names;
        let named = |rules: &[Rule], name: &HostName| {
            rules.iter().any(|rule| rule.ports.has(port) && rule.is_about_name(name))
        };
        if self.allow.is_empty() {
            return !names.any(|name| named(&self.deny, name));
        }
        // A name leads outside: what is inside a rule about addresses has to allow, with its ports.
        let by_name = |name: &HostName| named(&self.allow, name) && !named(&self.deny, name);
        about(&self.allow) || (!reach::is_inner(ip) && names.any(by_name))
    }

    /// Whether a rule names the metadata address that this is.
    fn meets_metadata(&self, ip: IpAddr) -> bool {
        self.allow.iter().any(|rule| rule.names_metadata() && rule.is_about(ip))
    }
}

#[cfg(test)]
mod tests {
    use super::{HostName, Rule, Rules};
    use std::net::IpAddr;

    fn rules(allow: &[&str], deny: &[&str]) -> Rules {
        let parse = |all: &[&str]| all.iter().map(|text| text.parse().expect("a rule")).collect();
        Rules { allow: parse(allow), deny: parse(deny), host_loopback: Vec::new() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn name(text: &str) -> HostName {
        text.parse().expect("a name")
    }

    fn reaches(rules: &Rules, to: &str, port: u16, names: &[&str]) -> bool {
        let names: Vec<_> = names.iter().map(|text| name(text)).collect();
        rules.may_reach(ip(to), port, names.iter())
    }

    #[test]
    fn rules_are_read_or_refused() {
        for right in [
            "example.com",
            "*.example.com",
            "Example.COM.:443",
            "*.a.b:1-65535",
            "10.0.0.0/8:80",
            "10.0.0.1",
            "::1",
            "2001:db8::/32",
            "[2001:db8::1]:443",
            "[2001:db8::/32]:1-2",
            "xn--bcher-kva.example",
            "_srv.example",
            "[::ffff:1.2.3.4]:5",
        ] {
            assert!(right.parse::<Rule>().is_ok(), "{right}: {:?}", right.parse::<Rule>());
        }
        for wrong in [
            "",
            "*",
            "*.",
            ".",
            "a..b",
            "*.*.a",
            "a*.b",
            "example.com:",
            "example.com:0",
            "a:b",
            "a:2-1",
            "a:1-",
            "a:70000",
            "a:+1",
            "10.0.0.0/33",
            "10.0.0",
            "010.0.0.1",
            "1.2.3.4.5",
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "[1.2.3.4",
            "[a]:1",
            "[1.2.3.4]",
            "[::1]x",
            "b\u{fc}cher.example",
            "a b",
            "a/b",
            "http://a",
            "*.1.2.3.4",
            "example.com:80:80",
        ] {
            assert!(wrong.parse::<Rule>().is_err(), "{wrong}");
        }
        assert_eq!("::ffff:1.2.3.4".parse::<Rule>(), "1.2.3.4".parse::<Rule>());
        assert_eq!("10.1.2.3/8".parse::<Rule>(), "10.0.0.0/8".parse::<Rule>());
    }

    #[test]
    fn names_are_resolved_as_rules_say() {
        let some = rules(&["example.com:443", "*.example.org"], &["bad.example.org"]);
        for right in ["example.com", "EXAMPLE.com.", "a.example.org", "a.b.example.org"] {
            assert!(some.may_resolve(&name(right)), "{right}");
        }
        for wrong in
            ["a.example.com", "example.org", "xexample.org", "bad.example.org", "com", "example.com.evil.net"]
        {
            assert!(!some.may_resolve(&name(wrong)), "{wrong}");
        }
        assert!(
            rules(&[], &["a.b"]).may_resolve(&name("c.b")) && !rules(&[], &["a.b"]).may_resolve(&name("a.b"))
        );
        assert!(!rules(&["10.0.0.0/8"], &[]).may_resolve(&name("a.b")));
        // One that may be reached at some ports is resolved.
        assert!(rules(&[], &["a.b:25"]).may_resolve(&name("a.b")));
    }

    #[test]
    fn addresses_are_reached_as_rules_say() {
        let some = rules(&["10.0.0.0/8:80-90", "[2001:db8::/32]:443", "example.com:443"], &["10.9.0.0/16"]);
        assert!(reaches(&some, "10.1.0.1", 85, &[]) && reaches(&some, "::ffff:10.1.0.1", 85, &[]));
        assert!(reaches(&some, "64:ff9b::10.1.0.1", 85, &[]) && reaches(&some, "2001:db8::1", 443, &[]));
        assert!(!reaches(&some, "10.1.0.1", 91, &[]) && !reaches(&some, "10.9.0.1", 85, &[]));
        assert!(!reaches(&some, "64:ff9b::10.9.0.1", 85, &[]) && !reaches(&some, "1.1.1.1", 443, &[]));
        assert!(
            reaches(&some, "1.1.1.1", 443, &["example.com"])
                && !reaches(&some, "1.1.1.1", 80, &["example.com"])
        );
        assert!(!reaches(&some, "1.1.1.1", 443, &["other.com"]));
        assert!(!reaches(&some, "10.9.0.1", 443, &["example.com"]), "what is denied is denied by any name");
        assert!(!reaches(&some, "10.1.0.1", 443, &["example.com"]), "what is inside is no name's");
        assert!(!reaches(&some, "2002:a01:1::1", 85, &[]), "a network of somebody's");
        assert!(!reaches(&rules(&[], &["1.2.3.4"]), "2002:102:304::1", 85, &[]));
        let denied = rules(&[], &["1.2.3.4:25"]);
        assert!(reaches(&denied, "1.2.3.4", 80, &[]) && !reaches(&denied, "1.2.3.4", 25, &[]));
        let denied = rules(&[], &["a.b:25"]);
        assert!(
            reaches(&denied, "1.2.3.4", 80, &["a.b"]) && !reaches(&denied, "1.2.3.4", 25, &["c.d", "a.b"])
        );
    }

    #[test]
    fn groups_must_be_named() {
        for group in ["224.0.0.1", "ff02::1", "::ffff:224.0.0.251"] {
            assert!(!reaches(&rules(&[], &["192.0.2.0/24"]), group, 5353, &[]), "{group}");
            assert!(!reaches(&rules(&["192.0.2.0/24"], &[]), group, 5353, &[]), "{group}");
        }
        assert!(reaches(&rules(&["224.0.0.251:5353"], &[]), "224.0.0.251", 5353, &[]));
        assert!(!reaches(&rules(&["224.0.0.251:5353"], &["224.0.0.0/4"]), "224.0.0.251", 5353, &[]));
    }

    #[test]
    fn metadata_must_be_named() {
        let ways = ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fd00:ec2::254"];
        for rules in [rules(&[], &["1.2.3.4"]), rules(&["0.0.0.0/0", "::/0"], &[]), Rules::default()] {
            for to in ways {
                assert!(!reaches(&rules, to, 80, &["a.b"]) && !rules.may_have(ip(to)), "{to}");
            }
        }
        let named = rules(&["169.254.169.254:80"], &[]);
        assert!(reaches(&named, "169.254.169.254", 80, &[]) && named.may_have(ip("169.254.169.254")));
    }

    #[test]
    fn permitted_names_lead_outside_only() {
        let some = rules(&["example.com", "10.1.0.0/16"], &[]);
        assert!(some.may_have(ip("1.1.1.1")) && some.may_have(ip("10.1.2.3")));
        for inner in
            ["10.2.0.1", "127.0.0.1", "::1", "192.168.0.1", "fe80::1", "::ffff:10.2.0.1", "64:ff9b::7f00:1"]
        {
            assert!(!some.may_have(ip(inner)), "{inner}");
        }
    }
}
