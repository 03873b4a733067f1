//! Attaching, seizing, and stops of whole processes.

use super::{describe, go, go_with, info, kill, me, next, pt, report_not_ok, stop, stop_self, tracee};
use crate::sys::{self, fork, report, show};

fn sleeper() -> i64 {
    let pid = fork(sys::forever);
    sys::until_asleep(pid, pid);
    pid
}

fn end(pid: i64) {
    kill(pid, libc::SIGKILL);
    println!("{}", stop(pid));
}

/// Whether something stops within a while that is long enough.
fn quiet(pid: i64) -> String {
    std::thread::sleep(std::time::Duration::from_millis(20));
    show(sys::wait4(pid, libc::WNOHANG | libc::__WALL).0)
}

pub(super) fn seize() {
    let pid = sleeper();
    report("seize", pt(libc::PTRACE_SEIZE, pid, 0, super::SYSGOOD));
    println!("runs on: {}", quiet(pid));
    report("not stopped", pt(libc::PTRACE_CONT, pid, 0, 0));
    report("interrupt", pt(libc::PTRACE_INTERRUPT, pid, 0, 0));
    println!("{}, {}", stop(pid), info(pid, pid));
    report("listen", pt(libc::PTRACE_LISTEN, pid, 0, 0));
    report("listens", pt(libc::PTRACE_CONT, pid, 0, 0));
    report("interrupt", pt(libc::PTRACE_INTERRUPT, pid, 0, 0));
    println!("{}, {}", stop(pid), info(pid, pid));
    report("interrupt while stopped", pt(libc::PTRACE_INTERRUPT, pid, 0, 0));
    println!("{}", quiet(pid));
    println!("then {}", next(pid));
    report_not_ok("syscall", pt(libc::PTRACE_SYSCALL, pid, 0, 0));
    println!("{}", stop(pid));
    kill(pid, libc::SIGUSR1);
    println!("{}, {}", next(pid), info(pid, me()));
    report("detach", pt(libc::PTRACE_DETACH, pid, 0, 0));
    report("gone", pt(libc::PTRACE_CONT, pid, 0, 0));
    end(pid);
}

/// Stop signals of tracees that were attached to: first the signal, then the stop.
pub(super) fn group_stop() {
    let pid = tracee(|| {
        // A group of its own, which its parent could continue: no orphan.
        sys!(libc::SYS_setpgid, 0, 0);
        kill(me(), libc::SIGTSTP);
        4
    });
    println!("{}, {}", next(pid), info(pid, pid));
    go_with(pid, libc::SIGTSTP);
    println!("{}, {}", stop(pid), info(pid, pid));
    println!("{}", next(pid));
    let pid = tracee(|| {
        stop_self();
        4
    });
    println!("{}, {}", next(pid), info(pid, pid));
    go_with(pid, libc::SIGSTOP);
    println!("{}, {}", stop(pid), info(pid, pid));
    kill(pid, libc::SIGCONT);
    println!("stays: {}", quiet(pid));
    println!("{}", next(pid));
    go_with(pid, libc::SIGCONT);
    println!("{}", stop(pid));
    // What is continued before it has stopped does not stop.
    let pid = tracee(|| {
        stop_self();
        4
    });
    println!("{}, {}", next(pid), info(pid, pid));
    kill(pid, libc::SIGCONT);
    go_with(pid, libc::SIGSTOP);
    println!("{}", stop(pid));
    println!("{}", next(pid));
    // It runs although its process is stopped.
    let pid = tracee(|| {
        stop_self();
        i32::from(sys::wait(fork(|| 3)) == "exited 3") + 4
    });
    println!("{}", next(pid));
    go_with(pid, libc::SIGSTOP);
    println!("{}", stop(pid));
    println!("{}", next(pid));
    println!("{}", next(pid));
}

pub(super) fn listen() {
    let pid = sleeper();
    report("seize", pt(libc::PTRACE_SEIZE, pid, 0, 0));
    kill(pid, libc::SIGSTOP);
    println!("{}, {}", stop(pid), info(pid, me()));
    report("not this stop", pt(libc::PTRACE_LISTEN, pid, 0, 0));
    go_with(pid, libc::SIGSTOP);
    println!("{}, {}", stop(pid), info(pid, pid));
    report("listen", pt(libc::PTRACE_LISTEN, pid, 0, 0));
    println!("stays: {}", quiet(pid));
    kill(pid, libc::SIGCONT);
    println!("{}, {}", stop(pid), info(pid, pid));
    println!("{}", next(pid));
    go_with(pid, libc::SIGCONT);
    println!("runs: {}", quiet(pid));
    end(pid);
}

pub(super) fn attach() {
    // In a call, which goes on.
    let (read_end, write_end) = sys::pipe(0);
    let pid = fork(|| {
        sys::close(write_end);
        report("read", sys::read(read_end, 1).0);
        0
    });
    sys::until_asleep(pid, pid);
    report("attach", pt(libc::PTRACE_ATTACH, pid, 0, 0));
    println!("{}, {}", stop(pid), info(pid, pid));
    report("attach again", pt(libc::PTRACE_ATTACH, pid, 0, 0));
    go(pid);
    sys::until_asleep(pid, pid);
    kill(pid, libc::SIGUSR1);
    println!("{}", stop(pid));
    report("detach", pt(libc::PTRACE_DETACH, pid, 0, 0));
    sys::until_asleep(pid, pid);
    sys::write(write_end, b"x");
    println!("{}", stop(pid));
    // While it runs, and away with a signal.
    let pid = fork(|| {
        loop {
            std::hint::spin_loop();
        }
    });
    report("attach", pt(libc::PTRACE_ATTACH, pid, 0, 0));
    println!("{}", stop(pid));
    report("detach", pt(libc::PTRACE_DETACH, pid, 0, libc::SIGTERM.into()));
    println!("{}", stop(pid));
    // Again and again.
    let pid = sleeper();
    for _ in 0..50 {
        report_not_ok("attach", pt(libc::PTRACE_ATTACH, pid, 0, 0));
        assert_eq!(stop(pid), "stopped by 19");
        report_not_ok("detach", pt(libc::PTRACE_DETACH, pid, 0, 0));
    }
    end(pid);
}

pub(super) fn attach_stopped() {
    let pid = sleeper();
    kill(pid, libc::SIGSTOP);
    println!("{}", describe(sys::wait4(pid, libc::WUNTRACED).1));
    report("attach", pt(libc::PTRACE_ATTACH, pid, 0, 0));
    println!("{}", stop(pid));
    println!("{}", next(pid));
    report("detach", pt(libc::PTRACE_DETACH, pid, 0, libc::SIGSTOP.into()));
    println!("stops, which is no news: {}", show(sys::wait4(pid, libc::WUNTRACED | libc::WNOHANG).0));
    kill(pid, libc::SIGCONT);
    println!("{}", describe(sys::wait4(pid, libc::WCONTINUED).1));
    // A seized one stays as it is.
    kill(pid, libc::SIGSTOP);
    println!("{}", describe(sys::wait4(pid, libc::WUNTRACED).1));
    report("seize", pt(libc::PTRACE_SEIZE, pid, 0, 0));
    println!("{}", stop(pid));
    report("detach", pt(libc::PTRACE_DETACH, pid, 0, 0));
    println!("still stopped: {}", quiet(pid));
    kill(pid, libc::SIGCONT);
    end(pid);
}

/// Each thread is a tracee of its own.
pub(super) fn threads() {
    let (read_end, write_end) = sys::pipe(0);
    let (ids, told) = sys::pipe(0);
    let pid = fork(|| {
        sys::close(write_end);
        let threads: Vec<_> = (0..3)
            .map(|_| {
                std::thread::spawn(move || {
                    let id = sys!(libc::SYS_gettid);
                    sys::write(told, &id.to_ne_bytes());
                    sys::read(read_end, 1);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| _ = thread.join());
        0
    });
    let ids: Vec<i64> =
        (0..3).map(|_| i64::from_ne_bytes(sys::read(ids, 8).1.try_into().expect("an id"))).collect();
    for id in &ids {
        sys::until_asleep(pid, *id);
        report("attach", pt(libc::PTRACE_ATTACH, *id, 0, 0));
        println!("{}", stop(*id));
    }
    report("seize the first", pt(libc::PTRACE_SEIZE, pid, 0, 0));
    report("interrupt", pt(libc::PTRACE_INTERRUPT, pid, 0, 0));
    println!("{}", stop(pid));
    // One goes on, the others stay.
    go(ids[1]);
    sys::until_asleep(pid, ids[1]);
    println!("others: {}", show(sys::wait4(-1, libc::WNOHANG | libc::__WALL).0));
    report("another's", pt(libc::PTRACE_CONT, ids[1], 0, 0));
    go(ids[0]);
    go(ids[2]);
    go(pid);
    sys::close(write_end);
    for id in &ids {
        println!("thread {}", stop(*id));
        report("twice", sys::wait4(*id, libc::__WALL | libc::WNOHANG).0);
    }
    println!("{}", stop(pid));
}
