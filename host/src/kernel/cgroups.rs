//! Control groups, version 2 (cgroups(7)): who is in which group, and what it may have.
//!
//! One table, one lock. Groups are named by number, as processes are: no group refers to another, nothing forms a cycle, and
//! what climbs or descends is a loop. Whom a group holds is said by its processes
//! ([`ThreadGroup`](super::ThreadGroup)`::cgroup`), which changes under the tree's lock; here they are counted.
//!
//! Processes begin in the root, which shows what binds the sandbox as a whole. What they cost there is nothing: everything
//! below is done for processes of other groups only.
//!
//! | module | what |
//! |---|---|
//! | `control` | controllers and settings |
//! | `members` | moving, freezing and killing processes |
//! | `memory` | what a group has in memory, and what is done when that is too much |
//!
//! # What is not there
//! Threads cannot be in other groups than their process (no threaded groups). CPU time and I/O are counted and not divided:
//! the files that would say otherwise refuse everything but what holds anyway.

mod control;
mod members;
mod memory;

pub use control::{Controllers, Events, Limit, Setting};
pub use memory::GroupMemory;

use crate::abi::{Errno, Result};
use crate::kernel::turn::Turn;
use crate::mm::Alarm;
use crate::sync::{Lock, Rank};
use crate::vfs::relative;
use core::sync::atomic::AtomicBool;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// How deep groups can be nested, and how many there can be, before somebody says less.
const MOST_DEEP: u64 = 32;
const MOST: u64 = 1024;

/// Names a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CgroupId(u32);

impl CgroupId {
    /// That in which processes begin.
    pub const ROOT: CgroupId = CgroupId(0);

    /// For atomics.
    pub(super) fn number(self) -> u32 {
        self.0
    }

    /// See [`number`](Self::number).
    pub(super) fn from_number(number: u32) -> Self {
        CgroupId(number)
    }
}

/// All groups.
pub struct Cgroups {
    table: Lock<Table>,
    /// Somebody may have more memory than he may.
    crowded: AtomicBool,
    /// Somebody looks after that.
    looking: Turn,
    alarm: OnceLock<Alarm>,
}

impl Default for Cgroups {
    fn default() -> Self {
        let root = Group {
            max_depth: Limit(Some(MOST_DEEP)),
            max_descendants: Limit(Some(MOST)),
            ..Group::default()
        };
        let groups = BTreeMap::from([(CgroupId::ROOT, root)]);
        Cgroups {
            table: Lock::new(Rank::Cgroups, Table { groups, last: 0 }),
            crowded: AtomicBool::new(false),
            looking: Turn::default(),
            alarm: OnceLock::new(),
        }
    }
}

struct Table {
    groups: BTreeMap<CgroupId, Group>,
    last: u32,
}

/// A group.
#[derive(Clone, Default)]
struct Group {
    parent: Option<CgroupId>,
    name: Box<[u8]>,
    /// Removed, and remembered because of zombies.
    dead: bool,
    /// Groups in it and below.
    descendants: u64,
    /// Controllers that its children have.
    enabled: Controllers,
    /// Processes in it that have not ended.
    processes: u64,
    /// Tasks in it and below, with those that have ended and not been waited for.
    tasks: u64,
    peak_tasks: u64,
    max_tasks: Limit,
    memory: memory::Settings,
    events: Events,
    /// What processes that have left it, or ended in it, used in it and below, ns.
    past_cpu_ns: u64,
    max_depth: Limit,
    max_descendants: Limit,
    freeze: bool,
}

impl Table {
    /// A group that has not been removed.
    fn living(&mut self, id: CgroupId) -> Result<&mut Group> {
        self.groups.get_mut(&id).filter(|group| !group.dead).ok_or(Errno::ENODEV)
    }

    /// A group and those above it.
    fn upwards(&self, id: CgroupId) -> impl Iterator<Item = CgroupId> {
        std::iter::successors(Some(id), |id| self.groups.get(id)?.parent)
    }

    /// Changes a group and those above it.
    fn climb(&mut self, id: CgroupId, mut change: impl FnMut(&mut Group)) {
        let mut at = Some(id);
        while let Some(group) = at.and_then(|id| self.groups.get_mut(&id)) {
            change(group);
            at = group.parent;
        }
    }

    fn is_below(&self, id: CgroupId, above: CgroupId) -> bool {
        self.upwards(id).any(|at| at == above)
    }

    /// The groups below one, without it.
    fn below(&self, above: CgroupId) -> impl Iterator<Item = (CgroupId, &Group)> {
        let living = self.groups.iter().filter(|(_, group)| !group.dead);
        living
            .filter(move |(id, _)| **id != above && self.is_below(**id, above))
            .map(|(id, group)| (*id, group))
    }

    /// Forgets a removed group that nobody is in any more.
    fn bury(&mut self, id: CgroupId) {
        if self.groups.get(&id).is_some_and(|group| group.dead && group.tasks == 0) {
            self.groups.remove(&id);
        }
    }
}

impl Cgroups {
    /// mkdir(2): a group in `parent`.
    ///
    /// # Errors
    /// ENODEV if that was removed, EAGAIN where there would be too many, EINVAL for a name that a line cannot hold.
    pub fn make(&self, parent: CgroupId, name: &[u8]) -> Result<CgroupId> {
        if name.contains(&b'\n') {
            return Err(Errno::EINVAL);
        }
        let mut table = self.table.lock();
        table.living(parent)?;
        let full = |(depth, above): (u64, CgroupId)| {
            table.groups.get(&above).is_some_and(|group| {
                !group.max_depth.allows(depth) || !group.max_descendants.allows(group.descendants + 1)
            })
        };
        if (1..).zip(table.upwards(parent)).any(full) {
            return Err(Errno::EAGAIN);
        }
        // Removed ones that have zombies, too, are kept.
        if table.groups.len() as u64 > 2 * MOST {
            return Err(Errno::EAGAIN);
        }
        let id = loop {
            table.last = table.last.wrapping_add(1);
            let id = CgroupId(table.last);
            if !table.groups.contains_key(&id) {
                break id;
            }
        };
        table.climb(parent, |group| group.descendants += 1);
        table.groups.insert(id, Group { parent: Some(parent), name: name.into(), ..Group::default() });
        Ok(id)
    }

    /// rmdir(2).
    ///
    /// # Errors
    /// EBUSY as long as there are groups or processes in it; ENODEV if it was removed.
    pub fn remove(&self, id: CgroupId) -> Result<()> {
        let mut table = self.table.lock();
        let group = table.living(id)?;
        if id == CgroupId::ROOT || group.descendants != 0 || group.processes != 0 {
            return Err(Errno::EBUSY);
        }
        group.dead = true;
        if let Some(parent) = group.parent {
            table.climb(parent, |group| group.descendants -= 1);
        }
        table.bury(id);
        Ok(())
    }

    /// Fails for a group that was removed.
    ///
    /// # Errors
    /// ENODEV.
    pub fn check(&self, id: CgroupId) -> Result<()> {
        self.table.lock().living(id).map(drop)
    }

    /// Its path, as /proc/PID/cgroup shows it.
    pub fn path(&self, id: CgroupId) -> Vec<u8> {
        let table = self.table.lock();
        let chain: Vec<CgroupId> = table.upwards(id).filter(|id| *id != CgroupId::ROOT).collect();
        let mut path = Vec::new();
        for group in chain.iter().rev().filter_map(|id| table.groups.get(id)) {
            path.push(b'/');
            path.extend_from_slice(&group.name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        if table.groups.get(&id).is_none_or(|group| group.dead) {
            path.extend_from_slice(b" (deleted)");
        }
        path
    }

    /// The same as seen from another.
    pub fn path_from(&self, id: CgroupId, root: CgroupId) -> Vec<u8> {
        if root == CgroupId::ROOT { self.path(id) } else { relative(&self.path(id), &self.path(root)) }
    }

    /// Whether a group is another or below it.
    pub fn is_within(&self, id: CgroupId, above: CgroupId) -> bool {
        self.table.lock().is_below(id, above)
    }

    /// Whether there is room for one more task in a group and those above it; notes it where not.
    ///
    /// # Errors
    /// EAGAIN.
    #[inline]
    pub(super) fn admit_task(&self, id: CgroupId) -> Result<()> {
        if id == CgroupId::ROOT { Ok(()) } else { self.admit_below(id) }
    }

    #[cold]
    fn admit_below(&self, id: CgroupId) -> Result<()> {
        let mut table = self.table.lock();
        let full = |at: &CgroupId| {
            table.groups.get(at).is_some_and(|group| !group.max_tasks.allows(group.tasks + 1))
        };
        let Some(full) = table.upwards(id).find(full) else { return Ok(()) };
        if let Some(group) = table.groups.get_mut(&full) {
            group.events.pids_max += 1;
        }
        Err(Errno::EAGAIN)
    }

    /// Counts tasks that a group has more, and processes. (In the root nobody counts.)
    ///
    /// # Errors
    /// ENODEV for a group that was removed, EBUSY for one that divides what its processes would compete for.
    #[inline]
    fn enter(&self, id: CgroupId, tasks: u64, processes: u64) -> Result<()> {
        if id == CgroupId::ROOT { Ok(()) } else { self.count(id, tasks, processes) }
    }

    #[cold]
    fn count(&self, id: CgroupId, tasks: u64, processes: u64) -> Result<()> {
        let mut table = self.table.lock();
        if table.living(id)?.enabled.intersects(Controllers::OF_DOMAINS) {
            return Err(Errno::EBUSY);
        }
        table.climb(id, |group| {
            group.tasks += tasks;
            group.peak_tasks = group.peak_tasks.max(group.tasks);
        });
        if let Some(group) = table.groups.get_mut(&id) {
            group.processes += processes;
        }
        Ok(())
    }

    /// Counts what it has less, and what a process that leaves it has used in it.
    #[inline]
    fn leave(&self, id: CgroupId, tasks: u64, processes: u64, cpu_ns: u64) {
        if id != CgroupId::ROOT {
            self.discount(id, tasks, processes, cpu_ns);
        }
    }

    #[cold]
    fn discount(&self, id: CgroupId, tasks: u64, processes: u64, cpu_ns: u64) {
        let mut table = self.table.lock();
        table.climb(id, |group| {
            group.tasks = group.tasks.saturating_sub(tasks);
            group.past_cpu_ns += cpu_ns;
        });
        if let Some(group) = table.groups.get_mut(&id) {
            group.processes = group.processes.saturating_sub(processes);
        }
        table.bury(id);
    }
}

#[cfg(test)]
mod tests {
    use super::{CgroupId, Cgroups, Errno, Limit, MOST, MOST_DEEP};

    #[test]
    fn groups_have_paths_and_are_removed_from_below() {
        let all = Cgroups::default();
        let a = all.make(CgroupId::ROOT, b"a").unwrap();
        let b = all.make(a, b"b").unwrap();
        assert_eq!((all.path(CgroupId::ROOT), all.path(b)), (b"/".to_vec(), b"/a/b".to_vec()));
        assert!(all.is_within(b, a) && !all.is_within(a, b));
        assert_eq!((all.remove(a), all.remove(CgroupId::ROOT)), (Err(Errno::EBUSY), Err(Errno::EBUSY)));
        assert_eq!(
            (all.remove(b), all.remove(b), all.make(b, b"c")),
            (Ok(()), Err(Errno::ENODEV), Err(Errno::ENODEV))
        );
        assert_eq!((all.remove(a), all.make(CgroupId::ROOT, b"x\ny")), (Ok(()), Err(Errno::EINVAL)));
    }

    #[test]
    fn zombies_keep_a_removed_group() {
        let all = Cgroups::default();
        let a = all.make(CgroupId::ROOT, b"a").unwrap();
        all.enter(a, 1, 1).unwrap();
        assert_eq!(all.remove(a), Err(Errno::EBUSY));
        all.discount(a, 0, 1, 7);
        assert_eq!((all.remove(a), all.path(a)), (Ok(()), b"/a (deleted)".to_vec()));
        all.discount(a, 1, 0, 0);
        let table = all.table.lock();
        assert_eq!((table.groups.len(), table.groups[&CgroupId::ROOT].past_cpu_ns), (1, 7));
    }

    #[test]
    fn limits_on_tasks_hold_for_all_below() {
        let all = Cgroups::default();
        let a = all.make(CgroupId::ROOT, b"a").unwrap();
        let b = all.make(a, b"b").unwrap();
        all.table.lock().groups.get_mut(&a).unwrap().max_tasks = Limit(Some(2));
        all.enter(b, 1, 1).unwrap();
        assert_eq!(all.admit_task(b), Ok(()));
        all.enter(a, 1, 1).unwrap();
        assert_eq!((all.admit_task(b), all.admit_task(CgroupId::ROOT)), (Err(Errno::EAGAIN), Ok(())));
        assert_eq!(all.table.lock().groups[&a].events.pids_max, 1);
    }

    #[test]
    fn there_are_not_too_many() {
        let all = Cgroups::default();
        let mut at = CgroupId::ROOT;
        for _ in 0..MOST_DEEP {
            at = all.make(at, b"d").unwrap();
        }
        assert_eq!(all.make(at, b"d"), Err(Errno::EAGAIN));
        let made =
            (0..2 * MOST).filter(|i| all.make(CgroupId::ROOT, i.to_string().as_bytes()).is_ok()).count();
        assert_eq!(made as u64, MOST - MOST_DEEP);
    }
}
