//! How many CPUs a sandbox gets: one worker each.

use super::cgroup::Groups;
use crate::hostsys::told;

/// CPUs granted: what was asked for, else those the caller may run on; no more than the cgroup's quota pays for where
/// `groups` are given. At least one.
pub(super) fn granted(asked: Option<usize>, groups: Option<&Groups>) -> usize {
    let allowed = crate::hostsys::cpu::affinity_count().unwrap_or(1);
    let count = asked.unwrap_or(allowed);
    groups.and_then(quota).map_or(count, |quota| count.min(quota)).max(1)
}

/// The quota of the caller's cgroup, rounded up to whole CPUs; `None` where there is no limit.
fn quota(groups: &Groups) -> Option<usize> {
    // Version 2: `cpu.max` holds `QUOTA PERIOD` or `max PERIOD`. Version 1: two files, -1 for no limit.
    let v2 = groups.in_v2(|dir| parse_max(&told::text(&format!("{dir}/cpu.max"))?));
    let read =
        |dir: &str, file: &str| -> Option<i64> { told::text(&format!("{dir}/{file}"))?.trim().parse().ok() };
    let v1 = |dir: &str| whole(read(dir, "cpu.cfs_quota_us")?, read(dir, "cpu.cfs_period_us")?);
    v2.into_iter().min().or_else(|| groups.in_v1("cpu", v1).into_iter().min())
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
    use super::parse_max;

    #[test]
    fn quotas_round_up() {
        assert_eq!(parse_max("150000 100000\n"), Some(2));
        assert_eq!(parse_max("50000 100000\n"), Some(1));
        assert_eq!(parse_max("max 100000\n"), None);
    }
}
