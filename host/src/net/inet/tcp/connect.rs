//! From a fresh socket to a connected one.

use super::connection::{Connection, state as tcp_state};
use super::{Listener, Role, SEND_BUFFER_GROWN, State, TcpSocket};
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::net::Kind;
use crate::net::inet::endpoint::{peer, source, unspecified};
use crate::net::inet::ports::{self, Hold};
use crate::net::inet::{bind_address, may_bind, may_go_by};
use crate::net::links::Home;
use crate::net::outside::reserve;
use crate::net::waiters::Waiters;
use crate::sync::event;
use linux_raw_sys::general as c;
use std::collections::VecDeque;
use std::mem::take;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const IN: u32 = c::POLLIN | c::POLLRDNORM;
pub(super) const OVER: u32 =
    IN | c::POLLRDHUP | c::POLLOUT | c::POLLWRNORM | c::POLLHUP | c::POLLERR | event::SPACE | event::HANGUP;

/// What became of an attempt to connect.
pub(super) enum Attempt {
    Connected,
    /// Nobody listens.
    Refused,
    /// The listener has no room.
    Full,
}

impl TcpSocket {
    /// bind(2).
    pub(super) fn bind_to(&self, cred: &Cred, raw: &[u8]) -> Result<()> {
        let address = bind_address(self.v6, raw)?;
        let mut state = self.state.lock();
        may_bind(&self.network, cred, self.only_v6(&state), address, false)?;
        if !matches!(state.role, Role::Closed) || state.hold.is_some() {
            return Err(Errno::EINVAL);
        }
        self.take_port(&mut state, address)
    }

    fn take_port(&self, state: &mut State, address: SocketAddr) -> Result<()> {
        let claim = self.claim(state, address.ip());
        let reserve = |at| reserve(Kind::Stream, at, claim.only_v6, &state.told);
        let (hold, door) = ports::take(&self.network.tcp, &self.network, address, claim, &self.me, reserve)?;
        state.door = door;
        let bound = SocketAddr::new(address.ip(), hold.port());
        (state.bound, state.local) = (Some(bound), Some(bound));
        state.hold = Some(hold);
        Ok(())
    }

    /// listen(2).
    pub(super) fn start_listening(&self, backlog: i32) -> Result<()> {
        // A negative number is a large one.
        let most = self.network.settings.backlog_max.load(Ordering::Relaxed);
        let backlog = (backlog as u32).min(most) as usize;
        let mut state = self.state.lock();
        match &mut state.role {
            Role::Listening(listener) => {
                listener.backlog = backlog;
                return Ok(());
            }
            Role::Closed => {}
            _ => return Err(Errno::EINVAL),
        }
        if state.connecting {
            return Err(Errno::EINVAL);
        }
        if state.hold.is_none() {
            self.take_port(&mut state, SocketAddr::new(unspecified(self.v6), 0))?;
        }
        if let Some(hold) = &mut state.hold {
            hold.listen()?;
        }
        let gate = match self.open_gate(&mut state) {
            Ok(gate) => gate,
            Err(errno) => {
                if let Some(hold) = &mut state.hold {
                    hold.unlisten();
                }
                return Err(errno);
            }
        };
        state.shut = (false, false);
        state.role = Role::Listening(Listener {
            backlog,
            accepted: VecDeque::new(),
            asking: Waiters::default(),
            gate,
        });
        drop(state);
        self.core.wait.notify(c::POLLOUT);
        Ok(())
    }

    /// Takes a waiting connection, and lets those in who found no room.
    pub(super) fn next_connection(&self) -> Result<Arc<TcpSocket>> {
        let mut state = self.state.lock();
        let Role::Listening(listener) = &mut state.role else { return Err(Errno::EINVAL) };
        let taken = listener.accepted.pop_front().ok_or(Errno::EAGAIN)?;
        // Who asks from now on finds the room itself.
        let asked = !listener.asking.is_empty();
        let (gate, port) = (listener.gate.clone(), state.local.map_or(0, |local| local.port()));
        drop(state);
        if let Some(gate) = gate {
            gate.has_room();
        }
        self.network.has_room(port);
        while asked && let Some(client) = self.next_asking() {
            client.ask_again();
        }
        Ok(taken)
    }

    /// Takes out one who found no room, where there is room.
    fn next_asking(&self) -> Option<Arc<TcpSocket>> {
        match &mut self.state.lock().role {
            Role::Listening(listener) if !listener.is_full() => listener.asking.pop(),
            _ => None,
        }
    }

    /// Makes another attempt, for one who found no room.
    pub(super) fn ask_again(&self) {
        let remote = match self.state.lock().role {
            Role::Asking(remote) => remote,
            _ => return,
        };
        match self.ask(remote) {
            Attempt::Full => {}
            Attempt::Connected => self.core.wait.notify(!0),
            Attempt::Refused => {
                let mut state = self.state.lock();
                state.role = Role::Closed;
                state.error = Some(Errno::ECONNREFUSED);
                state.shut = (true, true);
                let hold = self.forget_connection(&mut state);
                drop(state);
                drop(hold);
                self.core.wait.notify(OVER);
            }
        }
    }

    /// Begins to connect; `None`: it goes on.
    pub(super) fn begin(&self, process: i32, raw: &[u8], nowait: bool) -> Result<Option<()>> {
        let mut state = self.state.lock();
        match state.role {
            _ if state.connecting => {
                drop(state);
                return match self.conclude() {
                    None if nowait => Err(Errno::EALREADY),
                    None => Ok(None),
                    Some(result) => result.map(Some),
                };
            }
            Role::Closed => {}
            _ => return Err(Errno::EISCONN),
        }
        let remote = peer(self.v6, self.only_v6(&state), raw)?;
        let home = self.network.home(remote.ip());
        may_go_by(self.core.options.lock().device, matches!(home, Home::Here))?;
        if matches!(home, Home::Here | Home::Outside)
            && let Some(toward) = self.elsewhere(remote)
        {
            drop(state);
            return self.begin_toward(process, remote, toward);
        }
        let from = match home {
            Home::Here => source(remote.ip()),
            Home::There(_, from) => from,
            // Nobody answers who has the address.
            Home::Lost(_) => return Err(Errno::EHOSTUNREACH),
            Home::Outside => return self.begin_outside(&mut state, remote, None),
        };
        self.take_pair(&mut state, remote, from)?;
        state.error = None;
        state.shut = (false, false);
        state.connecting = true;
        drop(state);
        match self.ask(remote) {
            // What happens at once is told later where nobody waits for it, as Linux has it.
            Attempt::Connected if nowait => {}
            Attempt::Connected => {
                self.state.lock().connecting = false;
                self.core.wait.notify(c::POLLOUT | c::POLLWRNORM);
                return Ok(Some(()));
            }
            Attempt::Full => {}
            Attempt::Refused => return self.refused(process, remote, nowait),
        }
        self.core.wait.notify(c::POLLOUT | c::POLLWRNORM);
        Ok(None)
    }

    /// Takes an address, which is `from` if none was said, and a port for a connection with `remote`.
    fn take_pair(&self, state: &mut State, remote: SocketAddr, from: IpAddr) -> Result<()> {
        let bound = state.bound.map(|bound| bound.ip()).filter(|ip| !ip.is_unspecified());
        let local = match bound {
            Some(ip) if ip.is_ipv4() == remote.is_ipv4() => ip,
            Some(_) => return Err(Errno::EINVAL),
            None => from,
        };
        match &state.hold {
            Some(hold) => hold.connect(local, remote)?,
            None => {
                let claim = self.claim(state, local);
                let ports = &self.network.tcp;
                state.hold = Some(ports.connect(&self.network, claim, remote, self.me.clone())?);
            }
        }
        let port = state.hold.as_ref().map_or(0, Hold::port);
        (state.local, state.remote) = (Some(SocketAddr::new(local, port)), Some(remote));
        state.role = Role::Asking(remote);
        Ok(())
    }

    /// Asks whoever listens at `remote` for a connection.
    fn ask(&self, remote: SocketAddr) -> Attempt {
        let listener = match self.network.home(remote.ip()) {
            Home::Here => self.network.tcp.listener(&self.network, remote),
            Home::There(there, _) => there.tcp.listener(&there, remote),
            Home::Lost(_) | Home::Outside => None,
        };
        let Some(listener) = listener else { return Attempt::Refused };
        let Some(local) = self.state.lock().local else { return Attempt::Refused };
        let Some(server) = listener.admit(self, local, remote) else { return Attempt::Refused };
        let Some((connection, server)) = server else { return Attempt::Full };
        let mut state = self.state.lock();
        if state.released || !matches!(state.role, Role::Asking(_)) {
            drop(state);
            connection.close(0, true);
            return Attempt::Connected;
        }
        connection.set_hold(0, state.hold.take());
        state.role = Role::Connected(connection, 0);
        drop(state);
        self.grow_buffers();
        drop(server);
        listener.core.wait.notify(IN);
        Attempt::Connected
    }

    /// Queues a connection to be accepted. `None`: it does not listen; `Some(None)`: there is no room, and the client will
    /// be asked again when there is.
    #[expect(clippy::option_option, reason = "two ways to fail, for one caller")]
    fn admit(
        &self,
        client: &TcpSocket,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<Option<(Arc<Connection>, Arc<TcpSocket>)>> {
        let (claim, ip, tcp) = {
            let mut state = self.state.lock();
            let Role::Listening(listener) = &mut state.role else { return None };
            if listener.is_full() {
                listener.asking.add(client.core.ino, &client.me);
                return Some(None);
            }
            (self.claim(&state, to.ip()), state.ip.clone(), state.tcp.clone())
        };
        let state = State { ip, tcp, local: Some(to), remote: Some(from), ..State::default() };
        let options = *self.core.options.lock();
        let server = TcpSocket::with(&self.network, self.v6, self.core.uid, options, state);
        let connection = Connection::new(&self.network, [client.core.clone(), server.core.clone()]);
        connection.set_hold(1, Some(self.network.tcp.share(to.port(), claim, from, server.me.clone())));
        server.state.lock().role = Role::Connected(connection.clone(), 1);
        server.grow_buffers();
        let mut state = self.state.lock();
        let Role::Listening(listener) = &mut state.role else {
            drop(state);
            return None;
        };
        listener.accepted.push_back(server.clone());
        Some(Some((connection, server)))
    }

    /// What a program sees of buffers that grow with use.
    fn grow_buffers(&self) {
        let mut options = self.core.options.lock();
        if !options.fixed.1 {
            options.send_buffer = SEND_BUFFER_GROWN;
        }
    }

    /// How a connect(2) has ended; `None` while it has not.
    pub(super) fn conclude(&self) -> Option<Result<()>> {
        let mut state = self.state.lock();
        let result = match &state.role {
            Role::Asking(_) => return None,
            Role::Connected(connection, end) if connection.state(*end) == tcp_state::CLOSE => {
                Err(connection.take_error(*end).unwrap_or(Errno::ECONNABORTED))
            }
            Role::Connected(..) => Ok(()),
            Role::Outside(outside) => outside.connected()?,
            _ => Err(state.error.take().unwrap_or(Errno::ECONNABORTED)),
        };
        state.connecting = false;
        let mut gone = None;
        if result.is_err() {
            state.shut = (false, false);
            if matches!(state.role, Role::Outside(_)) {
                gone = Some(take(&mut state.role));
            }
        }
        drop(state);
        drop(gone);
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::{IoDst, IoSrc};
    use crate::net::options::Options;
    use crate::net::{Address, Namespace, Socket};
    use std::net::IpAddr;

    fn socket(network: &Arc<Namespace>) -> Arc<TcpSocket> {
        TcpSocket::with(network, false, 0, Options::default(), State::default())
    }

    fn address(text: &str) -> crate::net::Raw {
        Address::Inet(text.parse().unwrap()).raw()
    }

    fn listener(network: &Arc<Namespace>, at: &str, backlog: i32) -> Arc<TcpSocket> {
        let server = socket(network);
        server.bind_to(&Cred::root(), address(at).bytes()).unwrap();
        server.start_listening(backlog).unwrap();
        server
    }

    #[test]
    fn connections_carry_bytes_and_end() {
        let network = Namespace::new(None);
        let server = listener(&network, "0.0.0.0:7000", 5);
        let client = socket(&network);
        assert!(matches!(client.begin(1, address("127.0.0.1:7000").bytes(), false), Ok(Some(()))));
        let accepted = server.next_connection().unwrap();
        client.write(&mut IoSrc::kernel(b"hello")).unwrap();
        let mut bytes = [0; 9];
        assert_eq!(accepted.read(&mut IoDst::kernel(&mut bytes)), Ok(5));
        accepted.end();
        assert_eq!(client.read(&mut IoDst::kernel(&mut bytes)), Ok(0));
        client.end();
        server.end();
        drop((client, accepted, server));
        assert_eq!(network.memory.used(), 0);
        // Who has closed first is waited for.
        let again = socket(&network);
        assert_eq!(again.bind_to(&Cred::root(), address("0.0.0.0:7000").bytes()), Err(Errno::EADDRINUSE));
    }

    #[test]
    fn who_finds_no_room_is_let_in_later() {
        let network = Namespace::new(None);
        let server = listener(&network, "127.0.0.1:7000", 0);
        let clients: Vec<_> = (0..3).map(|_| socket(&network)).collect();
        let to = address("127.0.0.1:7000");
        assert!(matches!(clients[0].begin(1, to.bytes(), false), Ok(Some(()))));
        assert!(matches!(clients[1].begin(1, to.bytes(), false), Ok(None)));
        assert!(matches!(clients[2].begin(1, to.bytes(), false), Ok(None)));
        assert!(clients[1].conclude().is_none());
        server.next_connection().unwrap();
        assert_eq!(clients[1].conclude(), Some(Ok(())));
        assert!(clients[2].conclude().is_none());
        server.end();
        assert_eq!(clients[2].conclude(), Some(Err(Errno::ECONNREFUSED)));
    }

    #[test]
    fn ports_are_given_back() {
        let network = Namespace::new(None);
        let server = listener(&network, "127.0.0.1:7000", 5);
        for _ in 0..70_000 {
            let client = socket(&network);
            client.begin(1, address("127.0.0.1:7000").bytes(), false).unwrap();
            let accepted = server.next_connection().unwrap();
            client.end();
            accepted.end();
        }
        let ip = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(server.state.lock().local, Some(SocketAddr::new(ip, 7000)));
    }
}
