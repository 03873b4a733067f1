//! Time namespaces.

use super::link;
use crate::recent::older_than;
use crate::setid::become_user;
use crate::sys::{self, in_child, open, put, report};
use crate::vdso::{Clock, asked, clock, read};
use std::fs;

const NEWTIME: i32 = 0x80;
const OFFSETS: &str = "/proc/self/timens_offsets";
const DAY: i64 = 86400;

fn seconds_of(text: &str) -> i64 {
    text.split(['.', ' ']).next().and_then(|word| word.parse().ok()).unwrap_or(-1)
}

/// The clocks that count from the start of the machine: by system call, by the vDSO, and what /proc says.
struct Clocks([i64; 5]);

impl Clocks {
    fn now(clock: Clock) -> Clocks {
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let mut info = [0_i64; 14];
        sys!(libc::SYS_sysinfo, info.as_mut_ptr());
        Clocks([asked(1).1[0], read(clock, 1).1[0], asked(7).1[0], seconds_of(&uptime), info[0]])
    }

    /// Since others, in days: whole ones but for the seconds that this takes.
    fn days_since(&self, before: &Clocks) -> Vec<String> {
        let days = |(now, then): (&i64, &i64)| {
            let passed = now - then;
            let days = (passed + DAY / 2).div_euclid(DAY);
            if (passed - days * DAY).abs() < 100 { days.to_string() } else { format!("{passed} s") }
        };
        self.0.iter().zip(&before.0).map(days).collect()
    }
}

fn unshare() {
    report("unshare", sys!(libc::SYS_unshare, NEWTIME));
}

pub(super) fn shifted() {
    let clock = clock();
    let before = Clocks::now(clock);
    let earliest = format!("{}000000000", asked(1).1[0] + DAY);
    let own = link("self", "time");
    println!("{:?}", fs::read_to_string(OFFSETS).unwrap_or_default());
    report("of the first", put(OFFSETS, "monotonic 1 0"));
    in_child("another", || {
        println!("children's at first {}", link("self", "time_for_children") == own);
        unshare();
        println!(
            "own {} children's {}",
            link("self", "time") == own,
            link("self", "time_for_children") != own
        );
        for text in ["nonsense", "monotonic 1", "realtime 1 0", "monotonic 1 1000000000"] {
            report(text, put(OFFSETS, text));
        }
        for text in ["monotonic -900000000 0", "boottime 9300000000 0", "boottime 9000000000 0"] {
            report(text, put(OFFSETS, text));
        }
        report("set", put(OFFSETS, "monotonic 86400 0\nboottime 172800 5\n"));
        println!("{:?}", fs::read_to_string(OFFSETS).unwrap_or_default());
        println!("not yet {:?}", Clocks::now(clock).days_since(&before));
        let realtime = asked(0).1[0];
        in_child("child", || {
            println!("{:?}", Clocks::now(clock).days_since(&before));
            println!("here {}", link("self", "time") != own);
            println!("realtime {}", asked(0).1[0] - realtime < 100);
            in_child("its program", || {
                let words = ["abi", "--child", "not-before", &earliest];
                -crate::process::execute(crate::process::SELF, &words, &[]) as i32
            });
            waits(clock);
            let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
            let start = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(19)).unwrap_or("");
            let up = fs::read_to_string("/proc/uptime").unwrap_or_default();
            println!("began {}", seconds_of(&up) - start.parse::<i64>().unwrap_or(0) / 100 < 100);
            0
        });
        report("set once more", put(OFFSETS, "monotonic 1 0"));
        0
    });
    println!("kept {:?}", Clocks::now(clock).days_since(&before));
}

/// Moments are those of the clocks that one sees.
fn waits(clock: Clock) {
    let at = |id: i64, ms: i64| {
        let [sec, nsec] = asked(id).1;
        let ns = nsec + ms * 1_000_000;
        [sec + ns / 1_000_000_000, ns % 1_000_000_000]
    };
    let before = read(clock, 1).1;
    for id in [1, 7] {
        let time = at(id, 20);
        report("sleep", sys!(libc::SYS_clock_nanosleep, id, 1, time.as_ptr(), 0));
        let timer = sys!(libc::SYS_timerfd_create, id, 0);
        let time = at(id, 20);
        let setting = [0, 0, time[0], time[1]];
        sys!(libc::SYS_timerfd_settime, timer, 1, setting.as_ptr(), 0);
        println!("timer {:?}", sys::read(timer, 8).1);
    }
    let (word, time) = (0_u32, at(1, 20));
    let bitset = libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG;
    report("futex", sys!(libc::SYS_futex, &raw const word, bitset, 0, time.as_ptr(), 0, !0_u32));
    let passed = read(clock, 1).1[0] - before[0];
    println!("soon {}", passed < 50);
}

pub(super) fn entered() {
    let clock = clock();
    let before = Clocks::now(clock);
    let own = open("/proc/self/ns/time", libc::O_RDONLY, 0);
    in_child("another", || {
        unshare();
        put(OFFSETS, "monotonic 86400 0");
        // Who shares memory reads the same clocks.
        let days = match std::thread::Builder::new().spawn(move || Clocks::now(clock)) {
            Ok(thread) => thread.join().expect("a thread").days_since(&before),
            // Linux 6.1 makes none now.
            Err(_) if older_than(12) => before.days_since(&before),
            Err(error) => panic!("no thread: {error}"),
        };
        println!("thread {days:?}");
        let holder = sys::fork(sys::forever);
        let file = open(&format!("/proc/{holder}/ns/time"), libc::O_RDONLY, 0);
        report("enter", sys!(libc::SYS_setns, file, NEWTIME));
        println!("{:?}", Clocks::now(clock).days_since(&before));
        println!("both {}", link("self", "time") == link("self", "time_for_children"));
        in_child("inherited", || {
            println!("{:?}", Clocks::now(clock).days_since(&before));
            0
        });
        report("back", sys!(libc::SYS_setns, own, 0));
        println!("{:?}", Clocks::now(clock).days_since(&before));
        sys::end(holder);
        report("for another program", sys!(libc::SYS_unshare, NEWTIME));
        put(OFFSETS, "monotonic 86400 0");
        // In Linux 6.1 children are the first there, and not what is executed.
        if older_than(12) {
            return 0;
        }
        let earliest = format!("{}000000000", asked(1).1[0] + DAY);
        let words = ["abi", "--child", "not-before", &earliest];
        -crate::process::execute(crate::process::SELF, &words, &[]) as i32
    });
    in_child("without rights", || {
        become_user(&[]);
        unshare();
        report("set", put(OFFSETS, "monotonic 86400 0"));
        report("enter", sys!(libc::SYS_setns, own, NEWTIME));
        0
    });
    in_child("by clone3", || {
        let arguments = [NEWTIME as u64, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
        sys::flush();
        let child = sys!(libc::SYS_clone3, arguments.as_ptr(), 64);
        if child == 0 {
            println!("both {}", link("self", "time") == link("self", "time_for_children"));
            sys::flush();
            sys::exit(0);
        }
        println!("{}", sys::wait(child));
        0
    });
}
