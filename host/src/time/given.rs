//! Times that programs give.
//!
//! A program may say any number of seconds. What becomes of it here is what Linux makes of it (include/linux/ktime.h,
//! `timespec64_to_ktime`): at most [`Given::MAX`], which is never. Two of them still add up in a `u64`, and every sum stops
//! at the same end, so that no moment ever lies before the one that it is counted from.

use super::NSEC_PER_SEC;

/// A length of time, or a moment of some clock, as a program gives it: nanoseconds, [`MAX`](Self::MAX) at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Given(u64);

impl Given {
    /// For ever: `KTIME_MAX`, 292 years.
    pub const MAX: Given = Given(i64::MAX as u64);

    /// As much of so many nanoseconds as there is.
    pub const fn from_ns(ns: u64) -> Self {
        if ns > Self::MAX.0 { Self::MAX } else { Given(ns) }
    }

    /// Seconds and a rest in parts of a second of `part` nanoseconds. None if either is not what it should be.
    pub fn from_parts(sec: i64, rest: i64, part: u64) -> Option<Self> {
        let (sec, rest) = (u64::try_from(sec).ok()?, u64::try_from(rest).ok()?);
        if rest >= NSEC_PER_SEC / part {
            return None;
        }
        Some(Self::from_ns(sec.saturating_mul(NSEC_PER_SEC).saturating_add(rest * part)))
    }

    /// In nanoseconds.
    pub const fn ns(self) -> u64 {
        self.0
    }

    /// So much later than `moment`.
    pub const fn after(self, moment: u64) -> u64 {
        Self::from_ns(moment.saturating_add(self.0)).0
    }

    /// What a timer does that was due at `due` and then every so often, and is looked at at `now`: how many times it has
    /// expired beyond the first, and when it does so next. None if it does so once only.
    pub fn periods(self, due: u64, now: u64) -> Option<(u64, u64)> {
        let missed = now.saturating_sub(due).checked_div(self.0)?;
        let passed = self.0.saturating_mul(missed.saturating_add(1));
        Some((missed, Given::from_ns(passed).after(due)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Given, NSEC_PER_SEC};

    const MAX: u64 = Given::MAX.0;

    /// Around everything where arithmetic changes.
    fn edges() -> Vec<u64> {
        let around = |n: u64| [n.wrapping_sub(1), n, n.wrapping_add(1)];
        let powers = (0..64).flat_map(|bit| around(1 << bit));
        let seconds = [NSEC_PER_SEC, MAX / NSEC_PER_SEC, MAX / 2, u64::MAX / NSEC_PER_SEC].map(around);
        let mut edges: Vec<u64> = powers.chain(seconds.into_iter().flatten()).collect();
        edges.sort_unstable();
        edges.dedup();
        edges
    }

    #[test]
    fn parts_are_read_as_linux_reads_them() {
        for sec in edges() {
            for rest in [0, 1, 999_999, 1_000_000, 999_999_999, 1_000_000_000, u64::MAX] {
                for part in [1, 1000] {
                    let given = Given::from_parts(sec.cast_signed(), rest.cast_signed(), part);
                    let right = sec <= i64::MAX as u64 && rest < NSEC_PER_SEC / part;
                    let exact =
                        u128::from(sec) * u128::from(NSEC_PER_SEC) + u128::from(rest) * u128::from(part);
                    let want = right.then(|| exact.min(MAX.into()));
                    assert_eq!(given.map(|given| u128::from(given.ns())), want, "{sec} {rest} {part}");
                }
            }
        }
    }

    #[test]
    fn sums_stop_at_the_end() {
        for length in edges() {
            for moment in edges() {
                let given = Given::from_ns(length);
                let want = (u128::from(moment) + u128::from(given.ns())).min(MAX.into());
                assert_eq!(u128::from(given.after(moment)), want, "{length} {moment}");
            }
        }
    }

    #[test]
    fn the_next_expiry_lies_ahead_or_never_comes() {
        let moments: Vec<u64> = edges().into_iter().filter(|moment| *moment <= MAX).collect();
        for interval in &moments {
            for due in &moments {
                for now in moments.iter().filter(|now| *now >= due) {
                    let Some((missed, next)) = Given::from_ns(*interval).periods(*due, *now) else {
                        assert_eq!(*interval, 0);
                        continue;
                    };
                    assert_eq!(missed, (now - due) / interval);
                    assert!(next > *now || next == MAX, "{interval} {due} {now}: {next}");
                    // Not too far ahead, either.
                    assert!(next == MAX || next - now <= *interval, "{interval} {due} {now}: {next}");
                }
            }
        }
    }
}
