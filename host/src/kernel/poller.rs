//! Waiting for the host: descriptors that tasks wait on, and signals sent to us.
//!
//! One thread does, in [`Poller::run`]: the one that started the sandbox and has nothing else to do until it ends.

use super::Kernel;
use super::signal::{
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGPWR, SIGQUIT, SIGSTKFLT, SIGTERM, SIGTSTP, SIGUSR1,
    SIGUSR2, SIGVTALRM, SIGWINCH, SigInfo, SigSet,
};
use super::tree::INIT;
use crate::abi::{Errno, Result};
use crate::hostfd::HostFd;
use crate::hostsys::poll::{Epoll, Event, block_signals, event_fd, lower, next_signal, raise, signal_fd};
use crate::net::outside::Watch;
use crate::sync::{Lock, Rank, WaitQueue, Wake};
use core::sync::atomic::{AtomicI32, Ordering};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// The tokens of the signal descriptor, of the one that ends the loop and of the one that stops us; others are descriptor
/// numbers.
const SIGNALS: u64 = u64::MAX;
const END: u64 = u64::MAX - 1;
const STOP: u64 = u64::MAX - 2;
const EPOLLIN: u32 = 1;
const EPOLLONESHOT: u32 = 1 << 30;
/// Every change of what a socket can be ready for.
const EDGES: u32 = 1 << 31 | 0x2000 | 4 | 2 | EPOLLIN;
/// What is passed on to the sandbox: all that would end or stop us otherwise. SIGCHLD is our own business.
const FORWARDED: SigSet = SigSet::of(&[
    SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGALRM, SIGCONT, SIGTSTP, SIGIO, SIGPROF,
    SIGVTALRM, SIGPWR, SIGSTKFLT,
]);
/// What a terminal sends to the whole foreground group.
const FROM_TERMINAL: SigSet = SigSet::of(&[SIGHUP, SIGINT, SIGQUIT, SIGWINCH, SIGTSTP]);

/// Blocks the signals that the poller reads, in this thread and its future children. Call it before the first
/// thread is made.
pub fn block_forwarded_signals() {
    block_signals(FORWARDED.0);
}

/// Watches host descriptors.
pub struct Poller {
    kernel: Weak<Kernel>,
    epoll: Option<Epoll>,
    signals: Option<HostFd>,
    end: Option<HostFd>,
    stop: Option<HostFd>,
    /// The signal to stop by; 0 for none.
    stop_signal: AtomicI32,
    queues: Lock<BTreeMap<i32, Arc<WaitQueue>>>,
    /// Who is told of every change, by descriptor.
    edges: Lock<BTreeMap<i32, Arc<dyn Wake>>>,
}

impl Poller {
    /// A poller that watches for signals so far. Where the host has no descriptors left, every
    /// [`watch`](Self::watch) fails.
    pub(super) fn new(kernel: Weak<Kernel>) -> Arc<Self> {
        let epoll = Epoll::new().ok();
        let signals = signal_fd(FORWARDED.0).ok();
        if let (Some(epoll), Some(signals)) = (&epoll, &signals) {
            let _ = epoll.watch(signals.raw(), EPOLLIN, SIGNALS);
        }
        let end = event_fd().ok();
        if let (Some(epoll), Some(end)) = (&epoll, &end) {
            let _ = epoll.watch(end.raw(), EPOLLIN, END);
        }
        let stop = event_fd().ok();
        if let (Some(epoll), Some(stop)) = (&epoll, &stop) {
            let _ = epoll.watch(stop.raw(), EPOLLIN, STOP);
        }
        let stop_signal = AtomicI32::new(0);
        Arc::new(Poller {
            kernel,
            epoll,
            signals,
            end,
            stop,
            stop_signal,
            queues: Lock::new(Rank::PollerQueues, BTreeMap::new()),
            edges: Lock::new(Rank::PollerEdges, BTreeMap::new()),
        })
    }

    /// Makes [`run`](Self::run) return.
    pub(super) fn stop(&self) {
        if let Some(end) = &self.end {
            raise(end);
        }
    }

    /// Has the whole sandbox stop by `signo`, until whoever runs it continues it.
    pub(super) fn suspend(&self, signo: i32) {
        if let Some(stop) = &self.stop {
            self.stop_signal.store(signo, Ordering::SeqCst);
            raise(stop);
        }
    }

    fn stop_now(&self) {
        let (Some(stop), Some(kernel)) = (&self.stop, self.kernel.upgrade()) else { return };
        lower(stop);
        let signo = self.stop_signal.swap(0, Ordering::SeqCst);
        if signo != 0 {
            kernel.platform.pause(true);
            crate::hostsys::process::stop(signo);
            kernel.platform.pause(false);
        }
    }

    /// Has `queue` notified when `fd` is ready for `events` (poll(2) bits), once. Whoever finds it not ready after
    /// all watches again.
    ///
    /// # Errors
    /// EPERM for what is always ready (regular files), ENOMEM.
    pub fn watch(&self, fd: i32, events: u32, queue: &Arc<WaitQueue>) -> Result<()> {
        let epoll = self.epoll.as_ref().ok_or(Errno::ENOMEM)?;
        self.queues.lock().insert(fd, queue.clone());
        let result = epoll.watch(fd, events | EPOLLONESHOT, fd as u64);
        if result.is_err() {
            self.queues.lock().remove(&fd);
        }
        result
    }

    /// Stops watching; call it before closing the descriptor.
    pub fn unwatch(&self, fd: i32) {
        if self.queues.lock().remove(&fd).is_some()
            && let Some(epoll) = &self.epoll
        {
            epoll.unwatch(fd);
        }
    }

    /// Serves watches and signals until [`stop`](Self::stop). Returns at once if it cannot.
    pub(super) fn run(&self) {
        let (Some(epoll), Some(_)) = (&self.epoll, &self.end) else { return };
        let mut events: Vec<Event> = Vec::new();
        loop {
            epoll.wait(&mut events);
            crate::time::resync();
            if events.iter().any(|event| event.token == END) {
                return;
            }
            for event in &events {
                if event.token == STOP {
                    self.stop_now();
                    continue;
                }
                if event.token == SIGNALS {
                    self.forward_signals();
                    continue;
                }
                let queue = self.queues.lock().get(&(event.token as i32)).cloned();
                if let Some(queue) = queue {
                    queue.notify(event.events & 0xffff);
                }
                let wake = self.edges.lock().get(&(event.token as i32)).cloned();
                if let Some(wake) = wake {
                    wake.wake_for(event.events & 0xffff);
                }
            }
        }
    }

    fn forward_signals(&self) {
        let (Some(fd), Some(kernel)) = (&self.signals, self.kernel.upgrade()) else { return };
        while let Some(signo) = next_signal(fd) {
            let info = SigInfo::kernel(signo);
            let group = {
                let tree = kernel.tree.lock();
                let own = tree.node(INIT).map_or(INIT, |node| node.pgid);
                // Who continues us continues those that stopped with us.
                let tie = kernel.host_terminal().filter(|_| signo != SIGCONT).and_then(|tty| tree.tie(tty));
                tie.map_or(own, |tie| tie.foreground)
            };
            if (FROM_TERMINAL.has(signo) || signo == SIGCONT)
                && kernel.signal_process_group(group, info).is_ok()
            {
                continue;
            }
            if let Some(init) = kernel.process(INIT) {
                let _ = kernel.signal_group(&init, info);
            }
        }
    }
}

impl Watch for Poller {
    fn watch_edges(&self, fd: i32, wake: Arc<dyn Wake>) -> Result<()> {
        let epoll = self.epoll.as_ref().ok_or(Errno::ENOMEM)?;
        self.edges.lock().insert(fd, wake);
        let result = epoll.watch(fd, EDGES, fd as u64);
        if result.is_err() {
            self.unwatch_edges(fd);
        }
        result
    }

    fn unwatch_edges(&self, fd: i32) {
        let known = self.edges.lock().remove(&fd);
        if let (Some(_), Some(epoll)) = (known, &self.epoll) {
            epoll.unwatch(fd);
        }
    }
}
