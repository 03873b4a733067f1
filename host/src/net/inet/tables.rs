//! Which sockets there are: for sock_diag(7) and /proc/net.

use super::endpoint::shown;
use super::ports::Seen;
use crate::net::Namespace;
use std::net::SocketAddr;

/// One socket.
#[derive(Clone, Debug)]
pub struct Row {
    /// It is an IPv6 one, whatever its addresses.
    pub v6: bool,
    /// It has no IPv4 addresses.
    pub only_v6: bool,
    /// Its state: one of TCP, also for others.
    pub state: u8,
    /// Its own address.
    pub local: SocketAddr,
    /// Whom it is connected with.
    pub remote: Option<SocketAddr>,
    /// Bytes it has yet to read, or connections to accept.
    pub received: u32,
    /// Bytes it has yet to send, or how many connections may wait.
    pub sent: u32,
    /// Whose it is.
    pub uid: u32,
    /// Its number as a file; 0: nobody has it open.
    pub ino: u64,
}

/// TCP_TIME_WAIT.
const TIME_WAIT: u8 = 6;

/// All TCP sockets that have something to do with others, or those at a port.
pub fn tcp(network: &Namespace, port: Option<u16>) -> Vec<Row> {
    let of = |seen: Seen<super::tcp::TcpSocket>| match seen.socket {
        Some(socket) => socket.row(),
        None if seen.waits => {
            let v6 = seen.claim.ip.is_ipv6();
            let local = SocketAddr::new(seen.claim.ip, seen.port);
            let (state, remote) = (TIME_WAIT, seen.remote);
            Some(Row { v6, only_v6: false, state, local, remote, received: 0, sent: 0, uid: 0, ino: 0 })
        }
        None => None,
    };
    network.tcp.seen(port).into_iter().filter_map(of).map(canonical).collect()
}

/// All UDP sockets that have a port, or that one.
pub fn udp(network: &Namespace, port: Option<u16>) -> Vec<Row> {
    let all = network.udp.seen(port).into_iter().filter_map(|seen| Some(seen.socket?.row()));
    all.map(canonical).collect()
}

/// All sockets that ping and have an identifier.
pub fn pings(network: &Namespace) -> Vec<Row> {
    let all = network.icmp.pings.seen(None).into_iter().filter_map(|seen| Some(seen.socket?.row()));
    all.map(canonical).collect()
}

/// All raw sockets.
pub fn raw(network: &Namespace) -> Vec<Row> {
    network.icmp.raw_ones().iter().map(|socket| canonical(socket.row())).collect()
}

fn canonical(row: Row) -> Row {
    Row { local: shown(row.v6, row.local), remote: row.remote.map(|to| shown(row.v6, to)), ..row }
}
