//! Process groups, stops, and what becomes of both when processes end; which signal the end of a child is.

use crate::Case;
use crate::setid::become_user;
use crate::sys::{
    self, close, describe, fork, handle, in_child, mask, pipe, report, set_of, show, wait, wait4,
};
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

pub(crate) const CASES: &[Case] = &[
    ("jobs_become_orphaned", become_orphaned),
    ("jobs_orphaned_before", orphaned_before),
    ("jobs_stopped_sibling", stopped_sibling),
    ("jobs_signals_to_stopped", signals_to_stopped),
    ("jobs_full_queue", full_queue),
    ("jobs_exit_signal_adopted", exit_signal_adopted),
    ("jobs_exit_signal_after_exec", exit_signal_after_exec),
    ("jobs_wait_for_what_cannot_come", wait_for_what_cannot_come),
    ("jobs_wait_by_thread", wait_by_thread),
    ("jobs_zombies_of_others", zombies_of_others),
    ("jobs_whose_child", whose_child),
];

/// The signals that were handled, as decimal digits in pairs, the first one leftmost.
static SEEN: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    SEEN.store(SEEN.load(SeqCst) * 100 + signal, SeqCst);
}

fn me() -> i64 {
    sys!(libc::SYS_getpid)
}

fn stop_self() {
    sys!(libc::SYS_kill, me(), libc::SIGSTOP);
}

fn await_stop(pid: i64) {
    let (_, status) = wait4(pid, libc::WUNTRACED);
    assert!(libc::WIFSTOPPED(status), "{}", describe(status));
}

fn own_group() {
    sys!(libc::SYS_setpgid, 0, 0);
}

/// What a descendant that is nobody's child any more has to say. Whoever adopts it is in another session, in any place.
fn from_orphan(what: &str, body: impl FnOnce(i64)) {
    let (read_end, write_end) = pipe(0);
    fork(|| {
        close(read_end);
        sys!(libc::SYS_setsid);
        body(write_end);
        0
    });
    close(write_end);
    let (_, said) = sys::read(read_end, 100);
    println!("{what}: {}", String::from_utf8_lossy(&said));
    while wait4(-1, 0).0 > 0 {}
}

/// The father was the only one who could have continued the group: it is hung up.
fn become_orphaned() {
    from_orphan("orphaned while stopped", |out| {
        let stopped = fork(|| {
            own_group();
            for signal in [libc::SIGHUP, libc::SIGCONT] {
                handle(signal, note, 0);
            }
            stop_self();
            sys::write(out, format!("signals {}", SEEN.load(SeqCst)).as_bytes());
            0
        });
        await_stop(stopped);
    });
    from_orphan("the member that connected the group ends", |out| {
        let link = fork(|| {
            own_group();
            let stopped = fork(|| {
                for signal in [libc::SIGHUP, libc::SIGCONT] {
                    handle(signal, note, 0);
                }
                stop_self();
                sys::write(out, format!("signals {}", SEEN.load(SeqCst)).as_bytes());
                0
            });
            await_stop(stopped);
            0
        });
        wait(link);
    });
}

/// A group that is an orphan already is left alone, whoever else ends.
fn orphaned_before() {
    from_orphan("a member of an orphaned group ends", |out| {
        let father = me();
        fork(|| {
            own_group();
            handle(libc::SIGHUP, note, 0);
            while sys!(libc::SYS_getppid) == father {
                sys!(libc::SYS_sched_yield);
            }
            let stopped = fork(|| {
                stop_self();
                0
            });
            await_stop(stopped);
            let other = fork(|| 0);
            let (_, ended) = wait4(other, 0);
            let (continued, _) = wait4(stopped, libc::WCONTINUED | libc::WNOHANG);
            let told = SEEN.load(SeqCst);
            sys!(libc::SYS_kill, stopped, libc::SIGKILL);
            let end = wait(stopped);
            let text = format!("{}, then {}; told {told}, {end}", describe(ended), show(continued));
            sys::write(out, text.as_bytes());
            0
        });
    });
}

fn stopped_sibling() {
    handle(libc::SIGHUP, note, 0);
    let stopped = fork(|| {
        stop_self();
        3
    });
    await_stop(stopped);
    in_child("another child", || 0);
    report("nothing happens to the first", wait4(stopped, libc::WCONTINUED | libc::WNOHANG).0);
    sys!(libc::SYS_kill, stopped, libc::SIGCONT);
    println!("continued: {}; hung up {}", wait(stopped), SEEN.load(SeqCst));
}

fn signals_to_stopped() {
    let forever = || {
        loop {
            sys!(libc::SYS_ppoll, 0, 0, 0, 0, 8);
        }
    };
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGRTMIN()] {
        let pid = fork(forever);
        sys!(libc::SYS_kill, pid, libc::SIGSTOP);
        await_stop(pid);
        sys!(libc::SYS_kill, pid, signal);
        report("it stays", wait4(pid, libc::WNOHANG).0);
        sys!(libc::SYS_kill, pid, libc::SIGCONT);
        println!("continued: {}", wait(pid));
    }
    let pid = fork(forever);
    sys!(libc::SYS_kill, pid, libc::SIGSTOP);
    await_stop(pid);
    sys!(libc::SYS_kill, pid, libc::SIGKILL);
    println!("killed: {}", wait(pid));
}

/// What is sent by kill(2) or the kernel needs no place in a queue.
fn full_queue() {
    let (read_end, write_end) = pipe(0);
    let pid = fork(|| {
        mask(libc::SIG_BLOCK, !0);
        let mut info = [0_u32; 32];
        (info[0], info[2]) = (libc::SIGRTMIN() as u32 + 1, -1_i32 as u32);
        let full = loop {
            let result = sys!(libc::SYS_rt_sigqueueinfo, me(), libc::SIGRTMIN() + 1, info.as_ptr());
            if result < 0 {
                break result;
            }
        };
        report("queued until", full);
        report("kill", sys!(libc::SYS_kill, me(), libc::SIGRTMIN() + 2));
        report("another child's end", i64::from(wait(fork(|| 4)) == "exited 4"));
        let mut pending = 0_u64;
        sys!(libc::SYS_rt_sigpending, &raw mut pending, 8);
        let wanted = set_of(&[libc::SIGRTMIN() + 2, libc::SIGCHLD]);
        println!("pending {:?}", sys::members(pending & wanted));
        sys::flush();
        sys::write(write_end, b"x");
        loop {
            sys!(libc::SYS_ppoll, 0, 0, 0, 0, 8);
        }
    });
    sys::read(read_end, 1);
    report("SIGKILL", sys!(libc::SYS_kill, pid, libc::SIGKILL));
    println!("{}", wait(pid));
}

/// A child that says it ends with `signal`.
fn clone_with(signal: i32, body: impl FnOnce() -> i32) -> i64 {
    sys::flush();
    let pid = sys!(libc::SYS_clone, signal, 0, 0, 0, 0);
    if pid == 0 {
        let status = body();
        sys::flush();
        sys::exit(status);
    }
    pid
}

/// The signal that a child was made with is its maker's; whoever inherits the child gets SIGCHLD.
fn exit_signal_adopted() {
    sys!(libc::SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    for signal in [libc::SIGUSR1, libc::SIGCHLD] {
        handle(signal, note, libc::SA_RESTART);
    }
    let own = clone_with(libc::SIGUSR1, || 0);
    println!("own: {}", describe(wait4(own, libc::__WALL).1));
    println!("signals {}", SEEN.swap(0, SeqCst));
    let (read_end, write_end) = pipe(0);
    let father = fork(|| {
        clone_with(libc::SIGKILL, || {
            close(write_end);
            sys::read(read_end, 1);
            5
        });
        0
    });
    println!("its father: {}", wait(father));
    close(write_end);
    let (_, status) = wait4(-1, 0);
    println!("adopted: {}; signals {}", describe(status), SEEN.load(SeqCst));
}

/// A program that did not make the child is not told by a signal that another program chose.
fn exit_signal_after_exec() {
    let pid = fork(|| {
        let (read_end, write_end) = pipe(libc::O_CLOEXEC);
        clone_with(libc::SIGKILL, || {
            close(write_end);
            sys::read(read_end, 1);
            sys!(libc::SYS_kill, sys!(libc::SYS_getppid), 0);
            6
        });
        -crate::process::execute(crate::process::SELF, &["abi", "--child", "wait-any"], &[]) as i32
    });
    println!("its parent: {}", wait(pid));
}

fn wait_for_what_cannot_come() {
    let zombie = fork(|| 0);
    let mut info = [0_i32; 32];
    let mut waitid = |options| sys!(libc::SYS_waitid, libc::P_ALL, 0, info.as_mut_ptr(), options, 0);
    report("it ends", waitid(libc::WEXITED | libc::WNOWAIT));
    report("stops of a zombie", waitid(libc::WSTOPPED | libc::WNOHANG));
    report("stops of a zombie, waiting", waitid(libc::WSTOPPED));
    report("continues of a zombie", waitid(libc::WCONTINUED));
    report("signal 0 to a zombie", sys!(libc::SYS_kill, zombie, 0));
    report("SIGSTOP to a zombie", sys!(libc::SYS_kill, zombie, libc::SIGSTOP));
    println!("{}", wait(zombie));
    report("signal 0 to nobody", sys!(libc::SYS_kill, zombie, 0));
}

/// Children belong to the thread that made them, for whoever asks so.
fn wait_by_thread() {
    let child = fork(|| 7);
    std::thread::spawn(move || report("another thread's", wait4(child, libc::__WNOTHREAD).0))
        .join()
        .expect("it does not panic");
    let made = std::thread::spawn(|| {
        let own = fork(|| 8);
        sys!(libc::SYS_waitid, libc::P_PID, own, 0, libc::WEXITED | libc::WNOWAIT, 0);
        own
    });
    let inherited = made.join().expect("it does not panic");
    println!("own: {}", describe(wait4(child, libc::__WNOTHREAD).1));
    println!("a dead thread's: {}", describe(wait4(inherited, 0).1));
}

/// Who has ended and was not waited for is signalled by whom it would have been before.
fn zombies_of_others() {
    let zombie = |own: bool| {
        let pid = fork(|| {
            if own {
                become_user(&[]);
            }
            0
        });
        sys!(libc::SYS_waitid, libc::P_PID, pid, 0, libc::WEXITED | libc::WNOWAIT, 0);
        pid
    };
    let (roots, own) = (zombie(false), zombie(true));
    let signal = || {
        for (what, pid) in [("root's", roots), ("one's own", own)] {
            for signal in [0, libc::SIGTERM] {
                report(what, sys!(libc::SYS_kill, pid, signal));
            }
        }
        0
    };
    in_child("root", signal);
    in_child("a user", || {
        become_user(&[]);
        signal()
    });
    println!("{:?}", [wait(roots), wait(own)]);
}

/// SIGCHLD and waitid(2) say whose child has stopped, continued and ended.
fn whose_child() {
    mask(libc::SIG_BLOCK, set_of(&[libc::SIGCHLD]));
    let (read_end, write_end) = pipe(0);
    let pid = fork(|| {
        become_user(&[]);
        stop_self();
        sys::read(read_end, 1);
        0
    });
    let mut info = [0_i32; 32];
    for (what, options) in
        [("stopped", libc::WSTOPPED), ("continued", libc::WCONTINUED), ("ended", libc::WEXITED)]
    {
        let set = set_of(&[libc::SIGCHLD]);
        sys!(libc::SYS_rt_sigtimedwait, &raw const set, info.as_mut_ptr(), 0, 8);
        println!("{what}: code {}, own {}, user {}", info[2], i64::from(info[4]) == pid, info[5]);
        sys!(libc::SYS_waitid, libc::P_PID, pid, info.as_mut_ptr(), options, 0);
        println!("{what}: code {}, own {}, user {}", info[2], i64::from(info[4]) == pid, info[5]);
        match options {
            libc::WSTOPPED => sys!(libc::SYS_kill, pid, libc::SIGCONT),
            libc::WCONTINUED => sys::write(write_end, b"x"),
            _ => 0,
        };
    }
}
