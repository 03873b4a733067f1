//! Time namespaces: by how much the clocks that count from the start of the machine are put forward (time_namespaces(7)).
//!
//! Nobody is in a new one at first: who makes it has his children born there, and says meanwhile how far its clocks are on.
//! From when the first is there that stays so: each process has a copy of it ([`ThreadGroup`](crate::kernel::ThreadGroup)), which
//! costs nothing to look at.

use crate::abi::{Errno, Result};
use crate::sync::{Lock, Rank};
use crate::time::{NSEC_PER_SEC, monotonic_ns};
use core::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::Arc;

/// The latest second that clocks can show (KTIME_SEC_MAX); they are put forward to half of it at most.
const LATEST: i64 = i64::MAX / NSEC_PER_SEC as i64;

/// Which of the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shifted {
    /// CLOCK_MONOTONIC and its like.
    Monotonic,
    /// CLOCK_BOOTTIME and its like.
    Boottime,
}

impl Shifted {
    const ALL: [(Shifted, &'static str, &'static str); 2] =
        [(Shifted::Monotonic, "monotonic", "1"), (Shifted::Boottime, "boottime", "7")];
}

/// By how much clocks are put forward, ns.
#[derive(Default)]
pub struct Shifts([AtomicI64; 2]);

impl Shifts {
    /// By how much one is.
    #[inline]
    pub fn of(&self, clock: Shifted) -> i64 {
        self.0[clock as usize].load(Ordering::Relaxed)
    }

    fn set(&self, [monotonic, boottime]: [i64; 2]) {
        self.0[0].store(monotonic, Ordering::Relaxed);
        self.0[1].store(boottime, Ordering::Relaxed);
    }

    /// Becomes what others are.
    pub fn follow(&self, other: &Shifts) {
        self.set([other.of(Shifted::Monotonic), other.of(Shifted::Boottime)]);
    }

    /// What a clock shows that shows `ns` in the first namespace.
    #[inline]
    pub fn inside(&self, clock: Shifted, ns: u64) -> u64 {
        ns.saturating_add_signed(self.of(clock))
    }

    /// The other way round; what lies before the start lies at it.
    #[inline]
    pub fn outside(&self, clock: Shifted, ns: u64) -> u64 {
        match self.of(clock) {
            shift @ 0.. => ns.saturating_sub(shift as u64),
            shift => ns.saturating_add(shift.unsigned_abs()),
        }
    }
}

/// A time namespace.
pub struct TimeNs {
    /// ns.
    shifts: Lock<[i64; 2]>,
    /// Somebody is in it.
    entered: AtomicBool,
}

impl TimeNs {
    /// One like another, in which nobody is yet; without another the first.
    pub(super) fn like(other: Option<&TimeNs>) -> Arc<TimeNs> {
        let shifts = other.map_or([0, 0], |other| *other.shifts.lock());
        Arc::new(TimeNs {
            shifts: Lock::new(Rank::TimeNamespace, shifts),
            entered: AtomicBool::new(other.is_none()),
        })
    }

    /// A process is in it from now on.
    pub(in crate::kernel) fn enter(&self, shifts: &Shifts) {
        let own = self.shifts.lock();
        self.entered.store(true, Ordering::Relaxed);
        shifts.set(*own);
    }

    /// The text of /proc/PID/timens_offsets.
    pub fn show(&self) -> String {
        let shifts = *self.shifts.lock();
        let line = |(clock, name, _): &(Shifted, &str, &str)| {
            let shift = shifts[*clock as usize];
            let (sec, nsec) = (shift.div_euclid(NSEC_PER_SEC as i64), shift.rem_euclid(NSEC_PER_SEC as i64));
            format!("{name:<10} {sec:>10} {nsec:>9}\n")
        };
        Shifted::ALL.iter().map(line).collect()
    }

    /// Sets what `text` says.
    ///
    /// # Errors
    /// EINVAL for what says nothing; ERANGE for clocks that would run backwards from the start, or be at their end; EACCES once
    /// somebody is in it.
    pub fn set(&self, text: &[u8]) -> Result<()> {
        let text = std::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
        let given: Vec<(Shifted, i64)> = text.lines().map(parse).collect::<Result<_>>()?;
        if given.is_empty() || given.len() > Shifted::ALL.len() {
            return Err(Errno::EINVAL);
        }
        let mut shifts = self.shifts.lock();
        if self.entered.load(Ordering::Relaxed) {
            return Err(Errno::EACCES);
        }
        for (clock, shift) in given {
            shifts[clock as usize] = shift;
        }
        Ok(())
    }
}

/// A line: a clock, seconds, nanoseconds.
fn parse(line: &str) -> Result<(Shifted, i64)> {
    let mut words = line.split_whitespace();
    let mut word = || words.next().ok_or(Errno::EINVAL);
    let name = word()?;
    let known = Shifted::ALL.iter().find(|(_, word, number)| *word == name || *number == name);
    let (clock, ..) = known.ok_or(Errno::EINVAL)?;
    let sec: i64 = word()?.parse().map_err(|_| Errno::EINVAL)?;
    let nsec: u64 = word()?.parse().map_err(|_| Errno::EINVAL)?;
    if nsec >= NSEC_PER_SEC {
        return Err(Errno::EINVAL);
    }
    if !(-LATEST..=LATEST).contains(&sec) {
        return Err(Errno::ERANGE);
    }
    let shift = i128::from(sec) * i128::from(NSEC_PER_SEC) + i128::from(nsec);
    let then = shift + i128::from(monotonic_ns());
    if then < 0 || then / i128::from(NSEC_PER_SEC) > i128::from(LATEST / 2) {
        return Err(Errno::ERANGE);
    }
    Ok((*clock, i64::try_from(shift).map_err(|_| Errno::ERANGE)?))
}

#[cfg(test)]
mod tests {
    use super::{Errno, Shifted, Shifts, TimeNs};

    #[test]
    fn what_is_said_holds_until_somebody_is_there() {
        let first = TimeNs::like(None);
        assert_eq!(first.set(b"monotonic 1 0"), Err(Errno::EACCES));
        let new = TimeNs::like(Some(&first));
        new.set(b"monotonic 86400 5\nboottime -0 7\n").unwrap();
        assert_eq!(new.show(), "monotonic       86400         5\nboottime            0         7\n");
        for (bad, errno) in [
            ("", Errno::EINVAL),
            ("monotonic 1", Errno::EINVAL),
            ("realtime 1 0", Errno::EINVAL),
            ("1 1 1000000000", Errno::EINVAL),
            ("7 9223372037 0", Errno::ERANGE),
            ("7 9000000000 0", Errno::ERANGE),
            ("1 -9000000000 0", Errno::ERANGE),
            ("1 1 0\n7 1 0\n1 2 0", Errno::EINVAL),
        ] {
            assert_eq!(new.set(bad.as_bytes()), Err(errno), "{bad}");
        }
        let shifts = Shifts::default();
        new.enter(&shifts);
        assert_eq!((shifts.of(Shifted::Monotonic), shifts.of(Shifted::Boottime)), (86_400_000_000_005, 7));
        assert_eq!(new.set(b"boottime 1 0"), Err(Errno::EACCES));
        assert_eq!(shifts.outside(Shifted::Boottime, shifts.inside(Shifted::Boottime, 99)), 99);
        assert_eq!(shifts.outside(Shifted::Monotonic, 5), 0);
    }
}
