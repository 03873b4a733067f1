//! Timers that are late, past or often, and descriptors for processes.

use crate::Case;
use crate::recent::newer;
use crate::sys::{self, in_child, report, report_ok};

pub(crate) const CASES: &[Case] = &[
    ("timers_past", past),
    ("timers_overrun", overrun),
    ("timers_clocks", clocks),
    ("timers_fdinfo", fdinfo),
    ("pidfd_reaped", reaped),
    ("pidfd_nonblock", nonblock),
    ("pidfd_thread", thread),
    ("pidfd_send", send),
];

/// `clock_gettime` in ns.
fn now(clock: i32) -> i64 {
    let mut time = [0_i64; 2];
    sys!(libc::SYS_clock_gettime, clock, time.as_mut_ptr());
    time[0] * 1_000_000_000 + time[1]
}

/// `struct itimerspec`: first `interval`, then `value`.
fn spec(interval: i64, value: i64) -> [i64; 4] {
    let split = |ns: i64| [ns / 1_000_000_000, ns % 1_000_000_000];
    let ([a, b], [c, d]) = (split(interval), split(value));
    [a, b, c, d]
}

fn count(fd: i64) -> i64 {
    let (result, bytes) = sys::read(fd, 8);
    if result == 8 { i64::from_ne_bytes(bytes.try_into().unwrap_or_default()) } else { result }
}

/// Waits for what a timer has to say: the interrupt of an emulated machine takes a moment, also for a time that is past.
fn readable(fd: i64) -> i64 {
    let poll = [fd as u32, 1];
    sys!(libc::SYS_ppoll, poll.as_ptr(), 1, [10_i64, 0].as_ptr(), 0, 8)
}

/// A timer of `clock` that sends `signal`.
fn create(clock: i32, signal: i32) -> i64 {
    let mut id = -1_i32;
    let event = [7_u64, u64::from(signal.cast_unsigned()), 0, 0, 0, 0, 0, 0];
    let result = sys!(libc::SYS_timer_create, clock, event.as_ptr(), &raw mut id);
    if result < 0 { result } else { i64::from(id) }
}

fn past() {
    for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME, libc::CLOCK_BOOTTIME] {
        let fd = sys!(libc::SYS_timerfd_create, clock, libc::TFD_NONBLOCK);
        let once = spec(0, now(clock) - 5_000_000);
        report("set", sys!(libc::SYS_timerfd_settime, fd, 1, once.as_ptr(), 0));
        report("in a moment", readable(fd));
        println!("once {}", count(fd));
        report("and no more", count(fd));
        // Not before the machine was started.
        let (period, began) = (100_000_000, now(clock));
        let often = spec(period, began - 10 * period - period / 2);
        report("set", sys!(libc::SYS_timerfd_settime, fd, 1, often.as_ptr(), 0));
        report("in a moment", readable(fd));
        println!("all of them {}", if now(clock) - began < period / 2 { count(fd) } else { 11 });
        let soon = spec(0, now(clock) + 1_000_000);
        report("set", sys!(libc::SYS_timerfd_settime, fd, 1, soon.as_ptr(), 0));
        report("comes", readable(fd));
        sys::close(fd);
        sys::mask(libc::SIG_BLOCK, sys::set_of(&[libc::SIGUSR1]));
        let id = create(clock, libc::SIGUSR1);
        report("set", sys!(libc::SYS_timer_settime, id, 1, spec(0, 1).as_ptr(), 0));
        let (mut pending, asked) = (0_u64, now(clock));
        // The interrupt of an emulated machine takes a moment.
        while pending == 0 && now(clock) - asked < 500_000_000 {
            sys!(libc::SYS_rt_sigpending, &raw mut pending, 8);
        }
        println!("pending soon {:?}", sys::members(pending));
        let set = sys::set_of(&[libc::SIGUSR1]);
        report("taken", sys!(libc::SYS_rt_sigtimedwait, &raw const set, 0, 0, 8));
        sys!(libc::SYS_timer_delete, id);
    }
}

fn overrun() {
    for signal in [libc::SIGUSR1, libc::SIGRTMIN() + 1] {
        let set = sys::set_of(&[signal]);
        sys::mask(libc::SIG_BLOCK, set);
        let id = create(libc::CLOCK_MONOTONIC, signal);
        let began = now(libc::CLOCK_MONOTONIC);
        report("set", sys!(libc::SYS_timer_settime, id, 0, spec(1_000_000, 1_000_000).as_ptr(), 0));
        std::thread::sleep(std::time::Duration::from_millis(50));
        let mut info = [0_i32; 32];
        let none = [0_i64, 0];
        report(
            "one signal",
            sys!(libc::SYS_rt_sigtimedwait, &raw const set, info.as_mut_ptr(), none.as_ptr(), 8),
        );
        let most = (now(libc::CLOCK_MONOTONIC) - began) / 1_000_000;
        let over = sys!(libc::SYS_timer_getoverrun, id);
        sys!(libc::SYS_timer_settime, id, 0, spec(0, 0).as_ptr(), 0);
        println!("stands for many {} in siginfo {}", (20..=most).contains(&over), i64::from(info[5]) == over);
        // One more may have come before it was stopped.
        let left = sys!(libc::SYS_rt_sigtimedwait, &raw const set, 0, none.as_ptr(), 8);
        println!("{}", left == i64::from(signal) || left == -i64::from(libc::EAGAIN));
        report("none is left", sys!(libc::SYS_rt_sigtimedwait, &raw const set, 0, none.as_ptr(), 8));
        sys!(libc::SYS_timer_delete, id);
    }
}

fn clocks() {
    let process = |pid: i64| (!(pid as i32)) << 3 | 2;
    let thread = |tid: i64| (!(tid as i32)) << 3 | 6;
    let (read_end, write_end) = sys::pipe(0);
    let pid = sys::fork(|| {
        sys::close(write_end);
        sys::read(read_end, 1);
        0
    });
    let mut time = [0_i64; 2];
    report("another process", sys!(libc::SYS_clock_gettime, process(pid), time.as_mut_ptr()));
    report("its thread", sys!(libc::SYS_clock_gettime, thread(pid), time.as_mut_ptr()));
    report("itself", sys!(libc::SYS_clock_gettime, process(0), time.as_mut_ptr()));
    report(
        "its own thread",
        sys!(libc::SYS_clock_gettime, thread(sys!(libc::SYS_gettid)), time.as_mut_ptr()),
    );
    report("nobody", sys!(libc::SYS_clock_gettime, process(4_000_000), time.as_mut_ptr()));
    report("a timer for another's thread", create(thread(pid), libc::SIGUSR1));
    report_ok("a timer for another", create(process(pid), libc::SIGUSR1));
    let event = [7_u64, libc::SIGUSR1 as u64 | 4 << 32, pid as u64, 0, 0, 0, 0, 0];
    let mut id = -1_i32;
    report("to another", sys!(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, event.as_ptr(), &raw mut id));
    let event = [7_u64, libc::SIGUSR1 as u64 | 4 << 32, sys!(libc::SYS_gettid) as u64, 0, 0, 0, 0, 0];
    report("to itself", sys!(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, event.as_ptr(), &raw mut id));
    sys::close(write_end);
    println!("{}", sys::wait(pid));
}

fn fdinfo() {
    let fd = sys!(libc::SYS_timerfd_create, libc::CLOCK_BOOTTIME, libc::TFD_NONBLOCK);
    let past = spec(0, 1);
    sys!(libc::SYS_timerfd_settime, fd, 1, past.as_ptr(), 0);
    report("in a moment", readable(fd));
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    let shown = ["clockid", "ticks", "settime flags", "it_value", "it_interval"];
    for line in text.lines().filter(|line| shown.iter().any(|name| line.starts_with(name))) {
        println!("{line}");
    }
}

/// Polls for 10 s at most and shows what came.
fn poll(fd: i64, wait: i64) -> u32 {
    let mut poll = [fd as u32, 1];
    sys!(libc::SYS_ppoll, poll.as_mut_ptr(), 1, [wait, 0].as_ptr(), 0, 8);
    poll[1] >> 16
}

fn reaped() {
    let pid = sys::fork(|| 3);
    let fd = sys!(libc::SYS_pidfd_open, pid, 0);
    println!("ended {:#x}", poll(fd, 10));
    report("a zombie", sys!(libc::SYS_pidfd_send_signal, fd, 0, 0, 0));
    report("a zombie", sys!(libc::SYS_pidfd_send_signal, fd, libc::SIGTERM, 0, 0));
    println!("{}", sys::wait(pid));
    // POLLHUP came with Linux 6.9.
    println!("readable {}", poll(fd, 10) & 1);
    let late = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let late =
        late.split('.').take(2).map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>() >= vec![6, 9];
    println!("hung up {}", !late || poll(fd, 10) & 0x10 != 0);
    report("gone", sys!(libc::SYS_pidfd_send_signal, fd, 0, 0, 0));
    report("wait", sys!(libc::SYS_waitid, 3, fd, 0, libc::WEXITED));
}

fn nonblock() {
    let (read_end, write_end) = sys::pipe(0);
    let pid = sys::fork(|| {
        sys::close(write_end);
        sys::read(read_end, 1);
        0
    });
    let fd = sys!(libc::SYS_pidfd_open, pid, libc::O_NONBLOCK);
    let wait = |options: i32| sys!(libc::SYS_waitid, 3, fd, 0, options);
    report("not yet", wait(libc::WEXITED));
    report("not yet", wait(libc::WEXITED | libc::WNOHANG));
    report("no descriptor", sys!(libc::SYS_waitid, 3, -1, 0, libc::WEXITED));
    report("another", sys!(libc::SYS_waitid, 3, 0, 0, libc::WEXITED));
    sys::close(write_end);
    println!("ended {}", poll(fd, 10) & 1);
    report("now", wait(libc::WEXITED));
    report("gone", wait(libc::WEXITED));
    report("bad flags", sys!(libc::SYS_pidfd_open, pid, libc::O_APPEND));
}

fn thread() {
    let (tell, told) = std::sync::mpsc::channel();
    let (read_end, write_end) = sys::pipe(0);
    let other = std::thread::spawn(move || {
        let _sent = tell.send(sys!(libc::SYS_gettid));
        sys::read(read_end, 1);
    });
    let tid = told.recv().unwrap_or(0);
    let fd = sys!(libc::SYS_pidfd_open, tid, libc::O_EXCL);
    // Linux 6.9; before, the flag is EINVAL.
    if fd < 0 {
        newer("a thread", -i64::from(libc::ENOSYS), 0);
        println!("ended 0\nended 1");
    } else {
        newer("a thread", 0, 0);
        println!("ended {}", poll(fd, 0) & 1);
        sys::write(write_end, b"x");
        println!("ended {}", poll(fd, 10) & 1);
    }
    sys::close(write_end);
    let _joined = other.join();
}

fn send() {
    in_child("to itself", || {
        let fd = sys!(libc::SYS_pidfd_open, sys!(libc::SYS_getpid), 0);
        report("no such flag", sys!(libc::SYS_pidfd_send_signal, fd, 0, 0, 64));
        report("no such signal", sys!(libc::SYS_pidfd_send_signal, fd, 99, 0, 0));
        report("not a pidfd", sys!(libc::SYS_pidfd_send_signal, 1, 0, 0, 0));
        sys!(libc::SYS_pidfd_send_signal, fd, libc::SIGTERM, 0, 0);
        0
    });
    // The process's directory does as well; a thread's, a name alone, and other directories do not.
    let pid = sys::fork(|| sys!(libc::SYS_ppoll, 0, 0, 0, 0, 8) as i32);
    let kinds = [
        (format!("/proc/{pid}"), 0),
        (format!("/proc/{pid}/task/{pid}"), 0),
        (format!("/proc/{pid}/task"), 0),
        ("/proc".to_owned(), 0),
        (format!("/proc/{pid}"), libc::O_PATH),
    ];
    let open = |(path, flags): &(String, i32)| {
        sys!(libc::SYS_openat, -100, sys::c(path).as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | flags, 0)
    };
    let fds: Vec<i64> = kinds.iter().map(open).collect();
    for (index, fd) in fds.iter().enumerate() {
        report(&format!("directory {index}"), sys!(libc::SYS_pidfd_send_signal, *fd, 0, 0, 0));
    }
    report("to it", sys!(libc::SYS_pidfd_send_signal, fds[0], libc::SIGTERM, 0, 0));
    println!("{}", sys::wait(pid));
    report("gone", sys!(libc::SYS_pidfd_send_signal, fds[0], 0, 0, 0));
}
