//! Urgent data (MSG_OOB), of streams of both kinds.

use super::room::{count as number, option, set_option};
use super::socketpair;
use crate::sys::{self, close, fork, handle, report, wait};
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

const URGENT: i32 = libc::MSG_OOB;
const PEEK: i32 = libc::MSG_PEEK;
const INLINE: i32 = libc::SO_OOBINLINE;
const SIOCATMARK: u64 = 0x8905;
const F_SETSIG: i32 = 10;
const REAL_TIME: i32 = 36;

static CAME: [AtomicI32; 2] = [const { AtomicI32::new(0) }; 2];

extern "C" fn note(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let (_, code, _, _, _) = sys::info_fields(info);
    CAME[usize::from(signal != libc::SIGURG)].fetch_add(code.rotate_left(4) + 1, SeqCst);
}

/// The sums of what came since the last time: of SIGURG, and of the chosen signal.
fn came(what: &str) {
    println!("{what}: {:#x} {:#x}", CAME[0].swap(0, SeqCst), CAME[1].swap(0, SeqCst));
}

fn send(fd: i64, bytes: &[u8], flags: i32) -> i64 {
    sys!(libc::SYS_sendto, fd, bytes.as_ptr(), bytes.len(), flags | libc::MSG_NOSIGNAL, 0, 0)
}

fn set_inline(fd: i64, on: bool) -> i64 {
    set_option(fd, INLINE, i32::from(on))
}

/// Receives without waiting: the result, the bytes, and msg_flags.
fn take(fd: i64, len: usize, flags: i32) -> String {
    let mut bytes = vec![0_u8; len];
    let vector = [bytes.as_mut_ptr() as u64, len as u64];
    let mut message = [0_u64, 0, vector.as_ptr() as u64, 1, 0, 0, 0];
    let result = sys!(libc::SYS_recvmsg, fd, message.as_mut_ptr(), flags | libc::MSG_DONTWAIT);
    bytes.truncate(usize::try_from(result).unwrap_or(0));
    let told = if result < 0 { 0 } else { message[6] as u32 };
    format!("{} {:?} {told:#x}", sys::show(result), String::from_utf8_lossy(&bytes))
}

/// What poll says, whether it is at the mark, and, of a connection, how much there is. (Of a Unix stream Linux 6.18 counts
/// urgent bytes for ever that were passed over.)
fn state(fd: i64) -> String {
    let asked = libc::POLLIN | libc::POLLPRI | libc::POLLHUP | libc::POLLRDHUP;
    let mut poll = fd as u32 as u64 | (asked as u64) << 32;
    sys!(libc::SYS_ppoll, &raw mut poll, 1, [0_i64; 2].as_ptr(), 0, 8);
    let is_unix = option(fd, libc::SO_DOMAIN) == i64::from(libc::AF_UNIX);
    let count = if is_unix { 0 } else { number(fd, libc::FIONREAD) };
    format!("poll {:#x} mark {} count {count}", poll >> 48, number(fd, SIOCATMARK))
}

/// What urgent data is like on a stream, given two ends.
pub(crate) fn bytes(pair: impl Fn() -> (i64, i64)) {
    let (a, b) = pair();
    println!("none: {} {}", take(b, 1, URGENT), state(b));
    report("nothing sent", send(a, b"", URGENT));
    report("sent", send(a, b"one!", URGENT));
    println!("{}", state(b));
    println!("up to it: {} {}", take(b, 10, 0), state(b));
    println!("looked at: {} {}", take(b, 1, URGENT | PEEK), state(b));
    println!("taken: {} {}", take(b, 1, URGENT), state(b));
    println!("again: {} {}", take(b, 1, URGENT), state(b));
    println!("nothing else: {} {}", take(b, 10, 0), state(b));
    send(a, b"two?", URGENT);
    send(a, b"three", 0);
    println!("behind it: {} {}", state(b), take(b, 10, PEEK));
    println!("{} {}", take(b, 2, 0), take(b, 10, 0));
    println!("at it: {} {}", state(b), take(b, 3, PEEK));
    println!("passed over: {} {} {}", take(b, 3, 0), state(b), take(b, 1, URGENT));
    println!("rest: {}", take(b, 10, 0));
    for wanted in [0, 5] {
        send(a, b"x", URGENT);
        println!("{wanted} wanted: {} {}", take(b, wanted, URGENT), state(b));
    }
    send(a, b"last", URGENT);
    send(a, b"laster", URGENT);
    println!("two: {} {} {}", state(b), take(b, 20, 0), take(b, 1, URGENT));
    println!("{}", take(b, 20, 0));
    report("in line", set_inline(b, true));
    send(a, b"in it", URGENT);
    send(a, b" and behind", 0);
    println!("{} {}", state(b), take(b, 1, URGENT));
    println!("{} {}", take(b, 20, 0), state(b));
    println!("{} {}", take(b, 20, 0), state(b));
    report("out of line", set_inline(b, false));
    send(a, b"end", URGENT);
    close(a);
    println!("closed: {} {} {}", take(b, 1, URGENT), take(b, 10, 0), take(b, 10, 0));
    println!("{} {}", take(b, 10, 0), take(b, 1, URGENT));
    report("to nobody", send(b, b"x", URGENT));
    close(b);
}

/// Runs what Linux has had in this way since 6.12 only, and says so if it went as there; else what came of it.
fn newer(expected: u64, body: impl FnOnce()) {
    let (reader, writer) = sys::pipe(0);
    sys::flush();
    let pid = fork(|| {
        sys!(libc::SYS_dup3, writer, 1, 0);
        body();
        sys::flush();
        0
    });
    close(writer);
    let mut said = Vec::new();
    while let (1.., bytes) = sys::read(reader, 4096) {
        said.extend(bytes);
    }
    close(reader);
    println!("{}", wait(pid));
    let mix = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let sum = said.iter().fold(0xcbf2_9ce4_8422_2325, mix);
    if sum == expected || crate::recent::older_than(12) {
        println!("as Linux 6.18 has it");
    } else {
        println!("{}sum {sum:#x}", String::from_utf8_lossy(&said));
    }
}

pub(super) fn unix_bytes() {
    newer(0xb9e9_56bd_86e8_f08b, || bytes(|| socketpair(libc::SOCK_STREAM)));
}

/// Waits end at it.
pub(crate) fn waits(pair: impl Fn() -> (i64, i64)) {
    let (a, b) = pair();
    let pid = fork(|| {
        let mut poll = b as u32 as u64 | (libc::POLLPRI as u64) << 32;
        let result = sys!(libc::SYS_ppoll, &raw mut poll, 1, [20_i64, 0].as_ptr(), 0, 8);
        println!("poll {} {:#x}", sys::show(result), poll >> 48);
        let mut bytes = [0_u8; 10];
        let result = sys!(libc::SYS_recvfrom, b, bytes.as_mut_ptr(), 10, libc::MSG_WAITALL, 0, 0);
        println!("all: {} {:?}", sys::show(result), &bytes[..4]);
        let result = sys!(libc::SYS_recvfrom, b, bytes.as_mut_ptr(), 2, libc::MSG_WAITALL, 0, 0);
        println!("all behind it: {} {:?}", sys::show(result), &bytes[..2]);
        0
    });
    sys::until_asleep(pid, pid);
    send(a, b"123!", URGENT);
    send(a, b"4", 0);
    sys::until_asleep(pid, pid);
    send(a, b"5", 0);
    println!("{}", wait(pid));
}

pub(super) fn unix_waits() {
    newer(0x9347_1e14_074d_8bbf, || waits(|| socketpair(libc::SOCK_STREAM)));
}

/// SIGURG goes to the owner, be O_ASYNC set or not; a chosen signal is sent only where it is.
pub(crate) fn signals(pair: impl Fn() -> (i64, i64)) {
    let (a, b) = pair();
    sys!(libc::SYS_setpgid, 0, 0);
    handle(libc::SIGURG, note, libc::SA_RESTART);
    handle(REAL_TIME, note, libc::SA_RESTART);
    send(a, b"1", URGENT);
    came("nobody's");
    report("F_SETOWN", sys!(libc::SYS_fcntl, b, libc::F_SETOWN, sys!(libc::SYS_getpid)));
    send(a, b"2", 0);
    came("not urgent");
    send(a, b"3", URGENT);
    came("urgent");
    send(a, b"4", URGENT);
    came("again");
    report("F_SETOWN", sys!(libc::SYS_fcntl, b, libc::F_SETOWN, 0));
    send(a, b"5", URGENT);
    came("nobody's again");
    report("F_SETOWN", sys!(libc::SYS_fcntl, b, libc::F_SETOWN, -sys!(libc::SYS_getpgid, 0)));
    send(a, b"6", URGENT);
    println!("a group's: {}", CAME[0].swap(0, SeqCst) != 0);
    report("F_SETOWN", sys!(libc::SYS_fcntl, b, libc::F_SETOWN, sys!(libc::SYS_getpid)));
    report("F_SETSIG", sys!(libc::SYS_fcntl, b, F_SETSIG, REAL_TIME));
    send(a, b"7", URGENT);
    came("a chosen one");
    let on = 1_i32;
    report("FIOASYNC", sys!(libc::SYS_ioctl, b, libc::FIOASYNC, &raw const on));
    send(a, b"7", URGENT);
    println!("{:#x}, the chosen one {}", CAME[0].swap(0, SeqCst), CAME[1].swap(0, SeqCst) != 0);
    let off = 0_i32;
    report("FIOASYNC", sys!(libc::SYS_ioctl, b, libc::FIOASYNC, &raw const off));
    let child = fork(|| {
        // A copy of the descriptor is the same file.
        send(a, b"8", URGENT);
        0
    });
    wait(child);
    came("from another");
}

pub(super) fn unix_signals() {
    newer(0x0452_ea1c_379a_d2fe, || signals(|| socketpair(libc::SOCK_STREAM)));
}

/// Kinds that have none.
pub(super) fn other_kinds() {
    for kind in [libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        let (a, b) = socketpair(kind);
        report("sent", send(a, b"x", URGENT));
        println!("{}", take(b, 1, URGENT));
    }
    let fresh = sys!(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0);
    report("not connected", send(fresh, b"x", URGENT));
    println!("{} {}", take(fresh, 1, URGENT), number(fresh, SIOCATMARK));
}

/// Steps by chance, the same everywhere. (Few at a time: a connection that has much on its way waits for acknowledgements.)
pub(crate) fn chance(pair: impl Fn() -> (i64, i64)) {
    for seed in 1..=24_u32 {
        let (a, b) = pair();
        let mut random = seed.wrapping_mul(0x9e37_79b9);
        let mut next = |below: u32| {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            random % below
        };
        let mut letter = 0_u8;
        println!("seed {seed}");
        for _ in 0..25 {
            let len = 1 + next(4) as usize;
            let what = match next(10) {
                kind @ 0..=3 => {
                    let sent: Vec<u8> = (0..len as u8).map(|i| b'a' + (letter + i) % 26).collect();
                    letter = (letter + len as u8) % 26;
                    format!("send {}", send(a, &sent, if kind < 2 { URGENT } else { 0 }))
                }
                4..=5 => format!("take {len} {}", take(b, len, 0)),
                6 => format!("look {len} {}", take(b, len, PEEK)),
                7 => format!("urgent {}", take(b, 1, URGENT)),
                8 => format!("look at urgent {}", take(b, 1, URGENT | PEEK)),
                _ => format!("in line {}", set_inline(b, next(3) == 0)),
            };
            let what = format!("{what}; {}", state(b));
            println!("{what}");
        }
        close(a);
        close(b);
    }
}

pub(super) fn unix_chance() {
    newer(0x5ba3_d826_3c40_f93b, || chance(|| socketpair(libc::SOCK_STREAM)));
}
