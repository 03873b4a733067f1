//! How events are read.

use super::{Watcher, make, mkdir, parse, setting};
use crate::sys::{self, c, close, fork, open, report, wait};
use std::os::unix::fs::PermissionsExt;

fn unread(fd: i64) -> i32 {
    let mut count = -1_i32;
    report("FIONREAD", sys!(libc::SYS_ioctl, fd, libc::FIONREAD, &raw mut count));
    count
}

fn chmod(name: &str) {
    std::fs::set_permissions(name, PermissionsExt::from_mode(0o600)).expect("its permissions");
}

/// Sizes and padding, byte for byte.
pub(super) fn layout() {
    sys::scratch("inotify-layout");
    let watcher = Watcher::new();
    report("watch", super::add(watcher.fd, ".", libc::IN_CREATE));
    println!("unread {}", unread(watcher.fd));
    for len in [1, 14, 15, 16, 31, 32, 255] {
        make(&"n".repeat(len));
        println!("unread {}", unread(watcher.fd));
        let (result, bytes) = sys::read(watcher.fd, 1024);
        let name: Vec<u8> = bytes.iter().skip(16).copied().take_while(|byte| *byte == b'n').collect();
        let padding = bytes.iter().skip(16 + len).all(|byte| *byte == 0);
        println!("{result} {:?} {} {padding}", &bytes[..16], name.len());
    }
    sys::unscratch();
}

pub(super) fn merged() {
    sys::scratch("inotify-merged");
    make("a");
    make("b");
    let mut watcher = Watcher::on(&[".", "a"]);
    for name in ["b", "b", "b"] {
        chmod(name);
    }
    watcher.show("the same thrice");
    for name in ["b", "a", "a", "b", "b"] {
        chmod(name);
    }
    watcher.show("not neighbours");
    let fd = open("b", libc::O_RDWR, 0);
    for _ in 0..3 {
        sys::write(fd, b"x");
    }
    sys::write(fd, b"x");
    sys!(libc::SYS_pread64, fd, [0_u8; 4].as_mut_ptr(), 1, 0);
    sys::write(fd, b"x");
    watcher.show("writes and a read");
    close(fd);
    // Renamed there and back: the last half of one and the first of the next have different names.
    std::fs::rename("a", "c").expect("a new name");
    std::fs::rename("c", "a").expect("its old name");
    watcher.show("there and back");
    sys::unscratch();
}

pub(super) fn short() {
    sys::scratch("inotify-short");
    make("file");
    let mut watcher = Watcher::new();
    watcher.add(".", libc::IN_ATTRIB | libc::IN_OPEN);
    report("nothing to read", sys::read(watcher.fd, 4096).0);
    report("nothing, nowhere", sys::read(watcher.fd, 0).0);
    chmod("file");
    for len in [0, 1, 15, 16, 31] {
        report(&format!("{len} bytes"), sys::read(watcher.fd, len).0);
    }
    report("32 bytes", sys::read(watcher.fd, 32).0);
    report("nothing is left", sys::read(watcher.fd, 4096).0);
    chmod("file");
    close(open("file", libc::O_RDONLY, 0));
    chmod("file");
    report("as many as fit", sys::read(watcher.fd, 32 + 32 + 31).0);
    report("too little for the rest", sys::read(watcher.fd, 31).0);
    report("the rest", sys::read(watcher.fd, 33).0);
    chmod("file");
    report("nowhere", sys!(libc::SYS_read, watcher.fd, 8, 100));
    watcher.show("lost");
    // By two pieces, which fit.
    chmod("file");
    let mut pieces = [[0_u8; 32]; 2];
    let [one, two] = &mut pieces;
    let vector = [one.as_mut_ptr() as i64, 32, two.as_mut_ptr() as i64, 32];
    report("readv", sys!(libc::SYS_readv, watcher.fd, vector.as_ptr(), 2));
    println!("{}", parse(&pieces[0]).len());
    sys::unscratch();
}

pub(super) fn ready() {
    sys::scratch("inotify-ready");
    make("file");
    let mut watcher = Watcher::on(&["file"]);
    let poll = |fd: i64| {
        let mut words = [fd as u32, (libc::POLLIN | libc::POLLOUT | libc::POLLRDNORM | libc::POLLPRI) as u32];
        let none = [0_i64; 2];
        let result = sys!(libc::SYS_ppoll, words.as_mut_ptr(), 1, none.as_ptr(), 0, 8);
        println!("poll {result} {:#x}", words[1] >> 16);
    };
    let epoll = sys!(libc::SYS_epoll_create1, 0);
    let event = |events: i32| [events as u32, 0, 0];
    let edge = event(libc::EPOLLIN | libc::EPOLLET);
    report("epoll_ctl", sys!(libc::SYS_epoll_ctl, epoll, libc::EPOLL_CTL_ADD, watcher.fd, edge.as_ptr()));
    let mut found = [0_u32; 16];
    let mut wait_events =
        || report("epoll", sys!(libc::SYS_epoll_pwait, epoll, found.as_mut_ptr(), 4, 0, 0, 8));
    poll(watcher.fd);
    wait_events();
    chmod("file");
    poll(watcher.fd);
    wait_events();
    wait_events();
    drop(std::fs::read("file"));
    wait_events();
    watcher.show("read");
    poll(watcher.fd);
    report("remove", watcher.remove(1));
    poll(watcher.fd);
    wait_events();
    sys::unscratch();
}

/// A reader that waits until another process does something.
pub(super) fn waits() {
    sys::scratch("inotify-waits");
    mkdir("dir");
    let watcher = Watcher::on(&["dir"]);
    sys!(libc::SYS_fcntl, watcher.fd, libc::F_SETFL, 0);
    for round in 0..3 {
        let pid = fork(|| {
            if round == 1 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            report_child(sys!(libc::SYS_mkdirat, libc::AT_FDCWD, c(&format!("dir/{round}")).as_ptr(), 0o755))
        });
        let (result, bytes) = sys::read(watcher.fd, 32);
        let name = parse(&bytes).pop().map(|event| event.name);
        println!("{result} {name:?} {}", wait(pid));
    }
    // The same through poll.
    let pid = fork(|| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        report_child(sys!(libc::SYS_unlinkat, libc::AT_FDCWD, c("dir/0").as_ptr(), libc::AT_REMOVEDIR))
    });
    let mut words = [watcher.fd as u32, libc::POLLIN as u32];
    report("poll", sys!(libc::SYS_ppoll, words.as_mut_ptr(), 1, 0, 0, 8));
    println!("{}", wait(pid));
    sys::unscratch();
}

fn report_child(result: i64) -> i32 {
    i32::from(result != 0)
}

extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

extern "C" fn make_an_event(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    sys!(libc::SYS_fchmodat, libc::AT_FDCWD, c"file".as_ptr(), 0o600);
}

/// The signal comes again and again: one may come before the read.
fn alarms(on: bool) {
    let period = if on { [0_i64, 20_000, 0, 20_000] } else { [0; 4] };
    sys!(libc::SYS_setitimer, libc::ITIMER_REAL, period.as_ptr(), 0);
}

pub(super) fn interrupted() {
    sys::scratch("inotify-interrupted");
    make("file");
    let watcher = Watcher::on(&["file"]);
    sys!(libc::SYS_fcntl, watcher.fd, libc::F_SETFL, 0);
    sys::handle(libc::SIGALRM, nothing, 0);
    alarms(true);
    report("interrupted", sys::read(watcher.fd, 64).0);
    alarms(false);
    // With SA_RESTART it goes on waiting: for what the handler does.
    sys::handle(libc::SIGALRM, make_an_event, libc::SA_RESTART);
    alarms(true);
    report("restarted", sys::read(watcher.fd, 16).0);
    alarms(false);
    sys::unscratch();
}

pub(super) fn overflow() {
    sys::scratch("inotify-overflow");
    make("a");
    make("b");
    let most = setting("max_queued_events");
    let mut watcher = Watcher::new();
    watcher.add(".", libc::IN_ATTRIB);
    for number in 0..most + 10 {
        chmod(if number % 2 == 0 { "a" } else { "b" });
    }
    // The end of a watch gets lost, too.
    report("remove", watcher.remove(1));
    let events = watcher.take();
    let last = events.last().map(|event| (event.wd, event.mask, event.cookie, event.name.len()));
    println!("all but the last are events {}, the last is {last:?}", events.len() == most + 1);
    report("watch", watcher.add(".", libc::IN_ATTRIB));
    chmod("a");
    watcher.show("there is room again");
    sys::unscratch();
}
