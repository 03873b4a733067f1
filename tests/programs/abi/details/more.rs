//! Scripts, listings, file systems and holes.

use super::{fcntl, memfd, pwrite};
use crate::sys::{self, c, close, in_child, open, pipe, report, scratch, unscratch, write};
use libc::AT_FDCWD;

pub(super) fn script_by_descriptor() {
    scratch("details");
    let own = std::fs::read_link(crate::process::SELF).unwrap_or_default();
    std::fs::write("script", format!("#!{} --interpreter\n", own.display())).expect("a script");
    sys!(libc::SYS_fchmodat, AT_FDCWD, c"script".as_ptr(), 0o755);
    let run = |fd: i64, name: &str, flags: i32| {
        let argv = [c"script".as_ptr(), std::ptr::null()];
        let empty = [std::ptr::null::<libc::c_char>()];
        sys!(libc::SYS_execveat, fd, c(name).as_ptr(), argv.as_ptr(), empty.as_ptr(), flags)
    };
    let directory = open(".", libc::O_RDONLY | libc::O_CLOEXEC, 0);
    let script = open("script", libc::O_RDONLY | libc::O_CLOEXEC, 0);
    in_child("itself", || {
        report("gone by then", run(script, "", libc::AT_EMPTY_PATH));
        0
    });
    in_child("in a directory", || {
        report("gone by then", run(directory, "script", 0));
        0
    });
    in_child("by name", || {
        sys!(libc::SYS_dup3, open("/dev/null", libc::O_RDONLY, 0), 0, 0);
        report("not", run(AT_FDCWD.into(), "script", 0));
        1
    });
    fcntl(script, libc::F_SETFD, 0);
    in_child("kept open", || {
        sys!(libc::SYS_dup3, open("/dev/null", libc::O_RDONLY, 0), 0, 0);
        report("not", run(script, "", libc::AT_EMPTY_PATH));
        1
    });
    unscratch();
}

/// A buffer that ends too early for all that is listed.
pub(super) fn getdents_fault() {
    scratch("details");
    let names: Vec<String> = (0..100).map(|number| format!("name-{number:03}")).collect();
    names.iter().for_each(|name| std::fs::write(name, "").expect("a file"));
    let fd = open(".", libc::O_RDONLY, 0);
    let area = sys::memory(8192);
    sys!(libc::SYS_mprotect, area + 4096, 4096, libc::PROT_NONE);
    let list = |at: i64, len: u64| sys!(libc::SYS_getdents64, fd, at, len);
    report("nowhere", list(area + 4096, 4096));
    report("too small", list(area, 23));
    let mut seen = std::collections::BTreeSet::new();
    let mut rounds = 0;
    loop {
        let got = list(area + 4096 - 256, 8192);
        if got <= 0 {
            report("then", got);
            break;
        }
        rounds += 1;
        let mut at = area + 4096 - 256;
        let end = at + got;
        while at < end {
            let len = i64::from(sys::load::<u16>(at + 16));
            let name: Vec<u8> = (at + 19..at + len).map(sys::peek).take_while(|byte| *byte != 0).collect();
            if !seen.insert(name) {
                println!("twice the same");
            }
            at += len;
        }
    }
    println!("several rounds {}, all there {}", rounds > 1, seen.len());
    unscratch();
}

pub(super) fn file_systems() {
    let magic = |fd: i64| {
        let mut words = [0_i64; 32];
        let result = sys!(libc::SYS_fstatfs, fd, words.as_mut_ptr());
        if result < 0 { sys::show(result) } else { format!("{:#x}", words[0]) }
    };
    println!("pipe {}", magic(pipe(0).0));
    println!("socket {}", magic(sys!(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0)));
    println!("eventfd {}", magic(sys!(libc::SYS_eventfd2, 0, 0)));
    println!("epoll {}", magic(sys!(libc::SYS_epoll_create1, 0)));
    println!("memfd {}", magic(memfd(0)));
    println!("proc {}", magic(open("/proc/self/status", libc::O_RDONLY, 0)));
    scratch("details");
    let fd = open("f", libc::O_RDWR | libc::O_CREAT, 0o644);
    write(fd, b"text");
    // From one to another.
    let mut at = 0_i64;
    let mut copy = |to: i64| sys!(libc::SYS_copy_file_range, fd, &raw mut at, to, 0, 4, 0);
    report("to a memfd", copy(memfd(0)));
    report("to itself", {
        let mut to = 100_i64;
        sys!(libc::SYS_copy_file_range, fd, &raw mut at, fd, &raw mut to, 4, 0)
    });
    let mut size = 0_i32;
    report("block size", sys!(libc::SYS_ioctl, fd, 2, &raw mut size));
    println!("{size}");
    report("clone", sys!(libc::SYS_ioctl, fd, 0x4004_9409, open("g", libc::O_RDWR | libc::O_CREAT, 0o644)));
    unscratch();
}

/// Holes of a file of one's own.
pub(super) fn holes() {
    scratch("details");
    let fd = open("f", libc::O_RDWR | libc::O_CREAT, 0o644);
    sys!(libc::SYS_ftruncate, fd, 1 << 20);
    pwrite(fd, b"x", 512 << 10);
    let seek = |what: &str, from: i64, whence: i32| report(what, sys!(libc::SYS_lseek, fd, from, whence));
    seek("data from 0", 0, libc::SEEK_DATA);
    seek("hole from 0", 0, libc::SEEK_HOLE);
    seek("hole from the data", 512 << 10, libc::SEEK_HOLE);
    seek("data behind it", 600 << 10, libc::SEEK_DATA);
    seek("data in it", (512 << 10) + 5, libc::SEEK_DATA);
    seek("hole behind it", 600 << 10, libc::SEEK_HOLE);
    seek("data at the end", 1 << 20, libc::SEEK_DATA);
    seek("hole at the end", 1 << 20, libc::SEEK_HOLE);
    seek("data before the start", -1, libc::SEEK_DATA);
    seek("last byte", (1 << 20) - 1, libc::SEEK_HOLE);
    println!("few blocks {}", {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata("f").is_ok_and(|meta| meta.blocks() <= 16)
    });
    // A file of somebody else's, read only: what it says of itself agrees with what is read.
    let own = open(crate::process::SELF, libc::O_RDONLY, 0);
    println!("data at once {}", sys!(libc::SYS_lseek, own, 0, libc::SEEK_DATA) == 0);
    close(own);
    unscratch();
}
