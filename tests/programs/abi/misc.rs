//! What fits nowhere else: names of the system, randomness, scheduling, process controls.

use crate::Case;
use crate::sys::{self, c, in_child, report, report_ok};

pub(crate) const CASES: &[Case] = &[
    ("misc_uname", uname),
    ("misc_sysinfo", sysinfo),
    ("misc_random", random),
    ("misc_prctl", prctl),
    ("misc_scheduling", scheduling),
    ("misc_personality", personality),
    ("misc_unknown", unknown),
    ("misc_hostname", hostname),
    ("misc_auxv", auxv),
    ("misc_registers_survive", registers_survive),
    ("misc_ioctl_terminal", ioctl_terminal),
    ("misc_pidfd", pidfd),
    ("misc_rseq_membarrier", rseq_membarrier),
];

fn uname() {
    let mut names = [0_u8; 390];
    report("uname", sys!(libc::SYS_uname, names.as_mut_ptr()));
    let field = |n: usize| {
        let text = &names[n * 65..n * 65 + 65];
        String::from_utf8_lossy(&text[..text.iter().position(|b| *b == 0).unwrap_or(0)]).into_owned()
    };
    println!("{} {}", field(0), field(4));
    println!("{} {}", !field(1).is_empty(), field(2).chars().next().is_some_and(|c| c.is_ascii_digit()));
}

fn sysinfo() {
    let mut words = [0_u64; 14];
    report("sysinfo", sys!(libc::SYS_sysinfo, words.as_mut_ptr()));
    println!("up {} memory {} free {}", words[0] > 0, words[4] > 0, words[5] <= words[4]);
    report("nowhere", sys!(libc::SYS_sysinfo, 8));
}

fn random() {
    let (mut a, mut b) = ([0_u8; 64], [0_u8; 64]);
    report("getrandom", sys!(libc::SYS_getrandom, a.as_mut_ptr(), 64, 0));
    report("getrandom", sys!(libc::SYS_getrandom, b.as_mut_ptr(), 64, libc::GRND_NONBLOCK));
    println!("differ {}", a != b);
    let mut big = vec![0_u8; 100_000];
    report("big", sys!(libc::SYS_getrandom, big.as_mut_ptr(), big.len(), 0));
    println!("filled {}", big.chunks(100).all(|chunk| chunk.iter().any(|b| *b != 0)));
    report("bad flags", sys!(libc::SYS_getrandom, a.as_mut_ptr(), 64, 99));
    report("nowhere", sys!(libc::SYS_getrandom, 8, 64, 0));
    in_child("a child gets its own", || {
        sys!(libc::SYS_getrandom, b.as_mut_ptr(), 64, 0);
        i32::from(a != b)
    });
}

fn prctl() {
    let mut name = [0_u8; 16];
    report("get name", sys!(libc::SYS_prctl, libc::PR_GET_NAME, name.as_mut_ptr()));
    println!("{:?}", String::from_utf8_lossy(&name));
    report("set name", sys!(libc::SYS_prctl, libc::PR_SET_NAME, c("a-name-longer-than-that").as_ptr()));
    sys!(libc::SYS_prctl, libc::PR_GET_NAME, name.as_mut_ptr());
    println!("{:?}", String::from_utf8_lossy(&name));
    println!("{:?}", std::fs::read_to_string("/proc/self/comm"));
    report("dumpable", sys!(libc::SYS_prctl, libc::PR_GET_DUMPABLE));
    report("set dumpable", sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 0));
    report("dumpable", sys!(libc::SYS_prctl, libc::PR_GET_DUMPABLE));
    report("bad", sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 7));
    report("pdeathsig", sys!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGUSR1));
    let mut signal = 0_i32;
    sys!(libc::SYS_prctl, libc::PR_GET_PDEATHSIG, &raw mut signal);
    println!("{signal}");
    in_child("not inherited", || {
        sys!(libc::SYS_prctl, libc::PR_GET_PDEATHSIG, &raw mut signal);
        signal
    });
    report("no_new_privs", sys!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    report("no_new_privs", sys!(libc::SYS_prctl, libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    report("bad arguments", sys!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0));
    report("timer slack", sys!(libc::SYS_prctl, libc::PR_GET_TIMERSLACK));
    report("unknown", sys!(libc::SYS_prctl, 9999));
    in_child("parent death", || {
        let (read_end, write_end) = sys::pipe(0);
        let (own_read, own_write) = sys::pipe(0);
        let middle = sys::fork(|| {
            sys::fork(|| {
                sys!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                sys::close(read_end);
                sys::write(own_write, b"x");
                loop {
                    sys!(libc::SYS_ppoll, 0, 0, 0, 0, 0);
                }
            });
            sys::read(own_read, 1);
            0
        });
        sys::close(write_end);
        println!("{}", sys::wait(middle));
        // Ends when the grandchild, the last writer, is gone.
        sys::report_read("end", read_end, 1);
        0
    });
}

fn scheduling() {
    report("yield", sys!(libc::SYS_sched_yield));
    let mut mask = [0_u64; 16];
    report_ok("getaffinity", sys!(libc::SYS_sched_getaffinity, 0, 128, mask.as_mut_ptr()));
    println!("some {}", mask.iter().any(|w| *w != 0));
    report("too small", sys!(libc::SYS_sched_getaffinity, 0, 1, mask.as_mut_ptr()));
    report("nobody", sys!(libc::SYS_sched_getaffinity, 4_000_000, 128, mask.as_mut_ptr()));
    let first = [1_u64 << mask[0].trailing_zeros()];
    report("setaffinity", sys!(libc::SYS_sched_setaffinity, 0, 8, first.as_ptr()));
    let none = [0_u64];
    report("none", sys!(libc::SYS_sched_setaffinity, 0, 8, none.as_ptr()));
    report("policy", sys!(libc::SYS_sched_getscheduler, 0));
    report("max", sys!(libc::SYS_sched_get_priority_max, 1));
    report("min", sys!(libc::SYS_sched_get_priority_min, 1));
    report("bad policy", sys!(libc::SYS_sched_get_priority_max, 99));
    // Whatever the tests themselves run with.
    sys!(libc::SYS_setpriority, 0, 0, 0);
    report("priority", sys!(libc::SYS_getpriority, 0, 0));
    report("nice", sys!(libc::SYS_setpriority, 0, 0, 5));
    report("priority", sys!(libc::SYS_getpriority, 0, 0));
    in_child("inherited", || sys!(libc::SYS_getpriority, 0, 0) as i32);
    let (mut cpu, mut node) = (99_u32, 99_u32);
    report("getcpu", sys!(libc::SYS_getcpu, &raw mut cpu, &raw mut node, 0));
    println!("{}", cpu < 64 && node == 0);
}

fn personality() {
    report("get", sys!(libc::SYS_personality, 0xffff_ffff_u32));
    report("set", sys!(libc::SYS_personality, 0x004_0000));
    report("get", sys!(libc::SYS_personality, 0xffff_ffff_u32));
    in_child("inherited", || i32::from(sys!(libc::SYS_personality, 0xffff_ffff_u32) == 0x004_0000));
}

fn unknown() {
    for number in [500, 511, 512, 1000, 100_000, -1, 0x4000_0000] {
        report(&format!("call {number}"), sys::call(number, &[]));
    }
}

fn hostname() {
    in_child("set", || {
        // In a UTS namespace of its own, so that the machine keeps its name.
        if sys!(libc::SYS_unshare, libc::CLONE_NEWUTS) != 0 {
            println!("sethostname: 0");
            println!("too long: 0");
            println!("\"pillbox-test\"");
            return 0;
        }
        report("sethostname", sys!(libc::SYS_sethostname, c("pillbox-test").as_ptr(), 12));
        report("too long", i64::from(sys!(libc::SYS_sethostname, c(&"x".repeat(65)).as_ptr(), 65) == 0));
        let mut names = [0_u8; 390];
        sys!(libc::SYS_uname, names.as_mut_ptr());
        println!("{:?}", String::from_utf8_lossy(&names[65..77]));
        0
    });
}

fn auxv() {
    let bytes = std::fs::read("/proc/self/auxv").expect("auxv");
    let entry = |kind: u64| {
        bytes.chunks_exact(16).find_map(|pair| {
            let word = |at: usize| u64::from_ne_bytes(pair[at..at + 8].try_into().expect("eight bytes"));
            (word(0) == kind).then(|| word(8))
        })
    };
    println!("page size {:?} clock {:?}", entry(6), entry(17));
    println!("phent {:?} uid {:?} secure {:?}", entry(4), entry(11), entry(23));
    for kind in [3, 5, 7, 9, 15, 16, 25, 31] {
        println!("{kind} {}", entry(kind).is_some());
    }
    println!("random {}", entry(25).is_some_and(|at| (0..16).any(|n| sys::peek(at as i64 + n) != 0)));
}

fn registers_survive() {
    // The call may change the result register and what the architecture says, nothing else.
    println!("{}", (0..1000).all(sys::keeps_registers));
}

fn ioctl_terminal() {
    let (read_end, _) = sys::pipe(0);
    let mut space = [0_u8; 64];
    report("TCGETS of a pipe", sys!(libc::SYS_ioctl, read_end, libc::TCGETS, space.as_mut_ptr()));
    let null = sys::open("/dev/null", libc::O_RDWR, 0);
    report("TIOCGWINSZ of null", sys!(libc::SYS_ioctl, null, libc::TIOCGWINSZ, space.as_mut_ptr()));
    report("unknown of a pipe", sys!(libc::SYS_ioctl, read_end, 0x1234, 0));
}

fn pidfd() {
    let pid = sys::fork(|| {
        loop {
            sys!(libc::SYS_ppoll, 0, 0, 0, 0, 0);
        }
    });
    let fd = sys!(libc::SYS_pidfd_open, pid, 0);
    println!("open {}", fd >= 0);
    report("signal", sys!(libc::SYS_pidfd_send_signal, fd, libc::SIGTERM, 0, 0));
    let fds = [fd as u32, 1];
    let time = [10_i64, 0];
    report("poll", sys!(libc::SYS_ppoll, fds.as_ptr(), 1, time.as_ptr(), 0, 8));
    println!("{}", sys::wait(pid));
    report("signal", sys!(libc::SYS_pidfd_send_signal, fd, 0, 0, 0));
    report("nobody", sys!(libc::SYS_pidfd_open, 4_000_000, 0));
}

fn rseq_membarrier() {
    report_ok("membarrier query", sys!(libc::SYS_membarrier, 0, 0, 0));
    report("bad", sys!(libc::SYS_membarrier, 1 << 20, 0, 0));
}
