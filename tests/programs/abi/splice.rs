//! Bytes moved between descriptors: how much at once, what waits, and for whom it stops.

use crate::Case;
use crate::sys::{self, close, fork, pipe, report, wait, write};

pub(crate) const CASES: &[Case] = &[
    ("splice_into_pipe", into_pipe),
    ("splice_out_of_pipe", out_of_pipe),
    ("splice_between_pipes", between_pipes),
    ("splice_tee", tee_cases),
    ("splice_interrupted", interrupted),
    ("splice_sockets", sockets),
    ("splice_targets", targets),
    ("splice_arguments", arguments),
    ("splice_sendfile", sendfile_cases),
    ("splice_nobody_reads", nobody_reads),
    ("splice_order", order),
];

const NONBLOCK: u32 = libc::SPLICE_F_NONBLOCK;

fn splice(from: i64, to: i64, len: usize, flags: u32) -> i64 {
    sys!(libc::SYS_splice, from, 0, to, 0, len, flags)
}

fn tee(from: i64, to: i64, len: usize, flags: u32) -> i64 {
    sys!(libc::SYS_tee, from, to, len, flags)
}

fn waiting(fd: i64) -> i32 {
    let mut count = 0_i32;
    sys!(libc::SYS_ioctl, fd, libc::FIONREAD, &raw mut count);
    count
}

/// More than a pipe has room for. (Not every Linux splices from /dev/zero.)
fn zero() -> i64 {
    file(2 << 20)
}

fn null() -> i64 {
    sys::open("/dev/null", libc::O_WRONLY, 0)
}

/// A file of `len` bytes, each the low byte of its place.
fn file(len: usize) -> i64 {
    let fd = sys!(libc::SYS_memfd_create, c"splice".as_ptr(), 0);
    let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
    report("file", write(fd, &bytes));
    sys!(libc::SYS_lseek, fd, 0, libc::SEEK_SET);
    fd
}

fn socketpair(kind: i32) -> (i64, i64) {
    let mut fds = [-1_i32; 2];
    sys!(libc::SYS_socketpair, libc::AF_UNIX, kind, 0, fds.as_mut_ptr());
    (i64::from(fds[0]), i64::from(fds[1]))
}

/// Has a signal come once this thread sleeps, and says what became of the call.
fn until_signal(what: &str, call: impl FnOnce() -> i64) {
    extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    sys::handle(libc::SIGUSR1, nothing, 0);
    let (pid, tid) = (sys!(libc::SYS_getpid), sys!(libc::SYS_gettid));
    let child = fork(|| {
        sys::until_asleep(pid, tid);
        sys!(libc::SYS_kill, pid, libc::SIGUSR1);
        0
    });
    let result = call();
    report(what, result);
    // A wait that was interrupted, too, is not the subject.
    while sys::wait4(child, 0).0 < 0 {}
}

fn into_pipe() {
    let (reader, writer) = pipe(0);
    report("all there is room for", splice(zero(), writer, 1 << 20, 0));
    report("no room", splice(zero(), writer, 1, NONBLOCK));
    println!("{} bytes", waiting(reader));
    report("read", sys::read(reader, 8192).0);
    report("room again", splice(zero(), writer, 1 << 20, 0));
    let (reader, writer) = pipe(0);
    let source = file(10_000);
    let mut offset = 9_990_i64;
    report("the end", sys!(libc::SYS_splice, source, &raw mut offset, writer, 0, 100, 0));
    println!("offset {offset}, position {}", sys!(libc::SYS_lseek, source, 0, libc::SEEK_CUR));
    report("behind it", sys!(libc::SYS_splice, source, &raw mut offset, writer, 0, 100, 0));
    report("at the position", splice(source, writer, 5, 0));
    println!("position {}", sys!(libc::SYS_lseek, source, 0, libc::SEEK_CUR));
    println!("{:?}", sys::read(reader, 100).1);
}

fn out_of_pipe() {
    let (reader, writer) = pipe(0);
    let target = file(0);
    write(writer, b"hello");
    report("what is there", splice(reader, target, 1 << 20, 0));
    report("nothing", splice(reader, target, 10, NONBLOCK));
    let mut offset = 2_i64;
    write(writer, b"y");
    report("at an offset", sys!(libc::SYS_splice, reader, 0, target, &raw mut offset, 10, 0));
    println!("offset {offset}, position {}", sys!(libc::SYS_lseek, target, 0, libc::SEEK_CUR));
    sys!(libc::SYS_lseek, target, 0, libc::SEEK_SET);
    println!("{:?}", sys::read(target, 100).1);
    let pid = fork(|| {
        let parent = sys!(libc::SYS_getppid);
        sys::until_asleep(parent, parent);
        i32::from(write(writer, b"late") != 4)
    });
    report("after waiting", splice(reader, null(), 100, 0));
    println!("{}", wait(pid));
    close(writer);
    report("the end", splice(reader, null(), 100, 0));
}

fn between_pipes() {
    let ((reader, writer), (to_reader, to_writer)) = (pipe(0), pipe(0));
    report("nothing there", splice(reader, to_writer, 10, NONBLOCK));
    write(writer, b"abcdef");
    report("some", splice(reader, to_writer, 4, 0));
    println!("{} and {}", waiting(reader), waiting(to_reader));
    report("more than there is", splice(reader, to_writer, 100, 0));
    println!("{:?}", String::from_utf8_lossy(&sys::read(to_reader, 100).1));
    while write(to_writer, &[0; 4096]) == 4096 && waiting(to_reader) < 65_536 {}
    write(writer, b"kept");
    report("no room", splice(reader, to_writer, 4, NONBLOCK));
    println!("{} bytes stay", waiting(reader));
    close(writer);
    while splice(to_reader, null(), 1 << 16, NONBLOCK) > 0 {}
    report("the rest", splice(reader, to_writer, 100, 0));
    report("the end", splice(reader, to_writer, 100, 0));
}

fn tee_cases() {
    let ((reader, writer), (to_reader, to_writer)) = (pipe(0), pipe(0));
    report("nothing there", tee(reader, to_writer, 10, NONBLOCK));
    write(writer, b"abcdef");
    report("some", tee(reader, to_writer, 4, 0));
    report("all", tee(reader, to_writer, 100, 0));
    println!("{} and {}", waiting(reader), waiting(to_reader));
    println!("{:?}", String::from_utf8_lossy(&sys::read(to_reader, 100).1));
    report("into itself", tee(reader, writer, 4, 0));
    report("none", tee(reader, to_writer, 0, 0));
    report("flags", tee(reader, to_writer, 1, 32));
    report("no pipe", tee(file(10), to_writer, 4, 0));
    report("the wrong ends", tee(writer, to_reader, 4, 0));
    while waiting(to_reader) < 65_536 {
        write(to_writer, &[0; 4096]);
    }
    report("no room", tee(reader, to_writer, 4, NONBLOCK));
    until_signal("no room, with a signal", || tee(reader, to_writer, 4, 0));
    sys::read(reader, 100);
    until_signal("nothing there, with a signal", || tee(reader, to_writer, 4, 0));
    close(writer);
    while splice(to_reader, null(), 1 << 16, NONBLOCK) > 0 {}
    report("the end", tee(reader, to_writer, 4, 0));
}

fn interrupted() {
    let ((reader, writer), (to_reader, to_writer)) = (pipe(0), pipe(0));
    splice(zero(), writer, 1 << 20, 0);
    until_signal("into a full pipe", || splice(zero(), writer, 1, 0));
    until_signal("sendfile into a full pipe", || sys!(libc::SYS_sendfile, writer, file(10), 0, 10));
    until_signal("out of an empty pipe", || splice(to_reader, null(), 1, 0));
    until_signal("from an empty pipe", || splice(to_reader, writer, 1, 0));
    splice(zero(), to_writer, 1 << 20, 0);
    until_signal("from full to full", || splice(reader, to_writer, 1, 0));
    println!("{} bytes stay", waiting(reader));
}

fn sockets() {
    let ((a, b), (reader, writer)) = (socketpair(libc::SOCK_STREAM), pipe(0));
    write(b, b"data");
    report("from a socket", splice(a, writer, 100, 0));
    println!("{:?}", String::from_utf8_lossy(&sys::read(reader, 100).1));
    report("nothing there", splice(a, writer, 100, NONBLOCK));
    until_signal("nothing there, with a signal", || splice(a, writer, 100, 0));
    write(writer, b"there");
    report("to a socket", splice(reader, a, 100, 0));
    println!("{:?}", String::from_utf8_lossy(&sys::read(b, 100).1));
    close(b);
    report("the end", splice(a, writer, 100, 0));
}

fn targets() {
    let (reader, writer) = pipe(0);
    write(writer, b"12345678");
    sys::scratch("splice");
    let append = sys::open("append", libc::O_CREAT | libc::O_RDWR | libc::O_APPEND, 0o600);
    report("appending", splice(reader, append, 4, 0));
    let event = sys!(libc::SYS_eventfd2, 0, 0);
    report("an eventfd", splice(reader, event, 8, 0));
    report("from an eventfd", splice(event, writer, 8, NONBLOCK));
    println!("{} bytes stay", waiting(reader));
    report("no pipe", splice(file(10), null(), 4, 0));
    sys::unscratch();
}

fn arguments() {
    let (reader, writer) = pipe(0);
    let target = file(4);
    write(writer, b"12345678");
    let mut offset = 0_i64;
    report("none", splice(-1, -1, 0, 0));
    report("flags", splice(reader, target, 1, 64));
    report("a negative length", splice(reader, target, usize::MAX, 0));
    report("an offset in a pipe", sys!(libc::SYS_splice, reader, &raw mut offset, target, 0, 1, 0));
    report("an offset in the other", sys!(libc::SYS_splice, target, 0, writer, &raw mut offset, 1, 0));
    offset = -1;
    report("a negative offset", sys!(libc::SYS_splice, reader, 0, target, &raw mut offset, 1, 0));
    report("the wrong ends", splice(writer, target, 1, 0));
    report("a closed one", splice(99, writer, 1, 0));
    report("into itself", splice(reader, writer, 1, 0));
    println!("{} bytes stay", waiting(reader));
}

fn sendfile(to: i64, from: i64, offset: &mut i64, len: usize) -> i64 {
    sys!(libc::SYS_sendfile, to, from, std::ptr::from_mut(offset), len)
}

fn sendfile_cases() {
    let source = file(300_000);
    let (reader, writer) = pipe(0);
    let mut offset = 0;
    report("into a pipe", sendfile(writer, source, &mut offset, 300_000));
    println!("offset {offset}");
    sys!(libc::SYS_fcntl, writer, libc::F_SETFL, libc::O_NONBLOCK);
    report("no room", sendfile(writer, source, &mut offset, 1));
    report("a negative count", sys!(libc::SYS_sendfile, writer, source, 0, -1));
    report("from a pipe", sys!(libc::SYS_sendfile, null(), reader, 0, 10));
    report("between pipes", sys!(libc::SYS_sendfile, pipe(0).1, reader, 0, 10));
    let target = file(0);
    offset = 299_990;
    report("the end", sendfile(target, source, &mut offset, 100));
    report("behind it", sendfile(target, source, &mut offset, 100));
    report("by position", sys!(libc::SYS_sendfile, target, source, 0, 100_000));
    println!("position {}", sys!(libc::SYS_lseek, source, 0, libc::SEEK_CUR));
    println!("position {}", sys!(libc::SYS_lseek, target, 0, libc::SEEK_CUR));
    report("an eventfd", sys!(libc::SYS_sendfile, sys!(libc::SYS_eventfd2, 0, 0), source, 0, 8));
    // To a socket that takes what it can.
    let (a, b) = socketpair(libc::SOCK_STREAM);
    sys!(libc::SYS_fcntl, a, libc::F_SETFL, libc::O_NONBLOCK);
    offset = 0;
    let sent = sendfile(a, source, &mut offset, 300_000);
    println!("part {} offset follows {}", sent > 0 && sent < 300_000, offset == sent);
    report("full", sendfile(a, source, &mut offset, 300_000));
    sys!(libc::SYS_fcntl, a, libc::F_SETFL, 0);
    until_signal("full, with a signal", || sendfile(a, source, &mut 0, 10));
    let child = fork(|| {
        let mut all = 0;
        close(a);
        loop {
            match sys::read(b, 1 << 16) {
                (..=0, _) => break,
                (count, _) => all += count,
            }
        }
        println!("received {}", all == 300_000 + sent);
        0
    });
    close(b);
    offset = 0;
    report("all, as it is read", sendfile(a, source, &mut offset, 300_000));
    close(a);
    println!("{}", wait(child));
}

fn nobody_reads() {
    sys::action(libc::SIGPIPE, libc::SIG_IGN, 0, &[]);
    let ((reader, writer), (source, into)) = (pipe(0), pipe(0));
    write(into, b"kept");
    close(reader);
    report("splice", splice(zero(), writer, 10, 0));
    report("between pipes", splice(source, writer, 10, 0));
    report("tee", tee(source, writer, 10, 0));
    report("sendfile", sys!(libc::SYS_sendfile, writer, file(10), 0, 10));
    let (a, b) = socketpair(libc::SOCK_STREAM);
    close(b);
    report("a socket", splice(source, a, 10, 0));
    println!("{:?}", String::from_utf8_lossy(&sys::read(source, 10).1));
    sys::in_child("with its signal", || {
        sys::action(libc::SIGPIPE, libc::SIG_DFL, 0, &[]);
        splice(zero(), writer, 10, 0);
        0
    });
}

fn order() {
    // Through two pipes and a socket, with readers that take odd amounts: every byte arrives once, in order.
    let ((r1, w1), (r2, w2), (a, b)) = (pipe(0), pipe(0), socketpair(libc::SOCK_STREAM));
    let source = file(200_000);
    let first = fork(|| {
        while splice(source, w1, 7919, 0) > 0 {}
        0
    });
    close(w1);
    let second = fork(|| {
        while splice(r1, w2, 4001, 0) > 0 {}
        0
    });
    close(w2);
    let third = fork(|| {
        close(b);
        while splice(r2, a, 10_007, 0) > 0 {}
        0
    });
    close(a);
    let (mut at, mut right) = (0_usize, true);
    loop {
        let (count, bytes) = sys::read(b, 3001);
        if count <= 0 {
            break;
        }
        right &= bytes.iter().enumerate().all(|(index, byte)| usize::from(*byte) == (at + index) % 251);
        at += bytes.len();
    }
    println!("{at} bytes, right {right}");
    println!("{} {} {}", wait(first), wait(second), wait(third));
}
