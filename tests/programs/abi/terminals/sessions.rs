//! Which session a terminal controls: foreground and background, giving up, hang-ups.

use super::{LFLAG, Pty, ask, ioctl, tell};
use crate::sys::{
    self, close, describe, fork, handle, in_child, pipe, report, report_ok, set_of, wait, wait4,
};
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

static SEEN: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    SEEN.store(SEEN.load(SeqCst) * 100 + signal, SeqCst);
}

fn me() -> i32 {
    sys!(libc::SYS_getpid) as i32
}

fn group() -> i32 {
    sys!(libc::SYS_getpgid, 0) as i32
}

/// A session of its own with a terminal, in a child.
fn in_session(what: &str, body: impl FnOnce(&Pty) -> i32) {
    in_child(what, || {
        sys!(libc::SYS_setsid);
        let pty = Pty::new();
        assert_eq!(ioctl(pty.slave, libc::TIOCSCTTY as u32, 0), 0, "a new session takes a new terminal");
        body(&pty)
    });
}

fn stopped_by(pid: i64) -> String {
    describe(wait4(pid, libc::WUNTRACED).1)
}

pub(super) fn background() {
    in_session("session", |pty| {
        handle(libc::SIGTTOU, note, 0);
        let (go, let_go) = pipe(0);
        let child = fork(|| {
            sys!(libc::SYS_setpgid, 0, 0);
            sys::mask(libc::SIG_BLOCK, set_of(&[libc::SIGTTOU]));
            report("tcsetpgrp, blocked", tell(pty.slave, libc::TIOCSPGRP as u32, group()));
            report("and back", tell(pty.slave, libc::TIOCSPGRP as u32, sys!(libc::SYS_getppid) as i32));
            sys::mask(libc::SIG_SETMASK, 0);
            sys::action(libc::SIGTTIN, libc::SIG_IGN, 0, &[]);
            sys::report_read("read, ignored", pty.slave, 1);
            sys::action(libc::SIGTTIN, libc::SIG_DFL, 0, &[]);
            report("tcsetpgrp, handled", tell(pty.slave, libc::TIOCSPGRP as u32, group()));
            report("settings, handled", pty.set(&pty.settings()));
            report("flush, handled", ioctl(pty.slave, libc::TCFLSH as u32, 0));
            report("drain, handled", ioctl(pty.slave, libc::TCSBRK as u32, 1));
            println!("handled {}", SEEN.load(SeqCst));
            report("write", sys::write(pty.slave, b"w"));
            report("window", ioctl(pty.slave, libc::TIOCSWINSZ as u32, [9_u64].as_ptr() as i64));
            sys::action(libc::SIGTTOU, libc::SIG_IGN, 0, &[]);
            report("settings, ignored", pty.flags(LFLAG, libc::TOSTOP, 0));
            report("write with TOSTOP, ignored", sys::write(pty.slave, b"w"));
            sys::action(libc::SIGTTOU, libc::SIG_DFL, 0, &[]);
            sys::flush();
            let written = sys::write(pty.slave, b"W");
            // Another stop would hide from the parent that this one is over.
            sys::read(go, 1);
            sys::report_read("read", pty.slave, 10);
            // Not before: the parent says meanwhile what became of this process.
            report("write with TOSTOP", written);
            5
        });
        println!("by a write: {}", stopped_by(child));
        pty.flags(LFLAG, 0, libc::TOSTOP);
        sys!(libc::SYS_kill, child, libc::SIGCONT);
        println!("continued: {}", describe(wait4(child, libc::WCONTINUED).1));
        sys::write(let_go, b"x");
        println!("by a read: {}", stopped_by(child));
        report("in front", tell(pty.slave, libc::TIOCSPGRP as u32, child as i32));
        sys!(libc::SYS_kill, -child, libc::SIGCONT);
        pty.keys("\x1a");
        println!("by a key: {}", stopped_by(child));
        sys!(libc::SYS_kill, -child, libc::SIGCONT);
        pty.keys("go\n");
        println!("{}", wait(child));
        0
    });
}

/// Nobody could continue the group: it is not stopped.
pub(super) fn orphaned() {
    in_session("an orphaned group", |pty| {
        let (go, let_go) = pipe(0);
        let (ended, end) = pipe(0);
        let father = fork(|| {
            fork(|| {
                sys!(libc::SYS_setpgid, 0, 0);
                close(let_go);
                close(ended);
                sys::read(go, 1);
                sys::report_read("read", pty.slave, 1);
                report("settings", pty.set(&pty.settings()));
                report("tcsetpgrp", tell(pty.slave, libc::TIOCSPGRP as u32, group()));
                sys!(libc::SYS_kill, me(), libc::SIGTSTP);
                0
            });
            0
        });
        println!("{}", wait(father));
        sys::flush();
        close(let_go);
        close(end);
        sys::read(ended, 1);
        0
    });
}

pub(super) fn foreground_errors() {
    let pty = Pty::new();
    report("tcgetpgrp of no terminal of ours", ask(pty.slave, libc::TIOCGPGRP as u32).0);
    report("tcgetsid", ask(pty.slave, libc::TIOCGSID as u32).0);
    println!("of the master {:?}", ask(pty.master, libc::TIOCGPGRP as u32));
    report("tcgetsid", ask(pty.master, libc::TIOCGSID as u32).0);
    report("tcsetpgrp", tell(pty.slave, libc::TIOCSPGRP as u32, group()));
    report("TIOCSCTTY by who leads no session", ioctl(pty.slave, libc::TIOCSCTTY as u32, 0));
    report("TIOCNOTTY", ioctl(pty.slave, libc::TIOCNOTTY as u32, 0));
    in_session("session", |pty| {
        report("again", ioctl(pty.slave, libc::TIOCSCTTY as u32, 0));
        report("by the master", ioctl(pty.master, libc::TIOCSCTTY as u32, 0));
        let other = Pty::new();
        report("another terminal", ioctl(other.slave, libc::TIOCSCTTY as u32, 0));
        println!("foreground {}", ask(pty.slave, libc::TIOCGPGRP as u32) == (0, group()));
        println!("by the master {}", ask(pty.master, libc::TIOCGPGRP as u32) == (0, group()));
        println!("session {}", ask(pty.master, libc::TIOCGSID as u32) == (0, me()));
        for group in [-1, 0x3f_fff0, 0] {
            report(&format!("tcsetpgrp {group}"), tell(pty.slave, libc::TIOCSPGRP as u32, group));
        }
        let foreign = sys!(libc::SYS_getpgid, sys!(libc::SYS_getppid)) as i32;
        report("of another session", tell(pty.slave, libc::TIOCSPGRP as u32, foreign));
        report("by the master", tell(pty.master, libc::TIOCSPGRP as u32, group()));
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
        let (_, index) = ask(pty.master, libc::TIOCGPTN as u32);
        let number = 136 << 8 | index & 0xff | (index & !0xff) << 12;
        println!("in stat {}", fields[5] == number.to_string() && fields[6] == group().to_string());
        report_ok("/dev/tty", sys::open("/dev/tty", libc::O_RDWR, 0));
        0
    });
}

pub(super) fn given_up() {
    for signal in [libc::SIGHUP, libc::SIGCONT] {
        handle(signal, note, libc::SA_RESTART);
    }
    in_session("by a member", |pty| {
        in_child("member", || {
            report("TIOCNOTTY", ioctl(pty.slave, libc::TIOCNOTTY as u32, 0));
            report("/dev/tty", sys::open("/dev/tty", libc::O_RDWR, 0));
            report("once more", ioctl(pty.slave, libc::TIOCNOTTY as u32, 0));
            0
        });
        report_ok("the leader's", sys::open("/dev/tty", libc::O_RDWR, 0));
        println!("signals {}", SEEN.load(SeqCst));
        report("by the leader", ioctl(pty.slave, libc::TIOCNOTTY as u32, 0));
        println!("signals {}", SEEN.load(SeqCst));
        report("/dev/tty", sys::open("/dev/tty", libc::O_RDWR, 0));
        report("taken again", ioctl(pty.slave, libc::TIOCSCTTY as u32, 0));
        0
    });
}

/// The foreground group is told, and the next session gets the terminal.
pub(super) fn leader_ends() {
    let pty = Pty::new();
    for round in 0..2 {
        let (read_end, write_end) = pipe(0);
        let leader = fork(|| {
            sys!(libc::SYS_setsid);
            report("TIOCSCTTY", ioctl(pty.slave, libc::TIOCSCTTY as u32, 0));
            let (ready, set_ready) = pipe(0);
            let leader = me();
            let child = fork(|| {
                sys!(libc::SYS_setpgid, 0, 0);
                handle(libc::SIGHUP, note, 0);
                close(read_end);
                sys::write(set_ready, b"x");
                // Its children get another parent after they have lost the terminal.
                while SEEN.load(SeqCst) == 0 || sys!(libc::SYS_getppid) == i64::from(leader) {
                    sys!(libc::SYS_sched_yield);
                }
                let tty = sys::open("/dev/tty", libc::O_RDWR, 0);
                let text = format!("signals {}, /dev/tty {}", SEEN.load(SeqCst), sys::show(tty));
                sys::write(write_end, text.as_bytes());
                0
            });
            sys::read(ready, 1);
            sys!(libc::SYS_setpgid, child, child);
            report("in front", tell(pty.slave, libc::TIOCSPGRP as u32, child as i32));
            0
        });
        println!("leader {}", wait(leader));
        close(write_end);
        sys::report_read(&format!("round {round}"), read_end, 100);
        close(read_end);
    }
}

pub(super) fn hung_up() {
    for signal in [libc::SIGHUP, libc::SIGCONT] {
        handle(signal, note, libc::SA_RESTART);
    }
    in_session("session", |pty| {
        let child = fork(|| {
            sys::read(pty.slave, 1);
            sys::report_read("a waiting read", pty.slave, 1);
            0
        });
        sys::until_asleep(child, child);
        // Another reference to the master would keep it.
        sys!(libc::SYS_kill, child, libc::SIGKILL);
        wait(child);
        close(pty.master);
        println!("signals {}", SEEN.load(SeqCst));
        sys::report_read("read", pty.slave, 1);
        report("write", sys::write(pty.slave, b"x"));
        let mut one = [pty.slave as u32, u32::from((libc::POLLIN | libc::POLLOUT) as u16)];
        let now = [0_i64; 2];
        sys!(libc::SYS_ppoll, one.as_mut_ptr(), 1, now.as_ptr(), 0, 8);
        println!("events {:x}", one[1] >> 16);
        report("settings", pty.set(&pty.settings()));
        report("tcsetpgrp", tell(pty.slave, libc::TIOCSPGRP as u32, group()));
        report("/dev/tty", sys::open("/dev/tty", libc::O_RDWR, 0));
        0
    });
}

pub(super) fn stolen() {
    in_session("session", |pty| {
        in_child("another session", || {
            sys!(libc::SYS_setsid);
            report("politely", ioctl(pty.slave, libc::TIOCSCTTY as u32, 0));
            report("by force", ioctl(pty.slave, libc::TIOCSCTTY as u32, 1));
            report_ok("/dev/tty", sys::open("/dev/tty", libc::O_RDWR, 0));
            0
        });
        report("the loser's", sys::open("/dev/tty", libc::O_RDWR, 0));
        report("tcgetpgrp", ask(pty.slave, libc::TIOCGPGRP as u32).0);
        report("taken back", ioctl(pty.slave, libc::TIOCSCTTY as u32, 0));
        0
    });
}
