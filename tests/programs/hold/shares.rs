//! What there are only so many of for everybody: one user takes all that he gets, and root still finds some.

use crate::nested::forever;
use crate::sys;
use std::fs::File;
use std::io;
use std::os::fd::IntoRawFd;

/// An ordinary user.
const USER: i32 = 1000;
/// What nobody is given, however many he asks for.
const ENDLESS: usize = 100_000;
/// Descriptors that hold what was made.
const DESCRIPTORS: u64 = 16_384;

/// What can be taken: by a user until there is no more, in namespaces of his own where he needs rights, and once by root.
struct Kind {
    name: &'static str,
    take: fn() -> Result<usize, i64>,
    once: fn() -> i64,
    /// How it ends.
    refused: i32,
}

const KINDS: [Kind; 6] = [
    Kind { name: "mounts", take: mounts, once: mount_once, refused: libc::ENOSPC },
    Kind {
        name: "users",
        take: users,
        once: || sys!(libc::SYS_unshare, libc::CLONE_NEWUSER),
        refused: libc::ENOSPC,
    },
    Kind {
        name: "names of hosts",
        take: || namespaces(libc::CLONE_NEWUTS, "uts"),
        once: || sys!(libc::SYS_unshare, libc::CLONE_NEWUTS),
        refused: libc::ENOSPC,
    },
    Kind {
        name: "objects",
        take: || namespaces(libc::CLONE_NEWIPC, "ipc"),
        once: || sys!(libc::SYS_unshare, libc::CLONE_NEWIPC),
        refused: libc::ENOSPC,
    },
    Kind {
        name: "networks",
        take: || namespaces(libc::CLONE_NEWNET, "net"),
        once: || sys!(libc::SYS_unshare, libc::CLONE_NEWNET),
        refused: libc::ENOSPC,
    },
    Kind { name: "tasks", take: tasks, once: fork_once, refused: libc::EAGAIN },
];

/// Inside, as root: for each kind a user takes all there is.
///
/// # Errors
/// He is given them without end, or root finds none left.
pub(crate) fn shares() -> Result<(), String> {
    // What root mounts all hear of.
    sys!(libc::SYS_mount, c"none".as_ptr(), c"/".as_ptr(), 0, libc::MS_REC | libc::MS_SHARED, 0);
    let mut good = true;
    for kind in &KINDS {
        let (left, count) = left_to_root(kind)?;
        println!("{}: some are given: {}; some left to root: {left}", kind.name, count >= 100);
        good &= left && count >= 100;
    }
    if good { Ok(()) } else { Err("not each has his".to_owned()) }
}

/// Whether root finds some left once a user has taken what he gets, and how many that are.
fn left_to_root(kind: &Kind) -> Result<(bool, usize), String> {
    let mut ends = [0_i32; 2];
    sys!(libc::SYS_pipe2, ends.as_mut_ptr(), 0);
    let [told, tell] = ends;
    let taker = sys::fork(|| {
        sys!(libc::SYS_setpgid, 0, 0);
        sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, [DESCRIPTORS; 2].as_ptr(), 0);
        let all = [sys!(libc::SYS_setresgid, USER, USER, USER), sys!(libc::SYS_setresuid, USER, USER, USER)];
        sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        let result = match (kind.take)() {
            Ok(count) => [0, count as i64],
            Err(errno) => [errno, 0],
        };
        sys!(libc::SYS_write, tell, result.as_ptr(), 16);
        if all == [0, 0] { forever() } else { 1 }
    })?;
    sys!(libc::SYS_close, tell);
    let mut result = [0_i64; 2];
    let heard = sys!(libc::SYS_read, told, result.as_mut_ptr(), 16);
    sys!(libc::SYS_close, told);
    let once = sys::fork(|| i32::from((kind.once)() != 0));
    let mut status = -1_i32;
    if let Ok(once) = once {
        sys!(libc::SYS_wait4, once, &raw mut status, 0, 0);
    }
    sys::kill(-taker);
    while sys!(libc::SYS_wait4, -taker, 0, 0, 0) > 0 {}
    match result {
        [0, count] if heard == 16 => Ok((status == 0, count as usize)),
        other => Err(format!("{}: {other:?}, expected the end to be {}", kind.name, kind.refused)),
    }
}

/// Does something until it is refused as it is to be, and says how often it could be done.
fn until(refused: i32, mut act: impl FnMut() -> i64) -> Result<usize, i64> {
    for count in 0..ENDLESS {
        match act() {
            0 => {}
            errno if errno == -i64::from(refused) => return Ok(count),
            errno => return Err(errno),
        }
    }
    Err(-i64::from(libc::EOVERFLOW))
}

/// The mounts that a namespace of his own begins with, which hear of root's, under other names, and as many more as he gets.
fn mounts() -> Result<usize, i64> {
    enter(libc::CLONE_NEWNS)?;
    let bind = |from: *const libc::c_char, to: *const libc::c_char, how: u64| {
        until(libc::ENOSPC, || sys!(libc::SYS_mount, from, to, 0, libc::MS_BIND | how, 0))
    };
    bind(c"/".as_ptr(), c"/tmp".as_ptr(), libc::MS_REC)?;
    bind(c"/proc".as_ptr(), c"/proc".as_ptr(), 0)?;
    std::fs::read("/proc/self/mounts")
        .map(|text| text.iter().filter(|byte| **byte == b'\n').count())
        .map_err(negative)
}

fn mount_once() -> i64 {
    let kind = c"tmpfs".as_ptr();
    let result = sys!(libc::SYS_mount, kind, c"/tmp".as_ptr(), kind, 0, 0);
    sys!(libc::SYS_umount2, c"/tmp".as_ptr(), 0).min(result)
}

/// As many as nest, by one process after another.
fn users() -> Result<usize, i64> {
    let mut all = 0;
    loop {
        let mut ends = [0_i32; 2];
        sys!(libc::SYS_pipe2, ends.as_mut_ptr(), 0);
        let taker = sys::fork(|| {
            let mut made = 0_i64;
            while enter(0).is_ok() {
                made += 1;
            }
            sys!(libc::SYS_write, ends[1], &raw const made, 8);
            forever()
        });
        let mut made = 0_i64;
        if taker.is_err() || sys!(libc::SYS_read, ends[0], &raw mut made, 8) != 8 || all > ENDLESS {
            return Err(-i64::from(libc::EOVERFLOW));
        }
        ends.iter().for_each(|end| _ = sys!(libc::SYS_close, *end));
        if made == 0 {
            return Ok(all);
        }
        all += made as usize;
    }
}

/// Enters a user namespace of his own, with others.
fn enter(flags: i32) -> Result<(), i64> {
    let (user, group) = (sys!(libc::SYS_geteuid), sys!(libc::SYS_getegid));
    let entered = sys!(libc::SYS_unshare, libc::CLONE_NEWUSER | flags);
    if entered != 0 {
        return Err(entered);
    }
    let write = |name: &str, text: &str| std::fs::write(format!("/proc/self/{name}"), text);
    write("setgroups", "deny")
        .and_then(|()| write("uid_map", &format!("0 {user} 1")))
        .and_then(|()| write("gid_map", &format!("0 {group} 1")))
        .map_err(negative)
}

fn negative(error: io::Error) -> i64 {
    -i64::from(error.raw_os_error().unwrap_or(libc::EIO))
}

fn namespaces(flag: i32, name: &str) -> Result<usize, i64> {
    enter(0)?;
    until(libc::ENOSPC, || {
        let made = sys!(libc::SYS_unshare, flag);
        if made != 0 {
            return made;
        }
        match File::open(format!("/proc/self/ns/{name}")) {
            Ok(file) => i64::from(file.into_raw_fd() < 0),
            Err(error) => negative(error),
        }
    })
}

fn tasks() -> Result<usize, i64> {
    until(libc::EAGAIN, || match sys!(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) {
        0 => forever().into(),
        made => made.min(0),
    })
}

fn fork_once() -> i64 {
    sys::fork(|| 0).map_or(-1, |pid| sys!(libc::SYS_wait4, pid, 0, 0, 0).min(0))
}
