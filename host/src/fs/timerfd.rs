//! timerfd_create(2): timers that are read.

use crate::abi::{Errno, Result};
use crate::kernel::Kernel;
use crate::kernel::sched::{Action, Expire, TimerId};
use crate::mm::IoDst;
use crate::sync::{Lock, WaitQueue};
use crate::vfs::{File, FileOps};
use linux_raw_sys::general as c;
use std::any::Any;
use std::sync::{Arc, Weak};

#[derive(Default)]
struct State {
    timer: Option<TimerId>,
    /// CLOCK_MONOTONIC of the next expiry; 0 when disarmed.
    next: u64,
    interval: u64,
    expirations: u64,
}

/// A timer.
pub struct TimerFd {
    me: Weak<TimerFd>,
    kernel: Weak<Kernel>,
    state: Lock<State>,
    queue: WaitQueue,
    /// The clock it was made for.
    pub clock: u32,
}

/// Time to the next expiry, and between later ones; ns, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// To the next.
    pub value: u64,
    /// Between.
    pub interval: u64,
}

impl TimerFd {
    /// A disarmed timer, open.
    pub fn open(kernel: &Arc<Kernel>, clock: u32, flags: u32) -> Arc<File> {
        let timer = Arc::new_cyclic(|me| TimerFd {
            me: me.clone(),
            kernel: Arc::downgrade(kernel),
            state: Lock::default(),
            queue: WaitQueue::new(),
            clock,
        });
        File::anon(timer, c::O_RDWR | flags & c::O_NONBLOCK)
    }

    /// What is left now.
    pub fn setting(&self) -> Setting {
        let state = self.state.lock();
        let now = crate::time::monotonic_ns();
        let value = if state.next == 0 { 0 } else { state.next.saturating_sub(now).max(1) };
        Setting { value, interval: state.interval }
    }

    /// Arms it for `next` (CLOCK_MONOTONIC ns; 0 disarms) and returns the old setting.
    pub fn set(&self, next: u64, interval: u64) -> Setting {
        let old = self.setting();
        let Some(kernel) = self.kernel.upgrade() else { return old };
        let mut state = self.state.lock();
        if let Some(timer) = state.timer.take() {
            kernel.cancel_timer(timer);
        }
        *state = State { next, interval, ..State::default() };
        if next != 0
            && let Some(me) = self.me.upgrade()
        {
            state.timer = Some(kernel.add_timer(next, Action::Expire(me)));
        }
        old
    }
}

impl Expire for TimerFd {
    fn expire(&self, now: u64) {
        let mut state = self.state.lock();
        if state.next == 0 || now < state.next {
            return;
        }
        state.timer = None;
        // How often it expired since it was due, beyond the first time; an interval of 0 is a one-shot timer.
        match (now - state.next).checked_div(state.interval) {
            None => {
                state.expirations += 1;
                state.next = 0;
            }
            Some(missed) => {
                state.expirations += missed + 1;
                state.next += (missed + 1) * state.interval;
                if let (Some(kernel), Some(me)) = (self.kernel.upgrade(), self.me.upgrade()) {
                    state.timer = Some(kernel.add_timer(state.next, Action::Expire(me)));
                }
            }
        }
        drop(state);
        self.queue.notify(c::POLLIN | c::POLLRDNORM);
    }
}

impl FileOps for TimerFd {
    fn read(&self, dst: &mut IoDst<'_>, _offset: Option<u64>) -> Result<usize> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let count = std::mem::take(&mut self.state.lock().expirations);
        if count == 0 {
            return Err(Errno::EAGAIN);
        }
        dst.write_bytes(&count.to_ne_bytes())
    }

    fn poll(&self) -> u32 {
        if self.state.lock().expirations > 0 { c::POLLIN | c::POLLRDNORM } else { 0 }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn describe(&self) -> String {
        "anon_inode:[timerfd]".to_owned()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for TimerFd {
    fn drop(&mut self) {
        if let (Some(timer), Some(kernel)) = (self.state.get_mut().timer.take(), self.kernel.upgrade()) {
            kernel.cancel_timer(timer);
        }
    }
}
