//! timerfd_create(2): timers that are read.

use crate::abi::{Errno, Result};
use crate::kernel::Kernel;
use crate::kernel::sched::{Action, Expire, TimerId};
use crate::mm::IoDst;
use crate::sync::{Lock, Rank, WaitQueue};
use crate::time::{Given, NSEC_PER_SEC};
use crate::vfs::{File, FileOps, Whence};
use linux_raw_sys::general as c;
use std::any::Any;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

#[derive(Default)]
struct State {
    timer: Option<TimerId>,
    /// CLOCK_MONOTONIC of the next expiry; 0 when disarmed.
    next: u64,
    interval: u64,
    expirations: u64,
    /// It expired at `next`, and nobody has asked since: only then it is armed for the time after. Nobody misses anything
    /// (what it has missed is counted), and whatever the interval is, one who does not look costs nothing (as on Linux).
    resting: bool,
}

impl State {
    /// Counts how often it would have expired since it rests, and says when it is to expire next.
    fn rested(&mut self, now: u64) -> Option<u64> {
        if !std::mem::take(&mut self.resting) {
            return None;
        }
        let (missed, next) = Given::from_ns(self.interval).periods(self.next, now)?;
        self.expirations = self.expirations.saturating_add(missed);
        self.next = next;
        Some(next)
    }
}

/// A timer.
pub struct TimerFd {
    bell: Arc<Bell>,
    kernel: Weak<Kernel>,
    state: Lock<State>,
    queue: WaitQueue,
    /// The clock it was made for.
    pub clock: u32,
    /// TFD_TIMER_* of the last setting.
    pub flags: AtomicU32,
}

/// What expires for a timer: armed, it does not keep the timer from going.
struct Bell(Weak<TimerFd>);

impl Expire for Bell {
    fn expire(&self, now: u64) {
        if let Some(timer) = self.0.upgrade() {
            timer.expire(now);
        }
    }
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
            bell: Arc::new(Bell(me.clone())),
            kernel: Arc::downgrade(kernel),
            state: Lock::new(Rank::TimerFd, State::default()),
            queue: WaitQueue::new(),
            clock,
            flags: AtomicU32::new(0),
        });
        File::anon(timer, c::O_RDWR | flags & c::O_NONBLOCK)
    }

    /// What is left now.
    pub fn setting(&self) -> Setting {
        let mut state = self.state.lock();
        let now = crate::time::monotonic_ns();
        self.wake(&mut state, now);
        let value = if state.next == 0 { 0 } else { state.next.saturating_sub(now).max(1) };
        Setting { value, interval: state.interval }
    }

    /// Arms it again if it rests.
    fn wake(&self, state: &mut State, now: u64) {
        if let Some(next) = state.rested(now)
            && let Some(kernel) = self.kernel.upgrade()
        {
            state.timer = Some(kernel.add_timer(next, Action::Expire(self.bell.clone())));
        }
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
        if next != 0 {
            state.timer = Some(kernel.add_timer(next, Action::Expire(self.bell.clone())));
        }
        drop(state);
        // What was due before is due now: whoever looks next finds it so.
        self.expire(crate::time::monotonic_ns());
        old
    }
}

impl TimerFd {
    fn expire(&self, now: u64) {
        let mut state = self.state.lock();
        if state.next == 0 || state.resting || now < state.next {
            return;
        }
        if let (Some(timer), Some(kernel)) = (state.timer.take(), self.kernel.upgrade()) {
            kernel.cancel_timer(timer);
        }
        state.expirations = state.expirations.saturating_add(1);
        // An interval of 0 is a one-shot timer.
        if state.interval == 0 {
            state.next = 0;
        } else {
            state.resting = true;
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
        let count = {
            let mut state = self.state.lock();
            self.wake(&mut state, crate::time::monotonic_ns());
            std::mem::take(&mut state.expirations)
        };
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

    fn fdinfo(&self) -> String {
        let ticks = self.state.lock().expirations;
        let Setting { value, interval } = self.setting();
        let split = |ns: u64| format!("({}, {})", ns / NSEC_PER_SEC, ns % NSEC_PER_SEC);
        let flags = self.flags.load(Ordering::Relaxed);
        format!(
            "clockid: {}\nticks: {ticks}\nsettime flags: 0{flags:o}\nit_value: {}\nit_interval: {}\n",
            self.clock,
            split(value),
            split(interval),
        )
    }

    fn seek(&self, pos: u64, _offset: i64, _whence: Whence) -> Result<u64> {
        Ok(pos)
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
