//! Controllers, and the settings of a group.

use super::{CgroupId, Cgroups, Group, Table};
use crate::abi::{Errno, Result};
use crate::mm::PAGE_SIZE;

bitflags::bitflags! {
    /// What can be divided among groups.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Controllers: u8 {
        /// CPUs by number.
        const CPUSET = 1;
        /// CPU time.
        const CPU = 2;
        /// Disks.
        const IO = 4;
        /// Memory.
        const MEMORY = 8;
        /// Tasks.
        const PIDS = 16;
    }
}

impl Controllers {
    /// Those that divide what no thread has for itself: a group either has processes or divides it.
    pub(super) const OF_DOMAINS: Controllers = Controllers::IO.union(Controllers::MEMORY);

    /// Their names, in Linux's order.
    pub const NAMES: [(&'static str, Controllers); 5] = [
        ("cpuset", Controllers::CPUSET),
        ("cpu", Controllers::CPU),
        ("io", Controllers::IO),
        ("memory", Controllers::MEMORY),
        ("pids", Controllers::PIDS),
    ];

    /// As files list them.
    pub fn list(self) -> String {
        let names: Vec<&str> =
            Self::NAMES.iter().filter(|(_, one)| self.contains(*one)).map(|(name, _)| *name).collect();
        names.join(" ")
    }

    fn named(name: &str) -> Result<Controllers> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, one)| *one).ok_or(Errno::EINVAL)
    }
}

/// A number, or none: `max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit(pub Option<u64>);

impl Limit {
    /// Whether there may be so many.
    pub fn allows(self, count: u64) -> bool {
        self.0.is_none_or(|limit| count <= limit)
    }

    /// `max`, or a number.
    ///
    /// # Errors
    /// EINVAL.
    pub fn parse(text: &str) -> Result<Limit> {
        match text.trim() {
            "max" => Ok(Limit(None)),
            number => number.parse().map(|number| Limit(Some(number))).map_err(|_| Errno::EINVAL),
        }
    }

    /// The same in bytes, with K, M, G or T behind the number; whole pages.
    ///
    /// # Errors
    /// EINVAL.
    pub fn parse_bytes(text: &str) -> Result<Limit> {
        let text = text.trim();
        let shift = match text.as_bytes().last() {
            Some(b'k' | b'K') => 10,
            Some(b'm' | b'M') => 20,
            Some(b'g' | b'G') => 30,
            Some(b't' | b'T') => 40,
            _ => 0,
        };
        let Limit(number) = Self::parse(if shift == 0 { text } else { &text[..text.len() - 1] })?;
        match number {
            // A letter behind `max` is none.
            None if shift != 0 => Err(Errno::EINVAL),
            number => Ok(Limit(number.map(|number| number.saturating_mul(1 << shift) & !(PAGE_SIZE - 1)))),
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(number) => write!(f, "{number}"),
            None => f.write_str("max"),
        }
    }
}

/// What has happened to a group and those below it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Events {
    /// A task was not made.
    pub pids_max: u64,
    /// There was more memory than there may be.
    pub memory_max: u64,
    /// Nothing but killing somebody helped.
    pub oom: u64,
    /// Processes killed for that.
    pub oom_kill: u64,
    /// How often all of them were.
    pub oom_group_kill: u64,
}

/// A setting that is a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// pids.max
    Tasks,
    /// memory.max
    Memory,
    /// memory.swap.max: there is no swap, so any number holds.
    Swap,
    /// cgroup.max.depth
    Depth,
    /// cgroup.max.descendants
    Descendants,
}

impl Group {
    fn limit(&mut self, setting: Setting) -> &mut Limit {
        match setting {
            Setting::Tasks => &mut self.max_tasks,
            Setting::Memory => &mut self.memory.max,
            Setting::Swap => &mut self.memory.swap_max,
            Setting::Depth => &mut self.max_depth,
            Setting::Descendants => &mut self.max_descendants,
        }
    }

    /// Forgets the settings of controllers that it has no more.
    fn reset(&mut self, gone: Controllers) {
        if gone.contains(Controllers::PIDS) {
            self.max_tasks = Limit(None);
        }
        if gone.contains(Controllers::MEMORY) {
            self.memory = Default::default();
        }
    }
}

impl Table {
    fn controllers(&self, id: CgroupId) -> Controllers {
        let parent = self.groups.get(&id).and_then(|group| group.parent);
        parent.map_or(Controllers::all(), |parent| {
            self.groups.get(&parent).map_or(Controllers::empty(), |up| up.enabled)
        })
    }
}

impl Cgroups {
    /// The controllers that a group has.
    pub fn controllers(&self, id: CgroupId) -> Controllers {
        self.table.lock().controllers(id)
    }

    /// The controllers that its children have.
    pub fn enabled(&self, id: CgroupId) -> Controllers {
        self.table.lock().groups.get(&id).map_or(Controllers::empty(), |group| group.enabled)
    }

    /// Gives children controllers (`+NAME`), and takes others away (`-NAME`): all of it or nothing.
    ///
    /// # Errors
    /// EINVAL for what is none, ENOENT for one that the group itself does not have, EBUSY where a child gives one that is to be
    /// taken away on to its own, or the group has processes.
    pub fn enable(&self, id: CgroupId, text: &str) -> Result<()> {
        let (mut more, mut less) = (Controllers::empty(), Controllers::empty());
        for word in text.split_ascii_whitespace() {
            let (on, name) = match (word.strip_prefix('+'), word.strip_prefix('-')) {
                (Some(name), _) => (true, name),
                (_, Some(name)) => (false, name),
                _ => return Err(Errno::EINVAL),
            };
            let one = Controllers::named(name)?;
            more.set(one, on);
            less.set(one, !on);
        }
        let mut table = self.table.lock();
        let has = table.controllers(id);
        let group = table.living(id)?;
        more -= group.enabled;
        if !has.contains(more) {
            return Err(Errno::ENOENT);
        }
        // The root's processes are the sandbox's own, as in the root of a machine.
        if id != CgroupId::ROOT && group.processes != 0 && more.intersects(Controllers::OF_DOMAINS) {
            return Err(Errno::EBUSY);
        }
        if table.groups.values().any(|child| child.parent == Some(id) && child.enabled.intersects(less)) {
            return Err(Errno::EBUSY);
        }
        table.living(id)?.enabled = (table.living(id)?.enabled | more) - less;
        for child in table.groups.values_mut().filter(|child| child.parent == Some(id)) {
            child.reset(less);
        }
        Ok(())
    }

    /// What a setting is.
    ///
    /// # Errors
    /// ENODEV for a group that was removed.
    pub fn limit(&self, id: CgroupId, setting: Setting) -> Result<Limit> {
        Ok(*self.table.lock().living(id)?.limit(setting))
    }

    /// Changes it.
    ///
    /// # Errors
    /// ENODEV for a group that was removed.
    pub fn set_limit(&self, id: CgroupId, setting: Setting, limit: Limit) -> Result<()> {
        *self.table.lock().living(id)?.limit(setting) = limit;
        if setting == Setting::Memory {
            self.call();
        }
        Ok(())
    }

    /// What has happened to a group and those below it.
    ///
    /// # Errors
    /// ENODEV for a group that was removed.
    pub fn events(&self, id: CgroupId) -> Result<Events> {
        Ok(self.table.lock().living(id)?.events)
    }

    /// Tasks in it and below, and the most that there have been.
    ///
    /// # Errors
    /// ENODEV for a group that was removed.
    pub fn tasks(&self, id: CgroupId) -> Result<(u64, u64)> {
        self.table.lock().living(id).map(|group| (group.tasks, group.peak_tasks))
    }

    /// How many groups are below it.
    ///
    /// # Errors
    /// ENODEV for a group that was removed.
    pub fn descendants(&self, id: CgroupId) -> Result<u64> {
        self.table.lock().living(id).map(|group| group.descendants)
    }

    /// Whether there are processes in it or below.
    ///
    /// # Errors
    /// ENODEV for a group that was removed.
    pub fn is_populated(&self, id: CgroupId) -> Result<bool> {
        let mut table = self.table.lock();
        let own = table.living(id)?.processes != 0;
        Ok(id == CgroupId::ROOT || own || table.below(id).any(|(_, group)| group.processes != 0))
    }

    /// Whether its processes are killed together.
    ///
    /// # Errors
    /// ENODEV for a group that was removed.
    pub fn dies_together(&self, id: CgroupId) -> Result<bool> {
        Ok(self.table.lock().living(id)?.memory.oom_group)
    }

    /// Says whether they are.
    ///
    /// # Errors
    /// ENODEV for a group that was removed.
    pub fn set_dies_together(&self, id: CgroupId, together: bool) -> Result<()> {
        self.table.lock().living(id)?.memory.oom_group = together;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{CgroupId, Cgroups, Controllers, Errno, Limit, Setting};

    #[test]
    fn limits_are_numbers_or_none() {
        assert_eq!((Limit::parse("max\n"), Limit::parse("12\n")), (Ok(Limit(None)), Ok(Limit(Some(12)))));
        assert_eq!(Limit::parse_bytes("1m"), Ok(Limit(Some(1 << 20))));
        assert_eq!(Limit::parse_bytes("4097"), Ok(Limit(Some(4096))));
        assert_eq!(Limit::parse_bytes("99999999999T"), Ok(Limit(Some(!4095))));
        for bad in ["", "-1", "x", "1x", "1 2", "maxm"] {
            assert_eq!(Limit::parse_bytes(bad), Err(Errno::EINVAL), "{bad}");
        }
    }

    #[test]
    fn controllers_are_handed_down() {
        let all = Cgroups::default();
        let a = all.make(CgroupId::ROOT, b"a").unwrap();
        let b = all.make(a, b"b").unwrap();
        assert_eq!(
            (all.controllers(CgroupId::ROOT), all.controllers(a)),
            (Controllers::all(), Controllers::empty())
        );
        assert_eq!(all.enable(a, "+pids"), Err(Errno::ENOENT));
        assert_eq!(all.enable(CgroupId::ROOT, "+pids +memory\n"), Ok(()));
        assert_eq!((all.enable(a, "+pids"), all.controllers(b).list()), (Ok(()), "pids".to_owned()));
        assert_eq!(all.enable(CgroupId::ROOT, "-pids"), Err(Errno::EBUSY));
        assert_eq!((all.enable(a, "pids"), all.enable(a, "+cars")), (Err(Errno::EINVAL), Err(Errno::EINVAL)));
        all.set_limit(b, Setting::Tasks, Limit(Some(1))).unwrap();
        assert_eq!((all.enable(a, "-pids"), all.limit(b, Setting::Tasks)), (Ok(()), Ok(Limit(None))));
    }

    #[test]
    fn what_has_processes_divides_no_memory() {
        let all = Cgroups::default();
        let a = all.make(CgroupId::ROOT, b"a").unwrap();
        all.enable(CgroupId::ROOT, "+memory +pids").unwrap();
        all.enter(a, 1, 1).unwrap();
        assert_eq!((all.enable(a, "+memory"), all.enable(a, "+pids")), (Err(Errno::EBUSY), Ok(())));
        assert_eq!((all.is_populated(a), all.enter(a, 1, 0)), (Ok(true), Ok(())));
        all.discount(a, 2, 1, 0);
        assert_eq!(
            (all.enable(a, "+memory"), all.enter(a, 1, 1), all.is_populated(a)),
            (Ok(()), Err(Errno::EBUSY), Ok(false))
        );
    }
}
