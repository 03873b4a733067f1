//! Groups and broadcasts, in a network of the case's own.

use super::udp::{receive_from, send_to};
use super::{LOCAL, LOCAL6, bind, connect, option, port, set_option, socket, tcp, told, up, v4, v6, words};
use crate::sys::{self, close, fork, report, wait};

const IP: i32 = libc::IPPROTO_IP;
const IPV6: i32 = libc::IPPROTO_IPV6;
const GROUP: [u8; 4] = [239, 1, 2, 3];
const GROUP6: [u16; 8] = [0xff15, 0, 0, 0, 0, 0, 0, 0x77];
const ANY: [u8; 4] = [0; 4];
const NOW: i32 = libc::MSG_DONTWAIT;

/// A network that has nothing but a loopback interface.
fn alone() {
    report("unshare", sys!(libc::SYS_unshare, libc::CLONE_NEWNET));
    up();
}

fn udp() -> i64 {
    socket(libc::AF_INET, libc::SOCK_DGRAM)
}

fn set(fd: i64, level: i32, name: i32, value: &[u8]) -> i64 {
    sys!(libc::SYS_setsockopt, fd, level, name, value.as_ptr(), value.len())
}

fn by_address(group: [u8; 4], interface: [u8; 4]) -> Vec<u8> {
    [group, interface].concat()
}

fn by_index(group: [u8; 4], interface: [u8; 4], index: i32) -> Vec<u8> {
    [&group[..], &interface, &index.to_ne_bytes()].concat()
}

fn six(group: [u16; 8], index: i32) -> Vec<u8> {
    let mut bytes: Vec<u8> = group.iter().flat_map(|part| part.to_be_bytes()).collect();
    bytes.extend(index.to_ne_bytes());
    bytes
}

/// A `struct group_req`, or with a source a `struct group_source_req`.
fn request(index: u32, addresses: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = [index.to_ne_bytes(), [0; 4]].concat();
    for address in addresses {
        let end = bytes.len() + 128;
        bytes.extend(address);
        bytes.resize(end, 0);
    }
    bytes
}

fn at_any(port: u16) -> i64 {
    let fd = udp();
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
    report("bind", bind(fd, &v4(ANY, port)));
    fd
}

/// One that sends by the loopback interface.
fn sender() -> (i64, u16) {
    let fd = udp();
    report("IP_MULTICAST_IF", set(fd, IP, libc::IP_MULTICAST_IF, &LOCAL));
    report("bind", bind(fd, &v4(LOCAL, 0)));
    let own = port(fd);
    (fd, own)
}

pub(super) fn memberships() {
    alone();
    let fd = udp();
    let join = |what: &str, value: &[u8]| report(what, set(fd, IP, libc::IP_ADD_MEMBERSHIP, value));
    join("no interface", &by_address(GROUP, ANY));
    join("loopback", &by_address(GROUP, LOCAL));
    join("again", &by_address(GROUP, LOCAL));
    join("by its number", &by_index(GROUP, ANY, 1));
    join("no such number", &by_index(GROUP, LOCAL, 9));
    join("a negative one", &by_index(GROUP, LOCAL, -1));
    join("another of its addresses", &by_address([239, 1, 2, 4], [127, 0, 0, 5]));
    join("no address of it", &by_address([239, 1, 2, 5], [10, 0, 0, 1]));
    join("no group", &by_address([10, 1, 2, 3], LOCAL));
    join("short", &by_address(GROUP, LOCAL)[..7]);
    report("nowhere", sys!(libc::SYS_setsockopt, fd, IP, libc::IP_ADD_MEMBERSHIP, 8, 12));
    let leave = |what: &str, value: &[u8]| report(what, set(fd, IP, libc::IP_DROP_MEMBERSHIP, value));
    leave("not joined", &by_address([239, 9, 9, 9], LOCAL));
    leave("no interface", &by_address(GROUP, ANY));
    leave("by another address", &by_address(GROUP, [127, 0, 0, 7]));
    leave("gone", &by_index(GROUP, ANY, 1));
    let many = udp();
    let joined = |last: u8| set(many, IP, libc::IP_ADD_MEMBERSHIP, &by_address([239, 2, 2, last], LOCAL));
    let count = (0..=255).take_while(|last| joined(*last) == 0).count();
    println!("{count} at most: {}", sys::show(joined(255)));
    report("a stream", set(tcp(), IP, libc::IP_ADD_MEMBERSHIP, &by_address(GROUP, LOCAL)));
    report("a stream's way", set(tcp(), IP, libc::IP_MULTICAST_IF, &LOCAL));
    report("of both kinds", set(fd, IP, 42, &request(1, &[v4(GROUP, 0)])));
    report("again", set(fd, IP, 42, &request(1, &[v4(GROUP, 0)])));
    report("no interface", set(fd, IP, 42, &request(0, &[v4([239, 7, 7, 7], 0)])));
    report("of the other family", set(fd, IP, 42, &request(1, &[v6(GROUP6, 0)])));
    report("short", set(fd, IP, 42, &request(1, &[v4(GROUP, 0)])[..135]));
    report("left", set(fd, IP, 45, &request(1, &[v4(GROUP, 0)])));
    report("left again", set(fd, IP, 45, &request(1, &[v4(GROUP, 0)])));
}

pub(super) fn ways() {
    alone();
    let fd = udp();
    let told = |what: &str| {
        let (mut value, mut len) = ([9_u8; 4], 4_u32);
        let result =
            sys!(libc::SYS_getsockopt, fd, IP, libc::IP_MULTICAST_IF, value.as_mut_ptr(), &raw mut len);
        println!("{what}: {} {value:?} {len}", sys::show(result));
    };
    told("at first");
    for value in [
        LOCAL.to_vec(),
        vec![10, 0, 0, 1],
        by_index(ANY, [127, 0, 0, 2], 1),
        by_index(ANY, LOCAL, 9),
        by_address(ANY, [127, 0, 0, 3]),
        vec![1, 2, 3],
        ANY.to_vec(),
    ] {
        report("IP_MULTICAST_IF", set(fd, IP, libc::IP_MULTICAST_IF, &value));
        told("is");
    }
    for value in [-1, 0, 1, 2] {
        report("IP_MULTICAST_ALL", set_option(fd, IP, libc::IP_MULTICAST_ALL, value));
        println!("is {}", option(fd, IP, libc::IP_MULTICAST_ALL));
    }
    let to = v4(GROUP, 9);
    report("no way", send_to(fd, b"x", 0, &to));
    report("none to connect by", connect(fd, &to));
    report("IP_MULTICAST_IF", set(fd, IP, libc::IP_MULTICAST_IF, &LOCAL));
    report("nobody there", send_to(fd, b"x", 0, &to));
    report("nor then", send_to(fd, b"x", 0, &to));
    report("connected", connect(fd, &to));
    let name = super::told(libc::SYS_getsockname, fd).1;
    println!("{}", words(&name, &[("mine", port(fd))]));
}

pub(super) fn heard() {
    alone();
    let first = at_any(0);
    let number = port(first);
    let (second, deaf) = (at_any(number), at_any(number));
    let (from, own) = sender();
    let ports = [("receiver", number), ("sender", own)];
    let to = v4(GROUP, number);
    report("nobody has joined", send_to(from, b"0", 0, &to));
    receive_from("nothing", first, 10, NOW, &ports);
    for fd in [first, second] {
        report("join", set(fd, IP, libc::IP_ADD_MEMBERSHIP, &by_address(GROUP, LOCAL)));
    }
    report("joined only", set_option(deaf, IP, libc::IP_MULTICAST_ALL, 0));
    report("all who have", send_to(from, b"1", 0, &to));
    for (what, fd) in [("first", first), ("second", second), ("deaf", deaf)] {
        receive_from(what, fd, 10, NOW, &ports);
    }
    report("hears all", set_option(deaf, IP, libc::IP_MULTICAST_ALL, 1));
    report("another group", send_to(from, b"2", 0, &v4([239, 1, 2, 77], number)));
    receive_from("nothing", first, 10, NOW, &ports);
    report("everybody", send_to(from, b"3", 0, &v4([224, 0, 0, 1], number)));
    for (what, fd) in [("first", first), ("second", second), ("not joined", deaf)] {
        receive_from(what, fd, 10, NOW, &ports);
    }
    report("IP_MULTICAST_LOOP", set_option(from, IP, libc::IP_MULTICAST_LOOP, 0));
    report("IP_MULTICAST_TTL", set_option(from, IP, libc::IP_MULTICAST_TTL, 0));
    report("all the same", send_to(from, b"4", 0, &to));
    receive_from("first", first, 10, NOW, &ports);
    // Bound to the group, one hears nothing else.
    let only = udp();
    report("SO_REUSEADDR", set_option(only, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1));
    report("bind", bind(only, &to));
    println!("{}", words(&told(libc::SYS_getsockname, only).1, &ports));
    report("to the group", send_to(from, b"5", 0, &to));
    receive_from("only", only, 10, NOW, &ports);
    report("to the address", send_to(from, b"6", 0, &v4(LOCAL, number)));
    receive_from("not that", only, 10, NOW, &ports);
    report("from it", send_to(only, b"7", 0, &v4(LOCAL, own)));
    receive_from("from an address", from, 10, NOW, &ports);
    for fd in [first, second] {
        close(fd);
    }
    report("nobody is left", send_to(from, b"8", 0, &to));
    receive_from("nothing", only, 10, NOW, &ports);
}

pub(super) fn sources() {
    alone();
    let fd = udp();
    let to = [239, 3, 3, 3];
    report("bind", bind(fd, &v4(ANY, 0)));
    let number = port(fd);
    let (from, own) = sender();
    let source = |last: u8| [to, LOCAL, [127, 0, 0, last]].concat();
    let say = |what: &str, name: i32, last: u8| report(what, set(fd, IP, name, &source(last)));
    let send = |what: &str| {
        send_to(from, b"s", 0, &v4(to, number));
        receive_from(what, fd, 10, NOW, &[("sender", own)]);
    };
    say("block unjoined", libc::IP_BLOCK_SOURCE, 1);
    say("want another", libc::IP_ADD_SOURCE_MEMBERSHIP, 9);
    send("not wanted");
    say("again", libc::IP_ADD_SOURCE_MEMBERSHIP, 9);
    say("want", libc::IP_ADD_SOURCE_MEMBERSHIP, 1);
    send("wanted");
    say("block one of those", libc::IP_BLOCK_SOURCE, 1);
    report("join as well", set(fd, IP, libc::IP_ADD_MEMBERSHIP, &by_address(to, LOCAL)));
    say("unknown", libc::IP_DROP_SOURCE_MEMBERSHIP, 99);
    say("drop", libc::IP_DROP_SOURCE_MEMBERSHIP, 1);
    send("not wanted");
    say("drop the last", libc::IP_DROP_SOURCE_MEMBERSHIP, 9);
    report("left", set(fd, IP, libc::IP_DROP_MEMBERSHIP, &by_address(to, LOCAL)));
    report("join", set(fd, IP, libc::IP_ADD_MEMBERSHIP, &by_address(to, LOCAL)));
    send("joined");
    say("block", libc::IP_BLOCK_SOURCE, 1);
    send("blocked");
    say("again", libc::IP_BLOCK_SOURCE, 1);
    say("want one as well", libc::IP_ADD_SOURCE_MEMBERSHIP, 2);
    say("unblock another", libc::IP_UNBLOCK_SOURCE, 2);
    say("unblock", libc::IP_UNBLOCK_SOURCE, 1);
    send("unblocked");
    let blocked = |last: u8| set(fd, IP, libc::IP_BLOCK_SOURCE, &source(last));
    let count = (0..=255).take_while(|last| blocked(*last) == 0).count();
    println!("{count} at most: {}", sys::show(blocked(255)));
    report("short", set(fd, IP, libc::IP_BLOCK_SOURCE, &source(1)[..11]));
    let both = [v4([239, 5, 5, 5], 0), v4(LOCAL, 0)];
    report("of both kinds", set(fd, IP, 46, &request(1, &both)));
    report("left", set(fd, IP, 47, &request(1, &both)));
    report("left again", set(fd, IP, 47, &request(1, &both)));
}

pub(super) fn of_version_6() {
    alone();
    let fd = socket(libc::AF_INET6, libc::SOCK_DGRAM);
    let local = [0xff02, 0, 0, 0, 0, 0, 1, 5];
    for (what, group, index) in [
        ("no interface", local, 0),
        ("loopback", local, 1),
        ("again", local, 1),
        ("anywhere", local, 0),
        ("no such number", local, 9),
        ("no group", LOCAL6, 1),
        ("wider", GROUP6, 1),
    ] {
        report(what, set(fd, IPV6, 20, &six(group, index)));
    }
    report("short", set(fd, IPV6, 20, &six(local, 1)[..16]));
    report("not joined", set(fd, IPV6, 21, &six([0xff02, 0, 0, 0, 0, 0, 0, 9], 1)));
    report("left, anywhere", set(fd, IPV6, 21, &six(local, 0)));
    for index in [1, 9, -1, 0] {
        report("IPV6_MULTICAST_IF", set_option(fd, IPV6, libc::IPV6_MULTICAST_IF, index));
        println!("is {}", option(fd, IPV6, libc::IPV6_MULTICAST_IF));
    }
    report("no way", send_to(fd, b"x", 0, &v6(GROUP6, 9)));
    report("IPV6_MULTICAST_IF", set_option(fd, IPV6, libc::IPV6_MULTICAST_IF, 1));
    report("none by that", send_to(fd, b"x", 0, &v6(GROUP6, 9)));
    report("bind, no link", bind(socket(libc::AF_INET6, libc::SOCK_DGRAM), &v6(local, 0)));
    let wide = socket(libc::AF_INET6, libc::SOCK_DGRAM);
    report("bind", bind(wide, &v6(GROUP6, 0)));
    println!("{}", words(&told(libc::SYS_getsockname, wide).1, &[("mine", port(wide))]));
    report("a stream", set(socket(libc::AF_INET6, libc::SOCK_STREAM), IPV6, 20, &six(local, 1)));
    let group = [v6([0xff15, 0, 0, 0, 0, 0, 0, 0x99], 0), v6(LOCAL6, 0)];
    for (what, name, count) in [
        ("join", 42, 1),
        ("again", 42, 1),
        ("block", 43, 2),
        ("unblock", 44, 2),
        ("leave", 45, 1),
        ("again", 45, 1),
    ] {
        report(what, set(fd, IPV6, name, &request(1, &group[..count])));
    }
    report("want", set(fd, IPV6, 46, &request(1, &group)));
    report("leave", set(fd, IPV6, 47, &request(1, &group)));
    report("of the other family", set(fd, IPV6, 42, &request(1, &[v4(GROUP, 0)])));
    // It hears IPv4 groups as well.
    let both = socket(libc::AF_INET6, libc::SOCK_DGRAM);
    report("bind", bind(both, &v6([0; 8], 0)));
    report("join", set(both, IP, libc::IP_ADD_MEMBERSHIP, &by_address(GROUP, LOCAL)));
    let (from, own) = sender();
    report("send", send_to(from, b"4", 0, &v4(GROUP, port(both))));
    receive_from("heard", both, 10, NOW, &[("sender", own)]);
}

pub(super) fn broadcasts() {
    alone();
    let first = at_any(0);
    let number = port(first);
    let second = at_any(number);
    let (from, own) = sender();
    let ports = [("receiver", number), ("sender", own)];
    let everybody = v4([127, 255, 255, 255], number);
    report("not allowed", send_to(from, b"x", 0, &everybody));
    report("nor to connect", connect(from, &everybody));
    report("SO_BROADCAST", set_option(from, libc::SOL_SOCKET, libc::SO_BROADCAST, 1));
    report("everybody", send_to(from, b"y", 0, &everybody));
    report("everybody everywhere", send_to(from, b"z", 0, &v4([255; 4], number)));
    for fd in [first, second] {
        receive_from("heard", fd, 10, NOW, &ports);
        receive_from("heard", fd, 10, NOW, &ports);
        receive_from("nothing", fd, 10, NOW, &ports);
    }
    let unbound = udp();
    report("SO_BROADCAST", set_option(unbound, libc::SOL_SOCKET, libc::SO_BROADCAST, 1));
    report("no way", send_to(unbound, b"z", 0, &v4([255; 4], number)));
    let at = udp();
    report("SO_REUSEADDR", set_option(at, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1));
    report("bind", bind(at, &everybody));
    report("everybody", send_to(from, b"w", 0, &everybody));
    receive_from("heard", at, 10, NOW, &ports);
}

fn device(fd: i64, room: u32) -> String {
    let (mut name, mut len) = ([0_u8; 32], room);
    let level = libc::SOL_SOCKET;
    let result =
        sys!(libc::SYS_getsockopt, fd, level, libc::SO_BINDTODEVICE, name.as_mut_ptr(), &raw mut len);
    format!("{} {:?}", sys::show(result), &name[..len.min(16) as usize])
}

pub(super) fn devices() {
    alone();
    const INDEX: i32 = 62;
    let level = libc::SOL_SOCKET;
    let bind_to = |fd: i64, name: &[u8]| set(fd, level, libc::SO_BINDTODEVICE, name);
    for fd in
        [udp(), tcp(), socket(libc::AF_INET6, libc::SOCK_DGRAM), socket(libc::AF_UNIX, libc::SOCK_STREAM)]
    {
        println!("at first {} {}", device(fd, 16), option(fd, level, INDEX));
        report("lo", bind_to(fd, b"lo\0"));
        println!("{} {}", device(fd, 16), device(fd, 4));
        report("none such", bind_to(fd, b"eth9\0"));
        report("a long name", bind_to(fd, &[b'l'; 100]));
        report("nowhere", sys!(libc::SYS_setsockopt, fd, level, libc::SO_BINDTODEVICE, 8, 4));
        report("no end", bind_to(fd, b"lo"));
        report("none", bind_to(fd, b""));
        println!("{} {}", device(fd, 4), option(fd, level, INDEX));
        for index in [1, 9, -1, 0] {
            report("by number", set_option(fd, level, INDEX, index));
            println!("is {} {}", option(fd, level, INDEX), device(fd, 16));
        }
    }
    // What comes in by another interface is not heard: there is none, but one can be bound to it.
    let server = tcp();
    report("by number", set_option(server, level, INDEX, 9));
    report("bind", bind(server, &v4(LOCAL, 0)));
    report("listen", super::listen(server, 1));
    let to = v4(LOCAL, port(server));
    report("not heard", connect(tcp(), &to));
    let other = tcp();
    report("lo", bind_to(other, b"lo\0"));
    report("beside it", bind(other, &to));
    report("listen", super::listen(other, 1));
    let client = tcp();
    report("lo", bind_to(client, b"lo\0"));
    report("connect", connect(client, &to));
    let pid = fork(|| {
        sys!(libc::SYS_setgroups, 0, 0);
        report("setresgid", sys!(libc::SYS_setresgid, 1000, 1000, 1000));
        report("setresuid", sys!(libc::SYS_setresuid, 1000, 1000, 1000));
        let fd = udp();
        report("the first", bind_to(fd, b"lo\0"));
        report("another", bind_to(fd, b"lo\0"));
        report("none such", bind_to(fd, b"eth9\0"));
        report("none", bind_to(fd, b""));
        report("by number", set_option(fd, level, INDEX, 0));
        0
    });
    println!("{}", wait(pid));
}

/// The tables of those who ping, without what varies.
pub(super) fn tables() {
    alone();
    let raw = sys!(libc::SYS_socket, libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP);
    let raw6 = sys!(libc::SYS_socket, libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6);
    report("bind", bind(raw6, &v6(LOCAL6, 0)));
    report("connect", connect(raw, &v4(LOCAL, 5)));
    let other = sys!(libc::SYS_socket, libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP);
    report("bind", bind(other, &v4(LOCAL, 0)));
    for name in ["raw", "raw6", "icmp", "icmp6", "udp6"] {
        let text = std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
        let mut lines: Vec<String> = text
            .lines()
            .skip(1)
            .map(|line| {
                let parts: Vec<&str> = line.split_whitespace().collect();
                format!("{} wide, {:?}", line.find(':').unwrap_or(0), parts.get(1..9).unwrap_or_default())
            })
            .collect();
        lines.sort();
        println!("{name}: {:?}", text.lines().next());
        println!("{lines:#?}");
    }
    close(raw);
}
