//! What is done when memory is short: room is made, in the end by killing the process that has most of it.
//!
//! Whoever takes memory beyond the soft limit ([`ledger`]) raises the alarm and goes on. Every task then comes here
//! before it runs its program again, or where long work gives way; there it holds no lock and can wait. One of them makes
//! room, the others wait until there is some. What is free goes back to the host first, and what is only cached; then a
//! process is killed as Linux's OOM killer chooses, and waited for. What the kernel keeps for a process counts like its pages
//! as far as it can be told whose it is: by its descriptors, or by who ran when the heap grew. In the sandbox all processes are alike: the first one can be chosen, too, and the
//! sandbox ends.
//!
//! Those that asked never to be chosen (an adjustment of -1000) are spared as long as there are others, and no longer: what
//! they take is the host's.

use super::sched::Action;
use super::signal::{SIGKILL, begin_exit};
use super::tree::INIT;
use super::turn::Turn;
use super::{Kernel, Task, ThreadGroup, WaitStatus};
use crate::arena::ledger;
use crate::mm::{Mm, PAGE_SIZE, frames};
use crate::sync::{Lock, Rank};
use crate::time::{NSEC_PER_MSEC, monotonic_ns};
use crate::vfs;
use core::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// Between two looks at whether there is room now.
const LOOK_NS: u64 = NSEC_PER_MSEC;
/// How long a process that ends may give nothing back before the next is chosen.
const PATIENCE_NS: u64 = 500 * NSEC_PER_MSEC;

/// So little is not looked for, bytes.
const NOT_WORTH_IT: u64 = 4 << 20;

/// Who makes room.
pub(super) struct Shortage {
    turn: Turn,
    /// Processes that end and have been waited for in vain: nobody waits for them again.
    hopeless: Lock<Vec<i32>>,
}

impl Default for Shortage {
    fn default() -> Self {
        Shortage { turn: Turn::default(), hopeless: Lock::new(Rank::Hopeless, Vec::new()) }
    }
}

/// A process to be killed, or on its way out already.
pub(super) struct Victim {
    pub(super) group: Arc<ThreadGroup>,
    pub(super) mm: Arc<Mm>,
    /// What its end would give back.
    bytes: u64,
    /// The larger the sooner; none: never, if there are others.
    points: Option<i64>,
    pub(super) ending: bool,
}

impl Kernel {
    /// Has tasks come here when memory is short.
    pub(super) fn watch_memory(self: &Arc<Self>) {
        let kernel = Arc::downgrade(self);
        self.sched.when_memory_is_short(Box::new(move |task| {
            if let Some(kernel) = kernel.upgrade() {
                kernel.relieve(task);
            }
        }));
        let kernel = Arc::downgrade(self);
        self.sched.when_outlived(Box::new(move |task| {
            if let Some(kernel) = kernel.upgrade() {
                kernel.outlive(task);
            }
        }));
        let (sched, groups) = (self.sched.clone(), Arc::downgrade(&self.cgroups));
        self.cgroups.when_crowded(Arc::new(move || {
            if let Some(groups) = groups.upgrade() {
                groups.note_crowded();
            }
            sched.call_for_memory();
        }));
        let (sched, growing) = (self.sched.clone(), self.sched.clone());
        let note = |bytes| move |task: &Task| _ = task.group.heap_grown.fetch_add(bytes, Ordering::Relaxed);
        ledger::watch(ledger::Watch {
            alarm: Box::new(move || sched.call_for_memory()),
            grown: Box::new(move |bytes| growing.with_running(note(bytes))),
        });
    }

    /// Makes room, or waits until somebody has; for a task that holds no lock. False: nobody can.
    #[cold]
    pub(super) fn relieve(&self, task: &Task) -> bool {
        self.relieve_groups(task);
        let (mut helped, mut napped) = (false, false);
        while ledger::is_short() && !task.killed() {
            match self.shortage.turn.take() {
                Some(_turn) if self.make_room(task) => {}
                Some(_turn) => break,
                None => self.nap(task),
            }
            (helped, napped) = (true, true);
        }
        if !ledger::is_short() {
            self.shortage.hopeless.lock().clear();
        }
        if napped {
            // A wake that came meanwhile was for something else.
            self.sched.wake(task);
        }
        helped
    }

    pub(super) fn nap(&self, task: &Task) {
        let Some(me) = task.arc() else { return };
        let timer = self.sched.add_timer(monotonic_ns() + LOOK_NS, Action::Wake(me));
        self.sched.park(task);
        self.sched.cancel_timer(timer);
    }

    /// Does what helps and costs least. False: nothing does.
    fn make_room(&self, task: &Task) -> bool {
        frames::trim();
        crate::arena::trim();
        if !ledger::is_short() {
            return true;
        }
        if ledger::cached() > NOT_WORTH_IT && self.drop_caches(task) {
            frames::trim();
            return true;
        }
        let hopeless = self.shortage.hopeless.lock().clone();
        let Some(victim) = self.choose(&hopeless) else { return false };
        if !victim.ending {
            self.kill(&victim, "out of memory");
        }
        let (mm, id) = (Arc::downgrade(&victim.mm), victim.group.tgid);
        drop(victim);
        if !self.await_room(task, &mm) {
            self.shortage.hopeless.lock().push(id);
        }
        true
    }

    /// Drops what of the caller's files is only cached. False: that gave nothing.
    fn drop_caches(&self, task: &Task) -> bool {
        let before = ledger::cached();
        let init = self.tree.lock().node(INIT).map(|node| node.group.clone());
        let Some(fs) = init.and_then(|init| init.threads().first()?.fs()) else { return false };
        vfs::drop_caches(fs.namespace(), &mut || self.sched.yield_now(task));
        ledger::cached() + NOT_WORTH_IT / 2 < before
    }

    /// Waits until there is room, the process is gone, or (false) it gives nothing back any more.
    fn await_room(&self, task: &Task, mm: &Weak<Mm>) -> bool {
        let (mut since, mut least) = (monotonic_ns(), ledger::used());
        while ledger::is_short() && !task.killed() && mm.strong_count() != 0 {
            self.nap(task);
            let (now, used) = (monotonic_ns(), ledger::used());
            if used < least {
                (since, least) = (now, used);
            } else if now - since > PATIENCE_NS {
                return false;
            }
        }
        true
    }

    /// Ends a process, and those that share its memory, and says so.
    pub(super) fn kill(&self, victim: &Victim, why: &str) {
        for group in self.living() {
            let shares = |task: &Arc<Task>| task.mm().is_some_and(|mm| Arc::ptr_eq(&mm, &victim.mm));
            if group.threads().iter().any(shares) {
                begin_exit(&mut group.state.lock(), WaitStatus::killed(SIGKILL, false));
            }
        }
        let comm = victim.group.threads().first().map(|task| task.comm()).unwrap_or_default();
        let line = format!(
            "pillbox: {why}: killed process {} ({}), {} MiB\n",
            victim.group.tgid,
            comm.escape_ascii(),
            victim.bytes >> 20,
        );
        crate::hostsys::process::tell(&line);
        self.metrics.debug(line.trim_end());
        self.log.add(3, line.trim_end());
    }

    /// The [first to go](first_to_go). As long as there are some that take their time to end, nobody is killed for next to
    /// nothing.
    fn choose(&self, hopeless: &[i32]) -> Option<Victim> {
        let total = super::memory().0 / PAGE_SIZE;
        let candidates = self.living().into_iter().filter_map(|group| candidate(group, total));
        let candidates = candidates.filter(|it| match it.ending {
            true => !hopeless.contains(&it.group.tgid),
            false => hopeless.is_empty() || it.bytes >= NOT_WORTH_IT,
        });
        first_to_go(candidates)
    }

    /// Processes that have not ended. What they have is looked at without the tree's lock: who looks may be the last to
    /// let go of it, and what then happens takes locks that come first.
    fn living(&self) -> Vec<Arc<ThreadGroup>> {
        let tree = self.tree.lock();
        tree.nodes().filter(|(_, node)| node.zombie.is_none()).map(|(_, node)| node.group.clone()).collect()
    }
}

/// One that ends already and still has memory; else the one with the most points.
pub(super) fn first_to_go(candidates: impl Iterator<Item = Victim>) -> Option<Victim> {
    let rank = |victim: &Victim| (victim.ending, victim.points);
    candidates.reduce(|best, next| if rank(&next) > rank(&best) { next } else { best })
}

/// What is to be said of a process; none if it has no memory any more.
pub(super) fn candidate(group: Arc<ThreadGroup>, total: u64) -> Option<Victim> {
    let state = group.state.lock();
    let ending = state.exit.is_some();
    let tasks = state.threads.clone();
    drop(state);
    let task = tasks.iter().find(|task| task.mm().is_some())?;
    let mm = task.mm()?;
    let files = task.fds().map_or(0, |fds| fds.footprint());
    let kept = files.max(group.heap_grown.load(Ordering::Relaxed));
    let bytes = mm.resident() + mm.space().overhead() + kept;
    let points = group.oom_score.lock().points(bytes / PAGE_SIZE, total);
    Some(Victim { group, mm, bytes, points, ending })
}
