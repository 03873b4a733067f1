//! What is easily got wrong about files: seals, names of what has none, offsets where there are none, limits of size,
//! and flags of calls that are seldom made.

mod acls;
mod fileflags;
mod more;

use crate::Case;
use crate::sys::{self, c, in_child, open, pipe, read, report, report_ok, scratch, unscratch, write};
use libc::AT_FDCWD;

pub(crate) const CASES: &[Case] = &[
    ("details_seals", seals),
    ("details_seals_and_mappings", seals_and_mappings),
    ("details_seals_and_growing", seals_and_growing),
    ("details_memfd_flags", memfd_flags),
    ("details_links_of_nothing", links_of_nothing),
    ("details_nameless", nameless),
    ("details_whiteout", whiteout),
    ("details_no_offsets", no_offsets),
    ("details_neither", neither),
    ("details_appending", appending),
    ("details_size_limit", size_limit),
    ("details_moved_size_limit", moved_size_limit),
    ("details_script_by_descriptor", more::script_by_descriptor),
    ("details_getdents_fault", more::getdents_fault),
    ("details_file_systems", more::file_systems),
    ("details_holes", more::holes),
    ("details_acls", acls::checked),
    ("details_acls_inherited", acls::inherited),
    ("details_acls_refused", acls::refused),
    ("details_attributes_at", acls::at),
    ("details_flags", fileflags::flags),
];

const SEALS: i32 = libc::F_ADD_SEALS;
/// MFD_NOEXEC_SEAL and MFD_EXEC, which Linux 6.1 does not know.
const NEW_FLAGS: u32 = 0x18;

fn memfd(flags: u32) -> i64 {
    sys!(libc::SYS_memfd_create, c"details".as_ptr(), flags)
}

fn sealable(len: i64) -> i64 {
    let fd = memfd(libc::MFD_ALLOW_SEALING);
    sys!(libc::SYS_ftruncate, fd, len);
    fd
}

fn fcntl(fd: i64, command: i32, arg: i64) -> i64 {
    sys!(libc::SYS_fcntl, fd, command, arg)
}

fn seal(fd: i64, seals: i32) -> i64 {
    fcntl(fd, SEALS, seals.into())
}

fn pwrite(fd: i64, bytes: &[u8], offset: i64) -> i64 {
    sys!(libc::SYS_pwrite64, fd, bytes.as_ptr(), bytes.len(), offset)
}

fn shared(fd: i64, prot: i32) -> i64 {
    sys::mmap(0, 4096, prot, libc::MAP_SHARED, fd, 0)
}

fn linkat(fd: i64, name: &str, flags: i32) -> i64 {
    let old = c(&format!("/proc/self/fd/{fd}"));
    sys!(libc::SYS_linkat, AT_FDCWD, old.as_ptr(), AT_FDCWD, c(name).as_ptr(), flags)
}

fn seals() {
    scratch("details");
    for (name, fd) in [
        ("memfd", memfd(0)),
        ("sealable", memfd(libc::MFD_ALLOW_SEALING)),
        ("pipe", pipe(0).0),
        ("/dev/null", open("/dev/null", libc::O_RDWR, 0)),
        ("eventfd", sys!(libc::SYS_eventfd2, 0, 0)),
        ("directory", open(".", libc::O_RDONLY, 0)),
        ("/proc", open("/proc/self/status", libc::O_RDONLY, 0)),
    ] {
        report(&format!("{name} has"), fcntl(fd, libc::F_GET_SEALS, 0));
        report(&format!("{name} gets"), seal(fd, libc::F_SEAL_SHRINK));
    }
    let fd = sealable(8192);
    report("unknown", seal(fd, 0x4000));
    report("none", seal(fd, 0));
    let reader = open(&format!("/proc/self/fd/{fd}"), libc::O_RDONLY, 0);
    report("through one that reads", seal(reader, libc::F_SEAL_GROW));
    report("it has", fcntl(reader, libc::F_GET_SEALS, 0));
    report("shrink", seal(fd, libc::F_SEAL_SHRINK));
    report("shrunk", sys!(libc::SYS_ftruncate, fd, 4096));
    report("grown", sys!(libc::SYS_ftruncate, fd, 16384));
    report("grow", seal(fd, libc::F_SEAL_GROW));
    report("grown again", sys!(libc::SYS_ftruncate, fd, 20480));
    report("the same", sys!(libc::SYS_ftruncate, fd, 16384));
    report("allocated inside", sys!(libc::SYS_fallocate, fd, 0, 0, 100));
    report("allocated outside", sys!(libc::SYS_fallocate, fd, 0, 16384, 1));
    report("last", seal(fd, libc::F_SEAL_SEAL));
    report("one more", seal(fd, libc::F_SEAL_WRITE));
    report("has", fcntl(fd, libc::F_GET_SEALS, 0));
    report("still written", pwrite(fd, b"x", 0));
    unscratch();
}

fn seals_and_mappings() {
    let (read_only, both) = (libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE);
    let fd = sealable(4096);
    let map = shared(fd, both);
    report("while it is mapped", seal(fd, libc::F_SEAL_WRITE));
    report("for later", seal(fd, libc::F_SEAL_FUTURE_WRITE));
    sys::poke(map, 7);
    report("written", pwrite(fd, b"x", 0));
    report_ok("mapped once more", shared(fd, both));
    println!("the mapping still writes: {}", read(fd, 1).1 == [7]);
    in_child("inherited", || {
        sys::poke(map, 8);
        report("busy", seal(fd, libc::F_SEAL_WRITE));
        0
    });
    report("unmapped", sys!(libc::SYS_munmap, map, 4096));
    report("then", seal(fd, libc::F_SEAL_WRITE));

    let fd = sealable(8192);
    let map = shared(fd, read_only);
    report("mapped for reading only", seal(fd, libc::F_SEAL_WRITE));
    sys!(libc::SYS_munmap, map, 4096);
    // A part of it is enough, wherever it has gone.
    let map = sys::mmap(0, 8192, both, libc::MAP_SHARED, fd, 0);
    sys!(libc::SYS_munmap, map, 4096);
    report("a part", seal(fd, libc::F_SEAL_WRITE));
    let moved = sys!(libc::SYS_mremap, map + 4096, 4096, 8192, libc::MREMAP_MAYMOVE);
    report("moved", seal(fd, libc::F_SEAL_WRITE));
    sys!(libc::SYS_munmap, moved, 8192);
    let private = sys::mmap(0, 4096, both, libc::MAP_PRIVATE, fd, 0);
    report("a private one", seal(fd, libc::F_SEAL_WRITE));
    sys::poke(private, 1);
    report("written", pwrite(fd, b"x", 0));
    report("written at the end", pwrite(fd, b"x", 8192));
    report("a hole", sys!(libc::SYS_fallocate, fd, 3, 0, 4096));
    report("allocated", sys!(libc::SYS_fallocate, fd, 0, 0, 4096));
    report("longer", sys!(libc::SYS_ftruncate, fd, 12288));
    report_ok("mapped for writing", shared(fd, both));
    let reader = open(&format!("/proc/self/fd/{fd}"), libc::O_RDONLY, 0);
    let map = shared(reader, read_only);
    report_ok("mapped for reading", map);
    report("and made writable", sys!(libc::SYS_mprotect, map, 4096, both));
}

fn seals_and_growing() {
    let fd = sealable(5000);
    report("grow", seal(fd, libc::F_SEAL_GROW));
    let bytes = vec![b'x'; 8192];
    for offset in [0, 100, 4095, 4096, 4999, 5000, 9000] {
        report(&format!("{offset}"), pwrite(fd, &bytes, offset));
    }
    report("what is there", pwrite(fd, &bytes[..5000], 0));
    report("the end", pwrite(fd, &bytes[..4], 4996));
    report("at the end", pwrite(fd, &bytes[..1], 5000));
    report("nothing", pwrite(fd, &[], 9000));
    sys!(libc::SYS_lseek, fd, 4000, libc::SEEK_SET);
    report("at the position", write(fd, &bytes));
    report("position", sys!(libc::SYS_lseek, fd, 0, libc::SEEK_CUR));
}

fn memfd_flags() {
    for (name, flags) in [("cloexec", 1), ("sealing", 2), ("both", 3), ("0x4000", 0x4000), ("all", u32::MAX)]
    {
        report_ok(name, memfd(flags).min(0));
    }
    let long = c(&"n".repeat(249));
    report_ok("249 bytes", sys!(libc::SYS_memfd_create, long.as_ptr(), 0).min(0));
    let long = c(&"n".repeat(250));
    report("250 bytes", sys!(libc::SYS_memfd_create, long.as_ptr(), 0).min(0));
    report("nowhere", sys!(libc::SYS_memfd_create, 0, 0));
    // Where these are known, they exclude each other and seal what they say; elsewhere they are refused.
    let never = memfd(NEW_FLAGS & !0x10);
    if never < 0 {
        println!("as told");
        return;
    }
    let executable = sys!(libc::SYS_fchmod, never, 0o755);
    let told = memfd(NEW_FLAGS) == -i64::from(libc::EINVAL)
        && fcntl(never, libc::F_GET_SEALS, 0) == 0x20
        && executable == -i64::from(libc::EPERM)
        && sys!(libc::SYS_fchmod, never, 0o600) == 0
        && memfd(0x10) >= 0;
    println!("{}", if told { "as told" } else { "not as told" });
}

fn links_of_nothing() {
    scratch("details");
    let fd = open("f", libc::O_RDWR | libc::O_CREAT, 0o644);
    report("while it has a name", linkat(fd, "g", libc::AT_SYMLINK_FOLLOW));
    std::fs::remove_file("f").expect("it is there");
    report("one is left", linkat(fd, "h", libc::AT_SYMLINK_FOLLOW));
    std::fs::remove_file("g").expect("it is there");
    std::fs::remove_file("h").expect("it is there");
    report("none is", linkat(fd, "i", libc::AT_SYMLINK_FOLLOW));
    let by_descriptor = |fd: i64, name: &str| {
        sys!(libc::SYS_linkat, fd, c"".as_ptr(), AT_FDCWD, c(name).as_ptr(), libc::AT_EMPTY_PATH)
    };
    report("by descriptor", by_descriptor(fd, "j"));
    let other = open("k", libc::O_RDWR | libc::O_CREAT, 0o644);
    report("another by descriptor", by_descriptor(other, "l"));
    report("a directory", by_descriptor(open(".", libc::O_RDONLY, 0), "m"));
    report("a pipe", by_descriptor(pipe(0).0, "n"));
    report("a memfd", linkat(memfd(0), "o", libc::AT_SYMLINK_FOLLOW));
    report("no such flag", linkat(other, "p", 1));
    in_child("without the capability", || {
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        report("by descriptor", by_descriptor(other, "q"));
        0
    });
    unscratch();
}

fn nameless() {
    scratch("details");
    let made = |flags: i32| open(".", libc::O_TMPFILE | flags, 0o640);
    let fd = made(libc::O_RDWR);
    write(fd, b"content");
    let named = linkat(fd, "a", libc::AT_SYMLINK_FOLLOW);
    report("named", named);
    println!("{:?}", std::fs::read_to_string("a"));
    report("named again", linkat(fd, "b", libc::AT_SYMLINK_FOLLOW));
    let _gone = (std::fs::remove_file("a"), std::fs::remove_file("b"));
    report("after its names have gone", linkat(fd, "c", libc::AT_SYMLINK_FOLLOW));
    let exclusive = made(libc::O_RDWR | libc::O_EXCL);
    report("never to be named", linkat(exclusive, "d", libc::AT_SYMLINK_FOLLOW));
    report("for reading", made(libc::O_RDONLY).min(0));
    report("neither", made(libc::O_ACCMODE).min(0));
    unscratch();
}

fn whiteout() {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    scratch("details");
    std::fs::write("a", "a").expect("a file");
    std::fs::create_dir("d").expect("a directory");
    let rename = |old: &str, new: &str, flags: u32| {
        sys!(libc::SYS_renameat2, AT_FDCWD, c(old).as_ptr(), AT_FDCWD, c(new).as_ptr(), flags)
    };
    let look = |name: &str| match std::fs::symlink_metadata(name) {
        Ok(found) => println!(
            "{name}: device {} {:#x} mode {:o}",
            found.file_type().is_char_device(),
            found.rdev(),
            found.mode() & 0o7777
        ),
        Err(error) => println!("{name}: {:?}", error.kind()),
    };
    report("with one", rename("a", "b", libc::RENAME_WHITEOUT));
    look("a");
    report("onto it", rename("b", "a", libc::RENAME_WHITEOUT | libc::RENAME_NOREPLACE));
    report("and exchanged", rename("b", "a", libc::RENAME_WHITEOUT | libc::RENAME_EXCHANGE));
    report("replacing it", rename("b", "a", libc::RENAME_WHITEOUT));
    println!("{:?}", std::fs::read_to_string("a"));
    look("b");
    report("a directory", rename("d", "e", libc::RENAME_WHITEOUT));
    look("d");
    println!("links {}", std::fs::metadata(".").map_or(0, |meta| meta.nlink()));
    report("what is not there", rename("x", "y", libc::RENAME_WHITEOUT));
    report("unknown", rename("a", "y", 8));
    in_child("without the capability", || {
        sys!(libc::SYS_fchmodat, AT_FDCWD, c".".as_ptr(), 0o777);
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        report("with one", rename("a", "z", libc::RENAME_WHITEOUT));
        report("plain", rename("a", "z", 0));
        0
    });
    unscratch();
}

/// pread, pwrite and lseek of what has no offsets.
fn no_offsets() {
    let (reader, writer) = pipe(0);
    let mut fds = [-1_i32; 2];
    sys!(libc::SYS_socketpair, libc::AF_UNIX, libc::SOCK_STREAM, 0, fds.as_mut_ptr());
    let nonblocking = libc::O_NONBLOCK;
    let set = sys::set_of(&[libc::SIGUSR1]);
    for (name, fd) in [
        ("read end", reader),
        ("write end", writer),
        ("socket", fds[0].into()),
        ("eventfd", sys!(libc::SYS_eventfd2, 5, nonblocking)),
        ("timerfd", sys!(libc::SYS_timerfd_create, libc::CLOCK_MONOTONIC, nonblocking)),
        ("signalfd", sys!(libc::SYS_signalfd4, -1, &raw const set, 8, nonblocking)),
        ("inotify", sys!(libc::SYS_inotify_init1, nonblocking)),
        ("epoll", sys!(libc::SYS_epoll_create1, 0)),
    ] {
        let mut buffer = [1_u8; 8];
        for offset in [0, 1, -1, i64::MAX] {
            let got = sys!(libc::SYS_pread64, fd, buffer.as_mut_ptr(), 8, offset);
            let put = pwrite(fd, &[1; 8], offset);
            println!("{name} at {offset}: {} {}", sys::show(got), sys::show(put));
        }
        report(&format!("{name}: nothing"), sys!(libc::SYS_pread64, fd, buffer.as_mut_ptr(), 0, 0));
        for (whence, offset) in [(0, 0), (0, 5), (1, 0), (2, 0), (1, -1), (9, 0)] {
            let sought = sys!(libc::SYS_lseek, fd, offset, whence);
            println!("{name} {whence} {offset}: {}", sys::show(sought));
        }
        report(&format!("{name}: allocate"), sys!(libc::SYS_fallocate, fd, 0, 0, 1));
        report(&format!("{name}: truncate"), sys!(libc::SYS_ftruncate, fd, 0));
    }
}

/// Access mode 3: open for ioctl only.
fn neither() {
    scratch("details");
    std::fs::write("f", "text").expect("a file");
    let fd = open("f", libc::O_ACCMODE, 0);
    let mut buffer = [0_u8; 4];
    report("flags", fcntl(fd, libc::F_GETFL, 0) & 3);
    report("read", read(fd, 4).0);
    report("pread", sys!(libc::SYS_pread64, fd, buffer.as_mut_ptr(), 4, 0));
    report("write", write(fd, b"x"));
    report("seek", sys!(libc::SYS_lseek, fd, 0, libc::SEEK_END));
    report("truncate", sys!(libc::SYS_ftruncate, fd, 0));
    report("fsync", sys!(libc::SYS_fsync, fd));
    report("map", sys::mmap(0, 4096, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0));
    report("size", sys!(libc::SYS_ioctl, fd, libc::FIONREAD, buffer.as_mut_ptr()));
    in_child("who may not write", || {
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        report("open", open("f", libc::O_ACCMODE, 0));
        0
    });
    unscratch();
}

fn appending() {
    scratch("details");
    let fd = open("f", libc::O_RDWR | libc::O_CREAT, 0o644);
    write(fd, b"0123456789");
    let put = |fd: i64, text: &str, offset: i64, flags: i32| {
        let vector = [text.as_ptr() as usize, text.len()];
        sys!(libc::SYS_pwritev2, fd, vector.as_ptr(), 1, offset, 0, flags)
    };
    let state = |fd: i64| {
        let at = sys!(libc::SYS_lseek, fd, 0, libc::SEEK_CUR);
        println!("{:?} at {at}", std::fs::read_to_string("f").unwrap_or_default());
    };
    sys!(libc::SYS_lseek, fd, 2, libc::SEEK_SET);
    report("appended at an offset", put(fd, "ab", 3, libc::RWF_APPEND));
    state(fd);
    report("appended at the position", put(fd, "cd", -1, libc::RWF_APPEND));
    state(fd);
    report("at an offset", put(fd, "XY", 3, 0));
    report("synced", put(fd, "Z", 3, libc::RWF_DSYNC));
    report("unknown", put(fd, "Z", 3, 0x1000));
    report("minus two", put(fd, "Z", -2, 0));
    state(fd);
    let appender = open("f", libc::O_WRONLY | libc::O_APPEND, 0);
    report("pwrite", pwrite(appender, b"p", 0));
    report("appended both ways", put(appender, "q", 0, libc::RWF_APPEND));
    state(appender);
    let (reader, writer) = pipe(0);
    report("to a pipe", put(writer, "pipe", -1, libc::RWF_APPEND));
    sys::report_read("from it", reader, 10);
    report("to one that reads", put(open("f", libc::O_RDONLY, 0), "x", -1, libc::RWF_APPEND));
    unscratch();
}

extern "C" fn too_big(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    write(1, b"SIGXFSZ\n");
}

fn limit_size(limit: u64) {
    sys::flush();
    sys::handle(libc::SIGXFSZ, too_big, 0);
    sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_FSIZE, [limit, limit].as_ptr(), 0);
}

fn told(what: &str, result: i64) {
    report(what, result);
    sys::flush();
}

fn size_limit() {
    scratch("details");
    let fd = open("f", libc::O_RDWR | libc::O_CREAT, 0o644);
    let long = open("long", libc::O_RDWR | libc::O_CREAT, 0o644);
    sys!(libc::SYS_ftruncate, long, 1 << 20);
    limit_size(8192);
    told("beyond", pwrite(fd, b"x", 9000));
    told("at the limit", pwrite(fd, b"x", 8192));
    told("across it", pwrite(fd, &[b'x'; 100], 8150));
    told("nothing beyond", pwrite(fd, b"", 9000));
    told("ftruncate", sys!(libc::SYS_ftruncate, fd, 9000));
    told("truncate", sys!(libc::SYS_truncate, c"f".as_ptr(), 9000));
    told("allocate", sys!(libc::SYS_fallocate, fd, 0, 0, 9000));
    told("allocate less", sys!(libc::SYS_fallocate, fd, 0, 0, 8192));
    // What is longer already may become shorter, and be written inside the limit.
    told("shorter", sys!(libc::SYS_ftruncate, long, 500_000));
    told("shorter by name", sys!(libc::SYS_truncate, c"long".as_ptr(), 400_000));
    told("longer", sys!(libc::SYS_ftruncate, long, 500_000));
    told("allocate inside", sys!(libc::SYS_fallocate, long, 0, 0, 300_000));
    told("write inside", pwrite(long, b"x", 0));
    told("write behind", pwrite(long, b"x", 100_000));
    let vector = [[b"ab".as_ptr() as usize, 2]; 3];
    sys!(libc::SYS_lseek, fd, 8189, libc::SEEK_SET);
    told("a vector", sys!(libc::SYS_writev, fd, vector.as_ptr(), 3));
    told("the next", sys!(libc::SYS_writev, fd, vector.as_ptr(), 3));
    told("a memfd", sys!(libc::SYS_ftruncate, memfd(0), 9000));
    told("a pipe", write(pipe(0).1, &[0; 9000]));
    unscratch();
}

fn moved_size_limit() {
    scratch("details");
    let source = open("source", libc::O_RDWR | libc::O_CREAT, 0o644);
    write(source, &[b's'; 20_000]);
    let fd = open("f", libc::O_RDWR | libc::O_CREAT, 0o644);
    let (reader, writer) = pipe(0);
    write(writer, &[b'p'; 20_000]);
    limit_size(8192);
    let mut from = 0_i64;
    let mut sent = |count: usize| sys!(libc::SYS_sendfile, fd, source, &raw mut from, count);
    told("across", sent(10_000));
    told("beyond", sent(10));
    let (mut at, mut to) = (0_i64, 8000_i64);
    let mut copied = || sys!(libc::SYS_copy_file_range, source, &raw mut at, fd, &raw mut to, 500, 0);
    told("copied across", copied());
    told("copied beyond", copied());
    let mut to = 8190_i64;
    let mut spliced = || sys!(libc::SYS_splice, reader, 0, fd, &raw mut to, 100, 0);
    told("spliced across", spliced());
    told("spliced beyond", spliced());
    println!("{}", std::fs::metadata("f").map_or(0, |meta| meta.len()));
    unscratch();
}
