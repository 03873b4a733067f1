//! Processes: fork, exec, exit, wait, groups and sessions.

use crate::Case;
use crate::sys::{self, c, describe, fork, in_child, report, show, wait, wait4};

pub(crate) const CASES: &[Case] = &[
    ("process_exit_status", exit_status),
    ("process_killed_status", killed_status),
    ("process_wait_errors", wait_errors),
    ("process_waitid", waitid),
    ("process_stop_continue", stop_continue),
    ("process_exec", exec),
    ("process_exec_errors", exec_errors),
    ("process_exec_keeps", exec_keeps),
    ("process_exec_script", exec_script),
    ("process_vfork", vfork),
    ("process_clone3", clone3),
    ("process_orphan", orphan),
    ("process_groups", groups),
    ("process_ids", ids),
    ("process_tree", tree),
    ("process_memory_is_copied", memory_is_copied),
    ("process_exit_group", exit_group),
];

fn exit_status() {
    for status in [0, 1, 7, 127, 255, 256, 257, -1] {
        in_child(&format!("exit {status}"), || status);
    }
}

fn killed_status() {
    for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGALRM, 34, 64] {
        in_child(&format!("signal {signal}"), || {
            sys!(libc::SYS_kill, sys!(libc::SYS_getpid), signal);
            9
        });
    }
    for signal in [libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGCONT] {
        in_child(&format!("harmless {signal}"), || {
            sys!(libc::SYS_kill, sys!(libc::SYS_getpid), signal);
            9
        });
    }
}

fn wait_errors() {
    report("no child", wait4(-1, 0).0);
    report("no such child", wait4(1, 0).0);
    report("bad options", wait4(-1, 0x1000).0);
    let (read_end, write_end) = sys::pipe(0);
    let pid = fork(|| {
        sys::close(write_end);
        i32::from(sys::read(read_end, 1).0 != 0)
    });
    report("WNOHANG, running", wait4(pid, libc::WNOHANG).0);
    report("a group with no members", wait4(-pid, 0).0);
    sys::close(write_end);
    println!("finished: {}", wait(pid));
    report("again", wait4(pid, 0).0);
    let pid = fork(|| 0);
    let result = sys!(libc::SYS_wait4, pid, 8, 0, 0);
    report("bad status pointer", result);
}

fn waitid_once(kind: u32, id: i64, options: i32) -> String {
    let mut info = [0_u32; 32];
    let result = sys!(libc::SYS_waitid, kind, id, info.as_mut_ptr(), options, 0);
    let pid_matches = i64::from(info[3]) == id;
    format!(
        "{} signo {} code {} pid {} status {}",
        show(result),
        info[0],
        info[2],
        if info[3] == 0 {
            "0"
        } else if pid_matches {
            "same"
        } else {
            "other"
        },
        info[5]
    )
}

fn waitid() {
    let pid = fork(|| 7);
    println!("peek: {}", waitid_once(libc::P_PID, pid, libc::WEXITED | libc::WNOWAIT));
    println!("reap: {}", waitid_once(libc::P_PID, pid, libc::WEXITED));
    println!("gone: {}", waitid_once(libc::P_PID, pid, libc::WEXITED));
    let pid = fork(|| {
        sys!(libc::SYS_kill, sys!(libc::SYS_getpid), libc::SIGKILL);
        0
    });
    println!("killed: {}", waitid_once(libc::P_PID, pid, libc::WEXITED));
    let (read_end, write_end) = sys::pipe(0);
    let pid = fork(|| {
        sys::close(write_end);
        sys::read(read_end, 1).0 as i32
    });
    println!("running: {}", waitid_once(libc::P_PID, pid, libc::WEXITED | libc::WNOHANG));
    sys::close(write_end);
    println!("exited: {}", waitid_once(libc::P_PID, pid, libc::WEXITED));
    println!("nothing asked: {}", waitid_once(libc::P_ALL, 0, libc::WNOHANG));
}

fn stop_continue() {
    let (read_end, write_end) = sys::pipe(0);
    let pid = fork(|| {
        sys::close(write_end);
        sys::read(read_end, 1);
        3
    });
    sys!(libc::SYS_kill, pid, libc::SIGSTOP);
    let (_, status) = wait4(pid, libc::WUNTRACED);
    println!("stop: {}", describe(status));
    report("still stopped", wait4(pid, libc::WNOHANG | libc::WUNTRACED).0);
    sys!(libc::SYS_kill, pid, libc::SIGCONT);
    let (_, status) = wait4(pid, libc::WCONTINUED);
    println!("continue: {}", describe(status));
    sys!(libc::SYS_kill, pid, libc::SIGSTOP);
    println!("stop by waitid: {}", waitid_once(libc::P_PID, pid, libc::WSTOPPED));
    sys!(libc::SYS_kill, pid, libc::SIGKILL);
    println!("end: {}", wait(pid));
    sys::close(read_end);
    sys::close(write_end);
}

/// `execve` with words and an environment; returns only on failure.
pub(crate) fn execute(path: &str, words: &[&str], env: &[&str]) -> i64 {
    sys::flush();
    let path = c(path);
    let words: Vec<_> = words.iter().map(|w| c(w)).collect();
    let env: Vec<_> = env.iter().map(|w| c(w)).collect();
    let mut argv: Vec<_> = words.iter().map(|w| w.as_ptr()).collect();
    let mut envp: Vec<_> = env.iter().map(|w| w.as_ptr()).collect();
    argv.push(std::ptr::null());
    envp.push(std::ptr::null());
    sys!(libc::SYS_execve, path.as_ptr(), argv.as_ptr(), envp.as_ptr())
}

/// This program, for `execute`.
pub(crate) const SELF: &str = "/proc/self/exe";

fn exec() {
    in_child("args", || execute(SELF, &["abi", "--child", "args", "a b", "", "ü"], &["K=V", "E="]) as i32);
    in_child("no environment", || execute(SELF, &["x", "--child", "args"], &[]) as i32);
    in_child("status", || execute(SELF, &["x", "--child", "exit", "42"], &[]) as i32);
    in_child("signal", || execute(SELF, &["x", "--child", "kill", "15"], &[]) as i32);
    let long = "x".repeat(100_000);
    in_child("a long argument", || execute(SELF, &["x", "--child", "exit", "5", &long], &[]) as i32);
    in_child("fexecve", || {
        let fd = sys::open(SELF, libc::O_RDONLY | libc::O_CLOEXEC, 0);
        let (empty, words) = (c(""), [c("x"), c("--child"), c("exit"), c("6")]);
        let mut argv: Vec<_> = words.iter().map(|w| w.as_ptr()).collect();
        argv.push(std::ptr::null());
        let none = [std::ptr::null::<i8>()];
        let (argv, envp) = (argv.as_ptr(), none.as_ptr());
        -sys!(libc::SYS_execveat, fd, empty.as_ptr(), argv, envp, libc::AT_EMPTY_PATH) as i32
    });
}

fn exec_errors() {
    sys::scratch("exec");
    std::fs::write("plain", "#!/bin/sh\n").expect("a file");
    std::fs::write("garbage", "neither ELF nor script").expect("a file");
    std::fs::write("empty", "").expect("a file");
    std::fs::write("short-elf", b"\x7fELF\x02\x01\x01").expect("a file");
    std::fs::write("bad-interpreter", "#!/no/such/interpreter\n").expect("a file");
    for name in ["garbage", "empty", "short-elf", "bad-interpreter"] {
        sys!(libc::SYS_fchmodat, libc::AT_FDCWD, c(name).as_ptr(), 0o755);
    }
    let huge = "x".repeat(200_000);
    for path in ["none", "plain", "/tmp", "garbage", "empty", "short-elf", "bad-interpreter", "plain/x", ""] {
        report(&format!("exec {path:?}"), execute(path, &["x"], &[]));
    }
    report("exec of a too long argument", execute(SELF, &["x", &huge], &[]));
    report("exec of a bad pointer", sys!(libc::SYS_execve, 8, 0, 0));
    sys::unscratch();
}

fn exec_keeps() {
    // The harness may leave descriptors open in one world and not in the other.
    sys!(libc::SYS_close_range, 3, u32::MAX, 0);
    let keep = sys::open("/dev/null", libc::O_RDONLY, 0);
    let drop = sys::open("/dev/null", libc::O_RDONLY | libc::O_CLOEXEC, 0);
    let moved = sys!(libc::SYS_dup3, keep, 12, 0);
    println!("fds {keep} {drop} {moved}");
    in_child("fds", || execute(SELF, &["x", "--child", "fds"], &[]) as i32);
    in_child("signals", || {
        extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
        sys::mask(libc::SIG_BLOCK, sys::set_of(&[libc::SIGHUP, libc::SIGTERM]));
        sys::action(libc::SIGUSR1, libc::SIG_IGN, 0, &[]);
        sys::handle(libc::SIGUSR2, nothing, 0);
        execute(SELF, &["x", "--child", "signals"], &[]) as i32
    });
    in_child("limits", || {
        let limit = [100_u64, 200];
        sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, limit.as_ptr(), 0);
        execute(SELF, &["x", "--child", "limit"], &[]) as i32
    });
    in_child("pid", || {
        // The same process goes on: its parent waits for the same pid.
        execute(SELF, &["x", "--child", "exit", "11"], &[]) as i32
    });
}

fn exec_script() {
    sys::scratch("script");
    let own = std::fs::read_link("/proc/self/exe").expect("our own path");
    std::fs::write("script", format!("#!{} --child args\nnot read\n", own.display())).expect("a file");
    // One argument only: everything behind the interpreter is one word, "--child args" is not a case.
    sys!(libc::SYS_fchmodat, libc::AT_FDCWD, c("script").as_ptr(), 0o755);
    in_child("one word", || execute("./script", &["ignored", "tail"], &[]) as i32);
    std::fs::write("script", "#!/bin/echo  spaced  out \n").expect("a file");
    in_child("echo", || execute("./script", &["ignored", "tail"], &[]) as i32);
    sys::unscratch();
}

fn vfork() {
    let (read_end, write_end) = sys::pipe(0);
    sys::flush();
    // CLONE_VFORK without CLONE_VM: the parent waits until the child is gone, memory is copied.
    let pid = sys!(libc::SYS_clone, libc::CLONE_VFORK | libc::SIGCHLD, 0, 0, 0, 0);
    if pid == 0 {
        sys::write(write_end, b"child");
        sys::exit(4);
    }
    sys::close(write_end);
    sys::report_read("written before the parent went on", read_end, 10);
    println!("{}", wait(pid));
    sys::close(read_end);
}

fn clone3() {
    let mut pidfd = -1_i32;
    let mut parent_tid = 0_i32;
    let mut args = [0_u64; 11];
    args[0] = (libc::CLONE_PIDFD | libc::CLONE_PARENT_SETTID) as u64;
    args[1] = &raw mut pidfd as u64;
    args[3] = &raw mut parent_tid as u64;
    args[4] = libc::SIGCHLD as u64;
    sys::flush();
    let pid = sys!(libc::SYS_clone3, args.as_ptr(), 88);
    if pid == 0 {
        sys::exit(21);
    }
    println!("tid set: {}", i64::from(parent_tid) == pid);
    println!("pidfd open: {}", sys!(libc::SYS_fcntl, pidfd, libc::F_GETFD) == 1);
    println!("waitid on it: {}", {
        let mut info = [0_u32; 32];
        let result = sys!(libc::SYS_waitid, libc::P_PIDFD, pidfd, info.as_mut_ptr(), libc::WEXITED, 0);
        format!("{} status {}", show(result), info[5])
    });
    report("too small", sys!(libc::SYS_clone3, args.as_ptr(), 16));
    args[0] = libc::CLONE_THREAD as u64;
    report("thread without memory", sys!(libc::SYS_clone3, args.as_ptr(), 88));
    report("sighand without memory", sys!(libc::SYS_clone, libc::CLONE_SIGHAND | libc::SIGCHLD, 0, 0, 0, 0));
}

fn orphan() {
    report("subreaper", sys!(libc::SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1));
    let own = sys!(libc::SYS_getpid);
    let pid = fork(|| {
        let grandchild = fork(|| {
            // Wait until the parent is gone.
            while sys!(libc::SYS_getppid) != own {
                sys!(libc::SYS_sched_yield);
            }
            13
        });
        i32::from(grandchild < 0)
    });
    println!("child: {}", wait(pid));
    let (adopted, status) = wait4(-1, 0);
    println!("adopted: {} {}", adopted > 0 && adopted != pid, describe(status));
    report("nobody left", wait4(-1, 0).0);
}

fn groups() {
    let pid = fork(|| {
        let pid = sys!(libc::SYS_getpid);
        report("own group", sys!(libc::SYS_setpgid, 0, 0));
        println!("leads it: {}", sys!(libc::SYS_getpgid, 0) == pid);
        report("a leader cannot make a session", sys!(libc::SYS_setsid));
        let child = fork(|| {
            println!("in the parent's group: {}", sys!(libc::SYS_getpgid, 0) == pid);
            let session = sys!(libc::SYS_setsid);
            println!("new session: {}", session == sys!(libc::SYS_getpid));
            println!("and group: {}", sys!(libc::SYS_getpgid, 0) == session);
            println!("and sid: {}", sys!(libc::SYS_getsid, 0) == session);
            report("a session leader stays", sys!(libc::SYS_setpgid, 0, 0));
            0
        });
        println!("child {}", wait(child));
        report("group of nobody", sys!(libc::SYS_getpgid, 4_000_000));
        report("session of nobody", sys!(libc::SYS_getsid, 4_000_000));
        report("negative group", sys!(libc::SYS_setpgid, 0, -1));
        report("not a child", sys!(libc::SYS_setpgid, 1, 0));
        // A signal to the group reaches its members.
        let child = fork(|| {
            loop {
                sys!(libc::SYS_ppoll, 0, 0, 0, 0, 0);
            }
        });
        sys::action(libc::SIGTERM, libc::SIG_IGN, 0, &[]);
        report("kill the group", sys!(libc::SYS_kill, 0, libc::SIGTERM));
        println!("member {}", wait(child));
        0
    });
    println!("{}", wait(pid));
    report("kill nobody", sys!(libc::SYS_kill, 4_000_000, 0));
    report("kill no group", sys!(libc::SYS_kill, -4_000_000, 0));
    report("bad signal", sys!(libc::SYS_kill, sys!(libc::SYS_getpid), 65));
}

fn ids() {
    let parent = sys!(libc::SYS_getpid);
    println!("tid is pid: {}", sys!(libc::SYS_gettid) == parent);
    in_child("child", || {
        println!("ppid: {}", sys!(libc::SYS_getppid) == parent);
        println!("tid is pid: {}", sys!(libc::SYS_gettid) == sys!(libc::SYS_getpid));
        println!("new pid: {}", sys!(libc::SYS_getpid) != parent);
        0
    });
}

fn tree() {
    let pids: Vec<i64> = (0..20).map(|n| fork(|| n)).collect();
    for pid in pids.iter().rev() {
        print!("{} ", wait(*pid));
    }
    println!();
    fn nest(depth: i32) -> i32 {
        if depth == 0 {
            return 1;
        }
        let pid = fork(|| nest(depth - 1));
        1 + libc::WEXITSTATUS(wait4(pid, 0).1)
    }
    println!("depth {}", nest(10));
}

fn memory_is_copied() {
    let mut value = vec![1_u8; 100_000];
    let pid = fork(|| {
        value.iter_mut().for_each(|b| *b = 2);
        i32::from(value.iter().all(|b| *b == 2))
    });
    println!("{}", wait(pid));
    println!("untouched: {}", value.iter().all(|b| *b == 1));
    let shared = sys::mmap(0, 4096, 3, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
    sys::poke(shared, 5);
    in_child("shared", || {
        sys::poke(shared, 6);
        0
    });
    println!("seen: {}", sys::peek(shared));
}

fn exit_group() {
    in_child("from another thread", || {
        std::thread::spawn(|| sys::exit(31));
        loop {
            sys!(libc::SYS_ppoll, 0, 0, 0, 0, 0);
        }
    });
    in_child("the first thread leaves first", || {
        std::thread::spawn(|| {
            // The process lives on as long as one thread does.
            let pid = sys!(libc::SYS_getpid);
            let first = || std::fs::read_to_string(format!("/proc/self/task/{pid}/stat"));
            while first().is_ok_and(|stat| !stat.contains(") Z ")) {
                std::thread::yield_now();
            }
            sys::exit(32);
        });
        sys!(libc::SYS_exit, 1);
        0
    });
    in_child("a signal kills all threads", || {
        let spin = || loop {
            std::hint::spin_loop();
        };
        std::thread::spawn(spin);
        std::thread::spawn(|| {
            sys!(libc::SYS_kill, sys!(libc::SYS_getpid), libc::SIGTERM);
        });
        spin()
    });
    in_child("exec from another thread", || {
        std::thread::spawn(|| execute(SELF, &["x", "--child", "exit", "33"], &[]));
        loop {
            sys!(libc::SYS_ppoll, 0, 0, 0, 0, 0);
        }
    });
}
