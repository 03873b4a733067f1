//! Which memory a dump takes.

use super::elf::Core;
use super::{die_by, dump_of, in_place};
use crate::process;
use crate::sys::{self, in_child, mmap, poke, report};

const PAGE: usize = 4096;
const FILTER: &str = "/proc/self/coredump_filter";
const NONE: i32 = libc::PROT_NONE;
const READ: i32 = libc::PROT_READ;
const WRITE: i32 = libc::PROT_WRITE;
const EXEC: i32 = libc::PROT_EXEC;
const ANON: i32 = libc::MAP_ANONYMOUS;
const PRIVATE: i32 = libc::MAP_PRIVATE;
const SHARED: i32 = libc::MAP_SHARED;

fn read() -> String {
    std::fs::read_to_string(FILTER).unwrap_or_else(|error| error.to_string())
}

pub(super) fn filter() {
    use std::os::unix::fs::MetadataExt;
    println!("{:?} {:o}", read(), std::fs::metadata(FILTER).map_or(0, |meta| meta.mode()));
    for text in ["0", "0x33", "127\n", "0777", "0xffffffff", "0x100000000", "-1", "", "x", "1 2", " 3 ", "+5"]
    {
        report(&format!("{text:?}"), sys::put(FILTER, text));
        println!("then {:?}", read());
    }
    report("for a process", sys::put(FILTER, "0x21"));
    in_child("its child", || {
        println!("has {:?}", read());
        report("and changes it", sys::put(FILTER, "0x11"));
        process::execute(process::SELF, &["abi", "--child", "coredump-filter"], &[]) as i32
    });
    println!("still {:?}", read());
    let thread = format!("/proc/self/task/{}/coredump_filter", sys!(libc::SYS_gettid));
    println!("of a thread: {}", std::path::Path::new(&thread).exists());
    let zombie = sys::fork(|| 0);
    let mut info = [0_u8; 128];
    sys!(libc::SYS_waitid, libc::P_PID, zombie, info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT, 0);
    let path = format!("/proc/{zombie}/coredump_filter");
    println!("of a zombie: {:?}", std::fs::read_to_string(&path).map_err(|error| error.raw_os_error()));
    report("set", sys::put(&path, "1"));
    sys::wait(zombie);
}

/// What there is to find, at fixed places: its name, its address, and how it is made.
struct Place(&'static str, i64, fn(i64));

fn map(at: i64, pages: usize, prot: i32, flags: i32, fd: i64) {
    let got = mmap(at, pages * PAGE, prot, flags | libc::MAP_FIXED, fd, 0);
    assert_eq!(got, at, "mmap {}", sys::show(got));
}

/// Pages of memory, of which the second has been written.
fn written(at: i64, prot: i32, flags: i32, fd: i64) {
    map(at, 3, READ | WRITE, flags, fd);
    poke(at + PAGE as i64, 7);
    sys!(libc::SYS_mprotect, at, 3 * PAGE, prot);
}

/// A file of three pages of `F`.
fn file(name: &str, first: &[u8]) -> i64 {
    let mut bytes = vec![b'F'; 3 * PAGE];
    bytes[..first.len()].copy_from_slice(first);
    std::fs::write(name, bytes).expect("a file");
    sys::open(name, libc::O_RDWR, 0)
}

fn memfd() -> i64 {
    let fd = sys!(libc::SYS_memfd_create, sys::c("m").as_ptr(), 0);
    sys!(libc::SYS_ftruncate, fd, 3 * PAGE);
    fd
}

const PLACES: &[Place] = &[
    Place("private, written", 0x1000_0000, |at| written(at, READ | WRITE, PRIVATE | ANON, -1)),
    Place("private, then read-only", 0x1010_0000, |at| written(at, READ, PRIVATE | ANON, -1)),
    Place("private, then nothing", 0x1020_0000, |at| written(at, NONE, PRIVATE | ANON, -1)),
    Place("private, then code", 0x1030_0000, |at| written(at, READ | EXEC, PRIVATE | ANON, -1)),
    Place("private, not written", 0x1040_0000, |at| map(at, 3, READ | WRITE, PRIVATE | ANON, -1)),
    Place("reserved", 0x1060_0000, |at| map(at, 3, NONE, PRIVATE | ANON, -1)),
    Place("not to be dumped", 0x1070_0000, |at| {
        written(at, READ | WRITE, PRIVATE | ANON, -1);
        sys!(libc::SYS_madvise, at, 3 * PAGE, libc::MADV_DONTDUMP);
    }),
    Place("to be dumped after all", 0x1080_0000, |at| {
        written(at, READ | WRITE, PRIVATE | ANON, -1);
        sys!(libc::SYS_madvise, at, 3 * PAGE, libc::MADV_DONTDUMP);
        sys!(libc::SYS_madvise, at, 3 * PAGE, libc::MADV_DODUMP);
    }),
    Place("shared, written", 0x1090_0000, |at| written(at, READ | WRITE, SHARED | ANON, -1)),
    Place("a file, private", 0x10a0_0000, |at| map(at, 3, READ, PRIVATE, file("plain", b""))),
    Place("a file, private, written", 0x10b0_0000, |at| {
        written(at, READ | WRITE, PRIVATE, file("copied", b""))
    }),
    Place("a file, shared", 0x10c0_0000, |at| written(at, READ | WRITE, SHARED, file("shared", b""))),
    Place("a program, private", 0x10d0_0000, |at| map(at, 3, READ, PRIVATE, file("program", b"\x7fELF"))),
    Place("a file that has gone, shared", 0x10e0_0000, |at| {
        written(at, READ | WRITE, SHARED, file("gone", b""));
        let _gone = std::fs::remove_file("gone");
    }),
    Place("a memfd, shared", 0x10f0_0000, |at| written(at, READ | WRITE, SHARED, memfd())),
    Place("a memfd, private", 0x1100_0000, |at| map(at, 3, READ, PRIVATE, memfd())),
    Place("a short file, private, written", 0x1110_0000, |at| {
        let fd = file("short", b"");
        written(at, READ | WRITE, PRIVATE, fd);
        sys!(libc::SYS_ftruncate, fd, 2 * PAGE);
    }),
];

fn describe(core: &Core, place: &Place) {
    let (what, at) = (place.0, place.1 as u64);
    let Some(segment) = core.at(at) else { return println!("  {what}: no segment") };
    let bytes: Vec<Option<u8>> = (0..3).map(|page| core.byte(at + page * PAGE as u64)).collect();
    println!("  {what}: flags {} of {} are {}: {bytes:?}", segment.flags, segment.in_memory, segment.in_file);
}

pub(super) fn areas() {
    in_place(|| {
        for filter in ["0x33", "0", "1", "2", "4", "8", "0x10", "0x7f"] {
            let core = dump_of(&format!("filter {filter}"), || {
                PLACES.iter().for_each(|place| (place.2)(place.1));
                sys::put(FILTER, filter);
                die_by(libc::SIGABRT)
            });
            if let Some(core) = core {
                PLACES.iter().for_each(|place| describe(&core, place));
                let stack =
                    core.segments().iter().any(|s| s.kind == 1 && s.in_file > 0 && s.in_file < s.in_memory);
                println!("  only parts of some: {stack}");
            }
        }
        let core = dump_of("much that is not there", || {
            let at = 0x10_0000_0000;
            let len = 1_usize << 30;
            let flags = PRIVATE | ANON | libc::MAP_NORESERVE | libc::MAP_FIXED;
            assert_eq!(mmap(at, len, READ | WRITE, flags, -1, 0), at);
            poke(at + (512 << 20), 9);
            sys::put(FILTER, "1");
            // As much of it as there is.
            die_by(libc::SIGQUIT)
        });
        if let Some(core) = core {
            println!("{:?}", core.at(0x10_0000_0000).map(|segment| segment.in_file));
        }
    });
}
