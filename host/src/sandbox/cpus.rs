//! How many CPUs a sandbox gets: one worker each.

use super::cgroup::Groups;
use crate::hostsys::told;

/// CPUs granted: what was asked for, else those the caller may run on; no more than a quota pays for, where one is given. At
/// least one.
pub(super) fn granted(asked: Option<usize>, quota: Option<(u64, u64)>) -> usize {
    let allowed = crate::hostsys::cpu::affinity_count().unwrap_or(1);
    let count = asked.unwrap_or(allowed);
    let whole = |(quota, period): (u64, u64)| usize::try_from(quota.div_ceil(period)).ok();
    quota.and_then(whole).map_or(count, |quota| count.min(quota)).max(1)
}

/// The tightest quota of the caller's cgroups: so many microseconds of CPU time in so many; `None` where there is no limit.
pub(super) fn quota(groups: &Groups) -> Option<(u64, u64)> {
    // Version 2: `cpu.max` holds `QUOTA PERIOD` or `max PERIOD`. Version 1: two files, -1 for no limit.
    let v2 = groups.in_v2(|dir| parse_max(&told::text(&format!("{dir}/cpu.max"))?));
    let read =
        |dir: &str, file: &str| -> Option<i64> { told::text(&format!("{dir}/{file}"))?.trim().parse().ok() };
    let v1 = |dir: &str| positive(read(dir, "cpu.cfs_quota_us")?, read(dir, "cpu.cfs_period_us")?);
    let all = if v2.is_empty() { groups.in_v1("cpu", v1) } else { v2 };
    all.into_iter().min_by(|a, b| (a.0.saturating_mul(b.1)).cmp(&b.0.saturating_mul(a.1)))
}

fn parse_max(text: &str) -> Option<(u64, u64)> {
    let mut words = text.split_whitespace();
    positive(words.next()?.parse().ok()?, words.next()?.parse().ok()?)
}

fn positive(quota: i64, period: i64) -> Option<(u64, u64)> {
    (quota > 0 && period > 0).then_some((quota as u64, period as u64))
}

#[cfg(test)]
mod tests {
    use super::parse_max;

    #[test]
    fn quotas_are_read() {
        assert_eq!(parse_max("150000 100000\n"), Some((150_000, 100_000)));
        assert_eq!((parse_max("0 100000\n"), parse_max("1 0")), (None, None));
        assert_eq!(parse_max("max 100000\n"), None);
    }
}
