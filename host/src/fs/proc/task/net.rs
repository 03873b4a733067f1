//! /proc/PID/net: the network that the process is in.

use super::Subject;
use crate::abi::Errno;
use crate::fs::pseudo::{DynDir, Opened, Text};
use crate::net::Namespace;
use crate::net::inet::tables::{Row, pings, raw, tcp, udp};
use crate::net::interfaces::{Interfaces, Own};
use crate::net::unix::tables::{self, Standing, unix};
use crate::vfs::{Inode, Kind, ListEntry};
use linux_raw_sys::net as n;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// A file: what it says.
type Make = fn(&Namespace) -> String;

/// Which there are.
const FILES: &[(&str, Make)] = &[
    ("dev", |network| dev(&network.interfaces())),
    ("if_inet6", |network| if_inet6(&network.interfaces())),
    ("icmp", |network| sockets(&pings(network), false, &PING)),
    ("icmp6", |network| sockets(&pings(network), true, &PING)),
    ("ipv6_route", |network| ipv6_route(&network.interfaces())),
    ("raw", |network| sockets(&raw(network), false, &RAW)),
    ("raw6", |network| sockets(&raw(network), true, &RAW)),
    ("route", |network| route(&network.interfaces())),
    ("snmp", snmp),
    ("sockstat", sockstat),
    ("sockstat6", sockstat6),
    ("tcp", |network| sockets(&tcp(network, None), false, &TCP)),
    ("tcp6", |network| sockets(&tcp(network, None), true, &TCP)),
    ("udp", |network| sockets(&udp(network, None), false, &UDP)),
    ("udp6", |network| sockets(&udp(network, None), true, &UDP)),
    ("unix", |network| unix_sockets(&unix(network))),
];

const HEAD: &str =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
const HEAD6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
/// What datagrams have besides.
const MORE: &str = " ref pointer drops";
const HEAD_DATAGRAMS: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops";
const HEAD_UDP: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops";
/// TCP_LISTEN.
const LISTEN: u8 = 10;
/// RT_TABLE_MAIN.
const MAIN: u8 = 254;
/// RTF_UP, RTF_GATEWAY, RTF_HOST.
const UP: u32 = 1;
const GATEWAY: u32 = 2;
const HOST: u32 = 4;

/// The directory.
pub(super) fn directory(ino: u64, subject: Subject) -> Arc<dyn Inode> {
    let number = move |index: usize| ino + ((index as u64 + 1) << 40);
    DynDir::new(
        ino,
        0o555,
        0,
        0,
        move |name| {
            let found = FILES.iter().position(|(known, _)| known.as_bytes() == name);
            let Some(index) = found else { return Ok(None) };
            let subject = subject.clone();
            let open = move |_| {
                let network = subject.task.as_ref().map(|task| task.network()).ok_or(Errno::EINVAL)?;
                Ok(Opened::new(move || Ok(FILES[index].1(&network).into_bytes())))
            };
            Ok(Some(Text::opened(number(index), open) as Arc<dyn Inode>))
        },
        move || {
            let entry = |(index, (name, _)): (usize, &(&str, Make))| ListEntry {
                name: name.as_bytes().into(),
                ino: number(index),
                kind: Kind::File,
            };
            Ok(FILES.iter().enumerate().map(entry).collect::<Vec<_>>())
        },
    )
}

fn dev(interfaces: &Interfaces) -> String {
    let mut text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
"
    .to_owned();
    for link in interfaces.links() {
        let ([bytes, packets, errors, dropped], [sent, out, failed, lost]) = (link.received, link.sent);
        let _ = writeln!(
            text,
            "{:>6}: {bytes:7} {packets:7} {errors:4} {dropped:4} {:4} {:5} {:10} {:9} {sent:8} {out:7} {failed:4} {lost:4} {:4} {:5} {:7} {:10}",
            link.name, 0, 0, 0, link.multicast, 0, 0, 0, 0
        );
    }
    text
}

fn name_of(interfaces: &Interfaces, index: u32) -> String {
    interfaces.links().find(|link| link.index == index).map(|link| link.name).unwrap_or_default()
}

fn hex(ip: Ipv6Addr) -> String {
    ip.octets().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What if_inet6 calls the scope of an address (IPV6_ADDR_LOOPBACK, IPV6_ADDR_LINKLOCAL, IPV6_ADDR_SITELOCAL).
fn scope(own: &Own) -> u8 {
    match own.scope {
        254 => 0x10,
        253 => 0x20,
        200 => 0x40,
        _ => 0,
    }
}

fn if_inet6(interfaces: &Interfaces) -> String {
    let mut text = String::new();
    for own in interfaces.addresses() {
        let IpAddr::V6(ip) = own.ip else { continue };
        let (scope, flags, name) = (scope(&own), own.flags & 0xff, name_of(interfaces, own.index));
        let _ = writeln!(
            text,
            "{} {:02x} {:02x} {scope:02x} {flags:02x} {name:>8}",
            hex(ip),
            own.index,
            own.prefix
        );
    }
    text
}

/// What a route says: destination, gateway, interface, metric.
fn parts(route: &RouteMessage) -> (Option<IpAddr>, Option<IpAddr>, u32, u32) {
    let ip = |of: &RouteAddress| match of {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    };
    let (mut to, mut by, mut index, mut metric) = (None, None, 0, 0);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address),
            RouteAttribute::Gateway(address) => by = ip(address),
            RouteAttribute::Oif(number) => index = *number,
            RouteAttribute::Priority(number) => metric = *number,
            _ => {}
        }
    }
    (to, by, index, metric)
}

fn route(interfaces: &Interfaces) -> String {
    let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
    let mut text = format!("{head:<127}\n");
    let v4 = interfaces.routes().filter(|route| {
        u32::from(u8::from(route.header.address_family)) == n::AF_INET
            && route.header.table == MAIN
            && route.header.kind == RouteType::Unicast
    });
    for route in v4 {
        let (to, by, index, metric) = parts(route);
        let word = |ip: Option<IpAddr>| match ip {
            Some(IpAddr::V4(ip)) => u32::from_ne_bytes(ip.octets()),
            _ => 0,
        };
        let prefix = u32::from(route.header.destination_prefix_length).min(32);
        let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0).to_be();
        let flags = UP | if by.is_some() { GATEWAY } else { 0 } | if prefix == 32 { HOST } else { 0 };
        let line = format!(
            "{}\t{:08X}\t{:08X}\t{flags:04X}\t0\t0\t{metric}\t{mask:08X}\t0\t0\t0",
            name_of(interfaces, index),
            word(to),
            word(by)
        );
        let _ = writeln!(text, "{line:<127}");
    }
    text
}

fn ipv6_route(interfaces: &Interfaces) -> String {
    let mut text = String::new();
    let v6 =
        interfaces.routes().filter(|route| u32::from(u8::from(route.header.address_family)) == n::AF_INET6);
    for route in v6 {
        let (to, by, index, metric) = parts(route);
        let text_of = |ip: Option<IpAddr>| match ip {
            Some(IpAddr::V6(ip)) => hex(ip),
            _ => hex(Ipv6Addr::UNSPECIFIED),
        };
        let local = if route.header.kind == RouteType::Local { 0x8000_0000 } else { 0 };
        let prefix = route.header.destination_prefix_length;
        let flags =
            UP | local | if by.is_some() { GATEWAY } else { 0 } | if prefix == 128 { HOST } else { 0 };
        let (none, name) = (hex(Ipv6Addr::UNSPECIFIED), name_of(interfaces, index));
        let _ = writeln!(
            text,
            "{} {prefix:02x} {none} 00 {} {metric:08x} {:08x} {:08x} {flags:08x} {name:>8}",
            text_of(to),
            text_of(by),
            1,
            0
        );
    }
    text
}

fn end(at: SocketAddr) -> String {
    let words = match at.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut text = String::new();
    for word in words.chunks_exact(4) {
        let _ = write!(text, "{:08X}", u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    let _ = write!(text, ":{:04X}", at.port());
    text
}

/// How a table of one protocol looks.
struct Shape {
    head: &'static str,
    /// What the head of IPv6 has besides.
    more: &'static str,
    width: usize,
    /// Of the number of a line.
    number: usize,
    tail: fn(&Row) -> &'static str,
}

const TCP: Shape = Shape {
    head: HEAD,
    more: "",
    width: 149,
    number: 4,
    // Who is only waited for has no timers; a window is of ten segments.
    tail: |row| if row.ino == 0 { "3 0000000000000000" } else { "1 0000000000000000 100 0 0 10 0" },
};
const UDP: Shape = Shape { head: HEAD_UDP, more: MORE, width: 127, number: 5, tail: |_| DATAGRAMS };
const PING: Shape = Shape { head: HEAD_DATAGRAMS, more: MORE, width: 127, number: 5, tail: |_| DATAGRAMS };
const RAW: Shape = Shape { head: HEAD_DATAGRAMS, more: MORE, width: 0, number: 4, tail: |_| DATAGRAMS };
/// References, where it lies, what was lost.
const DATAGRAMS: &str = "2 0000000000000000 0";

fn sockets(rows: &[Row], v6: bool, shape: &Shape) -> String {
    let none = SocketAddr::new(if v6 { Ipv6Addr::UNSPECIFIED.into() } else { IpAddr::from([0; 4]) }, 0);
    let width = if v6 { 0 } else { shape.width };
    // Those of IPv6 that have no streams have one form (ip6_dgram_sock_seq_show).
    let number = if v6 && !shape.more.is_empty() { UDP.number } else { shape.number };
    let head = if v6 { format!("{HEAD6}{}", shape.more) } else { shape.head.to_owned() };
    let mut text = format!("{head:<width$}\n");
    for (index, row) in rows.iter().filter(|row| row.v6 == v6).enumerate() {
        // A listener says how many connections wait to be accepted.
        let sent = if row.state == LISTEN { 0 } else { row.sent };
        let line = format!(
            "{index:number$}: {} {} {:02X} {sent:08X}:{:08X} 00:00000000 00000000 {:5} {:8} {} {}",
            end(row.local),
            end(row.remote.unwrap_or(none)),
            row.state,
            row.received,
            row.uid,
            0,
            row.ino,
            (shape.tail)(row)
        );
        let _ = writeln!(text, "{line:<width$}");
    }
    text
}

/// __SO_ACCEPTCON.
const ACCEPTS: u32 = 1 << 16;

/// The table of Unix sockets (proc_net(5)).
fn unix_sockets(rows: &[tables::Row]) -> String {
    let mut text = "Num       RefCount Protocol Flags    Type St Inode Path\n".to_owned();
    for row in rows {
        let connected = row.standing == Standing::Connected;
        let flags = if row.standing == Standing::Listening { ACCEPTS } else { 0 };
        // SS_CONNECTED, SS_UNCONNECTED, SS_CONNECTING: nobody has it open who could be connected.
        let (state, ino) = match (row.pending, connected) {
            (true, _) => (2, 0),
            (false, true) => (3, row.ino),
            (false, false) => (1, row.ino),
        };
        let references = 2 + u32::from(connected && row.peer.is_some());
        let _ = write!(
            text,
            "{:016X}: {references:08X} {:08X} {flags:08X} {:04X} {state:02X} {ino:5}",
            0, 0, row.kind
        );
        if let Some(name) = &row.name {
            let name: Vec<u8> = name.iter().map(|&byte| if byte == 0 { b'@' } else { byte }).collect();
            let _ = write!(text, " {}", String::from_utf8_lossy(&name));
        }
        text.push('\n');
    }
    text
}

fn sockstat(network: &Namespace) -> String {
    let (tcp, udp) = (tcp(network, None), udp(network, None));
    let waits = tcp.iter().filter(|row| row.ino == 0).count();
    let used = tcp.iter().filter(|row| !row.v6 && row.ino != 0).count();
    let udp_used = udp.iter().filter(|row| !row.v6).count();
    let pages = network.memory.used().div_ceil(4096);
    format!(
        "sockets: used {}\nTCP: inuse {used} orphan 0 tw {waits} alloc {} mem {pages}\nUDP: inuse {udp_used} mem 0\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n",
        tcp.len() - waits + udp.len() + unix(network).len(),
        tcp.len() - waits
    )
}

fn sockstat6(network: &Namespace) -> String {
    let tcp = tcp(network, None).iter().filter(|row| row.v6 && row.ino != 0).count();
    let udp = udp(network, None).iter().filter(|row| row.v6).count();
    format!(
        "TCP6: inuse {tcp}\nUDP6: inuse {udp}\nUDPLITE6: inuse 0\nRAW6: inuse 0\nFRAG6: inuse 0 memory 0\n"
    )
}

/// Counters of packets, of which there are none: what is local never becomes one, and the host counts the others.
fn snmp(network: &Namespace) -> String {
    let established = tcp(network, None).iter().filter(|row| matches!(row.state, 1 | 8)).count();
    let tcp_names = "RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors";
    let udp_names = "InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors";
    let ip_names = "Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards InDelivers OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs FragFails FragCreates";
    let zeros = |count: usize| " 0".repeat(count);
    format!(
        "Ip: {ip_names}\nIp: 2 64{}\nTcp: {tcp_names}\nTcp: 1 200 120000 -1 0 0 0 0 {established}{}\nUdp: {udp_names}\nUdp:{}\n",
        zeros(17),
        zeros(6),
        zeros(9)
    )
}

#[cfg(test)]
mod tests {
    use super::{TCP, dev, if_inet6, ipv6_route, route, sockets};
    use crate::net::interfaces::Interfaces;

    #[test]
    fn the_loopback_interface_is_shown() {
        let lo = Interfaces::loopback();
        assert!(dev(&lo).lines().nth(2).is_some_and(|line| line.starts_with("    lo:       0       0")));
        assert_eq!(if_inet6(&lo), "00000000000000000000000000000001 01 80 10 80       lo\n");
        assert_eq!(route(&lo).lines().count(), 1);
        assert_eq!(ipv6_route(&lo).lines().count(), 1);
        assert_eq!(sockets(&[], false, &TCP).len(), 150);
    }
}
