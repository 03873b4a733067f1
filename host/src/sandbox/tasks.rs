//! How many tasks a sandbox may have: programs that only ever fork are not to leave the host without any.

use super::cgroup::{Groups, Share, number};
use crate::hostsys::{identity, told};
use crate::kernel::limits;

/// Where nothing is asked for.
const DEFAULT: u64 = 4096;
/// Of what can still be had outside, a sandbox takes one part of so many: a task inside can be two outside, and others want
/// to live, too.
const PART: u64 = 4;

/// The most tasks of all programs together; and whether that is less than what was asked for.
pub(super) fn granted(asked: Option<u32>, groups: &Groups) -> (usize, bool) {
    let wanted = asked.map_or(DEFAULT, u64::from);
    let most = possible(wanted, groups);
    (wanted.min(most) as usize, asked.is_some() && most < wanted)
}

/// The most that the host and the caller's groups leave to a sandbox that wants so many.
fn possible(wanted: u64, groups: &Groups) -> u64 {
    let mut shares = groups.tasks();
    let exist = tasks_on_host();
    for file in ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"] {
        shares.extend(number(file).map(|limit| Share { limit, used: exist }));
    }
    shares.extend(of_user(wanted));
    shares.iter().map(|share| share.left() / PART).min().unwrap_or(u64::MAX).max(1)
}

/// All tasks, by `/proc/loadavg`: three averages, then RUNNING/ALL.
fn tasks_on_host() -> u64 {
    let text = told::text("/proc/loadavg").unwrap_or_default();
    all_tasks(&text).unwrap_or(0)
}

fn all_tasks(loadavg: &str) -> Option<u64> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

/// RLIMIT_NPROC, which does not bind root. Who has how many is a walk through /proc: not worth it for a limit that is far.
fn of_user(wanted: u64) -> Option<Share> {
    let uid = identity::own().ok()?.uid;
    let (limit, _) = identity::limit(limits::NPROC)?;
    if uid == 0 || limit / PART / 2 > wanted {
        return None;
    }
    let used = told::tasks_of(uid)?;
    Some(Share { limit, used })
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT, Groups, all_tasks, granted};

    #[test]
    fn the_load_names_all_tasks() {
        assert_eq!(all_tasks("0.08 0.03 0.01 2/1034 4711\n"), Some(1034));
        assert_eq!(all_tasks(""), None);
    }

    #[test]
    fn nobody_gets_more_than_was_asked_for_or_is_there() {
        let groups = Groups::own();
        assert_eq!(granted(Some(1), &groups), (1, false));
        let (most, cut) = granted(Some(u32::MAX), &groups);
        assert!(cut && most < 1 << 20, "no host has so many: {most}");
        assert!(granted(None, &groups).0 as u64 <= DEFAULT);
    }
}
