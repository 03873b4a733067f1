//! Namespaces by the thousand, deep ones, and what is born in them.

use crate::storm::round;
use crate::sys;

/// How many levels one goes down, and how many are born at each.
const LEVELS: u32 = 30;
const BORN: u32 = 3;

/// Waits for a signal, for ever.
pub(crate) fn forever() -> i32 {
    loop {
        sys!(libc::SYS_ppoll, 0, 0, 0, 0, 0);
    }
}

fn descend(levels: u32) -> i32 {
    for _ in 0..BORN {
        // Where there may be no more of them, that is that.
        let _full = sys::fork(|| {
            sys!(libc::SYS_setsid);
            forever()
        });
    }
    if levels > 0 && sys!(libc::SYS_unshare, libc::CLONE_NEWPID) == 0 {
        let _full = sys::fork(|| descend(levels - 1));
    }
    forever()
}

/// Nests pid namespaces as deep as they go, with processes at each level, and ends all of it by the end of the first init.
pub(crate) fn pids() -> i32 {
    loop {
        let child = sys::fork(|| {
            if sys!(libc::SYS_unshare, libc::CLONE_NEWPID) != 0 {
                return 1;
            }
            let Ok(init) = sys::fork(|| descend(LEVELS)) else { return 2 };
            std::thread::sleep(std::time::Duration::from_millis(5));
            sys::kill(init);
            let mut status = 0_i32;
            i32::from(sys!(libc::SYS_wait4, init, &raw mut status, 0, 0) != i64::from(init))
        });
        if child.is_err() {
            return 3;
        }
        while sys::reap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        round();
    }
}
