//! The sandbox's side of its warden ([`crate::warden`]): asking, and telling what became of a connection.
//!
//! A question is asked without any lock: each takes one of the connections with the warden, of which there are as many as
//! threads that can ask. The warden answers at once. One that is gone, or does not answer, has permitted nothing.

use crate::abi::{Errno, Result};
use crate::hostfd::HostFd;
use crate::hostsys::socket as host;
use crate::sync::{Lock, Rank};
use crate::warden::wire::{Party, Reply, Request};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// The longest answer.
const ANSWER: usize = 1024;

/// Says how the program of a process is called.
pub type NameOf = Box<dyn Fn(i32) -> Option<String> + Send + Sync>;

/// A warden, as the sandbox knows it.
pub struct Guard {
    /// Connections that nobody asks by just now.
    ends: Lock<Vec<HostFd>>,
    /// Connecting is the warden's: the sandbox has no right to it.
    walls: bool,
    /// What becomes of connections is to be told.
    logs: bool,
    /// Those that have not ended.
    accounts: Lock<BTreeMap<u64, Weak<Account>>>,
    numbers: AtomicU64,
    /// Set by the kernel.
    pub name_of: OnceLock<NameOf>,
}

/// What the warden permitted.
pub struct Granted {
    /// The descriptor, where it makes them.
    pub fd: Option<HostFd>,
    /// It is connected already.
    pub done: bool,
    /// What counts its bytes, if that is wanted.
    pub account: Option<Arc<Account>>,
}

/// What went over a connection.
pub struct Account {
    guard: Arc<Guard>,
    number: u64,
    party: Party,
    name: Option<String>,
    /// Bytes received.
    pub received: AtomicU64,
    /// Bytes sent.
    pub sent: AtomicU64,
}

impl Guard {
    /// A warden that is asked by `ends`.
    pub fn new(ends: Vec<HostFd>, walls: bool, logs: bool) -> Arc<Guard> {
        Arc::new(Guard {
            ends: Lock::new(Rank::GuardEnds, ends),
            walls,
            logs,
            accounts: Lock::new(Rank::GuardAccounts, BTreeMap::new()),
            numbers: AtomicU64::new(0),
            name_of: OnceLock::new(),
        })
    }

    /// Whether nothing is reached but by the warden.
    pub fn walls(&self) -> bool {
        self.walls
    }

    /// May `process` connect to `to`? On the machine's own loopback, if `host`.
    ///
    /// # Errors
    /// EACCES; what connecting said; EMFILE.
    pub fn connect(
        self: &Arc<Self>,
        process: i32,
        stream: bool,
        to: SocketAddr,
        host: bool,
    ) -> Result<Granted> {
        let name = self.name_of.get().and_then(|name_of| name_of(process));
        let party = Party { program: name.unwrap_or_default(), stream, to };
        let request = match (host, self.walls) {
            (true, _) => Request::ConnectHost(party.clone()),
            (false, true) => Request::Connect(party.clone()),
            (false, false) => Request::Ask(party.clone()),
        };
        let (reply, fd) = self.ask(&request)?;
        match reply {
            Reply::Granted { name, done } => {
                // What is not to be used after all ends as it is told.
                let account = self.account(party, name);
                let fd = fd?;
                // The sandbox itself must not make one.
                let lacks = self.walls && fd.is_none();
                if lacks { Err(Errno::EMFILE) } else { Ok(Granted { fd, done, account }) }
            }
            Reply::Refused(errno) => Err(Errno(errno)),
            Reply::Finished => Err(Errno::EACCES),
        }
    }

    /// A connection with a resolver.
    ///
    /// # Errors
    /// ECONNREFUSED, EMFILE.
    pub fn resolve(&self, stream: bool, index: usize) -> Result<HostFd> {
        match self.ask(&Request::Resolve { stream, index })? {
            (Reply::Granted { .. }, fd) => fd?.ok_or(Errno::ECONNREFUSED),
            (Reply::Refused(errno), _) => Err(Errno(errno)),
            _ => Err(Errno::ECONNREFUSED),
        }
    }

    /// Waits until all that was said is in the log.
    pub fn finish(&self) {
        let open: Vec<_> = std::mem::take(&mut *self.accounts.lock()).into_values().collect();
        for account in open.iter().filter_map(Weak::upgrade) {
            account.tell();
        }
        if self.logs {
            // A warden that is gone has said what it could.
            let _gone = self.ask(&Request::Finish);
        }
    }

    fn account(self: &Arc<Self>, party: Party, name: Option<String>) -> Option<Arc<Account>> {
        if !self.logs {
            return None;
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (received, sent) = (AtomicU64::new(0), AtomicU64::new(0));
        let account = Arc::new(Account { guard: self.clone(), number, party, name, received, sent });
        self.accounts.lock().insert(number, Arc::downgrade(&account));
        Some(account)
    }

    /// Asks: the answer, and what came with it, if it found a place.
    fn ask(&self, request: &Request) -> Result<(Reply, Result<Option<HostFd>>)> {
        let end = self.ends.lock().pop().ok_or(Errno::ENOBUFS)?;
        let answer = Self::exchange(&end, request);
        // Whoever has not answered in time may answer the next question.
        if answer.is_ok() {
            self.ends.lock().push(end);
        }
        answer
    }

    fn exchange(end: &HostFd, request: &Request) -> Result<(Reply, Result<Option<HostFd>>)> {
        let gone = |_| Errno::EACCES;
        host::send_bytes(end, &serde_json::to_vec(request).map_err(|_| Errno::EACCES)?, &[], 0)
            .map_err(gone)?;
        let mut bytes = [0; ANSWER];
        let (count, fd) = loop {
            match host::receive_with(end, &mut bytes) {
                Err(Errno::EINTR) => {}
                other => break other.map_err(gone)?,
            }
        };
        serde_json::from_slice(&bytes[..count]).map(|reply| (reply, fd)).map_err(|_| Errno::EACCES)
    }

    /// Says something that is not answered.
    fn tell(&self, request: &Request) {
        let Some(end) = self.ends.lock().pop() else { return };
        if let Ok(text) = serde_json::to_vec(request) {
            // A warden that is gone has no use for it.
            let _gone = host::send_bytes(&end, &text, &[], 0);
        }
        self.ends.lock().push(end);
    }
}

impl Account {
    fn tell(&self) {
        self.guard.tell(&Request::Closed {
            party: self.party.clone(),
            name: self.name.clone(),
            received: self.received.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
        });
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if self.guard.accounts.lock().remove(&self.number).is_some() {
            self.tell();
        }
    }
}
