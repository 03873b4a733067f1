//! Which Unix sockets there are: for sock_diag(7) and /proc/net/unix.
//!
//! A network knows its sockets weakly, by their numbers as files; a socket leaves as it is dropped.

use super::{Name, Role, State, UnixSocket};
use crate::net::{Kind, Namespace};
use crate::sync::{Lock, Rank};
use std::collections::BTreeMap;
use std::sync::Weak;

/// The sockets of a network.
pub struct Sockets {
    all: Lock<BTreeMap<u64, Weak<UnixSocket>>>,
}

impl Default for Sockets {
    fn default() -> Self {
        Sockets { all: Lock::new(Rank::UnixSockets, BTreeMap::new()) }
    }
}

impl Sockets {
    pub(super) fn add(&self, ino: u64, socket: &Weak<UnixSocket>) {
        self.all.lock().insert(ino, socket.clone());
    }

    pub(super) fn remove(&self, ino: u64) {
        // What is taken out is dropped without the lock.
        let _taken = { self.all.lock().remove(&ino) };
    }
}

/// What a socket is doing, in the words of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// TCP_ESTABLISHED.
    Connected = 1,
    /// TCP_CLOSE.
    Unconnected = 7,
    /// TCP_LISTEN.
    Listening = 10,
}

/// One socket.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its number as a file.
    pub ino: u64,
    /// It waits to be accepted: nobody has it open yet.
    pub pending: bool,
    /// `SOCK_*`.
    pub kind: u32,
    /// What it is doing.
    pub standing: Standing,
    /// Its name.
    pub name: Option<Name>,
    /// Device and number of the file that has its name.
    pub place: Option<(u64, u64)>,
    /// The number of the socket that it is connected with; 0: that has gone, or nobody has it open yet.
    pub peer: Option<u64>,
    /// Of a listener those that wait: the numbers of who connected.
    pub waiting: Vec<u64>,
    /// Bytes to be read; of a listener connections to be accepted.
    pub received: u32,
    /// What was sent and not yet received, as it is charged; of a listener how many connections may wait.
    pub sent: u32,
    /// RCV_SHUTDOWN (1), SEND_SHUTDOWN (2).
    pub shut: u8,
    /// Who made it.
    pub uid: u32,
}

/// All of a network's sockets.
pub fn unix(network: &Namespace) -> Vec<Row> {
    let all: Vec<Weak<UnixSocket>> = network.unix.all.lock().values().cloned().collect();
    all.iter().filter_map(Weak::upgrade).map(|socket| socket.row()).collect()
}

/// One of them.
pub fn by_ino(network: &Namespace, ino: u64) -> Option<Row> {
    let found = network.unix.all.lock().get(&ino).cloned();
    found.and_then(|socket| socket.upgrade()).map(|socket| socket.row())
}

impl State {
    /// Bytes that wait to be read (SIOCINQ).
    pub(super) fn unread(&self, kind: Kind) -> usize {
        match kind {
            Kind::Datagram | Kind::Raw => self.queue.front().map_or(0, |message| message.len()),
            Kind::Stream | Kind::SeqPacket => self.queue.iter().map(|message| message.len()).sum(),
        }
    }
}

impl UnixSocket {
    /// Its number, as others are told it.
    fn shown_ino(&self) -> u64 {
        if self.state.lock().pending { 0 } else { self.core.ino }
    }

    /// The number of the socket that it is connected with; 0: that has gone, or nobody has it open yet.
    fn other(&self) -> Option<u64> {
        let state = self.state.lock();
        let Role::Connected { peer } = &state.role else { return None };
        let peer = peer.upgrade();
        // No two are locked at once.
        drop(state);
        Some(peer.map_or(0, |peer| peer.shown_ino()))
    }

    fn row(&self) -> Row {
        let state = self.state.lock();
        let (standing, backlog, pending) = match &state.role {
            Role::Fresh => (Standing::Unconnected, 0, Vec::new()),
            Role::Connected { .. } => (Standing::Connected, 0, Vec::new()),
            Role::Listening { backlog, pending } => {
                (Standing::Listening, *backlog, pending.iter().cloned().collect())
            }
        };
        let (received, sent) = match standing {
            Standing::Listening => (pending.len(), backlog as u32),
            _ => (state.unread(self.core.kind), self.charged()),
        };
        let (name, is_pending) = (state.name.clone(), state.pending);
        let shut = u8::from(state.read_shut) | u8::from(state.write_shut) << 1;
        drop(state);
        let waiting = pending.iter().map(|one| one.other().unwrap_or(0)).collect();
        let place = self.place.get().map(|inode| inode.stat()).map(|stat| (stat.dev, stat.ino));
        Row {
            ino: self.core.ino,
            pending: is_pending,
            kind: self.core.kind.number(),
            standing,
            name,
            place,
            peer: self.other(),
            waiting,
            received: received as u32,
            sent,
            shut,
            uid: self.core.uid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fresh, send};
    use super::{Standing, by_ino, unix};
    use crate::net::{Kind, Peer};

    #[test]
    fn sockets_are_listed_while_they_live() {
        let server = fresh(Kind::Stream);
        server.set_name(b"/s").unwrap();
        server.start_listening(5, Peer::default()).unwrap();
        let client = super::UnixSocket::new(Kind::Stream, 7, &server.flight, &server.network);
        client.connect_to(&server, Peer::default()).unwrap();
        let network = server.network.clone();
        let rows = unix(&network);
        assert_eq!(
            rows.iter().map(|row| (row.standing, row.pending, row.uid)).collect::<Vec<_>>(),
            [
                (Standing::Listening, false, 0),
                (Standing::Connected, false, 7),
                (Standing::Connected, true, 7)
            ]
        );
        assert_eq!((rows[0].received, rows[0].sent, &rows[0].waiting[..]), (1, 5, &[client.core.ino][..]));
        assert_eq!((rows[1].peer, rows[2].peer), (Some(0), Some(client.core.ino)));
        let accepted = server.next_connection().unwrap();
        send(&client, b"four").unwrap();
        assert_eq!(by_ino(&network, accepted.core.ino).unwrap().received, 4);
        assert_eq!(by_ino(&network, client.core.ino).unwrap().peer, Some(accepted.core.ino));
        drop((server, accepted));
        assert_eq!(unix(&network).len(), 1);
        assert_eq!(unix(&network)[0].shut, 3);
    }
}
