//! Names: directories, links, renaming, attributes, the working directory.

use crate::Case;
use crate::sys::{self, c, in_child, open, report, scratch, unscratch};
use libc::AT_FDCWD;

pub(crate) const CASES: &[Case] = &[
    ("name_stat", stat),
    ("name_statx", statx),
    ("name_directories", directories),
    ("name_getdents", getdents),
    ("name_links", links),
    ("name_symlinks", symlinks),
    ("name_rename", rename),
    ("name_unlink", unlink),
    ("name_modes", modes),
    ("name_access", access),
    ("name_times", times),
    ("name_cwd", cwd),
    ("name_at", at),
    ("name_mknod", mknod),
    ("name_xattr", xattr),
    ("name_chroot", chroot),
    ("name_proc", proc),
    ("name_read_only_below", read_only_below),
];

/// Mode, links, size; the inode only as "same or not" elsewhere.
fn describe(path: &str) -> String {
    use std::os::unix::fs::MetadataExt;
    match std::fs::symlink_metadata(path) {
        Ok(m) => {
            format!("mode {:o} links {} size {} blocks {}", m.mode(), m.nlink(), m.size(), m.blocks() > 0)
        }
        Err(error) => format!("errno {}", error.raw_os_error().unwrap_or(0)),
    }
}

fn stat() {
    scratch("stat");
    std::fs::write("f", "12345").expect("a file");
    std::os::unix::fs::symlink("f", "l").expect("a link");
    println!("file {}", describe("f"));
    println!("link mode {}", &describe("l")[..12]);
    use std::os::unix::fs::MetadataExt;
    let (file, link) = (std::fs::metadata("f").expect("a file"), std::fs::metadata("l").expect("a link"));
    println!("through the link {}", file.ino() == link.ino() && file.dev() == link.dev());
    println!(
        "owner {} {}",
        file.uid() == sys!(libc::SYS_geteuid) as u32,
        file.gid() == sys!(libc::SYS_getegid) as u32
    );
    println!("block size {}", file.blksize());
    for path in ["/dev/null", "/dev/zero"] {
        let device = std::fs::metadata(path).expect("a device");
        println!("{path} {:o} {:#x}", device.mode() & libc::S_IFMT, device.rdev());
    }
    println!("pipe {:o}", {
        let mut words = [0_u8; 256];
        sys!(libc::SYS_fstat, sys::pipe(0).0, words.as_mut_ptr());
        let at = if cfg!(target_arch = "x86_64") { 24 } else { 16 };
        u32::from_ne_bytes(words[at..at + 4].try_into().expect("four bytes"))
    });
    let mut words = [0_u8; 256];
    let newfstatat = |path: &str, flags: i32, words: &mut [u8; 256]| {
        sys!(libc::SYS_newfstatat, AT_FDCWD, c(path).as_ptr(), words.as_mut_ptr(), flags)
    };
    report("missing", newfstatat("none", 0, &mut words));
    report("below a file", newfstatat("f/x", 0, &mut words));
    report("empty", newfstatat("", 0, &mut words));
    report("empty, allowed", newfstatat("", libc::AT_EMPTY_PATH, &mut words));
    report("bad flag", newfstatat("f", 0x8_0000, &mut words));
    report("bad descriptor", sys!(libc::SYS_fstat, 99, words.as_mut_ptr()));
    unscratch();
}

fn statx() {
    scratch("statx");
    std::fs::write("f", "12345").expect("a file");
    let mut words = [0_u32; 64];
    let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    report("statx", sys!(libc::SYS_statx, AT_FDCWD, c("f").as_ptr(), 0, mask, words.as_mut_ptr()));
    println!("basic {}", words[0] & libc::STATX_BASIC_STATS == libc::STATX_BASIC_STATS);
    println!("links {} mode {:o} size {}", words[4], words[7] & 0xffff, words[10]);
    report(
        "reserved mask",
        sys!(libc::SYS_statx, AT_FDCWD, c("f").as_ptr(), 0, 1_u32 << 31, words.as_mut_ptr()),
    );
    report("bad flags", sys!(libc::SYS_statx, AT_FDCWD, c("f").as_ptr(), 0x6000, mask, words.as_mut_ptr()));
    unscratch();
}

fn mkdir(path: &str, mode: u32) -> i64 {
    sys!(libc::SYS_mkdirat, AT_FDCWD, c(path).as_ptr(), mode)
}

pub(crate) fn rmdir(path: &str) -> i64 {
    sys!(libc::SYS_unlinkat, AT_FDCWD, c(path).as_ptr(), libc::AT_REMOVEDIR)
}

fn directories() {
    scratch("dirs");
    sys!(libc::SYS_umask, 0o022);
    report("mkdir", mkdir("d", 0o777));
    println!("{:o}", std::os::unix::fs::MetadataExt::mode(&std::fs::metadata("d").expect("a directory")));
    report("again", mkdir("d", 0o777));
    report("below nothing", mkdir("x/y", 0o777));
    report("with a slash", mkdir("e/", 0o700));
    report("dot", mkdir(".", 0o700));
    report("root", mkdir("/", 0o700));
    std::fs::write("d/f", "").expect("a file");
    report("rmdir, full", rmdir("d"));
    report("rmdir of a file", rmdir("d/f"));
    report("rmdir of dot", rmdir("d/."));
    report("rmdir of dotdot", rmdir("d/.."));
    report("rmdir", rmdir("e"));
    report("rmdir of nothing", rmdir("e"));
    std::fs::create_dir_all("a/b/c").expect("directories");
    println!("links {}", {
        std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata("a").expect("a directory")) > 0
    });
    std::fs::remove_dir_all("a").expect("gone");
    // A directory that somebody stands in can go.
    std::fs::create_dir("here").expect("a directory");
    std::env::set_current_dir("here").expect("inside");
    report("rmdir of the working directory", rmdir("../here"));
    report("create inside", open("f", libc::O_CREAT | libc::O_RDWR, 0o600));
    let mut buffer = [0_u8; 100];
    report("getcwd", sys!(libc::SYS_getcwd, buffer.as_mut_ptr(), 100));
    std::env::set_current_dir("..").map(drop).unwrap_or_else(|e| println!("{:?}", e.raw_os_error()));
    std::env::set_current_dir("/tmp").expect("/tmp");
}

fn getdents() {
    scratch("getdents");
    for name in ["b", "a", "c"] {
        std::fs::write(name, "").expect("a file");
    }
    std::fs::create_dir("dir").expect("a directory");
    std::os::unix::fs::symlink("a", "link").expect("a link");
    let fd = open(".", libc::O_RDONLY | libc::O_DIRECTORY, 0);
    let list = |fd: i64, size: usize| {
        let mut names = Vec::new();
        loop {
            let mut buffer = vec![0_u8; size];
            let length = sys!(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), size);
            if length <= 0 {
                return (sys::show(length), names);
            }
            let mut at = 0;
            while at < length as usize {
                let size = u16::from_ne_bytes([buffer[at + 16], buffer[at + 17]]) as usize;
                let name = &buffer[at + 19..at + size];
                let end = name.iter().position(|b| *b == 0).unwrap_or(0);
                names.push(format!("{}:{}", String::from_utf8_lossy(&name[..end]), buffer[at + 18]));
                at += size;
            }
        }
    };
    let sorted = |(end, mut names): (String, Vec<String>)| {
        names.sort();
        format!("{names:?} then {end}")
    };
    println!("{}", sorted(list(fd, 4096)));
    println!("{}", sorted(list(fd, 4096)));
    sys!(libc::SYS_lseek, fd, 0, libc::SEEK_SET);
    println!("small buffers {}", sorted(list(fd, 64)));
    sys!(libc::SYS_lseek, fd, 0, libc::SEEK_SET);
    println!("too small {}", sorted(list(fd, 10)));
    let file = open("a", libc::O_RDONLY, 0);
    println!("a file {}", sorted(list(file, 100)));
    for n in 0..500 {
        std::fs::write(format!("many{n}"), "").expect("a file");
    }
    println!("{}", std::fs::read_dir(".").expect("a directory").count());
    for n in (0..500).step_by(2) {
        std::fs::remove_file(format!("many{n}")).expect("gone");
    }
    println!("{}", std::fs::read_dir(".").expect("a directory").count());
    unscratch();
}

fn link(from: &str, to: &str) -> i64 {
    sys!(libc::SYS_linkat, AT_FDCWD, c(from).as_ptr(), AT_FDCWD, c(to).as_ptr(), 0)
}

fn links() {
    scratch("links");
    std::fs::write("a", "text").expect("a file");
    report("link", link("a", "b"));
    println!("{}", describe("a"));
    report("exists", link("a", "b"));
    report("missing", link("none", "x"));
    std::fs::create_dir("d").expect("a directory");
    report("a directory", link("d", "x"));
    std::fs::write("b", "changed").expect("a file");
    println!("{:?}", std::fs::read_to_string("a"));
    std::fs::remove_file("a").expect("gone");
    println!("{}", describe("b"));
    unscratch();
}

fn symlinks() {
    scratch("symlinks");
    let symlink = |to: &str, at: &str| sys!(libc::SYS_symlinkat, c(to).as_ptr(), AT_FDCWD, c(at).as_ptr());
    report("symlink", symlink("target", "l"));
    report("exists", symlink("target", "l"));
    report("empty", symlink("", "m"));
    let mut buffer = [0_u8; 64];
    let mut readlink = |path: &str, size: usize| {
        let length = sys!(libc::SYS_readlinkat, AT_FDCWD, c(path).as_ptr(), buffer.as_mut_ptr(), size);
        let shown = usize::try_from(length).unwrap_or(0);
        format!("{} {:?}", sys::show(length), String::from_utf8_lossy(&buffer[..shown]))
    };
    println!("{}", readlink("l", 64));
    println!("cut {}", readlink("l", 3));
    println!("no room {}", readlink("l", 0));
    std::fs::write("target", "t").expect("a file");
    println!("not a link {}", readlink("target", 64));
    symlink("loop", "loop");
    report("a loop", open("loop", libc::O_RDONLY, 0));
    (0..45).for_each(|n| {
        symlink(&if n == 0 { "target".to_owned() } else { format!("c{}", n - 1) }, &format!("c{n}"));
    });
    report("40 links", i64::from(open("c39", libc::O_RDONLY, 0) >= 0));
    report("41 links", open("c40", libc::O_RDONLY, 0).min(0));
    std::fs::create_dir("d").expect("a directory");
    symlink("../target", "d/up");
    println!("{:?}", std::fs::read_to_string("d/up"));
    symlink("d", "dl");
    println!("{:?}", std::fs::read_to_string("dl/up"));
    println!("{:?}", std::fs::read_to_string("dl/../target"));
    unscratch();
}

fn renameat(from: &str, to: &str, flags: u32) -> i64 {
    sys!(libc::SYS_renameat2, AT_FDCWD, c(from).as_ptr(), AT_FDCWD, c(to).as_ptr(), flags)
}

fn rename() {
    scratch("rename");
    std::fs::write("a", "A").expect("a file");
    std::fs::write("b", "B").expect("a file");
    report("over", renameat("a", "b", 0));
    println!("{:?} {}", std::fs::read_to_string("b"), describe("a"));
    report("missing", renameat("a", "c", 0));
    report("to itself", renameat("b", "b", 0));
    std::fs::create_dir_all("d/sub").expect("directories");
    report("a file over a directory", renameat("b", "d", 0));
    report("a directory over a file", renameat("d", "b", 0));
    report("into itself", renameat("d", "d/sub/x", 0));
    std::fs::create_dir("e").expect("a directory");
    report("over an empty directory", renameat("d", "e", 0));
    std::fs::create_dir("f").expect("a directory");
    report("over a full one", renameat("f", "e", 0));
    report("NOREPLACE", renameat("f", "b", 1));
    report("EXCHANGE", renameat("f", "b", 2));
    println!("{} {}", std::path::Path::new("b").is_dir(), std::path::Path::new("f").is_file());
    report("both", renameat("f", "b", 3));
    report("dot", renameat(".", "x", 0));
    report("with slashes", renameat("e/", "g/", 0));
    report("a file with a slash", renameat("f/", "h", 0));
    // An open file keeps its identity.
    let fd = open("f", libc::O_RDONLY, 0);
    renameat("f", "moved", 0);
    println!("{}", std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("a link").ends_with("moved"));
    unscratch();
}

fn unlink() {
    scratch("unlink");
    let unlink = |path: &str| sys!(libc::SYS_unlinkat, AT_FDCWD, c(path).as_ptr(), 0);
    std::fs::write("f", "").expect("a file");
    std::fs::create_dir("d").expect("a directory");
    report("a directory", unlink("d"));
    report("missing", unlink("none"));
    report("a slash", unlink("f/"));
    report("a file", unlink("f"));
    report("again", unlink("f"));
    report("bad flag", sys!(libc::SYS_unlinkat, AT_FDCWD, c("d").as_ptr(), 1));
    unscratch();
}

fn modes() {
    scratch("modes");
    use std::os::unix::fs::MetadataExt;
    let mode = |path: &str| format!("{:o}", std::fs::metadata(path).map(|m| m.mode() & 0o7777).unwrap_or(0));
    println!("umask {:o}", sys!(libc::SYS_umask, 0o027));
    open("f", libc::O_CREAT | libc::O_RDWR, 0o666);
    println!("created {}", mode("f"));
    mkdir("d", 0o777);
    println!("directory {}", mode("d"));
    println!("umask {:o}", sys!(libc::SYS_umask, 0o022));
    report("chmod", sys!(libc::SYS_fchmodat, AT_FDCWD, c("f").as_ptr(), 0o4751));
    println!("{}", mode("f"));
    report("chmod of nothing", sys!(libc::SYS_fchmodat, AT_FDCWD, c("none").as_ptr(), 0o600));
    report("chown", sys!(libc::SYS_fchownat, AT_FDCWD, c("f").as_ptr(), -1, -1, 0));
    println!("{}", mode("f"));
    let fd = open("f", libc::O_RDWR, 0);
    report("fchmod", sys!(libc::SYS_fchmod, fd, 0o600));
    println!("{}", mode("f"));
    in_child("not the owner", || {
        if sys!(libc::SYS_setresuid, 1000, 1000, 1000) != 0 {
            return 0;
        }
        report("chmod", sys!(libc::SYS_fchmodat, AT_FDCWD, c("f").as_ptr(), 0o666));
        report("open", open("f", libc::O_RDONLY, 0));
        0
    });
    unscratch();
}

fn access() {
    scratch("access");
    std::fs::write("f", "").expect("a file");
    sys!(libc::SYS_fchmodat, AT_FDCWD, c("f").as_ptr(), 0o640);
    let access = |path: &str, mode: i32| sys!(libc::SYS_faccessat, AT_FDCWD, c(path).as_ptr(), mode);
    report("exists", access("f", 0));
    report("read", access("f", 4));
    report("execute", access("f", 1));
    report("missing", access("none", 0));
    report("bad mode", access("f", 8));
    report("faccessat2", sys!(libc::SYS_faccessat2, AT_FDCWD, c("f").as_ptr(), 4, libc::AT_EACCESS));
    in_child("as somebody else", || {
        if sys!(libc::SYS_setresuid, 1000, 1000, 1000) != 0 {
            return 0;
        }
        report("read", access("f", 4));
        report("exists", access("f", 0));
        0
    });
    unscratch();
}

fn times() {
    scratch("times");
    use std::os::unix::fs::MetadataExt;
    std::fs::write("f", "").expect("a file");
    let show = || {
        let m = std::fs::metadata("f").expect("a file");
        format!("{}.{} {}.{}", m.atime(), m.atime_nsec(), m.mtime(), m.mtime_nsec())
    };
    let set = |times: [i64; 4]| sys!(libc::SYS_utimensat, AT_FDCWD, c("f").as_ptr(), times.as_ptr(), 0);
    report("set", set([1000, 1, 2000, 2]));
    println!("{}", show());
    report("one only", set([3000, 3, 0, libc::UTIME_OMIT]));
    println!("{}", show());
    report("bad nanoseconds", set([0, 1_000_000_000, 0, 0]));
    report("now", set([0, libc::UTIME_NOW, 0, libc::UTIME_NOW]));
    println!("now {}", std::fs::metadata("f").expect("a file").mtime() > 1_700_000_000);
    report("before 1970", set([-5, 0, -5, 0]));
    println!("{}", show());
    std::fs::write("f", "x").expect("a file");
    println!("written {}", std::fs::metadata("f").expect("a file").mtime() > 1_700_000_000);
    unscratch();
}

fn cwd() {
    scratch("cwd");
    let mut buffer = [0_u8; 256];
    let length = sys!(libc::SYS_getcwd, buffer.as_mut_ptr(), 256);
    println!("{} {}", length > 10, buffer.starts_with(b"/tmp/abi-cwd"));
    report("no room", sys!(libc::SYS_getcwd, buffer.as_mut_ptr(), 3));
    std::fs::create_dir("d").expect("a directory");
    report("chdir", sys!(libc::SYS_chdir, c("d").as_ptr()));
    report("missing", sys!(libc::SYS_chdir, c("none").as_ptr()));
    report("a file", sys!(libc::SYS_chdir, c("/dev/null").as_ptr()));
    let up = open("..", libc::O_RDONLY | libc::O_DIRECTORY, 0);
    in_child("fchdir in a child", || {
        report("fchdir", sys!(libc::SYS_fchdir, up));
        i32::from(std::path::Path::new("d").exists())
    });
    println!("not the parent's {}", !std::path::Path::new("d").exists());
    report("fchdir", sys!(libc::SYS_fchdir, up));
    report("fchdir of a file", sys!(libc::SYS_fchdir, open("/dev/null", 0, 0)));
    sys!(libc::SYS_chdir, c("/").as_ptr());
    sys!(libc::SYS_chdir, c("../../..").as_ptr());
    report("getcwd of the root", sys!(libc::SYS_getcwd, buffer.as_mut_ptr(), 256));
    sys!(libc::SYS_fchdir, up);
    unscratch();
}

fn at() {
    scratch("at");
    mkdir("d", 0o700);
    std::fs::write("d/f", "below").expect("a file");
    let dir = open("d", libc::O_RDONLY | libc::O_DIRECTORY, 0);
    let fd = sys!(libc::SYS_openat, dir, c("f").as_ptr(), 0, 0);
    sys::report_read("openat", fd, 10);
    report("of a file", sys!(libc::SYS_openat, fd, c("f").as_ptr(), 0, 0));
    report("of nothing", sys!(libc::SYS_openat, 99, c("f").as_ptr(), 0, 0));
    report("absolute", i64::from(sys!(libc::SYS_openat, 99, c("/dev/null").as_ptr(), 0, 0) >= 0));
    report("mkdirat", sys!(libc::SYS_mkdirat, dir, c("sub").as_ptr(), 0o700));
    report("unlinkat", sys!(libc::SYS_unlinkat, dir, c("f").as_ptr(), 0));
    let how = [0_u64, 0, libc::RESOLVE_BENEATH];
    report("openat2", sys!(libc::SYS_openat2, dir, c("../d").as_ptr(), how.as_ptr(), 24));
    let how = [0_u64, 0, libc::RESOLVE_NO_SYMLINKS];
    std::os::unix::fs::symlink("sub", "d/link").expect("a link");
    report("openat2", sys!(libc::SYS_openat2, dir, c("link").as_ptr(), how.as_ptr(), 24));
    unscratch();
}

fn mknod() {
    scratch("mknod");
    let mknod =
        |path: &str, mode: u32, dev: u32| sys!(libc::SYS_mknodat, AT_FDCWD, c(path).as_ptr(), mode, dev);
    report("fifo", mknod("fifo", libc::S_IFIFO | 0o600, 0));
    println!("{}", describe("fifo"));
    report("file", mknod("file", libc::S_IFREG | 0o600, 0));
    report("exists", mknod("file", libc::S_IFREG | 0o600, 0));
    report("directory", mknod("dir", libc::S_IFDIR | 0o700, 0));
    report("no reader", open("fifo", libc::O_WRONLY | libc::O_NONBLOCK, 0));
    let pid = sys::fork(|| {
        let fd = open("fifo", libc::O_WRONLY, 0);
        sys::write(fd, b"through");
        0
    });
    let fd = open("fifo", libc::O_RDONLY, 0);
    sys::report_read("fifo", fd, 20);
    println!("{}", sys::wait(pid));
    sys::report_read("end", fd, 20);
    unscratch();
}

fn xattr() {
    scratch("xattr");
    std::fs::write("f", "").expect("a file");
    let (path, name) = (c("f"), c("trusted.none"));
    let mut value = [0_u8; 16];
    let get = sys!(libc::SYS_getxattr, path.as_ptr(), name.as_ptr(), value.as_mut_ptr(), 16);
    report("missing", get);
    let missing = c("none");
    report("no file", sys!(libc::SYS_getxattr, missing.as_ptr(), name.as_ptr(), value.as_mut_ptr(), 16));
    unscratch();
}

fn chroot() {
    scratch("chroot");
    std::fs::create_dir_all("r/inner").expect("directories");
    std::fs::write("r/inner/f", "inside").expect("a file");
    in_child("child", || {
        let result = sys!(libc::SYS_chroot, c("r").as_ptr());
        if result != 0 {
            return 0;
        }
        sys!(libc::SYS_chdir, c("/").as_ptr());
        println!("{:?}", std::fs::read_to_string("/inner/f"));
        println!("{:?}", std::fs::read_to_string("../../inner/f"));
        report("outside", open("/dev/null", 0, 0));
        0
    });
    unscratch();
}

fn proc() {
    let pid = sys!(libc::SYS_getpid);
    println!(
        "self {}",
        std::fs::read_link("/proc/self").is_ok_and(|l| l.to_string_lossy() == pid.to_string())
    );
    let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
    println!("stat {}", stat.starts_with(&format!("{pid} (abi) R ")));
    println!("stat fields {}", stat.rsplit(')').next().unwrap_or("").split_whitespace().count());
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    for field in ["Name:", "Umask:", "State:", "Pid:", "PPid:", "Uid:", "Threads:", "SigBlk:", "VmRSS:"] {
        println!("{field} {}", status.lines().any(|l| l.starts_with(field)));
    }
    println!("cmdline {:?}", std::fs::read("/proc/self/cmdline").map(|c| c.split(|b| *b == 0).count()));
    println!("comm {:?}", std::fs::read_to_string("/proc/self/comm"));
    println!("exe {}", std::fs::read_link("/proc/self/exe").is_ok_and(|l| l.ends_with("abi")));
    println!("fd {}", std::fs::read_dir("/proc/self/fd").expect("fd").count() >= 3);
    println!("task {}", std::fs::read_dir("/proc/self/task").expect("task").count());
    println!("nobody {:?}", std::fs::metadata("/proc/4000000").map(drop).map_err(|e| e.raw_os_error()));
    for file in
        ["/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/proc/uptime", "/proc/loadavg", "/proc/mounts"]
    {
        println!("{file} {}", std::fs::read_to_string(file).is_ok_and(|t| !t.is_empty()));
    }
    for file in
        ["/proc/filesystems", "/proc/version", "/proc/self/environ", "/proc/self/limits", "/proc/self/maps"]
    {
        println!("{file} {}", std::fs::read(file).is_ok());
    }
    println!("pid_max {}", std::fs::read_to_string("/proc/sys/kernel/pid_max").is_ok());
    println!("stdin {}", std::fs::read_link("/dev/stdin").is_ok());
    report("write to maps", open("/proc/self/maps", libc::O_WRONLY, 0).min(0));
}

fn read_only_below() {
    // The sandbox's lower layer is read-only; writes go to a copy. Natively this case works on the same kinds of files.
    scratch("below");
    let directory = format!("/tmp/abi-in-tmp-{}", sys!(libc::SYS_getpid));
    let file = format!("{directory}/f");
    report("a directory in /tmp", mkdir(&directory, 0o700));
    ["one", "two"].iter().for_each(|text| std::fs::write(&file, text).expect("a file"));
    println!("{:?}", std::fs::read_to_string(&file));
    std::fs::remove_dir_all(&directory).expect("gone");
    report("gone", open(&directory, 0, 0));
    unscratch();
}
