//! What a group's processes have in memory, and what is done when that is more than they may.
//!
//! Counted is what is mapped: unnamed and shared memory, each page by the part of its users that are in the group, and page
//! tables. Files in memory, and what the kernel keeps for programs, are the sandbox's as a whole, which its own limit holds.
//!
//! Nobody counts while programs run. An address space whose pages become more than it was given calls ([`Mm::watch_pages`]);
//! before its program runs on, or where long work gives way, the group is counted. What is left to its limit is then given out
//! again, in equal parts: the closer the limit the smaller they are, down to [`LEAST_PAGES`] at a time.

use super::{CgroupId, Cgroups, Limit};
use crate::abi::Result;
use crate::kernel::shortage::{Victim, candidate, first_to_go};
use crate::kernel::turn::Taken;
use crate::kernel::{Kernel, Task, ThreadGroup};
use crate::mm::{Alarm, Mm, PAGE_SIZE};
use crate::time::{NSEC_PER_MSEC, monotonic_ns};
use core::sync::atomic::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// So many pages may be taken by each process beyond the limit until somebody looks.
const LEAST_PAGES: u64 = 16;
/// How long one who has too much waits for another's end.
const PATIENCE_NS: u64 = 500 * NSEC_PER_MSEC;

/// Of memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settings {
    pub(super) max: Limit,
    pub(super) swap_max: Limit,
    pub(super) oom_group: bool,
    /// The most that has been seen, bytes.
    pub(super) peak: u64,
}

/// What a group has in memory, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupMemory {
    /// Unnamed.
    pub anon: u64,
    /// Shared memory.
    pub shmem: u64,
    /// Pages of files that are mapped; they do not count.
    pub file: u64,
    /// Page tables.
    pub tables: u64,
}

impl GroupMemory {
    /// What counts.
    pub fn current(&self) -> u64 {
        self.anon + self.shmem + self.tables
    }
}

impl Cgroups {
    /// Says what is called when somebody may have too much memory. With any lock held.
    pub(in crate::kernel) fn when_crowded(&self, call: Alarm) {
        let _second = self.alarm.set(call);
    }

    /// Has somebody look whether all have what they may.
    pub(super) fn call(&self) {
        if let Some(alarm) = self.alarm.get() {
            alarm();
        }
    }

    /// Notes that somebody is to look.
    pub(in crate::kernel) fn note_crowded(&self) {
        self.crowded.store(true, Ordering::SeqCst);
    }

    /// Has a new address space of a process in a group be looked at.
    #[inline]
    pub(in crate::kernel) fn watch(&self, id: CgroupId, mm: &Mm) {
        if id != CgroupId::ROOT {
            self.watch_bound(id, mm);
        }
    }

    #[cold]
    fn watch_bound(&self, id: CgroupId, mm: &Mm) {
        let bound = {
            let table = self.table.lock();
            table
                .upwards(id)
                .any(|at| table.groups.get(&at).is_some_and(|group| group.memory.max.0.is_some()))
        };
        if bound && let Some(alarm) = self.alarm.get() {
            mm.watch_pages(mm.resident() / PAGE_SIZE + LEAST_PAGES, alarm);
        }
    }

    /// Groups with a limit on memory, bytes; the innermost first.
    fn limited(&self) -> Vec<(CgroupId, u64)> {
        let table = self.table.lock();
        let limited = table.groups.iter().filter(|(_, group)| !group.dead);
        let mut all: Vec<_> = limited.filter_map(|(id, group)| Some((*id, group.memory.max.0?))).collect();
        all.sort_by_key(|(id, _)| std::cmp::Reverse(table.upwards(*id).count()));
        all
    }

    fn note_memory(&self, id: CgroupId, bytes: u64) {
        if let Some(group) = self.table.lock().groups.get_mut(&id) {
            group.memory.peak = group.memory.peak.max(bytes);
        }
    }

    /// The most that has been seen in a group's memory, bytes.
    ///
    /// # Errors
    /// ENODEV for a group that was removed.
    pub fn memory_peak(&self, id: CgroupId) -> Result<u64> {
        Ok(self.table.lock().living(id)?.memory.peak)
    }
}

impl Kernel {
    /// Address spaces of a group and those below it.
    fn spaces_of(&self, id: CgroupId) -> Vec<Arc<Mm>> {
        let groups = self.processes_below(&self.tree.lock(), id);
        distinct(groups.iter().flat_map(spaces)).collect()
    }

    /// The same of several groups at once: each process is looked at once, and the groups above it. What has none is left out.
    fn spaces_of_all(&self, ids: &BTreeSet<CgroupId>) -> BTreeMap<CgroupId, Vec<Arc<Mm>>> {
        let groups = self.processes_in(&self.tree.lock(), |of| of != CgroupId::ROOT);
        let mut all: BTreeMap<CgroupId, Vec<Arc<Mm>>> = BTreeMap::new();
        for group in groups {
            let above: Vec<_> = {
                let table = self.cgroups.table.lock();
                table.upwards(group.cgroup()).filter(|id| ids.contains(id)).collect()
            };
            if above.is_empty() {
                continue;
            }
            let own: Vec<_> = distinct(spaces(&group)).collect();
            above.into_iter().for_each(|id| all.entry(id).or_default().extend(own.iter().cloned()));
        }
        for of in all.values_mut() {
            *of = distinct(of.drain(..)).collect();
        }
        all
    }

    /// What a group has in memory. Long work; no lock is held.
    ///
    /// # Errors
    /// ENODEV for a group that was removed.
    pub fn cgroup_memory(&self, id: CgroupId) -> Result<GroupMemory> {
        self.cgroups.check(id)?;
        let memory = count(&self.spaces_of(id));
        self.cgroups.note_memory(id, memory.current());
        Ok(memory)
    }

    /// Looks whether groups have more memory than they may, if somebody called; for a task that holds no lock.
    #[inline]
    pub(in crate::kernel) fn relieve_groups(&self, task: &Task) {
        if self.cgroups.crowded.load(Ordering::Relaxed) {
            self.look_at_groups(task);
        }
    }

    #[cold]
    fn look_at_groups(&self, task: &Task) {
        // Whoever looks sees what others have grown by meanwhile, or they call again.
        while let Some(victims) = self.cgroups.looking.take().map(|turn| self.judge_all(task, turn)) {
            let ended = victims.into_iter().fold(None, |_, victim| Some(self.await_end(task, victim)));
            if ended != Some(true) || task.killed() {
                return;
            }
        }
    }

    /// Looks at all groups and gives out what is left in them. Those that the caller has to wait for are returned.
    fn judge_all(&self, task: &Task, turn: Taken<'_>) -> Vec<Victim> {
        self.cgroups.crowded.store(false, Ordering::SeqCst);
        let mut given: BTreeMap<*const Mm, (Arc<Mm>, u64)> = BTreeMap::new();
        let mut waits = Vec::new();
        let limited = self.cgroups.limited();
        let mut all = self.spaces_of_all(&limited.iter().map(|(id, _)| *id).collect());
        for (id, max) in limited {
            let Some(spaces) = all.remove(&id) else { continue };
            let (used, victim) = self.judge(id, max, &spaces);
            let part = max.saturating_sub(used) / PAGE_SIZE / (spaces.len() as u64).max(1);
            for mm in spaces {
                let at = mm.resident() / PAGE_SIZE + part.max(LEAST_PAGES);
                let known = given.entry(Arc::as_ptr(&mm)).or_insert((mm, at));
                known.1 = known.1.min(at);
            }
            let own = task.group.cgroup();
            waits.extend(victim.filter(|_| self.cgroups.is_within(own, id)));
        }
        if let Some(alarm) = self.cgroups.alarm.get() {
            given.values().for_each(|(mm, at)| mm.watch_pages(*at, alarm));
        }
        drop((turn, given));
        waits
    }

    /// Counts what a group has; kills somebody if that is more than `max`, and nobody is on the way out already.
    fn judge(&self, id: CgroupId, max: u64, spaces: &[Arc<Mm>]) -> (u64, Option<Victim>) {
        // Pages with several users count for each here: where that is within the limit there is no need to look closer.
        let most: u64 = spaces.iter().map(|mm| mm.resident() + mm.space().overhead()).sum();
        if most <= max {
            return (most, None);
        }
        let used = count(spaces).current();
        self.cgroups.note_memory(id, used);
        if used <= max {
            return (used, None);
        }
        let groups = self.processes_below(&self.tree.lock(), id);
        let candidates = groups.into_iter().filter_map(|group| candidate(group, max / PAGE_SIZE));
        let victim = first_to_go(candidates);
        if let Some(victim) = victim.as_ref().filter(|victim| !victim.ending) {
            self.kill_in(id, victim);
        }
        (used, victim)
    }

    fn kill_in(&self, id: CgroupId, victim: &Victim) {
        let path = self.cgroups.path(id);
        let of = victim.group.cgroup();
        let together = {
            let table = self.cgroups.table.lock();
            table.upwards(of).find(|at| table.groups.get(at).is_some_and(|group| group.memory.oom_group))
        };
        let mut killed = 1;
        self.kill(victim, &format!("control group {} has more memory than it may", path.escape_ascii()));
        if let Some(all) = together {
            killed = self.processes_below(&self.tree.lock(), all).len() as u64;
            let _removed = self.kill_cgroup(all);
        }
        let mut table = self.cgroups.table.lock();
        table.climb(id, |group| {
            group.events.memory_max += 1;
            group.events.oom += 1;
        });
        table.climb(of, |group| {
            group.events.oom_kill += killed;
            group.events.oom_group_kill += u64::from(together.is_some());
        });
    }

    /// Waits until a process has given its memory back, or (false) does not.
    fn await_end(&self, task: &Task, victim: Victim) -> bool {
        let (mm, until) = (Arc::downgrade(&victim.mm), monotonic_ns() + PATIENCE_NS);
        drop(victim);
        while mm.strong_count() != 0 && !task.killed() && monotonic_ns() < until {
            self.nap(task);
        }
        self.sched.wake(task);
        mm.strong_count() == 0
    }
}

/// The address spaces of a process.
fn spaces(group: &Arc<ThreadGroup>) -> impl Iterator<Item = Arc<Mm>> + use<> {
    group.threads().into_iter().filter_map(|task| task.mm())
}

/// Each once.
fn distinct(spaces: impl Iterator<Item = Arc<Mm>>) -> impl Iterator<Item = Arc<Mm>> {
    spaces.map(|mm| (Arc::as_ptr(&mm), mm)).collect::<BTreeMap<_, _>>().into_values()
}

fn count(spaces: &[Arc<Mm>]) -> GroupMemory {
    let mut all = GroupMemory::default();
    for mm in spaces {
        let [anon, file, shmem] = mm.resident_shares();
        all.anon += anon;
        all.file += file;
        all.shmem += shmem;
        all.tables += mm.space().overhead();
    }
    all
}
