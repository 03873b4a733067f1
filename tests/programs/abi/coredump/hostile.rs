//! Dumps that are made difficult. What counts is that all of it ends.

use super::{Core, allow, die_by, dump_of, in_place, report_end};
use crate::process::{SELF, execute};
use crate::sys::{self, fork, memory, mmap, wait, wait4};

const PAGE: usize = 4096;

/// Whether a wait status is an end by this signal, whether or not a dump was finished.
fn ended_by(status: i32, signal: i32) -> bool {
    libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == signal
}

pub(super) fn many() {
    in_place(|| {
        let core = dump_of("many areas", || {
            for page in 0..5_000_i64 {
                let prot = if page % 2 == 0 { libc::PROT_READ } else { libc::PROT_READ | libc::PROT_WRITE };
                let at = 0x2000_0000 + page * PAGE as i64;
                mmap(at, PAGE, prot, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED, -1, 0);
            }
            die_by(libc::SIGSEGV)
        });
        println!("all there: {:?}", core.map(|core| core.segments().len() > 5_000));
        let core = dump_of("many threads", || {
            for _ in 0..100 {
                std::thread::spawn(sys::forever);
            }
            die_by(libc::SIGSEGV)
        });
        let count = |core: &Core| core.notes().iter().filter(|note| note.kind == super::NT_PRSTATUS).count();
        println!("all there: {:?}", core.as_ref().map(count));
        report_end("threads that fall together", || {
            for _ in 0..20 {
                std::thread::spawn(|| sys::peek(40));
            }
            sys::forever()
        });
        let _gone = std::fs::remove_file("core");
    });
}

/// A thread that falls, against one that executes or exits: one of both is first.
pub(super) fn races() {
    in_place(|| {
        let mut ends = 0;
        for _ in 0..10 {
            let pid = fork(|| {
                allow();
                std::thread::spawn(|| sys::peek(48));
                std::thread::spawn(|| execute(SELF, &["abi", "--child", "exit", "0"], &[]));
                sys::forever()
            });
            let status = wait4(pid, 0).1;
            ends += i32::from(status == 0 || ended_by(status, libc::SIGSEGV));
        }
        println!("against execve: {ends}");
        let _gone = std::fs::remove_file("core");
        let mut ends = 0;
        for _ in 0..10 {
            let pid = fork(|| {
                allow();
                std::thread::spawn(|| sys::peek(56));
                std::thread::spawn(|| sys::exit(3));
                sys::forever()
            });
            let status = wait4(pid, 0).1;
            ends += i32::from(libc::WIFEXITED(status) || ended_by(status, libc::SIGSEGV));
        }
        println!("against exit: {ends}");
    });
}

/// SIGKILL ends a dump, and others of the process with it.
pub(super) fn killed() {
    in_place(|| {
        let pid = fork(|| {
            allow();
            let (len, at) = (64_usize << 20, memory(64 << 20));
            (0..len).step_by(PAGE).for_each(|page| sys::poke(at + page as i64, 1));
            std::thread::spawn(sys::forever);
            die_by(libc::SIGSEGV)
        });
        while !std::path::Path::new("core").exists() {
            std::thread::yield_now();
        }
        sys!(libc::SYS_kill, pid, libc::SIGKILL);
        // Most times it comes in time.
        let status = wait4(pid, 0).1;
        println!("one of both: {}", ended_by(status, libc::SIGSEGV) || ended_by(status, libc::SIGKILL));
        let pid = fork(|| {
            allow();
            sys::mask(libc::SIG_BLOCK, sys::set_of(&[libc::SIGTERM]));
            die_by(libc::SIGSEGV)
        });
        sys!(libc::SYS_kill, pid, libc::SIGTERM);
        println!("{}", wait(pid));
    });
}
