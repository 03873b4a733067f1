//! Which task runs on which worker.
//!
//! Tasks are stackful: a switch between two of them is a few dozen instructions and involves neither the host nor
//! another worker. A woken task goes to the front of its waker's queue, because the waker usually parks next
//! (a pipe, a futex, a wait): two tasks that talk to each other stay on one worker. Waking a sleeping worker costs a host
//! call (in a VM, an exit of thousands of instructions), so it is done only for work that is seen to wait:
//!
//! * a second task is queued, or one has waited for [`PATIENCE_NS`] when its worker enters user code: at most
//!   one host wake per that time;
//! * a worker stays in user code while tasks wait for it: the platform kicks it after a time slice, or sooner where a
//!   worker is idle, if it can do that by itself (a VM's own timer). Else the *ticker*, a host thread that sleeps without
//!   a timeout unless some worker entered user code with a non-empty queue, wakes an idle worker at the next tick, or, if
//!   none is idle, kicks the busy one after its slice.
//!
//! Idle workers sleep on a futex; one of them until the next timer is due. If a timer is armed and no worker sleeps, the
//! ticker sleeps that long. So an idle sandbox makes no wakeups at all, and a busy one without contention
//! makes none but its timers'.
//!
//! Locks: a worker's queue and the timer queue are leaves; nothing is called with either held.

mod in_host;
mod pause;
mod slice;
mod spare;
mod state;
mod switch;
mod ticker;
mod timers;
mod worker;

use super::Task;
use crate::arch::counter;
use crate::hostsys::futex;
use crate::platform::{Platform, local};
use crate::time::{NSEC_PER_MSEC, NSEC_PER_SEC, monotonic_ns};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use spare::Spares;
use std::sync::{Arc, OnceLock, Weak};
use ticker::{SLICE_NS, TICK_NS, Ticker};
use worker::{ATTEND_MEMORY, ATTEND_QUEUE, ATTEND_TIMER};

pub use spare::SPARES;
pub(super) use switch::Entity;
pub use timers::{Action, Expire, NEVER, TimerId, Timers};
pub use worker::Worker;

/// How long a queued task waits before an idle worker is woken for it.
const PATIENCE_NS: u64 = 50_000;
/// Where the platform ends time slices they are longer while few wait: in this time each has had one, if [`SLICE_NS`] are
/// enough for that. (Of two tasks one waits 10 ms at most, about as long as with Linux.)
const ROUND_NS: u64 = 20 * NSEC_PER_MSEC;
/// How old a time slice may be that goes on for the next task.
const OLD_SLICE_NS: u64 = SLICE_NS / 4;
/// The time slice of a task for which many wait, ns: what sched_rr_get_interval(2) says.
pub const TIME_SLICE_NS: u64 = SLICE_NS;
/// Idle workers are a bit mask.
const MAX_WORKERS: usize = 64;

/// The scheduler of one sandbox.
pub struct Scheduler {
    platform: Arc<dyn Platform>,
    workers: Box<[Worker]>,
    /// How many of them have a CPU, and which.
    regular: usize,
    cpus: Box<[AtomicUsize]>,
    spares: Spares,
    /// One bit per sleeping worker that nobody has claimed for waking.
    idle: AtomicU64,
    timers: Timers,
    /// When a sleeping worker will look at the timers by itself; [`NEVER`] when none will.
    keeper_until: AtomicU64,
    ticker: Ticker,
    /// Counter ticks after which a time slice is not the next task's.
    old_slice: u64,
    /// Time of the last wake of an idle worker.
    last_wake: AtomicU64,
    /// Where work from outside goes when nobody is idle.
    next_victim: AtomicUsize,
    /// Makes room in memory for a task.
    relief: OnceLock<Relief>,
    /// Takes a task out of its process.
    outlived: OnceLock<Outlived>,
    /// For the ticker thread.
    me: Weak<Scheduler>,
}

/// What a task does about memory that is short.
type Relief = Box<dyn Fn(&Task) + Send + Sync>;
/// What becomes of a task that is to end and does not come back from the host.
type Outlived = Box<dyn Fn(&Arc<Task>) + Send + Sync>;

impl Scheduler {
    /// A scheduler for `workers` workers (at least one, at most 60) and some spare ones, none of them running yet.
    pub(super) fn new(platform: Arc<dyn Platform>, workers: usize) -> Arc<Self> {
        let regular = workers.clamp(1, MAX_WORKERS - SPARES);
        let count = regular + SPARES;
        let workers: Box<[Worker]> = (0..count).map(Worker::new).collect();
        (0..regular).for_each(|id| workers[id].cpu.store(id, Ordering::Relaxed));
        Arc::new_cyclic(|me| Scheduler {
            me: me.clone(),
            platform,
            workers,
            regular,
            cpus: (0..regular).map(AtomicUsize::new).collect(),
            spares: Spares::new(regular, count),
            idle: AtomicU64::new(0),
            timers: Timers::new(),
            keeper_until: AtomicU64::new(NEVER),
            ticker: Ticker::new(),
            old_slice: counter::frequency().unwrap_or(0) / (NSEC_PER_SEC / OLD_SLICE_NS),
            last_wake: AtomicU64::new(0),
            relief: OnceLock::new(),
            outlived: OnceLock::new(),
            next_victim: AtomicUsize::new(0),
        })
    }

    /// How many workers there are, spares not counted: as many CPUs programs see.
    pub fn worker_count(&self) -> usize {
        self.regular
    }

    /// The worker that the caller runs on; none on other host threads. Not to be kept across a park.
    #[inline]
    pub(super) fn this(&self) -> Option<&Worker> {
        self.workers.get(local::get().wrapping_sub(1))
    }

    /// The CPU that programs see the caller run on at the moment.
    pub fn current_cpu(&self) -> usize {
        self.cpu_of(local::get().wrapping_sub(1))
    }

    /// Orders memory on all CPUs that run this sandbox (membarrier(2)).
    pub fn barrier(&self) {
        core::sync::atomic::fence(Ordering::SeqCst);
        if self.regular > 1 || self.spares.any() {
            crate::hostsys::process::memory_barrier();
        }
    }

    /// Task switches on all workers so far.
    pub fn switches(&self) -> u64 {
        self.workers.iter().map(|worker| worker.switches.load(Ordering::Relaxed)).sum()
    }

    /// The body of worker `id`, inside `Platform::run_worker`. It ends with the process.
    pub(super) fn work(&self, id: usize) {
        local::set(id + 1);
        let Some(worker) = self.this() else { return };
        loop {
            if self.is_to_rest(worker) {
                self.rest(worker);
                continue;
            }
            match self.next_task(worker) {
                Some(task) => self.enter(worker, task),
                None => self.sleep(worker),
            }
        }
    }

    /// Whether the caller runs on worker `id`.
    pub(super) fn is_current(&self, id: usize) -> bool {
        local::get() == id + 1
    }

    /// Asks the platform to bring worker `id` back, to do something else than going on with its task.
    fn kick(&self, id: usize) {
        self.platform.kick(id);
    }

    /// Asks the platform to bring worker `id` out of user code; the caller has set work bits of its task.
    pub(super) fn kick_out_of_user(&self, id: usize) {
        self.platform.kick_out_of_user(id);
    }

    /// Makes a parked task run again; a running one will not park next time.
    pub(super) fn wake(&self, task: &Task) {
        if task.entity.notify() {
            self.enqueue(NonNull::from(task), true);
        }
    }

    /// Arms a timer.
    pub fn add_timer(&self, deadline: u64, action: Action) -> TimerId {
        let id = self.timers.add(deadline, action);
        if self.timer_is_unattended(deadline) {
            match self.this() {
                // The worker looks again before it enters user code, or sleeps until then itself.
                Some(worker) => _ = worker.attention.fetch_or(ATTEND_TIMER, Ordering::Relaxed),
                None => self.ticker_look_at(deadline),
            }
        }
        id
    }

    /// When a timer that has expired at `now` and is next due at `due` is to be armed for.
    pub fn again(&self, due: u64, now: u64) -> u64 {
        self.timers.again(due, now)
    }

    /// Disarms a timer; false if it has fired (or is firing).
    pub fn cancel_timer(&self, id: TimerId) -> bool {
        self.timers.cancel(id)
    }

    fn timer_is_unattended(&self, deadline: u64) -> bool {
        deadline < self.keeper_until.load(Ordering::SeqCst) && deadline < self.ticker.target()
    }

    /// Queues a runnable task.
    fn enqueue(&self, task: NonNull<Task>, in_front: bool) {
        match self.this() {
            Some(worker) => {
                if worker.push(task, in_front) > 1 {
                    self.wake_idle_sparingly();
                }
            }
            None => {
                let idle = self.idle.load(Ordering::SeqCst);
                let worker = match idle {
                    0 => self.worker_of(self.next_victim.fetch_add(1, Ordering::Relaxed)),
                    _ => &self.workers[idle.trailing_zeros() as usize],
                };
                worker.push(task, in_front);
                // Checked after the push: a worker that went to sleep before it is woken, one after it saw the push.
                if !self.wake_idle() {
                    self.ticker_tick();
                }
            }
        }
    }

    /// What `worker` runs next: due timers' tasks, its own, somebody else's.
    fn next_task(&self, worker: &Worker) -> Option<NonNull<Task>> {
        let due = self.timers.next();
        if due != NEVER {
            let now = monotonic_ns();
            if due <= now {
                self.timers.fire(now);
            }
        }
        if let Some(task) = worker.pop() {
            return Some(task);
        }
        let count = self.workers.len();
        let task = (1..count).find_map(|step| self.workers[(worker.id + step) % count].steal());
        if task.is_some() && self.anything_queued() {
            self.wake_idle_sparingly();
        }
        task
    }

    fn anything_queued(&self) -> bool {
        self.workers.iter().any(|worker| !worker.is_empty())
    }

    /// Sleeps until woken or until the next timer is due.
    fn sleep(&self, worker: &Worker) {
        let bit = 1 << worker.id;
        if worker.slice.ended() {
            self.platform.cancel_kick(worker.id);
        }
        worker.sleeping.store(1, Ordering::SeqCst);
        self.idle.fetch_or(bit, Ordering::SeqCst);
        if !self.anything_queued() {
            let next = self.timers.next();
            if next == NEVER {
                futex::wait(&worker.sleeping, 1, None);
            } else {
                let now = monotonic_ns();
                if next > now {
                    self.keeper_until.fetch_min(next, Ordering::SeqCst);
                    futex::wait(&worker.sleeping, 1, Some(Duration::from_nanos(next - now)));
                    self.keeper_until.store(NEVER, Ordering::SeqCst);
                    crate::time::resync();
                }
                worker.attention.fetch_or(ATTEND_TIMER, Ordering::Relaxed);
            }
        }
        self.idle.fetch_and(!bit, Ordering::SeqCst);
        worker.sleeping.store(0, Ordering::SeqCst);
    }

    /// Wakes one sleeping worker; false if none sleeps.
    fn wake_idle(&self) -> bool {
        loop {
            let idle = self.idle.load(Ordering::SeqCst);
            if idle == 0 {
                return false;
            }
            let bit = idle & idle.wrapping_neg();
            if self.idle.fetch_and(!bit, Ordering::SeqCst) & bit != 0 {
                let worker = &self.workers[bit.trailing_zeros() as usize];
                worker.sleeping.store(0, Ordering::SeqCst);
                futex::wake(&worker.sleeping, 1);
                return true;
            }
        }
    }

    /// Wakes a sleeping worker unless that has just been done: it looks everywhere before it sleeps again.
    fn wake_idle_sparingly(&self) {
        if self.idle.load(Ordering::Relaxed) == 0 {
            return;
        }
        let now = monotonic_ns();
        let last = self.last_wake.load(Ordering::Relaxed);
        if now.saturating_sub(last) > PATIENCE_NS
            && self.last_wake.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.wake_idle();
        }
    }

    /// What the calling worker has to be asked before it enters user code: whether this is not zero. If so,
    /// [`before_user`](Self::before_user) is to be called.
    pub(super) fn attention(&self) -> Arc<AtomicU32> {
        self.this().map_or_else(Arc::default, |worker| worker.attention.clone())
    }

    /// Makes sure that somebody looks after what waits for this worker while it runs user code.
    ///
    /// True: memory is short, too, which only the task itself can do something about.
    #[cold]
    pub(super) fn before_user(&self) -> bool {
        self.this().is_some_and(|worker| {
            self.attend(worker);
            worker.is_called_for_memory()
        })
    }

    /// Says what tasks do about memory that is short. Once.
    pub(super) fn when_memory_is_short(&self, relief: Relief) {
        let _second = self.relief.set(relief);
    }

    /// Says what becomes of tasks that are to end and do not come back from the host. Once.
    pub(super) fn when_outlived(&self, outlived: Outlived) {
        let _second = self.outlived.set(outlived);
    }

    /// Memory is short: every task is to do something about it before it runs its program again. Called with any lock held.
    pub(super) fn call_for_memory(&self) {
        for worker in &self.workers {
            worker.attention.fetch_or(ATTEND_MEMORY, Ordering::SeqCst);
        }
    }

    /// A kick has brought the calling task's worker back: no slice runs any more.
    pub(super) fn kicked(&self) {
        if let Some(worker) = self.this() {
            worker.slice.ended();
        }
    }

    /// Has the task that `worker` runs interrupted after a while: `ns` by the platform, or the ticker's slice.
    fn begin_slice(&self, worker: &Worker, ns: u64) {
        if self.platform.kick_after(worker.id, ns) {
            worker.slice.asked();
            return;
        }
        self.ticker.note_contention(worker.id);
        if !self.ticker.is_ticking() {
            self.ticker_tick();
        }
    }

    fn attend(&self, worker: &Worker) {
        let attention = worker.attention.load(Ordering::SeqCst);
        if attention & ATTEND_TIMER != 0 {
            worker.attention.fetch_and(!ATTEND_TIMER, Ordering::SeqCst);
            let next = self.timers.next();
            if next != NEVER && self.timer_is_unattended(next) {
                self.ticker_look_at(next);
            }
        }
        if attention & ATTEND_QUEUE != 0 {
            let idle = self.idle.load(Ordering::Relaxed) != 0;
            if worker.slice.needed(self.old_slice) {
                let waiting = u64::from(attention & ATTEND_QUEUE);
                self.begin_slice(worker, if idle { TICK_NS } else { SLICE_NS.max(ROUND_NS / (1 + waiting)) });
            }
            if idle {
                let now = monotonic_ns();
                match worker.since.load(Ordering::Relaxed) {
                    0 => worker.since.store(now, Ordering::Relaxed),
                    since if now.saturating_sub(since) > PATIENCE_NS => self.wake_idle_sparingly(),
                    _ => {}
                }
            }
        }
    }
}
