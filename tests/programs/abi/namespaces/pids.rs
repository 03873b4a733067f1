//! Pid namespaces: numbers, what an init may be sent, and what its end means.

use super::{getpid, getppid, inside, sleep_ms};
use crate::sys::{self, forever, in_child, report, show};
use std::sync::atomic::{AtomicI32, Ordering};

pub(super) fn numbers() {
    inside("first", 0, || {
        println!("{} of {} thread {}", getpid(), getppid(), sys!(libc::SYS_gettid));
        report("tid address", sys!(libc::SYS_set_tid_address, 0));
        let child = sys::fork(|| {
            println!("child {} of {}", getpid(), getppid());
            7
        });
        let mut info = [0_i32; 32];
        report(
            "waitid",
            sys!(libc::SYS_waitid, libc::P_PID, child, info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT, 0),
        );
        println!("made {child}");
        println!("signal {} code {} pid {} status {}", info[0], info[2], info[3].max(info[4]), info[6]);
        println!("{:?}", sys::wait4(-1, 0));
        report("none left", sys::wait4(child, 0).0);
        let thread = std::thread::spawn(|| (getpid(), sys!(libc::SYS_gettid)));
        println!("thread {:?}", thread.join().ok());
        println!("next {}", sys::fork(|| 0));
        0
    });
}

pub(super) fn nested() {
    inside("outer", 0, || {
        let child = sys::fork(|| {
            report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWPID));
            println!("still {}", getpid());
            let inner = sys::fork(|| {
                println!("inner {} of {}", getpid(), getppid());
                in_child("its child", || {
                    println!("{} of {}", getpid(), getppid());
                    0
                });
                3
            });
            println!("{}: called {inner} out here", sys::wait(inner));
            0
        });
        println!("{child}: {}", sys::wait(child));
        0
    });
}

pub(super) fn cloned() {
    in_child("cloned", || {
        let (mut above, mut below) = (0_i32, 0_i32);
        let flags = libc::CLONE_NEWPID | libc::CLONE_PARENT_SETTID | libc::CLONE_CHILD_SETTID | libc::SIGCHLD;
        sys::flush();
        let (parent, child) = (&raw mut above as i64, &raw mut below as i64);
        #[cfg(target_arch = "x86_64")]
        let pid = sys!(libc::SYS_clone, flags, 0, parent, child, 0);
        #[cfg(target_arch = "aarch64")]
        let pid = sys!(libc::SYS_clone, flags, 0, parent, 0, child);
        if pid == 0 {
            println!("{} of {}: {below}", getpid(), getppid());
            sys::flush();
            sys::exit(0);
        }
        println!("{} {}", i64::from(above) == pid, sys::wait(pid));
        0
    });
}

pub(super) fn refused() {
    in_child("refused", || {
        let clone = |flags: i32| sys!(libc::SYS_clone, flags, 0, 0, 0, 0);
        let thread = libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND;
        report("thread", clone(libc::CLONE_NEWPID | thread));
        let link = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default();
        println!("here {}", link("pid") == link("pid_for_children"));
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWPID));
        report("twice", sys!(libc::SYS_unshare, libc::CLONE_NEWPID));
        report("cloned", clone(libc::CLONE_NEWPID | libc::SIGCHLD));
        report("a thread now", clone(thread));
        println!("{}", sys::wait(sys::fork(|| 0)));
        println!("here {}", link("pid") == link("pid_for_children"));
        report("after its init", clone(libc::SIGCHLD));
        0
    });
    in_child("without the right", || {
        report("setresuid", sys!(libc::SYS_setresuid, 1000, 1000, 1000));
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWPID));
        0
    });
}

static GOT: AtomicI32 = AtomicI32::new(0);
static FROM: AtomicI32 = AtomicI32::new(-1);

extern "C" fn note(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    GOT.store(signal, Ordering::SeqCst);
    FROM.store(sys::info_fields(info).2, Ordering::SeqCst);
}

pub(super) fn signals() {
    inside("inside", 0, || {
        let kill = |pid: i64, signal: i32| sys!(libc::SYS_kill, pid, signal);
        for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGSTOP, libc::SIGTSTP, libc::SIGRTMIN(), 0] {
            report("to itself", kill(1, signal));
            in_child("from a child", || -kill(1, signal) as i32);
        }
        // What was blocked when it came finds nothing to do afterwards.
        sys::mask(libc::SIG_BLOCK, sys::set_of(&[libc::SIGTERM]));
        kill(1, libc::SIGTERM);
        sys::mask(libc::SIG_UNBLOCK, sys::set_of(&[libc::SIGTERM]));
        println!("alive");
        sys::handle(libc::SIGUSR1, note, libc::SA_RESTART);
        in_child("handled", || -kill(1, libc::SIGUSR1) as i32);
        println!("{} from {}", GOT.load(Ordering::SeqCst), FROM.load(Ordering::SeqCst));
        let bystander = sys::fork(forever);
        report("everybody", kill(-1, libc::SIGKILL));
        println!("{}", sys::wait(bystander));
        report("nobody", kill(-1, libc::SIGKILL));
        report("not here", kill(100, 0));
        report("no group here", kill(-100, 0));
        0
    });
}

pub(super) fn signals_from_above() {
    in_child("above", || {
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWPID));
        let (read_end, write_end) = sys::pipe(0);
        let pid = sys::fork(|| {
            let set = sys::set_of(&[libc::SIGUSR1, libc::SIGUSR2]);
            sys::mask(libc::SIG_BLOCK, set);
            sys::write(write_end, b"r");
            loop {
                let mut info = [0_i32; 32];
                let got = sys!(libc::SYS_rt_sigtimedwait, &raw const set, info.as_mut_ptr(), 0, 8);
                sys::write(write_end, format!("{got} code {} from {}", info[2], info[4]).as_bytes());
            }
        });
        sys::read(read_end, 1);
        report("usr1", sys!(libc::SYS_kill, pid, libc::SIGUSR1));
        sys::report_read("got", read_end, 100);
        let mut info = [0_i32; 32];
        (info[2], info[4]) = (-1, 77);
        report("queued", sys!(libc::SYS_rt_sigqueueinfo, pid, libc::SIGUSR2, info.as_ptr()));
        sys::report_read("got", read_end, 100);
        report("term", sys!(libc::SYS_kill, pid, libc::SIGTERM));
        report("stop", sys!(libc::SYS_kill, pid, libc::SIGSTOP));
        println!("{}", sys::describe(sys::wait4(pid, libc::WUNTRACED).1));
        report("continue", sys!(libc::SYS_kill, pid, libc::SIGCONT));
        println!("{}", sys::describe(sys::wait4(pid, libc::WCONTINUED).1));
        report("kill", sys!(libc::SYS_kill, pid, libc::SIGKILL));
        println!("{}", sys::wait(pid));
        0
    });
}

pub(super) fn faults() {
    inside("a fault", 0, || i32::from(sys::peek(8)));
    inside("a pipe", 0, || {
        let (read_end, write_end) = sys::pipe(0);
        sys::close(read_end);
        report("write", sys::write(write_end, b"x"));
        4
    });
    inside("a limit", 0, || {
        // It ends by the kernel's own signal.
        let limit = [1_u64, 1];
        sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_CPU, limit.as_ptr(), 0);
        #[expect(clippy::empty_loop, reason = "it is to use time")]
        loop {}
    });
}

pub(super) fn end() {
    in_child("end", || {
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWPID));
        let (read_end, write_end) = sys::pipe(0);
        let init = sys::fork(|| {
            for _ in 0..3 {
                sys::fork(|| {
                    // Nothing but init's end ends these.
                    sys::mask(libc::SIG_BLOCK, !0);
                    sys!(libc::SYS_setsid);
                    sys::fork(forever);
                    forever()
                });
            }
            // And one that has ended and was not waited for.
            sys::fork(|| 0);
            sleep_ms(20);
            6
        });
        let beside = sys::fork(forever);
        sys::close(write_end);
        // Init has not ended before everybody was waited for, by whoever has to.
        let order = [sys::wait4(-1, 0), sys::wait4(-1, 0)];
        println!("{:?}", order.map(|(pid, status)| (pid == init, pid == beside, sys::describe(status))));
        sys::report_read("closed", read_end, 1);
        report("fork", sys!(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0));
        0
    });
}

pub(super) fn end_by_threads() {
    for killed in [false, true] {
        inside("threads", 0, || {
            let child = sys::fork(forever);
            let thread = std::thread::spawn(|| {
                sys::fork(forever);
                sleep_ms(10);
                sys!(libc::SYS_exit, 0);
            });
            if killed {
                sys!(libc::SYS_exit_group, 9);
            }
            let _never = (thread, child);
            // The last thread to go takes all others along.
            sys!(libc::SYS_exit, 5) as i32
        });
    }
}

pub(super) fn end_of_nested() {
    in_child("nested", || {
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWPID));
        let (read_end, write_end) = sys::pipe(0);
        let outer = sys::fork(|| {
            sys::fork(|| {
                sys!(libc::SYS_unshare, libc::CLONE_NEWPID);
                sys::fork(|| {
                    sys::fork(forever);
                    sys!(libc::SYS_unshare, libc::CLONE_NEWPID);
                    sys::fork(forever);
                    forever()
                });
                forever()
            });
            sleep_ms(20);
            2
        });
        sys::close(write_end);
        println!("{}", sys::wait(outer));
        sys::report_read("closed", read_end, 1);
        0
    });
}

/// Those that an init traces are nobody's any more when it ends.
pub(super) fn end_of_tracer() {
    in_child("tracer", || {
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWPID));
        let (read_end, write_end) = sys::pipe(0);
        let init = sys::fork(|| {
            for how in 0..3 {
                sys::fork(|| {
                    sys!(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0);
                    match how {
                        0 => 0,
                        1 => forever(),
                        _ => {
                            sys!(libc::SYS_kill, getpid(), libc::SIGSTOP);
                            forever()
                        }
                    }
                });
            }
            sleep_ms(20);
            4
        });
        sys::close(write_end);
        println!("{}", sys::wait(init));
        sys::report_read("closed", read_end, 1);
        0
    });
}

pub(super) fn orphans() {
    let orphaned = |write_end: i64| {
        let child = sys::fork(|| {
            let parent = getpid();
            sys::fork(|| {
                while getppid() == parent {
                    sleep_ms(1);
                }
                sys::write(write_end, format!("now {}", getppid()).as_bytes());
                8
            });
            0
        });
        println!("{}", sys::wait(child));
    };
    inside("to init", 0, || {
        let (read_end, write_end) = sys::pipe(0);
        orphaned(write_end);
        sys::report_read("orphan", read_end, 100);
        println!("{:?}", sys::wait4(-1, 0));
        0
    });
    inside("to a subreaper", 0, || {
        in_child("subreaper", || {
            println!("here {}", getpid());
            sys!(libc::SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1);
            let (read_end, write_end) = sys::pipe(0);
            orphaned(write_end);
            sys::report_read("orphan", read_end, 100);
            println!("{:?}", sys::wait4(-1, 0));
            0
        });
        0
    });
    // One above takes nobody from below.
    in_child("above", || {
        sys!(libc::SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1);
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWPID));
        let init = sys::fork(|| {
            let (read_end, write_end) = sys::pipe(0);
            orphaned(write_end);
            sys::report_read("orphan", read_end, 100);
            println!("{:?}", sys::wait4(-1, 0));
            0
        });
        println!("{}", sys::wait(init));
        0
    });
}

pub(super) fn groups() {
    inside("groups", 0, || {
        let pgrp = |pid: i64| sys!(libc::SYS_getpgid, pid);
        println!("{} {} {}", show(pgrp(0)), show(sys!(libc::SYS_getsid, 0)), show(pgrp(5)));
        report("setsid", sys!(libc::SYS_setsid));
        println!("{} {}", show(pgrp(0)), show(sys!(libc::SYS_getsid, 0)));
        let child = sys::fork(forever);
        report("of the child", pgrp(child));
        report("setpgid", sys!(libc::SYS_setpgid, child, child));
        report("of the child", pgrp(child));
        report("another's", sys!(libc::SYS_setpgid, child, 77));
        report("kill", sys!(libc::SYS_kill, -child, libc::SIGTERM));
        println!("{:?}", sys::wait4(-child, 0));
        // The group outlives who led it, and so does the number.
        let leader = sys::fork(|| {
            sys!(libc::SYS_setpgid, 0, 0);
            sys::fork(forever);
            0
        });
        println!("leader {} {:?}", leader, sys::wait4(leader, 0));
        println!("{} {}", show(sys!(libc::SYS_kill, leader, 0)), show(pgrp(leader + 1)));
        report("kill", sys!(libc::SYS_kill, -leader, libc::SIGKILL));
        println!("{:?}", sys::wait4(-leader, 0));
        report("gone", sys!(libc::SYS_kill, -leader, 0));
        0
    });
}

pub(super) fn deep() {
    fn level(left: u32) -> i64 {
        let made = sys!(libc::SYS_unshare, libc::CLONE_NEWPID);
        if made != 0 || left == 0 {
            println!("{} {}", show(made), left > 0 && left < 12);
            return made;
        }
        let child = sys::fork(|| {
            let own = getpid();
            level(left - 1);
            i32::from(own != 1)
        });
        sys::wait4(child, 0).1.into()
    }
    in_child("deep", || level(40) as i32);
}
