//! Files that are written while somebody executes them, and the other way round: ETXTBSY.

use crate::Case;
use crate::process::{SELF, execute};
use crate::sys::{self, c, close, fork, in_child, open, report, report_ok, wait};
use std::os::unix::fs::PermissionsExt;

pub(crate) const CASES: &[Case] = &[
    ("busy_program", program),
    ("busy_written", written),
    ("busy_mapped", mapped),
    ("busy_forked", forked),
    ("busy_script", script),
    ("busy_memfd", memfd),
];

/// A copy of this program that can be written.
fn copy(name: &str) {
    std::fs::copy(SELF, name).expect("a copy of the program");
    executable(name);
}

fn executable(name: &str) {
    std::fs::set_permissions(name, PermissionsExt::from_mode(0o755)).expect("its permissions");
}

/// A program that runs until its standard input ends.
struct Running {
    pid: i64,
    input: i64,
}

impl Running {
    /// Starts it, and returns once it is the new program.
    fn start(path: &str, words: &[&str]) -> Running {
        let (read_end, input) = sys::pipe(libc::O_CLOEXEC);
        let (started, starting) = sys::pipe(libc::O_CLOEXEC);
        let pid = fork(|| {
            close(input);
            sys!(libc::SYS_dup3, read_end, 0, 0);
            -execute(path, words, &[]) as i32
        });
        close(starting);
        close(read_end);
        sys::read(started, 1);
        close(started);
        Running { pid, input }
    }

    fn end(self) {
        close(self.input);
        println!("{}", wait(self.pid));
    }
}

/// What becomes of opening and truncating a file in every way.
fn try_all(what: &str, name: &str) {
    println!("{what}:");
    for (how, flags) in [
        ("read", libc::O_RDONLY),
        ("write", libc::O_WRONLY),
        ("both", libc::O_RDWR),
        ("append", libc::O_WRONLY | libc::O_APPEND),
        ("make", libc::O_WRONLY | libc::O_CREAT),
        ("name", libc::O_PATH),
    ] {
        let fd = open(name, flags, 0o755);
        report_ok(how, fd);
        close(fd);
    }
    let size = std::fs::metadata(name).map_or(0, |meta| meta.len()) as i64;
    report("truncate", sys!(libc::SYS_truncate, c(name).as_ptr(), size));
}

fn program() {
    sys::scratch("busy");
    copy("copy");
    try_all("before", "copy");
    let one = Running::start("./copy", &["abi", "--child", "wait"]);
    let other = Running::start("./copy", &["abi", "--child", "wait"]);
    try_all("running", "copy");
    report("truncate and read", open("copy", libc::O_RDONLY | libc::O_TRUNC, 0));
    println!("as long as before {}", std::fs::metadata("copy").map_or(0, |meta| meta.len()) > 4096);
    // Names are another matter.
    std::fs::rename("copy", "moved").expect("a new name");
    one.end();
    try_all("still running", "moved");
    report("a device", open("/dev/null", libc::O_WRONLY, 0).min(0));
    other.end();
    try_all("after", "moved");
    in_child("runs", || execute("./moved", &["abi", "--child", "exit", "7"], &[]) as i32);
    sys::unscratch();
}

fn run(name: &str) {
    let path = format!("./{name}");
    in_child("run", || {
        let errno = execute(&path, &["abi", "--child", "exit", "7"], &[]);
        report("execve", errno);
        1
    });
}

fn written() {
    sys::scratch("written");
    copy("copy");
    for flags in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR] {
        let fd = open("copy", flags | libc::O_CLOEXEC, 0);
        run("copy");
        let second = sys!(libc::SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, 0);
        close(fd);
        run("copy");
        close(second);
        run("copy");
    }
    // Two writers.
    let (one, other) = (open("copy", libc::O_WRONLY, 0), open("copy", libc::O_WRONLY, 0));
    close(one);
    run("copy");
    close(other);
    run("copy");
    let handle = open("copy", libc::O_PATH, 0);
    report_ok("reopened", open(&format!("/proc/self/fd/{handle}"), libc::O_RDWR, 0));
    run("copy");
    sys::unscratch();
}

fn mapped() {
    sys::scratch("mapped");
    copy("copy");
    for (flags, sharing) in [
        (libc::O_RDWR, libc::MAP_SHARED),
        (libc::O_RDWR, libc::MAP_PRIVATE),
        (libc::O_RDONLY, libc::MAP_SHARED),
    ] {
        let fd = open("copy", flags, 0);
        let at = sys::mmap(0, 4096, libc::PROT_READ, sharing, fd, 0);
        close(fd);
        run("copy");
        report("munmap", sys!(libc::SYS_munmap, at, 4096));
        run("copy");
    }
    sys::unscratch();
}

fn forked() {
    sys::scratch("forked");
    copy("copy");
    // Ends at once, but for a child of its own.
    let parent = Running::start("./copy", &["abi", "--child", "wait-forked"]);
    println!("{}", wait(parent.pid));
    report("write", open("copy", libc::O_WRONLY, 0));
    close(parent.input);
    let mut tries = 0..6000;
    let opened = tries.any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        open("copy", libc::O_WRONLY, 0) >= 0
    });
    println!("free in the end {opened}");
    sys::unscratch();
}

fn script() {
    sys::scratch("busy-script");
    copy("interpreter");
    let here = std::env::current_dir().expect("a working directory");
    let text = format!("#!{}/interpreter --interpreter\n", here.display());
    std::fs::write("script", &text).expect("a script");
    executable("script");
    let fd = open("script", libc::O_WRONLY | libc::O_CLOEXEC, 0);
    in_child("script being written", || {
        report("execve", execute("./script", &["script"], &[]));
        1
    });
    close(fd);
    let fd = open("interpreter", libc::O_WRONLY | libc::O_CLOEXEC, 0);
    in_child("interpreter being written", || {
        report("execve", execute("./script", &["script"], &[]));
        1
    });
    close(fd);
    let running = Running::start("./script", &["script"]);
    report_ok("write the script", open("script", libc::O_WRONLY, 0));
    report("write the interpreter", open("interpreter", libc::O_WRONLY, 0));
    running.end();
    report_ok("write the interpreter", open("interpreter", libc::O_WRONLY, 0));
    sys::unscratch();
}

fn memfd() {
    let fd = sys!(libc::SYS_memfd_create, c("program").as_ptr(), libc::MFD_CLOEXEC);
    let program = std::fs::read(SELF).expect("this program");
    println!("written {}", sys::write(fd, &program) == program.len() as i64);
    let words = [c("abi"), c("--child"), c("exit"), c("7")];
    let argv = [words[0].as_ptr(), words[1].as_ptr(), words[2].as_ptr(), words[3].as_ptr(), std::ptr::null()];
    let execute = || {
        let result = sys!(libc::SYS_execveat, fd, c("").as_ptr(), argv.as_ptr(), 0, libc::AT_EMPTY_PATH);
        report("execveat", result);
        1
    };
    in_child("as it was made", execute);
    let again = open(&format!("/proc/self/fd/{fd}"), libc::O_RDWR | libc::O_CLOEXEC, 0);
    in_child("opened for writing", execute);
    close(again);
    in_child("closed again", execute);
}
