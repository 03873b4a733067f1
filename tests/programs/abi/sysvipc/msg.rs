//! Message queues.

use super::{
    BY_INDEX, CREAT, EXCL, Helper, NOWAIT, PRIVATE, RMID, SET, STAT, Words, drop_root, key, nothing, perm,
};
use crate::sys::{self, in_child, report, report_ok, show};

const NOERROR: i64 = libc::MSG_NOERROR as i64;
const EXCEPT: i64 = libc::MSG_EXCEPT as i64;
const COPY: i64 = libc::MSG_COPY as i64;

fn get(key: i64, flags: i64) -> i64 {
    sys!(libc::SYS_msgget, key, flags)
}

fn queue() -> i64 {
    get(PRIVATE, CREAT | 0o600)
}

fn control(id: i64, command: i64, place: *mut u64) -> i64 {
    sys!(libc::SYS_msgctl, id, command, place)
}

fn remove(id: i64) -> i64 {
    sys!(libc::SYS_msgctl, id, RMID, 0)
}

fn send(id: i64, kind: i64, text: &[u8], flags: i64) -> i64 {
    let message = [kind.to_ne_bytes().as_slice(), text].concat();
    sys!(libc::SYS_msgsnd, id, message.as_ptr(), text.len(), flags)
}

/// Receives: what the call says, the type and the text.
fn receive(id: i64, room: usize, kind: i64, flags: i64) -> String {
    let mut message = vec![0_u8; 8 + room];
    let result = sys!(libc::SYS_msgrcv, id, message.as_mut_ptr(), room, kind, flags);
    let Ok(len) = usize::try_from(result) else { return show(result) };
    let kind = i64::from_ne_bytes(message[..8].try_into().unwrap_or_default());
    format!("{kind} {:?}", String::from_utf8_lossy(&message[8..8 + len]))
}

fn stat(id: i64) -> Words {
    let mut words = [0; 16];
    control(id, STAT, words.as_mut_ptr());
    words
}

/// Messages, bytes and most bytes.
fn figures(id: i64) -> [u64; 3] {
    let words = stat(id);
    [words[10], words[9], words[11]]
}

pub(super) fn types() {
    let id = get(key(), CREAT | EXCL | 0o600);
    report_ok("made", id);
    for (kind, text) in [(3, "three"), (1, "one"), (2, "two"), (1, "another"), (5, "")] {
        report("sent", send(id, kind, text.as_bytes(), 0));
    }
    println!("{:?}", figures(id));
    println!("of a type: {}", receive(id, 64, 2, 0));
    println!("up to: {}", receive(id, 64, -2, 0));
    println!("but: {}", receive(id, 64, 3, EXCEPT));
    println!("any: {}", receive(id, 64, 0, 0));
    println!("up to too low: {}", receive(id, 64, -4, NOWAIT));
    println!("of no type: {}", receive(id, 64, 9, NOWAIT));
    println!("nothing but: {}", receive(id, 64, 5, EXCEPT | NOWAIT));
    println!("as low as it gets: {}", receive(id, 64, i64::MIN, 0));
    println!("none: {}", receive(id, 64, 0, NOWAIT));
    println!("{:?}", figures(id));
    report("removed", remove(id));
}

pub(super) fn errors() {
    report("no such key", get(key(), 0o600));
    let id = get(key(), CREAT | 0o600);
    println!("found {}", get(key(), 0) == id);
    report("there", get(key(), CREAT | EXCL | 0o600));
    report("type 0", send(id, 0, b"x", 0));
    report("negative type", send(id, -1, b"x", 0));
    report("too large", send(id, 1, &[0; 8193], 0));
    report("as large as can be", send(id, 1, &[0; 8192], 0));
    report("negative length", sys!(libc::SYS_msgsnd, id, [1_i64, 0].as_ptr(), -1, 0));
    report("from nowhere", sys!(libc::SYS_msgsnd, id, 0, 1, 0));
    let edge = sys::memory(8192) + 4096;
    sys!(libc::SYS_munmap, edge, 4096);
    sys::store(edge - 8, 1_i64);
    report("a text from nowhere", sys!(libc::SYS_msgsnd, id, edge - 8, 1, 0));
    report("no text from nowhere", sys!(libc::SYS_msgsnd, id, edge - 8, 0, 0));
    report("no such id", send(0x7fff_ffff, 1, b"x", 0));
    report("negative id", send(-1, 1, b"x", 0));
    println!("from none: {}", receive(0x7fff_ffff, 4, 0, NOWAIT));
    println!("from -1: {}", receive(-1, 4, 0, NOWAIT));
    report("negative room", sys!(libc::SYS_msgrcv, id, [0_i64; 2].as_mut_ptr(), -1, 0, 0));
    println!("{:?}", figures(id));
    report("to nowhere", sys!(libc::SYS_msgrcv, id, 0, 9000, 0, 0));
    println!("which loses it: {:?}", figures(id));
    report("nothing for nowhere", sys!(libc::SYS_msgrcv, id, edge - 8, 10, 0, 0));
    report("status nowhere", control(id, STAT, std::ptr::null_mut()));
    report("set from nowhere", control(id, SET, std::ptr::null_mut()));
    report("removed", remove(id));
    report("removed again", remove(id));
    report("sent", send(id, 1, b"x", 0));
}

pub(super) fn sizes() {
    let id = queue();
    for _ in 0..3 {
        send(id, 7, b"0123456789", 0);
    }
    println!("small: {}", receive(id, 4, 0, 0));
    println!("small, cut: {}", receive(id, 4, 0, NOERROR));
    println!("no room, cut: {}", receive(id, 0, 0, NOERROR));
    println!("large: {}", receive(id, 4096, 0, 0));
    println!("{:?}", figures(id));
    report("removed", remove(id));
}

pub(super) fn copy() {
    let id = queue();
    send(id, 4, b"four", 0);
    send(id, 2, b"two", 0);
    for (name, room, place, flags) in [
        ("first", 64, 0, NOWAIT),
        ("second", 64, 1, NOWAIT),
        ("third", 64, 2, NOWAIT),
        ("before the first", 64, -1, NOWAIT),
        ("waiting", 64, 0, 0),
        ("with EXCEPT", 64, 0, NOWAIT | EXCEPT),
        ("small", 2, 0, NOWAIT),
        ("small, cut", 2, 0, NOWAIT | NOERROR),
    ] {
        println!("{name}: {}", receive(id, room, place, COPY | flags));
    }
    println!("{:?}", figures(id));
    report("removed", remove(id));
}

fn receiver(id: i64, room: usize, kind: i64, flags: i64) -> Helper {
    Helper::start(|| receive(id, room, kind, flags))
}

pub(super) fn waiting() {
    let id = queue();
    let two = receiver(id, 64, 2, 0);
    let pid = two.pid;
    let low = receiver(id, 64, -5, 0);
    report("sent", send(id, 9, b"for nobody", 0));
    println!("{:?}", figures(id));
    report("sent", send(id, 2, b"for the first", 0));
    println!("{} {:?} by it {}", two.end(), figures(id), (stat(id)[12] >> 32) as i64 == pid);
    report("sent", send(id, 4, b"for the second", 0));
    println!("{} {:?}", low.end(), figures(id));
    let other = receiver(id, 64, 9, EXCEPT);
    report("sent", send(id, 9, b"still for nobody", 0));
    report("sent", send(id, 1, b"any other", 0));
    println!("{}", other.end());
    let small = receiver(id, 2, 3, 0);
    report("sent", send(id, 3, b"too large", 0));
    println!("{} {:?}", small.end(), figures(id));
    let cut = receiver(id, 2, 5, NOERROR);
    report("sent", send(id, 5, b"cut", 0));
    println!("{} {:?}", cut.end(), figures(id));
    let last = receiver(id, 64, 77, 0);
    report("removed", remove(id));
    println!("{}", last.end());
}

pub(super) fn full() {
    let id = queue();
    let room = |bytes: u64| {
        let mut change = stat(id);
        change[11] = bytes;
        report("room", control(id, SET, change.as_mut_ptr()));
    };
    room(8192);
    let text = [b'x'; 4096];
    let mut sent = 0;
    while send(id, 1, &text, NOWAIT) == 0 {
        sent += 1;
    }
    println!("{sent} {:?} {}", figures(id), show(send(id, 1, &text, NOWAIT)));
    report("one byte", send(id, 1, b"x", NOWAIT));
    report("an empty one", send(id, 1, b"", NOWAIT));
    let sender = |len: usize| Helper::start(|| show(send(id, 2, &vec![b'y'; len], 0)));
    let waits = sender(4096);
    println!("{}", receive(id, 4096, 1, 0).len());
    println!("{} {:?}", waits.end(), figures(id));
    let waits = sender(8000);
    room(16384);
    println!("{} {:?}", waits.end(), figures(id));
    room(10);
    report("sent", send(id, 1, b"", NOWAIT));
    let waits = sender(1);
    report("removed", remove(id));
    println!("{}", waits.end());
    // Empty messages are counted, too.
    let id = queue();
    let mut change = stat(id);
    change[11] = 3;
    control(id, SET, change.as_mut_ptr());
    let results: Vec<String> = (0..4).map(|_| show(send(id, 1, b"", NOWAIT))).collect();
    println!("{results:?}");
    report("removed", remove(id));
}

pub(super) fn interrupted() {
    let id = queue();
    for (flags, what) in [(0, "EINTR"), (libc::SA_RESTART, "restart is not for it")] {
        let waits = Helper::start(|| {
            sys::handle(libc::SIGUSR1, nothing, flags);
            receive(id, 9, 0, 0)
        });
        waits.kill(libc::SIGUSR1);
        println!("{what}: {}", waits.end());
    }
    // Without a handler that ran it goes on.
    let waits = receiver(id, 9, 0, 0);
    waits.kill(libc::SIGSTOP);
    println!("{:?}", sys::describe(sys::wait4(waits.pid, libc::WUNTRACED).1));
    waits.kill(libc::SIGCONT);
    waits.asleep();
    report("sent", send(id, 1, b"after all", 0));
    println!("stopped and continued: {}", waits.end());
    report("removed", remove(id));
}

pub(super) fn status() {
    let id = get(key(), CREAT | 0o640);
    let words = stat(id);
    println!("{}", perm(&words));
    println!("{} {} {} {:?}", words[6] != 0, words[7] != 0, words[8] != 0, figures(id));
    send(id, 1, b"hello", 0);
    println!("sent {} by me {}", stat(id)[6] != 0, stat(id)[12] as u32 as i64 == sys!(libc::SYS_getpid));
    let (by_index, any) = BY_INDEX[1];
    let mut change = stat(id);
    change[0] = change[0] & 0xffff_ffff | 1000 << 32;
    change[2] = 0o7_1222 << 32;
    change[11] = 100;
    report("set", control(id, SET, change.as_mut_ptr()));
    println!("{} {:?}", perm(&stat(id)), figures(id));
    let mut words: Words = [0; 16];
    println!("by index {}", control(id & 0x7fff, by_index, words.as_mut_ptr()) == id);
    println!("any {}", control(id & 0x7fff, any, words.as_mut_ptr()) == id);
    let text = std::fs::read_to_string("/proc/sysvipc/msg").unwrap_or_default();
    println!("{}", text.lines().next().unwrap_or_default());
    let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some(&id.to_string()));
    let line = line.unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    println!("{} words, length {}: {:?} {:?}", words.len(), line.len(), &words[2..5], &words[7..11]);
    println!("{}", receive(id, 64, 0, 0));
    println!("received {}", stat(id)[7] != 0);
    report("removed", remove(id));
}

pub(super) fn permissions() {
    let id = get(key(), CREAT | 0o642);
    let mut change = stat(id);
    in_child("a stranger", || {
        drop_root();
        report("found", i64::from(get(key(), 0o002) == id));
        report("found to read", get(key(), 0o444));
        report("sent", send(id, 1, b"x", 0));
        println!("received {}", receive(id, 9, 0, NOWAIT));
        report("status", control(id, STAT, [0; 16].as_mut_ptr()));
        report("set", control(id, SET, change.as_mut_ptr()));
        report("removed", remove(id));
        0
    });
    change[0] = change[0] & 0xffff_ffff | 1000 << 32;
    report("given away", control(id, SET, change.as_mut_ptr()));
    in_child("the owner", || {
        drop_root();
        println!("received {}", receive(id, 9, 0, NOWAIT));
        change[11] += 1;
        report("more room", control(id, SET, change.as_mut_ptr()));
        change[11] -= 1;
        change[2] = 0;
        report("rights taken", control(id, SET, change.as_mut_ptr()));
        report("sent", send(id, 1, b"x", 0));
        report("removed", remove(id));
        0
    });
    report("gone", get(key(), 0));
}
