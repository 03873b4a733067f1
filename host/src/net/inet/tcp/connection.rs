//! A connection: two ends, and what is on its way between them.
//!
//! Each end has what it has yet to read. Sequence numbers, segments and acknowledgements have nothing to do; what they would
//! have led to happens at once. `dead` is the state CLOSE, the others follow from who has sent a FIN ([`End::fin_sent`]).
//!
//! Both ends have one lock, which is taken last; those who wait are notified without it.

use super::TcpSocket;
use super::buffer::Buffer;
use super::urgent::Urgent;
use crate::abi::{Errno, Result};
use crate::mm::{IoDst, IoSrc};
use crate::net::inet::ports::Hold;
use crate::net::message::{MSG_PEEK, MSG_TRUNC};
use crate::net::{Core, Namespace};
use crate::sync::{Lock, Rank, event};
use linux_raw_sys::general as c;
use linux_raw_sys::net as n;
use std::sync::Arc;

const IN: u32 = c::POLLIN | c::POLLRDNORM;
const OUT: u32 = c::POLLOUT | c::POLLWRNORM;
/// Nothing comes any more.
const ENDED: u32 = IN | c::POLLRDHUP;
/// Nothing comes or goes any more.
const OVER: u32 = ENDED | OUT | c::POLLHUP | c::POLLERR | event::SPACE | event::HANGUP;

/// What may be on its way where nobody has said: what Linux's send buffer grows to, and the window of a receiver.
const SEND_GROWN: u32 = 2_626_560;
const WINDOW: u32 = 65_536;
/// The same where memory is scarce.
const SCARCE: usize = 4096;

/// TCP states, as programs see them.
pub(super) mod state {
    pub(in super::super) const ESTABLISHED: u8 = 1;
    pub(in super::super) const SYN_SENT: u8 = 2;
    pub(in super::super) const FIN_WAIT2: u8 = 5;
    pub(in super::super) const CLOSE: u8 = 7;
    pub(in super::super) const CLOSE_WAIT: u8 = 8;
    pub(in super::super) const LISTEN: u8 = 10;
}

/// One end.
#[derive(Default)]
pub(super) struct End {
    /// What it has yet to read, and how much that may be.
    pub(super) buffer: Buffer,
    capacity: usize,
    /// SO_RCVLOWAT.
    least: usize,
    /// SO_OOBINLINE.
    pub(super) inline: bool,
    /// What is urgent of that.
    pub(super) urgent: Option<Urgent>,
    /// It wants to read no more.
    read_shut: bool,
    /// It has said that it sends no more.
    fin_sent: bool,
    /// It has heard that from the other.
    pub(super) fin_received: bool,
    /// There is no connection any more.
    pub(super) dead: bool,
    /// Nobody has it open.
    closed: bool,
    error: Option<Errno>,
    /// It has found no room to send.
    wants_room: bool,
    /// Its port.
    hold: Option<Hold<TcpSocket>>,
}

/// A connection.
pub(super) struct Connection {
    pub(super) ends: Lock<[End; 2]>,
    cores: [Arc<Core>; 2],
    pub(super) network: Arc<Namespace>,
}

impl Connection {
    pub(super) fn new(network: &Arc<Namespace>, cores: [Arc<Core>; 2]) -> Arc<Connection> {
        let connection = Arc::new(Connection {
            ends: Lock::new(Rank::TcpConnection, Default::default()),
            cores,
            network: network.clone(),
        });
        connection.buffers_changed();
        connection
    }

    /// Buffer sizes or SO_RCVLOWAT have been set anew.
    pub(super) fn buffers_changed(&self) {
        let options = [0, 1].map(|end| *self.cores[end].options.lock());
        let mut ends = self.ends.lock();
        for (receiver, sender) in [(0, 1), (1, 0)] {
            let (from, to) = (&options[sender], &options[receiver]);
            let sent = if from.fixed.1 { from.send_buffer } else { SEND_GROWN };
            let window = if to.fixed.0 { to.receive_buffer / 2 } else { WINDOW };
            ends[receiver].capacity = (sent + window) as usize;
            ends[receiver].least = to.receive_low as usize;
            ends[receiver].inline = to.is_on(n::SO_OOBINLINE);
        }
    }

    fn notify(&self, end: usize, events: u32) {
        self.cores[end].wait.notify(events);
    }

    /// Gives an end its port.
    pub(super) fn set_hold(&self, end: usize, hold: Option<Hold<TcpSocket>>) {
        self.ends.lock()[end].hold = hold;
    }

    /// Calls `body` with an end's port.
    pub(super) fn with_hold(&self, end: usize, body: impl FnOnce(&Hold<TcpSocket>)) {
        if let Some(hold) = &self.ends.lock()[end].hold {
            body(hold);
        }
    }

    /// Takes an end's port away from it, which it has bound.
    pub(super) fn take_hold(&self, end: usize) -> Option<Hold<TcpSocket>> {
        self.ends.lock()[end].hold.take()
    }

    /// Sends what there is room for. If it is `urgent` the last byte of that is.
    ///
    /// # Errors
    /// EAGAIN, EPIPE, an error that waited to be told, EFAULT.
    pub(super) fn send(&self, end: usize, src: &mut IoSrc<'_>, urgent: bool) -> Result<usize> {
        src.streamed(|src| self.send_some(end, src, urgent))
    }

    fn send_some(&self, end: usize, src: &mut IoSrc<'_>, urgent: bool) -> Result<usize> {
        let mut ends = self.ends.lock();
        let (own, peer) = both(&mut ends, end);
        if own.error.is_some() || own.fin_sent || own.dead {
            return Err(own.error.take().unwrap_or(Errno::EPIPE));
        }
        let want = src.remaining();
        if want == 0 {
            return Ok(0);
        }
        if peer.closed || (peer.read_shut && peer.fin_sent) {
            // Nobody is there to read, which the sender hears too late to tell (tcp_reset): when as much is on its way as
            // goes at a time.
            let want = want.min(self.room(peer).max(1));
            src.advance(want);
            let holds = reset(own, peer);
            drop(ends);
            drop(holds);
            self.notify(end, OVER);
            self.notify(1 - end, OVER);
            return Ok(want);
        }
        let room = self.room(peer);
        if room == 0 {
            own.wants_room = true;
            return Err(Errno::EAGAIN);
        }
        let count = peer.buffer.fill(src, room, &self.network.memory)?;
        let events = if urgent { IN | peer.mark(count) } else { IN };
        drop(ends);
        self.notify(1 - end, events);
        Ok(count)
    }

    /// How much more may wait to be read by an end.
    fn room(&self, end: &End) -> usize {
        end.capacity_in(&self.network).saturating_sub(end.buffer.len())
    }

    /// Receives; sets `stop` where urgent data comes next.
    ///
    /// # Errors
    /// EAGAIN, an error that waited to be told, EFAULT.
    pub(super) fn receive(
        &self,
        end: usize,
        dst: &mut IoDst<'_>,
        flags: u32,
        stop: &mut bool,
    ) -> Result<usize> {
        match flags & MSG_PEEK {
            0 => dst.streamed(|dst| self.receive_some(end, dst, flags, stop)),
            _ => dst.held(|dst| self.receive_some(end, dst, flags, stop)),
        }
    }

    fn receive_some(&self, end: usize, dst: &mut IoDst<'_>, flags: u32, stop: &mut bool) -> Result<usize> {
        let mut ends = self.ends.lock();
        let (own, peer) = both(&mut ends, end);
        // Where in the buffer it begins, and how much goes at a time: urgent data is passed over, and not passed by.
        let (from, most) = match own.urgent {
            None => (0, usize::MAX),
            Some(_) => own.up_to_urgent(flags & MSG_PEEK != 0),
        };
        if own.buffer.len() <= from {
            return match own.error {
                _ if own.fin_received => Ok(0),
                Some(errno) => {
                    own.error = None;
                    Err(errno)
                }
                None if own.read_shut || own.dead => Ok(0),
                None => Err(Errno::EAGAIN),
            };
        }
        let count = if flags & MSG_TRUNC == 0 {
            own.buffer.copy_part(dst, from, most)?
        } else {
            // Taken, but not wanted (tcp(7)).
            let count = (own.buffer.len() - from).min(dst.remaining()).min(most);
            dst.advance(count);
            count
        };
        if flags & MSG_PEEK != 0 {
            return Ok(count);
        }
        own.buffer.skip(count);
        if own.urgent.is_some() {
            *stop = own.passed(count);
        }
        let wake = peer.wants_room && own.has_room(&self.network);
        peer.wants_room &= !wake;
        drop(ends);
        if wake {
            self.notify(1 - end, OUT | event::SPACE);
        }
        Ok(count)
    }

    /// shutdown(2).
    ///
    /// # Errors
    /// ENOTCONN.
    pub(super) fn shutdown(&self, end: usize, read: bool, write: bool) -> Result<()> {
        let mut ends = self.ends.lock();
        let (own, peer) = both(&mut ends, end);
        if own.dead {
            return Err(Errno::ENOTCONN);
        }
        own.read_shut |= read;
        let holds = if write && !own.fin_sent { fin(own, peer) } else { [None, None] };
        let over = own.dead;
        drop(ends);
        drop(holds);
        self.notify(end, if over { OVER } else { ENDED | OUT | c::POLLHUP });
        if write {
            self.notify(1 - end, if over { OVER } else { ENDED });
        }
        Ok(())
    }

    /// Nobody has an end open any more. What it has not read, or `abort`, tells the other end that it was not all.
    pub(super) fn close(&self, end: usize, abort: bool) {
        let mut ends = self.ends.lock();
        let (own, peer) = both(&mut ends, end);
        own.closed = true;
        let unread = own.buffer.len() > 0;
        own.buffer.clear();
        own.read_shut = true;
        let (holds, events) = if own.dead {
            ([own.hold.take(), None], 0)
        } else if abort || unread {
            let mut holds = reset(own, peer);
            own.error = None;
            holds[0] = holds[0].take().or_else(|| own.hold.take());
            (holds, OVER)
        } else if own.fin_sent {
            ([None, None], 0)
        } else {
            let mut holds = fin(own, peer);
            if own.dead {
                holds[0] = holds[0].take().or_else(|| own.hold.take());
            }
            (holds, if own.dead { OVER } else { ENDED | event::HANGUP })
        };
        drop(ends);
        drop(holds);
        if events != 0 {
            self.notify(1 - end, events);
        }
    }

    /// Ends the connection by a reset that this end sends.
    pub(super) fn abort(&self, end: usize) {
        let mut ends = self.ends.lock();
        let (own, peer) = both(&mut ends, end);
        if own.dead {
            return;
        }
        let holds = reset(own, peer);
        own.error = Some(Errno::ECONNRESET);
        own.buffer.clear();
        drop(ends);
        drop(holds);
        self.notify(end, OVER);
        self.notify(1 - end, OVER);
    }

    /// Events that hold now.
    pub(super) fn poll(&self, end: usize) -> u32 {
        let mut ends = self.ends.lock();
        let (own, peer) = both(&mut ends, end);
        let mut events = 0;
        let no_more = own.read_shut || own.fin_received || own.dead;
        if own.dead || (no_more && own.fin_sent) {
            events |= c::POLLHUP;
        }
        if no_more {
            events |= IN | c::POLLRDHUP;
        }
        let (beside, urgent) = own.urgent.map_or((0, 0), |urgent| urgent.poll(own.inline));
        events |= urgent;
        if own.buffer.len() >= own.least.min(own.capacity).max(1) + beside {
            events |= IN;
        }
        if own.fin_sent || own.dead || peer.has_room(&self.network) {
            events |= OUT;
        } else {
            own.wants_room = true;
        }
        if own.error.is_some() {
            events |= c::POLLERR;
        }
        events
    }

    /// Bytes that an end can read at once.
    pub(super) fn readable(&self, end: usize) -> usize {
        let ends = self.ends.lock();
        let own = &ends[end];
        own.urgent.filter(|_| !own.inline).map_or(own.buffer.len(), |urgent| urgent.ahead())
    }

    /// The pending error, taken.
    pub(super) fn take_error(&self, end: usize) -> Option<Errno> {
        self.ends.lock()[end].error.take()
    }

    /// The state, as programs see it.
    pub(super) fn state(&self, end: usize) -> u8 {
        let ends = self.ends.lock();
        let own = &ends[end];
        match (own.dead, own.fin_sent, own.fin_received) {
            (true, ..) => state::CLOSE,
            (_, true, _) => state::FIN_WAIT2,
            (_, _, true) => state::CLOSE_WAIT,
            _ => state::ESTABLISHED,
        }
    }
}

impl End {
    fn capacity_in(&self, network: &Namespace) -> usize {
        match () {
            () if network.memory.is_spent() => 1.min(self.capacity),
            () if network.memory.is_scarce() => SCARCE.min(self.capacity),
            () => self.capacity,
        }
    }

    /// Whether those who wait to send to it are to be woken: when a third is free (sk_stream_is_writeable).
    fn has_room(&self, network: &Namespace) -> bool {
        let (used, capacity) = (self.buffer.len(), self.capacity_in(network));
        capacity.saturating_sub(used) >= used / 2 && used < capacity
    }
}

fn both(ends: &mut [End; 2], own: usize) -> (&mut End, &mut End) {
    let [first, second] = ends;
    if own == 0 { (first, second) } else { (second, first) }
}

/// Ports to be let go of without the lock.
type Holds = [Option<Hold<TcpSocket>>; 2];

/// What becomes of an end's port when its connection is over: who has bound it keeps it until he closes.
fn let_go(end: &mut End) -> Option<Hold<TcpSocket>> {
    end.hold.take_if(|hold| end.closed || !hold.is_bound())
}

/// `own` says that it sends no more. If the other has said so before, the connection is over, and the other, which has
/// closed first, is the one whose port stays for a while.
fn fin(own: &mut End, peer: &mut End) -> Holds {
    own.fin_sent = true;
    peer.fin_received = true;
    if !peer.fin_sent {
        return [None, None];
    }
    (own.dead, peer.dead) = (true, true);
    if let Some(hold) = &peer.hold {
        hold.wait();
    }
    [let_go(own), let_go(peer)]
}

/// The connection is over and some of it was lost: both ends hear of it, each as what it has heard before has it.
fn reset(own: &mut End, peer: &mut End) -> Holds {
    for end in [&mut *own, &mut *peer] {
        end.dead = true;
        end.error = Some(if end.fin_received && !end.fin_sent { Errno::EPIPE } else { Errno::ECONNRESET });
    }
    [let_go(own), let_go(peer)]
}
