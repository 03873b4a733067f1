//! How connections begin and end.

use super::{
    LOCAL, accept, bind, connect, listen, listener, pair, pending_error, poll, port, receive, send,
    set_nonblocking, shutdown, tcp, told, until, up, v4,
};
use crate::sys::{self, close, fork, report, report_read, wait, write};

/// An address at which nobody listens, and who has it.
fn nobody() -> (i64, Vec<u8>) {
    up();
    let fd = tcp();
    bind(fd, &v4(LOCAL, 0));
    (fd, v4(LOCAL, port(fd)))
}

pub(super) fn refused() {
    let (_holder, address) = nobody();
    let fd = tcp();
    report("connect", connect(fd, &address));
    println!("{} {}", pending_error(fd), port(fd) != 0);
    report("again", connect(fd, &address));
    poll("refused", fd);
    let (server, good) = listener(1);
    report("another", connect(fd, &good));
    let accepted = accept(server);
    write(fd, b"x");
    report_read("works", accepted, 5);
    report("port 0", connect(tcp(), &v4(LOCAL, 0)));
    let fd = tcp();
    report("bind", bind(fd, &v4(LOCAL, 0)));
    let own = port(fd);
    report("connect", connect(fd, &address));
    println!("keeps its port {}", port(fd) == own);
    report("read", sys::read(fd, 5).0);
    report("send", send(fd, b"x", 0));
}

pub(super) fn nonblocking() {
    let (server, good) = listener(1);
    let fd = tcp();
    set_nonblocking(fd, true);
    set_nonblocking(server, true);
    report("accept", accept(server));
    report("connect", connect(fd, &good));
    until(fd, libc::POLLOUT);
    poll("connected", fd);
    println!("{}", pending_error(fd));
    report("told", connect(fd, &good));
    report("told once", connect(fd, &good));
    report("accept", accept(server).min(0));
    let (_holder, bad) = nobody();
    let fd = tcp();
    set_nonblocking(fd, true);
    report("connect", connect(fd, &bad));
    until(fd, libc::POLLERR);
    poll("refused", fd);
    println!("{} {}", pending_error(fd), pending_error(fd));
    poll("told", fd);
    report("another", connect(fd, &good));
    report("another", connect(fd, &good));
    until(fd, libc::POLLOUT);
    let fd = tcp();
    set_nonblocking(fd, true);
    report("connect", connect(fd, &bad));
    until(fd, libc::POLLERR);
    report("told by connect", connect(fd, &bad));
    println!("{}", pending_error(fd));
    let fd = tcp();
    set_nonblocking(fd, true);
    report("connect", connect(fd, &bad));
    until(fd, libc::POLLERR);
    receive("told by receive", fd, 5, 0);
    receive("then", fd, 5, 0);
    report("send", send(fd, b"x", 0));
}

pub(super) fn states() {
    let fd = tcp();
    report("read", sys::read(fd, 5).0);
    report("send", send(fd, b"x", 0));
    report("accept", accept(fd));
    report("shutdown", shutdown(fd, libc::SHUT_RDWR));
    report("shutdown how", shutdown(fd, 3));
    poll("shut", fd);
    let (server, address) = listener(1);
    report("read", sys::read(server, 5).0);
    report("send", send(server, b"x", 0));
    report("connect", connect(server, &address));
    report("listen again", listen(server, 3));
    report("bind", bind(server, &v4(LOCAL, 0)));
    report("shutdown", shutdown(server, libc::SHUT_WR));
    let fd = tcp();
    report("connect", connect(fd, &address));
    report("connect again", connect(fd, &address));
    report("listen", listen(fd, 1));
    report("accept", accept(fd));
    report("bind", bind(fd, &v4(LOCAL, 0)));
    let pipe = sys::pipe(0).0;
    report("no socket", connect(pipe, &address));
    report("no socket", accept(pipe));
    report("no socket", shutdown(pipe, 3));
    report("not open", listen(99, 3));
}

pub(super) fn half_closed() {
    let (a, b, _) = pair();
    write(a, b"last words");
    report("shutdown", shutdown(a, libc::SHUT_WR));
    poll("has said all", a);
    until(b, libc::POLLRDHUP);
    poll("has heard all", b);
    report("send", send(a, b"x", 0));
    report_read("read", b, 20);
    report_read("end", b, 20);
    report_read("end again", b, 20);
    report("the other way", write(b, b"still"));
    report_read("read", a, 20);
    println!("{} {}", told(libc::SYS_getpeername, a).0, told(libc::SYS_getpeername, b).0);
    report("shutdown", shutdown(b, libc::SHUT_WR));
    until(a, libc::POLLHUP);
    poll("both", a);
    poll("both", b);
    report_read("end", a, 20);
    let gone = |fd: i64| sys::show(told(libc::SYS_getpeername, fd).0);
    println!("{} {}", gone(a), gone(b));
    report("shutdown", shutdown(a, libc::SHUT_WR));
    println!("{} {}", pending_error(a), pending_error(b));
}

pub(super) fn closed() {
    let (a, b, _) = pair();
    close(a);
    until(b, libc::POLLRDHUP);
    report_read("end", b, 5);
    report("into the void", send(b, b"x", 0));
    until(b, libc::POLLERR);
    report("known by now", send(b, b"x", 0));
    report("and always", send(b, b"x", 0));
    report_read("end", b, 5);
    println!("{}", pending_error(b));
    let (a, b, _) = pair();
    close(a);
    until(b, libc::POLLRDHUP);
    report("into the void", send(b, b"x", 0));
    until(b, libc::POLLERR);
    println!("{}", pending_error(b));
    report("known by now", send(b, b"x", 0));
    sys::in_child("a signal", || {
        let (a, b, _) = pair();
        close(a);
        until(b, libc::POLLRDHUP);
        write(b, b"x");
        until(b, libc::POLLERR);
        report("killed by it", write(b, b"x"));
        0
    });
    sys::in_child("a signal", || {
        let (a, _b, _) = pair();
        shutdown(a, libc::SHUT_WR);
        report("killed by it", sys!(libc::SYS_sendto, a, b"x".as_ptr(), 1, 0, 0, 0));
        0
    });
    sys::in_child("a signal", || {
        report("killed by it", write(tcp(), b"x"));
        0
    });
}

pub(super) fn unread() {
    let (a, b, _) = pair();
    write(a, b"unread");
    write(b, b"on its way");
    until(a, libc::POLLIN);
    close(b);
    until(a, libc::POLLERR);
    poll("reset", a);
    report_read("what came before", a, 20);
    report("then", sys::read(a, 20).0);
    report_read("then", a, 20);
    report("send", send(a, b"x", 0));
    println!("{}", pending_error(a));
    let (a, b, _) = pair();
    write(a, b"unread");
    until(b, libc::POLLIN);
    close(b);
    until(a, libc::POLLERR);
    println!("{} {}", pending_error(a), pending_error(a));
    report_read("end", a, 20);
    let (a, b, _) = pair();
    write(a, b"unread");
    shutdown(b, libc::SHUT_WR);
    until(a, libc::POLLRDHUP);
    close(b);
    until(a, libc::POLLERR);
    println!("{}", pending_error(a));
    report_read("end", a, 20);
}

fn linger(fd: i64, seconds: i32) {
    let value = [1_i32, seconds];
    report("linger", sys!(libc::SYS_setsockopt, fd, libc::SOL_SOCKET, libc::SO_LINGER, value.as_ptr(), 8));
}

pub(super) fn lingering() {
    let (a, b, _) = pair();
    linger(a, 0);
    write(a, b"gone with it");
    until(b, libc::POLLIN);
    close(a);
    until(b, libc::POLLERR);
    poll("reset", b);
    report_read("what came before", b, 20);
    report("then", sys::read(b, 20).0);
    let (a, b, _) = pair();
    linger(a, 3);
    write(a, b"kept");
    close(a);
    report_read("read", b, 20);
    report_read("end", b, 20);
    // With a reset nothing is waited for.
    let (server, address) = listener(1);
    let client = tcp();
    connect(client, &address);
    let accepted = accept(server);
    close(server);
    linger(accepted, 0);
    close(accepted);
    close(client);
    report("bind at once", bind(tcp(), &address));
}

pub(super) fn shutdowns() {
    let (a, b, _) = pair();
    report("no reading", shutdown(a, libc::SHUT_RD));
    poll("no reading", a);
    report_read("end", a, 5);
    report("sent all the same", send(b, b"data", 0));
    until(a, libc::POLLIN);
    report_read("read all the same", a, 10);
    report_read("end", a, 10);
    let (a, b, _) = pair();
    report("nothing at all", shutdown(a, libc::SHUT_RDWR));
    poll("nothing at all", a);
    until(b, libc::POLLRDHUP);
    report("sent", send(b, b"data", 0));
    until(b, libc::POLLERR);
    println!("{} {}", pending_error(a), pending_error(b));
    poll("a", a);
    poll("b", b);
    report_read("a", a, 5);
    report_read("b", b, 5);
}

pub(super) fn both_closed() {
    let (a, b, _) = pair();
    write(b, b"unread here");
    until(a, libc::POLLIN);
    shutdown(a, libc::SHUT_WR);
    shutdown(b, libc::SHUT_WR);
    until(a, libc::POLLHUP);
    report_read("read after all", a, 20);
    report_read("end", a, 20);
    report("send", send(a, b"x", 0));
    close(a);
    poll("the other", b);
    println!("{}", pending_error(b));
    report("connect", connect(b, &v4(LOCAL, 1)));
}

pub(super) fn listener_gone() {
    let (server, address) = listener(5);
    let clients = [tcp(), tcp()];
    for client in clients {
        report("connect", connect(client, &address));
    }
    write(clients[1], b"never read");
    close(server);
    for client in clients {
        until(client, libc::POLLERR);
        poll("reset", client);
        report("read", sys::read(client, 5).0);
    }
    report("connect", connect(tcp(), &address));
    // Accepted connections live on.
    let (a, b, server) = pair();
    close(server);
    write(a, b"alive");
    report_read("read", b, 10);
}

pub(super) fn listener_shut() {
    let (server, address) = listener(5);
    let client = tcp();
    report("connect", connect(client, &address));
    report("shutdown", shutdown(server, libc::SHUT_RD));
    until(client, libc::POLLERR);
    report("read", sys::read(client, 5).0);
    report("connect", connect(tcp(), &address));
    report("accept", accept(server));
    poll("shut", server);
    report("listen", listen(server, 5));
    report("connect", connect(tcp(), &v4(LOCAL, port(server))));
    report("accept", accept(server).min(0));
    // A port that was asked for is kept.
    let server = tcp();
    report("bind", bind(server, &address));
    report("listen", listen(server, 5));
    report("shutdown", shutdown(server, libc::SHUT_RD));
    report("taken", bind(tcp(), &address));
    report("listen", listen(server, 5));
    report("connect", connect(tcp(), &address));
}

pub(super) fn disconnected() {
    let none = [0_u8; 16];
    let (a, b, server) = pair();
    report("disconnect", connect(a, &none));
    println!("{}", pending_error(a));
    until(b, libc::POLLERR);
    report("the other", sys::read(b, 5).0);
    println!("{} {}", sys::show(told(libc::SYS_getpeername, a).0), port(a) != 0);
    report("again", connect(a, &v4(LOCAL, port(server))));
    let b = accept(server);
    write(a, b"works");
    report_read("read", b, 10);
    report("a listener", connect(server, &none));
    report("accept", accept(server));
    report("fresh", connect(tcp(), &none));
    report("short", connect(tcp(), &none[..2]));
    let bound = tcp();
    bind(bound, &v4(LOCAL, 0));
    let own = port(bound);
    report("bound", connect(bound, &none));
    println!("keeps its port {}", port(bound) == own);
}

pub(super) fn again() {
    // The same two addresses, over and over.
    let (server, address) = listener(5);
    for _ in 0..3 {
        let client = tcp();
        super::set_option(client, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
        report("bind", bind(client, &v4([127, 3, 3, 3], 0)));
        report("connect", connect(client, &address));
        let accepted = accept(server);
        write(client, b"round");
        report_read("read", accepted, 10);
        close(client);
        report_read("end", accepted, 10);
        close(accepted);
    }
    let one = tcp();
    let two = tcp();
    for fd in [one, two] {
        super::set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
    }
    report("bind", bind(one, &v4(LOCAL, 0)));
    report("bind", bind(two, &v4(LOCAL, port(one))));
    report("connect", connect(one, &address));
    report("just the same", connect(two, &address));
}

pub(super) fn errors() {
    let (server, address) = listener(5);
    report("accept nowhere", sys!(libc::SYS_accept4, server, 0, 8, 0x100));
    let client = tcp();
    report("connect", connect(client, &address));
    let mut name = [0_u8; 16];
    report("accept without a length", sys!(libc::SYS_accept4, server, name.as_mut_ptr(), 0, 0));
    report("out of descriptors", {
        let pid = fork(|| {
            connect(tcp(), &address);
            let limit = [5_u64, 5];
            sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, limit.as_ptr(), 0);
            report("socket", tcp());
            report("accept", accept(server));
            0
        });
        println!("{}", wait(pid));
        0
    });
}

pub(super) fn children() {
    // A server that forks for each client, and is asked by several at once.
    let (server, address) = listener(16);
    let clients: Vec<i64> = (0..8_u8)
        .map(|number| {
            let address = address.clone();
            fork(move || {
                let fd = tcp();
                if connect(fd, &address) != 0 {
                    return 1;
                }
                write(fd, &[b'a' + number; 1000]);
                shutdown(fd, libc::SHUT_WR);
                let mut all = Vec::new();
                loop {
                    let (count, bytes) = sys::read(fd, 4096);
                    if count <= 0 {
                        break;
                    }
                    all.extend(bytes);
                }
                i32::from(all != [b'A' + number; 1000])
            })
        })
        .collect();
    let servers: Vec<i64> = (0..8)
        .map(|_| {
            let accepted = accept(server);
            let pid = fork(move || {
                loop {
                    let (count, bytes) = sys::read(accepted, 4096);
                    if count <= 0 {
                        break;
                    }
                    write(accepted, &bytes.to_ascii_uppercase());
                }
                0
            });
            close(accepted);
            pid
        })
        .collect();
    for pid in clients.into_iter().chain(servers) {
        println!("{}", wait(pid));
    }
}

pub(super) fn by_the_thousand() {
    let (server, address) = listener(128);
    let mut wrong = 0;
    for round in 0..2000 {
        let client = tcp();
        wrong += i32::from(connect(client, &address) != 0);
        let accepted = accept(server);
        wrong += i32::from(accepted < 0 || write(client, b"x") != 1 || sys::read(accepted, 1).0 != 1);
        // Either end first.
        close(if round % 2 == 0 { client } else { accepted });
        close(if round % 2 == 0 { accepted } else { client });
    }
    println!("{wrong} wrong");
    // Many that wait to be accepted.
    let clients: Vec<i64> = (0..100)
        .map(|_| {
            let client = tcp();
            wrong += i32::from(connect(client, &address) != 0);
            client
        })
        .collect();
    let accepted: Vec<i64> = clients.iter().map(|_| accept(server)).collect();
    for (client, accepted) in clients.iter().zip(&accepted) {
        wrong += i32::from(write(*accepted, b"y") != 1 || sys::read(*client, 1).0 != 1);
        close(*client);
        close(*accepted);
    }
    println!("{wrong} wrong");
}
