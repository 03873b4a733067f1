//! The control groups of a container, in version 1, in version 2, and where a host has both (cgroups(7)).
//!
//! The sandbox's process joins them before it does anything else: what it uses is charged there, and its kernel finds its
//! limits by them. `libcgroups` was tried on paper and left: it comes with a specification of another version and with D-Bus,
//! and what is needed of it is a dozen files to write. Devices are not restricted here: programs in a sandbox reach none of
//! the host's.

use super::error::{Doing, Error, Result};
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Tasks outside that a task inside may take, and those that are there anyway.
const TASKS_EACH: i64 = 4;
const TASKS_OURS: i64 = 64;

/// A container's directories.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Group {
    /// Of version 1, with the names of the controllers.
    v1: Vec<(String, PathBuf)>,
    v2: Option<PathBuf>,
}

/// A mounted hierarchy: controllers (none for version 2), place.
fn hierarchies() -> Vec<(Option<String>, PathBuf)> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(hierarchy).collect()
}

/// By a line of mountinfo: `id parent dev root place options [fields] - type source super-options`.
fn hierarchy(line: &str) -> Option<(Option<String>, PathBuf)> {
    let (mount, of) = line.split_once(" - ")?;
    let place = PathBuf::from(mount.split(' ').nth(4)?);
    let mut of = of.split(' ');
    match (of.next()?, of.nth(1)?) {
        ("cgroup2", _) => Some((None, place)),
        ("cgroup", options) => {
            let known = |word: &&str| !matches!(*word, "rw" | "ro" | "xattr" | "clone_children");
            let names: Vec<&str> = options.split(',').filter(known).collect();
            Some((Some(names.join(",")), place))
        }
        _ => None,
    }
}

/// The path below a hierarchy that a specification asks for: `/a/b`, or systemd's `slice:prefix:name`.
fn path_of(asked: Option<&Path>, id: &str) -> PathBuf {
    let Some(asked) = asked.filter(|asked| !asked.as_os_str().is_empty()) else {
        return PathBuf::from("pillbox").join(id);
    };
    let text = asked.to_string_lossy();
    if let [slice, prefix, name] = text.split(':').collect::<Vec<_>>()[..] {
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        return PathBuf::from(slice).join(format!("{prefix}-{name}.scope"));
    }
    // Nothing leads out of the hierarchy.
    asked.components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect()
}

impl Group {
    /// Makes the directories.
    pub(super) fn create(asked: Option<&Path>, id: &str) -> Result<Group> {
        let path = path_of(asked, id);
        let mut group = Group::default();
        let all = hierarchies();
        let hybrid = all.iter().any(|(names, _)| names.is_some());
        for (names, place) in all {
            let dir = place.join(&path);
            let made = std::fs::create_dir_all(&dir);
            match (made, names) {
                // A second tree for a few controllers, which nobody asks for much.
                (Err(_), None) if hybrid => {}
                (Err(error), _) => {
                    let error = Error::new(format!("control group {}: {error}", dir.display()));
                    // What is made already goes again.
                    return group.remove().and(Err(error));
                }
                (Ok(()), Some(names)) => {
                    if names.split(',').any(|name| name == "cpuset") {
                        inherit_cpuset(&place, &path);
                    }
                    group.v1.push((names, dir));
                }
                (Ok(()), None) => {
                    if !hybrid {
                        enable(&place, &path);
                    }
                    group.v2 = Some(dir);
                }
            }
        }
        Ok(group)
    }

    /// The directory of a controller of version 1.
    fn v1(&self, controller: &str) -> Option<&Path> {
        let has = |names: &str| names.split(',').any(|name| name == controller);
        self.v1.iter().find(|(names, _)| has(names)).map(|(_, dir)| dir.as_path())
    }

    /// The directory of version 2, where it has the controllers.
    fn v2(&self) -> Option<&Path> {
        self.v2.as_deref().filter(|_| self.v1.is_empty())
    }

    /// The calling process, and what it starts, is in it from now on.
    pub(super) fn join(&self) -> Result<()> {
        for dir in self.v1.iter().map(|(_, dir)| dir).chain(&self.v2) {
            let file = dir.join("cgroup.procs");
            match std::fs::write(&file, "0") {
                // The second tree of a hybrid host.
                Err(_) if self.v2.as_ref() == Some(dir) && !self.v1.is_empty() => {}
                other => other.doing(|| format!("joining control group {}", dir.display()))?,
            }
        }
        Ok(())
    }

    /// Sets limits; what cannot be set is said.
    pub(super) fn apply(&self, resources: &LinuxResources) -> Result<()> {
        for (file, value) in self.settings(resources) {
            // What the host does not have (swap accounting, a controller) limits nothing.
            match std::fs::write(&file, &value) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => other.doing(|| format!("writing {value} to {}", file.display()))?,
            }
        }
        Ok(())
    }

    /// Files and what goes into them, in an order that holds.
    fn settings(&self, resources: &LinuxResources) -> Vec<(PathBuf, String)> {
        let mut all = Vec::new();
        let mut add = |dir: Option<&Path>, file: &str, value: Option<String>| {
            if let (Some(dir), Some(value)) = (dir, value) {
                all.push((dir.join(file), value));
            }
        };
        if let Some(memory) = resources.memory() {
            let (v1, v2) = (self.v1("memory"), self.v2());
            let limit = memory.limit().filter(|limit| *limit != 0);
            add(v1, "memory.limit_in_bytes", limit.map(|limit| limit.to_string()));
            add(v2, "memory.max", limit.map(or_max));
            let reserve = memory.reservation().filter(|reserve| *reserve != 0);
            add(v1, "memory.soft_limit_in_bytes", reserve.map(|reserve| reserve.to_string()));
            add(v2, "memory.low", reserve.map(or_max));
        }
        if let Some(cpu) = resources.cpu() {
            let (v1, v2) = (self.v1("cpu"), self.v2());
            let shares = cpu.shares().filter(|shares| *shares != 0);
            add(v1, "cpu.shares", shares.map(|shares| shares.to_string()));
            add(v2, "cpu.weight", shares.map(|shares| weight(shares).to_string()));
            let period = cpu.period().filter(|period| *period != 0);
            add(v1, "cpu.cfs_period_us", period.map(|period| period.to_string()));
            let quota = cpu.quota().filter(|quota| *quota != 0);
            add(v1, "cpu.cfs_quota_us", quota.map(|quota| quota.to_string()));
            let max = |quota: i64| format!("{} {}", or_max(quota), period.unwrap_or(100_000));
            add(v2, "cpu.max", quota.map(max));
            let sets = self.v1("cpuset").or(self.v2());
            add(sets, "cpuset.cpus", cpu.cpus().clone().filter(|cpus| !cpus.is_empty()));
            add(sets, "cpuset.mems", cpu.mems().clone().filter(|mems| !mems.is_empty()));
        }
        if let Some(limit) = resources.pids().map(|pids| pids.limit()).filter(|limit| *limit != 0) {
            // The sandbox's kernel counts the tasks inside.
            let outside = if limit < 0 { -1 } else { limit.saturating_mul(TASKS_EACH) + TASKS_OURS };
            add(self.v1("pids").or(self.v2()), "pids.max", Some(or_max(outside)));
        }
        let weight = resources.block_io().as_ref().and_then(|io| io.weight()).filter(|weight| *weight != 0);
        add(self.v1("blkio"), "blkio.weight", weight.map(|weight| weight.to_string()));
        add(self.v2(), "io.weight", weight.map(|weight| weight.to_string()));
        if let (Some(dir), Some(unified)) = (self.v2(), resources.unified()) {
            for (file, value) in unified.iter().filter(|(file, _)| !file.contains('/')) {
                all.push((dir.join(file), value.clone()));
            }
        }
        all
    }

    /// Stops all of it, or lets it go on.
    pub(super) fn freeze(&self, frozen: bool) -> Result<()> {
        let (file, word) = match (self.v1("freezer"), self.v2()) {
            (Some(dir), _) => (dir.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" }),
            (None, Some(dir)) => (dir.join("cgroup.freeze"), if frozen { "1" } else { "0" }),
            _ => return Err(Error::new("the host has no control group that pauses processes")),
        };
        std::fs::write(&file, word).doing(|| format!("writing {word} to {}", file.display()))
    }

    /// Whether it is stopped, or about to be.
    pub(super) fn is_frozen(&self) -> bool {
        let read = |dir: Option<&Path>, file: &str| std::fs::read_to_string(dir?.join(file)).ok();
        read(self.v1("freezer"), "freezer.state").is_some_and(|state| state.trim() != "THAWED")
            || read(self.v2(), "cgroup.freeze").is_some_and(|state| state.trim() == "1")
    }

    /// What it uses, as `events` shows it.
    pub(super) fn usage(&self) -> serde_json::Value {
        let number = |dir: Option<&Path>, file: &str| -> Option<u64> {
            std::fs::read_to_string(dir?.join(file)).ok()?.trim().parse().ok()
        };
        let (memory, pids, v2) = (self.v1("memory"), self.v1("pids"), self.v2());
        let stat = v2.and_then(|dir| std::fs::read_to_string(dir.join("cpu.stat")).ok()).unwrap_or_default();
        let of_stat = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse::<u64>().ok());
        let cpu = number(self.v1("cpuacct"), "cpuacct.usage").or(of_stat.map(|us| us * 1000));
        serde_json::json!({
            "cpu": { "usage": { "total": cpu.unwrap_or(0) } },
            "memory": { "usage": {
                "usage": number(memory, "memory.usage_in_bytes").or(number(v2, "memory.current")).unwrap_or(0),
                "max": number(memory, "memory.max_usage_in_bytes").or(number(v2, "memory.peak")).unwrap_or(0),
                "limit": number(memory, "memory.limit_in_bytes").or(number(v2, "memory.max")).unwrap_or(u64::MAX),
            } },
            "pids": {
                "current": number(pids.or(v2), "pids.current").unwrap_or(0),
                "limit": number(pids.or(v2), "pids.max").unwrap_or(0),
            },
        })
    }

    /// The limit on memory, where there is one.
    pub(super) fn is_empty(&self) -> bool {
        self.v1.is_empty() && self.v2.is_none()
    }

    /// Removes the directories, once the last process has left them.
    pub(super) fn remove(&self) -> Result<()> {
        let mut result = Ok(());
        for dir in self.v1.iter().map(|(_, dir)| dir).chain(&self.v2) {
            result = result.and(remove(dir));
        }
        result
    }
}

/// Processes that were killed a moment ago may still be there.
fn remove(dir: &Path) -> Result<()> {
    for _ in 0..500 {
        match std::fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    std::fs::remove_dir(dir).doing(|| format!("removing control group {}", dir.display()))
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// Version 1's shares, 2 to 262144, as version 2's weight, 1 to 10000.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// A new group of version 1 has no CPUs and no memory nodes until it is given some: its parent's.
fn inherit_cpuset(place: &Path, path: &Path) {
    let mut dir = place.to_path_buf();
    for part in path {
        let parent = dir.clone();
        dir.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
            if own.trim().is_empty()
                && let Ok(theirs) = std::fs::read(parent.join(file))
            {
                // Joining tells.
                let _set = std::fs::write(dir.join(file), theirs);
            }
        }
    }
}

/// Has the groups above a new one of version 2 hand their controllers down.
fn enable(place: &Path, path: &Path) {
    let mut dir = place.to_path_buf();
    for part in path {
        for name in
            std::fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default().split_whitespace()
        {
            // Limits that cannot be set then tell.
            let _set = std::fs::write(dir.join("cgroup.subtree_control"), format!("+{name}"));
        }
        dir.push(part);
    }
}

#[cfg(test)]
mod tests {
    use super::{hierarchy, or_max, path_of, weight};
    use std::path::Path;

    #[test]
    fn paths_stay_inside() {
        let path = |asked: &str| path_of(Some(Path::new(asked)), "c").display().to_string();
        assert_eq!(path("/docker/c"), "docker/c");
        assert_eq!(path("/../../a"), "a");
        assert_eq!(path("user.slice:libpod:c"), "user.slice/libpod-c.scope");
        assert_eq!(path(""), "pillbox/c");
    }

    #[test]
    fn hierarchies_are_told_apart() {
        let v1 = "33 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct";
        assert_eq!(
            hierarchy(v1),
            Some((Some("cpu,cpuacct".to_owned()), "/sys/fs/cgroup/cpu,cpuacct".into()))
        );
        let v2 = "33 25 0:28 / /sys/fs/cgroup rw shared:4 - cgroup2 none rw,nsdelegate";
        assert_eq!(hierarchy(v2), Some((None, "/sys/fs/cgroup".into())));
        assert_eq!(hierarchy("1 2 0:1 / / rw - ext4 /dev/vda rw"), None);
    }

    #[test]
    fn weights_and_limits() {
        assert_eq!((weight(2), weight(262_144), weight(1024)), (1, 10_000, 39));
        assert_eq!((or_max(-1), or_max(5)), ("max".to_owned(), "5".to_owned()));
    }
}
