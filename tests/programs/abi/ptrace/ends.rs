//! The end of tracers and tracees, and who may be which.

use super::{go, kill, me, next, options, pt, stop, stop_self, tracee};
use crate::process::execute;
use crate::setid::{become_user, copy_of_self};
use crate::sys::{self, forever, fork, in_child, report, show};

/// Whatever a tracer does not do, its tracee can be killed.
pub(super) fn killed() {
    let pid = tracee(forever);
    kill(pid, libc::SIGKILL);
    println!("stopped: {}", stop(pid));
    let pid = tracee(forever);
    report("PTRACE_KILL", pt(libc::PTRACE_KILL, pid, 0, 0));
    println!("{}", stop(pid));
    let pid = tracee(forever);
    go(pid);
    report("PTRACE_KILL of one that runs", pt(libc::PTRACE_KILL, pid, 0, 0));
    println!("{}", stop(pid));
    // Nobody has waited for this stop.
    let pid = fork(|| {
        pt(libc::PTRACE_TRACEME, 0, 0, 0);
        stop_self();
        0
    });
    let mut words = [0_i32; 32];
    sys!(libc::SYS_waitid, libc::P_PID, pid, words.as_mut_ptr(), libc::WSTOPPED | libc::WNOWAIT, 0);
    kill(pid, libc::SIGKILL);
    println!("{}", stop(pid));
    let pid = tracee(forever);
    kill(pid, libc::SIGTERM);
    println!("SIGTERM waits: {}", next(pid));
    kill(pid, libc::SIGKILL);
    println!("{}", stop(pid));
}

/// A process that traces `pid` and ends, by `end`.
fn traces_and_ends(pid: i64, how: i64, kills: bool) {
    in_child("tracer", || {
        let options = if kills { libc::PTRACE_O_EXITKILL.into() } else { 0 };
        report("seize", pt(libc::PTRACE_SEIZE, pid, 0, options));
        if how > 0 {
            report("interrupt", pt(libc::PTRACE_INTERRUPT, pid, 0, 0));
            println!("{}", stop(pid));
        }
        0
    });
}

/// A process that ends when its input does.
fn waits_for_input() -> (i64, i64) {
    let (read_end, write_end) = sys::pipe(0);
    let pid = fork(|| {
        sys::close(write_end);
        sys::read(read_end, 1);
        5
    });
    sys::close(read_end);
    sys::until_asleep(pid, pid);
    (pid, write_end)
}

/// Its tracees go on.
pub(super) fn tracer_ends() {
    for how in [0, 1] {
        let (pid, input) = waits_for_input();
        traces_and_ends(pid, how, false);
        report("still there", sys::wait4(pid, libc::WNOHANG).0);
        sys::write(input, b"x");
        println!("{}", stop(pid));
    }
    // A thread that traces, and ends before its process.
    let (pid, input) = waits_for_input();
    std::thread::spawn(move || report("by a thread", pt(libc::PTRACE_SEIZE, pid, 0, 0)))
        .join()
        .expect("a thread");
    report("another thread's", pt(libc::PTRACE_INTERRUPT, pid, 0, 0));
    // Who has joined it was told before it let go.
    while pt(libc::PTRACE_SEIZE, pid, 0, 0) == -i64::from(libc::EPERM) {
        std::thread::yield_now();
    }
    report("interrupt", pt(libc::PTRACE_INTERRUPT, pid, 0, 0));
    println!("{}", stop(pid));
    report("detach", pt(libc::PTRACE_DETACH, pid, 0, 0));
    sys::write(input, b"x");
    println!("{}", stop(pid));
}

pub(super) fn exitkill() {
    for how in [0, 1] {
        let (pid, _input) = waits_for_input();
        traces_and_ends(pid, how, true);
        println!("{}", stop(pid));
    }
}

/// A tracer that is not the parent waits first.
pub(super) fn parent_and_tracer() {
    let (pid, input) = waits_for_input();
    let (read_end, write_end) = sys::pipe(0);
    let (attached, told) = sys::pipe(0);
    let tracer = fork(|| {
        report("attach", pt(libc::PTRACE_ATTACH, pid, 0, 0));
        println!("tracer: {}", stop(pid));
        sys::flush();
        sys::write(told, b"x");
        sys::read(read_end, 1);
        go(pid);
        let mut words = [0_i32; 32];
        let flags = libc::WEXITED | libc::WNOWAIT | libc::__WALL;
        sys!(libc::SYS_waitid, libc::P_PID, pid, words.as_mut_ptr(), flags, 0);
        sys::flush();
        sys::write(told, b"x");
        sys::read(read_end, 1);
        println!("tracer: {}", stop(pid));
        report("tracer again", sys::wait4(pid, libc::__WALL).0);
        0
    });
    sys::read(attached, 1);
    report("a tracer's stop is not the parent's", sys::wait4(pid, libc::WNOHANG | libc::WUNTRACED).0);
    sys::write(write_end, b"x");
    sys::write(input, b"x");
    sys::read(attached, 1);
    report("nor is the end", sys::wait4(pid, libc::WNOHANG).0);
    sys::write(write_end, b"x");
    println!("tracer {}", sys::wait(tracer));
    println!("parent: {}", sys::wait(pid));
    // A tracer that never waits.
    let (pid, input) = waits_for_input();
    let tracer = fork(|| {
        pt(libc::PTRACE_SEIZE, pid, 0, 0);
        sys::write(told, b"x");
        sys::read(read_end, 1);
        0
    });
    sys::read(attached, 1);
    sys::write(input, b"x");
    report("not yet", sys::wait4(pid, libc::WNOHANG).0);
    sys::write(write_end, b"x");
    println!("tracer {}", sys::wait(tracer));
    println!("parent: {}", sys::wait(pid));
}

pub(super) fn many() {
    const MANY: usize = 200;
    let all: Vec<i64> = (0..MANY).map(|_| tracee(|| 5)).collect();
    all.iter().for_each(|pid| go(*pid));
    let ended = (0..MANY).filter(|_| libc::WEXITED != 0 && sys::wait4(-1, libc::__WALL).1 == 0x500).count();
    println!("ended {ended}");
    report("no more", sys::wait4(-1, libc::__WALL).0);
}

/// Two processes that trace each other, and one that kills its tracer.
pub(super) fn each_other() {
    let (read_end, write_end) = sys::pipe(0);
    let first = fork(|| {
        // Its tracer would be asked about it, and has stopped by then.
        sys::mask(libc::SIG_BLOCK, sys::set_of(&[libc::SIGCHLD]));
        let other = fork(|| {
            let result = pt(libc::PTRACE_SEIZE, sys!(libc::SYS_getppid), 0, 0);
            sys::write(write_end, show(result).as_bytes());
            forever()
        });
        let (_, said) = sys::read(read_end, 8);
        println!("upwards: {}", String::from_utf8_lossy(&said));
        report("downwards", pt(libc::PTRACE_SEIZE, other, 0, 0));
        report("interrupt", pt(libc::PTRACE_INTERRUPT, other, 0, 0));
        println!("{}", stop(other));
        kill(other, libc::SIGKILL);
        println!("{}", stop(other));
        0
    });
    println!("{}", stop(first));
    let first = fork(|| {
        let father = me();
        let other = fork(|| {
            pt(libc::PTRACE_TRACEME, 0, 0, 0);
            kill(father, libc::SIGKILL);
            sys::write(write_end, b"on");
            7
        });
        sys::wait(other);
        forever()
    });
    println!("{}", stop(first));
    println!("{}", String::from_utf8_lossy(&sys::read(read_end, 2).1));
}

pub(super) fn access() {
    let (root, _input) = waits_for_input();
    in_child("a user", || {
        become_user(&[]);
        report("root's process", pt(libc::PTRACE_ATTACH, root, 0, 0));
        report("seize", pt(libc::PTRACE_SEIZE, root, 0, 0));
        sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1);
        let own = fork(forever);
        report("own", pt(libc::PTRACE_SEIZE, own, 0, 0));
        kill(own, libc::SIGKILL);
        println!("{}", stop(own));
        let closed = fork(|| {
            sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 0);
            forever()
        });
        sys::until_asleep(closed, closed);
        report("own, not dumpable", pt(libc::PTRACE_SEIZE, closed, 0, 0));
        kill(closed, libc::SIGKILL);
        println!("{}", stop(closed));
        0
    });
    kill(root, libc::SIGKILL);
    println!("{}", stop(root));
}

/// A set-id program gains nothing under a tracer that could not have it all.
pub(super) fn set_id() {
    sys::scratch("ptrace-setid");
    sys!(libc::SYS_fchmodat, libc::AT_FDCWD, sys::c(".").as_ptr(), 0o755);
    copy_of_self("setuid", 0o4755);
    let run = || -execute("setuid", &["abi", "--child", "ids"], &[]) as i32;
    in_child("a user, not traced", || {
        become_user(&[]);
        run()
    });
    in_child("a user, traced", || {
        become_user(&[]);
        sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1);
        let pid = tracee(run);
        println!("{}", next(pid));
        println!("{}", next(pid));
        0
    });
    let pid = tracee(|| {
        become_user(&[]);
        run()
    });
    println!("traced by root: {}", next(pid));
    println!("{}", next(pid));
    let pid = sys::fork(|| {
        become_user(&[]);
        report("traced", pt(libc::PTRACE_TRACEME, 0, 0, 0));
        run()
    });
    println!("traced by root, as a user asked: {}", stop(pid));
    println!("{}", next(pid));
    sys::unscratch();
}

fn line(pid: i64, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.replace(&me().to_string(), "me")
}

pub(super) fn proc() {
    let pid = tracee(forever);
    println!("{} {}", line(pid, "State"), line(pid, "TracerPid"));
    options(pid, super::SYSGOOD);
    go(pid);
    sys::until_asleep(pid, pid);
    println!("{} {}", line(pid, "State"), line(pid, "TracerPid"));
    kill(pid, libc::SIGSTOP);
    println!("{}: {}", stop(pid), line(pid, "State"));
    report("detach", pt(libc::PTRACE_DETACH, pid, 0, 0));
    sys::until_asleep(pid, pid);
    println!("{} {}", line(pid, "State"), line(pid, "TracerPid"));
    kill(pid, libc::SIGKILL);
    println!("{}", stop(pid));
}
