//! Looking into other processes: who may, when that is decided, and what of. The cases expect to start as root.

use crate::Case;
use crate::process::{SELF, execute};
use crate::setid::{become_user, copy_of_self};
use crate::sys::{self, c, in_child, report, show};

pub(crate) const CASES: &[Case] = &[
    ("peek_opened_before", opened_before),
    ("peek_race", race),
    ("peek_memory", memory),
    ("peek_rights", rights),
    ("peek_kcmp", kcmp),
    ("peek_descriptors", descriptors),
    ("peek_opener", opener),
];

const FILES: [&str; 8] = ["maps", "auxv", "environ", "smaps", "smaps_rollup", "personality", "stat", "mem"];

/// Runs `body` in a child that is the user and may be looked at by it.
fn user(what: &str, body: impl FnOnce() -> i32) {
    in_child(what, || {
        become_user(&[]);
        sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1);
        body()
    });
}

/// What is left of a program that others watch.
struct Watched {
    pid: i64,
    /// Its standard input: it ends with this.
    input: i64,
    /// It writes a byte here once it has executed.
    output: i64,
    /// One byte in lets it execute.
    go: i64,
}

impl Watched {
    /// A process that will execute `program` when told to.
    fn new(program: &str) -> Watched {
        let ((stdin, input), (output, stdout), (start, go)) = (sys::pipe(0), sys::pipe(0), sys::pipe(0));
        let pid = sys::fork(|| {
            sys::close(input);
            sys::close(go);
            sys::read(start, 1);
            sys!(libc::SYS_dup3, stdin, 0, 0);
            sys!(libc::SYS_dup3, stdout, 1, 0);
            -execute(program, &["abi", "--child", "watched"], &["SECRET=1"]) as i32
        });
        for fd in [stdin, stdout, start] {
            sys::close(fd);
        }
        Watched { pid, input, output, go }
    }

    fn execute(&self) {
        sys::write(self.go, b"g");
        assert_eq!(sys::read(self.output, 1).0, 1, "the program runs");
    }

    fn end(self) {
        sys::close(self.input);
        println!("{}", sys::wait(self.pid));
        sys::close(self.output);
        sys::close(self.go);
    }
}

/// What a read of some file says: an error, nothing or something.
fn says(fd: i64) -> String {
    let (result, bytes) = sys::read(fd, 1 << 16);
    match result {
        0 => "nothing".to_owned(),
        1.. if bytes.windows(6).any(|part| part == b"SECRET") => "the environment".to_owned(),
        1.. => "something".to_owned(),
        error => show(error),
    }
}

/// The address where a program's code starts, as stat shows it: those who may not look see 1.
fn code_start(stat: &str) -> &'static str {
    match stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(23)) {
        Some("1") => "hidden",
        Some("0") => "none",
        Some(_) => "shown",
        None => "missing",
    }
}

fn opened_before() {
    sys::scratch("peek");
    sys!(libc::SYS_fchmodat, libc::AT_FDCWD, c(".").as_ptr(), 0o755);
    copy_of_self("setuid", 0o4755);
    copy_of_self("plain", 0o755);
    for program in ["plain", "setuid"] {
        user(program, || {
            let watched = Watched::new(program);
            let path = |name: &str| format!("/proc/{}/{name}", watched.pid);
            let before: Vec<i64> =
                FILES.iter().map(|name| sys::open(&path(name), libc::O_RDONLY, 0)).collect();
            let link = sys::open(&path("fd/0"), libc::O_PATH | libc::O_NOFOLLOW, 0);
            let info = sys::open(&path("fdinfo/0"), libc::O_RDONLY, 0);
            watched.execute();
            for (name, fd) in FILES.iter().zip(before) {
                let old = match *name {
                    "stat" => code_start(&String::from_utf8_lossy(&sys::read(fd, 4096).1)).to_owned(),
                    _ => says(fd),
                };
                let new = sys::open(&path(name), libc::O_RDONLY, 0);
                let new = if new < 0 { show(new) } else { "opens".to_owned() };
                println!("{name}: opened before {old}, opened now {new}");
            }
            let mut text = [0_u8; 64];
            let named = sys!(libc::SYS_readlinkat, link, c("").as_ptr(), text.as_mut_ptr(), text.len());
            report("its standard input's name", named.min(0));
            println!("fdinfo: {}", says(info));
            report("fdinfo now", sys::open(&path("fdinfo/0"), libc::O_RDONLY, 0).min(0));
            for link in ["exe", "cwd", "root", "fd/0"] {
                let read =
                    sys!(libc::SYS_readlinkat, -1, c(&path(link)).as_ptr(), text.as_mut_ptr(), text.len());
                report(link, read.min(0));
            }
            watched.end();
            0
        });
    }
    sys::unscratch();
}

/// While a set-uid program takes the place of a user's, the user never sees anything of it.
fn race() {
    sys::scratch("peek");
    sys!(libc::SYS_fchmodat, libc::AT_FDCWD, c(".").as_ptr(), 0o755);
    copy_of_self("setuid", 0o4755);
    user("the user", || {
        let limit = [4096_u64, 4096];
        sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, limit.as_ptr(), 0);
        // What has to be closed on the way makes the way longer.
        while sys!(libc::SYS_eventfd2, 0, libc::EFD_CLOEXEC) < 1500 {}
        for _ in 0..5 {
            let ((stdin, input), (output, stdout)) = (sys::pipe(libc::O_CLOEXEC), sys::pipe(libc::O_CLOEXEC));
            let pid = sys::fork(|| {
                sys!(libc::SYS_dup3, stdin, 0, 0);
                sys!(libc::SYS_dup3, stdout, 1, 0);
                -execute("setuid", &["abi", "--child", "watched"], &["SECRET=1"]) as i32
            });
            sys::close(stdin);
            sys::close(stdout);
            let (maps, environ) = (format!("/proc/{pid}/maps"), format!("/proc/{pid}/environ"));
            let mut seen = false;
            // Until it is out of sight.
            while let Ok(text) = std::fs::read_to_string(&maps) {
                seen |= text.contains("/setuid");
                seen |= std::fs::read(&environ).is_ok_and(|env| env.starts_with(b"SECRET"));
            }
            println!("seen: {seen}");
            sys::close(input);
            sys::close(output);
            println!("{}", sys::wait(pid));
        }
        0
    });
    sys::unscratch();
}

/// `process_vm_readv` or `process_vm_writev` with one buffer on each side.
fn vm(call: i64, pid: i64, own: [i64; 2], theirs: [i64; 2]) -> i64 {
    sys!(call, pid, own.as_ptr(), 1, theirs.as_ptr(), 1, 0)
}

fn memory() {
    const READ: i64 = libc::SYS_process_vm_readv;
    const WRITE: i64 = libc::SYS_process_vm_writev;
    let (area, buffer) = (sys::memory(3 * 4096), sys::memory(3 * 4096));
    sys!(libc::SYS_munmap, area + 8192, 4096);
    sys!(libc::SYS_mprotect, area + 4096, 4096, libc::PROT_READ);
    sys::poke(area, 7);
    let (input, end) = sys::pipe(0);
    let pid = sys::fork(|| {
        sys::close(end);
        sys::poke(area + 1, 8);
        sys::write(1, b"");
        sys::read(input, 1);
        println!("written to the child: {}", sys::peek(area + 2));
        0
    });
    sys::close(input);
    sys::until_asleep(pid, pid);
    report("read", vm(READ, pid, [buffer, 2], [area, 2]));
    println!("{} {}", sys::peek(buffer), sys::peek(buffer + 1));
    sys::poke(buffer, 9);
    report("write", vm(WRITE, pid, [buffer, 1], [area + 2, 1]));
    report("up to the hole", vm(READ, pid, [buffer, 12288], [area, 12288]));
    report("in the hole", vm(READ, pid, [buffer, 1], [area + 8192, 1]));
    report("write up to what is read-only", vm(WRITE, pid, [buffer, 8192], [area, 8192]));
    report("write what is read-only", vm(WRITE, pid, [buffer, 1], [area + 4096, 1]));
    report("more than there is room", vm(READ, pid, [buffer, 3], [area, 4096]));
    report("less than there is room", vm(READ, pid, [buffer, 4096], [area, 3]));
    report("no room", vm(READ, pid, [buffer, 0], [area, 3]));
    report("no room, nobody", vm(READ, 999_999, [buffer, 0], [area, 3]));
    report("nothing", vm(READ, pid, [buffer, 3], [area, 0]));
    report("nobody", vm(READ, 999_999, [buffer, 3], [area, 3]));
    report("own hole", vm(READ, pid, [area + 8192, 1], [area, 1]));
    report("kernel's", vm(READ, pid, [buffer, 1], [-4096, 1]));
    let pieces = [area, 2, area + 8192, 1, area, 1];
    report("pieces", sys!(READ, pid, [buffer, 8].as_ptr(), 1, pieces.as_ptr(), 3, 0));
    let negative = [area, -1];
    report("negative", sys!(READ, pid, [buffer, 8].as_ptr(), 1, negative.as_ptr(), 1, 0));
    report("too many", sys!(READ, pid, [buffer, 8].as_ptr(), 1, pieces.as_ptr(), 1025, 0));
    report("flags", sys!(READ, pid, [buffer, 8].as_ptr(), 1, pieces.as_ptr(), 3, 1));
    report("bad list", sys!(READ, pid, [buffer, 8].as_ptr(), 1, 8, 1, 0));
    user("the user", || {
        report("root's", vm(READ, pid, [buffer, 1], [area, 1]));
        let own = sys!(libc::SYS_getpid);
        sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 0);
        report("his own", vm(READ, own, [buffer, 1], [area, 1]));
        0
    });
    sys::write(end, b"x");
    println!("{}", sys::wait(pid));
}

/// The calls that ask for the right to look at a process.
fn ask(pid: i64) {
    let byte = [0_u8; 8];
    let (own, theirs) = ([byte.as_ptr() as i64, 1], [byte.as_ptr() as i64, 1]);
    report("process_vm_readv", vm(libc::SYS_process_vm_readv, pid, own, theirs));
    let own_pid = sys!(libc::SYS_getpid);
    report("kcmp", sys!(libc::SYS_kcmp, own_pid, pid, 1, 0, 0).min(0));
    let (mut head, mut len) = (0_u64, 0_u64);
    report("get_robust_list", sys!(libc::SYS_get_robust_list, pid, &raw mut head, &raw mut len));
    let pidfd = sys!(libc::SYS_pidfd_open, pid, 0);
    report("pidfd_getfd", sys!(libc::SYS_pidfd_getfd, pidfd, 2, 0).min(0));
    for name in ["maps", "environ", "mem", "personality", "stat", "fdinfo/2"] {
        let fd = sys::open(&format!("/proc/{pid}/{name}"), libc::O_RDONLY, 0);
        report(name, fd.min(0));
        sys::close(fd);
    }
}

fn rights() {
    // Who waits to be looked at, having become who it is.
    type Become = fn();
    let kinds: [(&str, Become); 6] = [
        ("root", || {}),
        ("the same user", || {
            become_user(&[]);
            sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1);
        }),
        ("who was root", || become_user(&[])),
        ("who can be root again", || {
            sys!(libc::SYS_setresgid, 1000, 1000, 1000);
            sys!(libc::SYS_setresuid, 1000, 1000, 0);
            sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1);
        }),
        ("of another group", || {
            sys!(libc::SYS_setresuid, 1000, 1000, 1000);
            sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1);
        }),
        ("with capabilities", || {
            sys!(libc::SYS_prctl, libc::PR_SET_KEEPCAPS, 1);
            become_user(&[]);
            sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1);
        }),
    ];
    for (what, become_it) in kinds {
        let (input, end) = sys::pipe(libc::O_CLOEXEC);
        let pid = sys::fork(|| {
            sys::close(end);
            become_it();
            (sys::read(input, 1).0 != 0).into()
        });
        sys::close(input);
        sys::until_asleep(pid, pid);
        user(what, || {
            ask(pid);
            0
        });
        in_child("to root", || {
            ask(pid);
            0
        });
        in_child("to who kept capabilities", || {
            sys!(libc::SYS_prctl, libc::PR_SET_KEEPCAPS, 1);
            become_user(&[]);
            ask(pid);
            0
        });
        sys::close(end);
        println!("{}", sys::wait(pid));
    }
}

fn kcmp() {
    let (input, end) = sys::pipe(0);
    let own = sys!(libc::SYS_getpid);
    let pid = sys::fork(|| {
        sys::close(end);
        (sys::read(input, 1).0 != 0).into()
    });
    let compare = |kind: i32, first: i64, second: i64| sys!(libc::SYS_kcmp, own, pid, kind, first, second);
    let differ = |result: i64| match result {
        0 => "the same".to_owned(),
        1 | 2 => "different".to_owned(),
        other => show(other),
    };
    println!("standard output: {}", differ(compare(0, 1, 1)));
    println!("two files: {}", differ(compare(0, end, input)));
    println!("a closed one: {}", differ(compare(0, input, 777)));
    for kind in 1..=4 {
        println!("{kind}: {}", differ(compare(kind, 0, 0)));
        println!("{kind}, with itself: {}", differ(sys!(libc::SYS_kcmp, own, own, kind, 0, 0)));
    }
    println!("no such kind: {}", differ(compare(99, 0, 0)));
    println!("nobody: {}", differ(sys!(libc::SYS_kcmp, own, 999_999, 1, 0, 0)));
    let (there, back) = (compare(0, input, 1), sys!(libc::SYS_kcmp, pid, own, 0, 1, input));
    println!("an order: {}", there + back == 3);
    sys::close(end);
    println!("{}", sys::wait(pid));
}

/// A descriptor's entry means what the descriptor is, not what it was when somebody found the entry.
fn descriptors() {
    let (input, end) = sys::pipe(libc::O_CLOEXEC);
    let (ready, tell) = sys::pipe(libc::O_CLOEXEC);
    let secret = sys!(libc::SYS_eventfd2, 0, libc::EFD_CLOEXEC);
    let pid = sys::fork(|| {
        sys::close(end);
        sys::read(input, 1);
        sys::close(secret);
        sys::write(tell, b"x");
        sys::read(input, 1);
        0
    });
    sys::close(input);
    let path = c(&format!("/proc/{pid}/fd/{secret}"));
    let link = sys!(libc::SYS_openat, 0, path.as_ptr(), libc::O_PATH | libc::O_NOFOLLOW, 0);
    let mut text = [0_u8; 64];
    let mut name = || sys!(libc::SYS_readlinkat, link, c("").as_ptr(), text.as_mut_ptr(), text.len()).min(0);
    report("while it is open", name());
    sys::write(end, b"x");
    sys::read(ready, 1);
    report("once it is closed", name());
    sys::write(end, b"x");
    println!("{}", sys::wait(pid));
}

/// A file of /proc is what it was for its opener, whatever becomes of the opener's number or rights.
fn opener() {
    sys::scratch("peek");
    sys!(libc::SYS_fchmodat, libc::AT_FDCWD, c(".").as_ptr(), 0o755);
    copy_of_self("setuid", 0o4755);
    user("the user", || {
        let own = sys::open("/proc/self/stat", libc::O_RDONLY, 0);
        let init = sys::open("/proc/1/stat", libc::O_RDONLY, 0);
        let code = |fd: i64| code_start(&String::from_utf8_lossy(&sys::read(fd, 4096).1));
        println!("own {} init {}", code(own), code(init));
        let watched = Watched::new("setuid");
        watched.execute();
        sys!(libc::SYS_lseek, init, 0, libc::SEEK_SET);
        println!("init {}", code(init));
        watched.end();
        report("itself", execute(SELF, &["abi", "--child", "exit", "0"], &[]));
        1
    });
    sys::unscratch();
}
