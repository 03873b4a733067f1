//! epoll(7), signalfd(2) and the signal mask of host threads.

use super::fd::{HostFd, What};
use super::syscall;
use crate::abi::{Errno, Result};

/// Bytes in the kernel's `sigset_t`.
const SIGSET_SIZE: u64 = 8;

/// One event: what happened, and the number that the watch was added with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `EPOLL*` bits, which equal `POLL*` for the low ones.
    pub events: u32,
    /// The watch.
    pub token: u64,
}

/// An epoll instance.
pub struct Epoll(HostFd);

impl Epoll {
    /// Creates one.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn new() -> Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { syscall(libc::SYS_epoll_create1, [libc::EPOLL_CLOEXEC as u64, 0, 0, 0, 0, 0]) }?;
        HostFd::new(fd, What::Made("epoll")).map(Epoll)
    }

    /// Watches `fd` for `events`, once if they hold EPOLLONESHOT; replaces an earlier watch of the same descriptor.
    ///
    /// # Errors
    /// EPERM for what cannot be polled (regular files), ENOMEM, ENOSPC.
    pub fn watch(&self, fd: i32, events: u32, token: u64) -> Result<()> {
        match self.control(libc::EPOLL_CTL_ADD, fd, events, token) {
            Err(Errno::EEXIST) => self.control(libc::EPOLL_CTL_MOD, fd, events, token),
            other => other,
        }
    }

    /// Stops watching.
    pub fn unwatch(&self, fd: i32) {
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, 0);
    }

    fn control(&self, op: i32, fd: i32, events: u32, token: u64) -> Result<()> {
        let mut event = libc::epoll_event { events, u64: token };
        let args = [self.0.raw() as u64, op as u64, fd as u64, &raw mut event as u64, 0, 0];
        // SAFETY: `event` is valid for the read.
        unsafe { syscall(libc::SYS_epoll_ctl, args) }.map(|_| ())
    }

    /// Sleeps until something happens.
    pub fn wait(&self, events: &mut Vec<Event>) {
        let mut raw = [libc::epoll_event { events: 0, u64: 0 }; 32];
        let args = [self.0.raw() as u64, raw.as_mut_ptr() as u64, raw.len() as u64, u64::MAX, 0, SIGSET_SIZE];
        // SAFETY: `raw` is valid for the writes; no signal mask is passed.
        let count = unsafe { syscall(libc::SYS_epoll_pwait, args) }.unwrap_or(0) as usize;
        events.clear();
        events.extend(raw[..count].iter().map(|event| Event { events: event.events, token: event.u64 }));
    }
}

/// Blocks the signals in `mask` (bit n-1 is signal n) in the calling thread and those it creates from now on.
pub fn block_signals(mask: u64) {
    change_mask(libc::SIG_BLOCK, mask);
}

/// Lets the calling thread have the signals in `mask`.
pub fn unblock_signals(mask: u64) {
    change_mask(libc::SIG_UNBLOCK, mask);
}

fn change_mask(how: i32, mask: u64) {
    let args = [how as u64, &raw const mask as u64, 0, SIGSET_SIZE, 0, 0];
    // SAFETY: `mask` is valid for the read.
    let _ = unsafe { syscall(libc::SYS_rt_sigprocmask, args) };
}

/// A descriptor that signals in `mask` can be read from, non-blocking.
///
/// # Errors
/// EMFILE, ENOMEM.
pub fn signal_fd(mask: u64) -> Result<HostFd> {
    let flags = (libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) as u64;
    // SAFETY: `mask` is valid for the read.
    let fd = unsafe {
        syscall(libc::SYS_signalfd4, [u64::MAX, &raw const mask as u64, SIGSET_SIZE, flags, 0, 0])
    }?;
    HostFd::new(fd, What::Made("signals"))
}

/// The next signal's number from a [`signal_fd`].
pub fn next_signal(fd: &HostFd) -> Option<i32> {
    let mut info = [0u32; 32];
    let args = [fd.raw() as u64, info.as_mut_ptr() as u64, size_of_val(&info) as u64, 0, 0, 0];
    // SAFETY: `info` is valid for the write.
    let read = unsafe { syscall(libc::SYS_read, args) }.ok()?;
    (read as usize == size_of_val(&info)).then_some(info[0] as i32)
}

/// A descriptor that becomes readable by [`raise`].
///
/// # Errors
/// EMFILE, ENOMEM.
pub fn event_fd() -> Result<HostFd> {
    let flags = (libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) as u64;
    // SAFETY: no pointers.
    let fd = unsafe { syscall(libc::SYS_eventfd2, [0, flags, 0, 0, 0, 0]) }?;
    HostFd::new(fd, What::Made("event"))
}

/// Makes an [`event_fd`] unreadable again.
pub fn lower(fd: &HostFd) {
    let mut count = 0u64;
    // SAFETY: `count` is valid for the write.
    let _ = unsafe { syscall(libc::SYS_read, [fd.raw() as u64, &raw mut count as u64, 8, 0, 0, 0]) };
}

/// Makes an [`event_fd`] readable, until it is [lowered](lower).
pub fn raise(fd: &HostFd) {
    let one = 1u64;
    // SAFETY: `one` is valid for the read.
    let _ = unsafe { syscall(libc::SYS_write, [fd.raw() as u64, &raw const one as u64, 8, 0, 0, 0]) };
}
