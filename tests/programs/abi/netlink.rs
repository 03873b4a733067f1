//! Netlink sockets, and what else says what there is of the network: of the loopback interface, which every network has.

use crate::Case;
use crate::sys::{self, close, report, report_ok};

mod generic;
mod made;
mod unix;

pub(crate) const CASES: &[Case] = &[
    ("netlink_kinds", kinds),
    ("netlink_names", names),
    ("netlink_links", links),
    ("netlink_addresses", addresses),
    ("netlink_rules", rules),
    ("netlink_routes", routes),
    ("netlink_refused", refused),
    ("netlink_nonsense", nonsense),
    ("netlink_reading", reading),
    ("netlink_options", options),
    ("netlink_sockets", sockets),
    ("netlink_unix", unix::tables),
    ("netlink_generic", generic::controller),
    ("netlink_loopback", made::loopback),
    ("netlink_pairs", made::pairs),
    ("netlink_between", made::between),
    ("netlink_named", made::named),
    ("interface_requests", requests),
    ("interface_drivers", drivers),
];

const ROUTE: i32 = 0;
const DIAG: i32 = 4;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const GET_LINK: u16 = 18;
const GET_ADDRESS: u16 = 22;
const GET_ROUTE: u16 = 26;
const GET_RULE: u16 = 34;

fn netlink(protocol: i32) -> i64 {
    sys!(libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol)
}

fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = ((16 + payload.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(7_u32.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

fn send(fd: i64, bytes: &[u8]) -> i64 {
    sys!(libc::SYS_sendto, fd, bytes.as_ptr(), bytes.len(), 0, 0, 0)
}

fn receive(fd: i64, flags: i32) -> (i64, Vec<u8>) {
    let mut bytes = vec![0_u8; 65_536];
    let flags = flags | libc::MSG_DONTWAIT;
    let count = sys!(libc::SYS_recvfrom, fd, bytes.as_mut_ptr(), bytes.len(), flags, 0, 0);
    bytes.truncate(count.max(0) as usize);
    (count, bytes)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |half| u16::from_ne_bytes([half[0], half[1]]))
}

/// All messages that wait, until there are none.
fn all(fd: i64) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let (count, bytes) = receive(fd, 0);
        if count <= 0 {
            return all;
        }
        let mut rest = &bytes[..];
        while rest.len() >= 16 {
            let len = (word(rest, 0) as usize).clamp(16, rest.len());
            all.push(rest[..len].to_vec());
            rest = &rest[len.next_multiple_of(4).min(rest.len())..];
        }
    }
}

/// The attributes behind a fixed part: type and value.
fn attributes(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut all = Vec::new();
    while bytes.len() >= 4 {
        let len = usize::from(half(bytes, 0)).clamp(4, bytes.len());
        all.push((half(bytes, 2), bytes[4..len].to_vec()));
        bytes = &bytes[len.next_multiple_of(4).min(bytes.len())..];
    }
    all
}

/// Says what a message is: errors and ends whole, of others the type.
fn tell(message: &[u8]) {
    let (kind, flags, sequence) = (half(message, 4), half(message, 6), word(message, 8));
    match kind {
        2 => println!("error {} flags {flags:#x} of {sequence}", word(message, 16) as i32),
        3 => println!("done {} flags {flags:#x} of {sequence}", word(message, 16)),
        kind => println!("type {kind} flags {flags:#x} of {sequence}"),
    }
}

/// Sends a request, and says what it is answered with: of records those that `wanted` holds for, by the attributes in `shown`.
fn asked(what: &str, request: &[u8], fixed: usize, shown: &[u16], wanted: fn(&[u8]) -> bool) {
    println!("{what}");
    let fd = netlink(ROUTE);
    report("sent", send(fd, request));
    for message in all(fd) {
        if half(&message, 4) < 16 {
            tell(&message);
        } else if wanted(&message[16..]) {
            tell(&message);
            println!("{:?}", &message[16..16 + fixed]);
            let mut known = attributes(&message[16 + fixed..]);
            known.retain(|(kind, _)| shown.contains(kind));
            known.sort();
            println!("{known:?}");
        }
    }
    close(fd);
}

fn kinds() {
    for (kind, protocol) in [(1, 0), (2, 0), (3, 0), (5, 0), (3, -1), (3, 32), (3, 1000), (2, 4)] {
        let fd = sys!(libc::SYS_socket, libc::AF_NETLINK, kind, protocol);
        report_ok(&format!("{kind} {protocol}"), fd);
        if fd >= 0 {
            let (mut value, mut len) = (7_i32, 4_u32);
            for name in [libc::SO_TYPE, libc::SO_DOMAIN, libc::SO_PROTOCOL] {
                report(
                    "option",
                    sys!(libc::SYS_getsockopt, fd, libc::SOL_SOCKET, name, &raw mut value, &raw mut len),
                );
                println!("{name} {value}");
            }
            report("listen", sys!(libc::SYS_listen, fd, 1));
            report("accept", sys!(libc::SYS_accept4, fd, 0, 0, 0));
            report("shutdown", sys!(libc::SYS_shutdown, fd, 2));
            close(fd);
        }
    }
    let mut ends = [0_i32; 2];
    report("pair", sys!(libc::SYS_socketpair, libc::AF_NETLINK, libc::SOCK_RAW, 0, ends.as_mut_ptr()));
}

fn name(port: u32, groups: u32) -> Vec<u8> {
    let family = (libc::AF_NETLINK as u16).to_ne_bytes();
    [&family[..], &[0; 2], &port.to_ne_bytes(), &groups.to_ne_bytes()].concat()
}

fn own_name(fd: i64) {
    let (mut bytes, mut len) = ([0_u8; 20], 20_u32);
    report("name", sys!(libc::SYS_getsockname, fd, bytes.as_mut_ptr(), &raw mut len));
    let own = sys!(libc::SYS_getpid) as u32;
    let port = if word(&bytes, 4) == own { "the process's".to_owned() } else { word(&bytes, 4).to_string() };
    println!("{len} family {} port {port} groups {}", half(&bytes, 0), word(&bytes, 8));
}

fn names() {
    let bind = |fd: i64, name: &[u8]| sys!(libc::SYS_bind, fd, name.as_ptr(), name.len());
    let (a, b) = (netlink(ROUTE), netlink(ROUTE));
    own_name(a);
    report("short", bind(a, &name(0, 0)[..11]));
    report("other", bind(a, &[1; 12]));
    report("bind", bind(a, &name(0, 1)));
    own_name(a);
    report("again", bind(a, &name(5, 1)));
    report("the same", bind(a, &name(sys!(libc::SYS_getpid) as u32, 3)));
    own_name(a);
    report("number", bind(b, &name(4_000_000_000, 0)));
    own_name(b);
    let c = netlink(ROUTE);
    report("taken", bind(c, &name(4_000_000_000, 0)));
    close(b);
    report("free again", bind(c, &name(4_000_000_000, 0)));
    let to = name(0, 0);
    report("connect", sys!(libc::SYS_connect, c, to.as_ptr(), to.len()));
    close(a);
    close(c);
    // Of another protocol it is another number.
    let (a, b) = (netlink(ROUTE), netlink(DIAG));
    report("route", bind(a, &name(77, 0)));
    report("diag", bind(b, &name(77, 0)));
    close(a);
    close(b);
}

/// Name, mtu, link-layer address and broadcast.
const LINK: [u16; 4] = [1, 2, 3, 4];

fn is_lo(payload: &[u8]) -> bool {
    word(payload, 4) == 1
}

fn links() {
    crate::inet::up();
    let mut by_index = vec![0; 16];
    by_index[4] = 1;
    asked("by number", &message(GET_LINK, REQUEST, &by_index), 16, &LINK, is_lo);
    asked("acknowledged", &message(GET_LINK, REQUEST | ACK, &by_index), 16, &LINK, is_lo);
    let by_name = [&[0; 16][..], &7_u16.to_ne_bytes(), &3_u16.to_ne_bytes(), b"lo\0\0"].concat();
    asked("by name", &message(GET_LINK, REQUEST, &by_name), 16, &LINK, is_lo);
    asked("all", &message(GET_LINK, REQUEST | DUMP, &[0; 16]), 16, &LINK, is_lo);
    by_index[4..8].copy_from_slice(&9999_u32.to_ne_bytes());
    asked("unknown", &message(GET_LINK, REQUEST, &by_index), 16, &LINK, is_lo);
    asked("none", &message(GET_LINK, REQUEST, &[0; 16]), 16, &LINK, is_lo);
}

fn addresses() {
    crate::inet::up();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut payload = [0; 8];
        payload[0] = family as u8;
        asked("addresses", &message(GET_ADDRESS, REQUEST | DUMP, &payload), 8, &[1, 2, 3, 8], is_lo);
    }
}

fn rules() {
    let mut payload = [0; 12];
    payload[0] = libc::AF_INET as u8;
    asked("rules", &message(GET_RULE, REQUEST | DUMP, &payload), 12, &[6, 15], |_| true);
}

fn routes() {
    crate::inet::up();
    let mut payload = [0; 12];
    (payload[0], payload[1]) = (libc::AF_INET as u8, 32);
    let to = [&payload[..], &8_u16.to_ne_bytes(), &1_u16.to_ne_bytes(), &[127, 0, 0, 1]].concat();
    println!("a way");
    let fd = netlink(ROUTE);
    report("sent", send(fd, &message(GET_ROUTE, REQUEST, &to)));
    for message in all(fd) {
        tell(&message);
        let known = attributes(&message[28..]);
        let mut shown: Vec<_> = known.iter().filter(|(kind, _)| matches!(kind, 1 | 4 | 7)).collect();
        shown.sort();
        println!("kind {} {shown:?}", message[16 + 7]);
    }
    close(fd);
}

fn refused() {
    let quiet = |_: &[u8]| false;
    asked("no request", &message(GET_LINK, DUMP, &[0; 16]), 0, &[], quiet);
    asked("no request, acknowledged", &message(GET_LINK, ACK, &[0; 16]), 0, &[], quiet);
    asked("a control message", &message(1, REQUEST | ACK, &[]), 0, &[], quiet);
    asked("a large type", &message(999, REQUEST, &[0; 16]), 0, &[], quiet);
    asked("without a family", &message(GET_LINK, REQUEST | ACK, &[]), 0, &[], quiet);
    let two = [message(999, REQUEST, &[0; 4]), message(998, REQUEST | ACK, &[0; 4])].concat();
    asked("two", &two, 0, &[], quiet);
    let fd = netlink(DIAG);
    report("another type", send(fd, &message(99, REQUEST, &[0; 4])));
    all(fd).iter().for_each(|message| tell(message));
    report("short", send(fd, &message(20, REQUEST, &[2])));
    all(fd).iter().for_each(|message| tell(message));
    close(fd);
}

fn nonsense() {
    for len in [0_u32, 1, 15, 17, 64, u32::MAX] {
        let fd = netlink(ROUTE);
        let mut bytes = message(GET_LINK, REQUEST | ACK, &[]);
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        report(&format!("length {len}"), send(fd, &bytes));
        println!("{} answers", all(fd).len());
        close(fd);
    }
    let fd = netlink(ROUTE);
    report("nothing", send(fd, &[]));
    report("few", send(fd, &[1, 2, 3]));
    report("from nowhere", sys!(libc::SYS_sendto, fd, 8, 20, 0, 0, 0));
    let bytes = message(GET_LINK, REQUEST | ACK, &[]);
    report("urgent", sys!(libc::SYS_sendto, fd, bytes.as_ptr(), bytes.len(), libc::MSG_OOB, 0, 0));
    let short = name(0, 0);
    report("to", sys!(libc::SYS_sendto, fd, bytes.as_ptr(), bytes.len(), 0, short.as_ptr(), 11));
    let large = vec![0_u8; 1 << 20];
    report("large", send(fd, &large));
    close(fd);
}

fn reading() {
    crate::inet::up();
    let fd = netlink(ROUTE);
    let mut poll = libc::pollfd { fd: fd as i32, events: libc::POLLIN | libc::POLLOUT, revents: 0 };
    let mut ready = |what: &str| {
        sys!(libc::SYS_ppoll, &raw mut poll, 1, [0_u64; 2].as_ptr(), 0, 8);
        println!("{what}: {:#x}", poll.revents);
    };
    ready("fresh");
    report("nothing", receive(fd, 0).0);
    let mut payload = vec![0; 16];
    payload[4] = 1;
    report("sent", send(fd, &message(GET_LINK, REQUEST, &payload)));
    ready("answered");
    let (whole, peeked) = receive(fd, libc::MSG_PEEK);
    let mut small = [0_u8; 20];
    let flags = libc::MSG_PEEK | libc::MSG_TRUNC;
    let full = sys!(libc::SYS_recvfrom, fd, small.as_mut_ptr(), small.len(), flags, 0, 0);
    println!("whole {} first {}", full == whole, small == peeked[..20]);
    let (mut from, mut len) = ([9_u8; 16], 16_u32);
    report(
        "cut",
        sys!(libc::SYS_recvfrom, fd, small.as_mut_ptr(), small.len(), 0, from.as_mut_ptr(), &raw mut len),
    );
    println!("from {:?} {len}", &from[..12]);
    report("gone", receive(fd, 0).0);
    ready("read");
    close(fd);
}

fn options() {
    let fd = netlink(ROUTE);
    for name in [3, 4, 5, 10, 11, 12, 99] {
        let (mut value, mut len) = (7_i32, 4_u32);
        let mut get = |what: &str| {
            let result = sys!(libc::SYS_getsockopt, fd, 270, name, &raw mut value, &raw mut len);
            println!("{name} {what}: {} {value} {len}", sys::show(result));
        };
        get("at first");
        report("set", sys!(libc::SYS_setsockopt, fd, 270, name, [5_i32].as_ptr(), 4));
        get("then");
        report("unset", sys!(libc::SYS_setsockopt, fd, 270, name, [0_i32].as_ptr(), 4));
        get("last");
    }
    report("join", sys!(libc::SYS_setsockopt, fd, 270, 1, [1_i32].as_ptr(), 4));
    report("join none", sys!(libc::SYS_setsockopt, fd, 270, 1, [0_i32].as_ptr(), 4));
    own_name(fd);
    report("leave", sys!(libc::SYS_setsockopt, fd, 270, 2, [1_i32].as_ptr(), 4));
    own_name(fd);
    report("another level", sys!(libc::SYS_setsockopt, fd, 6, 1, [1_i32].as_ptr(), 4));
    close(fd);
}

/// sock_diag(7) and /proc/net find a listener, by its port, and say the same of it.
fn sockets() {
    crate::inet::up();
    let fd = sys!(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0);
    let port = 7391_u16;
    let local = [&2_u16.to_ne_bytes()[..], &port.to_be_bytes(), &[127, 0, 0, 1], &[0; 8]].concat();
    report("bind", sys!(libc::SYS_bind, fd, local.as_ptr(), local.len()));
    // Kernels whose sock_diag is a module that nobody loads have no say.
    let unknown = |message: &[u8]| half(message, 4) == 2 && word(message, 16) == -libc::ENOENT as u32;
    let find = |what: &str, expected: &[&str]| {
        let diag = netlink(DIAG);
        let mut request = vec![0_u8; 56];
        (request[0], request[1]) = (2, 6);
        // All states of Linux 6.1: later ones tell of ports that are only bound, too.
        request[4..8].copy_from_slice(&0xfff_u32.to_ne_bytes());
        send(diag, &message(20, REQUEST | DUMP, &request));
        for message in all(diag) {
            let payload = &message[16..];
            if unknown(&message) {
                expected.iter().for_each(|line| println!("{what}: {line}"));
            } else if half(&message, 4) == 20 && half(payload, 4) == port.to_be() {
                let queues = (word(payload, 56), word(payload, 60));
                let (family, state, uid) = (payload[0], payload[1], word(payload, 64));
                println!("{what}: {family} {state} {:?} {queues:?} {uid}", &payload[8..12]);
            }
        }
        close(diag);
        let text = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        for line in text.lines().filter(|line| line.contains(" 0100007F:1CDF ")) {
            let words: Vec<_> = line.split_whitespace().collect();
            println!("{what}: {} {} {} {} {}", words[1], words[2], words[3], words[4], words[7]);
        }
    };
    find("bound", &[]);
    report("listen", sys!(libc::SYS_listen, fd, 5));
    find("listening", &["2 10 [127, 0, 0, 1] (0, 5) 0"]);
    let client = sys!(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0);
    report("connect", sys!(libc::SYS_connect, client, local.as_ptr(), local.len()));
    let waiting = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let listener = waiting.lines().find(|line| line.contains(" 0100007F:1CDF 00000000:0000 0A "));
    println!("{:?}", listener.and_then(|line| line.split_whitespace().nth(4)));
    close(client);
    close(fd);
}

/// What ioctl(2) says of the loopback interface.
fn requests() {
    crate::inet::up();
    let fd = sys!(libc::SYS_socket, libc::AF_INET, libc::SOCK_DGRAM, 0);
    for request in [0x8913_u64, 0x8915, 0x8917, 0x8919, 0x891b, 0x891d, 0x8921, 0x8927, 0x8933] {
        for name in ["lo", "no-such"] {
            let mut bytes = [0_u8; 40];
            bytes[..name.len()].copy_from_slice(name.as_bytes());
            let result = sys!(libc::SYS_ioctl, fd, request, bytes.as_mut_ptr());
            println!("{request:#x} {name}: {} {:?}", sys::show(result), &bytes[16..32]);
        }
        report("nowhere", sys!(libc::SYS_ioctl, fd, request, 8));
    }
    for index in [1_u32, 9999, 0] {
        let mut bytes = [0_u8; 40];
        bytes[16..20].copy_from_slice(&index.to_ne_bytes());
        let result = sys!(libc::SYS_ioctl, fd, 0x8910, bytes.as_mut_ptr());
        println!("name of {index}: {} {:?}", sys::show(result), &bytes[..4]);
    }
    let mut room = [0_u8; 40];
    let mut list = [40_u64, room.as_mut_ptr() as u64];
    report("list", sys!(libc::SYS_ioctl, fd, 0x8912, list.as_mut_ptr()));
    println!("{} {:?} {:?}", list[0] as u32, &room[..3], &room[16..24]);
    // Libraries ask a socket of any family.
    for domain in [libc::AF_UNIX, libc::AF_NETLINK, libc::AF_INET6] {
        let other = sys!(libc::SYS_socket, domain, libc::SOCK_DGRAM, 0);
        let mut bytes = [0_u8; 40];
        bytes[..2].copy_from_slice(b"lo");
        report("index", sys!(libc::SYS_ioctl, other, 0x8933_u64, bytes.as_mut_ptr()));
        println!("{:?}", &bytes[16..20]);
        close(other);
    }
    list = [39, room.as_mut_ptr() as u64];
    report("no room", sys!(libc::SYS_ioctl, fd, 0x8912, list.as_mut_ptr()));
    println!("{}", list[0] as u32);
    close(fd);
}

/// What drivers know of interfaces, of which the loopback has none: SIOCETHTOOL and its siblings.
fn drivers() {
    crate::inet::up();
    let ask = |what: &str, user: bool| {
        let fd = sys!(libc::SYS_socket, libc::AF_INET, libc::SOCK_DGRAM, 0);
        if user {
            crate::setid::become_user(&[]);
        }
        for name in ["lo", "no-such"] {
            // SIOCGIFMAP, SIOCGIFSLAVE, SIOCGMIIPHY, SIOCGMIIREG, SIOCDEVPRIVATE, SIOCBONDINFOQUERY, SIOCGHWTSTAMP, then what
            // changes something or nobody knows.
            for request in [0x8970_u64, 0x8929, 0x8947, 0x8948, 0x89f0, 0x8994, 0x89b1, 0x8949] {
                let mut bytes = [0_u8; 40];
                bytes[..name.len()].copy_from_slice(name.as_bytes());
                report(
                    &format!("{what} {request:#x} {name}"),
                    sys!(libc::SYS_ioctl, fd, request, bytes.as_mut_ptr()),
                );
            }
            // Settings, driver, link, ring, setting, statistics, unknown.
            for command in [1_u32, 3, 0xa, 0x10, 2, 0x1d, 0xffff] {
                let mut asked = [command, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                let mut bytes = [0_u8; 40];
                bytes[..name.len()].copy_from_slice(name.as_bytes());
                bytes[16..24].copy_from_slice(&(asked.as_mut_ptr() as u64).to_ne_bytes());
                let result = sys!(libc::SYS_ioctl, fd, 0x8946_u64, bytes.as_mut_ptr());
                println!("{what} ethtool {command:#x} {name}: {} {}", sys::show(result), asked[1]);
            }
        }
        let mut bytes = [0_u8; 40];
        bytes[..2].copy_from_slice(b"lo");
        bytes[16] = 8;
        report("nowhere", sys!(libc::SYS_ioctl, fd, 0x8946_u64, bytes.as_mut_ptr()));
        close(fd);
    };
    ask("root", false);
    sys::in_child("user", || {
        ask("user", true);
        0
    });
}
