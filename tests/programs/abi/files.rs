//! Open files: reading, writing, positions, flags, locks.

use crate::Case;
use crate::recent::older_than;
use crate::sys::{self, c, close, in_child, open, report, report_read, scratch, unscratch, write};
use libc::{
    O_APPEND, O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, SEEK_CUR, SEEK_END, SEEK_SET,
};

pub(crate) const CASES: &[Case] = &[
    ("file_open_flags", open_flags),
    ("file_read_write", read_write),
    ("file_positions", positions),
    ("file_vectors", vectors),
    ("file_append", append),
    ("file_holes", holes),
    ("file_dup", dup),
    ("file_fcntl", fcntl),
    ("file_truncate", truncate),
    ("file_fallocate", fallocate),
    ("file_locks", locks),
    ("file_flock", flock),
    ("file_devices", devices),
    ("file_deleted", deleted),
    ("file_copying", copying),
    ("file_tmpfile", tmpfile),
    ("file_path_only", path_only),
    ("file_big", big),
];

fn open_flags() {
    scratch("open");
    report("missing", open("a", O_RDONLY, 0));
    report("create", open("a", O_WRONLY | O_CREAT | O_EXCL, 0o640));
    report("create again", open("a", O_WRONLY | O_CREAT | O_EXCL, 0o640));
    let fd = open("a", O_RDWR, 0);
    report("write", write(fd, b"hello"));
    report("truncating", open("a", O_WRONLY | O_TRUNC, 0));
    report("seek to the end", sys!(libc::SYS_lseek, fd, 0, SEEK_END));
    report("a directory to write", open(".", O_WRONLY, 0));
    report("a directory to read", open(".", O_RDONLY, 0));
    report("read of a directory", sys::read(open(".", O_RDONLY, 0), 10).0);
    report("O_DIRECTORY on a file", open("a", O_RDONLY | libc::O_DIRECTORY, 0));
    // Before Linux 6.4 a file was made, and the answer ENOTDIR.
    if older_than(4) {
        println!("a new directory: EINVAL\nof a bad name: EINVAL\nmade false");
    } else {
        report("a new directory", open("new", O_RDWR | O_CREAT | libc::O_DIRECTORY, 0o600));
        report(
            "of a bad name",
            sys!(libc::SYS_openat, libc::AT_FDCWD, 8, O_CREAT | libc::O_DIRECTORY, 0o600),
        );
        println!("made {}", std::path::Path::new("new").exists());
    }
    report("below a file", open("a/b", O_RDONLY, 0));
    report("a slash behind a file", open("a/", O_RDONLY, 0));
    report("create with a slash", open("new/", O_RDONLY | O_CREAT, 0o600));
    report("empty", open("", O_RDONLY, 0));
    report("a long name", open(&"x".repeat(256), O_RDONLY, 0));
    report("a long path", open(&"x/".repeat(2500), O_RDONLY, 0));
    std::os::unix::fs::symlink("a", "link").expect("a link");
    report("O_NOFOLLOW", open("link", O_RDONLY | libc::O_NOFOLLOW, 0));
    report("O_EXCL on a link", open("link", O_RDONLY | O_CREAT | O_EXCL, 0o600));
    std::os::unix::fs::symlink("made", "dangling").expect("a link");
    report("create through a link", i64::from(open("dangling", O_RDONLY | O_CREAT, 0o600) >= 0));
    println!("made {}", std::path::Path::new("made").exists());
    let fd = open("a", O_RDONLY, 0);
    report("write to a read-only descriptor", write(fd, b"x"));
    let fd = open("a", O_WRONLY, 0);
    report("read from a write-only descriptor", sys::read(fd, 1).0);
    report("closed", close(fd));
    report("closed again", close(fd));
    report("read", sys::read(fd, 1).0);
    report("negative", sys::read(-1, 1).0);
    unscratch();
}

fn read_write() {
    scratch("rw");
    let fd = open("f", O_RDWR | O_CREAT, 0o600);
    report("write", write(fd, b"0123456789"));
    report_read("at the end", fd, 10);
    report("seek", sys!(libc::SYS_lseek, fd, 3, SEEK_SET));
    report_read("from 3", fd, 4);
    report_read("the rest", fd, 100);
    report("pwrite", sys!(libc::SYS_pwrite64, fd, b"XY".as_ptr(), 2, 1));
    report("position", sys!(libc::SYS_lseek, fd, 0, SEEK_CUR));
    let mut buffer = [0_u8; 4];
    report("pread", sys!(libc::SYS_pread64, fd, buffer.as_mut_ptr(), 4, 0));
    println!("{:?}", String::from_utf8_lossy(&buffer));
    report("pread behind the end", sys!(libc::SYS_pread64, fd, buffer.as_mut_ptr(), 4, 100));
    report("pread at -1", sys!(libc::SYS_pread64, fd, buffer.as_mut_ptr(), 4, -1));
    report("nothing", write(fd, b""));
    report("fsync", sys!(libc::SYS_fsync, fd));
    report("fdatasync", sys!(libc::SYS_fdatasync, fd));
    unscratch();
}

fn positions() {
    scratch("seek");
    let fd = open("f", O_RDWR | O_CREAT, 0o600);
    write(fd, b"0123456789");
    for (what, offset, whence) in [
        ("set", 4, SEEK_SET),
        ("cur", -2, SEEK_CUR),
        ("end", -1, SEEK_END),
        ("behind", 100, SEEK_END),
        ("negative", -1, SEEK_SET),
        ("before", -1000, SEEK_CUR),
        ("whence", 0, 9),
        ("data", 0, libc::SEEK_DATA),
        ("hole", 0, libc::SEEK_HOLE),
        ("data at the end", 10, libc::SEEK_DATA),
    ] {
        report(what, sys!(libc::SYS_lseek, fd, offset, whence));
    }
    let (read_end, _) = sys::pipe(0);
    report("pipe", sys!(libc::SYS_lseek, read_end, 0, SEEK_CUR));
    // Positions are shared by descriptors of one open file, also across fork.
    sys!(libc::SYS_lseek, fd, 2, SEEK_SET);
    in_child("child", || {
        report_read("child reads", fd, 3);
        0
    });
    report_read("parent reads on", fd, 3);
    unscratch();
}

fn vectors() {
    scratch("vector");
    let fd = open("f", O_RDWR | O_CREAT, 0o600);
    let (a, b) = (b"abc", b"defgh");
    let out = [a.as_ptr() as u64, 3, 0, 0, b.as_ptr() as u64, 5];
    report("writev", sys!(libc::SYS_writev, fd, out.as_ptr(), 3));
    let (mut x, mut y) = ([0_u8; 2], [0_u8; 20]);
    let into = [x.as_mut_ptr() as u64, 2, y.as_mut_ptr() as u64, 20];
    report("preadv", sys!(libc::SYS_preadv, fd, into.as_ptr(), 2, 1, 0));
    println!("{:?} {:?}", String::from_utf8_lossy(&x), String::from_utf8_lossy(&y[..5]));
    report("too many", sys!(libc::SYS_writev, fd, out.as_ptr(), 1025));
    report("negative", sys!(libc::SYS_writev, fd, out.as_ptr(), -1));
    report("none", sys!(libc::SYS_writev, fd, out.as_ptr(), 0));
    let huge = [a.as_ptr() as u64, 1 << 63];
    report("too long", sys!(libc::SYS_writev, fd, huge.as_ptr(), 1));
    let half = [a.as_ptr() as u64, 3, 8, 5];
    report("the second is bad", sys!(libc::SYS_pwritev, fd, half.as_ptr(), 2, 0, 0));
    report("pwritev2", sys!(libc::SYS_pwritev2, fd, out.as_ptr(), 1, -1, 0, 0));
    unscratch();
}

fn append() {
    scratch("append");
    let fd = open("f", O_WRONLY | O_CREAT | O_APPEND, 0o600);
    write(fd, b"one");
    sys!(libc::SYS_lseek, fd, 0, SEEK_SET);
    write(fd, b"two");
    report("pwrite appends, too", sys!(libc::SYS_pwrite64, fd, b"X".as_ptr(), 1, 0));
    report("position", sys!(libc::SYS_lseek, fd, 0, SEEK_CUR));
    println!("{:?}", std::fs::read_to_string("f"));
    let other = open("f", O_WRONLY, 0);
    report("set O_APPEND", sys!(libc::SYS_fcntl, other, libc::F_SETFL, O_APPEND));
    write(other, b"end");
    println!("{:?}", std::fs::read_to_string("f"));
    unscratch();
}

fn holes() {
    scratch("holes");
    let fd = open("f", O_RDWR | O_CREAT, 0o600);
    sys!(libc::SYS_lseek, fd, 100_000, SEEK_SET);
    write(fd, b"x");
    report("size", sys!(libc::SYS_lseek, fd, 0, SEEK_END));
    let mut buffer = vec![1_u8; 100_001];
    report("pread", sys!(libc::SYS_pread64, fd, buffer.as_mut_ptr(), buffer.len(), 0));
    println!("zeros {}", buffer.iter().filter(|b| **b == 0).count());
    unscratch();
}

fn dup() {
    sys!(libc::SYS_close_range, 3, u32::MAX, 0);
    let fd = open("/dev/null", O_RDWR, 0);
    report("dup", sys!(libc::SYS_dup, fd));
    report("dup3", sys!(libc::SYS_dup3, fd, 20, libc::O_CLOEXEC));
    report("flag", sys!(libc::SYS_fcntl, 20, libc::F_GETFD));
    report("onto itself", sys!(libc::SYS_dup3, fd, fd, 0));
    report("bad flag", sys!(libc::SYS_dup3, fd, 21, 1));
    report("not open", sys!(libc::SYS_dup, 99));
    report("too high", sys!(libc::SYS_dup3, fd, 1 << 30, 0));
    report("negative", sys!(libc::SYS_dup3, fd, -1, 0));
    report("F_DUPFD", sys!(libc::SYS_fcntl, fd, libc::F_DUPFD, 10));
    report("F_DUPFD_CLOEXEC", sys!(libc::SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, 10));
    report("F_DUPFD too high", sys!(libc::SYS_fcntl, fd, libc::F_DUPFD, 1 << 30));
    report("close_range", sys!(libc::SYS_close_range, 10, 15, 0));
    report("gone", sys!(libc::SYS_fcntl, 10, libc::F_GETFD));
    report("left", sys!(libc::SYS_fcntl, 20, libc::F_GETFD));
    report("close_range cloexec", sys!(libc::SYS_close_range, 3, 4, libc::CLOSE_RANGE_CLOEXEC));
    report("set", sys!(libc::SYS_fcntl, 3, libc::F_GETFD));
    report("reversed", sys!(libc::SYS_close_range, 5, 4, 0));
    report("lowest free", open("/dev/null", O_RDWR, 0));
}

fn fcntl() {
    scratch("fcntl");
    let fd = open("f", O_RDWR | O_CREAT | O_APPEND, 0o600);
    let flags = |fd| sys!(libc::SYS_fcntl, fd, libc::F_GETFL) & !i64::from(libc::O_LARGEFILE) & !0o100_000;
    println!("flags {:o}", flags(fd));
    report("set", sys!(libc::SYS_fcntl, fd, libc::F_SETFL, O_NONBLOCK | O_WRONLY | O_CREAT));
    println!("flags {:o}", flags(fd));
    let twin = sys!(libc::SYS_dup, fd);
    println!("shared {:o}", flags(twin));
    report("FD_CLOEXEC", sys!(libc::SYS_fcntl, fd, libc::F_SETFD, 1));
    println!("{} {}", sys!(libc::SYS_fcntl, fd, libc::F_GETFD), sys!(libc::SYS_fcntl, twin, libc::F_GETFD));
    report("unknown", sys!(libc::SYS_fcntl, fd, 9999));
    report("bad descriptor", sys!(libc::SYS_fcntl, 99, libc::F_GETFL));
    report("ioctl on a file", sys!(libc::SYS_ioctl, fd, libc::TCGETS, 8));
    report("ioctl on nothing", sys!(libc::SYS_ioctl, 99, libc::TCGETS, 8));
    let mut on = 1_i32;
    report("FIONBIO", sys!(libc::SYS_ioctl, fd, libc::FIONBIO, &raw mut on));
    report("FIONREAD", sys!(libc::SYS_ioctl, fd, libc::FIONREAD, &raw mut on));
    println!("{on}");
    unscratch();
}

fn truncate() {
    scratch("truncate");
    std::fs::write("f", "0123456789").expect("a file");
    report("shorter", sys!(libc::SYS_truncate, c("f").as_ptr(), 4));
    println!("{:?}", std::fs::read("f"));
    report("longer", sys!(libc::SYS_truncate, c("f").as_ptr(), 6));
    println!("{:?}", std::fs::read("f"));
    report("negative", sys!(libc::SYS_truncate, c("f").as_ptr(), -1));
    report("a directory", sys!(libc::SYS_truncate, c(".").as_ptr(), 0));
    report("missing", sys!(libc::SYS_truncate, c("none").as_ptr(), 0));
    let reader = open("f", O_RDONLY, 0);
    report("read-only", sys!(libc::SYS_ftruncate, reader, 0));
    let (_, write_end) = sys::pipe(0);
    report("a pipe", sys!(libc::SYS_ftruncate, write_end, 0));
    unscratch();
}

fn fallocate() {
    scratch("fallocate");
    let fd = open("f", O_RDWR | O_CREAT, 0o600);
    report("fallocate", sys!(libc::SYS_fallocate, fd, 0, 0, 10_000));
    report("size", sys!(libc::SYS_lseek, fd, 0, SEEK_END));
    report("keep size", sys!(libc::SYS_fallocate, fd, libc::FALLOC_FL_KEEP_SIZE, 0, 50_000));
    report("size", sys!(libc::SYS_lseek, fd, 0, SEEK_END));
    sys!(libc::SYS_pwrite64, fd, [7_u8; 100].as_ptr(), 100, 0);
    let punch = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE;
    report("punch", sys!(libc::SYS_fallocate, fd, punch, 10, 20));
    let mut buffer = [0_u8; 40];
    sys!(libc::SYS_pread64, fd, buffer.as_mut_ptr(), 40, 0);
    println!("{}", buffer.iter().map(|b| b.to_string()).collect::<String>());
    report("negative", sys!(libc::SYS_fallocate, fd, 0, -1, 10));
    report("nothing", sys!(libc::SYS_fallocate, fd, 0, 0, 0));
    unscratch();
}

fn lock(fd: i64, command: i32, kind: i32, start: i64, len: i64) -> String {
    // struct flock: short type, short whence, off_t start, off_t len, pid_t pid.
    let mut words = [0_i64; 4];
    words[0] = i64::from(kind as u16);
    (words[1], words[2]) = (start, len);
    let result = sys!(libc::SYS_fcntl, fd, command, words.as_mut_ptr());
    let kind = words[0] as i16;
    if command == libc::F_GETLK && result == 0 && kind != libc::F_UNLCK as i16 {
        return format!("held: type {kind} start {} len {}", words[1], words[2]);
    }
    sys::show(result)
}

fn locks() {
    scratch("locks");
    let fd = open("f", O_RDWR | O_CREAT, 0o600);
    println!("write lock {}", lock(fd, libc::F_SETLK, libc::F_WRLCK, 10, 10));
    println!("own, again {}", lock(fd, libc::F_SETLK, libc::F_RDLCK, 15, 5));
    println!("not held by others {}", lock(fd, libc::F_GETLK, libc::F_WRLCK, 0, 0));
    in_child("child", || {
        println!("get {}", lock(fd, libc::F_GETLK, libc::F_WRLCK, 0, 0));
        println!("read where written {}", lock(fd, libc::F_SETLK, libc::F_RDLCK, 10, 2));
        println!("read where read {}", lock(fd, libc::F_SETLK, libc::F_RDLCK, 15, 5));
        println!("beside {}", lock(fd, libc::F_SETLK, libc::F_WRLCK, 20, 5));
        0
    });
    println!("the child's are gone {}", lock(fd, libc::F_SETLK, libc::F_WRLCK, 0, 0));
    let (read_end, write_end) = sys::pipe(0);
    let pid = sys::fork(|| {
        close(read_end);
        // Through the pipe: which of the two would print first is open.
        let waited = lock(fd, libc::F_SETLKW, libc::F_WRLCK, 0, 0);
        write(write_end, format!("waited {waited}").as_bytes());
        0
    });
    sys::until_asleep(pid, pid);
    println!("unlock {}", lock(fd, libc::F_SETLK, libc::F_UNLCK, 0, 0));
    report_read("the child", read_end, 10);
    println!("{}", sys::wait(pid));
    let twin = open("f", O_RDWR, 0);
    lock(fd, libc::F_SETLK, libc::F_WRLCK, 0, 0);
    close(twin);
    in_child("closing any descriptor drops them", || {
        println!("{}", lock(fd, libc::F_SETLK, libc::F_WRLCK, 0, 0));
        0
    });
    unscratch();
}

fn flock() {
    scratch("flock");
    let a = open("f", O_RDWR | O_CREAT, 0o600);
    let b = open("f", O_RDWR, 0);
    let try_lock = |fd, how: i32| sys!(libc::SYS_flock, fd, how | libc::LOCK_NB);
    report("exclusive", try_lock(a, libc::LOCK_EX));
    report("held", try_lock(b, libc::LOCK_SH));
    report("a twin holds it, too", try_lock(sys!(libc::SYS_dup, a), libc::LOCK_EX));
    report("to shared", try_lock(a, libc::LOCK_SH));
    report("both", try_lock(b, libc::LOCK_SH));
    report("not exclusive", try_lock(b, libc::LOCK_EX));
    report("unlock", try_lock(a, libc::LOCK_UN));
    report("exclusive", try_lock(b, libc::LOCK_EX));
    report("bad", try_lock(b, 0));
    unscratch();
}

fn devices() {
    let null = open("/dev/null", O_RDWR, 0);
    report_read("null", null, 5);
    report("null", write(null, b"x"));
    let zero = open("/dev/zero", O_RDWR, 0);
    println!("{:?}", sys::read(zero, 3));
    let full = open("/dev/full", O_RDWR, 0);
    report("full", write(full, b"x"));
    let (result, bytes) = sys::read(open("/dev/urandom", O_RDONLY, 0), 64);
    println!("urandom {result} {}", bytes.iter().any(|b| *b != 0));
    report("no terminal", open("/dev/tty", O_RDWR, 0).min(0));
    report("unknown", open("/dev/none", O_RDWR, 0));
    let map = sys::mmap(0, 4096, 3, libc::MAP_PRIVATE, zero, 0);
    sys::poke(map, 1);
    println!("mapped zero {} {}", sys::peek(map), sys::peek(map + 1));
}

fn deleted() {
    scratch("deleted");
    let fd = open("f", O_RDWR | O_CREAT, 0o600);
    write(fd, b"still here");
    report("unlink", sys!(libc::SYS_unlinkat, libc::AT_FDCWD, c("f").as_ptr(), 0));
    report("open", open("f", O_RDONLY, 0));
    sys!(libc::SYS_lseek, fd, 0, SEEK_SET);
    report_read("read", fd, 20);
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("a link");
    println!("{}", link.to_string_lossy().ends_with("/f (deleted)"));
    println!("through /proc {:?}", std::fs::read_to_string(format!("/proc/self/fd/{fd}")));
    unscratch();
}

fn copying() {
    scratch("copying");
    std::fs::write("from", "0123456789".repeat(1000)).expect("a file");
    let from = open("from", O_RDONLY, 0);
    let to = open("to", O_RDWR | O_CREAT, 0o600);
    let mut offset = 5_i64;
    report("sendfile", sys!(libc::SYS_sendfile, to, from, &raw mut offset, 20));
    println!("{offset} {:?}", std::fs::read_to_string("to"));
    report("copy_file_range", sys!(libc::SYS_copy_file_range, from, 0, to, 0, 100, 0));
    report("position", sys!(libc::SYS_lseek, from, 0, SEEK_CUR));
    report("size", sys!(libc::SYS_lseek, to, 0, SEEK_END));
    let (read_end, write_end) = sys::pipe(0);
    report("splice in", sys!(libc::SYS_splice, from, 0, write_end, 0, 10, 0));
    report("tee", {
        let (_, other) = sys::pipe(0);
        sys!(libc::SYS_tee, read_end, other, 4, 0)
    });
    report("splice out", sys!(libc::SYS_splice, read_end, 0, to, 0, 10, 0));
    report("sendfile to a pipe", sys!(libc::SYS_sendfile, write_end, from, 0, 7));
    report_read("got", read_end, 20);
    report("size", sys!(libc::SYS_lseek, to, 0, SEEK_END));
    unscratch();
}

fn tmpfile() {
    let fd = open("/tmp", O_RDWR | libc::O_TMPFILE, 0o600);
    report("O_TMPFILE", i64::from(fd >= 0));
    report("write", write(fd, b"unnamed"));
    let name = c(&format!("/tmp/abi-named-{}", sys!(libc::SYS_getpid)));
    let own = c(&format!("/proc/self/fd/{fd}"));
    let result = sys!(
        libc::SYS_linkat,
        libc::AT_FDCWD,
        own.as_ptr(),
        libc::AT_FDCWD,
        name.as_ptr(),
        libc::AT_SYMLINK_FOLLOW
    );
    report("linkat", result);
    println!("{:?}", std::fs::read_to_string(name.to_string_lossy().as_ref()));
    report("unlink", sys!(libc::SYS_unlinkat, libc::AT_FDCWD, name.as_ptr(), 0));
    report("read-only", open("/tmp", O_RDONLY | libc::O_TMPFILE, 0o600));
}

fn path_only() {
    scratch("path");
    std::fs::write("f", "text").expect("a file");
    let fd = open("f", libc::O_PATH, 0);
    report("read", sys::read(fd, 1).0);
    report("fchmod", sys!(libc::SYS_fchmod, fd, 0o600));
    let mut stat = [0_u64; 32];
    report("fstat", sys!(libc::SYS_fstat, fd, stat.as_mut_ptr()));
    println!("reopened {:?}", std::fs::read_to_string(format!("/proc/self/fd/{fd}")));
    let dir = open(".", libc::O_PATH | libc::O_DIRECTORY, 0);
    let through = sys!(libc::SYS_openat, dir, c("f").as_ptr(), O_RDONLY, 0);
    report_read("below", through, 10);
    std::os::unix::fs::symlink("f", "link").expect("a link");
    let link = open("link", libc::O_PATH | libc::O_NOFOLLOW, 0);
    let mut target = [0_u8; 8];
    report("readlinkat", sys!(libc::SYS_readlinkat, link, c("").as_ptr(), target.as_mut_ptr(), 8));
    unscratch();
}

fn big() {
    scratch("big");
    let data: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    std::fs::write("f", &data).expect("a file");
    println!("same {}", std::fs::read("f").expect("a file") == data);
    let fd = open("f", O_RDWR, 0);
    let mut out = vec![0_u8; 1_000_000];
    report("pread", sys!(libc::SYS_pread64, fd, out.as_mut_ptr(), out.len(), 1_234_567));
    println!("same {}", out == data[1_234_567..2_234_567]);
    unscratch();
}
