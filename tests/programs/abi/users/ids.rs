//! What users are called, and what capabilities are worth.

use super::{groups, line, mapped, root, set_all, text_of, user};
use crate::sys::{self, c, in_child, report};

pub(super) fn ids() {
    root("root of one", 0, || {
        println!("{:?} {:?}", super::ids(), groups());
        for id in [0, 1, 1000, 65534, u32::MAX] {
            report(&format!("setuid {id}"), sys!(libc::SYS_setuid, id));
            report(&format!("setgid {id}"), sys!(libc::SYS_setgid, id));
            report(&format!("setreuid {id}"), sys!(libc::SYS_setreuid, id, id));
            report(&format!("setresgid {id}"), sys!(libc::SYS_setresgid, id, id, id));
            report(&format!("setfsuid {id}"), sys!(libc::SYS_setfsuid, id));
        }
        println!("{}", line("CapEff").ends_with("ffffffffff"));
        0
    });
    user("nobody", || {
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWUSER));
        println!("{:?}", super::ids());
        report("setuid", sys!(libc::SYS_setuid, 0));
        report("setuid to what it is called", sys!(libc::SYS_setuid, 65534));
        report("leave all", sys!(libc::SYS_setresuid, -1, -1, -1));
        report("setfsuid", sys!(libc::SYS_setfsuid, -1));
        0
    });
}

pub(super) fn of_many() {
    mapped("many", 0, "0 100000 1000", || {
        println!("{:?}", ids_now());
        report("groups", sys!(libc::SYS_setresgid, 0, 0, 0));
        report("root", set_all(0));
        println!("{:?} {}", ids_now(), line("CapEff").ends_with("ffffffffff"));
        report("effective", sys!(libc::SYS_setresuid, -1, 7, -1));
        println!("{:?} {}", ids_now(), line("CapEff").ends_with("ffffffffff"));
        report("back", sys!(libc::SYS_setresuid, -1, 0, -1));
        println!("{:?} {}", ids_now(), line("CapEff").ends_with("ffffffffff"));
        report("files", sys!(libc::SYS_setfsuid, 5));
        println!("{}", line("CapEff"));
        report("files", sys!(libc::SYS_setfsuid, 0));
        println!("{}", line("CapEff").ends_with("ffffffffff"));
        report("for good", set_all(7));
        println!("{:?} {}", ids_now(), line("CapEff"));
        report("back", sys!(libc::SYS_setuid, 0));
        report("outside", sys!(libc::SYS_setuid, 1000));
        0
    });
}

fn ids_now() -> [[u32; 3]; 2] {
    super::ids()
}

pub(super) fn capabilities() {
    root("all, for what is its own", 0, || {
        report("hostname", sys!(libc::SYS_sethostname, c("x").as_ptr(), 1));
        report("nice", sys!(libc::SYS_setpriority, 0, 0, -5));
        report("limit", {
            let limit = [u64::MAX, u64::MAX];
            sys!(libc::SYS_setrlimit, libc::RLIMIT_NOFILE, limit.as_ptr()).min(0)
        });
        report("real time", sys!(libc::SYS_sched_setscheduler, 0, libc::SCHED_FIFO, [1_i32].as_ptr()));
        report("bounding", sys!(libc::SYS_prctl, libc::PR_CAPBSET_DROP, 5, 0, 0, 0));
        report("bits", sys!(libc::SYS_prctl, libc::PR_SET_SECUREBITS, 1));
        report("lock", {
            let limit = [0_u64, 0];
            sys!(libc::SYS_setrlimit, libc::RLIMIT_MEMLOCK, limit.as_ptr());
            sys!(libc::SYS_mlock, sys::memory(4096), 4096)
        });
        0
    });
    user("as before", || {
        report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWUSER));
        // Nobody becomes root by executing something: there is no root.
        in_child("executed", || {
            crate::process::execute(crate::process::SELF, &["abi", "--child", "rights"], &[]) as i32
        });
        0
    });
    root("executed by root", 0, || {
        crate::process::execute(crate::process::SELF, &["abi", "--child", "rights"], &[]) as i32
    });
}

/// Waits for a signal and says whose it was.
fn whose() {
    let set = sys::set_of(&[libc::SIGUSR1]);
    let mut info = [0_u64; 16];
    report("got", sys!(libc::SYS_rt_sigtimedwait, &raw const set, info.as_mut_ptr(), 0, 8));
    println!("by {}", (info[2] >> 32) as u32);
}

pub(super) fn signals() {
    sys::mask(libc::SIG_BLOCK, sys::set_of(&[libc::SIGUSR1]));
    let parent = sys!(libc::SYS_getpid);
    root("inside", 0, || {
        let own = sys!(libc::SYS_getpid);
        report("init", sys!(libc::SYS_kill, 1, 0));
        report("root's", sys!(libc::SYS_kill, parent, libc::SIGUSR1));
        report("itself", sys!(libc::SYS_kill, own, libc::SIGUSR1));
        whose();
        in_child("another user's, from above", || {
            report("kill", sys!(libc::SYS_kill, own, libc::SIGUSR1));
            0
        });
        whose();
        0
    });
    mapped("of several", 0, "0 100000 10\n20 0 1", || {
        let own = sys!(libc::SYS_getpid);
        whose_from(own);
        report("user", set_all(3));
        whose_from(own);
        0
    });
    let pid = sys::fork(|| {
        super::become_user(1000);
        sys!(libc::SYS_unshare, libc::CLONE_NEWUSER);
        whose();
        0
    });
    let killed = sys!(libc::SYS_kill, pid, libc::SIGUSR1);
    println!("{}", sys::wait(pid));
    report("from root", killed);
    user("of the same user above", || {
        let (read_end, write_end) = sys::pipe(0);
        let pid = sys::fork(|| {
            sys!(libc::SYS_unshare, libc::CLONE_NEWUSER);
            sys::write(write_end, b"r");
            whose();
            0
        });
        sys::read(read_end, 1);
        let killed = sys!(libc::SYS_kill, pid, libc::SIGUSR1);
        let mut info = [0_u64; 16];
        report(
            "waitid",
            sys!(libc::SYS_waitid, libc::P_PID, pid, info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT, 0),
        );
        report("kill", killed);
        println!("{} {}", info[1] as u32, (info[2] >> 32) as u32);
        println!("{}", sys::wait(pid));
        0
    });
}

fn whose_from(own: i64) {
    let pid = sys::fork(|| sys!(libc::SYS_kill, own, libc::SIGUSR1) as i32);
    println!("{}", sys::wait(pid));
    whose();
}

pub(super) fn messages() {
    use crate::sockets::pass::{claim, receive_with};
    use crate::sockets::room::set_option;
    use crate::sockets::socketpair;
    let (a, b) = socketpair(libc::SOCK_DGRAM);
    set_option(b, libc::SO_PASSCRED, 1);
    let own = || sys!(libc::SYS_getpid) as i32;
    root("sent from inside", 0, || {
        report("itself", claim(a, own(), 0, 0));
        report("as outside", claim(a, own(), 1000, 1000));
        report("unknown", claim(a, own(), 1, 0));
        report("init", claim(a, 1, 0, 0));
        report("plain", sys::write(a, b"p"));
        0
    });
    receive_with("itself", b, 64, 0);
    receive_with("plain", b, 64, 0);
    sys::write(a, b"p");
    root("from outside", 0, || {
        receive_with("root's", b, 64, 0);
        let mut peer = [7_u32; 3];
        let mut size = 12_u32;
        let name = libc::SO_PEERCRED;
        report(
            "peer",
            sys!(libc::SYS_getsockopt, b, libc::SOL_SOCKET, name, peer.as_mut_ptr(), &raw mut size),
        );
        println!("{:?}", &peer[1..]);
        let (x, _y) = socketpair(libc::SOCK_STREAM);
        report(
            "own",
            sys!(libc::SYS_getsockopt, x, libc::SOL_SOCKET, name, peer.as_mut_ptr(), &raw mut size),
        );
        println!("{:?}", &peer[1..]);
        0
    });
}

pub(super) fn status() {
    mapped("of several", 0, "0 100000 10\n20 0 1", || {
        println!("{} {}", line("Uid"), line("Gid"));
        report("user", sys!(libc::SYS_setresuid, 3, 4, 5));
        println!("{}", line("Uid"));
        let of_init = text_of("/proc/1/status");
        let init: Vec<&str> =
            of_init.lines().filter(|l| l.starts_with("Uid") || l.starts_with("Gid")).collect();
        println!("{init:?}");
        0
    });
    root("of one", 0, || {
        let of_init = text_of("/proc/1/status");
        println!("{:?}", of_init.lines().find(|l| l.starts_with("Uid")));
        println!("{} {}", super::owner("/proc/1"), super::owner("/proc/self/"));
        println!("{}", super::owner("/proc/self/uid_map"));
        0
    });
}

pub(super) fn ipc() {
    let id = sys!(libc::SYS_shmget, libc::IPC_PRIVATE, 4096, 0o600);
    let stat = || {
        let mut raw = [0_u32; 40];
        let result = sys!(libc::SYS_shmctl, id, libc::IPC_STAT, raw.as_mut_ptr());
        println!("{} {:?}", sys::show(result), &raw[1..5]);
    };
    stat();
    root("another's", 0, || {
        stat();
        report("remove", sys!(libc::SYS_shmctl, id, libc::IPC_RMID, 0));
        let own = sys!(libc::SYS_shmget, libc::IPC_PRIVATE, 4096, 0o600);
        let mut raw = [0_u32; 40];
        report("own", sys!(libc::SYS_shmctl, own, libc::IPC_STAT, raw.as_mut_ptr()));
        println!("{:?}", &raw[1..5]);
        raw[1] = 1;
        report("to an unknown", sys!(libc::SYS_shmctl, own, libc::IPC_SET, raw.as_ptr()));
        raw[1] = 0;
        report("to oneself", sys!(libc::SYS_shmctl, own, libc::IPC_SET, raw.as_ptr()));
        report("remove", sys!(libc::SYS_shmctl, own, libc::IPC_RMID, 0));
        0
    });
    mapped("seen", 0, "0 100000 10\n20 0 1", || {
        stat();
        0
    });
    report("remove", sys!(libc::SYS_shmctl, id, libc::IPC_RMID, 0));
}
