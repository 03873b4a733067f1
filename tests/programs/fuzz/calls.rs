//! System calls, most of them nearly right.

use crate::table::Row;
use crate::values::Values;
use crate::{SCRATCH, sys};
use std::ffi::CString;
use std::thread;

/// How many a thread makes, and how many threads.
const CALLS: usize = 400;
const THREADS: u64 = 2;
/// Who half of the processes are.
const NOBODY: u32 = 65534;

/// Makes calls until it is over or dead.
pub(crate) fn victim(seed: u64, table: &[Row]) -> i32 {
    prepare(seed);
    thread::scope(|scope| {
        for number in 1..THREADS {
            // There may be no thread to be had.
            let work = move || make(seed ^ number << 32, table);
            let _refused = thread::Builder::new().spawn_scoped(scope, work);
        }
        make(seed, table);
    });
    0
}

fn make(seed: u64, table: &[Row]) {
    let mut values = Values::new(seed);
    let own = std::process::id();
    let mut calls = CALLS;
    while calls > 0 {
        let row = &table[values.rng.usize(0..table.len())];
        let mut args = [0_i64; 6];
        for (at, arg) in args.iter_mut().enumerate() {
            *arg = match row.arguments.get(at) {
                Some(kind) => values.argument(kind) as i64,
                None => 0,
            };
        }
        sys::call(row.number, &args);
        calls -= 1;
        // One that has been made meanwhile does not make many.
        if sys!(libc::SYS_getpid) != i64::from(own) {
            calls = calls.min(10);
        }
    }
}

/// A process with something behind many descriptors, limits, and a signal that ends waits.
fn prepare(seed: u64) {
    for (what, limit) in [
        (libc::RLIMIT_AS, 512 << 20),
        (libc::RLIMIT_FSIZE, 16 << 20),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_NOFILE, 256),
        (libc::RLIMIT_STACK, 8 << 20),
    ] {
        sys!(libc::SYS_prlimit64, 0, what, [limit as u64, limit as u64].as_ptr(), 0);
    }
    descriptors();
    interrupt();
    let scratch = CString::new(SCRATCH).unwrap_or_default();
    sys!(libc::SYS_chdir, scratch.as_ptr());
    if seed % 4 < 2 {
        sys!(libc::SYS_setgroups, 0, 0);
        sys!(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY);
        sys!(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY);
    }
}

/// Ends calls that wait, again and again.
fn interrupt() {
    extern "C" fn nothing(_signal: i32) {}
    // SAFETY: a handler that does nothing, and a set of no signals.
    unsafe {
        let action =
            libc::sigaction { sa_sigaction: nothing as extern "C" fn(i32) as usize, ..std::mem::zeroed() };
        libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut());
    }
    sys!(libc::SYS_setitimer, libc::ITIMER_REAL, [0_i64, 5_000, 0, 5_000].as_ptr(), 0);
}

/// One of every kind that there is, from descriptor 0 on.
fn descriptors() {
    let null = sys!(libc::SYS_openat, libc::AT_FDCWD, c"/dev/null".as_ptr(), libc::O_RDWR);
    (0..3).for_each(|fd| {
        sys!(libc::SYS_dup3, null, fd, 0);
    });
    let read = [
        c"/",
        c"/proc/self/maps",
        c"/proc/self/mem",
        c"/dev/zero",
        c"/dev/urandom",
        c"/proc",
        c"/tmp/fuzz",
        c"/bin",
    ];
    for path in read {
        sys!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), libc::O_RDONLY);
    }
    for path in [c"/tmp/fuzz/a", c"/tmp/fuzz/b", c"/dev/ptmx", c"/dev/full"] {
        sys!(
            libc::SYS_openat,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::O_RDWR | libc::O_CREAT | libc::O_NOCTTY,
            0o666
        );
    }
    let mut pair = [0_i32; 2];
    let at = pair.as_mut_ptr();
    sys!(libc::SYS_pipe2, at, 0);
    sys!(libc::SYS_pipe2, at, libc::O_NONBLOCK);
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, libc::SOCK_SEQPACKET] {
        sys!(libc::SYS_socketpair, libc::AF_UNIX, kind, 0, at);
    }
    for (family, kind) in [
        (libc::AF_UNIX, libc::SOCK_STREAM),
        (libc::AF_INET, libc::SOCK_STREAM),
        (libc::AF_INET6, libc::SOCK_DGRAM),
    ] {
        sys!(libc::SYS_socket, family, kind, 0);
    }
    sys!(libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, 0);
    sys!(libc::SYS_memfd_create, c"m".as_ptr(), libc::MFD_ALLOW_SEALING);
    sys!(libc::SYS_eventfd2, 1, 0);
    sys!(libc::SYS_epoll_create1, 0);
    sys!(libc::SYS_inotify_init1, 0);
    sys!(libc::SYS_timerfd_create, libc::CLOCK_MONOTONIC, 0);
    sys!(libc::SYS_signalfd4, -1, [!0_u64].as_ptr(), 8, 0);
    sys!(libc::SYS_pidfd_open, std::process::id(), 0);
    sys!(libc::SYS_symlinkat, c".".as_ptr(), libc::AT_FDCWD, c"/tmp/fuzz/link".as_ptr());
}
