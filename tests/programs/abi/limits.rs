//! Resource limits.

use crate::Case;
use crate::sys::{self, in_child, open, report};

pub(crate) const CASES: &[Case] = &[
    ("limit_descriptors", descriptors),
    ("limit_file_size", file_size),
    ("limit_memory", memory),
    ("limit_get_set", get_set),
    ("limit_cpu_time", cpu_time),
    ("limit_processes", processes),
    ("limit_signals", signals),
];

fn set(kind: u32, soft: u64, hard: u64) -> i64 {
    let limit = [soft, hard];
    sys!(libc::SYS_prlimit64, 0, kind, limit.as_ptr(), 0)
}

fn get(kind: u32) -> [u64; 2] {
    let mut limit = [0; 2];
    sys!(libc::SYS_prlimit64, 0, kind, 0, limit.as_mut_ptr());
    limit
}

fn descriptors() {
    sys!(libc::SYS_close_range, 3, u32::MAX, 0);
    report("set", set(libc::RLIMIT_NOFILE, 10, 20));
    let last = (0..20).map(|_| open("/dev/null", 0, 0)).find(|fd| *fd < 0).unwrap_or(0);
    report("too many", last);
    report("pipe", {
        let mut fds = [0_i32; 2];
        sys!(libc::SYS_pipe2, fds.as_mut_ptr(), 0)
    });
    report("dup3 above", sys!(libc::SYS_dup3, 0, 15, 0));
    report("F_DUPFD above", sys!(libc::SYS_fcntl, 0, libc::F_DUPFD, 12));
    sys::close(5);
    report("one free", open("/dev/null", 0, 0));
    report("raise", set(libc::RLIMIT_NOFILE, 20, 20));
    report("room", open("/dev/null", 0, 0));
    println!("inherited {}", {
        let pid = sys::fork(|| get(libc::RLIMIT_NOFILE)[0] as i32);
        sys::wait(pid)
    });
}

fn file_size() {
    sys::scratch("fsize");
    in_child("killed", || {
        set(libc::RLIMIT_CORE, 0, 0);
        set(libc::RLIMIT_FSIZE, 1000, 1000);
        let fd = open("f", libc::O_CREAT | libc::O_RDWR, 0o600);
        sys::write(fd, &[0; 600]);
        sys::report("partly", sys::write(fd, &[0; 600]));
        sys::flush();
        sys::write(fd, &[0; 600]);
        0
    });
    in_child("told", || {
        sys::action(libc::SIGXFSZ, libc::SIG_IGN, 0, &[]);
        set(libc::RLIMIT_FSIZE, 1000, 1000);
        let fd = open("f", libc::O_RDWR | libc::O_TRUNC, 0o600);
        report("write", sys::write(fd, &[0; 1200]));
        report("more", sys::write(fd, &[0; 1]));
        report("truncate", sys!(libc::SYS_ftruncate, fd, 2000));
        0
    });
    sys::unscratch();
}

fn memory() {
    in_child("address space", || {
        set(libc::RLIMIT_AS, 64 << 20, 64 << 20);
        report("too much", sys::mmap(0, 128 << 20, 3, 0x22, -1, 0));
        report("a little", sys::mmap(0, 1 << 20, 3, 0x22, -1, 0).min(0));
        0
    });
    in_child("data", || {
        let start = sys!(libc::SYS_brk, 0);
        set(libc::RLIMIT_DATA, 32 << 20, 32 << 20);
        println!("brk refused {}", sys!(libc::SYS_brk, start + (64 << 20)) == start);
        0
    });
}

fn get_set() {
    report("bad kind", sys!(libc::SYS_prlimit64, 0, 99, 0, 0));
    report("soft above hard", set(libc::RLIMIT_NOFILE, 100, 50));
    report("set", set(libc::RLIMIT_CPU, 100, 200));
    println!("{:?}", get(libc::RLIMIT_CPU));
    report("nobody", sys!(libc::SYS_prlimit64, 4_000_000, libc::RLIMIT_CPU, 0, 0));
    in_child("without privilege", || {
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        report("lower", set(libc::RLIMIT_CPU, 50, 100));
        report("raise", set(libc::RLIMIT_CPU, 50, 150));
        0
    });
    in_child("of a child", || {
        let (read_end, write_end) = sys::pipe(0);
        let pid = sys::fork(|| {
            sys::close(write_end);
            sys::read(read_end, 1);
            get(libc::RLIMIT_CPU)[0] as i32
        });
        let limit = [33_u64, 200];
        report("set", sys!(libc::SYS_prlimit64, pid, libc::RLIMIT_CPU, limit.as_ptr(), 0));
        sys::close(write_end);
        println!("{}", sys::wait(pid));
        0
    });
}

fn cpu_time() {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    static TOLD: AtomicU32 = AtomicU32::new(0);
    extern "C" fn told(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        TOLD.fetch_add(1, SeqCst);
    }
    let work = || -> i32 {
        loop {
            std::hint::spin_loop();
        }
    };
    let soft = sys::fork(|| {
        set(libc::RLIMIT_CORE, 0, 0);
        set(libc::RLIMIT_CPU, 1, 10);
        // Inherited: the child is the one that works.
        let child = sys::fork(work);
        println!("{}", sys::wait(child));
        0
    });
    println!("{}", sys::wait(soft));
    let hard = sys::fork(|| {
        sys::handle(libc::SIGXCPU, told, 0);
        set(libc::RLIMIT_CPU, 1, 2);
        let pid = sys::fork(|| {
            while TOLD.load(SeqCst) == 0 {
                std::hint::spin_loop();
            }
            println!("told, soft limit {}", get(libc::RLIMIT_CPU)[0]);
            sys::flush();
            work()
        });
        println!("{}", sys::wait(pid));
        0
    });
    println!("{}", sys::wait(hard));
}

fn processes() {
    in_child("user", || {
        // An id of its own, so that nobody else counts.
        let own = 100_000 + sys!(libc::SYS_getpid);
        sys!(libc::SYS_setresuid, own, own, own);
        report("set", set(libc::RLIMIT_NPROC, 2, 2));
        let (read_end, write_end) = sys::pipe(0);
        let wait = || {
            sys::close(write_end);
            sys::read(read_end, 1);
            0
        };
        let first = sys::fork(wait);
        // It fails; a child would end at once.
        let second = sys!(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0);
        if second == 0 {
            sys::exit(0);
        }
        report("one more", second.min(0));
        sys::close(write_end);
        println!("{}", sys::wait(first));
        0
    });
    in_child("root", || {
        report("set", set(libc::RLIMIT_NPROC, 1, 1));
        in_child("one more", || 7);
        0
    });
}

/// RLIMIT_SIGPENDING: what is queued beyond it, and what is only known to have been.
fn signals() {
    // A user who has nothing else pending.
    sys!(libc::SYS_setresuid, 1007, 1007, 1007);
    let (first, second) = (libc::SIGRTMIN() + 1, libc::SIGRTMIN() + 2);
    let standard = [libc::SIGUSR1, libc::SIGUSR2];
    sys::mask(libc::SIG_BLOCK, sys::set_of(&[first, second, standard[0], standard[1]]));
    report("limit", set(libc::RLIMIT_SIGPENDING, 2, 2));
    let me = sys!(libc::SYS_getpid);
    let queue = |signal: i32, value: i32| {
        let mut info = [0_i32; 32];
        (info[0], info[2], info[4], info[6]) = (signal, -1, 77, value);
        sys!(libc::SYS_rt_sigqueueinfo, me, signal, info.as_ptr())
    };
    let take = |signal: i32| {
        let (set, mut info, now) = (sys::set_of(&[signal]), [0_i32; 32], [0_i64; 2]);
        match sys!(libc::SYS_rt_sigtimedwait, &raw const set, info.as_mut_ptr(), now.as_ptr(), 8) {
            taken if taken < 0 => report("none", taken),
            _ => println!(
                "code {} by itself {} by 77 {} value {}",
                info[2],
                i64::from(info[4]) == me,
                info[4] == 77,
                if info[2] == -1 { info[6] } else { 0 }
            ),
        }
    };
    for value in 1..=3 {
        report("queue", queue(first, value));
    }
    report("kill", sys!(libc::SYS_kill, me, second));
    report("tgkill", sys!(libc::SYS_tgkill, me, me, second));
    report("queue a standard one", queue(standard[0], 4));
    report("kill by a standard one", sys!(libc::SYS_kill, me, standard[1]));
    for signal in [standard[0], standard[0], standard[1], second, second, first] {
        take(signal);
    }
    report("room again", queue(first, 5));
    report("full again", queue(first, 6));
    for _ in 0..3 {
        take(first);
    }
}
