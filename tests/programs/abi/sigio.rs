//! Signals when a file becomes ready: F_SETOWN, F_SETSIG, O_ASYNC and their other names.

use crate::Case;
use crate::sys::{self, close, fork, handle, pipe, report, wait, write};
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering::SeqCst};

pub(crate) const CASES: &[Case] = &[
    ("sigio_owner", owner),
    ("sigio_owner_gone", owner_gone),
    ("sigio_flag", flag),
    ("sigio_socket", socket),
    ("sigio_socket_room", socket_room),
    ("sigio_socket_listener", socket_listener),
    ("sigio_pipe", pipe_ends),
    ("sigio_codes", codes),
    ("sigio_descriptor", descriptor),
    ("sigio_queue_full", queue_full),
    ("sigio_thread_and_group", thread_and_group),
    ("sigio_permission", permission),
    ("sigio_closed", closed),
];

const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;
const F_SETOWN_EX: i32 = 15;
const F_GETOWN_EX: i32 = 16;
const REAL_TIME: i32 = 36;

static COUNT: AtomicI32 = AtomicI32::new(0);
static SIGNAL: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static BAND: AtomicI64 = AtomicI64::new(0);
static FD: AtomicI64 = AtomicI64::new(0);

extern "C" fn note(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let (_, code, _, _, fd) = sys::info_fields(info);
    COUNT.fetch_add(1, SeqCst);
    SIGNAL.store(signal, SeqCst);
    CODE.store(code, SeqCst);
    BAND.store(sys::info_address(info), SeqCst);
    FD.store(fd & 0xffff_ffff, SeqCst);
}

/// What came since the last time; of the last one what is known, where a file says it.
fn came(what: &str, fd: i64) {
    let (count, signal, code) = (COUNT.swap(0, SeqCst), SIGNAL.swap(0, SeqCst), CODE.swap(0, SeqCst));
    let about = if signal != libc::SIGCHLD && (1..=6).contains(&code) {
        format!(", band {:#x}, right descriptor {}", BAND.load(SeqCst), FD.load(SeqCst) == fd)
    } else {
        String::new()
    };
    println!("{what}: {count}, signal {signal} code {code}{about}");
}

fn fcntl(fd: i64, command: i32, value: i64) -> i64 {
    sys!(libc::SYS_fcntl, fd, command, value)
}

fn ioctl(fd: i64, request: u64, value: i32) -> (i64, i32) {
    let mut value = value;
    let result = sys!(libc::SYS_ioctl, fd, request, &raw mut value);
    (result, value)
}

fn drive(fd: i64, on: bool) -> i64 {
    ioctl(fd, libc::FIOASYNC, i32::from(on)).0
}

fn pid() -> i64 {
    sys!(libc::SYS_getpid)
}

fn socketpair(kind: i32) -> (i64, i64) {
    let mut fds = [-1_i32; 2];
    report("socketpair", sys!(libc::SYS_socketpair, libc::AF_UNIX, kind, 0, fds.as_mut_ptr()));
    (i64::from(fds[0]), i64::from(fds[1]))
}

/// Has this program told of `fd` by `signal`.
fn own(fd: i64, signal: i32) {
    report("F_SETOWN", fcntl(fd, libc::F_SETOWN, pid()));
    report("F_SETSIG", fcntl(fd, F_SETSIG, signal.into()));
    report("FIOASYNC", drive(fd, true));
}

fn handle_all() {
    for signal in [libc::SIGIO, REAL_TIME, libc::SIGUSR1, libc::SIGCHLD] {
        handle(signal, note, libc::SA_RESTART);
    }
}

fn owner() {
    let (a, _) = socketpair(libc::SOCK_STREAM);
    sys!(libc::SYS_setpgid, 0, 0);
    let group = sys!(libc::SYS_getpgid, 0);
    println!("fresh {} {}", fcntl(a, libc::F_GETOWN, 0), fcntl(a, F_GETSIG, 0));
    report("set", fcntl(a, libc::F_SETOWN, pid()));
    println!("is {}", fcntl(a, libc::F_GETOWN, 0) == pid());
    report("nobody there", fcntl(a, libc::F_SETOWN, 0x3f_ff00));
    report("no group there", fcntl(a, libc::F_SETOWN, -0x3f_ff00));
    report("the least", fcntl(a, libc::F_SETOWN, i64::from(i32::MIN)));
    report("group", fcntl(a, libc::F_SETOWN, -group));
    let mut both = [-1_i32; 2];
    report("F_GETOWN_EX", fcntl(a, F_GETOWN_EX, both.as_mut_ptr() as i64));
    println!("kind {} right {}", both[0], i64::from(both[1]) == group);
    for kind in [0, 1, 2, 3, -1] {
        let id = if kind == 2 { group } else { pid() };
        let both = [kind, id as i32];
        report("F_SETOWN_EX", fcntl(a, F_SETOWN_EX, both.as_ptr() as i64));
        let owner = fcntl(a, libc::F_GETOWN, 0);
        println!("kind {kind}: {}", owner == pid() || owner == -group);
    }
    for signal in [0, 1, 64, 65, -1] {
        report("F_SETSIG", fcntl(a, F_SETSIG, signal));
        println!("is {}", fcntl(a, F_GETSIG, 0));
    }
    // The other names, of sockets only.
    const FIOSETOWN: u64 = 0x8901;
    const SIOCSPGRP: u64 = 0x8902;
    const FIOGETOWN: u64 = 0x8903;
    const SIOCGPGRP: u64 = 0x8904;
    for (set, get) in [(FIOSETOWN, FIOGETOWN), (SIOCSPGRP, SIOCGPGRP)] {
        report("set", ioctl(a, set, pid() as i32).0);
        let (result, id) = ioctl(a, get, 0);
        println!("get {result} right {}", i64::from(id) == pid());
        report("of a pipe", ioctl(pipe(0).0, get, 0).0);
        report("for nobody", ioctl(a, set, 0x3f_ff00).0);
    }
    report("reset", fcntl(a, libc::F_SETOWN, 0));
    println!("is {}", fcntl(a, libc::F_GETOWN, 0));
}

fn owner_gone() {
    let (a, b) = socketpair(libc::SOCK_STREAM);
    let (reader, writer) = pipe(0);
    let child = fork(|| {
        sys::read(reader, 1);
        0
    });
    report("F_SETOWN", fcntl(a, libc::F_SETOWN, child));
    println!("is {}", fcntl(a, libc::F_GETOWN, 0) == child);
    report("FIOASYNC", drive(a, true));
    write(writer, b"x");
    println!("{}", wait(child));
    println!("is {}", fcntl(a, libc::F_GETOWN, 0));
    report("to nobody", write(b, b"x"));
}

fn flag() {
    let (reader, _) = pipe(0);
    let shown = |fd| fcntl(fd, libc::F_GETFL, 0) & i64::from(libc::O_ASYNC) != 0;
    report("F_SETFL", fcntl(reader, libc::F_SETFL, libc::O_ASYNC.into()));
    println!("on {}", shown(reader));
    report("off", drive(reader, false));
    println!("on {}", shown(reader));
    report("on", drive(reader, true));
    println!("on {}", shown(reader));
    report("F_SETFL", fcntl(reader, libc::F_SETFL, libc::O_NONBLOCK.into()));
    println!("on {}", shown(reader));
    let file = sys::open("/proc/self/exe", 0, 0);
    let event = sys!(libc::SYS_eventfd2, 0, 0);
    for fd in [file, event] {
        report("what sends none", drive(fd, true));
        report("off", drive(fd, false));
        report("by F_SETFL", fcntl(fd, libc::F_SETFL, libc::O_ASYNC.into()));
        println!("on {}", shown(fd));
    }
}

fn socket() {
    handle_all();
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        let (a, b) = socketpair(kind);
        report("without an owner", drive(a, true));
        write(b, b"x");
        came("nobody", a);
        own(a, 0);
        write(b, b"x");
        came("written", a);
        write(b, b"x");
        came("once more", a);
        fcntl(a, F_SETSIG, REAL_TIME.into());
        write(b, b"x");
        came("by a signal that says more", a);
        write(a, b"own");
        came("what it sends itself", a);
        sys::read(a, 1);
        came("what it reads", a);
        report("off", drive(a, false));
        write(b, b"x");
        came("off", a);
        report("on", drive(a, true));
        if kind == libc::SOCK_STREAM {
            report("half closed", sys!(libc::SYS_shutdown, b, libc::SHUT_WR));
            came("half closed", a);
        }
        close(b);
        came("the other end has gone", a);
    }
}

fn socket_room() {
    handle_all();
    let (a, b) = socketpair(libc::SOCK_STREAM);
    own(a, REAL_TIME);
    fcntl(a, libc::F_SETFL, (libc::O_NONBLOCK | libc::O_ASYNC).into());
    fcntl(b, libc::F_SETFL, libc::O_NONBLOCK.into());
    write(a, b"x");
    sys::read(b, 1);
    came("room all the time", a);
    while write(a, &[0; 4096]) > 0 {}
    came("full", a);
    sys::read(b, 4096);
    came("a little read", a);
    while sys::read(b, 1 << 16).0 > 0 {}
    came("all read", a);
}

fn socket_listener() {
    handle_all();
    let server = sys!(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0);
    let name = format!("\0sigio-{}", pid());
    let address = [&(libc::AF_UNIX as u16).to_ne_bytes(), name.as_bytes()].concat();
    report("bind", sys!(libc::SYS_bind, server, address.as_ptr(), address.len()));
    report("listen", sys!(libc::SYS_listen, server, 5));
    own(server, REAL_TIME);
    let client = sys!(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0);
    report("connect", sys!(libc::SYS_connect, client, address.as_ptr(), address.len()));
    came("somebody calls", server);
}

fn pipe_ends() {
    handle_all();
    let (reader, writer) = pipe(0);
    own(reader, REAL_TIME);
    write(writer, b"one");
    came("written", reader);
    write(writer, b"two");
    came("again", reader);
    own(writer, REAL_TIME);
    sys::read(reader, 2);
    came("read", writer);
    report("off", drive(reader, false));
    close(reader);
    came("the reader has gone", writer);
    let (reader, writer) = pipe(0);
    own(reader, REAL_TIME);
    close(writer);
    came("the writer has gone", reader);
}

fn codes() {
    handle_all();
    let (a, b) = socketpair(libc::SOCK_STREAM);
    own(a, 0);
    for signal in [0, libc::SIGIO, libc::SIGUSR1, libc::SIGCHLD, REAL_TIME] {
        fcntl(a, F_SETSIG, signal.into());
        write(b, b"x");
        came("written", a);
    }
    // Read instead of handled.
    let set = sys::set_of(&[REAL_TIME]);
    sys::mask(libc::SIG_BLOCK, set);
    let signals = sys!(libc::SYS_signalfd4, -1, &raw const set, 8, 0);
    write(b, b"x");
    let bytes = sys::read(signals, 128).1;
    let word = |at: usize| i32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    println!("{} code {} right {} band {:#x}", word(0), word(8), i64::from(word(20)) == a, word(28));
}

fn descriptor() {
    handle_all();
    let (reader, writer) = pipe(0);
    let copy = sys!(libc::SYS_dup, reader);
    own(copy, REAL_TIME);
    write(writer, b"x");
    came("the number it was switched on by", copy);
    report("by the other", drive(reader, true));
    write(writer, b"x");
    came("the first one stays", copy);
    close(copy);
    write(writer, b"x");
    came("though it is closed", copy);
}

fn queue_full() {
    let (a, b) = socketpair(libc::SOCK_STREAM);
    own(a, REAL_TIME);
    sys::mask(libc::SIG_BLOCK, sys::set_of(&[REAL_TIME, libc::SIGIO]));
    let set = sys::set_of(&[libc::SIGIO]);
    let pending = || {
        let mut pending = 0_u64;
        sys!(libc::SYS_rt_sigpending, &raw mut pending, 8);
        pending & set != 0
    };
    write(b, b"x");
    println!("SIGIO {}", pending());
    // As many as the user may have, on whatever machine.
    let mut limit = [0_u64; 2];
    sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_SIGPENDING, 0, limit.as_mut_ptr());
    let few = [4_u64, limit[1]];
    sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_SIGPENDING, few.as_ptr(), 0);
    for _ in 0..5000 {
        if pending() {
            break;
        }
        write(b, b"x");
        sys::read(a, 1);
    }
    println!("SIGIO {}", pending());
}

fn thread_and_group() {
    handle_all();
    let (a, b) = socketpair(libc::SOCK_STREAM);
    own(a, REAL_TIME);
    let thread = sys!(libc::SYS_gettid) as i32;
    let both = [0, thread];
    report("thread", fcntl(a, F_SETOWN_EX, both.as_ptr() as i64));
    write(b, b"x");
    came("thread", a);
    let (reader, writer) = pipe(0);
    let child = fork(|| {
        sys!(libc::SYS_setpgid, 0, 0);
        write(writer, b"r");
        while COUNT.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        came("in the group", a);
        0
    });
    sys::read(reader, 1);
    report("group", fcntl(a, libc::F_SETOWN, -child));
    write(b, b"x");
    println!("{}", wait(child));
    came("not in the group", a);
}

fn permission() {
    handle_all();
    let (a, b) = socketpair(libc::SOCK_STREAM);
    let parent = pid();
    sys::in_child("another user", || {
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        report("F_SETOWN", fcntl(a, libc::F_SETOWN, parent));
        report("F_SETSIG", fcntl(a, F_SETSIG, REAL_TIME.into()));
        report("FIOASYNC", drive(a, true));
        report("write", write(b, b"x"));
        0
    });
    came("not to those it may not signal", a);
}

fn closed() {
    handle_all();
    let (reader, writer) = pipe(0);
    own(reader, REAL_TIME);
    let copy = sys!(libc::SYS_dup, reader);
    close(reader);
    write(writer, b"x");
    came("one of two closed", reader);
    close(copy);
    handle(libc::SIGPIPE, note, 0);
    write(writer, b"x");
    came("all closed", reader);
}
