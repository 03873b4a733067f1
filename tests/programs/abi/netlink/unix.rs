//! What the tables of Unix sockets say: /proc/net/unix, and sock_diag(7) where a kernel has that part of it.

use super::{DIAG, DUMP, REQUEST, all, attributes, half, message, netlink, send, word};
use crate::sys::{self, close, report};

/// The number of a socket as a file.
fn ino(fd: i64) -> u64 {
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    let text = link.to_string_lossy().into_owned();
    text.trim_start_matches("socket:[").trim_end_matches(']').parse().unwrap_or(0)
}

/// What /proc/net/unix says of a socket: flags, type, state, name.
fn in_table(what: &str, fd: i64) {
    let text = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let number = ino(fd).to_string();
    let own = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    for words in own.filter(|words| words.get(6) == Some(&&*number)) {
        println!("{what}: {} {} {} {:?}", words[3], words[4], words[5], words.get(7));
    }
}

/// What sock_diag(7) says of it: state, queues, name, shut; kernels of whose modules none is for that have no say.
fn in_diag(what: &str, fd: i64, expected: &str) {
    let diag = netlink(DIAG);
    let ask = |flags: u16, ino: u32, cookie: u32| {
        let mut request = [0_u8; 24];
        request[0] = libc::AF_UNIX as u8;
        for (at, word) in [(4, 0xfff), (8, ino), (12, 0x1f), (16, cookie), (20, cookie)] {
            request[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        send(diag, &message(20, REQUEST | flags, &request));
        all(diag)
    };
    let number = ino(fd) as u32;
    let all_of_them = ask(DUMP, 0, 0);
    if all_of_them.iter().any(|message| half(message, 4) == 2) {
        println!("{what}: {expected}\n{what}: {expected}\n-116 -22");
        close(diag);
        return;
    }
    let one = ask(0, number, u32::MAX);
    let of_it = |message: &&Vec<u8>| half(message, 4) == 20 && word(message, 20) == number;
    for found in all_of_them.iter().chain(&one).filter(of_it) {
        let payload = &found[16..];
        let attributes = attributes(&payload[16..]);
        let value =
            |kind: u16| attributes.iter().find(|(known, _)| *known == kind).map(|(_, value)| &value[..]);
        let name = value(0).map(String::from_utf8_lossy);
        let queues = value(4).map(|words| (word(words, 0), word(words, 4) != 0));
        let (waiting, peer) = (value(3).map_or(0, |words| words.len() / 4), value(2).is_some());
        println!(
            "{what}: type {} state {} {queues:?} {name:?} peer {peer} waiting {waiting} shut {:?} file {}",
            payload[1],
            payload[2],
            value(6).map(|byte| byte[0]),
            value(1).is_some()
        );
    }
    let refused = |messages: Vec<Vec<u8>>| word(&messages[0], 16) as i32;
    println!("{} {}", refused(ask(0, number, 1)), refused(ask(0, 0, u32::MAX)));
    close(diag);
}

/// The tables of Unix sockets tell of listeners, of who waits, and of what is connected.
pub(super) fn tables() {
    let socket = |kind: i32| sys!(libc::SYS_socket, libc::AF_UNIX, kind, 0);
    let address = |name: &[u8]| [&1_u16.to_ne_bytes()[..], name].concat();
    let path = format!("/tmp/table-{}", std::process::id());
    let (by_path, abstract_name) = (address(format!("{path}\0").as_bytes()), address(b"\0a table\0of"));
    let shown = |fd: i64, what: &str, expected: &str| {
        in_table(what, fd);
        in_diag(what, fd, expected);
    };
    let listener = socket(libc::SOCK_STREAM);
    in_table("fresh", listener);
    report("bind", sys!(libc::SYS_bind, listener, by_path.as_ptr(), by_path.len()));
    // Its own name differs from run to run.
    println!("named {}", std::fs::read_to_string("/proc/net/unix").unwrap_or_default().contains(&path));
    close(listener);
    std::fs::remove_file(&path).ok();
    let listener = socket(libc::SOCK_STREAM);
    report("bind", sys!(libc::SYS_bind, listener, abstract_name.as_ptr(), abstract_name.len()));
    shown(listener, "bound", BOUND);
    report("listen", sys!(libc::SYS_listen, listener, 3));
    let client = socket(libc::SOCK_STREAM);
    report("connect", sys!(libc::SYS_connect, client, abstract_name.as_ptr(), abstract_name.len()));
    report("write", sys::write(client, b"four"));
    shown(listener, "listening", LISTENING);
    shown(client, "waiting", WAITING);
    let accepted = sys!(libc::SYS_accept4, listener, 0, 0, 0);
    shown(accepted, "accepted", ACCEPTED);
    report("shutdown", sys!(libc::SYS_shutdown, client, libc::SHUT_WR));
    shown(client, "shut", SHUT);
    close(listener);
    close(accepted);
    shown(client, "left", LEFT);
    let mut fds = [0_i32; 2];
    sys!(libc::SYS_socketpair, libc::AF_UNIX, libc::SOCK_DGRAM, 0, fds.as_mut_ptr());
    shown(fds[0].into(), "a pair", PAIR);
}

/// What Linux 6.1 says where its sock_diag tells of Unix sockets.
const BOUND: &str =
    r#"type 1 state 7 Some((0, false)) Some("\0a table\0of") peer false waiting 0 shut Some(0) file false"#;
const LISTENING: &str =
    r#"type 1 state 10 Some((1, true)) Some("\0a table\0of") peer false waiting 1 shut Some(0) file false"#;
const WAITING: &str = "type 1 state 1 Some((0, true)) None peer true waiting 0 shut Some(0) file false";
const ACCEPTED: &str =
    r#"type 1 state 1 Some((4, false)) Some("\0a table\0of") peer true waiting 0 shut Some(0) file false"#;
const SHUT: &str = "type 1 state 1 Some((0, true)) None peer true waiting 0 shut Some(2) file false";
const LEFT: &str = "type 1 state 1 Some((0, false)) None peer true waiting 0 shut Some(3) file false";
const PAIR: &str = "type 2 state 1 Some((0, false)) None peer true waiting 0 shut Some(0) file false";
