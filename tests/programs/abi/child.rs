//! What cases execute: `abi --child WORD...`.

use crate::sys;

/// Does what the words say, in a freshly executed program.
pub(crate) fn run(words: &[&str]) {
    match words {
        ["exit", status] => sys::exit(status.parse().unwrap_or(99)),
        ["args", rest @ ..] => {
            println!("args {rest:?}");
            let mut vars: Vec<(String, String)> = std::env::vars().collect();
            vars.sort();
            println!("env {vars:?}");
        }
        ["fds"] => {
            let open: Vec<i64> =
                (0..20).filter(|fd| sys!(libc::SYS_fcntl, *fd, libc::F_GETFD) >= 0).collect();
            println!("open {open:?}");
        }
        ["signals"] => {
            println!("blocked {:?}", sys::members(sys::mask(libc::SIG_BLOCK, 0)));
            for signal in [libc::SIGUSR1, libc::SIGUSR2, libc::SIGINT] {
                println!("{signal} {}", disposition(signal));
            }
        }
        ["limit"] => {
            let mut limit = [0_u64; 2];
            sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, 0, limit.as_mut_ptr());
            println!("nofile {limit:?}");
        }
        ["kill", signal] => {
            sys!(libc::SYS_kill, sys!(libc::SYS_getpid), signal.parse::<i32>().unwrap_or(9));
        }
        _ => sys::exit(98),
    }
}

/// What a signal does.
pub(crate) fn disposition(signal: i32) -> &'static str {
    // The kernel's struct: the handler is the first word on every architecture.
    let mut old = [0_u64; 8];
    sys!(libc::SYS_rt_sigaction, signal, 0, old.as_mut_ptr(), 8);
    match old[0] {
        0 => "default",
        1 => "ignored",
        _ => "handled",
    }
}
