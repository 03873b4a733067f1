//! Pid namespaces: what others are called wherever something tells of them.

use super::{getpid, inside};
use crate::mounts::mount;
use crate::sys::{self, c, forever, in_child, report, show};
use std::fs;

fn send(fd: i64, creds: Option<[i32; 3]>) -> i64 {
    let iovec = [b"x".as_ptr() as u64, 1];
    let mut control = [0_u64; 4];
    control[0] = 28;
    control[1] = libc::SOL_SOCKET as u64 | (libc::SCM_CREDENTIALS as u64) << 32;
    let [pid, uid, gid] = creds.unwrap_or_default();
    control[2] = pid as u32 as u64 | (uid as u32 as u64) << 32;
    control[3] = gid as u32 as u64;
    let len = if creds.is_some() { 32 } else { 0 };
    let header = [0, 0, iovec.as_ptr() as u64, 1, control.as_ptr() as u64, len, 0];
    sys!(libc::SYS_sendmsg, fd, header.as_ptr(), 0)
}

fn sender(fd: i64) -> i32 {
    let mut byte = 0_u8;
    let iovec = [&raw mut byte as u64, 1];
    let mut control = [0_u64; 8];
    let header = [0, 0, iovec.as_ptr() as u64, 1, control.as_mut_ptr() as u64, 64, 0];
    sys!(libc::SYS_recvmsg, fd, header.as_ptr(), 0);
    control[2] as i32
}

fn peer(fd: i64) -> i32 {
    let (mut creds, mut len) = ([-1_i32; 3], 12_u32);
    sys!(libc::SYS_getsockopt, fd, libc::SOL_SOCKET, libc::SO_PEERCRED, creds.as_mut_ptr(), &raw mut len);
    creds[0]
}

fn pair() -> (i64, i64) {
    let mut fds = [0_i32; 2];
    sys!(libc::SYS_socketpair, libc::AF_UNIX, libc::SOCK_DGRAM, 0, fds.as_mut_ptr());
    for fd in fds {
        sys!(libc::SYS_setsockopt, fd, libc::SOL_SOCKET, libc::SO_PASSCRED, [1_i32].as_ptr(), 4);
    }
    (fds[0].into(), fds[1].into())
}

pub(super) fn credentials() {
    in_child("credentials", || {
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWPID));
        let (outer, inner) = pair();
        let (done, go) = sys::pipe(0);
        let init = sys::fork(|| {
            println!("peer {}", peer(inner));
            println!("from above {}", sender(inner));
            report("plain", send(inner, None));
            report("own", send(inner, Some([1, 0, 0])));
            report("nobody", send(inner, Some([55, 0, 0])));
            let child = sys::fork(forever);
            report("a child", send(inner, Some([child as i32, 0, 0])));
            let (one, other) = pair();
            println!("own pair {}", peer(one));
            in_child("through it", || send(other, None) as i32 - 1);
            sys::read(done, 1);
            0
        });
        send(outer, None);
        let called = [sender(outer), sender(outer)].map(|pid| i64::from(pid) == init);
        let third = i64::from(sender(outer));
        sys::write(go, b"x");
        println!("{}", sys::wait(init));
        println!("{called:?} {} peer {}", third > 0 && third != init, i64::from(peer(outer)) == getpid());
        0
    });
}

pub(super) fn owners() {
    inside("owners", 0, || {
        let (read_end, _write_end) = sys::pipe(0);
        let owner = |pid: i64| sys!(libc::SYS_fcntl, read_end, libc::F_SETOWN, pid);
        report("self", owner(1));
        report("owner", sys!(libc::SYS_fcntl, read_end, libc::F_GETOWN));
        report("nobody", owner(60));
        report("no group", owner(-60));
        in_child("a child", || {
            report("set", owner(getpid()));
            0
        });
        report("gone", sys!(libc::SYS_fcntl, read_end, libc::F_GETOWN));
        0
    });
    in_child("locks", || {
        let file = sys::open("/tmp/abi-pids-lock", libc::O_CREAT | libc::O_RDWR, 0o600);
        let lock = |kind: i32| [kind as i64 & 0xffff, 0, 10, 0];
        report("lock", sys!(libc::SYS_fcntl, file, libc::F_SETLK, lock(libc::F_WRLCK).as_ptr()));
        inside("seen below", 0, || {
            let mut held = lock(libc::F_WRLCK);
            report("test", sys!(libc::SYS_fcntl, file, libc::F_GETLK, held.as_mut_ptr()));
            println!("kind {} pid {}", held[0] as i16, held[3] as i32);
            0
        });
        report("unlink", sys!(libc::SYS_unlinkat, libc::AT_FDCWD, c("/tmp/abi-pids-lock").as_ptr(), 0));
        0
    });
}

fn fdinfo(fd: i64) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    text.lines()
        .filter(|line| line.contains("id:"))
        .filter(|line| !line.starts_with("mnt"))
        .map(str::to_owned)
        .collect()
}

pub(super) fn descriptors() {
    in_child("pidfds", || {
        let above = sys!(libc::SYS_pidfd_open, getpid(), 0);
        inside("below", libc::CLONE_NEWNS, || {
            own_proc();
            let signal = |fd: i64, signal: i32| sys!(libc::SYS_pidfd_send_signal, fd, signal, 0, 0);
            report("upwards", signal(above, 0));
            println!("{:?}", fdinfo(above));
            let child = sys::fork(forever);
            let fd = sys!(libc::SYS_pidfd_open, child, 0);
            println!("{:?}", fdinfo(fd));
            report("kill", signal(fd, libc::SIGKILL));
            let mut info = [0_i32; 32];
            report("wait", sys!(libc::SYS_waitid, 3, fd, info.as_mut_ptr(), libc::WEXITED, 0));
            println!("{} {:?}", info[4], fdinfo(fd));
            report("nobody", sys!(libc::SYS_pidfd_open, 90, 0));
            0
        });
        0
    });
}

pub(super) fn futexes() {
    const LOCK_PI: i32 = 6;
    const UNLOCK_PI: i32 = 7;
    inside("futexes", 0, || {
        let word = sys::memory(4096);
        let futex = |op: i32| sys!(libc::SYS_futex, word, op, 0, 0, 0, 0);
        report("lock", futex(LOCK_PI));
        println!("owner {}", sys::load::<u32>(word));
        report("again", futex(LOCK_PI));
        report("unlock", futex(UNLOCK_PI));
        // Whoever is named there is looked for where the caller is.
        sys::store(word, 50_u32);
        report("nobody's", futex(LOCK_PI));
        sys::store(word, 1_u32);
        let thread = std::thread::spawn(move || {
            let locked = sys!(libc::SYS_futex, word, LOCK_PI, 0, 0, 0, 0);
            (locked, sys::load::<u32>(word) & 0x3fff_ffff == sys!(libc::SYS_gettid) as u32)
        });
        while sys::load::<u32>(word) & 0x8000_0000 == 0 {
            super::sleep_ms(1);
        }
        report("hand over", futex(UNLOCK_PI));
        println!("{:?}", thread.join().ok());
        // The end of an owner is noted by the number that it knows itself by.
        let shared = sys::mmap(0, 4096, 3, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
        in_child("an owner", || {
            // The head of the list, its one entry, and where an entry's word is.
            sys::store(shared + 64, [shared + 128, 8, 0]);
            sys::store(shared + 128, shared + 64);
            sys::store(shared + 136, sys!(libc::SYS_gettid) as u32);
            report("robust", sys!(libc::SYS_set_robust_list, shared + 64, 24));
            0
        });
        println!("word {:#x}", sys::load::<u32>(shared + 136));
        0
    });
}

pub(super) fn traced() {
    in_child("traced", || {
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWPID));
        let init = sys::fork(|| {
            sys!(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0);
            sys!(libc::SYS_kill, 1, libc::SIGSTOP);
            let child = sys::fork(|| 0);
            sys::wait(child);
            3
        });
        println!("{}", sys::describe(sys::wait4(init, 0).1));
        let mut info = [0_i32; 32];
        report("info", sys!(libc::SYS_ptrace, libc::PTRACE_GETSIGINFO, init, 0, info.as_mut_ptr()));
        println!("from {}", info[4]);
        report("options", sys!(libc::SYS_ptrace, libc::PTRACE_SETOPTIONS, init, 0, libc::PTRACE_O_TRACEFORK));
        report("continue", sys!(libc::SYS_ptrace, libc::PTRACE_CONT, init, 0, 0));
        let (_, status) = sys::wait4(init, libc::__WALL);
        println!("event {}", status >> 16);
        let mut child = 0_u64;
        report("message", sys!(libc::SYS_ptrace, libc::PTRACE_GETEVENTMSG, init, 0, &raw mut child));
        println!("as seen from here {}", child > 2 && child as i64 != init);
        let (stopped, status) = sys::wait4(child as i64, libc::__WALL);
        println!("{} {}", stopped == child as i64, sys::describe(status));
        for pid in [child as i64, init] {
            report("detach", sys!(libc::SYS_ptrace, libc::PTRACE_DETACH, pid, 0, 0));
        }
        println!("{}", sys::wait(init));
        0
    });
}

/// A /proc of the own namespace, where nobody else sees it.
fn own_proc() {
    report("private", mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, ""));
    report("proc", mount("none", "/proc", "proc", 0, ""));
}

fn ids(status: &str) -> Vec<String> {
    let text = fs::read_to_string(status).unwrap_or_default();
    let named =
        |line: &&str| ["Tgid", "Pid", "PPid", "TracerPid", "NS"].iter().any(|name| line.starts_with(name));
    text.lines().filter(named).map(str::to_owned).collect()
}

fn processes() -> Vec<i32> {
    let names =
        fs::read_dir("/proc").map(|all| all.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>());
    names.unwrap_or_default().iter().filter_map(|name| name.to_str()?.parse().ok()).collect()
}

pub(super) fn proc() {
    inside("proc", libc::CLONE_NEWNS, || {
        println!("another's {:?}", fs::read_link("/proc/self").is_ok());
        own_proc();
        println!("{:?} {:?}", fs::read_link("/proc/self"), fs::read_link("/proc/thread-self"));
        sys!(libc::SYS_setsid);
        let child = sys::fork(forever);
        println!("{:?}", processes());
        println!("{:?}", ids(&format!("/proc/{child}/status")));
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.split(' ').collect();
        println!("{:?} {:?}", fields.first(), fields.get(3..8));
        let tasks: Vec<_> =
            fs::read_dir("/proc/self/task").into_iter().flatten().flatten().map(|e| e.file_name()).collect();
        println!("{tasks:?}");
        let last = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        println!("last {:?}", last.trim().rsplit(' ').next());
        sys::end(child);
        println!("{:?}", fs::metadata(format!("/proc/{child}")).is_ok());
        0
    });
}

pub(super) fn proc_above() {
    in_child("above", || {
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWPID));
        let init = sys::fork(|| {
            sys!(libc::SYS_setsid);
            forever()
        });
        let path = format!("/proc/{init}/status");
        while !ids(&path).iter().any(|line| line.starts_with("NSsid") && line.ends_with("\t1")) {
            super::sleep_ms(1);
        }
        let last = |line: &String| line.rsplit('\t').next().map(str::to_owned);
        let counts: Vec<(usize, Option<String>)> = ids(&path)
            .iter()
            .filter(|l| l.starts_with("NS"))
            .map(|l| (l.split('\t').count(), last(l)))
            .collect();
        // How many are above differs from place to place.
        println!(
            "{:?}",
            counts.iter().map(|(count, last)| (count - counts[0].0, last.clone())).collect::<Vec<_>>()
        );
        let link =
            |pid: &str, name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap_or_default();
        let own = init.to_string();
        println!("{}", link(&own, "pid") == link("self", "pid_for_children"));
        println!("{}", link(&own, "pid") == link("self", "pid"));
        sys::end(init);
        0
    });
}

pub(super) fn calls() {
    inside("calls", 0, || {
        let mut header = [0x2008_0522_u32, 1];
        let mut data = [0_u32; 6];
        for pid in [1_i64, 44] {
            header[1] = pid as u32;
            println!(
                "{pid}: {} {} {} {} {} {} {} {}",
                show(sys!(libc::SYS_sched_getscheduler, pid)),
                show(sys!(libc::SYS_getpriority, libc::PRIO_PROCESS, pid)),
                show(sys!(libc::SYS_getpriority, libc::PRIO_PGRP, pid)),
                show(sys!(libc::SYS_prlimit64, pid, libc::RLIMIT_NOFILE, 0, 0)),
                show(sys!(libc::SYS_capget, header.as_mut_ptr(), data.as_mut_ptr())),
                show(sys!(libc::SYS_kcmp, pid, pid, 1, 0, 0)),
                show(sys!(libc::SYS_tgkill, pid, pid, 0)),
                show(sys!(libc::SYS_tkill, pid, 0)),
            );
            let clock = ((!pid) << 3) | 2;
            let mut time = [0_i64; 2];
            report("clock", sys!(libc::SYS_clock_gettime, clock as i32, time.as_mut_ptr()));
            report("trace", sys!(libc::SYS_ptrace, libc::PTRACE_ATTACH, pid, 0, 0));
        }
        let id = sys!(libc::SYS_semget, libc::IPC_PRIVATE, 1, 0o600);
        report("set", sys!(libc::SYS_semctl, id, 0, 16, 3));
        report("by", sys!(libc::SYS_semctl, id, 0, 11, 0));
        report("remove", sys!(libc::SYS_semctl, id, 0, 0, 0));
        0
    });
}
