//! What goes along with messages: descriptors and who sent them.

use super::room::{option, set_option};
use super::{connect, named, receive, socket, socketpair};
use crate::sys::{self, close, fork, report, wait, write};

const RIGHTS: i32 = 1;
const CREDENTIALS: i32 = 2;

/// One control message, padded.
fn control(kind: i32, data: &[i32]) -> Vec<u8> {
    let mut all = (16 + 4 * data.len() as u64).to_ne_bytes().to_vec();
    all.extend(libc::SOL_SOCKET.to_ne_bytes());
    all.extend(kind.to_ne_bytes());
    all.extend(data.iter().flat_map(|word| word.to_ne_bytes()));
    all.resize(all.len().next_multiple_of(8), 0);
    all
}

fn send_with(fd: i64, bytes: &[u8], control: &[u8]) -> i64 {
    let vector = [bytes.as_ptr() as u64, bytes.len() as u64];
    let message = [0, 0, vector.as_ptr() as u64, 1, control.as_ptr() as u64, control.len() as u64, 0];
    sys!(libc::SYS_sendmsg, fd, message.as_ptr(), libc::MSG_DONTWAIT)
}

/// Sends a byte from who somebody says he is.
pub(crate) fn claim(fd: i64, pid: i32, uid: i32, gid: i32) -> i64 {
    send_with(fd, b"c", &control(CREDENTIALS, &[pid, uid, gid]))
}

fn send_files(fd: i64, files: &[i64]) -> i64 {
    let files: Vec<i32> = files.iter().map(|fd| *fd as i32).collect();
    send_with(fd, b"f", &control(RIGHTS, &files))
}

/// Receives with `room` bytes for control messages, and shows what came; descriptors are closed.
pub(crate) fn receive_with(what: &str, fd: i64, room: usize, flags: i32) {
    let (mut bytes, mut control) = ([0_u8; 64], [0_u64; 64]);
    let vector = [bytes.as_mut_ptr() as u64, bytes.len() as u64];
    let at = if room == 0 { 0 } else { control.as_mut_ptr() as u64 };
    let mut message = [0, 0, vector.as_ptr() as u64, 1, at, room as u64, 0];
    let result = sys!(libc::SYS_recvmsg, fd, message.as_mut_ptr(), flags | libc::MSG_DONTWAIT);
    print!("{what}: {} flags {:#x} control {}", sys::show(result), message[6] as u32, message[5]);
    let raw: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let word = |at: usize| i32::from_ne_bytes(raw[at..at + 4].try_into().expect("four bytes"));
    let mut at = 0;
    while result >= 0 && at + 16 <= message[5] as usize {
        let (len, kind) = (word(at) as usize, word(at + 12));
        let words: Vec<i32> =
            (at + 16..at + len).step_by(4).take_while(|at| at + 4 <= 512).map(word).collect();
        match kind {
            RIGHTS => {
                print!(", {} files of {len}", words.len());
                words.iter().for_each(|fd| {
                    close((*fd).into());
                });
            }
            _ => {
                let own = words.first().is_some_and(|pid| i64::from(*pid) == sys!(libc::SYS_getpid));
                // Numbers vary, but for those of nobody and of the first process.
                let pid = match words.first() {
                    Some(_) if own => "itself".to_owned(),
                    Some(2..) => "another".to_owned(),
                    other => format!("{other:?}"),
                };
                print!(", from {pid} {:?} of {len}", words.get(1..));
            }
        }
        at += len.next_multiple_of(8).max(16);
    }
    println!();
}

pub(super) fn nested() {
    // Each pair waits in the next one's queue: what keeps them goes in one close.
    let mut current = socketpair(libc::SOCK_STREAM);
    for level in 0..3000 {
        let next = socketpair(libc::SOCK_STREAM);
        if send_files(next.0, &[current.0, current.1]) != 1 {
            println!("stopped at {level}");
        }
        close(current.0);
        close(current.1);
        current = next;
    }
    close(current.0);
    close(current.1);
    println!("closed");
}

/// Whether the other end of `fd` goes, with sockets made and closed meanwhile.
fn hangs_up(fd: i64) -> bool {
    for _ in 0..500 {
        let (a, b) = socketpair(libc::SOCK_STREAM);
        close(a);
        close(b);
        let mut poll = [libc::pollfd { fd: fd as i32, events: libc::POLLIN, revents: 0 }];
        let time = [0_i64, 10_000_000];
        if sys!(libc::SYS_ppoll, poll.as_mut_ptr(), 1, time.as_ptr(), 0, 8) == 1 {
            return true;
        }
    }
    false
}

pub(super) fn circles() {
    // On its way to itself; two to each other; three, one of them not accepted yet.
    let (witness, kept) = socketpair(libc::SOCK_STREAM);
    let (a, b) = socketpair(libc::SOCK_STREAM);
    report("itself", send_files(a, &[b, kept]));
    close(a);
    close(b);
    close(kept);
    println!("gone {}", hangs_up(witness));
    let (witness, kept) = socketpair(libc::SOCK_DGRAM);
    let (a, b) = socketpair(libc::SOCK_SEQPACKET);
    report("each other", send_files(a, &[a, b, kept]));
    report("each other", send_files(b, &[a, b]));
    for fd in [a, b, kept] {
        close(fd);
    }
    report("its other end", sys!(libc::SYS_fcntl, witness, libc::F_GETFD));
    let (witness, kept) = socketpair(libc::SOCK_STREAM);
    let (server, address) = named(libc::SOCK_STREAM, "circle");
    report("listen", sys!(libc::SYS_listen, server, 5));
    let client = socket(libc::SOCK_STREAM);
    connect("connect", client, &address);
    report("to who has not been accepted", send_files(client, &[server, client, kept]));
    for fd in [server, client, kept] {
        close(fd);
    }
    println!("gone {}", hangs_up(witness));
    // What can still be received is not garbage.
    let (a, b) = socketpair(libc::SOCK_STREAM);
    let (c, d) = socketpair(libc::SOCK_STREAM);
    report("itself, and on its way", send_files(c, &[c, d]));
    report("to one that lives", send_files(a, &[d]));
    close(c);
    close(d);
    println!("stays {}", !hangs_up_soon(b));
    receive_with("received", b, 64, 0);
}

/// As [`hangs_up`], for what should not.
fn hangs_up_soon(fd: i64) -> bool {
    for _ in 0..5 {
        let (a, b) = socketpair(libc::SOCK_STREAM);
        close(a);
        close(b);
    }
    let mut poll = [libc::pollfd { fd: fd as i32, events: 0, revents: 0 }];
    let time = [0_i64, 1_000_000];
    sys!(libc::SYS_ppoll, poll.as_mut_ptr(), 1, time.as_ptr(), 0, 8) == 1
}

pub(super) fn circles_by_the_thousand() {
    // Each with 20 KiB: what is not collected meanwhile is felt.
    let ballast = vec![1_u8; 20_000];
    let mut failed = 0;
    for _ in 0..1500 {
        let (a, b) = socketpair(libc::SOCK_STREAM);
        let files = control(RIGHTS, &[a as i32, b as i32]);
        failed += i32::from(send_with(a, &ballast, &files) != 20_000);
        failed += i32::from(send_with(b, &ballast, &files) != 20_000);
        close(a);
        close(b);
    }
    println!("failed {failed}");
}

pub(super) fn too_many() {
    sys::in_child("an ordinary user", || {
        sys!(libc::SYS_setresuid, 4321, 4321, 4321);
        let limit = [30_u64, 30];
        sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, limit.as_ptr(), 0);
        let (a, b) = socketpair(libc::SOCK_STREAM);
        let mut sent = 0;
        let refused = loop {
            match send_files(a, &[0]) {
                1 if sent < 100 => sent += 1,
                result => break result,
            }
        };
        report(&format!("after {sent}"), refused);
        receive_with("one", b, 64, 0);
        report("one more", send_files(a, &[0]));
        0
    });
}

pub(super) fn room_for_control() {
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        let (a, b) = socketpair(kind);
        for room in [0, 8, 15, 16, 19, 20, 24, 32, 64] {
            report("two files", send_files(a, &[0, 0]));
            receive_with(&format!("room {room}"), b, room, 0);
        }
        set_option(b, libc::SO_PASSCRED, 1);
        for room in [0, 8, 16, 20, 28, 32, 48, 56, 64] {
            report("two files", send_files(a, &[0, 0]));
            receive_with(&format!("room {room}"), b, room, 0);
        }
        report("peeked at", send_files(a, &[0]));
        receive_with("peek", b, 128, libc::MSG_PEEK);
        receive_with("taken", b, 128, libc::MSG_CMSG_CLOEXEC);
    }
}

pub(super) fn noted() {
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        let (a, b) = socketpair(kind);
        write(a, b"early");
        set_option(b, libc::SO_PASSCRED, 1);
        receive_with("before it was asked for", b, 64, 0);
        write(a, b"late");
        receive_with("after", b, 64, 0);
        set_option(b, libc::SO_PASSCRED, 0);
        set_option(a, libc::SO_PASSCRED, 1);
        write(a, b"other");
        set_option(b, libc::SO_PASSCRED, 1);
        receive_with("the sender asked", b, 64, 0);
        set_option(b, libc::SO_PASSCRED, 0);
        set_option(a, libc::SO_PASSCRED, 0);
        let own = [sys!(libc::SYS_getpid) as i32, 0, 0];
        report("said", send_with(a, b"said", &control(CREDENTIALS, &own)));
        set_option(b, libc::SO_PASSCRED, 1);
        receive_with("said", b, 64, 0);
    }
    let (server, address) = named(libc::SOCK_STREAM, "noted");
    set_option(server, libc::SO_PASSCRED, 1);
    report("listen", sys!(libc::SYS_listen, server, 5));
    let client = socket(libc::SOCK_STREAM);
    connect("connect", client, &address);
    write(client, b"early");
    let accepted = sys!(libc::SYS_accept4, server, 0, 0, 0);
    println!("inherited {}", option(accepted, libc::SO_PASSCRED));
    receive_with("before it was accepted", accepted, 64, 0);
    // A stream is read up to where somebody else goes on.
    let (a, b) = socketpair(libc::SOCK_STREAM);
    write(a, b"unknown");
    set_option(b, libc::SO_PASSCRED, 1);
    write(a, b"mine");
    let child = fork(|| i32::from(write(a, b"the child's") != 11));
    println!("{}", wait(child));
    receive_with("first", b, 64, 0);
    receive_with("second", b, 64, 0);
    receive("third", b, 64, libc::MSG_DONTWAIT);
}

pub(super) fn claims() {
    let (a, b) = socketpair(libc::SOCK_DGRAM);
    set_option(b, libc::SO_PASSCRED, 1);
    let own = sys!(libc::SYS_getpid) as i32;
    let claim = |what: &str, pid: i32, uid: i32, gid: i32| {
        report(what, send_with(a, b"c", &control(CREDENTIALS, &[pid, uid, gid])));
        receive_with(what, b, 64, 0);
    };
    claim("itself", own, 0, 0);
    claim("another user", own, 1000, 1001);
    claim("nobody", 0x3f_ff00, 0, 0);
    report("short", send_with(a, b"c", &control(CREDENTIALS, &[own, 0])));
    report("unknown", send_with(a, b"c", &control(99, &[own])));
    sys::in_child("an ordinary user", || {
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        let own = sys!(libc::SYS_getpid) as i32;
        claim("itself", own, 1000, 0);
        claim("another process", own - 1, 1000, 0);
        claim("nobody", 0x3f_ff00, 1000, 0);
        claim("another user", own, 0, 0);
        0
    });
}
