//! What is done with open files.

use super::{ALL, Watcher, make, mkdir, unlink};
use crate::process::{SELF, execute};
use crate::sys::{self, c, close, fork, open, pipe, report, wait};
use std::os::unix::fs::PermissionsExt;

pub(super) fn open_and_close() {
    sys::scratch("inotify-open");
    make("file");
    mkdir("dir");
    // Whether opening or truncating is told first is not the same in all versions of Linux.
    let mut watcher = Watcher::new();
    let mut written = Watcher::new();
    for name in [".", "file", "dir"] {
        watcher.add(name, ALL & !libc::IN_MODIFY);
        written.add(name, libc::IN_MODIFY);
    }
    for (what, flags) in [
        ("read", libc::O_RDONLY),
        ("write", libc::O_WRONLY),
        ("both", libc::O_RDWR),
        ("neither", libc::O_ACCMODE),
        ("truncate", libc::O_WRONLY | libc::O_TRUNC),
        ("truncate what is empty", libc::O_WRONLY | libc::O_TRUNC),
        ("make and truncate", libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC),
        ("handle", libc::O_PATH),
    ] {
        let fd = open("file", flags, 0o644);
        if fd >= 0 {
            watcher.show(what);
            written.show("written");
            close(fd);
            watcher.show("closed");
        }
    }
    let fd = open("dir", libc::O_RDONLY, 0);
    watcher.show("directory");
    close(fd);
    watcher.show("closed");
    report("not a directory", open("file", libc::O_RDONLY | libc::O_DIRECTORY, 0));
    report("missing", open("none", libc::O_RDONLY, 0));
    watcher.show("nothing");
    // The last of several descriptors, be they another process's.
    let fd = open("file", libc::O_RDONLY | libc::O_CLOEXEC, 0);
    let pid = fork(|| {
        close(fd);
        0
    });
    println!("{}", wait(pid));
    watcher.show("closed by a child");
    report("dup3", sys!(libc::SYS_dup3, 0, fd, 0));
    watcher.show("replaced by another");
    close(fd);
    // By what it is called in /proc.
    let fd = open("file", libc::O_RDONLY, 0);
    watcher.take();
    let again = open(&format!("/proc/self/fd/{fd}"), libc::O_RDONLY, 0);
    watcher.show("opened again");
    close(again);
    close(fd);
    watcher.show("closed");
    let fd = open("file", libc::O_RDONLY | libc::O_CLOEXEC, 0);
    watcher.take();
    let pid = fork(|| sys::exit(0));
    println!("{}", wait(pid));
    watcher.show("a child that had it, too");
    close(fd);
    watcher.show("closed");
    sys::unscratch();
}

pub(super) fn bytes() {
    sys::scratch("inotify-bytes");
    make("file");
    let mut watcher = Watcher::on(&["file"]);
    let fd = open("file", libc::O_RDWR, 0);
    watcher.take();
    let mut buffer = [0_u8; 16];
    let vector = [buffer.as_mut_ptr() as i64, 4];
    let nothing = [buffer.as_mut_ptr() as i64, 0];
    let calls: &[(&str, i64, &[i64])] = &[
        ("read", libc::SYS_read, &[fd, buffer.as_mut_ptr() as i64, 4]),
        ("read nothing", libc::SYS_read, &[fd, buffer.as_mut_ptr() as i64, 0]),
        ("pread", libc::SYS_pread64, &[fd, buffer.as_mut_ptr() as i64, 4, 1]),
        ("pread the end", libc::SYS_pread64, &[fd, buffer.as_mut_ptr() as i64, 4, 100]),
        ("readv", libc::SYS_readv, &[fd, vector.as_ptr() as i64, 1]),
        ("readv nothing", libc::SYS_readv, &[fd, nothing.as_ptr() as i64, 1]),
        ("preadv", libc::SYS_preadv, &[fd, vector.as_ptr() as i64, 1, 2]),
        ("preadv the end", libc::SYS_preadv, &[fd, vector.as_ptr() as i64, 1, 100]),
        ("preadv2", libc::SYS_preadv2, &[fd, vector.as_ptr() as i64, 1, 2, 0, 0]),
        ("read nowhere", libc::SYS_read, &[fd, 8, 4]),
        ("write", libc::SYS_write, &[fd, buffer.as_ptr() as i64, 4]),
        ("write nothing", libc::SYS_write, &[fd, buffer.as_ptr() as i64, 0]),
        ("pwrite", libc::SYS_pwrite64, &[fd, buffer.as_ptr() as i64, 4, 1]),
        ("writev", libc::SYS_writev, &[fd, vector.as_ptr() as i64, 1]),
        ("writev nothing", libc::SYS_writev, &[fd, nothing.as_ptr() as i64, 1]),
        ("pwritev", libc::SYS_pwritev, &[fd, vector.as_ptr() as i64, 1, 2]),
        ("pwritev2", libc::SYS_pwritev2, &[fd, vector.as_ptr() as i64, 1, 2, 0, 0]),
        ("write from nowhere", libc::SYS_write, &[fd, 8, 4]),
        ("lseek", libc::SYS_lseek, &[fd, 0, 0]),
        ("fsync", libc::SYS_fsync, &[fd]),
    ];
    for (what, number, args) in calls {
        report(what, sys::call(*number, args));
        watcher.show(what);
    }
    close(fd);
    let fd = open("file", libc::O_WRONLY | libc::O_APPEND, 0);
    watcher.take();
    sys::write(fd, b"x");
    watcher.show("append");
    close(fd);
    sys::unscratch();
}

pub(super) fn sizes() {
    sys::scratch("inotify-sizes");
    make("file");
    let mut watcher = Watcher::on(&[".", "file"]);
    let fd = open("file", libc::O_RDWR, 0);
    watcher.take();
    for (what, size) in [("shorter", 5), ("the same", 5), ("longer", 5000)] {
        report(what, sys!(libc::SYS_ftruncate, fd, size));
        watcher.show(what);
    }
    report("by name", sys!(libc::SYS_truncate, c("file").as_ptr(), 7));
    watcher.show("by name");
    report("negative", sys!(libc::SYS_ftruncate, fd, -1));
    report("allocate", sys!(libc::SYS_fallocate, fd, 0, 0, 9000));
    watcher.show("allocate");
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    report("punch", sys!(libc::SYS_fallocate, fd, punch, 0, 4096));
    watcher.show("punch");
    report("allocate nothing", sys!(libc::SYS_fallocate, fd, 0, 0, 0));
    watcher.show("nothing");
    close(fd);
    let fd = open("file", libc::O_RDONLY, 0);
    watcher.take();
    report("for reading", sys!(libc::SYS_ftruncate, fd, 0));
    report("for reading", sys!(libc::SYS_fallocate, fd, 0, 0, 1));
    watcher.show("nothing");
    close(fd);
    sys::unscratch();
}

/// Each file with an instance of its own: in which order the two are told is another matter.
pub(super) fn copies() {
    sys::scratch("inotify-copies");
    make("from");
    make("to");
    let (mut source, mut target) = (Watcher::on(&["from"]), Watcher::on(&["to"]));
    let (from, to) = (open("from", libc::O_RDONLY, 0), open("to", libc::O_RDWR, 0));
    let mut told = |what: &str, result: i64| {
        report(what, result);
        source.show("from");
        target.show("to");
    };
    told("opened", 0);
    told("sendfile", sys!(libc::SYS_sendfile, to, from, 0, 4));
    told("copy_file_range", sys!(libc::SYS_copy_file_range, from, 0, to, 0, 4, 0));
    sys!(libc::SYS_lseek, from, 0, libc::SEEK_END);
    told("sendfile at the end", sys!(libc::SYS_sendfile, to, from, 0, 4));
    let (read_end, write_end) = pipe(0);
    sys::write(write_end, b"piped");
    told("splice", sys!(libc::SYS_splice, read_end, 0, to, 0, 5, 0));
    sys!(libc::SYS_lseek, from, 0, libc::SEEK_SET);
    told("sendfile to a pipe", sys!(libc::SYS_sendfile, write_end, from, 0, 4));
    sys::unscratch();
}

pub(super) fn listed() {
    sys::scratch("inotify-listed");
    mkdir("dir");
    make("dir/file");
    let mut watcher = Watcher::on(&[".", "dir"]);
    let fd = open("dir", libc::O_RDONLY, 0);
    watcher.take();
    let mut buffer = [0_u8; 512];
    let mut list = || sys!(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), 512);
    println!("listed {}", list() > 0);
    watcher.show("listed");
    report("the end", list());
    watcher.show("the end");
    std::fs::remove_file("dir/file").expect("a name less");
    std::fs::remove_dir("dir").expect("a directory less");
    watcher.take();
    report("removed", list());
    watcher.show("nothing");
    close(fd);
    watcher.show("closed");
    sys::unscratch();
}

pub(super) fn unlinked() {
    sys::scratch("inotify-unlinked");
    make("file");
    let mut all = Watcher::on(&[".", "file"]);
    let mut fewer = Watcher::new();
    fewer.add(".", ALL | libc::IN_EXCL_UNLINK);
    fewer.add("file", ALL | libc::IN_EXCL_UNLINK);
    let fd = open("file", libc::O_RDWR, 0);
    fewer.show("open");
    unlink("file");
    fewer.show("unlinked");
    all.take();
    sys::read(fd, 1);
    sys::write(fd, b"x");
    report("fchmod", sys!(libc::SYS_fchmod, fd, 0o600));
    report("ftruncate", sys!(libc::SYS_ftruncate, fd, 1));
    close(open(&format!("/proc/self/fd/{fd}"), libc::O_RDONLY, 0));
    all.show("all of it");
    fewer.show("what is not done through an open file");
    close(fd);
    all.show("the end");
    fewer.show("the end");
    sys::unscratch();
}

pub(super) fn mapped() {
    sys::scratch("inotify-mapped");
    make("file");
    let mut watcher = Watcher::on(&["file"]);
    for (what, flags, sharing) in
        [("shared", libc::O_RDWR, libc::MAP_SHARED), ("private", libc::O_RDONLY, libc::MAP_PRIVATE)]
    {
        let fd = open("file", flags, 0);
        let writable = if flags == libc::O_RDWR { libc::PROT_WRITE } else { 0 };
        let at = sys::mmap(0, 4096, libc::PROT_READ | writable, sharing, fd, 0);
        watcher.show(what);
        sys::peek(at);
        if writable != 0 {
            sys::poke(at, 1);
        }
        watcher.show("touched");
        close(fd);
        watcher.show("the descriptor is closed");
        let pid = fork(|| 0);
        println!("{}", wait(pid));
        watcher.show("after a child");
        report("munmap", sys!(libc::SYS_munmap, at, 4096));
        watcher.show("no longer mapped");
    }
    sys::unscratch();
}

pub(super) fn executed() {
    sys::scratch("inotify-executed");
    std::fs::copy(SELF, "program").expect("a copy of the program");
    std::fs::set_permissions("program", PermissionsExt::from_mode(0o755)).expect("its permissions");
    let here = std::env::current_dir().expect("a working directory");
    std::fs::write("script", format!("#!{}/program --interpreter\n", here.display())).expect("a script");
    std::fs::set_permissions("script", PermissionsExt::from_mode(0o755)).expect("its permissions");
    std::fs::write("neither", "neither").expect("a file");
    std::fs::set_permissions("neither", PermissionsExt::from_mode(0o755)).expect("its permissions");
    let (mut program, mut script) = (Watcher::on(&["program"]), Watcher::on(&["script", "neither"]));
    let (read_end, write_end) = pipe(libc::O_CLOEXEC);
    let (started, starting) = pipe(libc::O_CLOEXEC);
    let pid = fork(|| {
        close(write_end);
        sys!(libc::SYS_dup3, read_end, 0, 0);
        -execute("./program", &["abi", "--child", "wait"], &[]) as i32
    });
    close(starting);
    // The end of this says that it is the new program.
    sys::read(started, 1);
    program.show("executed");
    close(write_end);
    println!("{}", wait(pid));
    program.show("ended");
    let null = open("/dev/null", libc::O_RDONLY | libc::O_CLOEXEC, 0);
    let pid = fork(|| {
        sys!(libc::SYS_dup3, null, 0, 0);
        -execute("./script", &["script"], &[]) as i32
    });
    println!("{}", wait(pid));
    script.show("a script");
    program.show("its interpreter");
    let pid = fork(|| {
        report("neither", execute("./neither", &["neither"], &[]));
        0
    });
    println!("{}", wait(pid));
    script.show("no program");
    sys::unscratch();
}

pub(super) fn special() {
    sys::scratch("inotify-special");
    report("mknod", sys!(libc::SYS_mknodat, libc::AT_FDCWD, c("fifo").as_ptr(), libc::S_IFIFO | 0o600, 0));
    // What goes through it is not told to its directory, by versions of Linux that have closed that side channel.
    let mut watcher = Watcher::on(&["fifo"]);
    watcher.add(".", ALL & !(libc::IN_ACCESS | libc::IN_MODIFY));
    let read_end = open("fifo", libc::O_RDONLY | libc::O_NONBLOCK, 0);
    watcher.show("one end");
    let write_end = open("fifo", libc::O_WRONLY, 0);
    watcher.show("the other");
    sys::write(write_end, b"x");
    watcher.show("written");
    sys::read(read_end, 1);
    watcher.show("read");
    report("empty", sys::read(read_end, 1).0);
    watcher.show("nothing");
    sys!(libc::SYS_fcntl, read_end, libc::F_SETFL, 0);
    sys::write(write_end, b"y");
    report("waiting", sys::read(read_end, 1).0);
    watcher.show("read");
    close(write_end);
    report("the end", sys::read(read_end, 1).0);
    close(read_end);
    watcher.show("closed");
    report("nobody", open("fifo", libc::O_WRONLY | libc::O_NONBLOCK, 0));
    watcher.show("nothing");
    sys::unscratch();
}

/// Of a device only what this program does is told apart: others may use it, too.
pub(super) fn device() {
    sys::scratch("inotify-device");
    // /dev/zero, by a name that nobody else knows.
    let zero = libc::makedev(1, 5);
    report("mknod", sys!(libc::SYS_mknodat, libc::AT_FDCWD, c("zero").as_ptr(), libc::S_IFCHR | 0o600, zero));
    let fd = open("zero", libc::O_RDWR, 0);
    if fd >= 0 {
        let mut watcher = Watcher::on(&["zero"]);
        sys::read(fd, 1);
        sys::write(fd, b"x");
        sys::read(fd, 0);
        watcher.show("a device");
        let wd = watcher.add("zero", libc::IN_OPEN);
        report("remove", watcher.remove(wd));
        report("remove", watcher.remove(1));
        watcher.take();
        report("read", sys::read(fd, 1).0);
        watcher.show("nobody watches");
    }
    close(fd);
    sys::unscratch();
}
