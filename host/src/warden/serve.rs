//! The warden's loop.

use super::forwarder::{Forwarder, Key, Told};
use super::grants::Grants;
use super::log::Log;
use super::reach;
use super::rules::HostName;
use super::wire::{self, Party, Reply, Request, Setup};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long it waits to be told what it is for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A warden.
struct Warden {
    setup: Setup,
    /// Who asks.
    hands: Vec<OwnedFd>,
    forwarder: Forwarder,
    grants: Grants,
    log: Log,
}

/// Serves who is at the other end of standard input, until nobody is.
pub fn serve() {
    let Ok(first) = std::io::stdin().as_fd().try_clone_to_owned() else { return };
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _as_it_was = rustix::process::setrlimit(rustix::process::Resource::Nofile, most);
    let Some((setup, hands)) = introduction(&first) else { return };
    let log = Log::new(setup.logs);
    let mut warden = Warden { setup, hands, forwarder: Forwarder::default(), grants: Grants::default(), log };
    drop(first);
    while !warden.hands.is_empty() {
        warden.wait_and_serve();
    }
    warden.log.say_what_was_left_out();
}

/// The first message has the rules, and connections to be asked by; others have more of these.
fn introduction(first: &OwnedFd) -> Option<(Setup, Vec<OwnedFd>)> {
    let mut setup: Option<Setup> = None;
    let mut hands = Vec::new();
    let until = Instant::now() + PATIENCE;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok()?;
        poll(&mut [PollFd::new(first, PollFlags::IN)], Some(&timeout)).ok()?;
        match wire::receive::<Setup>(first, wire::LONGEST) {
            Ok(Some((told, with))) => {
                setup.get_or_insert(told);
                hands.extend(with);
            }
            // It has said all.
            Ok(None) => return setup.map(|setup| (setup, hands)),
            Err(Errno::AGAIN | Errno::INTR) if left > Duration::ZERO => {}
            Err(_) => return None,
        }
    }
}

/// What a descriptor that is ready is.
#[derive(Clone, Copy)]
enum Ready {
    Hand(usize),
    Forwarder(Key),
}

impl Warden {
    fn wait_and_serve(&mut self) {
        let mut ready = Vec::new();
        {
            let mut keys: Vec<Ready> = (0..self.hands.len()).map(Ready::Hand).collect();
            let mut fds: Vec<PollFd<'_>> =
                self.hands.iter().map(|hand| PollFd::new(hand, PollFlags::IN)).collect();
            for watched in self.forwarder.watched() {
                let sends = if watched.sends { PollFlags::OUT } else { PollFlags::empty() };
                fds.push(PollFd::from_borrowed_fd(watched.fd, PollFlags::IN | sends));
                keys.push(Ready::Forwarder(watched.key));
            }
            let timeout = self.forwarder.deadline().and_then(|left| Timespec::try_from(left).ok());
            if poll(&mut fds, timeout.as_ref()).is_err() {
                return;
            }
            let happened = fds.iter().zip(keys).filter(|(fd, _)| !fd.revents().is_empty());
            ready.extend(happened.map(|(_, key)| key));
        }
        // From the back: who has gone is taken out.
        for key in ready.into_iter().rev() {
            match key {
                Ready::Hand(index) => {
                    if !self.serve_one(index) {
                        drop(self.hands.swap_remove(index));
                    }
                }
                Ready::Forwarder(key) => {
                    let told = self.forwarder.ready(key, &self.setup.rules);
                    told.into_iter().for_each(|told| self.note(told));
                }
            }
        }
        self.forwarder.tidy();
    }

    /// Answers a request; false: there will be no other.
    fn serve_one(&mut self, index: usize) -> bool {
        let request = match wire::receive::<Request>(&self.hands[index], wire::ASKS) {
            Ok(Some((request, _))) => request,
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Ok(None) | Err(_) => return false,
        };
        if matches!(request, Request::Finish) {
            self.finish(index);
        }
        let Some((reply, fd)) = self.reply(&request) else { return true };
        let with: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
        wire::send(&self.hands[index], &reply, &with).is_ok()
    }

    /// Reads everything that others have said.
    fn finish(&mut self, but: usize) {
        for index in (0..self.hands.len()).filter(|index| *index != but) {
            while let Ok(Some((request, _))) = wire::receive::<Request>(&self.hands[index], wire::ASKS) {
                let _nobody_waits = self.reply(&request);
            }
        }
        self.log.say_what_was_left_out();
    }

    fn reply(&mut self, request: &Request) -> Option<(Reply, Option<OwnedFd>)> {
        let refused = |errno: Errno| (Reply::Refused(errno.raw_os_error()), None);
        Some(match request {
            Request::Finish => (Reply::Finished, None),
            Request::Closed { party, name, received, sent } => {
                self.log.closed(party, name.as_deref(), *received, *sent);
                return None;
            }
            Request::Resolve { stream, index } => {
                let resolver = self.setup.resolvers.get(*index).copied().ok_or(Errno::CONNREFUSED);
                match resolver.and_then(|resolver| self.forwarder.connect(*stream, resolver)) {
                    Ok(fd) => (Reply::Granted { name: None, done: true }, Some(fd)),
                    Err(errno) => refused(errno),
                }
            }
            Request::Ask(party) => match self.judge(party) {
                Ok(name) => (Reply::Granted { name, done: false }, None),
                Err(errno) => refused(errno),
            },
            Request::Connect(party) => match self.judge(party) {
                Ok(name) => connected(party, name),
                Err(errno) => refused(errno),
            },
            Request::ConnectHost(party) => {
                let port = party.to.port();
                let may = self.setup.rules.host_loopback.iter().any(|ports| ports.has(port));
                let may = may && reach::is_self(party.to.ip());
                self.log.connection(if may { "allowed" } else { "refused" }, party, None);
                if may { connected(party, None) } else { refused(Errno::CONNREFUSED) }
            }
        })
    }

    /// Whether a connection may be: the name that it goes to, if that is known.
    fn judge(&mut self, party: &Party) -> Result<Option<String>, Errno> {
        let (ip, now) = (party.to.ip(), Instant::now());
        let names: Vec<&HostName> = self.grants.names(reach::canonical(ip), now).collect();
        let name = names.first().map(|name| name.text().to_owned());
        let may = self.setup.rules.may_reach(ip, party.to.port(), names.into_iter());
        let verdict = match may {
            false => Err(Errno::ACCESS),
            true if reach::is_self(ip) => Err(Errno::CONNREFUSED),
            true => match from(party.to) {
                Ok(own) if own == ip => Err(Errno::CONNREFUSED),
                // A broadcast, which the machine hears itself.
                Err(Errno::ACCESS) => Err(Errno::ACCESS),
                _ => Ok(name.clone()),
            },
        };
        self.log.connection(if verdict.is_ok() { "allowed" } else { "refused" }, party, name.as_deref());
        verdict
    }

    fn note(&mut self, told: Told) {
        match told {
            Told::Name(name) => self.log.name("refused", &name, None),
            Told::Answer(asked, answer) => {
                for (ip, ttl) in answer.addresses {
                    self.grants.add(reach::canonical(ip), &asked.name, ttl, Instant::now());
                }
                for ip in answer.refused {
                    self.log.name("refused", asked.name.text(), Some(ip));
                }
            }
        }
    }
}

fn socket(stream: bool, to: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = if stream { SocketType::STREAM } else { SocketType::DGRAM };
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// What the machine would send from; where that is the address that it is sent to, it is its own.
fn from(to: SocketAddr) -> Result<IpAddr, Errno> {
    let probe = socket(false, to)?;
    rustix::net::connect(&probe, &to)?;
    let own = SocketAddr::try_from(rustix::net::getsockname(&probe)?).map_err(|_| Errno::AFNOSUPPORT)?;
    Ok(own.ip())
}

/// A socket of the machine's that is connected, or on its way (false).
pub(super) fn connect(stream: bool, to: SocketAddr) -> Result<(OwnedFd, bool), Errno> {
    let fd = socket(stream, to)?;
    // What is said to a group is not for the machine itself.
    if stream {
        // There are no groups of streams.
    } else if to.is_ipv4() {
        sockopt::set_ip_multicast_loop(&fd, false)?;
    } else {
        sockopt::set_ipv6_multicast_loop(&fd, false)?;
    }
    match rustix::net::connect(&fd, &to) {
        Ok(()) => Ok((fd, true)),
        Err(Errno::INPROGRESS) => Ok((fd, false)),
        Err(errno) => Err(errno),
    }
}

fn connected(party: &Party, name: Option<String>) -> (Reply, Option<OwnedFd>) {
    match connect(party.stream, party.to) {
        Ok((fd, done)) => (Reply::Granted { name, done }, Some(fd)),
        Err(errno) => (Reply::Refused(errno.raw_os_error()), None),
    }
}
