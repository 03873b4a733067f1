//! Families, types, addresses and names.

use super::{
    ANY6, LOCAL, LOCAL6, accept, bind, connect, listen, listener, option, pair, port, set_option, socket,
    tcp, tcp6, told, up, v4, v6, words,
};
use crate::sys::{self, close, report};

pub(super) fn kinds() {
    for domain in [libc::AF_INET, libc::AF_INET6] {
        for (kind, protocol) in [(1, 0), (1, 6), (1, 17), (1, 300), (1, -1), (5, 0), (4, 0), (9, 0), (11, 0)]
        {
            let fd = sys!(libc::SYS_socket, domain, kind, protocol);
            println!("{kind} {protocol}: {}", if fd < 0 { sys::show(fd) } else { "made".to_owned() });
            if fd >= 0 {
                for name in [libc::SO_TYPE, libc::SO_DOMAIN, libc::SO_PROTOCOL, libc::SO_ACCEPTCONN] {
                    println!("option {name}: {}", sys::show(option(fd, libc::SOL_SOCKET, name)));
                }
                close(fd);
            }
        }
        let mut fds = [0_i32; 2];
        report("pair", sys!(libc::SYS_socketpair, domain, libc::SOCK_STREAM, 0, fds.as_mut_ptr()));
        report("pair", sys!(libc::SYS_socketpair, domain, libc::SOCK_STREAM, 17, fds.as_mut_ptr()));
    }
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let fd = socket(libc::AF_INET, libc::SOCK_STREAM | flags);
    println!("{:#o}", sys!(libc::SYS_fcntl, fd, libc::F_GETFL));
    println!("{}", sys!(libc::SYS_fcntl, fd, libc::F_GETFD));
    report("bad flag", socket(libc::AF_INET, libc::SOCK_STREAM | 0x100));
}

pub(super) fn addresses() {
    up();
    let good = v4(LOCAL, 0);
    for len in [0, 1, 2, 8, 15] {
        report("short", bind(tcp(), &good[..len]));
        report("short", connect(tcp(), &good[..len]));
    }
    report("long", sys!(libc::SYS_bind, tcp(), good.as_ptr(), 129));
    report("huge", sys!(libc::SYS_bind, tcp(), good.as_ptr(), -1));
    report("nowhere", sys!(libc::SYS_bind, tcp(), 8, 16));
    let long = [good.clone(), vec![0; 100]].concat();
    report("longer", bind(tcp(), &long));
    let six = v6(LOCAL6, 0);
    report("of the other family", bind(tcp(), &six));
    report("of the other family", connect(tcp(), &six));
    report("of the other family", bind(tcp6(), &[good.clone(), vec![0; 12]].concat()));
    report("of the other family", connect(tcp6(), &[good.clone(), vec![0; 12]].concat()));
    report("short", bind(tcp6(), &six[..23]));
    report("without a scope", bind(tcp6(), &six[..24]));
    let unspecified = |ip: [u8; 4]| [&[0, 0, 0, 0][..], &ip, &[0; 8]].concat();
    report("no family", bind(tcp(), &unspecified([0; 4])));
    report("no family", bind(tcp(), &unspecified(LOCAL)));
    report("strange family", bind(tcp(), &[&[77, 0][..], &good[2..]].concat()));
    report("not ours", bind(tcp(), &v4([203, 0, 113, 1], 0)));
    report("not ours", bind(tcp6(), &v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 0)));
    report("another one of ours", bind(tcp(), &v4([127, 1, 2, 3], 0)));
    report("group", connect(tcp(), &v4([224, 0, 0, 1], 80)));
    let fd = tcp();
    report("bind", bind(fd, &good));
    report("bind again", bind(fd, &good));
}

pub(super) fn names() {
    up();
    let show = |what: &str, fd: i64, ports: &[(&str, u16)]| {
        for number in [libc::SYS_getsockname, libc::SYS_getpeername] {
            let (result, name) = told(number, fd);
            let name = if result == 0 { words(&name, ports) } else { String::new() };
            println!("{what}: {} {name}", sys::show(result));
        }
    };
    show("fresh", tcp(), &[]);
    show("fresh", tcp6(), &[]);
    let (server, address) = listener(5);
    let known = [("the server", port(server))];
    show("listening", server, &known);
    let client = tcp();
    report("connect", connect(client, &address));
    let known = [known[0], ("the client", port(client))];
    show("client", client, &known);
    let accepted = accept(server);
    show("accepted", accepted, &known);
    let elsewhere = tcp();
    report("bind", bind(elsewhere, &v4([127, 9, 9, 9], 0)));
    report("connect", connect(elsewhere, &address));
    show("elsewhere", elsewhere, &[known[0], ("its own", port(elsewhere))]);
    let any = tcp();
    report("bind", bind(any, &v4([0; 4], 0)));
    let own = [known[0], ("its own", port(any))];
    show("any", any, &own);
    report("connect to none", connect(any, &v4([0; 4], port(server))));
    show("connected", any, &own);
    let (mut name, mut len) = ([0_u8; 16], 5_u32);
    report("cut", sys!(libc::SYS_getsockname, server, name.as_mut_ptr(), &raw mut len));
    println!("{len} {:?}", [&name[..2], &name[5..]].concat());
    len = -1_i32 as u32;
    report("negative", sys!(libc::SYS_getsockname, server, name.as_mut_ptr(), &raw mut len));
    report("nowhere", sys!(libc::SYS_getsockname, server, 8, &raw mut len));
}

pub(super) fn mapped_names(fd: i64, ports: &[(&str, u16)]) {
    for number in [libc::SYS_getsockname, libc::SYS_getpeername] {
        let (result, name) = told(number, fd);
        println!("{} {}", sys::show(result), words(&name, ports));
    }
}

pub(super) fn mapped() {
    up();
    let server = tcp6();
    report("bind", bind(server, &v6(ANY6, 0)));
    report("listen", listen(server, 5));
    let known = ("the server", port(server));
    let four = tcp();
    report("connect", connect(four, &v4(LOCAL, port(server))));
    let accepted = accept(server);
    mapped_names(accepted, &[known, ("the client", port(four))]);
    let six = tcp6();
    report("connect", connect(six, &v6(mapped_ip(), port(server))));
    mapped_names(six, &[known, ("the client", port(six))]);
    mapped_names(accept(server), &[known, ("the client", port(six))]);
    let six = tcp6();
    report("connect to none", connect(six, &v6(ANY6, port(server))));
    mapped_names(six, &[known, ("the client", port(six))]);
    let only = tcp6();
    report("V6ONLY", set_option(only, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1));
    report("connect", connect(only, &v6(mapped_ip(), port(server))));
    report("bind", bind(only, &v6(mapped_ip(), 0)));
    report("bind", bind(only, &v6(ANY6, 0)));
    report("V6ONLY", set_option(only, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0));
    report("listen", listen(only, 5));
    report("not for others", connect(tcp(), &v4(LOCAL, port(only))));
    report("for its own", connect(tcp6(), &v6(LOCAL6, port(only))));
    let at = tcp6();
    report("bind", bind(at, &v6(mapped_ip(), 0)));
    println!("{}", words(&told(libc::SYS_getsockname, at).1, &[("its own", port(at))]));
}

fn mapped_ip() -> [u16; 8] {
    super::mapped(LOCAL)
}

pub(super) fn accepted() {
    let (server, address) = listener(5);
    let client = tcp();
    report("connect", connect(client, &address));
    let (accepted, name) = told(libc::SYS_accept4, server);
    println!("{} {}", accepted > 0, words(&name, &[("the client", port(client))]));
    // Who has gone before he is accepted had a name all the same.
    let client = tcp();
    report("connect", connect(client, &address));
    let known = [("the client", port(client))];
    close(client);
    let (accepted, name) = told(libc::SYS_accept4, server);
    println!("{} {}", accepted > 0, words(&name, &known));
    report("accept flags", sys!(libc::SYS_accept4, server, 0, 0, 0x100));
    let client = tcp();
    report("connect", connect(client, &address));
    let (mut name, mut len) = ([0_u8; 16], 2_u32);
    let fd = sys!(libc::SYS_accept4, server, name.as_mut_ptr(), &raw mut len, libc::SOCK_NONBLOCK);
    println!("{len} {} {:#o}", name[2] == 0, sys!(libc::SYS_fcntl, fd, libc::F_GETFL));
    let (client, accepted, _) = pair();
    let (mut byte, mut len) = ([0_u8; 4], 16_u32);
    sys::write(client, b"x");
    report("recvfrom", {
        sys!(libc::SYS_recvfrom, accepted, byte.as_mut_ptr(), 4, 0, name.as_mut_ptr(), &raw mut len)
    });
    println!("a stream's bytes have no address: {len}");
    let far = v4([203, 0, 113, 1], 80);
    report("nor are they sent to one", {
        sys!(libc::SYS_sendto, client, byte.as_ptr(), 4, 0, far.as_ptr(), far.len())
    });
}
