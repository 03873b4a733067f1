//! Interval timers and POSIX timers.
//!
//! Both are entries in the scheduler's queue that send a signal and arm themselves again. Overruns are counted, not
//! queued. CPU-time timers run on the wall clock: they fire no later than Linux's would in a program that does
//! not wait, and early in one that does.

use super::sched::{Action, Expire, TimerId};
use super::signal::{Fields, SIGALRM, SIGPROF, SIGVTALRM, SigInfo, code};
use super::{Current, Kernel, Task, ThreadGroup};
use crate::abi::{Errno, Result};
use crate::sync::Lock;
use crate::time::monotonic_ns;
use core::sync::atomic::{AtomicI32, Ordering};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// Most POSIX timers in a process.
const MAX_TIMERS: usize = 4096;

/// A process's timers.
#[derive(Default)]
pub(super) struct ProcessTimers {
    interval: [Option<Arc<Timer>>; 3],
    posix: BTreeMap<i32, Arc<Timer>>,
    next_id: i32,
}

/// Which signal and to whom.
#[derive(Clone)]
enum Target {
    Process(SigInfo),
    Thread(Weak<Task>, SigInfo),
    Nobody,
}

/// One timer.
struct Timer {
    kernel: Weak<Kernel>,
    group: Weak<ThreadGroup>,
    target: Target,
    clock: i32,
    state: Lock<Armed>,
    overrun: AtomicI32,
    me: Weak<Timer>,
}

#[derive(Default)]
struct Armed {
    id: Option<TimerId>,
    deadline: u64,
    interval: u64,
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
    fn new(kernel: &Arc<Kernel>, group: &Arc<ThreadGroup>, target: Target, clock: i32) -> Arc<Self> {
        Arc::new_cyclic(|me| Timer {
            kernel: Arc::downgrade(kernel),
            group: Arc::downgrade(group),
            target,
            clock,
            state: Lock::default(),
            overrun: AtomicI32::new(0),
            me: me.clone(),
        })
    }

    /// Arms it (deadline in CLOCK_MONOTONIC ns) or disarms it; returns what was left.
    fn set(&self, deadline: Option<u64>, interval: u64) -> TimerValue {
        let Some(kernel) = self.kernel.upgrade() else { return TimerValue::default() };
        let mut state = self.state.lock();
        let old = state.remaining();
        if let Some(id) = state.id.take() {
            kernel.sched.cancel_timer(id);
        }
        self.overrun.store(0, Ordering::Relaxed);
        if let (Some(deadline), Some(me)) = (deadline, self.me.upgrade()) {
            (state.deadline, state.interval) = (deadline, interval);
            state.id = Some(kernel.sched.add_timer(deadline, Action::Expire(me)));
        }
        old
    }
}

impl Armed {
    fn remaining(&self) -> TimerValue {
        match self.id {
            // An armed timer never shows as disarmed, however little is left.
            Some(_) => TimerValue {
                value: self.deadline.saturating_sub(monotonic_ns()).max(1),
                interval: self.interval,
            },
            None => TimerValue::default(),
        }
    }
}

impl Expire for Timer {
    fn expire(&self, now: u64) {
        let Some(kernel) = self.kernel.upgrade() else { return };
        {
            let mut state = self.state.lock();
            if state.id.is_none() || state.deadline > now {
                return;
            }
            state.id = None;
            if let (1.., Some(me)) = (state.interval, self.me.upgrade()) {
                let missed = (now - state.deadline) / state.interval;
                self.overrun.store(i32::try_from(missed).unwrap_or(i32::MAX), Ordering::Relaxed);
                state.deadline += (missed + 1) * state.interval;
                state.id = Some(kernel.sched.add_timer(state.deadline, Action::Expire(me)));
            }
        }
        match &self.target {
            Target::Nobody => {}
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
            *overrun = self.overrun.load(Ordering::Relaxed);
        }
        info
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
                Timer::new(&self.kernel, &group, Target::Process(SigInfo::kernel(signo)), 0)
            })
            .clone()
        };
        let deadline = (new.value != 0).then(|| monotonic_ns().saturating_add(new.value));
        Ok(timer.set(deadline, new.interval))
    }

    /// getitimer(2).
    ///
    /// # Errors
    /// EINVAL.
    pub fn interval_timer(&self, which: usize) -> Result<TimerValue> {
        let timers = self.task.group.timers.lock();
        let timer = timers.interval.get(which).ok_or(Errno::EINVAL)?;
        Ok(timer.as_ref().map_or_else(TimerValue::default, |timer| timer.state.lock().remaining()))
    }

    /// timer_create(2).
    ///
    /// # Errors
    /// EINVAL, EAGAIN.
    pub fn create_timer(&mut self, clock: i32, notify: Option<Notify>) -> Result<i32> {
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
                let task = threads.iter().find(|task| task.tid() == tid).ok_or(Errno::EINVAL)?;
                Target::Thread(Arc::downgrade(task), info(signo, value))
            }
        };
        timers.posix.insert(id, Timer::new(&self.kernel, &group, target, clock));
        Ok(id)
    }

    fn posix_timer(&self, id: i32) -> Result<Arc<Timer>> {
        self.task.group.timers.lock().posix.get(&id).cloned().ok_or(Errno::EINVAL)
    }

    /// The clock a POSIX timer was created for.
    ///
    /// # Errors
    /// EINVAL.
    pub fn timer_clock(&self, id: i32) -> Result<i32> {
        Ok(self.posix_timer(id)?.clock)
    }

    /// timer_settime(2); the deadline is CLOCK_MONOTONIC ns, none disarms.
    ///
    /// # Errors
    /// EINVAL.
    pub fn set_timer(&mut self, id: i32, deadline: Option<u64>, interval: u64) -> Result<TimerValue> {
        Ok(self.posix_timer(id)?.set(deadline, interval))
    }

    /// timer_gettime(2).
    ///
    /// # Errors
    /// EINVAL.
    pub fn timer_value(&self, id: i32) -> Result<TimerValue> {
        let timer = self.posix_timer(id)?;
        let value = timer.state.lock().remaining();
        Ok(value)
    }

    /// timer_getoverrun(2).
    ///
    /// # Errors
    /// EINVAL.
    pub fn timer_overrun(&self, id: i32) -> Result<i32> {
        Ok(self.posix_timer(id)?.overrun.load(Ordering::Relaxed))
    }

    /// timer_delete(2).
    ///
    /// # Errors
    /// EINVAL.
    pub fn delete_timer(&mut self, id: i32) -> Result<()> {
        let timer = self.task.group.timers.lock().posix.remove(&id).ok_or(Errno::EINVAL)?;
        timer.set(None, 0);
        Ok(())
    }

    /// What execve does: POSIX timers go, interval timers stay.
    pub(super) fn delete_posix_timers(&mut self) {
        let timers = core::mem::take(&mut self.task.group.timers.lock().posix);
        for timer in timers.values() {
            timer.set(None, 0);
        }
    }

    /// At the end of the process.
    pub(super) fn delete_all_timers(&mut self) {
        self.delete_posix_timers();
        let timers = core::mem::take(&mut self.task.group.timers.lock().interval);
        for timer in timers.iter().flatten() {
            timer.set(None, 0);
        }
    }
}
