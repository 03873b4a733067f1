//! Interval timers and POSIX timers.
//!
//! Both are entries in the scheduler's queue that send a signal and arm themselves again. Overruns are counted, not
//! queued. So is RLIMIT_CPU, which nobody sees as a timer.
//!
//! Nothing counts down CPU time. A timer of that kind looks at the clock when it could be time at the earliest, and again
//! when the rest could have passed; less and less often while the clock stands still, so that a program that waits is left
//! alone. It is late by [`LATEST`] at most. All CPU time counts as user time.

use super::limits::{CPU, INFINITY};
use super::namespaces::time::Shifted;
use super::sched::{Action, Expire, TimerId};
use super::signal::{Fields, SIGALRM, SIGKILL, SIGPROF, SIGVTALRM, SIGXCPU, SigInfo, code};
use super::{Current, Kernel, Task, ThreadGroup};
use crate::abi::{Errno, Result};
use crate::sync::{Lock, Rank};
use crate::time::{Given, NSEC_PER_SEC, monotonic_ns, realtime_offset_ns};
use core::sync::atomic::{AtomicI32, Ordering};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// How soon, and how late, a CPU-time clock is looked at again, ns.
const SOONEST: u64 = 200_000;
const LATEST: u64 = 50_000_000;

/// Most POSIX timers in a process.
const MAX_TIMERS: usize = 4096;

/// A process's timers.
#[derive(Default)]
pub(super) struct ProcessTimers {
    interval: [Option<Arc<Timer>>; 3],
    posix: BTreeMap<i32, Arc<Timer>>,
    cpu_limit: Option<Arc<Timer>>,
    next_id: i32,
}

/// Which signal and to whom.
#[derive(Clone)]
enum Target {
    Process(SigInfo),
    Thread(Weak<Task>, SigInfo),
    /// The process, which has used up RLIMIT_CPU.
    CpuLimit,
    Nobody,
}

/// What a timer goes by.
#[derive(Clone)]
pub enum TimerClock {
    /// Time that passes, in CLOCK_MONOTONIC ns; moments are the owner's.
    Wall(Shifted),
    /// The same, but moments are CLOCK_REALTIME's.
    Realtime,
    /// CPU time of a process.
    Process(Weak<ThreadGroup>),
    /// CPU time of a thread.
    Thread(Weak<Task>),
}

impl TimerClock {
    /// What it shows; a clock whose owner is gone stands still.
    pub fn now(&self) -> u64 {
        match self {
            TimerClock::Wall(_) | TimerClock::Realtime => monotonic_ns(),
            TimerClock::Process(group) => group.upgrade().map_or(0, |group| group.usage().cpu_ns),
            TimerClock::Thread(task) => task.upgrade().map_or(0, |task| task.cpu_ns()),
        }
    }

    /// How long it takes at least to show `left` more.
    pub fn soonest(&self, left: u64, workers: usize) -> u64 {
        match self {
            TimerClock::Wall(_) | TimerClock::Realtime => left,
            TimerClock::Process(_) => (left / workers.max(1) as u64).max(SOONEST),
            TimerClock::Thread(_) => left.max(SOONEST),
        }
    }
}

/// When a timer is to fire.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// Not at all.
    Never,
    /// So many ns from now.
    After(u64),
    /// When its clock shows that.
    At(u64),
}

/// One timer.
struct Timer {
    kernel: Weak<Kernel>,
    group: Weak<ThreadGroup>,
    target: Target,
    clock: TimerClock,
    state: Lock<Armed>,
    /// Expiries beyond the one that the signal that was delivered last stood for.
    overrun: AtomicI32,
    /// Those of the signal that is about to be sent.
    missed: AtomicI32,
    me: Weak<Timer>,
}

#[derive(Default)]
struct Armed {
    id: Option<TimerId>,
    /// In its clock's ns.
    deadline: u64,
    interval: u64,
    /// For CPU time: when the clock is looked at next, in CLOCK_MONOTONIC ns; what it showed, and for how long it has.
    check: u64,
    seen: u64,
    still: u64,
}

/// Time until a timer fires (0: disarmed) and its interval, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerValue {
    /// Until it fires.
    pub value: u64,
    /// Between later ones; 0 for once.
    pub interval: u64,
}

/// How a POSIX timer tells.
#[derive(Clone, Copy, Debug)]
pub enum Notify {
    /// Not at all.
    None,
    /// By a signal to the process.
    Signal(i32, u64),
    /// By a signal to a thread.
    Thread(i32, u64, i32),
}

impl Timer {
    fn new(kernel: &Arc<Kernel>, group: &Arc<ThreadGroup>, target: Target, clock: TimerClock) -> Arc<Self> {
        Arc::new_cyclic(|me| Timer {
            kernel: Arc::downgrade(kernel),
            group: Arc::downgrade(group),
            target,
            clock,
            state: Lock::new(Rank::PosixTimer, Armed::default()),
            overrun: AtomicI32::new(0),
            missed: AtomicI32::new(0),
            me: me.clone(),
        })
    }

    /// Arms or disarms it; returns what was left.
    fn set(&self, when: When, interval: u64) -> TimerValue {
        let Some(kernel) = self.kernel.upgrade() else { return TimerValue::default() };
        let now = self.clock.now();
        let mut state = self.state.lock();
        let old = state.remaining(now);
        if let Some(id) = state.id.take() {
            kernel.sched.cancel_timer(id);
        }
        self.overrun.store(0, Ordering::Relaxed);
        let deadline = match when {
            When::Never => return old,
            When::After(ns) => Given::from_ns(ns).after(now),
            When::At(at) if matches!(self.clock, TimerClock::Realtime) => {
                at.saturating_sub(realtime_offset_ns())
            }
            When::At(at) => match (&self.clock, self.group.upgrade()) {
                (TimerClock::Wall(clock), Some(group)) => group.shifts.outside(*clock, at),
                _ => at,
            },
        };
        (state.deadline, state.interval, state.seen, state.still) = (deadline, interval, now, 0);
        self.arm(&kernel, &mut state, now, 0);
        old
    }

    /// Enters it in the scheduler's queue; its clock shows `now`, and it is not looked at before `earliest`.
    fn arm(&self, kernel: &Kernel, state: &mut Armed, now: u64, earliest: u64) {
        let Some(me) = self.me.upgrade() else { return };
        state.check = match self.clock {
            TimerClock::Wall(_) | TimerClock::Realtime => state.deadline.max(earliest),
            _ => {
                let left = state.deadline.saturating_sub(now);
                let delay = if left == 0 {
                    0
                } else {
                    self.clock.soonest(left, kernel.sched.worker_count()).max(state.still)
                };
                monotonic_ns().saturating_add(delay)
            }
        };
        state.id = Some(kernel.sched.add_timer(state.check, Action::Expire(me)));
    }

    fn remaining(&self) -> TimerValue {
        let now = self.clock.now();
        self.state.lock().remaining(now)
    }
}

impl Armed {
    fn remaining(&self, now: u64) -> TimerValue {
        match self.id {
            // An armed timer never shows as disarmed, however little is left.
            Some(_) => {
                TimerValue { value: self.deadline.saturating_sub(now).max(1), interval: self.interval }
            }
            None => TimerValue::default(),
        }
    }
}

impl Expire for Timer {
    fn expire(&self, wall: u64) {
        let Some(kernel) = self.kernel.upgrade() else { return };
        let now = match self.clock {
            TimerClock::Wall(_) | TimerClock::Realtime => wall,
            _ => self.clock.now(),
        };
        {
            let mut state = self.state.lock();
            if state.id.is_none() || state.check > wall {
                return;
            }
            if let Some(id) = state.id.take() {
                kernel.sched.cancel_timer(id);
            }
            if state.deadline > now {
                // The longer a clock stands still, the longer it is left alone.
                let still = if state.seen == now { (state.still * 2).clamp(SOONEST, LATEST) } else { 0 };
                (state.seen, state.still) = (now, still);
                return self.arm(&kernel, &mut state, now, 0);
            }
            if let Some((missed, next)) = Given::from_ns(state.interval).periods(state.deadline, now) {
                self.missed.store(i32::try_from(missed).unwrap_or(i32::MAX), Ordering::Relaxed);
                state.deadline = next;
                self.arm(&kernel, &mut state, now, kernel.sched.again(0, wall));
            }
        }
        match &self.target {
            Target::Nobody => {}
            Target::CpuLimit => self.cpu_limit_reached(&kernel, now),
            Target::Process(info) => {
                if let Some(group) = self.group.upgrade() {
                    let _ = kernel.signal_group(&group, self.with_overrun(*info));
                }
            }
            Target::Thread(task, info) => {
                if let Some(task) = task.upgrade() {
                    let _ = kernel.signal_task(&task, self.with_overrun(*info));
                }
            }
        }
    }
}

impl Timer {
    fn with_overrun(&self, mut info: SigInfo) -> SigInfo {
        if let Fields::Timer { overrun, .. } = &mut info.fields {
            *overrun = self.missed.swap(0, Ordering::Relaxed);
        }
        info
    }

    /// SIGXCPU once a second from the soft limit on, SIGKILL at the hard one (setrlimit(2)).
    fn cpu_limit_reached(&self, kernel: &Kernel, used: u64) {
        let Some(group) = self.group.upgrade() else { return };
        let limit = {
            let mut limits = group.limits.lock();
            let Ok(mut limit) = limits.of(CPU) else { return };
            let seconds = used / NSEC_PER_SEC;
            if seconds < limit.hard {
                // As Linux does it, for all to see.
                limit.soft = (seconds + 1).min(limit.hard);
                let _ = limits.set(CPU, limit, false);
            }
            limit
        };
        let signo = if used / NSEC_PER_SEC >= limit.hard { SIGKILL } else { SIGXCPU };
        let _ = kernel.signal_group(&group, SigInfo::kernel(signo));
        if signo == SIGXCPU {
            self.set(When::At(limit.soft.saturating_mul(NSEC_PER_SEC)), 0);
        }
    }
}

impl Kernel {
    /// Watches over a process's RLIMIT_CPU, which has been set or inherited.
    pub fn watch_cpu_limit(self: &Arc<Self>, group: &Arc<ThreadGroup>) {
        let soft = group.limits.lock().soft(CPU);
        let timer = {
            let mut timers = group.timers.lock();
            if soft == INFINITY && timers.cpu_limit.is_none() {
                return;
            }
            let clock = || TimerClock::Process(Arc::downgrade(group));
            timers.cpu_limit.get_or_insert_with(|| Timer::new(self, group, Target::CpuLimit, clock())).clone()
        };
        // A limit of 0 means one second.
        let at = When::At(soft.max(1).saturating_mul(NSEC_PER_SEC));
        timer.set(if soft == INFINITY { When::Never } else { at }, 0);
    }
}

impl Current {
    /// setitimer(2); `which` is ITIMER_*.
    ///
    /// # Errors
    /// EINVAL.
    pub fn set_interval_timer(&mut self, which: usize, new: TimerValue) -> Result<TimerValue> {
        let signo = *[SIGALRM, SIGVTALRM, SIGPROF].get(which).ok_or(Errno::EINVAL)?;
        let group = self.task.group.clone();
        let timer = {
            let mut timers = group.timers.lock();
            let slot = &mut timers.interval[which];
            match slot {
                None if new.value == 0 => return Ok(TimerValue::default()),
                _ => {}
            }
            slot.get_or_insert_with(|| {
                let clock = match signo {
                    SIGALRM => TimerClock::Wall(Shifted::Monotonic),
                    _ => TimerClock::Process(Arc::downgrade(&group)),
                };
                Timer::new(&self.kernel, &group, Target::Process(SigInfo::kernel(signo)), clock)
            })
            .clone()
        };
        Ok(timer.set(if new.value == 0 { When::Never } else { When::After(new.value) }, new.interval))
    }

    /// getitimer(2).
    ///
    /// # Errors
    /// EINVAL.
    pub fn interval_timer(&self, which: usize) -> Result<TimerValue> {
        // What is left may be a matter of the process's CPU time, which is asked for without this lock.
        let timer = self.task.group.timers.lock().interval.get(which).ok_or(Errno::EINVAL)?.clone();
        Ok(timer.as_ref().map_or_else(TimerValue::default, |timer| timer.remaining()))
    }

    /// timer_create(2).
    ///
    /// # Errors
    /// EINVAL, EAGAIN.
    pub fn create_timer(&mut self, clock: TimerClock, notify: Option<Notify>) -> Result<i32> {
        let group = self.task.group.clone();
        let threads = group.threads();
        let mut timers = group.timers.lock();
        if timers.posix.len() >= MAX_TIMERS {
            return Err(Errno::EAGAIN);
        }
        let id = timers.next_id;
        timers.next_id = timers.next_id.wrapping_add(1).max(0);
        let info = |signo, value| SigInfo {
            signo,
            errno: 0,
            code: code::SI_TIMER,
            fields: Fields::Timer { id, overrun: 0, value },
        };
        let target = match notify.unwrap_or(Notify::Signal(SIGALRM, id as u64)) {
            Notify::None => Target::Nobody,
            Notify::Signal(signo, value) => Target::Process(info(signo, value)),
            Notify::Thread(signo, value, tid) => {
                let task = threads.iter().find(|task| task.number() == tid).ok_or(Errno::EINVAL)?;
                Target::Thread(Arc::downgrade(task), info(signo, value))
            }
        };
        timers.posix.insert(id, Timer::new(&self.kernel, &group, target, clock));
        Ok(id)
    }

    fn posix_timer(&self, id: i32) -> Result<Arc<Timer>> {
        self.task.group.timers.lock().posix.get(&id).cloned().ok_or(Errno::EINVAL)
    }

    /// timer_settime(2).
    ///
    /// # Errors
    /// EINVAL.
    pub fn set_timer(&mut self, id: i32, when: When, interval: u64) -> Result<TimerValue> {
        let timer = self.posix_timer(id)?;
        let old = timer.set(when, interval);
        // A moment that has passed is now, not when a worker next looks.
        timer.expire(monotonic_ns());
        Ok(old)
    }

    /// timer_gettime(2).
    ///
    /// # Errors
    /// EINVAL.
    pub fn timer_value(&self, id: i32) -> Result<TimerValue> {
        Ok(self.posix_timer(id)?.remaining())
    }

    /// timer_getoverrun(2).
    ///
    /// # Errors
    /// EINVAL.
    pub fn timer_overrun(&self, id: i32) -> Result<i32> {
        Ok(self.posix_timer(id)?.overrun.load(Ordering::Relaxed))
    }

    /// Notes what a signal that is being delivered says of its timer, if one of the process's timers sent it.
    pub(super) fn note_overrun(&self, info: &SigInfo) {
        if let Fields::Timer { id, overrun, .. } = info.fields
            && let Some(timer) = self.task.group.timers.lock().posix.get(&id)
        {
            timer.overrun.store(overrun, Ordering::Relaxed);
        }
    }

    /// timer_delete(2).
    ///
    /// # Errors
    /// EINVAL.
    pub fn delete_timer(&mut self, id: i32) -> Result<()> {
        let timer = self.task.group.timers.lock().posix.remove(&id).ok_or(Errno::EINVAL)?;
        timer.set(When::Never, 0);
        Ok(())
    }

    /// What execve does: POSIX timers go, interval timers stay.
    pub(super) fn delete_posix_timers(&self) {
        self.task.group.delete_posix_timers();
    }
}

impl ThreadGroup {
    fn delete_posix_timers(&self) {
        let timers = core::mem::take(&mut self.timers.lock().posix);
        for timer in timers.values() {
            timer.set(When::Never, 0);
        }
    }

    /// At the end of the process.
    pub(super) fn delete_all_timers(&self) {
        self.delete_posix_timers();
        let timers = core::mem::take(&mut *self.timers.lock());
        for timer in timers.interval.iter().chain([&timers.cpu_limit]).flatten() {
            timer.set(When::Never, 0);
        }
    }
}
