//! ICMP messages (RFC 792, RFC 4443): requests to send back what they carry, and the answers.

use super::super::datagram::Datagram;
use crate::net::namespace::Chunk;
use std::net::IpAddr;

/// What every message begins with: type, code, checksum, and here identifier and number.
pub(super) const HEADER: usize = 8;
/// Where the identifier is.
const IDENT: std::ops::Range<usize> = 4..6;
/// Length of an IPv4 header without options.
pub(super) const IP_HEADER: usize = 20;
/// IPPROTO_ICMP and IPPROTO_ICMPV6.
pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;

/// What a message is to those who look no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// To be sent back.
    Request,
    /// It was, with this identifier.
    Reply(u16),
    /// Something else.
    Other,
}

/// ICMP_ECHO and ICMP_ECHOREPLY, or ICMPV6_ECHO_REQUEST and ICMPV6_ECHO_REPLY.
fn types(v6: bool) -> (u8, u8) {
    if v6 { (128, 129) } else { (8, 0) }
}

pub(super) fn meaning(v6: bool, message: &[u8]) -> Meaning {
    let (request, reply) = types(v6);
    match message {
        [kind, 0, ..] if message.len() >= HEADER && *kind == request => Meaning::Request,
        [kind, ..] if message.len() >= HEADER && *kind == reply => Meaning::Reply(ident(message)),
        _ => Meaning::Other,
    }
}

/// The identifier of a message that has a whole header.
pub(super) fn ident(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[IDENT.start], message[IDENT.start + 1]])
}

pub(super) fn set_ident(message: &mut [u8], ident: u16) {
    message[IDENT].copy_from_slice(&ident.to_be_bytes());
}

/// The sum of RFC 1071 over some parts, each but the last of even length: not complemented.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// What an ICMPv6 checksum covers beside the message: addresses, length, protocol.
fn pseudo_header(from: IpAddr, to: IpAddr, len: usize) -> Vec<u8> {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) else { return Vec::new() };
    let mut header = [from.octets(), to.octets()].concat();
    header.extend((len as u32).to_be_bytes());
    header.extend([0, 0, 0, ICMPV6]);
    header
}

/// Puts the right checksum into a message that has a whole header.
pub(super) fn set_checksum(message: &mut [u8], from: IpAddr, to: IpAddr) {
    message[2..4].fill(0);
    let sum = !sum(&[&pseudo_header(from, to, message.len()), message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// Whether a message has the right one.
pub(super) fn is_whole(message: &[u8], from: IpAddr, to: IpAddr) -> bool {
    message.len() >= HEADER && sum(&[&pseudo_header(from, to, message.len()), message]) == 0xffff
}

/// Makes of a request what comes back of it, to whoever sent it.
pub(super) fn answer(request: &Datagram, mut message: Chunk) -> Datagram {
    let v6 = request.to.is_ipv6();
    message[0] = types(v6).1;
    set_checksum(&mut message, request.to, request.from.ip());
    Datagram {
        bytes: message,
        from: std::net::SocketAddr::new(request.to, 0),
        to: request.from.ip(),
        tos: request.tos,
        ttl: super::HOPS,
        time: request.time,
    }
}

/// The IPv4 header that a raw socket reads before the message (raw(7)).
pub(super) fn ip_header(packet: &Datagram) -> [u8; IP_HEADER] {
    let mut header = [0; IP_HEADER];
    let (IpAddr::V4(from), IpAddr::V4(to)) = (packet.from.ip(), packet.to) else { return header };
    let len = (packet.bytes.len() + IP_HEADER) as u16;
    header[0] = 0x45;
    header[1] = packet.tos;
    header[2..4].copy_from_slice(&len.to_be_bytes());
    header[8] = packet.ttl;
    header[9] = ICMP;
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    let sum = !sum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// ICMP_FILTER (raw(7)) and ICMP6_FILTER (RFC 3542): a bit for each type that is not to be heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter(pub(super) [u8; 32]);

impl Filter {
    /// Whether messages of this type are heard. The types of ICMP that have no bit are.
    pub(super) fn passes(&self, v6: bool, kind: u8) -> bool {
        if !v6 && kind >= 32 {
            return true;
        }
        let word = usize::from(kind / 32) * 4;
        let word = u32::from_ne_bytes(std::array::from_fn(|i| self.0[word + i]));
        word >> (kind % 32) & 1 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::namespace::Memory;
    use std::net::SocketAddr;
    use std::sync::Arc;

    fn request(from: &str, to: &str, carried: &[u8]) -> Datagram {
        let (from, to) = (SocketAddr::new(from.parse().unwrap(), 0), to.parse::<IpAddr>().unwrap());
        let mut bytes = [&[types(to.is_ipv6()).0, 0, 0, 0, 0x12, 0x34, 0, 1][..], carried].concat();
        set_checksum(&mut bytes, from.ip(), to);
        let bytes = Arc::new(Memory::default()).copy_of(&bytes);
        Datagram { bytes, from, to, tos: 0, ttl: 64, time: 0 }
    }

    #[test]
    fn a_request_comes_back_as_it_was() {
        for (from, to) in [("127.0.0.1", "127.0.0.2"), ("::1", "::2")] {
            for len in [0, 1, 2, 56, 57, 65_000] {
                let carried: Vec<u8> = (0..len).map(|i| i as u8).collect();
                let request = request(from, to, &carried);
                let v6 = request.to.is_ipv6();
                assert!(is_whole(&request.bytes, request.from.ip(), request.to));
                assert_eq!(meaning(v6, &request.bytes), Meaning::Request);
                let reply = answer(&request, Arc::new(Memory::default()).copy_of(&request.bytes));
                assert_eq!(meaning(v6, &reply.bytes), Meaning::Reply(0x1234));
                assert!(is_whole(&reply.bytes, reply.from.ip(), reply.to));
                assert_eq!((reply.from.ip().to_string(), reply.to.to_string()), (to.into(), from.into()));
                assert_eq!(&reply.bytes[HEADER..], &carried);
                let mut broken = reply.bytes.to_vec();
                broken[len / 2] ^= 1;
                assert!(!is_whole(&broken, reply.from.ip(), reply.to), "{len}");
            }
        }
    }

    /// The example of RFC 1071, section 3.
    #[test]
    fn sums_are_those_of_the_standard() {
        assert_eq!(sum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), 0xddf2);
    }

    #[test]
    fn headers_are_whole() {
        let header = ip_header(&request("10.0.0.1", "10.0.0.2", &[1, 2, 3]));
        assert_eq!(sum(&[&header]), 0xffff);
        assert_eq!((header[0], header[3], header[9]), (0x45, 31, 1));
    }

    #[test]
    fn short_messages_mean_nothing() {
        assert!((0..HEADER).all(|len| meaning(false, &[8, 0, 0, 0, 0, 0, 0, 0][..len]) == Meaning::Other));
        assert_eq!(meaning(false, &[8, 1, 0, 0, 0, 0, 0, 0]), Meaning::Other);
    }

    #[test]
    fn filters_have_a_bit_for_each_type() {
        let mut filter = Filter::default();
        assert!((0..=255).all(|kind| filter.passes(false, kind) && filter.passes(true, kind)));
        filter.0[..4].copy_from_slice(&(!1_u32).to_ne_bytes());
        assert!(filter.passes(false, 0) && !filter.passes(false, 8) && filter.passes(false, 40));
        filter.0 = [0xff; 32];
        filter.0[16..20].copy_from_slice(&(!2_u32).to_ne_bytes());
        assert!(filter.passes(true, 129) && !filter.passes(true, 128) && !filter.passes(true, 255));
    }
}
