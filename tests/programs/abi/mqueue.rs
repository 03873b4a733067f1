//! POSIX message queues.

use crate::Case;
use crate::sys::{self, c, in_child, report, report_ok, show};
use crate::sysvipc::Helper;
use std::sync::OnceLock;

pub(crate) const CASES: &[Case] = &[
    ("mq_open", open_and_unlink),
    ("mq_names", names),
    ("mq_attributes", attributes),
    ("mq_priorities", priorities),
    ("mq_errors", errors),
    ("mq_waiting", waiting),
    ("mq_timeouts", timeouts),
    ("mq_interrupted", interrupted),
    ("mq_poll", polled),
    ("mq_notify", notify),
    ("mq_notify_errors", notify_errors),
    ("mq_limits", limits),
    ("mq_file", file),
];

const RDWR: i32 = libc::O_RDWR;
const CREAT: i32 = libc::O_CREAT;

/// A name that only this process and its children use.
fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("abi-{}", sys!(libc::SYS_getpid)))
}

fn open(name: &str, flags: i32, mode: u32, size: Option<(i64, i64)>) -> i64 {
    let attributes = size.map(|(messages, size)| [0, messages, size, 0, 0, 0, 0, 0_i64]);
    let place = attributes.as_ref().map_or(std::ptr::null(), |words| words.as_ptr());
    sys!(libc::SYS_mq_open, c(name).as_ptr(), flags, mode, place)
}

/// A queue of that many messages of 8 bytes, which has no name any more.
fn queue(messages: i64) -> i64 {
    let fd = open(name(), RDWR | CREAT | libc::O_EXCL, 0o600, Some((messages, 8)));
    unlink(name());
    fd
}

fn unlink(name: &str) -> i64 {
    sys!(libc::SYS_mq_unlink, c(name).as_ptr())
}

fn send(fd: i64, text: &str, priority: u32) -> i64 {
    sys!(libc::SYS_mq_timedsend, fd, text.as_ptr(), text.len(), priority, 0)
}

fn receive(fd: i64) -> String {
    let (mut text, mut priority) = ([0_u8; 8192], 0_u32);
    let result = sys!(libc::SYS_mq_timedreceive, fd, text.as_mut_ptr(), text.len(), &raw mut priority, 0);
    match usize::try_from(result) {
        Ok(len) => format!("{priority} {:?}", String::from_utf8_lossy(&text[..len])),
        Err(_) => show(result),
    }
}

/// Flags, most messages, most bytes, messages.
fn attributes_of(fd: i64) -> [i64; 4] {
    let mut words = [-1_i64; 8];
    sys!(libc::SYS_mq_getsetattr, fd, 0, words.as_mut_ptr());
    [words[0], words[1], words[2], words[3]]
}

fn nonblocking(fd: i64, on: bool) -> i64 {
    let words = [if on { i64::from(libc::O_NONBLOCK) } else { 0 }, 0, 0, 0, 0, 0, 0, 0];
    sys!(libc::SYS_mq_getsetattr, fd, words.as_ptr(), 0)
}

fn open_and_unlink() {
    report("none there", open(name(), RDWR, 0, None));
    let fd = open(name(), RDWR | CREAT | libc::O_EXCL, 0o640, None);
    report_ok("made", fd);
    println!("{:?}", attributes_of(fd));
    report("again", open(name(), RDWR | CREAT | libc::O_EXCL, 0o640, None));
    let other = open(name(), RDWR | CREAT, 0o640, Some((3, 3)));
    println!("opened: {:?}", attributes_of(other));
    report("close-on-exec", sys!(libc::SYS_fcntl, fd, libc::F_GETFD));
    report("flags", sys!(libc::SYS_fcntl, fd, libc::F_GETFL) & 0xfff);
    report("sent", send(fd, "one", 0));
    println!("received {}", receive(other));
    report("no access at all", open(name(), 3, 0, None));
    in_child("somebody else", || {
        sys!(libc::SYS_setresgid, 1000, 1000, 1000);
        sys!(libc::SYS_setgroups, 0, 0);
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        report("opened", open(name(), libc::O_RDONLY, 0, None));
        report("removed", unlink(name()));
        0
    });
    report("removed", unlink(name()));
    report("removed again", unlink(name()));
    report("still works", send(other, "two", 0));
    println!("received {}", receive(fd));
    let reader = open(name(), libc::O_RDONLY | CREAT, 0o600, None);
    let writer = open(name(), libc::O_WRONLY | libc::O_NONBLOCK, 0, None);
    report("sent by the reader", send(reader, "x", 0));
    report("sent by the writer", send(writer, "x", 0));
    println!("received by the writer {}", receive(writer));
    println!("received by the reader {}", receive(reader));
    println!("{:?} {:?}", attributes_of(reader)[0], attributes_of(writer)[0] == i64::from(libc::O_NONBLOCK));
    unlink(name());
}

fn names() {
    let long = "n".repeat(255);
    for name in ["", "/", "/a", "a/b", ".", "..", &format!("{long}n")] {
        let short = &name[..name.len().min(8)];
        report(&format!("{short:?} opened"), open(name, RDWR | CREAT, 0o600, None));
        report(&format!("{short:?} removed"), unlink(name));
    }
    report_ok("the longest", open(&long, RDWR | CREAT, 0o600, None));
    report("removed", unlink(&long));
    report("from nowhere", sys!(libc::SYS_mq_open, 16, RDWR, 0, 0));
    report("attributes from nowhere", sys!(libc::SYS_mq_open, c(name()).as_ptr(), RDWR, 0, 16));
    report("nothing removed", sys!(libc::SYS_mq_unlink, 16));
}

fn attributes() {
    let fd = queue(3);
    println!("{:?}", attributes_of(fd));
    send(fd, "x", 0);
    println!("{:?}", attributes_of(fd));
    report("set", nonblocking(fd, true));
    println!("{}", attributes_of(fd)[0] == i64::from(libc::O_NONBLOCK));
    println!("shown {}", sys!(libc::SYS_fcntl, fd, libc::F_GETFL) & i64::from(libc::O_NONBLOCK) != 0);
    report("unset", nonblocking(fd, false));
    println!("{}", attributes_of(fd)[0]);
    report("other flags", sys!(libc::SYS_mq_getsetattr, fd, [1_i64; 8].as_ptr(), 0));
    report("from nowhere", sys!(libc::SYS_mq_getsetattr, fd, 16, 0));
    report("to nowhere", sys!(libc::SYS_mq_getsetattr, fd, 0, 16));
    report("no queue", sys!(libc::SYS_mq_getsetattr, 0, 0, 0));
    report("no descriptor", sys!(libc::SYS_mq_getsetattr, -1, 0, 0));
    for size in [(0, 8), (8, 0), (-1, 8), (8, -1), (1 << 40, 8), (8, 1 << 40), (1 << 40, 1 << 40)] {
        report(&format!("{size:?}"), open(name(), RDWR | CREAT, 0o600, Some(size)));
    }
}

fn priorities() {
    let fd = queue(6);
    for (text, priority) in [("a", 1), ("b", 5), ("c", 1), ("d", 32767), ("", 0), ("e", 5)] {
        report("sent", send(fd, text, priority));
    }
    let all: Vec<String> = (0..6).map(|_| receive(fd)).collect();
    println!("{all:?}");
    report("too high", send(fd, "x", 32768));
}

fn errors() {
    let fd = queue(2);
    report("too long", send(fd, "123456789", 0));
    report("as long as may be", send(fd, "12345678", 0));
    report("from nowhere", sys!(libc::SYS_mq_timedsend, fd, 16, 4, 0, 0));
    report("too little room", sys!(libc::SYS_mq_timedreceive, fd, [0_u8; 8].as_mut_ptr(), 7, 0, 0));
    report("to nowhere", sys!(libc::SYS_mq_timedreceive, fd, 16, 8, 0, 0));
    println!("is gone: {:?}", attributes_of(fd));
    nonblocking(fd, true);
    println!("empty: {}", receive(fd));
    report("sent", send(fd, "1", 0) | send(fd, "2", 0));
    report("full", send(fd, "3", 0));
    report("no queue", send(1, "x", 0));
    report("no descriptor", send(-1, "x", 0));
    println!("no queue: {}", receive(0));
    for time in [[0, -1], [0, 1_000_000_000], [-1, 0]] {
        report("odd time", sys!(libc::SYS_mq_timedsend, fd, b"x".as_ptr(), 1, 0, time.as_ptr()));
    }
    report("time from nowhere", sys!(libc::SYS_mq_timedsend, fd, b"x".as_ptr(), 1, 0, 16));
    report("read", sys::write(fd, b"x"));
}

fn waiting() {
    let fd = queue(1);
    let first = Helper::start(|| receive(fd));
    let second = Helper::start(|| receive(fd));
    report("sent", send(fd, "one", 3));
    println!("first: {}", first.end());
    report("sent", send(fd, "two", 4));
    println!("second: {} {:?}", second.end(), attributes_of(fd));
    report("sent", send(fd, "three", 0));
    let first = Helper::start(|| show(send(fd, "four", 1)));
    let second = Helper::start(|| show(send(fd, "five", 9)));
    println!("{}", receive(fd));
    println!("first: {}", first.end());
    println!("{}", receive(fd));
    println!("second: {}", second.end());
    println!("{} {:?}", receive(fd), attributes_of(fd));
}

fn timeouts() {
    let fd = queue(1);
    let mut text = [0_u8; 8];
    let past = [1_i64, 0];
    let mut take =
        |time: &[i64; 2]| sys!(libc::SYS_mq_timedreceive, fd, text.as_mut_ptr(), 8, 0, time.as_ptr());
    report("received in the past", take(&past));
    let soon = |ns: i64| {
        let mut now = [0_i64; 2];
        sys!(libc::SYS_clock_gettime, libc::CLOCK_REALTIME, now.as_mut_ptr());
        [now[0] + (now[1] + ns) / 1_000_000_000, (now[1] + ns) % 1_000_000_000]
    };
    report("received soon", take(&soon(20_000_000)));
    report("sent", send(fd, "x", 0));
    report("received, though in the past", take(&past));
    report("sent", send(fd, "x", 0));
    report("sent in the past", sys!(libc::SYS_mq_timedsend, fd, b"y".as_ptr(), 1, 0, past.as_ptr()));
    report("sent soon", sys!(libc::SYS_mq_timedsend, fd, b"y".as_ptr(), 1, 0, soon(20_000_000).as_ptr()));
    println!("{:?}", attributes_of(fd));
}

extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

fn interrupted() {
    let fd = queue(1);
    let waits = Helper::start(|| {
        sys::handle(libc::SIGUSR1, nothing, 0);
        receive(fd)
    });
    waits.kill(libc::SIGUSR1);
    println!("{}", waits.end());
    let waits = Helper::start(|| {
        sys::handle(libc::SIGUSR1, nothing, libc::SA_RESTART);
        receive(fd)
    });
    waits.kill(libc::SIGUSR1);
    waits.asleep();
    report("sent", send(fd, "on", 0));
    println!("{}", waits.end());
}

fn polled() {
    let fd = queue(1);
    let events = || {
        let mut poll = [fd as i32, 0x145];
        let result = sys!(libc::SYS_ppoll, poll.as_mut_ptr(), 1, [0_i64; 2].as_ptr(), 0);
        format!("{} {:x}", show(result), poll[1] >> 16)
    };
    println!("empty: {}", events());
    send(fd, "x", 0);
    println!("full: {}", events());
    let epoll = sys!(libc::SYS_epoll_create1, 0);
    let mut event = libc::epoll_event { events: libc::EPOLLOUT as u32, u64: 7 };
    report("added", sys!(libc::SYS_epoll_ctl, epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event));
    let waits = Helper::start(|| {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        show(sys!(libc::SYS_epoll_pwait, epoll, &raw mut event, 1, -1, 0))
    });
    receive(fd);
    println!("{}", waits.end());
}

/// `struct sigevent`.
fn event(kind: i32, signal: i32, value: u64) -> [u64; 8] {
    [value, (kind as u64) << 32 | signal as u64, 0, 0, 0, 0, 0, 0]
}

fn ask(fd: i64, kind: i32, signal: i32) -> i64 {
    sys!(libc::SYS_mq_notify, fd, event(kind, signal, 77).as_ptr())
}

fn take_signal() -> String {
    let mut info = [0_i32; 32];
    let set = sys::set_of(&[libc::SIGUSR1]);
    let result = sys!(libc::SYS_rt_sigtimedwait, &raw const set, info.as_mut_ptr(), [0_i64; 2].as_ptr(), 8);
    if result < 0 {
        return show(result);
    }
    format!("{result} code {} uid {} value {}", info[2], info[5], info[6])
}

fn notify() {
    sys::mask(libc::SIG_BLOCK, sys::set_of(&[libc::SIGUSR1]));
    let fd = queue(3);
    report("asked", ask(fd, libc::SIGEV_SIGNAL, libc::SIGUSR1));
    report("asked again", ask(fd, libc::SIGEV_SIGNAL, libc::SIGUSR1));
    in_child("another", || {
        report("asked", ask(fd, libc::SIGEV_SIGNAL, libc::SIGUSR1));
        report("taken back", sys!(libc::SYS_mq_notify, fd, 0));
        report("sent", send(fd, "x", 0));
        0
    });
    println!("told {}", take_signal());
    report("sent", send(fd, "x", 0));
    println!("once {}", take_signal());
    report("asked", ask(fd, libc::SIGEV_SIGNAL, libc::SIGUSR1));
    report("sent to one that is not empty", send(fd, "x", 0));
    println!("not told {}", take_signal());
    (0..3).for_each(|_| println!("{}", receive(fd)));
    report("sent", send(fd, "x", 0));
    println!("told {}", take_signal());
    receive(fd);
    report("nothing asked", ask(fd, libc::SIGEV_NONE, 0));
    report("busy", ask(fd, libc::SIGEV_SIGNAL, libc::SIGUSR1));
    report("taken back", sys!(libc::SYS_mq_notify, fd, 0));
    report("asked", ask(fd, libc::SIGEV_SIGNAL, libc::SIGUSR1));
    let waits = Helper::start(|| receive(fd));
    report("sent to one who waits", send(fd, "y", 0));
    println!("{}; not told {}", waits.end(), take_signal());
    // Closing any descriptor of it takes it back.
    let other = sys!(libc::SYS_dup, fd);
    report("closed", sys::close(other));
    report("sent", send(fd, "x", 0));
    println!("not told {}", take_signal());
    receive(fd);
    report("asked", ask(fd, libc::SIGEV_SIGNAL, libc::SIGUSR1));
    in_child("a child that ends", || 0);
    report("still asked", ask(fd, libc::SIGEV_NONE, 0));
}

fn notify_errors() {
    let fd = queue(1);
    report("no such kind", ask(fd, 9, libc::SIGUSR1));
    report("no such signal", ask(fd, libc::SIGEV_SIGNAL, 65));
    report("signal 0", ask(fd, libc::SIGEV_SIGNAL, 0));
    report("taken back", sys!(libc::SYS_mq_notify, fd, 0));
    report("from nowhere", sys!(libc::SYS_mq_notify, fd, 16));
    report("no queue", ask(0, libc::SIGEV_NONE, 0));
    report("no descriptor", ask(-1, libc::SIGEV_NONE, 0));
    let thread = |signal: i32, value: u64| {
        sys!(libc::SYS_mq_notify, fd, event(libc::SIGEV_THREAD, signal, value).as_ptr())
    };
    let cookie = [0_u8; 32];
    report("a thread, no cookie", thread(0, 16));
    report("a thread, no descriptor", thread(-1, cookie.as_ptr() as u64));
    report("a thread, no socket", thread(fd as i32, cookie.as_ptr() as u64));
    let socket = sys!(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0);
    report("a thread, another socket", thread(socket as i32, cookie.as_ptr() as u64));
}

fn limits() {
    for name in ["queues_max", "msg_max", "msgsize_max", "msg_default", "msgsize_default"] {
        let text = std::fs::read_to_string(format!("/proc/sys/fs/mqueue/{name}"));
        println!("{name}: {:?}", text.map_err(|error| error.kind()));
    }
    in_child("an ordinary user", || {
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        let limit = |bytes: u64| sys!(libc::SYS_setrlimit, libc::RLIMIT_MSGQUEUE, [bytes, bytes].as_ptr());
        let make = |size| {
            let fd = open(name(), RDWR | CREAT | libc::O_EXCL, 0o600, Some(size));
            unlink(name());
            fd
        };
        report("too many messages", make((11, 8)));
        report("too large messages", make((1, 8193)));
        // One message of 8 bytes counts as 8 and what Linux keeps of it: 96.
        report("limit", limit(208));
        let fds = [make((1, 8)), make((1, 8)), make((1, 8))];
        println!("{} {} {}", fds[0] >= 0, fds[1] >= 0, show(fds[2]));
        sys::close(fds[0]);
        report_ok("again", make((1, 8)));
        0
    });
}

fn file() {
    let fd = open(name(), RDWR | CREAT, 0o4664, Some((2, 8)));
    let stat = || {
        let mut words = [0_u32; 64];
        let flags = libc::AT_EMPTY_PATH;
        let result = sys!(libc::SYS_statx, fd, c("").as_ptr(), flags, 0x7ff, words.as_mut_ptr());
        // mode, links, owner, group, size
        let [links, uid, gid, mode] = [words[4], words[5], words[6], words[7] & 0xffff];
        format!("{result}: {mode:o} {links} {uid} {gid} {}", words[10])
    };
    println!("{}", stat());
    sys::report_read("read", fd, 100);
    send(fd, "hello", 0);
    report("seek", sys!(libc::SYS_lseek, fd, 0, 0));
    sys::report_read("read", fd, 100);
    report("chmod", sys!(libc::SYS_fchmod, fd, 0o600));
    println!("{}", stat());
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    println!("{}", link.to_string_lossy().replace(name(), "NAME"));
    unlink(name());
    println!("{}", stat());
}
