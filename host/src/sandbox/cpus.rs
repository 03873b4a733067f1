//! How many CPUs a sandbox gets: one worker each.

/// CPUs granted: what was asked for, else those the caller may run on; no more than the cgroup's quota pays for where
/// `from_quota` says so. At least one.
pub(super) fn granted(asked: Option<usize>, from_quota: bool) -> usize {
    let allowed = crate::hostsys::cpu::affinity_count().unwrap_or(1);
    let count = asked.unwrap_or(allowed);
    let quota = if from_quota { quota() } else { None };
    quota.map_or(count, |q| count.min(q)).max(1)
}

/// The quota of the caller's cgroup, rounded up to whole CPUs; `None` where there is no limit.
fn quota() -> Option<usize> {
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    quota_v2(&cgroups).or_else(|| quota_v1(&cgroups))
}

/// cgroup v2: `cpu.max` holds `QUOTA PERIOD` or `max PERIOD`; the tightest ancestor counts.
fn quota_v2(cgroups: &str) -> Option<usize> {
    let path = cgroups.lines().find_map(|l| l.strip_prefix("0::"))?;
    ancestors(path)
        .filter_map(|group| std::fs::read_to_string(format!("/sys/fs/cgroup{group}/cpu.max")).ok())
        .filter_map(|text| parse_max(&text))
        .min()
}

/// cgroup v1: two files, -1 for no limit.
fn quota_v1(cgroups: &str) -> Option<usize> {
    let line =
        cgroups.lines().find(|l| l.split(':').nth(1).is_some_and(|c| c.split(',').any(|c| c == "cpu")))?;
    let path = line.splitn(3, ':').nth(2)?;
    let read = |group: &str, file: &str| -> Option<i64> {
        std::fs::read_to_string(format!("/sys/fs/cgroup/cpu{group}/{file}")).ok()?.trim().parse().ok()
    };
    ancestors(path).filter_map(|g| whole(read(g, "cpu.cfs_quota_us")?, read(g, "cpu.cfs_period_us")?)).min()
}

fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path.trim_end_matches('/')), |p| p.rfind('/').map(|end| &p[..end]))
}

fn parse_max(text: &str) -> Option<usize> {
    let mut words = text.split_whitespace();
    whole(words.next()?.parse().ok()?, words.next()?.parse().ok()?)
}

fn whole(quota: i64, period: i64) -> Option<usize> {
    if quota <= 0 || period <= 0 {
        return None;
    }
    usize::try_from((quota + period - 1) / period).ok()
}

#[cfg(test)]
mod tests {
    use super::{ancestors, parse_max};

    #[test]
    fn quotas_round_up() {
        assert_eq!(parse_max("150000 100000\n"), Some(2));
        assert_eq!(parse_max("50000 100000\n"), Some(1));
        assert_eq!(parse_max("max 100000\n"), None);
    }

    #[test]
    fn ancestors_end_at_the_root() {
        assert_eq!(ancestors("/a/b").collect::<Vec<_>>(), ["/a/b", "/a", ""]);
        assert_eq!(ancestors("/").collect::<Vec<_>>(), [""]);
    }
}
