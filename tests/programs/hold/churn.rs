//! What is made and let go of, again and again: nothing of it stays, and what many watch is quickly let go of.

use crate::bounds::free;
use crate::sys;
use std::time::Duration;

/// What may be kept of all of it, bytes.
const KEPT: u64 = 8 << 20;
/// Descriptors that a process of these may have.
const DESCRIPTORS: u64 = 16_384;
/// How often one descriptor is watched.
const WATCHES: usize = 10_000;

/// Inside: makes something and lets go of it until it would have taken several times what may be kept.
///
/// # Errors
/// There is no such thing, it cannot be made, or it stays.
pub(crate) fn churn(what: &str) -> Result<(), String> {
    let (times, step): (usize, fn() -> Result<(), String>) = match what {
        "mounts" => (50, mount),
        "alarms" => (100_000, alarm),
        "senders" => (100_000, sender),
        _ => return Err(format!("{what}: mounts, alarms or senders")),
    };
    if what == "senders" {
        receiver()?;
    }
    step()?;
    let before = free()?;
    for _ in 0..times {
        step()?;
    }
    let taken = before.saturating_sub(free()?);
    println!("{what}: nothing stays: {}", taken < KEPT);
    if taken < KEPT { Ok(()) } else { Err(format!("{what}: {} MiB stay", taken >> 20)) }
}

fn done(what: &str, result: i64) -> Result<i64, String> {
    if result >= 0 {
        Ok(result)
    } else {
        Err(format!("{what}: {}", std::io::Error::from_raw_os_error(-result as i32)))
    }
}

/// A file system in memory, with a file, a directory and a file in that.
fn mount() -> Result<(), String> {
    let (kind, at) = (c"tmpfs".as_ptr(), c"/tmp".as_ptr());
    done("mount", sys!(libc::SYS_mount, kind, at, kind, 0, 0))?;
    let bytes = vec![1; 1 << 20];
    let made = std::fs::create_dir_all("/tmp/a/b")
        .and_then(|()| std::fs::write("/tmp/a/b/file", &bytes))
        .and_then(|()| std::fs::write("/tmp/file", &bytes));
    done("umount", sys!(libc::SYS_umount2, at, 0))?;
    made.map_err(|error| error.to_string())
}

/// A timer that is to expire in some years.
fn alarm() -> Result<(), String> {
    let fd = done("timerfd_create", sys!(libc::SYS_timerfd_create, libc::CLOCK_MONOTONIC, 0))?;
    done("timerfd_settime", sys!(libc::SYS_timerfd_settime, fd, 0, [0_i64, 0, 100_000_000, 0].as_ptr(), 0))?;
    done("close", sys!(libc::SYS_close, fd)).map(drop)
}

/// The name of who receives and does not read: family, and a name that is none of a file.
const NAME: [u8; 4] = [libc::AF_UNIX as u8, 0, 0, b'r'];

fn socket() -> Result<i64, String> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK;
    done("socket", sys!(libc::SYS_socket, libc::AF_UNIX, kind, 0))
}

fn send(fd: i64) -> i64 {
    sys!(libc::SYS_sendto, fd, b"x".as_ptr(), 1, 0, NAME.as_ptr(), NAME.len())
}

/// One whose queue is full.
fn receiver() -> Result<(), String> {
    done("bind", sys!(libc::SYS_bind, socket()?, NAME.as_ptr(), NAME.len()))?;
    let sender = socket()?;
    while send(sender) == 1 {}
    Ok(())
}

/// One that finds no room there, and goes.
fn sender() -> Result<(), String> {
    let fd = socket()?;
    if send(fd) != -i64::from(libc::EAGAIN) {
        return Err("the queue is not full".to_owned());
    }
    done("close", sys!(libc::SYS_close, fd)).map(drop)
}

/// Waits for one descriptor under many names, and under many in an epoll instance that goes.
pub(crate) fn watches() -> i32 {
    sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, [DESCRIPTORS; 2].as_ptr(), 0);
    let fd = sys!(libc::SYS_eventfd2, 0, 0);
    if fd < 0 {
        return 1;
    }
    let mut polled = vec![(fd as u32 as u64) | (libc::POLLIN as u64) << 32; WATCHES];
    let timeout = [0_i64, 1_000_000];
    // Somebody else waits there, too: the queue is never empty.
    let other = sys::fork(|| {
        sys!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        loop {
            let mut one = (fd as u32 as u64) | (libc::POLLIN as u64) << 32;
            sys!(libc::SYS_ppoll, &raw mut one, 1, 0, 0, 8);
        }
    });
    if other.is_err() {
        return 1;
    }
    loop {
        sys!(libc::SYS_ppoll, polled.as_mut_ptr(), WATCHES, timeout.as_ptr(), 0, 8);
        let epoll = sys!(libc::SYS_epoll_create1, 0);
        for number in 0..WATCHES as i64 {
            let name = sys!(libc::SYS_fcntl, fd, libc::F_DUPFD, 100 + number);
            let mut event = [libc::EPOLLIN as u32, 0, 0];
            sys!(libc::SYS_epoll_ctl, epoll, libc::EPOLL_CTL_ADD, name, event.as_mut_ptr());
        }
        sys!(libc::SYS_close, epoll);
        sys!(libc::SYS_close_range, 100, u32::MAX, 0);
        std::thread::sleep(Duration::from_millis(1));
    }
}
