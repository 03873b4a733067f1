//! Interfaces that programs make and change: in a network of one's own, with pairs of veth where there are such.
//!
//! Not every machine that this is compared with has them: what is as it should be is not printed.

use super::{ACK, REQUEST, ROUTE, message, netlink, receive, send, word};
use crate::sys::{self, close, fork, in_child, wait};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

const CREATE: u16 = 0x400;
const EXCL: u16 = 0x200;
const REPLACE: u16 = 0x100;
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const LO: u32 = 1;
const UP: u32 = libc::IFF_UP as u32;

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

/// struct ifinfomsg.
fn link(index: u32, flags: u32, mask: u32) -> Vec<u8> {
    [&[0; 4][..], &index.to_ne_bytes(), &flags.to_ne_bytes(), &mask.to_ne_bytes()].concat()
}

/// A pair of veth by these names; the second is in the network of a process, if one is named.
fn veth(names: [&str; 2], process: Option<u32>) -> Vec<u8> {
    let mut peer = [link(0, 0, 0), text(libc::IFLA_IFNAME, names[1])].concat();
    if let Some(process) = process {
        peer.extend(attribute(libc::IFLA_NET_NS_PID, &process.to_ne_bytes()));
    }
    // VETH_INFO_PEER.
    let data = attribute(libc::IFLA_INFO_DATA, &attribute(1, &peer));
    let info = [text(libc::IFLA_INFO_KIND, "veth"), data].concat();
    let info = attribute(libc::IFLA_LINKINFO, &info);
    [link(0, 0, 0), text(libc::IFLA_IFNAME, names[0]), info].concat()
}

/// An IPv4 address: struct ifaddrmsg.
fn address(index: u32, ip: [u8; 4], prefix: u8) -> Vec<u8> {
    let head = [&[libc::AF_INET as u8, prefix, 0, 0][..], &index.to_ne_bytes()].concat();
    [head, attribute(libc::IFA_LOCAL, &ip), attribute(libc::IFA_ADDRESS, &ip)].concat()
}

/// A way of IPv4: struct rtmsg.
fn way(to: [u8; 4], prefix: u8, gateway: Option<[u8; 4]>, index: Option<u32>) -> Vec<u8> {
    // RT_TABLE_MAIN, RTPROT_BOOT; what has no gateway is on the link.
    let scope = if gateway.is_some() { 0 } else { 253 };
    let mut bytes = vec![libc::AF_INET as u8, prefix, 0, 0, 254, 3, scope, 1, 0, 0, 0, 0];
    bytes.extend(attribute(libc::RTA_DST, &to));
    bytes.extend(gateway.map(|by| attribute(libc::RTA_GATEWAY, &by)).unwrap_or_default());
    bytes.extend(index.map(|index| attribute(libc::RTA_OIF, &index.to_ne_bytes())).unwrap_or_default());
    bytes
}

/// What a request is answered: the error, or 0.
fn asked(kind: u16, flags: u16, payload: &[u8]) -> i32 {
    let fd = netlink(ROUTE);
    send(fd, &message(kind, REQUEST | ACK | flags, payload));
    let (_, answer) = receive(fd, 0);
    close(fd);
    -(word(&answer, 16) as i32)
}

/// Prints what differs from what is expected.
fn expect(what: &str, found: i32, errno: i32) {
    if found != errno {
        println!("{what}: {found} instead of {errno}");
    }
}

fn index(name: &str) -> u32 {
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let socket = sys!(libc::SYS_socket, libc::AF_INET, libc::SOCK_DGRAM, 0);
    let found = sys!(libc::SYS_ioctl, socket, libc::SIOCGIFINDEX, request.as_mut_ptr());
    close(socket);
    if found == 0 { word(&request, 16) } else { 0 }
}

fn up(name: &str) -> i32 {
    asked(NEW_LINK, 0, &link(index(name), UP, UP))
}

fn connect(to: [u8; 4], port: u16) -> i32 {
    let to = SocketAddr::from((to, port));
    TcpStream::connect(to).map_or_else(|error| error.raw_os_error().unwrap_or(-1), |_| 0)
}

fn alone(what: &str, body: impl FnOnce()) {
    in_child(what, || {
        if sys!(libc::SYS_unshare, libc::CLONE_NEWNET) != 0 {
            println!("no network of its own");
        }
        body();
        0
    });
}

/// The loopback interface of a new network.
pub(super) fn loopback() {
    alone("a new network", || {
        expect("down", connect([127, 0, 0, 1], 9), libc::ENETUNREACH);
        // Its address may be given to it before it is up.
        expect("given", asked(NEW_ADDRESS, CREATE | EXCL, &address(LO, [127, 0, 0, 1], 8)), 0);
        expect("again", asked(NEW_ADDRESS, CREATE | EXCL, &address(LO, [127, 0, 0, 1], 8)), libc::EEXIST);
        expect("up", up("lo"), 0);
        expect("refused", connect([127, 0, 0, 1], 9), libc::ECONNREFUSED);
        expect("all of it", connect([127, 9, 9, 9], 9), libc::ECONNREFUSED);
        expect("one more", asked(NEW_ADDRESS, CREATE | EXCL, &address(LO, [10, 9, 9, 9], 32)), 0);
        let listener = TcpListener::bind("10.9.9.9:0").expect("an address of its own");
        let port = listener.local_addr().map_or(0, |own| own.port());
        expect("there", connect([10, 9, 9, 9], port), 0);
        expect("gone", asked(DELETE_ADDRESS, 0, &address(LO, [10, 9, 9, 9], 32)), 0);
        expect("gone twice", asked(DELETE_ADDRESS, 0, &address(LO, [10, 9, 9, 9], 32)), libc::EADDRNOTAVAIL);
        expect("no way there", connect([10, 9, 9, 9], port), libc::ENETUNREACH);
        expect("too long", asked(NEW_ADDRESS, CREATE, &address(LO, [10, 9, 9, 9], 33)), libc::EINVAL);
        expect("of none", asked(NEW_ADDRESS, CREATE, &address(99, [10, 9, 9, 9], 32)), libc::ENODEV);
        expect("not to be deleted", asked(DELETE_LINK, 0, &link(LO, 0, 0)), libc::EOPNOTSUPP);
        expect("nothing to delete", asked(DELETE_LINK, 0, &link(0, 0, 0)), libc::EINVAL);
        expect("there is none", asked(DELETE_LINK, 0, &link(99, 0, 0)), libc::ENODEV);
        expect("down again", asked(NEW_LINK, 0, &link(LO, 0, UP)), 0);
        let v6 = TcpListener::bind("[::1]:0").err().and_then(|error| error.raw_os_error());
        expect("IPv6 does not", v6.unwrap_or(0), libc::EADDRNOTAVAIL);
    });
}

/// Whether there are pairs at all.
fn has_veth() -> bool {
    asked(NEW_LINK, CREATE | EXCL, &veth(["p0", "p1"], None)) == 0
}

/// A pair in one network, and ways.
pub(super) fn pairs() {
    alone("pairs", || {
        if !has_veth() {
            return;
        }
        let (p0, p1) = (index("p0"), index("p1"));
        expect("the other one came first", i32::from(p1 < p0), 1);
        expect("there already", asked(NEW_LINK, CREATE | EXCL, &veth(["p0", "p2"], None)), libc::EEXIST);
        expect("a bad name", asked(NEW_LINK, CREATE | EXCL, &veth(["a/b", "p2"], None)), libc::EINVAL);
        expect("nothing is left of it", index("p2") as i32, 0);
        let kind = |kind: &str| {
            let info = attribute(libc::IFLA_LINKINFO, &text(libc::IFLA_INFO_KIND, kind));
            [link(0, 0, 0), text(libc::IFLA_IFNAME, "q"), info].concat()
        };
        expect("no kind", asked(NEW_LINK, CREATE | EXCL, &kind("nosuch")), libc::EOPNOTSUPP);
        expect("up", up("p0").max(up("p1")), 0);
        expect("address", asked(NEW_ADDRESS, CREATE | EXCL, &address(p0, [10, 1, 0, 1], 24)), 0);
        expect("second", asked(NEW_ADDRESS, CREATE | EXCL, &address(p0, [10, 1, 0, 2], 24)), 0);
        let add = |way: &[u8]| asked(NEW_ROUTE, CREATE | EXCL, way);
        let gateway = way([10, 3, 0, 0], 16, Some([10, 1, 0, 9]), None);
        expect("by a gateway", add(&gateway), 0);
        expect("again", add(&gateway), libc::EEXIST);
        let other = way([10, 3, 0, 0], 16, Some([10, 1, 0, 8]), None);
        expect("in its place", asked(NEW_ROUTE, CREATE | REPLACE, &other), 0);
        expect(
            "one that is far",
            add(&way([10, 4, 0, 0], 16, Some([172, 16, 0, 1]), None)),
            libc::ENETUNREACH,
        );
        expect("by none", add(&way([10, 4, 0, 0], 16, None, Some(99))), libc::ENODEV);
        expect("beyond the prefix", add(&way([10, 4, 0, 1], 16, None, Some(p0))), libc::EINVAL);
        expect("not there", asked(NEW_ROUTE, 0, &way([10, 5, 0, 0], 16, None, Some(p0))), libc::ENOENT);
        let gone = asked(DELETE_ROUTE, 0, &way([10, 5, 0, 0], 16, None, Some(p0)));
        expect("none such", gone, libc::ESRCH);
        expect("deleted", asked(DELETE_ROUTE, 0, &other), 0);
        expect("the first takes the others", asked(DELETE_ADDRESS, 0, &address(p0, [10, 1, 0, 1], 24)), 0);
        let second = asked(DELETE_ADDRESS, 0, &address(p0, [10, 1, 0, 2], 24));
        expect("along", second, libc::EADDRNOTAVAIL);
        let change = |more: Vec<u8>| asked(NEW_LINK, 0, &[link(p0, 0, 0), more].concat());
        expect("short", change(attribute(libc::IFLA_MTU, &60_u32.to_ne_bytes())), libc::EINVAL);
        expect("long", change(attribute(libc::IFLA_MTU, &70_000_u32.to_ne_bytes())), libc::EINVAL);
        expect("mtu", change(attribute(libc::IFLA_MTU, &1400_u32.to_ne_bytes())), 0);
        expect("for many", change(attribute(libc::IFLA_ADDRESS, &[1, 2, 3, 4, 5, 6])), libc::EADDRNOTAVAIL);
        expect("hardware", change(attribute(libc::IFLA_ADDRESS, &[2, 2, 3, 4, 5, 6])), 0);
        expect("taken", change(text(libc::IFLA_IFNAME, "p1")), libc::EEXIST);
        expect("no name", change(text(libc::IFLA_IFNAME, "..")), libc::EINVAL);
        expect("deleted with the other", asked(DELETE_LINK, 0, &link(p1, 0, 0)), 0);
        expect("both", (index("p0") + index("p1")) as i32, 0);
    });
}

/// Two networks, each with an end of a pair.
pub(super) fn between() {
    alone("between two networks", || {
        if !has_veth() {
            return;
        }
        let (ready, go) = (sys::pipe(0), sys::pipe(0));
        let child = fork(|| {
            sys!(libc::SYS_unshare, libc::CLONE_NEWNET);
            sys::write(ready.1, b"x");
            sys::read(go.0, 1);
            expect("the other's end", i32::from(index("b") > 0), 1);
            expect("lo", up("lo"), 0);
            expect("b", up("b"), 0);
            expect(
                "its address",
                asked(NEW_ADDRESS, CREATE | EXCL, &address(index("b"), [10, 2, 0, 2], 24)),
                0,
            );
            let listener = TcpListener::bind("0.0.0.0:5000").expect("a port");
            let datagrams = UdpSocket::bind("10.2.0.2:5000").expect("a port");
            sys::write(ready.1, b"x");
            let (mut stream, from) = listener.accept().expect("a connection");
            expect("from there", i32::from(from.ip() == Ipv4Addr::new(10, 2, 0, 1)), 1);
            let mut said = [0; 4];
            expect("said", i32::from(stream.read_exact(&mut said).is_ok() && &said == b"ping"), 1);
            let _ = stream.write_all(b"pong");
            let (count, from) = datagrams.recv_from(&mut said).unwrap_or((0, ([0; 4], 0).into()));
            expect("a datagram", i32::from(&said[..count] == b"ping"), 1);
            let _ = datagrams.send_to(b"pong", from);
            sys::read(go.0, 1);
            0
        });
        sys::read(ready.0, 1);
        let made = asked(NEW_LINK, CREATE | EXCL, &veth(["a", "b"], Some(child as u32)));
        expect("a pair", made, 0);
        expect("not here", index("b") as i32, 0);
        expect("a", up("a"), 0);
        expect("address", asked(NEW_ADDRESS, CREATE | EXCL, &address(index("a"), [10, 2, 0, 1], 24)), 0);
        sys::write(go.1, b"x");
        sys::read(ready.0, 1);
        let mut said = [0; 4];
        match TcpStream::connect("10.2.0.2:5000") {
            Ok(mut stream) => {
                let well = stream.write_all(b"ping").and_then(|()| stream.read_exact(&mut said));
                expect("answered", i32::from(well.is_ok() && &said == b"pong"), 1);
            }
            Err(error) => println!("connect: {error}"),
        }
        expect("nobody's port", connect([10, 2, 0, 2], 5001), libc::ECONNREFUSED);
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
        let _ = socket.send_to(b"ping", "10.2.0.2:5000");
        let count = socket.recv(&mut said).unwrap_or(0);
        expect("a datagram back", i32::from(&said[..count] == b"pong"), 1);
        // No way leads from here to what is the other's alone.
        expect("its loopback", connect([127, 0, 0, 1], 5000), libc::ENETUNREACH);
        sys::write(go.1, b"x");
        let ended = wait(child);
        expect(&format!("it {ended}"), i32::from(ended == "exited 0"), 1);
        // Its network is gone, and the pair with it.
        for _ in 0..200 {
            if index("a") == 0 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        expect("gone", index("a") as i32, 0);
    });
}

/// A network that a name keeps (ip-netns(8)).
pub(super) fn named() {
    in_child("a named network", || {
        let place = sys::c("/tmp/a-named-network");
        close(sys::open("/tmp/a-named-network", libc::O_CREAT | libc::O_RDONLY, 0o600));
        expect("own mounts", -sys!(libc::SYS_unshare, libc::CLONE_NEWNS | libc::CLONE_NEWNET) as i32, 0);
        let private = libc::MS_REC | libc::MS_PRIVATE;
        expect("private", -sys!(libc::SYS_mount, 0, sys::c("/").as_ptr(), 0, private, 0) as i32, 0);
        let bind = |what: &str| {
            -sys!(libc::SYS_mount, sys::c(what).as_ptr(), place.as_ptr(), 0, libc::MS_BIND, 0) as i32
        };
        expect("up", up("lo"), 0);
        expect("its own mounts", bind("/proc/self/ns/mnt"), libc::EINVAL);
        expect("named", bind("/proc/self/ns/net"), 0);
        let number = |path: &str| {
            std::fs::metadata(path).map_or(0, |known| std::os::unix::fs::MetadataExt::ino(&known))
        };
        expect("it is it", i32::from(number("/tmp/a-named-network") == number("/proc/self/ns/net")), 1);
        expect("elsewhere", -sys!(libc::SYS_unshare, libc::CLONE_NEWNET) as i32, 0);
        expect("another", connect([127, 0, 0, 1], 9), libc::ENETUNREACH);
        let found = sys::open("/tmp/a-named-network", libc::O_RDONLY, 0);
        expect("back", -sys!(libc::SYS_setns, found, libc::CLONE_NEWNET) as i32, 0);
        close(found);
        expect("the same", connect([127, 0, 0, 1], 9), libc::ECONNREFUSED);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let line = mounts.lines().find(|line| line.contains("a-named-network")).unwrap_or_default();
        let shown = line.contains(" net:[") && line.contains(" - nsfs nsfs rw");
        expect("shown", i32::from(shown), 1);
        expect("unnamed", -sys!(libc::SYS_umount2, place.as_ptr(), 0) as i32, 0);
        let _ = std::fs::remove_file("/tmp/a-named-network");
        0
    });
}
