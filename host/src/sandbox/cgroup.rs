//! What the caller's control groups say, in either version of them (cgroups(7)).
//!
//! A limit binds who is in a group and below it: what counts is the tightest of a group and its ancestors, as far as they can
//! be seen. In a container that has no namespace for them, the path of the group is the host's and what is mounted is the
//! container's: then only the root of what is mounted is found, and it is the right one.

use crate::hostsys::told;

const ROOT: &str = "/sys/fs/cgroup";

/// The groups that the caller is in.
pub(super) struct Groups {
    /// `/proc/self/cgroup`: `ID:CONTROLLERS:PATH`, with no controllers in version 2.
    text: String,
}

/// A limit of a group, and how much of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) limit: u64,
    pub(super) used: u64,
}

impl Share {
    /// What can still be had.
    pub(super) fn left(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

impl Groups {
    /// None: the machine has no control groups, or does not show them.
    pub(super) fn own() -> Self {
        Groups { text: told::text("/proc/self/cgroup").unwrap_or_default() }
    }

    /// What `find` finds in the directories of version 2's group and its ancestors, nearest first.
    pub(super) fn in_v2<T>(&self, find: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let path = self.text.lines().find_map(|line| line.strip_prefix("0::"));
        path.map_or_else(Vec::new, |path| self.walk(ROOT, path, find))
    }

    /// The same of a controller of version 1.
    pub(super) fn in_v1<T>(&self, controller: &str, find: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let has = |line: &&str| line.split(':').nth(1).is_some_and(|c| c.split(',').any(|c| c == controller));
        let path = self.text.lines().find(has).and_then(|line| line.splitn(3, ':').nth(2));
        path.map_or_else(Vec::new, |path| self.walk(&format!("{ROOT}/{controller}"), path, find))
    }

    fn walk<T>(&self, root: &str, path: &str, find: impl Fn(&str) -> Option<T>) -> Vec<T> {
        ancestors(path).filter_map(|group| find(&format!("{root}{group}"))).collect()
    }

    /// Limits on memory, bytes. What is used is without files that are only cached: they go when somebody needs the place.
    pub(super) fn memory(&self) -> Vec<Share> {
        let v2 = self.in_v2(|dir| {
            let limit = number(&format!("{dir}/memory.max"))?;
            Some(memory_share(dir, limit, "memory.current", ["active_file ", "inactive_file "]))
        });
        if !v2.is_empty() {
            return v2;
        }
        self.in_v1("memory", |dir| {
            let limit = number(&format!("{dir}/memory.limit_in_bytes"))?;
            let files = ["total_active_file ", "total_inactive_file "];
            // There is a number for "none", too: as many pages as a word can count.
            (limit < i64::MAX as u64 / 2).then(|| memory_share(dir, limit, "memory.usage_in_bytes", files))
        })
    }

    /// Limits on tasks.
    pub(super) fn tasks(&self) -> Vec<Share> {
        let find = |dir: &str| {
            let limit = number(&format!("{dir}/pids.max"))?;
            Some(Share { limit, used: number(&format!("{dir}/pids.current")).unwrap_or(0) })
        };
        let v2 = self.in_v2(find);
        if v2.is_empty() { self.in_v1("pids", find) } else { v2 }
    }
}

fn memory_share(dir: &str, limit: u64, current: &str, files: [&str; 2]) -> Share {
    let used = number(&format!("{dir}/{current}")).unwrap_or(0);
    let stat = told::text(&format!("{dir}/memory.stat")).unwrap_or_default();
    Share { limit, used: used.saturating_sub(cached(&stat, files)) }
}

/// Bytes of cached files by a `memory.stat`.
fn cached(stat: &str, names: [&str; 2]) -> u64 {
    let of = |name| stat.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok());
    names.into_iter().filter_map(of).sum()
}

/// The number in a file; none where it says `max`, or where there is no such file.
pub(super) fn number(path: &str) -> Option<u64> {
    told::text(path)?.trim().parse().ok()
}

/// A group and those above it, down to the root, which is the empty path.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path.trim_end_matches('/')), |p| p.rfind('/').map(|end| &p[..end]))
}

#[cfg(test)]
mod tests {
    use super::{Share, ancestors, cached};

    #[test]
    fn ancestors_end_at_the_root() {
        assert_eq!(ancestors("/a/b").collect::<Vec<_>>(), ["/a/b", "/a", ""]);
        assert_eq!(ancestors("/").collect::<Vec<_>>(), [""]);
    }

    #[test]
    fn cached_files_are_counted_once() {
        let stat = "anon 5\nfile 100\ninactive_file 70\nactive_file 30\nshmem 7\n";
        assert_eq!(cached(stat, ["active_file ", "inactive_file "]), 100);
        assert_eq!(cached(stat, ["total_active_file ", "total_inactive_file "]), 0);
    }

    #[test]
    fn more_than_everything_leaves_nothing() {
        assert_eq!(Share { limit: 10, used: 11 }.left(), 0);
        assert_eq!(Share { limit: 10, used: 4 }.left(), 6);
    }
}
