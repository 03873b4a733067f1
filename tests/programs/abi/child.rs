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
        ["confinement"] => {
            sys::report("getppid fails", sys!(libc::SYS_getppid).min(0));
            print!("{}", crate::seccomp::confinement());
        }
        ["addresses"] => {
            let local = 0_u8;
            println!("{:p} {:p} {:p}", &raw const local, Box::new(local), run as fn(&[&str]));
        }
        ["ids"] => println!("uid {} effective {}", sys!(libc::SYS_getuid), sys!(libc::SYS_geteuid)),
        ["personality"] => println!("{:#x}", sys!(libc::SYS_personality, 0xffff_ffff_u32)),
        ["places"] => {
            println!("{:#x} {:#x} {:#x}", &raw const words as i64, sys!(libc::SYS_brk, 0), sys::memory(4096));
        }
        ["coredump-filter"] => {
            print!("{}", std::fs::read_to_string("/proc/self/coredump_filter").unwrap_or_default())
        }
        ["membarrier"] => sys::report("not registered", sys!(libc::SYS_membarrier, 8, 0, 0)),
        ["not-before", earliest] => sys::exit(crate::vdso::not_before(earliest)),
        ["shm-attached", id] => crate::sysvipc::shm::attached_elsewhere(id),
        ["sem-value", id] => crate::sysvipc::sem::value_elsewhere(id),
        ["wait"] => until_end_of_input(),
        ["copy"] => crate::drive::copy(),
        ["drive", shell @ ..] if !shell.is_empty() => crate::drive::run(shell),
        ["put-back", command @ ..] if !command.is_empty() => crate::drive::is_put_back(command),
        ["wait-any"] => println!("{}", sys::describe(sys::wait4(-1, libc::__WALL).1)),
        ["interpreter"] => {
            let own = std::fs::read_link(crate::process::SELF).unwrap_or_default();
            // Its parent writes to the same output until the input ends.
            until_end_of_input();
            println!("ran {:?}", own.file_name().unwrap_or_default());
        }
        ["wait-forked"] => {
            sys::fork(|| {
                until_end_of_input();
                0
            });
        }
        ["rseq"] => crate::recent::rseq_child(),
        ["rights"] => crate::setid::rights(),
        ["watched"] => {
            // Another program runs by now: those who watch may look, until the input ends.
            sys::write(1, b"r");
            until_end_of_input();
        }
        ["bug"] => others_survive_a_bug(),
        ["overflow"] => others_survive_an_overflow(),
        ["refused"] => {
            sys!(libc::SYS_prctl, REFUSED_CALL);
            println!("the host made the call");
        }
        ["descriptors"] => out_of_descriptors(),
        ["memory"] => out_of_memory(),
        ["garbage"] => crate::garbage::everywhere(),
        _ => sys::exit(98),
    }
}

fn until_end_of_input() {
    while sys::read(0, 16).0 > 0 {}
}

/// What `pillbox self-test --with-bug` makes of this call: a panic in the kernel. Natively there is no such operation.
const PROVOKE_BUG: i64 = 0x5042_4247;

/// What it makes of this call: a kernel stack that overflows.
const OVERFLOW: i64 = 0x5042_424a;
/// What it makes of this call: one of the host's that no sandbox needs.
const REFUSED_CALL: i64 = 0x5042_4249;

/// A program that runs into a bug of the sandbox's is killed; its relatives and what they share go on.
fn others_survive_a_bug() {
    let (read_end, write_end) = sys::pipe(0);
    for round in 0..3 {
        let pid = sys::fork(|| {
            sys::write(write_end, b"before");
            sys!(libc::SYS_prctl, PROVOKE_BUG);
            sys::write(write_end, b"after!");
            0
        });
        println!("{round}: {}", sys::wait(pid));
        sys::report_read("said", read_end, 6);
    }
    // With threads: all of them end.
    let pid = sys::fork(|| {
        let thread = std::thread::spawn(|| {
            sys!(libc::SYS_prctl, PROVOKE_BUG);
        });
        let _ended = thread.join();
        sys!(libc::SYS_ppoll, 0, 0, 0, 0, 0);
        0
    });
    println!("threads: {}", sys::wait(pid));
    sys::in_child("another", || 7);
    std::fs::write("/tmp/bug", "still here").expect("a file");
    println!("{:?}", std::fs::read_to_string("/tmp/bug"));
}

/// The same of a kernel stack that overflows, in calls of several sizes, one after the other on the same stacks.
fn others_survive_an_overflow() {
    let (read_end, write_end) = sys::pipe(0);
    for size in [0, 1, 2, 0, 1, 2] {
        let pid = sys::fork(|| {
            sys::write(write_end, b"before");
            sys!(libc::SYS_prctl, OVERFLOW, size);
            sys::write(write_end, b"after!");
            0
        });
        println!("{size}: {}", sys::wait(pid));
        sys::report_read("said", read_end, 6);
    }
    // With threads: all of them end.
    let pid = sys::fork(|| {
        let thread = std::thread::spawn(|| {
            sys!(libc::SYS_prctl, OVERFLOW, 1);
        });
        let _ended = thread.join();
        sys!(libc::SYS_ppoll, 0, 0, 0, 0, 0);
        0
    });
    println!("threads: {}", sys::wait(pid));
    sys::in_child("another", || 7);
    std::fs::write("/tmp/bug", "still here").expect("a file");
    println!("{:?}", std::fs::read_to_string("/tmp/bug"));
}

/// More files of the host's than it lets anybody open: errors, and then all is well again.
fn out_of_descriptors() {
    let limit = [4096_u64, 4096];
    sys::report("prlimit", sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, limit.as_ptr(), 0));
    let mut open = Vec::new();
    let mut error = 0;
    for _ in 0..3000 {
        // A file of its own each time, so that none is shared.
        let fd = sys::open("/bin/busybox", libc::O_RDONLY, 0);
        if fd < 0 {
            error = fd;
            break;
        }
        open.push(fd);
    }
    println!("opened enough {} then {}", open.len() >= 20, sys::show(error));
    let piped: Vec<(i64, i64)> = (0..50).map(|_| sys::pipe(0)).collect();
    println!("pipes {}", piped.len());
    open.into_iter().for_each(|fd| _ = sys::close(fd));
    let fd = sys::open("/bin/busybox", libc::O_RDONLY, 0);
    println!("again {} and {}", fd >= 0, sys::read(fd, 4).0);
    sys::in_child("a child", || 5);
}

/// More memory than there is: the one who wants it is refused or dies; the others go on, and have it afterwards.
fn out_of_memory() {
    const MIB: i64 = 1 << 20;
    let touch = |mib: i64| {
        let area = sys::mmap(
            0,
            (mib * MIB) as usize,
            3,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        );
        if area < 0 {
            return false;
        }
        (0..mib * MIB / 4096).for_each(|page| sys::poke(area + page * 4096, 1));
        true
    };
    for _ in 0..3 {
        let pid = sys::fork(|| i32::from(touch(256)));
        let end = sys::wait(pid);
        println!("too much: {}", if end == "exited 1" { "there was no limit" } else { "refused" });
        let pid = sys::fork(|| i32::from(touch(8)));
        println!("a little: {}", sys::wait(pid));
    }
    println!("here: {}", touch(4));
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
