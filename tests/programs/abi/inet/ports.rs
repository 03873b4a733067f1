//! Who may have which port.

use super::{
    ANY6, LOCAL, LOCAL6, accept, bind, connect, listen, listener, port, set_option, socket, tcp, tcp6, up,
    v4, v6,
};
use crate::sys::{self, close, report};

const REUSE: i32 = libc::SO_REUSEADDR;
const SHARE: i32 = libc::SO_REUSEPORT;

fn with(options: &[i32]) -> i64 {
    let fd = tcp();
    for option in options {
        report("option", set_option(fd, libc::SOL_SOCKET, *option, 1));
    }
    fd
}

pub(super) fn ports() {
    let (server, _) = listener(5);
    let taken = port(server);
    println!("in range {}", taken >= 1024);
    report("taken", bind(tcp(), &v4(LOCAL, taken)));
    report("by any", bind(tcp(), &v4([0; 4], taken)));
    report("elsewhere", bind(tcp(), &v4([127, 0, 0, 2], taken)));
    let bound = tcp();
    report("bind", bind(bound, &v4(LOCAL, 0)));
    report("bound only", bind(tcp(), &v4(LOCAL, port(bound))));
    let taken = port(bound);
    close(bound);
    report("free again", bind(tcp(), &v4(LOCAL, taken)));
    let fd = tcp();
    report("listen unbound", listen(fd, 1));
    println!("has a port {}", port(fd) != 0);
    report("connect", connect(tcp(), &v4(LOCAL, port(fd))));
    // Who has connected has a port that nobody else may bind.
    let client = tcp();
    report("connect", connect(client, &v4(LOCAL, port(fd))));
    report("bind", bind(tcp(), &v4([0; 4], port(client))));
    report("bind", bind(client, &v4(LOCAL, 0)));
}

pub(super) fn reused() {
    up();
    let one = with(&[REUSE]);
    report("bind", bind(one, &v4(LOCAL, 0)));
    let at = v4(LOCAL, port(one));
    let two = with(&[REUSE]);
    report("both say so", bind(two, &at));
    report("only one", bind(tcp(), &at));
    report("listen", listen(one, 1));
    report("listen too", listen(two, 1));
    report("beside a listener", bind(with(&[REUSE]), &at));
    close(one);
    report("listen now", listen(two, 1));
    let late = tcp();
    report("bind", bind(late, &v4(LOCAL, 0)));
    let at = v4(LOCAL, port(late));
    report("not yet", bind(with(&[REUSE]), &at));
    report("said late", set_option(late, libc::SOL_SOCKET, REUSE, 1));
    report("now", bind(with(&[REUSE]), &at));
}

pub(super) fn both_versions() {
    up();
    let six = tcp6();
    report("bind", bind(six, &v6(ANY6, 0)));
    let taken = port(six);
    report("any is also of the older", bind(tcp(), &v4([0; 4], taken)));
    report("and one of them", bind(tcp(), &v4(LOCAL, taken)));
    report("and its own", bind(tcp6(), &v6(LOCAL6, taken)));
    let only = tcp6();
    report("V6ONLY", set_option(only, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1));
    report("bind", bind(only, &v6(ANY6, 0)));
    let four = tcp();
    report("beside", bind(four, &v4([0; 4], port(only))));
    report("listen", listen(only, 1));
    report("listen", listen(four, 1));
    report("by one", connect(tcp(), &v4(LOCAL, port(only))));
    report("by the other", connect(tcp6(), &v6(LOCAL6, port(only))));
    let local = tcp6();
    report("bind", bind(local, &v6(LOCAL6, 0)));
    report("one address is not another", bind(tcp(), &v4(LOCAL, port(local))));
    report("mapped", bind(tcp6(), &v6(super::mapped(LOCAL), port(local))));
}

/// Makes a connection and ends it, the server's end or the client's first, and binds the server's port again.
fn ended(server_first: bool, options: &[i32], again: &[i32]) -> i64 {
    let server = with(options);
    bind(server, &v4(LOCAL, 0));
    listen(server, 1);
    let at = v4(LOCAL, port(server));
    let client = tcp();
    connect(client, &at);
    let accepted = accept(server);
    let order = if server_first { [accepted, client] } else { [client, accepted] };
    close(server);
    report("still connected", bind(with(again), &at));
    for fd in order {
        close(fd);
    }
    bind(with(again), &at)
}

pub(super) fn waited_for() {
    up();
    for options in [&[][..], &[REUSE]] {
        for again in [&[][..], &[REUSE]] {
            report("the server first", ended(true, options, again));
            report("the client first", ended(false, options, again));
        }
    }
}

pub(super) fn shared() {
    up();
    let one = with(&[SHARE]);
    report("bind", bind(one, &v4(LOCAL, 0)));
    let at = v4(LOCAL, port(one));
    let two = with(&[SHARE]);
    report("both say so", bind(two, &at));
    report("one does not", bind(tcp(), &at));
    report("something else", bind(with(&[REUSE]), &at));
    report("listen", listen(one, 200));
    report("listen", listen(two, 200));
    let third = with(&[SHARE]);
    report("beside listeners", bind(third, &at));
    report("listen", listen(third, 200));
    for _ in 0..60 {
        let client = tcp();
        let result = connect(client, &at);
        if result != 0 {
            report("connect", result);
        }
    }
    let mut got = 0;
    let mut each = true;
    for server in [one, two, third] {
        super::set_nonblocking(server, true);
        let before = got;
        while accept(server) >= 0 {
            got += 1;
        }
        each &= got > before;
    }
    println!("{got} in all, each some: {each}");
    sys::in_child("another user", || {
        let other = || {
            let fd = tcp();
            set_option(fd, libc::SOL_SOCKET, SHARE, 1);
            fd
        };
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        report("bind", bind(other(), &at));
        0
    });
}

pub(super) fn privileged() {
    up();
    sys::in_child("without privileges", || {
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        report("bind", bind(tcp(), &v4(LOCAL, 1023)));
        report("bind", bind(tcp6(), &v6(LOCAL6, 1)));
        report("bind", bind(tcp(), &v4(LOCAL, 0)));
        report("raw", socket(libc::AF_INET, libc::SOCK_RAW));
        report("raw", sys!(libc::SYS_socket, libc::AF_INET, libc::SOCK_RAW, 1));
        0
    });
    let fd = tcp();
    report("with", bind(fd, &v4([127, 77, 0, 1], 1023)));
}

pub(super) fn chosen() {
    up();
    let any = tcp();
    report("bind", bind(any, &v4([0; 4], 0)));
    let number = port(any);
    report("reuse", set_option(any, libc::SOL_SOCKET, REUSE, 1));
    let one = with(&[REUSE]);
    report("bind", bind(one, &v4([127, 0, 0, 5], number)));
    report("listen", listen(one, 5));
    report("nobody at others", connect(tcp(), &v4(LOCAL, number)));
    report("listen", listen(any, 5));
    let other = tcp();
    report("bind", bind(other, &v4([127, 0, 0, 6], 0)));
    report("listen", listen(other, 5));
    report("exactly there", connect(tcp(), &v4([127, 0, 0, 5], number)));
    report("not there", connect(tcp(), &v4(LOCAL, port(other))));
    super::poll("one", one);
    super::poll("any", any);
}
