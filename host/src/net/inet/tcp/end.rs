//! From a connected socket, or one that listens, to its end.

use super::connect::OVER;
use super::connection::state as tcp_state;
use super::{Listener, Role, State, TcpSocket};
use crate::abi::{Errno, Result};
use crate::net::inet::endpoint::unspecified;
use crate::net::inet::ports::Hold;
use std::mem::take;
use std::net::SocketAddr;

impl TcpSocket {
    /// Makes a socket without a connection of one that had one, or nearly; its port is kept if it was bound. Returns what is
    /// to be dropped without the lock.
    pub(super) fn forget_connection(&self, state: &mut State) -> Option<Hold<TcpSocket>> {
        if let Role::Connected(connection, end) = take(&mut state.role) {
            state.hold = connection.take_hold(end);
        }
        state.remote = None;
        let ip = state.bound.map_or(unspecified(self.v6), |bound| bound.ip());
        // The number is still shown when others may have the port (tcp_disconnect).
        state.local = state.local.map(|local| SocketAddr::new(ip, local.port()));
        match &state.hold {
            Some(hold) if hold.is_bound() => {
                hold.disconnect(ip);
                None
            }
            _ => state.hold.take(),
        }
    }

    /// connect(2) to nowhere: ends a connection, or stops listening (tcp_disconnect).
    pub(super) fn disconnect(&self) {
        let mut state = self.state.lock();
        state.connecting = false;
        state.shut = (false, false);
        let mut listener = None;
        match take(&mut state.role) {
            Role::Closed | Role::Outside(_) => {}
            Role::Asking(_) => state.error = Some(Errno::ECONNRESET),
            Role::Listening(old) => {
                if let Some(hold) = &mut state.hold {
                    hold.unlisten();
                }
                listener = Some(old);
            }
            Role::Connected(connection, end) => {
                if connection.state(end) != tcp_state::CLOSE {
                    connection.abort(end);
                    state.error = Some(Errno::ECONNRESET);
                }
                state.role = Role::Connected(connection, end);
            }
        }
        let hold = self.forget_connection(&mut state);
        drop(state);
        drop(hold);
        if let Some(listener) = listener {
            listener.end();
        }
        self.core.wait.notify(OVER);
    }

    /// shutdown(2).
    pub(super) fn shut(&self, read: bool, write: bool) -> Result<()> {
        let mut state = self.state.lock();
        match &state.role {
            Role::Connected(connection, end) => {
                let (connection, end) = (connection.clone(), *end);
                drop(state);
                connection.shutdown(end, read, write)
            }
            Role::Outside(outside) => {
                let outside = outside.clone();
                drop(state);
                outside.shutdown(read, write)
            }
            Role::Closed => {
                state.shut = (state.shut.0 | read, state.shut.1 | write);
                drop(state);
                self.core.wait.notify(OVER);
                Err(Errno::ENOTCONN)
            }
            Role::Listening(_) if !read => Ok(()),
            Role::Listening(_) | Role::Asking(_) => {
                drop(state);
                self.disconnect();
                Ok(())
            }
        }
    }

    /// Its last descriptor was closed.
    pub(super) fn end(&self) {
        let abort = self.core.options.lock().linger == (true, 0);
        let mut state = self.state.lock();
        state.released = true;
        let (role, hold, door) = (take(&mut state.role), state.hold.take(), state.door.take());
        drop(state);
        drop((hold, door));
        match role {
            Role::Outside(outside) if abort => outside.reset(),
            Role::Connected(connection, end) => connection.close(end, abort),
            Role::Listening(listener) => listener.end(),
            Role::Closed | Role::Asking(_) | Role::Outside(_) => {}
        }
    }
}

impl Listener {
    /// Linux takes one more than it was told.
    pub(super) fn is_full(&self) -> bool {
        self.accepted.len() > self.backlog
    }

    /// Turns away who was not accepted, and who asks.
    fn end(mut self) {
        // Nobody else comes in.
        drop(self.gate.take());
        for socket in self.accepted {
            if let Some((connection, end)) = socket.connection() {
                connection.close(end, true);
            }
            if let Some(outside) = socket.outside() {
                outside.reset();
            }
        }
        while let Some(client) = self.asking.pop() {
            client.ask_again();
        }
    }
}
