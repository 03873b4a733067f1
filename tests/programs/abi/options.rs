//! Flags and options: of descriptors, of calls that move bytes. Each does what it promises, or is refused.

use crate::Case;
use crate::sys::{self, close, in_child, pipe, report, show, write};
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    ("option_owner", owner),
    ("option_status_flags", status_flags),
    ("option_packets", packets),
    ("option_asynchronous", asynchronous),
    ("option_splice_flags", splice_flags),
    ("option_write_flags", write_flags),
    ("option_receive_timeout", receive_timeout),
    ("option_unshare", unshare),
    ("option_terminal", terminal),
];

/// Not in libc.
const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;

fn fcntl(fd: i64, command: i32, arg: i64) -> i64 {
    sys!(libc::SYS_fcntl, fd, command, arg)
}

fn owner() {
    let (fd, _) = pipe(0);
    report("nobody", fcntl(fd, libc::F_GETOWN, 0));
    report("me", fcntl(fd, libc::F_SETOWN, sys!(libc::SYS_getpid)));
    println!("{}", fcntl(fd, libc::F_GETOWN, 0) == sys!(libc::SYS_getpid));
    report("who does not exist", fcntl(fd, libc::F_SETOWN, 4_000_000));
    report("a group that does not", fcntl(fd, libc::F_SETOWN, -4_000_000));
    report("the least number", fcntl(fd, libc::F_SETOWN, i64::from(i32::MIN)));
    report("nobody", fcntl(fd, libc::F_SETOWN, 0));
    report("signal", fcntl(fd, F_GETSIG, 0));
    report("no signal", fcntl(fd, F_SETSIG, 99));
    report("lease", fcntl(sys::open("/dev/null", 0, 0), libc::F_GETLEASE, 0));
}

fn status_flags() {
    sys::scratch("status");
    let file = sys::open("f", libc::O_CREAT | libc::O_RDWR, 0o666);
    sys!(libc::SYS_fchmod, file, 0o666);
    report("append", fcntl(file, libc::F_SETFL, i64::from(libc::O_APPEND | libc::O_NONBLOCK)));
    println!("{:#x}", fcntl(file, libc::F_GETFL, 0) & i64::from(libc::O_APPEND | libc::O_NONBLOCK));
    report("no times", fcntl(file, libc::F_SETFL, i64::from(libc::O_NOATIME)));
    let other = sys::open("f", libc::O_RDWR, 0);
    in_child("another's", || {
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        report("no times", fcntl(other, libc::F_SETFL, i64::from(libc::O_NOATIME)));
        report("kept", fcntl(file, libc::F_SETFL, i64::from(libc::O_NOATIME)));
        0
    });
    let (mut fds, off, on) = ([-1_i32; 2], 0_i32, 1_i32);
    sys!(libc::SYS_socketpair, libc::AF_UNIX, libc::SOCK_STREAM, 0, fds.as_mut_ptr());
    report("direct socket", fcntl(i64::from(fds[0]), libc::F_SETFL, i64::from(libc::O_DIRECT)));
    report("asynchronous file", sys!(libc::SYS_ioctl, file, libc::FIOASYNC, &raw const on));
    report("not asynchronous", sys!(libc::SYS_ioctl, file, libc::FIOASYNC, &raw const off));
    report("nowhere", sys!(libc::SYS_ioctl, file, libc::FIOASYNC, 8));
    report("nonblocking", sys!(libc::SYS_ioctl, fds[0], libc::FIONBIO, &raw const on));
    report("nothing", sys::read(i64::from(fds[0]), 1).0);
    sys::unscratch();
}

/// Linux keeps packets apart; who cannot must not make such a pipe.
fn packets() {
    let mut fds = [-1_i32; 2];
    let made = sys!(libc::SYS_pipe2, fds.as_mut_ptr(), libc::O_DIRECT);
    let fair = if made == 0 {
        write(fds[1].into(), b"one");
        write(fds[1].into(), b"two");
        sys::read(fds[0].into(), 10).1 == b"one"
    } else {
        show(made) == "EINVAL"
    };
    println!("{fair}");
}

/// Linux signals that there is something to read; who does not must not take the flag.
fn asynchronous() {
    static CAME: AtomicI32 = AtomicI32::new(0);
    extern "C" fn came(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        CAME.fetch_add(1, SeqCst);
    }
    sys::handle(libc::SIGIO, came, 0);
    let on = 1_i32;
    for how in 0..2 {
        let (read_end, write_end) = pipe(0);
        fcntl(read_end, libc::F_SETOWN, sys!(libc::SYS_getpid));
        let taken = match how {
            0 => fcntl(read_end, libc::F_SETFL, i64::from(libc::O_ASYNC)),
            _ => sys!(libc::SYS_ioctl, read_end, libc::FIOASYNC, &raw const on),
        };
        CAME.store(0, SeqCst);
        write(write_end, b"x");
        println!("{}", (taken == 0) == (CAME.load(SeqCst) == 1));
    }
}

fn splice_flags() {
    let ((from, from_write), (to_read, to)) = (pipe(0), pipe(0));
    write(from_write, b"abc");
    report("unknown", sys!(libc::SYS_splice, from, 0, to, 0, 10, 16));
    report("hints", sys!(libc::SYS_splice, from, 0, to, 0, 10, 1 | 4));
    report("tee unknown", sys!(libc::SYS_tee, to_read, from_write, 10, 16));
    report("tee", sys!(libc::SYS_tee, to_read, from_write, 10, 4));
    let text = *b"0123456789";
    let iov = [text.as_ptr() as u64, 10];
    report("vmsplice unknown", sys!(libc::SYS_vmsplice, to, iov.as_ptr(), 1, 16));
    report("vmsplice", sys!(libc::SYS_vmsplice, to, iov.as_ptr(), 1, 2 | 8));
    let (empty, _write_end) = pipe(0);
    let mut room = [0_u8; 10];
    let into = [room.as_mut_ptr() as u64, 10];
    report("vmsplice without waiting", sys!(libc::SYS_vmsplice, empty, into.as_ptr(), 1, 2));
    close(from);
}

fn write_flags() {
    sys::scratch("flags");
    let file = sys::open("f", libc::O_CREAT | libc::O_RDWR, 0o600);
    let text = *b"abcdef";
    let iov = [text.as_ptr() as u64, 6];
    let put = |fd: i64, at: i64, flags: i32| sys!(libc::SYS_pwritev2, fd, iov.as_ptr(), 1, at, 0, flags);
    report("synchronous", put(file, 0, libc::RWF_SYNC));
    report("data only", put(file, -1, libc::RWF_DSYNC));
    let (_read_end, write_end) = pipe(0);
    report("of a pipe", put(write_end, -1, libc::RWF_SYNC));
    report("unknown", put(file, 0, 1 << 30));
    report("negative", put(file, -2, 0));
    sys::unscratch();
}

fn receive_timeout() {
    let mut fds = [-1_i32; 2];
    sys!(libc::SYS_socketpair, libc::AF_UNIX, libc::SOCK_DGRAM, 0, fds.as_mut_ptr());
    let mut bytes = [[0_u8; 8]; 3];
    let iovs: Vec<[u64; 2]> = bytes.iter_mut().map(|b| [b.as_mut_ptr() as u64, 8]).collect();
    // struct mmsghdr: name, its length, vector, its length, control, its length, flags; then the result.
    let mut headers: Vec<[u64; 8]> =
        iovs.iter().map(|iov| [0, 0, iov.as_ptr() as u64, 1, 0, 0, 0, 0]).collect();
    let mut receive =
        |time: &mut [i64; 2]| sys!(libc::SYS_recvmmsg, fds[0], headers.as_mut_ptr(), 3, 0, time.as_mut_ptr());
    report("bad time", receive(&mut [0, 2_000_000_000]));
    // The clock is looked at when a message has come.
    let parent = sys!(libc::SYS_getpid);
    let pid = sys::fork(|| {
        sys::until_asleep(parent, parent);
        std::thread::sleep(Duration::from_millis(60));
        write(i64::from(fds[1]), b"late");
        0
    });
    let (mut time, start) = ([0_i64, 30_000_000], Instant::now());
    report("received", receive(&mut time));
    println!("left {time:?} waited {}", start.elapsed() >= Duration::from_millis(30));
    println!("{}", sys::wait(pid));
    (0..3).for_each(|_| _ = write(i64::from(fds[1]), b"now"));
    let mut time = [1000_i64, 0];
    report("all there", receive(&mut time));
    println!("left {}", (800..1000).contains(&time[0]));
}

fn unshare() {
    let flags = [
        libc::CLONE_THREAD,
        libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_VM,
        libc::CLONE_FILES | libc::CLONE_FS | libc::CLONE_SYSVSEM,
        libc::CLONE_PARENT,
    ];
    for flag in flags {
        report(&format!("alone, {flag:#x}"), sys!(libc::SYS_unshare, flag));
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for flag in flags {
                report(&format!("one of two, {flag:#x}"), sys!(libc::SYS_unshare, flag));
            }
        });
    });
}

fn terminal() {
    let master = sys::open("/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0);
    let (mut number, unlock, off) = (0_u32, 0_i32, 0_i32);
    let control = |fd: i64, request: u64, arg: i64| sys!(libc::SYS_ioctl, fd, request, arg);
    control(master, libc::TIOCGPTN, &raw mut number as i64);
    control(master, libc::TIOCSPTLCK, &raw const unlock as i64);
    let name = format!("/dev/pts/{number}");
    let again = || sys::open(&name, libc::O_RDWR | libc::O_NOCTTY, 0);
    let slave = again();
    sys!(libc::SYS_fchmod, slave, 0o666);
    let exclusive = || {
        let mut value = -1_i32;
        report("get", control(slave, libc::TIOCGEXCL, &raw mut value as i64));
        println!("exclusive {value}");
    };
    let by_user = || {
        in_child("user", || {
            sys!(libc::SYS_setresuid, 1000, 1000, 1000);
            report("open", again().min(0));
            0
        });
    };
    exclusive();
    report("for me alone", control(slave, libc::TIOCEXCL, 0));
    exclusive();
    by_user();
    report("root", again().min(0));
    report("for all", control(slave, libc::TIOCNXCL, 0));
    exclusive();
    by_user();
    report("break", control(slave, libc::TCSBRK, 1));
    report("go on", control(slave, libc::TCXONC, 1));
    report("no packets", control(master, libc::TIOCPKT, &raw const off as i64));
}
