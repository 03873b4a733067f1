//! Workers for those that the host keeps.
//!
//! A host call that hangs keeps its worker, and the tasks that wait for that. So there are a few workers more than CPUs, and
//! each CPU is a worker's at a time. When the ticker sees one that has not come back from the host for [`HANGS_TICKS`] while
//! tasks wait, it gives its CPU, and its queue, to a *spare* one, which has none. Who comes back from the host and has no
//! CPU any more hands its task to who has, and is a spare one from then on: on one CPU no two tasks ever run at a time,
//! which restartable sequences rely on.
//!
//! There are never more tasks in such calls than workers but one ([`HostLine`] is their way in), so that there is always one
//! that the host cannot keep; and of those that somebody else than the host's kernel answers, or does not, fewer than half of
//! each sort ([`Reach`]). Who comes late waits, and can be killed meanwhile. A program that is killed in a call that it does not come back from has ended for all others
//! ([`Outlives`]): only its memory and files stay until the call returns.
//!
//! A spare's thread is made when it is first needed: the jail lets threads be made, and most sandboxes need none.
//!
//! [`HostLine`]: crate::sync::HostLine

use super::worker::{ATTEND_QUEUE, ATTEND_REST, ATTEND_TIMER, Left, Worker};
use super::{Action, Expire, NEVER, Scheduler};
use crate::abi::{Errno, Result};
use crate::hostsys::futex;
use crate::kernel::Task;
use crate::kernel::task::work;
use crate::sync::{HostCalls, Reach, WaitQueue, Waiter};
use crate::time::{NSEC_PER_MSEC, monotonic_ns};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Workers beyond those that there are CPUs for.
pub const SPARES: usize = 4;
/// Ticks without a switch after which a host call is taken to hang: 10 ms.
pub(super) const HANGS_TICKS: u32 = 5;
/// Who waits for a place in the line looks again after this time.
const LOOK_NS: u64 = 5 * NSEC_PER_MSEC;

/// Starts the thread of a worker; false if it cannot.
pub(in crate::kernel) type Begin = Box<dyn Fn(usize) -> bool + Send + Sync>;

/// How long a task that is to end may be in a host call before it is taken to have ended.
const OUTLIVED_NS: u64 = 20 * NSEC_PER_MSEC;

/// Looks after a task that was in a host call when it was to end.
struct Outlives {
    sched: Arc<Scheduler>,
    task: Arc<Task>,
}

impl Expire for Outlives {
    fn expire(&self, _now: u64) {
        // It is to end whether it has come back meanwhile or not: it runs nothing of its program any more.
        if self.sched.keeps(&self.task)
            && let Some(outlived) = self.sched.outlived.get()
        {
            outlived(&self.task);
        }
    }
}

/// [`Worker::cpu`]: it has none.
pub(super) const NO_CPU: usize = usize::MAX;

/// What the scheduler keeps of spares.
pub(super) struct Spares {
    /// Tasks in host calls that may hang; and those of them that others have to answer.
    inside: AtomicUsize,
    far: AtomicUsize,
    given: AtomicUsize,
    /// One bit per spare that rests.
    resting: AtomicU64,
    /// One bit per spare that has no thread yet; and what there were at first.
    unborn: AtomicU64,
    all: u64,
    begin: OnceLock<Begin>,
}

impl Spares {
    /// Those from `first` on, up to but not including `end`.
    pub(super) fn new(first: usize, end: usize) -> Self {
        let all = (first..end).fold(0, |bits, id| bits | 1 << id);
        Spares {
            inside: AtomicUsize::new(0),
            far: AtomicUsize::new(0),
            given: AtomicUsize::new(0),
            resting: AtomicU64::new(0),
            unborn: AtomicU64::new(all),
            all,
            begin: OnceLock::new(),
        }
    }

    /// How many calls there are of a sort that is bounded by itself.
    fn sort(&self, reach: Reach) -> Option<&AtomicUsize> {
        match reach {
            Reach::Near => None,
            Reach::Far => Some(&self.far),
            Reach::Given => Some(&self.given),
        }
    }

    /// Whether there is one that has ever worked.
    pub(super) fn any(&self) -> bool {
        self.unborn.load(Ordering::SeqCst) != self.all
    }
}

impl HostCalls for Scheduler {
    fn begin(&self, reach: Reach) -> Result<()> {
        if self.this().is_none() {
            return Ok(());
        }
        while !self.find_place(reach) {
            self.wait_in_line()?;
        }
        let Some(worker) = self.this() else { return Ok(()) };
        // Nobody else writes it.
        worker.host_calls.store(worker.host_calls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        worker.in_host.begin();
        // Whoever kills it sees it in here, or is seen.
        if self.is_killed(worker) {
            self.end(reach);
            return Err(Errno::EINTR);
        }
        let attention = worker.attention.load(Ordering::SeqCst);
        if attention & (ATTEND_QUEUE | ATTEND_TIMER) != 0 {
            self.leave_to_others(worker, attention);
        }
        Ok(())
    }

    fn end(&self, reach: Reach) {
        let Some(worker) = self.this() else { return };
        if worker.in_host.end() {
            worker.cpu.store(NO_CPU, Ordering::SeqCst);
            worker.attention.fetch_or(ATTEND_REST, Ordering::SeqCst);
        }
        self.give_place(reach);
    }

    fn wait(&self, queue: &WaitQueue, ready: &mut dyn FnMut() -> bool) -> Result<bool> {
        let mut result = Ok(false);
        self.with_running(|task| {
            let Some(me) = task.arc() else { return };
            let waiter = Waiter::new(me, !0);
            queue.register(&waiter);
            result = loop {
                if ready() {
                    break Ok(true);
                }
                if task.killed() {
                    break Err(Errno::EINTR);
                }
                self.park(task);
            };
            queue.unregister(&waiter);
        });
        result
    }
}

impl Scheduler {
    /// Takes a place among those who make host calls that may hang, if there is one.
    fn find_place(&self, reach: Reach) -> bool {
        let most = self.workers.len() - 1;
        if let Some(sort) = self.spares.sort(reach)
            && sort.fetch_add(1, Ordering::SeqCst) >= (most - 1) / 2
        {
            sort.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        if self.spares.inside.fetch_add(1, Ordering::SeqCst) >= most {
            self.give_place(reach);
            return false;
        }
        true
    }

    fn give_place(&self, reach: Reach) {
        self.spares.inside.fetch_sub(1, Ordering::SeqCst);
        if let Some(sort) = self.spares.sort(reach) {
            sort.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Whether the task on `worker`, the caller's, is to end.
    fn is_killed(&self, worker: &Worker) -> bool {
        let task = NonNull::new(worker.running.load(Ordering::Relaxed));
        // SAFETY: the task that runs on this worker is the caller, whose stack holds a reference to it.
        task.is_some_and(|task| unsafe { task.as_ref() }.killed())
    }

    /// Whether a worker is in a host call that may hang, for `task`.
    fn keeps(&self, task: &Task) -> bool {
        let runs = |worker: &Worker| core::ptr::eq(worker.running.load(Ordering::SeqCst), task);
        task.entity.is_on_worker()
            && self.workers.iter().any(|worker| worker.in_host.is_kept() && runs(worker))
    }

    /// `task` is to end: sees to it that it has for all others, if it is in a host call that it does not come back from.
    pub(in crate::kernel) fn outlive(&self, task: &Task) {
        if self.keeps(task)
            && let (Some(sched), Some(task)) = (self.me.upgrade(), task.arc())
        {
            let waits = Arc::new(Outlives { sched, task });
            self.add_timer(monotonic_ns() + OUTLIVED_NS, Action::Expire(waits));
        }
    }

    /// Says how threads of spares are made. Once.
    pub(in crate::kernel) fn begin_spares_by(&self, begin: Begin) {
        let _second = self.spares.begin.set(begin);
    }

    /// The CPU that programs see tasks of worker `id` run on.
    pub(in crate::kernel) fn cpu_of(&self, id: usize) -> usize {
        match self.workers.get(id).map_or(NO_CPU, |worker| worker.cpu.load(Ordering::Relaxed)) {
            NO_CPU => 0,
            cpu => cpu,
        }
    }

    /// A worker that has a CPU: the one of that number, or of those that there are.
    pub(super) fn worker_of(&self, cpu: usize) -> &Worker {
        let id = self.cpus[cpu % self.regular].load(Ordering::SeqCst);
        &self.workers[id]
    }

    /// Whether `worker`, the caller's, has no CPU.
    #[inline]
    pub(super) fn is_to_rest(&self, worker: &Worker) -> bool {
        worker.cpu.load(Ordering::Relaxed) == NO_CPU
    }

    /// Before user code: has the calling `task` go on where there is a CPU, if there is none here any more, and when it is
    /// its turn again, if it was in a host call when that ended. Whether it was so.
    #[cold]
    pub(in crate::kernel) fn move_to_cpu(&self, task: &Task) -> bool {
        let Some(worker) = self.this() else { return false };
        if self.is_to_rest(worker) {
            self.leave(task, Left::Yielded);
            return true;
        }
        let over = worker.is_turn_over();
        if over {
            self.yield_now(task);
        }
        over
    }

    /// Rests, in the idle loop of a worker without a CPU, until it has one.
    #[cold]
    pub(super) fn rest(&self, worker: &Worker) {
        if worker.slice.ended() {
            self.platform.cancel_kick(worker.id);
        }
        worker.attention.fetch_and(!ATTEND_REST, Ordering::SeqCst);
        while let Some(task) = worker.pop() {
            self.worker_of(0).push(task, false);
        }
        worker.sleeping.store(1, Ordering::SeqCst);
        self.spares.resting.fetch_or(1 << worker.id, Ordering::SeqCst);
        // Whoever has woken this one for them believes them looked after.
        if self.anything_queued() && !self.wake_idle() {
            self.ticker_tick();
        }
        self.timers_to_ticker();
        while worker.sleeping.load(Ordering::SeqCst) == 1 {
            futex::wait(&worker.sleeping, 1, None);
        }
    }

    /// For the ticker: whether `worker` is in a host call that may hang.
    pub(super) fn is_kept(&self, worker: &Worker) -> bool {
        worker.in_host.is_kept()
    }

    /// For the ticker: `worker` is not going to come back soon.
    pub(super) fn replace(&self, worker: &Worker) {
        let cpu = worker.cpu.load(Ordering::SeqCst);
        let resting = self.spares.resting.load(Ordering::SeqCst);
        if cpu == NO_CPU || !worker.in_host.is_replaceable() {
            return;
        }
        if resting == 0 {
            // It rests, and is seen to, at the next look.
            return self.bear();
        }
        let id = resting.trailing_zeros() as usize;
        let spare = &self.workers[id];
        if !worker.in_host.replace() {
            return;
        }
        // Only the ticker takes them; they come back by themselves.
        self.spares.resting.fetch_and(!(1 << id), Ordering::SeqCst);
        spare.cpu.store(cpu, Ordering::SeqCst);
        self.cpus[cpu].store(id, Ordering::SeqCst);
        while let Some(task) = worker.steal() {
            spare.push(task, false);
        }
        spare.sleeping.store(0, Ordering::SeqCst);
        futex::wake(&spare.sleeping, 1);
    }

    /// Makes a spare's thread, if one has none.
    fn bear(&self) {
        let unborn = self.spares.unborn.load(Ordering::SeqCst);
        let Some(begin) = self.spares.begin.get() else { return };
        if unborn != 0 && begin(unborn.trailing_zeros() as usize) {
            self.spares.unborn.fetch_and(unborn - 1, Ordering::SeqCst);
        }
    }

    /// Before a call that may hang: sees to it that somebody looks after what this worker would.
    #[cold]
    fn leave_to_others(&self, worker: &Worker, attention: u32) {
        if attention & ATTEND_TIMER != 0 {
            worker.attention.fetch_and(!ATTEND_TIMER, Ordering::SeqCst);
            self.timers_to_ticker();
        }
        if attention & ATTEND_QUEUE != 0 && !self.ticker.is_ticking() {
            self.ticker_tick();
        }
    }

    /// Has the ticker look after the next timer, unless somebody does.
    fn timers_to_ticker(&self) {
        let next = self.timers.next();
        if next != NEVER && self.timer_is_unattended(next) {
            self.ticker_look_at(next);
        }
    }

    /// Waits for a place among those who may make host calls that hang.
    #[cold]
    fn wait_in_line(&self) -> Result<()> {
        let mut result = Ok(());
        self.with_running(|task| result = self.wait_a_little(task));
        result
    }

    fn wait_a_little(&self, task: &Task) -> Result<()> {
        if task.work.load(Ordering::Relaxed) & work::KILL != 0 {
            return Err(Errno::EINTR);
        }
        let Some(me) = task.arc() else { return Ok(()) };
        let timer = self.add_timer(monotonic_ns() + LOOK_NS, Action::Wake(me));
        self.park(task);
        self.cancel_timer(timer);
        Ok(())
    }
}
