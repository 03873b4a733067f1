//! Bytes on connections.

use super::{
    LOCAL6, accept, bind, connect, listen, listener, option, pair, poll, port, receive, send,
    set_nonblocking, set_option, tcp, tcp6, until, up, v6,
};
use crate::sys::{self, close, fork, report, report_read, wait, write};

fn talk(client: i64, server: i64, address: &[u8]) {
    let pid = fork(|| {
        let accepted = accept(server);
        let request = sys::read(accepted, 20).1;
        write(accepted, b"answer");
        i32::from(request != b"request" || sys::read(accepted, 20).1 != b"more")
    });
    report("connect", connect(client, address));
    report("write", write(client, b"request"));
    report_read("answer", client, 20);
    report("write", write(client, b"more"));
    println!("{}", wait(pid));
    report_read("end", client, 20);
}

pub(super) fn echo() {
    let (server, address) = listener(1);
    talk(tcp(), server, &address);
}

pub(super) fn echo_v6() {
    up();
    let server = tcp6();
    report("bind", bind(server, &v6(LOCAL6, 0)));
    report("listen", listen(server, 1));
    talk(tcp6(), server, &v6(LOCAL6, port(server)));
}

pub(super) fn flags() {
    let (a, b, _) = pair();
    receive("nothing", b, 10, libc::MSG_DONTWAIT);
    report("send", send(a, b"hello world", 0));
    receive("peek", b, 5, libc::MSG_PEEK);
    receive("peek again", b, 50, libc::MSG_PEEK);
    receive("read", b, 6, 0);
    report("thrown away", sys!(libc::SYS_recvfrom, b, 0, 3, libc::MSG_TRUNC, 0, 0));
    receive("rest", b, 10, 0);
    report("nothing sent", send(a, b"", 0));
    receive("nothing", b, 10, libc::MSG_DONTWAIT);
    report("sent", send(a, b"x", 0));
    receive("nothing wanted", b, 0, 0);
    receive("nothing wanted, waiting for all", b, 0, libc::MSG_WAITALL);
    let pid = fork(|| {
        write(a, b"two");
        write(a, b"three");
        0
    });
    receive("all", b, 9, libc::MSG_WAITALL);
    println!("{}", wait(pid));
    report("unknown flag", send(a, b"y", 0x0800_0000));
    receive("unknown flag", b, 5, 0x0080_0000);
    report("more follows", send(a, b"z", libc::MSG_MORE));
    report("it does", send(a, b"z", 0));
    until(b, libc::POLLIN);
    receive("both", b, 5, 0);
    report("from nowhere", sys!(libc::SYS_sendto, a, 8, 10, libc::MSG_NOSIGNAL, 0, 0));
    report("sent", send(a, b"kept", 0));
    report("to nowhere", sys!(libc::SYS_recvfrom, b, 8, 10, 0, 0, 0));
    receive("still there", b, 10, libc::MSG_DONTWAIT);
}

pub(super) fn vectors() {
    let (a, b, _) = pair();
    let (one, two) = (*b"one", *b"two");
    let vectors = [one.as_ptr() as u64, 3, 0, 0, two.as_ptr() as u64, 3];
    report("writev", sys!(libc::SYS_writev, a, vectors.as_ptr(), 3));
    let message = [0_u64, 0, vectors.as_ptr() as u64, 3, 0, 0, 0];
    report("sendmsg", sys!(libc::SYS_sendmsg, a, message.as_ptr(), 0));
    let mut got = [[b'.'; 5]; 3];
    let into: Vec<u64> = got.iter_mut().flat_map(|part| [part.as_mut_ptr() as u64, 5]).collect();
    let mut name = [7_u8; 16];
    let mut message = [name.as_mut_ptr() as u64, 16, into.as_ptr() as u64, 2, 0, 0, 0xff];
    report("recvmsg", sys!(libc::SYS_recvmsg, b, message.as_mut_ptr(), 0));
    println!("{:?} {:?} name {} flags {:#x}", got[0], got[1], message[1], message[6]);
    report("readv", sys!(libc::SYS_readv, b, into.as_ptr(), 3));
    println!("{got:?}");
    let headers = [0_u64, 0, vectors.as_ptr() as u64, 1, 0, 0, 0, 0];
    let mut two = [headers, headers].concat();
    report("sendmmsg", sys!(libc::SYS_sendmmsg, a, two.as_mut_ptr(), 2, 0));
    println!("{} {}", two[7], two[15]);
    receive("both", b, 20, 0);
    let bad = [0_u64, 0, vectors.as_ptr() as u64, 2000, 0, 0, 0];
    report("too many", sys!(libc::SYS_sendmsg, a, bad.as_ptr(), 0));
    let control = [24_u64, 1 << 32, 5, 0];
    let strange = [0_u64, 0, vectors.as_ptr() as u64, 1, control.as_ptr() as u64, 24, 0];
    report("a control message of IP", sys!(libc::SYS_sendmsg, a, strange.as_ptr(), 0));
    let control = [20_u64, 1 | 1 << 32, 0, 0];
    let files = [0_u64, 0, vectors.as_ptr() as u64, 1, control.as_ptr() as u64, 24, 0];
    report("files", sys!(libc::SYS_sendmsg, a, files.as_ptr(), 0));
    let control = [16_u64, 1 | 99 << 32, 0, 0];
    let unknown = [0_u64, 0, vectors.as_ptr() as u64, 1, control.as_ptr() as u64, 16, 0];
    report("unknown", sys!(libc::SYS_sendmsg, a, unknown.as_ptr(), 0));
}

/// What lies at `at` of what is sent in tests of much.
fn byte(at: usize) -> u8 {
    (at % 251) as u8
}

pub(super) fn much() {
    const ALL: usize = 6 << 20;
    let (a, b, _) = pair();
    let pid = fork(|| {
        close(b);
        let bytes: Vec<u8> = (0..ALL).map(byte).collect();
        let (mut done, mut step) = (0, 1);
        while done < ALL {
            let end = ALL.min(done + step * 7919 % 300_000 + 1);
            let count = write(a, &bytes[done..end]);
            if count <= 0 {
                report("write", count);
                return 1;
            }
            done += count as usize;
            step += 1;
        }
        0
    });
    close(a);
    let (mut done, mut wrong, mut step) = (0, 0, 1);
    loop {
        let (count, bytes) = sys::read(b, step * 104_729 % 200_000 + 1);
        if count <= 0 {
            report("the end", count);
            break;
        }
        wrong += bytes.iter().enumerate().filter(|(i, got)| **got != byte(done + i)).count();
        done += bytes.len();
        step += 1;
    }
    println!("{done} bytes, {wrong} wrong, {}", wait(pid));
}

pub(super) fn full() {
    for (name, at) in [(libc::SO_SNDBUF, 0), (libc::SO_RCVBUF, 1), (0, 0)] {
        let (a, b, _) = pair();
        if name != 0 {
            report("set", set_option([a, b][at], libc::SOL_SOCKET, name, 20_000));
        }
        set_nonblocking(a, true);
        let all = vec![b'x'; 1 << 20];
        let mut taken = 0;
        let end = loop {
            match send(a, &all, 0) {
                got if got > 0 => taken += got,
                end => break end,
            }
        };
        println!("more than 20000 {}, then {}", taken > 20_000, sys::show(end));
        poll("full", a);
        poll("to be read", b);
        report("write", write(a, b"x"));
        let mut got = 0;
        while got < taken {
            let (count, _) = sys::read(b, 1 << 20);
            if count <= 0 {
                report("read", count);
                break;
            }
            got += count;
        }
        until(a, libc::POLLOUT);
        poll("empty", a);
        poll("empty", b);
    }
}

pub(super) fn ready() {
    poll("fresh", tcp());
    let (server, address) = listener(2);
    poll("listening", server);
    let client = tcp();
    report("connect", connect(client, &address));
    poll("to be accepted", server);
    poll("connected", client);
    let accepted = accept(server);
    poll("accepted all", server);
    poll("accepted", accepted);
    write(client, b"12345");
    until(accepted, libc::POLLIN);
    poll("to be read", accepted);
    report("least", set_option(accepted, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 10));
    poll("not enough", accepted);
    write(client, b"12345");
    until(accepted, libc::POLLIN);
    poll("enough", accepted);
    report_read("read", accepted, 20);
    close(client);
    until(accepted, libc::POLLRDHUP);
    poll("peer gone", accepted);
    report("write", write(accepted, b"x"));
    until(accepted, libc::POLLERR);
    poll("reset", accepted);
    println!("{}", super::pending_error(accepted));
    poll("told", accepted);
}

/// Waits on an epoll instance with one descriptor, a moment, and says what is reported.
fn event(what: &str, epoll: i64, patience: i64) {
    let mut events = [0_u8; 64];
    let result = sys!(libc::SYS_epoll_pwait, epoll, events.as_mut_ptr(), 4, patience, 0, 8);
    let bits = u32::from_ne_bytes([events[0], events[1], events[2], events[3]]);
    println!("{what}: {} {bits:#x}", sys::show(result));
}

pub(super) fn edges() {
    let (a, b, server) = pair();
    for once in [false, true] {
        let epoll = sys!(libc::SYS_epoll_create1, 0);
        let all = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let asked = (all | if once { libc::EPOLLONESHOT } else { 0 }) as u32;
        let request = libc::epoll_event { events: asked, u64: 0 };
        report("add", sys!(libc::SYS_epoll_ctl, epoll, libc::EPOLL_CTL_ADD, b, &raw const request));
        event("at first", epoll, 0);
        event("nothing new", epoll, 0);
        write(a, b"one");
        event("data", epoll, if once { 0 } else { 1000 });
        event("nothing new", epoll, 0);
        write(a, b"two");
        event("more data", epoll, if once { 0 } else { 1000 });
        report("again", sys!(libc::SYS_epoll_ctl, epoll, libc::EPOLL_CTL_MOD, b, &raw const request));
        event("asked again", epoll, 0);
        report_read("read", b, 2);
        event("some is left", epoll, 0);
        report_read("read", b, 20);
        close(epoll);
    }
    let epoll = sys!(libc::SYS_epoll_create1, 0);
    let request = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
    report("add", sys!(libc::SYS_epoll_ctl, epoll, libc::EPOLL_CTL_ADD, server, &raw const request));
    event("nobody", epoll, 0);
    let address = super::v4(super::LOCAL, port(server));
    report("connect", connect(tcp(), &address));
    event("one", epoll, 1000);
    event("nothing new", epoll, 0);
    report("connect", connect(tcp(), &address));
    event("another", epoll, 1000);
    let epoll = sys!(libc::SYS_epoll_create1, 0);
    let asked = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
    let request = libc::epoll_event { events: asked, u64: 0 };
    report("add", sys!(libc::SYS_epoll_ctl, epoll, libc::EPOLL_CTL_ADD, b, &raw const request));
    event("quiet", epoll, 0);
    super::shutdown(a, libc::SHUT_WR);
    event("half closed", epoll, 1000);
    close(a);
    event("closed", epoll, 0);
}

pub(super) fn timeouts() {
    let (a, b, server) = pair();
    let timeout = |fd: i64, name: i32| {
        let time = [0_i64, 30_000];
        report("timeout", sys!(libc::SYS_setsockopt, fd, libc::SOL_SOCKET, name, time.as_ptr(), 16));
    };
    timeout(b, libc::SO_RCVTIMEO);
    timeout(server, libc::SO_RCVTIMEO);
    timeout(a, libc::SO_SNDTIMEO);
    report("read", sys::read(b, 4).0);
    receive("receive", b, 4, 0);
    receive("receive", b, 4, libc::MSG_WAITALL);
    report("accept", accept(server));
    while send(a, &[0; 1 << 16], libc::MSG_DONTWAIT) > 0 {}
    report("write", write(a, b"x"));
    let (a, b, _) = pair();
    timeout(b, libc::SO_RCVTIMEO);
    write(a, b"some");
    receive("what there is", b, 10, libc::MSG_WAITALL);
    println!("{}", sys::show(option(b, libc::SOL_SOCKET, libc::SO_RCVTIMEO)));
}

pub(super) fn blocked() {
    // A reader is woken by data, by the end, by shutdown from beside it; a writer by room.
    let (a, b, server) = pair();
    let pid = fork(|| {
        report_read("data", b, 10);
        report_read("end", b, 10);
        0
    });
    sys::until_asleep(pid, pid);
    write(a, b"data");
    sys::until_asleep(pid, pid);
    super::shutdown(a, libc::SHUT_WR);
    println!("{}", wait(pid));
    let (_a, b, _) = pair();
    let pid = fork(|| {
        report_read("shut from beside", b, 10);
        0
    });
    sys::until_asleep(pid, pid);
    super::shutdown(b, libc::SHUT_RD);
    println!("{}", wait(pid));
    let (a, b, _) = pair();
    let pid = fork(|| {
        let mut all = 0;
        while all < 8 << 20 {
            all += write(a, &[0; 1 << 18]).max(1 << 10);
        }
        println!("wrote all");
        0
    });
    let mut got = 0;
    while got < 8 << 20 {
        let count = sys::read(b, 1 << 16).0;
        if count <= 0 {
            report("read", count);
            break;
        }
        got += count;
    }
    println!("{}", wait(pid));
    let pid = fork(|| {
        report("accept", accept(server));
        0
    });
    sys::until_asleep(pid, pid);
    super::shutdown(server, libc::SHUT_RDWR);
    println!("{}", wait(pid));
}

pub(super) fn sendfile() {
    sys::scratch("inet");
    let file = sys::open("data", libc::O_RDWR | libc::O_CREAT, 0o600);
    write(file, &[b'f'; 100_000]);
    let (a, b, _) = pair();
    let mut offset = 10_i64;
    report("sendfile", sys!(libc::SYS_sendfile, a, file, &raw mut offset, 50_000));
    println!("{offset}");
    let mut got = 0;
    while got < 50_000 {
        got += sys::read(b, 50_000).0.max(1);
    }
    println!("{got}");
    let (read_end, write_end) = sys::pipe(0);
    write(write_end, b"spliced");
    report("into a socket", sys!(libc::SYS_splice, read_end, 0, a, 0, 7, 0));
    report_read("read", b, 20);
    write(a, b"back");
    report("out of a socket", sys!(libc::SYS_splice, b, 0, write_end, 0, 20, 0));
    report_read("read", read_end, 20);
    report("seek", sys!(libc::SYS_lseek, a, 0, 0));
    report("pread", sys!(libc::SYS_pread64, a, [0_u8; 4].as_ptr(), 4, 0));
    report("pwrite", sys!(libc::SYS_pwrite64, a, [0_u8; 4].as_ptr(), 4, 0));
    report("truncate", sys!(libc::SYS_ftruncate, a, 0));
    report("sync", sys!(libc::SYS_fsync, a));
    sys::unscratch();
}
