//! Filters of one thread among several, and of all at once.

use super::{
    ALLOW, ERRNO, KILL_PROCESS, KILL_THREAD, TRAP, confinement, install, install_with, only, report_mode,
    report_ok_if, ret,
};
use crate::sys::{self, in_child, report, show};

const TSYNC: i64 = 1;
const TSYNC_ESRCH: i64 = 16;

/// Does `body` in a second thread, which may end in the middle of it, and returns once it has.
pub(super) fn beside(body: impl FnOnce() + Send + 'static) {
    let (reading, writing) = sys::pipe(0);
    std::thread::spawn(move || {
        sys::write(writing, &(sys!(libc::SYS_gettid) as i32).to_ne_bytes());
        body();
    });
    let tid = sys::read(reading, 4).1;
    let tid = i64::from(i32::from_ne_bytes([tid[0], tid[1], tid[2], tid[3]]));
    while sys!(libc::SYS_tgkill, sys!(libc::SYS_getpid), tid, 0) == 0 {
        sys!(libc::SYS_sched_yield);
    }
}

pub(super) fn kill() {
    for (what, action) in [("KILL_THREAD", KILL_THREAD), ("KILL_PROCESS", KILL_PROCESS), ("TRAP", TRAP)] {
        in_child(&format!("{what} in a thread"), || {
            beside(move || {
                install(&only(libc::SYS_getppid, action));
                sys!(libc::SYS_getppid);
                sys::exit(1);
            });
            println!("others go on");
            7
        });
        in_child(&format!("{what} in the first thread"), || {
            let first = sys!(libc::SYS_gettid);
            std::thread::spawn(move || {
                let state = || std::fs::read_to_string(format!("/proc/self/task/{first}/stat"));
                // Until it is a zombie, or nothing at all.
                while state().is_ok_and(|stat| !stat.contains(") Z ")) {
                    sys!(libc::SYS_sched_yield);
                }
                println!("others go on");
                sys::flush();
                sys!(libc::SYS_exit, 0);
            });
            install(&only(libc::SYS_getppid, action));
            sys!(libc::SYS_getppid);
            1
        });
    }
}

pub(super) fn apart() {
    in_child("a thread's own filter", || {
        let result = std::thread::spawn(|| {
            install(&only(libc::SYS_getppid, ERRNO | 1));
            sys!(libc::SYS_getppid)
        });
        report("the thread", result.join().expect("a thread"));
        report_ok_if("we", sys!(libc::SYS_getppid) > 0);
        report_mode();
        0
    });
}

pub(super) fn synchronized() {
    // Threads that make calls all the time, and find the filter over the next one.
    in_child("busy threads", || {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                std::thread::spawn(|| {
                    while sys!(libc::SYS_getppid) > 0 {}
                    sys!(libc::SYS_getppid)
                })
            })
            .collect();
        report("seccomp", install_with(TSYNC, &only(libc::SYS_getppid, ERRNO | 31)));
        threads.into_iter().for_each(|thread| report("a thread", thread.join().expect("a thread")));
        report("we", sys!(libc::SYS_getppid));
        0
    });
    in_child("a waiting thread", || {
        let (reading, writing) = sys::pipe(0);
        let thread = std::thread::spawn(move || {
            let (count, _) = sys::read(reading, 1);
            (count, sys!(libc::SYS_getppid), confinement())
        });
        sys!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        report("seccomp", install_with(TSYNC, &only(libc::SYS_getppid, ERRNO | 32)));
        sys::write(writing, b"x");
        println!("{:?}", thread.join().expect("a thread"));
        0
    });
    for (flags, twice) in [(TSYNC, false), (TSYNC | TSYNC_ESRCH, false), (TSYNC, true)] {
        in_child(&format!("a thread with a filter of its own, flags {flags}"), || {
            let (reading, writing) = sys::pipe(0);
            let (ready, go) = sys::pipe(0);
            if twice {
                install(&[ret(ALLOW)]);
            }
            let thread = std::thread::spawn(move || {
                install(&only(libc::SYS_getpgid, ERRNO | 33));
                sys::write(go, &(sys!(libc::SYS_gettid) as i32).to_ne_bytes());
                sys::read(reading, 1);
                (sys!(libc::SYS_getppid) > 0, sys!(libc::SYS_getpgid, 0))
            });
            let tid = sys::read(ready, 4).1;
            let tid = i64::from(i32::from_ne_bytes([tid[0], tid[1], tid[2], tid[3]]));
            let result = install_with(flags, &only(libc::SYS_getppid, ERRNO | 34));
            println!("{}", if result == tid { "its id".to_owned() } else { show(result) });
            report_mode();
            sys::write(writing, b"x");
            println!("{:?} {}", thread.join().expect("a thread"), sys!(libc::SYS_getppid) > 0);
            0
        });
    }
    in_child("a thread with older filters only", || {
        install(&[ret(ALLOW)]);
        let (reading, writing) = sys::pipe(0);
        let thread = std::thread::spawn(move || {
            sys::read(reading, 1);
            sys!(libc::SYS_getppid)
        });
        install(&only(libc::SYS_getpgid, ERRNO | 35));
        report("seccomp", install_with(TSYNC, &only(libc::SYS_getppid, ERRNO | 36)));
        sys::write(writing, b"x");
        report("the thread", thread.join().expect("a thread"));
        0
    });
}
