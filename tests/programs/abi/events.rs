//! Waiting for descriptors: poll, select, epoll, eventfd, timerfd, signalfd.

use crate::Case;
use crate::sys::{self, close, fork, pipe, report, wait, write};

pub(crate) const CASES: &[Case] = &[
    ("event_poll", poll),
    ("event_select", select),
    ("event_epoll", epoll),
    ("event_epoll_modes", epoll_modes),
    ("event_epoll_errors", epoll_errors),
    ("event_eventfd", eventfd),
    ("event_timerfd", timerfd),
    ("event_signalfd", signalfd),
    ("event_ppoll_mask", ppoll_mask),
];

/// `ppoll` with a timeout in milliseconds; the result and the returned events.
fn poll_once(fds: &[(i64, i16)], timeout: i64) -> String {
    let mut words: Vec<[u32; 2]> =
        fds.iter().map(|(fd, events)| [*fd as u32, u32::from(*events as u16)]).collect();
    let time = [timeout / 1000, timeout % 1000 * 1_000_000];
    let result = sys!(libc::SYS_ppoll, words.as_mut_ptr(), words.len(), time.as_ptr(), 0, 8);
    let events: Vec<String> = words.iter().map(|w| format!("{:#x}", w[1] >> 16)).collect();
    format!("{} {events:?}", sys::show(result))
}

const ALL: i16 = libc::POLLIN | libc::POLLOUT | libc::POLLPRI;

fn poll() {
    let (read_end, write_end) = pipe(0);
    println!("empty pipe {}", poll_once(&[(read_end, ALL), (write_end, ALL)], 0));
    write(write_end, b"x");
    println!("a byte in it {}", poll_once(&[(read_end, ALL), (write_end, ALL)], 0));
    println!("nothing asked {}", poll_once(&[(read_end, 0)], 0));
    println!("bad and negative {}", poll_once(&[(99, ALL), (-1, ALL)], 0));
    sys::read(read_end, 1);
    println!("timeout {}", poll_once(&[(read_end, libc::POLLIN)], 5));
    println!("none {}", poll_once(&[], 1));
    close(write_end);
    println!("writer gone {}", poll_once(&[(read_end, ALL)], -1000));
    let (read_end, write_end) = pipe(0);
    close(read_end);
    println!("reader gone {}", poll_once(&[(write_end, ALL)], 0));
    let file = sys::open("/proc/self/exe", 0, 0);
    let null = sys::open("/dev/null", libc::O_RDWR, 0);
    println!("file and null {}", poll_once(&[(file, ALL), (null, ALL)], 0));
    let (read_end, write_end) = pipe(0);
    let pid = fork(|| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        write(write_end, b"x");
        0
    });
    println!("waited {}", poll_once(&[(read_end, libc::POLLIN)], 10_000));
    println!("{}", wait(pid));
}

fn select() {
    let (read_end, write_end) = pipe(0);
    let run = |read: u64, write_set: u64, milliseconds: i64| {
        let (mut r, mut w) = (read, write_set);
        let time = [milliseconds / 1000, milliseconds % 1000 * 1_000_000];
        let result = sys!(libc::SYS_pselect6, 64, &raw mut r, &raw mut w, 0, time.as_ptr(), 0);
        (sys::show(result), r == read, w == write_set, r == 0, w == 0)
    };
    println!("{:?}", run(1 << read_end, 1 << write_end, 0));
    write(write_end, b"x");
    println!("{:?}", run(1 << read_end, 1 << write_end, 0));
    println!("{:?}", run(1 << read_end, 0, 0));
    sys::read(read_end, 1);
    println!("{:?}", run(1 << read_end, 0, 3));
    println!("{:?}", run(1 << 60, 0, 0).0);
    let bad = [0_i64, -1];
    report("bad time", sys!(libc::SYS_pselect6, 0, 0, 0, 0, bad.as_ptr(), 0));
    report("negative", sys!(libc::SYS_pselect6, -1, 0, 0, 0, 0, 0));
}

/// `struct epoll_event`, packed on x86_64 only.
#[cfg_attr(target_arch = "x86_64", repr(C, packed))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C))]
#[derive(Clone, Copy)]
struct Event {
    events: u32,
    data: u64,
}

fn control(epoll: i64, operation: i32, fd: i64, events: u32, data: u64) -> i64 {
    let event = Event { events, data };
    sys!(libc::SYS_epoll_ctl, epoll, operation, fd, &raw const event)
}

fn wait_events(epoll: i64, max: usize, timeout: i32) -> String {
    let mut events = vec![Event { events: 0, data: 0 }; max];
    let result = sys!(libc::SYS_epoll_pwait, epoll, events.as_mut_ptr(), max, timeout, 0, 8);
    let count = usize::try_from(result).unwrap_or(0);
    let mut seen: Vec<String> =
        events[..count].iter().map(|e| format!("{}:{:#x}", { e.data }, { e.events })).collect();
    seen.sort();
    format!("{} {seen:?}", sys::show(result))
}

fn epoll() {
    let epoll = sys!(libc::SYS_epoll_create1, libc::EPOLL_CLOEXEC);
    let (a_read, a_write) = pipe(0);
    let (b_read, b_write) = pipe(0);
    report("add", control(epoll, libc::EPOLL_CTL_ADD, a_read, 1, 10));
    report("add", control(epoll, libc::EPOLL_CTL_ADD, b_read, 1, 20));
    println!("none {}", wait_events(epoll, 8, 0));
    write(a_write, b"x");
    println!("one {}", wait_events(epoll, 8, -1));
    write(b_write, b"x");
    println!("two {}", wait_events(epoll, 8, -1));
    println!("at most one {}", &wait_events(epoll, 1, -1)[..1]);
    println!("level {}", wait_events(epoll, 8, 0));
    sys::read(a_read, 1);
    println!("read {}", wait_events(epoll, 8, 0));
    report("mod", control(epoll, libc::EPOLL_CTL_MOD, b_read, 0, 21));
    println!("muted {}", wait_events(epoll, 8, 0));
    close(b_write);
    println!("hang-up is always told {}", wait_events(epoll, 8, 0));
    report("del", control(epoll, libc::EPOLL_CTL_DEL, b_read, 0, 0));
    println!("gone {}", wait_events(epoll, 8, 0));
    close(a_read);
    close(a_write);
    println!("closed {}", wait_events(epoll, 8, 0));
    let (read_end, write_end) = pipe(0);
    control(epoll, libc::EPOLL_CTL_ADD, read_end, 1, 30);
    let pid = fork(|| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        write(write_end, b"x");
        0
    });
    println!("waited {}", wait_events(epoll, 8, 10_000));
    println!("{}", wait(pid));
    println!("itself readable {}", poll_once(&[(epoll, libc::POLLIN)], 0));
    println!("timeout {}", {
        sys::read(read_end, 1);
        wait_events(epoll, 8, 3)
    });
}

fn epoll_modes() {
    let epoll = sys!(libc::SYS_epoll_create1, 0);
    let (read_end, write_end) = pipe(0);
    control(epoll, libc::EPOLL_CTL_ADD, read_end, 1 | 1 << 31, 1);
    write(write_end, b"x");
    println!("edge {}", wait_events(epoll, 8, 0));
    println!("once {}", wait_events(epoll, 8, 0));
    write(write_end, b"x");
    println!("another {}", wait_events(epoll, 8, 0));
    control(epoll, libc::EPOLL_CTL_MOD, read_end, 1 | 1 << 30, 2);
    println!("one shot {}", wait_events(epoll, 8, 0));
    write(write_end, b"x");
    println!("spent {}", wait_events(epoll, 8, 0));
    control(epoll, libc::EPOLL_CTL_MOD, read_end, 1 | 1 << 30, 3);
    println!("armed again {}", wait_events(epoll, 8, 0));
    // One epoll in another.
    let outer = sys!(libc::SYS_epoll_create1, 0);
    let (read_end, write_end) = pipe(0);
    control(epoll, libc::EPOLL_CTL_ADD, read_end, 1, 4);
    report("nested", control(outer, libc::EPOLL_CTL_ADD, epoll, 1, 5));
    println!("{}", wait_events(outer, 8, 0));
    write(write_end, b"x");
    println!("{}", wait_events(outer, 8, 0));
}

fn epoll_errors() {
    let epoll = sys!(libc::SYS_epoll_create1, 0);
    let (read_end, _) = pipe(0);
    report("bad flag", sys!(libc::SYS_epoll_create1, 1));
    control(epoll, libc::EPOLL_CTL_ADD, read_end, 1, 0);
    report("again", control(epoll, libc::EPOLL_CTL_ADD, read_end, 1, 0));
    report("not there", control(epoll, libc::EPOLL_CTL_DEL, pipe(0).0, 1, 0));
    report("itself", control(epoll, libc::EPOLL_CTL_ADD, epoll, 1, 0));
    report("bad descriptor", control(epoll, libc::EPOLL_CTL_ADD, 99, 1, 0));
    report("not an epoll", control(read_end, libc::EPOLL_CTL_ADD, pipe(0).0, 1, 0));
    report("a regular file", control(epoll, libc::EPOLL_CTL_ADD, sys::open("/proc/self/exe", 0, 0), 1, 0));
    report("bad operation", control(epoll, 9, read_end, 1, 0));
    report("no room", sys!(libc::SYS_epoll_pwait, epoll, 8, 0, 0, 0, 8));
    write(1, b"");
}

fn eventfd() {
    let fd = sys!(libc::SYS_eventfd2, 3, libc::EFD_NONBLOCK);
    let value = |fd| {
        let (result, bytes) = sys::read(fd, 8);
        format!("{} {:?}", sys::show(result), bytes.first())
    };
    println!("{}", value(fd));
    println!("{}", value(fd));
    report("add", write(fd, &5_u64.to_ne_bytes()));
    report("add", write(fd, &7_u64.to_ne_bytes()));
    println!("{}", value(fd));
    report("short", write(fd, b"x"));
    report("too much", write(fd, &u64::MAX.to_ne_bytes()));
    report("the most", write(fd, &(u64::MAX - 1).to_ne_bytes()));
    report("no room", write(fd, &1_u64.to_ne_bytes()));
    println!("full {}", poll_once(&[(fd, ALL)], 0));
    let semaphore = sys!(libc::SYS_eventfd2, 2, libc::EFD_SEMAPHORE | libc::EFD_NONBLOCK);
    println!("{} {} {}", value(semaphore), value(semaphore), value(semaphore));
    let fd = sys!(libc::SYS_eventfd2, 0, 0);
    let pid = fork(|| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        write(fd, &9_u64.to_ne_bytes());
        0
    });
    println!("waited {} {}", value(fd), wait(pid));
}

fn timerfd() {
    let fd = sys!(libc::SYS_timerfd_create, libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK);
    report("unset", sys::read(fd, 8).0);
    let set = |interval: i64, first: i64| {
        let time = [0, interval, 0, first];
        sys!(libc::SYS_timerfd_settime, fd, 0, time.as_ptr(), 0)
    };
    report("set", set(0, 5_000_000));
    println!("{}", poll_once(&[(fd, libc::POLLIN)], 10_000));
    println!("{:?}", sys::read(fd, 8).1.first());
    report("again", sys::read(fd, 8).0);
    report("periodic", set(1_000_000, 1_000_000));
    std::thread::sleep(std::time::Duration::from_millis(20));
    let expired = sys::read(fd, 8).1.try_into().map_or(0, u64::from_ne_bytes);
    println!("expired {}", expired >= 5);
    let mut left = [0_i64; 4];
    sys!(libc::SYS_timerfd_gettime, fd, left.as_mut_ptr());
    println!("interval {}", left[1]);
    report("off", set(0, 0));
    std::thread::sleep(std::time::Duration::from_millis(3));
    report("nothing", sys::read(fd, 8).0);
    report("bad", set(0, 1_000_000_000));
    report("bad clock", sys!(libc::SYS_timerfd_create, 99, 0));
    report("short", sys::read(fd, 4).0);
}

fn signalfd() {
    let set = sys::set_of(&[libc::SIGUSR1, libc::SIGCHLD]);
    sys::mask(libc::SIG_BLOCK, set);
    let fd = sys!(libc::SYS_signalfd4, -1, &raw const set, 8, libc::SFD_NONBLOCK);
    report("nothing", sys::read(fd, 128).0);
    let pid = sys!(libc::SYS_getpid);
    sys!(libc::SYS_kill, pid, libc::SIGUSR1);
    println!("{}", poll_once(&[(fd, libc::POLLIN)], 0));
    let (result, bytes) = sys::read(fd, 256);
    let word = |at: usize| i32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    println!("{result} signo {} code {} from us {}", word(0), word(8), i64::from(word(12)) == pid);
    let child = fork(|| 5);
    println!("{}", poll_once(&[(fd, libc::POLLIN)], 10_000));
    let (result, bytes) = sys::read(fd, 128);
    let word = |at: usize| i32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    println!("{result} signo {} code {} status {}", word(0), word(8), word(40));
    println!("{}", wait(child));
    report("short", sys::read(fd, 100).0);
}

fn ppoll_mask() {
    extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    sys::handle(libc::SIGUSR1, nothing, 0);
    sys::mask(libc::SIG_BLOCK, sys::set_of(&[libc::SIGUSR1]));
    sys!(libc::SYS_kill, sys!(libc::SYS_getpid), libc::SIGUSR1);
    let none = 0_u64;
    let time = [10_i64, 0];
    report("interrupted", sys!(libc::SYS_ppoll, 0, 0, time.as_ptr(), &raw const none, 8));
    println!("blocked {:?}", sys::members(sys::mask(libc::SIG_BLOCK, 0)));
    let short = [0_i64, 1_000_000];
    report("not any more", sys!(libc::SYS_ppoll, 0, 0, short.as_ptr(), &raw const none, 8));
}
