//! Waiting for the host: descriptors that tasks wait on, and signals sent to us.
//!
//! One thread does, in [`Poller::run`]: the one that started the sandbox and has nothing else to do until it ends.

use super::Kernel;
use super::signal::{
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SigInfo, SigSet,
};
use super::tree::INIT;
use crate::abi::{Errno, Result};
use crate::hostsys::poll::{Epoll, Event, block_signals, event_fd, next_signal, raise, signal_fd};
use crate::sync::{Lock, WaitQueue};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};

/// The tokens of the signal descriptor and of the one that ends the loop; others are descriptor numbers.
const SIGNALS: u64 = u64::MAX;
const END: u64 = u64::MAX - 1;
const EPOLLIN: u32 = 1;
const EPOLLONESHOT: u32 = 1 << 30;
/// What is passed on to the sandbox. SIGCHLD and terminal stops are our own business.
const FORWARDED: SigSet =
    SigSet::of(&[SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGALRM, SIGCONT]);
/// What a terminal sends to the whole foreground group.
const FROM_TERMINAL: SigSet = SigSet::of(&[SIGHUP, SIGINT, SIGQUIT, SIGWINCH]);

/// Blocks the signals that the poller reads, in this thread and its future children. Call it before the first
/// thread is made.
pub fn block_forwarded_signals() {
    block_signals(FORWARDED.0);
}

/// Watches host descriptors.
pub struct Poller {
    kernel: Weak<Kernel>,
    epoll: Option<Epoll>,
    signals: Option<OwnedFd>,
    end: Option<OwnedFd>,
    queues: Lock<BTreeMap<i32, Arc<WaitQueue>>>,
}

impl Poller {
    /// A poller that watches for signals so far. Where the host has no descriptors left, every
    /// [`watch`](Self::watch) fails.
    pub(super) fn new(kernel: Weak<Kernel>) -> Arc<Self> {
        let epoll = Epoll::new().ok();
        let signals = signal_fd(FORWARDED.0).ok();
        if let (Some(epoll), Some(signals)) = (&epoll, &signals) {
            let _ = epoll.watch(signals.as_raw_fd(), EPOLLIN, SIGNALS);
        }
        let end = event_fd().ok();
        if let (Some(epoll), Some(end)) = (&epoll, &end) {
            let _ = epoll.watch(end.as_raw_fd(), EPOLLIN, END);
        }
        Arc::new(Poller { kernel, epoll, signals, end, queues: Lock::default() })
    }

    /// Makes [`run`](Self::run) return.
    pub(super) fn stop(&self) {
        if let Some(end) = &self.end {
            raise(end.as_fd());
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
                if event.token == SIGNALS {
                    self.forward_signals();
                    continue;
                }
                let queue = self.queues.lock().get(&(event.token as i32)).cloned();
                if let Some(queue) = queue {
                    queue.notify(event.events & 0xffff);
                }
            }
        }
    }

    fn forward_signals(&self) {
        let (Some(fd), Some(kernel)) = (&self.signals, self.kernel.upgrade()) else { return };
        while let Some(signo) = next_signal(fd.as_fd()) {
            let info = SigInfo::kernel(signo);
            let group = {
                let mut tree = kernel.tree.lock();
                let sid = tree.node(INIT).map_or(INIT, |node| node.sid);
                let foreground = tree.session_mut(sid).foreground;
                if foreground == 0 { INIT } else { foreground }
            };
            if FROM_TERMINAL.has(signo) && kernel.signal_process_group(group, info).is_ok() {
                continue;
            }
            if let Some(init) = kernel.process(INIT) {
                let _ = kernel.signal_group(&init, info);
            }
        }
    }
}
