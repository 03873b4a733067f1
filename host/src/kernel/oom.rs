//! How readily a process would be killed for want of memory: `/proc/PID/oom_score_adj` and its older forms.
//!
//! The values are kept, inherited and guarded as proc(5) says; `shortage` goes by them.

use crate::abi::{Errno, Result};

/// Least, and "never".
const ADJ_MIN: i32 = -1000;
const ADJ_MAX: i32 = 1000;
/// Of the older scale: "never", least and most.
const OLD_DISABLE: i32 = -17;
const OLD_MIN: i32 = -16;
const OLD_MAX: i32 = 15;

/// A process's adjustment. Children inherit it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomScore {
    adjustment: i16,
    /// The lowest that it can be set to without CAP_SYS_RESOURCE: what somebody who has it chose last.
    least: i16,
}

impl OomScore {
    /// What `oom_score_adj` says.
    pub fn adjustment(self) -> i32 {
        self.adjustment.into()
    }

    /// Writes `oom_score_adj`; `privileged` has CAP_SYS_RESOURCE.
    ///
    /// # Errors
    /// EINVAL out of range; EACCES below what an unprivileged writer may set.
    pub fn set(&mut self, value: i32, privileged: bool) -> Result<()> {
        if !(ADJ_MIN..=ADJ_MAX).contains(&value) {
            return Err(Errno::EINVAL);
        }
        if value < self.least.into() && !privileged {
            return Err(Errno::EACCES);
        }
        self.adjustment = value as i16;
        if privileged {
            self.least = self.adjustment;
        }
        Ok(())
    }

    /// What `oom_adj` says.
    pub fn old_adjustment(self) -> i32 {
        match self.adjustment() {
            ADJ_MAX => OLD_MAX,
            value => (value * -OLD_DISABLE / ADJ_MAX).min(OLD_MAX),
        }
    }

    /// Writes `oom_adj`.
    ///
    /// # Errors
    /// EINVAL out of range; EACCES to lower it without privilege.
    pub fn set_old(&mut self, value: i32, privileged: bool) -> Result<()> {
        let value = match value {
            OLD_MAX => ADJ_MAX,
            OLD_DISABLE | OLD_MIN..OLD_MAX => value * ADJ_MAX / -OLD_DISABLE,
            _ => return Err(Errno::EINVAL),
        };
        if value < self.adjustment() && !privileged {
            return Err(Errno::EACCES);
        }
        self.adjustment = value as i16;
        Ok(())
    }

    /// What decides who goes first (oom_badness): the pages that a process holds, and its adjustment in thousandths of the
    /// `total`. None: it is not to be chosen.
    pub fn points(self, used: u64, total: u64) -> Option<i64> {
        let adjustment = i64::from(self.adjustment) * (total as i64 / 1000);
        (self.adjustment() != ADJ_MIN).then_some(used as i64 + adjustment)
    }

    /// What `oom_score` says of a process that holds `used` of `total` pages: 0 to 2000.
    pub fn score(self, used: u64, total: u64) -> u64 {
        match self.points(used, total) {
            Some(points) if total != 0 => ((1000 + points * 1000 / total as i64) * 2 / 3).max(0) as u64,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Errno, OomScore};

    #[test]
    fn lowering_needs_privilege() {
        let mut score = OomScore::default();
        assert_eq!(score.set(-1, false), Err(Errno::EACCES));
        assert_eq!(score.set(500, false), Ok(()));
        assert_eq!(score.set(0, false), Ok(()), "back to where it may be");
        assert_eq!(score.set(300, true), Ok(()));
        assert_eq!(score.set(299, false), Err(Errno::EACCES));
        assert_eq!((score.set(1001, true), score.set(-1001, true)), (Err(Errno::EINVAL), Err(Errno::EINVAL)));
        assert_eq!((score.set(-1000, true), score.adjustment()), (Ok(()), -1000));
    }

    #[test]
    fn the_older_scale() {
        let mut score = OomScore::default();
        for (old, new) in [(15, 1000), (-17, -1000), (-16, -941), (8, 470), (0, 0)] {
            assert_eq!((score.set_old(old, true), score.adjustment()), (Ok(()), new));
        }
        score.set(1000, true).unwrap();
        assert_eq!(score.old_adjustment(), 15);
        score.set(-1000, true).unwrap();
        assert_eq!(score.old_adjustment(), -17);
        score.set(470, true).unwrap();
        assert_eq!((score.old_adjustment(), score.set_old(6, false)), (7, Err(Errno::EACCES)));
        assert_eq!(
            (score.set_old(16, true), score.set_old(-18, true)),
            (Err(Errno::EINVAL), Err(Errno::EINVAL))
        );
    }

    #[test]
    fn scores() {
        let mut score = OomScore::default();
        assert_eq!((score.score(0, 100_000), score.score(50_000, 100_000)), (666, 1000));
        score.set(1000, true).unwrap();
        assert_eq!(score.score(0, 100_000), 1333);
        score.set(-1000, true).unwrap();
        assert_eq!(score.score(50_000, 100_000), 0);
    }
}
