//! What a tracee reports beside signals: children, programs, its end.

use super::{describe, go, info, me, message, next, options, pt, stop, tracee};
use crate::process::{SELF, execute};
use crate::sys::{self, report};

/// Waits for any tracee; whether it is `known`, and what it says.
fn any(known: i64) -> (i64, String) {
    let (pid, status) = sys::wait4(-1, libc::__WALL);
    (pid, format!("{} {}", if pid == known { "tracee" } else { "child" }, describe(status)))
}

/// A child and its parent stop in any order: the parent's event, then the child's first stop.
fn parent_and_child(pid: i64) -> i64 {
    let stops = [any(pid), any(pid)];
    let child = stops.iter().map(|stop| stop.0).find(|other| *other != pid).unwrap_or(-1);
    let mut said: Vec<&str> = stops.iter().map(|stop| stop.1.as_str()).collect();
    said.sort_unstable();
    println!("{said:?}");
    println!("message is the child {}, {}", message(pid) == child, info(pid, pid));
    child
}

/// Lets both go on until both have ended.
fn to_the_end(pid: i64, child: i64) {
    go(child);
    println!("child {}", stop(child));
    go(pid);
    let mut at = stop(pid);
    while at == "stopped by 17" {
        at = next(pid);
    }
    println!("tracee {at}");
}

pub(super) fn fork_event() {
    let pid = tracee(|| {
        let child = sys::fork(|| 3);
        i32::from(sys::wait(child) == "exited 3")
    });
    options(pid, libc::PTRACE_O_TRACEFORK.into());
    go(pid);
    let child = parent_and_child(pid);
    println!("child's stop: {}", info(child, 0));
    report("traced like its parent", pt(libc::PTRACE_SETOPTIONS, child, 0, 0));
    to_the_end(pid, child);
    // Without the option nobody hears of it.
    let pid = tracee(|| {
        sys::wait(sys::fork(|| 3));
        0
    });
    println!("{}", next(pid));
    println!("{}", next(pid));
}

/// vfork(2), whose child must not return: it executes.
fn vforks() -> i32 {
    let words: [*const libc::c_char; 5] =
        [c"abi".as_ptr(), c"--child".as_ptr(), c"exit".as_ptr(), c"4".as_ptr(), std::ptr::null()];
    let none = [std::ptr::null::<libc::c_char>()];
    let path = sys::c(SELF);
    // The stack is the parent's: nothing is called in between.
    let child = sys!(libc::SYS_clone, libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD, 0, 0, 0, 0);
    if child == 0 {
        sys!(libc::SYS_execve, path.as_ptr(), words.as_ptr(), none.as_ptr());
        sys::exit(99);
    }
    i32::from(sys::wait(child) == "exited 4")
}

pub(super) fn vfork_event() {
    let pid = tracee(vforks);
    options(
        pid,
        (libc::PTRACE_O_TRACEVFORK | libc::PTRACE_O_TRACEVFORKDONE | libc::PTRACE_O_TRACEEXEC).into(),
    );
    go(pid);
    let child = parent_and_child(pid);
    go(pid);
    println!("child {}", next(child));
    go(child);
    let (one, other) = (any(pid), any(pid));
    let mut said = [one.1, other.1];
    said.sort_unstable();
    println!("{said:?} message is the child {}", message(pid) == child);
    go(pid);
    let mut at = stop(pid);
    while at == "stopped by 17" {
        at = next(pid);
    }
    println!("tracee {at}");
}

pub(super) fn clone_event() {
    let pid = tracee(|| {
        // Whether the thread's end or the process's counts for it depends on who is faster.
        let thread = std::thread::spawn(|| 5);
        i32::from(thread.join().ok() != Some(5))
    });
    options(pid, libc::PTRACE_O_TRACECLONE.into());
    go(pid);
    let thread = parent_and_child(pid);
    report("its thread, not a child", sys::wait4(thread, libc::WNOHANG).0);
    go(pid);
    println!("thread {}", next(thread));
    println!("process {}", stop(pid));
    let pid = tracee(|| {
        let thread = std::thread::spawn(|| 5);
        i32::from(thread.join().ok() != Some(5))
    });
    options(pid, (libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACEEXIT).into());
    go(pid);
    let thread = parent_and_child(pid);
    go(pid);
    println!("thread {} with {}", next(thread), message(thread));
    println!("thread {}", next(thread));
    println!("process {} with {}", stop(pid), message(pid));
    println!("process {}", next(pid));
}

fn executes() -> i32 {
    -execute(SELF, &["abi", "--child", "exit", "6"], &[]) as i32
}

pub(super) fn exec_event() {
    let pid = tracee(executes);
    println!("without the option: {}, {}", next(pid), info(pid, pid));
    println!("{}", next(pid));
    let pid = tracee(executes);
    options(pid, libc::PTRACE_O_TRACEEXEC.into());
    println!("{}, {}, message {}", next(pid), info(pid, pid), message(pid) == pid);
    println!("{}", next(pid));
    let pid = tracee(|| {
        report("no such program", execute("/nowhere", &["abi"], &[]));
        0
    });
    options(pid, libc::PTRACE_O_TRACEEXEC.into());
    println!("{}", next(pid));
}

/// The thread that executes becomes the process; what it was before is in the message.
pub(super) fn exec_by_thread() {
    let pid = tracee(|| {
        let thread = std::thread::spawn(executes);
        thread.join().unwrap_or(0)
    });
    options(pid, (libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACEEXEC).into());
    go(pid);
    let thread = parent_and_child(pid);
    go(pid);
    go(thread);
    println!("{}, message is the thread {}", stop(pid), message(pid) == thread);
    report("the thread", sys::wait4(thread, libc::__WALL | libc::WNOHANG).0);
    println!("{}", next(pid));
}

pub(super) fn exit_event() {
    for signal in [0, libc::SIGTERM, libc::SIGKILL] {
        let pid = tracee(move || {
            super::kill(me(), signal);
            7
        });
        options(pid, libc::PTRACE_O_TRACEEXIT.into());
        go(pid);
        let mut at = stop(pid);
        if signal == libc::SIGTERM {
            println!("{at}");
            super::go_with(pid, signal);
            at = stop(pid);
        }
        if signal == libc::SIGKILL {
            // Some kernels stop for it, some do not.
            if at != "killed by 9" {
                at = next(pid);
            }
        } else {
            println!("{at} with {:#x}", message(pid));
            at = next(pid);
        }
        println!("{at}");
    }
}

/// Children of a seized tracee stop without a signal.
pub(super) fn seized_child() {
    let (read_end, write_end) = sys::pipe(0);
    let pid = sys::fork(|| {
        sys::read(read_end, 1);
        let child = sys::fork(|| 3);
        i32::from(sys::wait(child) == "exited 3")
    });
    report("seize", pt(libc::PTRACE_SEIZE, pid, 0, libc::PTRACE_O_TRACEFORK.into()));
    sys::write(write_end, b"x");
    let child = parent_and_child(pid);
    println!("child's stop: {}", info(child, child));
    to_the_end(pid, child);
}
