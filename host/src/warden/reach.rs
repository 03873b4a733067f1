//! What kind of address an address is, whichever way it is spelled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where machines in clouds learn who they are, and may do.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// The IPv4 address that an IPv6 one is a way to: mapped (RFC 4291), compatible, or by a translator (RFC 6052). Others are what
/// they are.
pub fn embedded(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let [.., high, low] = v6.segments();
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0xffff, ..] => of(high, low),
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => of(high, low),
        _ => ip,
    }
}

/// The IPv4 address whose owner passes on what is sent to an IPv6 one, by 6to4 (RFC 3056).
pub fn relay(ip: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = ip else { return None };
    let [first, high, low, ..] = v6.segments();
    (first == 0x2002).then(|| of(high, low))
}

/// Where what is sent to an address arrives, by either way.
fn behind(ip: IpAddr) -> IpAddr {
    relay(ip).unwrap_or(embedded(ip))
}

fn of(high: u16, low: u16) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
}

/// An address as rules and grants have it: of IPv4 where an IPv4 packet is what leaves.
pub fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// Whether cloud metadata is there.
pub fn is_metadata(ip: IpAddr) -> bool {
    METADATA.contains(&behind(ip))
}

/// Whether it is the machine itself: a loopback address, or none.
pub fn is_self(ip: IpAddr) -> bool {
    let ip = behind(ip);
    ip.is_loopback() || ip.is_unspecified()
}

/// Whether no name that the world's resolvers know should lead there: the machine itself, its link, private networks,
/// groups, and what is reserved.
pub fn is_inner(ip: IpAddr) -> bool {
    match behind(ip) {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_multicast()
                // "This network" (RFC 791), carriers' (RFC 6598), special purposes (RFC 6890), tests (RFC 2544), reserved.
                || a == 0
                || (a == 100 && b & 0xc0 == 64)
                || (a, b, c) == (192, 0, 0)
                || (a == 198 && b & 0xfe == 18)
                || a >= 240
        }
        IpAddr::V6(v6) => {
            let [first, second, third, ..] = v6.segments();
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || v6.is_unique_local()
                // Site-local, a translator of somebody's own (RFC 8215), Teredo, the discard prefix.
                || first & 0xffc0 == 0xfec0
                || (first, second, third) == (0x64, 0xff9b, 1)
                || (first, second) == (0x2001, 0)
                || (first, second) == (0x100, 0)
                // Whatever else is in the block of embedded addresses.
                || first == 0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{is_inner, is_metadata, is_self};

    #[test]
    fn no_spelling_hides_what_an_address_is() {
        let ip = |text: &str| text.parse().expect("an address");
        for text in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "fd00:ec2::254",
        ] {
            assert!(is_metadata(ip(text)) && is_inner(ip(text)), "{text}");
        }
        for text in
            ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "64:ff9b::127.1.2.3", "0.0.0.0", "::"]
        {
            assert!(is_self(ip(text)) && is_inner(ip(text)), "{text}");
        }
        for text in [
            "10.0.0.1",
            "172.31.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "0.1.2.3",
            "198.18.0.1",
            "fe80::1",
            "fc00::1",
            "fec0::1",
            "ff02::1",
            "64:ff9b:1::a00:1",
            "2001::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:a00:1::",
        ] {
            assert!(is_inner(ip(text)) && !is_metadata(ip(text)), "{text}");
        }
        for text in [
            "1.1.1.1",
            "203.0.113.5",
            "198.51.100.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "64:ff9b::1.1.1.1",
        ] {
            assert!(!is_inner(ip(text)) && !is_self(ip(text)), "{text}");
        }
    }
}
