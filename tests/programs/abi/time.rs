//! Clocks, sleeping, timers.

use crate::Case;
use crate::sys::{self, in_child, report};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    ("time_clocks", clocks),
    ("time_sleep", sleep),
    ("time_posix_timer", posix_timer),
    ("time_cpu", cpu),
    ("time_short_beside_long", short_beside_long),
    ("time_times", times),
    ("time_of_nobody", settings),
    ("time_clocks_without_timers", without_timers),
    ("time_cpu_timers", cpu_timers),
    ("time_cpu_timer_of_a_thread", cpu_timer_of_a_thread),
    ("time_sleep_through_work", sleep_through_work),
    ("time_absolute", absolute),
    ("time_far_away", far_away),
    ("time_missed", missed),
];

fn now(clock: i32) -> (i64, [i64; 2]) {
    let mut time = [0_i64; 2];
    let result = sys!(libc::SYS_clock_gettime, clock, time.as_mut_ptr());
    (result, time)
}

static RUNG: AtomicI32 = AtomicI32::new(0);

extern "C" fn ring(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    RUNG.fetch_add(1, SeqCst);
}

/// Programs that compute while another one waits for a timer that fires much later: theirs fire all the same.
fn short_beside_long() {
    let arm = |us: i64| {
        sys!(libc::SYS_setitimer, libc::ITIMER_REAL, [0, 0, us / 1_000_000, us % 1_000_000].as_ptr(), 0)
    };
    // What is not noticed before this one fires ends the program.
    arm(80_000_000);
    let fired = (0..60)
        .filter(|round| {
            let pid = sys::fork(|| {
                sys::handle(libc::SIGALRM, ring, 0);
                // More to run than there are CPUs, for a moment: somebody looks at the clock often then.
                let yielding = || (0..100).for_each(|_| _ = sys!(libc::SYS_sched_yield));
                let threads = [(); 4].map(|()| std::thread::spawn(yielding));
                threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
                arm(5000 + 1000 * (round % 20));
                let start = Instant::now();
                while RUNG.load(SeqCst) == 0 {
                    std::hint::spin_loop();
                }
                i32::from(start.elapsed() > Duration::from_secs(10))
            });
            sys::wait(pid) == "exited 0"
        })
        .count();
    println!("{fired} in time");
    arm(0);
}

fn clocks() {
    for clock in [0, 1, 2, 3, 4, 5, 6, 7, 11] {
        let (result, first) = now(clock);
        let (_, second) = now(clock);
        println!(
            "{clock}: {} forward {} fraction {}",
            sys::show(result),
            second >= first,
            first[1] < 1_000_000_000
        );
    }
    for clock in [10, 12, 99, -1] {
        println!("{clock}: {}", sys::show(now(clock).0));
    }
    println!("this century {}", now(libc::CLOCK_REALTIME).1[0] > 1_700_000_000);
    let mut resolution = [9_i64; 2];
    report("getres", sys!(libc::SYS_clock_getres, libc::CLOCK_MONOTONIC, resolution.as_mut_ptr()));
    println!("{resolution:?}");
    let mut day = [0_i64; 2];
    let before = now(libc::CLOCK_REALTIME).1[0];
    report("gettimeofday", sys!(libc::SYS_gettimeofday, day.as_mut_ptr(), 0));
    println!("agrees {}", (before..=now(libc::CLOCK_REALTIME).1[0]).contains(&day[0]));
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(5) {
        std::hint::spin_loop();
    }
    println!("runs {}", start.elapsed() < Duration::from_secs(60));
}

fn sleep() {
    let start = Instant::now();
    let time = [0_i64, 15_000_000];
    report("nanosleep", sys!(libc::SYS_nanosleep, time.as_ptr(), 0));
    println!("long enough {}", start.elapsed() >= Duration::from_millis(15));
    let mut until = now(libc::CLOCK_MONOTONIC).1;
    until[1] += 10_000_000;
    if until[1] >= 1_000_000_000 {
        until = [until[0] + 1, until[1] - 1_000_000_000];
    }
    report("until", sys!(libc::SYS_clock_nanosleep, 1, libc::TIMER_ABSTIME, until.as_ptr(), 0));
    println!("reached {}", now(libc::CLOCK_MONOTONIC).1 >= until);
    report("past", sys!(libc::SYS_clock_nanosleep, 1, libc::TIMER_ABSTIME, [0_i64, 0].as_ptr(), 0));
    report("nothing", sys!(libc::SYS_nanosleep, [0_i64, 0].as_ptr(), 0));
    report("bad", sys!(libc::SYS_nanosleep, [0_i64, 1_000_000_000].as_ptr(), 0));
    report("negative", sys!(libc::SYS_nanosleep, [-1_i64, 0].as_ptr(), 0));
    report("nowhere", sys!(libc::SYS_nanosleep, 8, 0));
    report("bad clock", sys!(libc::SYS_clock_nanosleep, 99, 0, time.as_ptr(), 0));
    report("own CPU time", sys!(libc::SYS_clock_nanosleep, 3, 0, time.as_ptr(), 0));
}

fn posix_timer() {
    static COUNT: AtomicI32 = AtomicI32::new(0);
    static CODE: AtomicI32 = AtomicI32::new(0);
    static VALUE: AtomicI32 = AtomicI32::new(0);
    extern "C" fn tick(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        CODE.store(sys::info_fields(info).1, SeqCst);
        VALUE.store(sys::info_fields(info).4 as i32, SeqCst);
        COUNT.fetch_add(1, SeqCst);
    }
    sys::handle(libc::SIGUSR1, tick, 0);
    // sigevent: value, signo, notify.
    let mut event = [0_u64; 8];
    event[0] = 77;
    event[1] = libc::SIGUSR1 as u64;
    let mut id = -1_i32;
    report("create", sys!(libc::SYS_timer_create, 1, event.as_ptr(), &raw mut id));
    let set = |interval: i64, first: i64| {
        let time = [0, interval, 0, first];
        sys!(libc::SYS_timer_settime, id, 0, time.as_ptr(), 0)
    };
    report("once", set(0, 5_000_000));
    while COUNT.load(SeqCst) == 0 {
        std::thread::yield_now();
    }
    println!("code {} value {}", CODE.load(SeqCst), VALUE.load(SeqCst));
    report("periodic", set(2_000_000, 2_000_000));
    while COUNT.load(SeqCst) < 5 {
        std::thread::yield_now();
    }
    let mut left = [0_i64; 4];
    report("gettime", sys!(libc::SYS_timer_gettime, id, left.as_mut_ptr()));
    println!("interval {}", left[1]);
    report("delete", sys!(libc::SYS_timer_delete, id));
    report("again", sys!(libc::SYS_timer_delete, id));
    report("bad clock", sys!(libc::SYS_timer_create, 99, 0, &raw mut id));
}

fn cpu() {
    let start = now(libc::CLOCK_PROCESS_CPUTIME_ID).1;
    let wall = Instant::now();
    while wall.elapsed() < Duration::from_millis(50) {
        std::hint::spin_loop();
    }
    let used = now(libc::CLOCK_PROCESS_CPUTIME_ID).1;
    println!("counted {}", used > start);
    let in_sleep = || {
        let before = now(libc::CLOCK_THREAD_CPUTIME_ID).1;
        std::thread::sleep(Duration::from_millis(300));
        let after = now(libc::CLOCK_THREAD_CPUTIME_ID).1;
        (after[0] - before[0]) * 1_000_000_000 + after[1] - before[1]
    };
    // What a machine's own host takes away from it may be counted: not every time.
    println!("sleep is not {}", (0..5).any(|_| in_sleep() < 250_000_000));
}

fn times() {
    let mut words = [0_i64; 4];
    println!("times {}", sys!(libc::SYS_times, words.as_mut_ptr()) != 0);
    println!("{}", words.iter().all(|w| *w >= 0));
    let mut usage = [0_i64; 18];
    report("getrusage", sys!(libc::SYS_getrusage, 0, usage.as_mut_ptr()));
    report("children", sys!(libc::SYS_getrusage, -1, usage.as_mut_ptr()));
    report("bad", sys!(libc::SYS_getrusage, 5, usage.as_mut_ptr()));
}

/// As a user, who may not: the arguments are looked at first.
fn settings() {
    in_child("user", || {
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        let (now, bad) = ([0_i64, 0], [0_i64, 2_000_000_000]);
        for clock in [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC, libc::CLOCK_BOOTTIME, 99] {
            report("set", sys!(libc::SYS_clock_settime, clock, now.as_ptr()));
        }
        report("set CPU time", sys!(libc::SYS_clock_settime, 2, now.as_ptr()));
        report("nowhere", sys!(libc::SYS_clock_settime, 0, 8));
        report("settimeofday", sys!(libc::SYS_settimeofday, now.as_ptr(), 0));
        report("bad", sys!(libc::SYS_settimeofday, bad.as_ptr(), 0));
        report("nowhere", sys!(libc::SYS_settimeofday, 8, 0));
        0
    });
}

fn without_timers() {
    let (time, mut id) = ([0_i64, 1], -1_i32);
    for clock in [libc::CLOCK_MONOTONIC_RAW, libc::CLOCK_REALTIME_COARSE, libc::CLOCK_MONOTONIC_COARSE] {
        report("sleep", sys!(libc::SYS_clock_nanosleep, clock, 0, time.as_ptr(), 0));
        report("timer", sys!(libc::SYS_timer_create, clock, 0, &raw mut id));
    }
}

/// Uses so much CPU time, however busy the machine is.
fn work(time: Duration) {
    let used = || {
        let [sec, ns] = now(libc::CLOCK_THREAD_CPUTIME_ID).1;
        Duration::new(sec as u64, ns as u32)
    };
    let start = used();
    while used() - start < time {
        (0..1000).for_each(|_| std::hint::spin_loop());
    }
}

fn cpu_timers() {
    for (which, signal) in [(libc::ITIMER_PROF, libc::SIGPROF), (libc::ITIMER_VIRTUAL, libc::SIGVTALRM)] {
        sys::handle(signal, ring, libc::SA_RESTART);
        RUNG.store(0, SeqCst);
        let arm = |us: i64| sys!(libc::SYS_setitimer, which, [0, us, 0, us].as_ptr(), 0);
        report("set", arm(400_000));
        // No CPU time passes in sleep. (But what a machine's own host takes away from it may be counted.)
        std::thread::sleep(Duration::from_millis(500));
        println!("asleep: {}", RUNG.load(SeqCst));
        let mut left = [0_i64; 4];
        sys!(libc::SYS_getitimer, which, left.as_mut_ptr());
        println!("left {} {}", left[2] == 0 && (1..=410_000).contains(&left[3]), left[1]);
        report("set again", arm(40_000));
        // Linux counts this time by its ticks, of which a busy machine loses many.
        let start = Instant::now();
        while RUNG.load(SeqCst) < 3 && start.elapsed() < Duration::from_secs(60) {
            work(Duration::from_millis(50));
        }
        println!("at work: {}", RUNG.load(SeqCst) >= 3);
        report("disarm", arm(0));
    }
}

fn cpu_timer_of_a_thread() {
    sys::handle(libc::SIGUSR1, ring, libc::SA_RESTART);
    let mut event = [0_u64; 8];
    event[1] = libc::SIGUSR1 as u64;
    let mut id = -1_i32;
    report("create", sys!(libc::SYS_timer_create, 3, event.as_ptr(), &raw mut id));
    RUNG.store(0, SeqCst);
    let time = [0_i64, 0, 0, 200_000_000];
    report("set", sys!(libc::SYS_timer_settime, id, 0, time.as_ptr(), 0));
    std::thread::spawn(|| work(Duration::from_millis(400))).join().expect("a thread");
    println!("another works: {}", RUNG.load(SeqCst));
    let start = Instant::now();
    while RUNG.load(SeqCst) == 0 && start.elapsed() < Duration::from_secs(60) {
        work(Duration::from_millis(50));
    }
    work(Duration::from_millis(250));
    println!("it works: {}", RUNG.load(SeqCst));
    report("delete", sys!(libc::SYS_timer_delete, id));
}

fn sleep_through_work() {
    static AWAKE: AtomicBool = AtomicBool::new(false);
    let time = [0_i64, 60_000_000];
    let worker = std::thread::spawn(|| {
        while !AWAKE.load(SeqCst) {
            work(Duration::from_millis(5));
        }
    });
    let before = now(libc::CLOCK_PROCESS_CPUTIME_ID).1;
    report("sleep", sys!(libc::SYS_clock_nanosleep, 2, 0, time.as_ptr(), 0));
    let after = now(libc::CLOCK_PROCESS_CPUTIME_ID).1;
    let ns = |time: [i64; 2]| time[0] * 1_000_000_000 + time[1];
    println!("long enough {}", ns(after) - ns(before) >= 60_000_000);
    report("until then", sys!(libc::SYS_clock_nanosleep, 2, libc::TIMER_ABSTIME, before.as_ptr(), 0));
    AWAKE.store(true, SeqCst);
    worker.join().expect("a thread");
}

fn absolute() {
    sys::handle(libc::SIGUSR1, ring, libc::SA_RESTART);
    let mut event = [0_u64; 8];
    event[1] = libc::SIGUSR1 as u64;
    for clock in [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC, libc::CLOCK_BOOTTIME, libc::CLOCK_TAI] {
        let mut id = -1_i32;
        sys!(libc::SYS_timer_create, clock, event.as_ptr(), &raw mut id);
        RUNG.store(0, SeqCst);
        let start = Instant::now();
        let [sec, ns] = now(clock).1;
        let ns = ns + 100_000_000;
        let time = [0, 0, sec + ns / 1_000_000_000, ns % 1_000_000_000];
        report("set", sys!(libc::SYS_timer_settime, id, libc::TIMER_ABSTIME, time.as_ptr(), 0));
        while RUNG.load(SeqCst) == 0 && start.elapsed() < Duration::from_secs(40) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let took = start.elapsed();
        println!("{}", took >= Duration::from_millis(95) && took < Duration::from_secs(20));
        sys!(libc::SYS_timer_delete, id);
    }
}

/// Around what a clock can show, in seconds.
const FAR: &[i64] =
    &[i64::MIN, -1, 1 << 33, 9_223_372_036, 9_223_372_037, i64::MAX / 1_000_000_000, i64::MAX];

/// Timers that fire soon, and then when nobody is there any more.
fn far_away() {
    let show = |what: &str, rest: [i64; 4]| {
        // What is left until the next time depends on when one asks.
        println!("{what}: every {}.{:09}, far {}", rest[0], rest[1], rest[2] > 8_000_000_000);
    };
    for sec in FAR {
        let soon = [*sec, 999_999_999, 0, 1_000_000];
        let fd = sys!(libc::SYS_timerfd_create, libc::CLOCK_MONOTONIC, 0);
        report("timerfd", sys!(libc::SYS_timerfd_settime, fd, 0, soon.as_ptr(), 0));
        if *sec > 0 {
            println!("times {:?}", sys::read(fd, 8));
        }
        let mut rest = [0; 4];
        sys!(libc::SYS_timerfd_gettime, fd, rest.as_mut_ptr());
        show("timerfd", rest);
        report("first far", sys!(libc::SYS_timerfd_settime, fd, 0, [0, 0, *sec, 0].as_ptr(), 0));
        report(
            "absolute",
            sys!(libc::SYS_timerfd_settime, fd, 1, [0, 0, *sec, 0].as_ptr(), rest.as_mut_ptr()),
        );
        show("before", rest);
        sys::close(fd);
        let (mut id, mut event) = (-1_i32, [0_u64; 8]);
        event[1] = 1 << 32;
        sys!(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, event.as_ptr(), &raw mut id);
        report("timer", sys!(libc::SYS_timer_settime, id, 0, soon.as_ptr(), 0));
        std::thread::sleep(Duration::from_millis(3));
        sys!(libc::SYS_timer_gettime, id, rest.as_mut_ptr());
        show("timer", rest);
        sys!(libc::SYS_timer_delete, id);
        sys::action(libc::SIGALRM, libc::SIG_IGN, 0, &[]);
        report("itimer", sys!(libc::SYS_setitimer, 0, [*sec, 999_999, 0, 1000].as_ptr(), 0));
        std::thread::sleep(Duration::from_millis(3));
        sys!(libc::SYS_setitimer, 0, [0_i64; 4].as_ptr(), rest.as_mut_ptr());
        println!("itimer: every {}.{:06}", rest[0], rest[1]);
        // What is ready does not wait for the end of time.
        let (read_end, write_end) = sys::pipe(0);
        sys::write(write_end, b"x");
        let mut poll = libc::pollfd { fd: read_end as i32, events: libc::POLLIN, revents: 0 };
        report("ppoll", sys!(libc::SYS_ppoll, &raw mut poll, 1, [*sec, 0].as_ptr(), 0, 8));
        let mut set = 1_u64 << read_end;
        let time = [*sec, 0];
        report("pselect", sys!(libc::SYS_pselect6, read_end + 1, &raw mut set, 0, 0, time.as_ptr(), 0));
        let word = 1_u32;
        report("futex", sys!(libc::SYS_futex, &raw const word, libc::FUTEX_WAIT, 2, time.as_ptr()));
        report(
            "past",
            sys!(libc::SYS_clock_nanosleep, 1, libc::TIMER_ABSTIME, [(*sec).min(0), 0].as_ptr(), 0),
        );
        sys::close(read_end);
        sys::close(write_end);
    }
}

/// A timer that nobody looks at has expired as often as it should have, when somebody does.
fn missed() {
    let fd = sys!(libc::SYS_timerfd_create, libc::CLOCK_MONOTONIC, 0);
    let start = Instant::now();
    sys!(libc::SYS_timerfd_settime, fd, 0, [0_i64, 100_000, 0, 1].as_ptr(), 0);
    std::thread::sleep(Duration::from_millis(30));
    let count = |bytes: Vec<u8>| u64::from_ne_bytes(bytes.try_into().expect("a count"));
    let times = count(sys::read(fd, 8).1);
    let most = start.elapsed().as_micros() as u64 / 100 + 1;
    println!("missed none {}, made up none {}", times >= 300, times <= most);
    // Asking for what is left counts, too.
    std::thread::sleep(Duration::from_millis(30));
    let mut rest = [0_i64; 4];
    sys!(libc::SYS_timerfd_gettime, fd, rest.as_mut_ptr());
    println!("left at most an interval {}", rest[2] == 0 && rest[3] <= 100_000);
    println!("missed none {}", count(sys::read(fd, 8).1) >= 300);
    sys::close(fd);
}
