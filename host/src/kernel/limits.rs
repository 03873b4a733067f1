//! Resource limits (getrlimit(2)).

use crate::abi::{Errno, Result};

/// No limit.
pub const INFINITY: u64 = u64::MAX;
/// `RLIMIT_CPU`.
pub const CPU: u32 = 0;
/// `RLIMIT_FSIZE`.
pub const FSIZE: u32 = 1;
/// `RLIMIT_STACK`.
pub const STACK: u32 = 3;
/// `RLIMIT_DATA`.
pub const DATA: u32 = 2;
/// `RLIMIT_CORE`.
pub const CORE: u32 = 4;
/// `RLIMIT_RSS`.
pub const RSS: u32 = 5;
/// `RLIMIT_NPROC`.
pub const NPROC: u32 = 6;
/// `RLIMIT_NOFILE`.
pub const NOFILE: u32 = 7;
/// `RLIMIT_MEMLOCK`.
pub const MEMLOCK: u32 = 8;
/// `RLIMIT_AS`.
pub const AS: u32 = 9;
/// `RLIMIT_SIGPENDING`.
pub const SIGPENDING: u32 = 11;
/// `RLIMIT_MSGQUEUE`.
pub const MSGQUEUE: u32 = 12;
/// `RLIMIT_NICE`.
pub const NICE: u32 = 13;
/// `RLIMIT_RTPRIO`.
pub const RTPRIO: u32 = 14;
/// How many there are.
pub const COUNT: usize = 16;

/// Highest possible `RLIMIT_NOFILE` (`/proc/sys/fs/nr_open`).
pub const NR_OPEN: u64 = 1 << 20;

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What counts.
    pub soft: u64,
    /// How far it can be raised.
    pub hard: u64,
}

/// All limits of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits([Limit; COUNT]);

impl Default for Limits {
    /// Linux's (include/asm-generic/resource.h), with the file limits that init systems set.
    fn default() -> Self {
        let mut all = [Limit { soft: INFINITY, hard: INFINITY }; COUNT];
        let mut set = |resource: u32, soft, hard| all[resource as usize] = Limit { soft, hard };
        set(STACK, 8 << 20, INFINITY);
        set(CORE, 0, INFINITY);
        set(NPROC, 31_000, 31_000);
        set(NOFILE, 1024, NR_OPEN);
        set(MEMLOCK, 8 << 20, 8 << 20);
        set(SIGPENDING, 31_000, 31_000);
        set(MSGQUEUE, 819_200, 819_200);
        set(NICE, 0, 0);
        set(RTPRIO, 0, 0);
        Limits(all)
    }
}

impl Limits {
    /// One limit.
    ///
    /// # Errors
    /// EINVAL for an unknown resource.
    pub fn of(&self, resource: u32) -> Result<Limit> {
        self.0.get(resource as usize).copied().ok_or(Errno::EINVAL)
    }

    /// A soft limit; none for an unknown resource.
    pub fn soft(&self, resource: u32) -> u64 {
        self.of(resource).map_or(INFINITY, |limit| limit.soft)
    }

    /// Replaces a limit; `privileged` may raise the hard one.
    ///
    /// # Errors
    /// EINVAL, EPERM.
    pub fn set(&mut self, resource: u32, new: Limit, privileged: bool) -> Result<()> {
        let old = self.of(resource)?;
        if new.soft > new.hard {
            return Err(Errno::EINVAL);
        }
        if (new.hard > old.hard && !privileged) || (resource == NOFILE && new.hard > NR_OPEN) {
            return Err(Errno::EPERM);
        }
        self.0[resource as usize] = new;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Limit, Limits, NOFILE, STACK};
    use crate::abi::Errno;

    #[test]
    fn hard_limits_hold() {
        let mut limits = Limits::default();
        limits.set(STACK, Limit { soft: 1, hard: 2 }, false).unwrap();
        assert_eq!(limits.set(STACK, Limit { soft: 1, hard: 3 }, false), Err(Errno::EPERM));
        assert_eq!(limits.set(STACK, Limit { soft: 3, hard: 2 }, true), Err(Errno::EINVAL));
        limits.set(STACK, Limit { soft: 3, hard: 3 }, true).unwrap();
        assert_eq!(limits.set(NOFILE, Limit { soft: 3, hard: 1 << 30 }, true), Err(Errno::EPERM));
        assert_eq!(limits.of(16), Err(Errno::EINVAL));
    }
}
