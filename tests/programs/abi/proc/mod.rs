//! /proc: what must be the same everywhere, and what must agree with what the program did.

mod memory;

use crate::Case;
use crate::sys::{self, c, close, fork, in_child, open, report, report_ok, wait};
use std::fs::read_to_string;

pub(crate) const CASES: &[Case] = &[
    ("proc_smaps", memory::smaps),
    ("proc_smaps_shared", memory::smaps_shared),
    ("proc_peaks", memory::peaks),
    ("proc_oom", oom),
    ("proc_ids", ids),
    ("proc_access", access),
    ("proc_mem", memory::mem),
    ("proc_personality", personality),
    ("proc_timer_slack", timer_slack),
    ("proc_stat", stat),
    ("proc_title", title),
    ("proc_zombie", zombie),
    ("proc_system", system),
    ("proc_listing", listing),
    ("proc_links", links),
];

const PAGE: i64 = 4096;

/// The value of `name:` in a text of such lines; -1 if there is none.
fn value(text: &str, name: &str) -> i64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(-1)
}

/// Says when it is at a certain point, and goes on when it is told.
struct Steps {
    said: (i64, i64),
    told: (i64, i64),
}

impl Steps {
    fn new() -> Self {
        Steps { said: sys::pipe(0), told: sys::pipe(0) }
    }
    /// The child: is there, and waits for the parent.
    fn pause(&self) {
        sys::write(self.said.1, b"x");
        sys::read(self.told.0, 1);
    }
    /// The parent: waits for the child to be there.
    fn await_child(&self) {
        sys::read(self.said.0, 1);
    }
    fn go_on(&self) {
        sys::write(self.told.1, b"x");
    }
}

/// Writes to a file and says what came of it.
fn set(path: &str, text: &str) -> String {
    let fd = open(path, libc::O_WRONLY, 0);
    if fd < 0 {
        return format!("not opened: {}", sys::show(fd));
    }
    let result = sys::write(fd, text.as_bytes());
    close(fd);
    if result == text.len() as i64 { "ok".to_owned() } else { sys::show(result) }
}

fn get(path: &str) -> String {
    read_to_string(path)
        .map_or_else(|error| format!("{:?}", error.raw_os_error()), |text| text.trim().to_owned())
}

/// Gives up one capability (the harness may have it or not).
fn drop_capability(number: u32) {
    let header = [0x2008_0522_u32, 0];
    let mut data = [0_u32; 6];
    sys!(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr());
    for word in [0, 1] {
        data[word + 3 * (number as usize / 32)] &= !(1 << (number % 32));
    }
    sys!(libc::SYS_capset, header.as_ptr(), data.as_ptr());
}

/// How late timers may be, by prctl(2) and by its file.
fn timer_slack() {
    use std::os::unix::fs::MetadataExt;
    let own = "/proc/self/timerslack_ns";
    println!("{} {:o}", get(own), std::fs::metadata(own).map_or(0, |meta| meta.mode()));
    report("prctl", sys!(libc::SYS_prctl, libc::PR_SET_TIMERSLACK, 123_456));
    println!("{}", get(own));
    for text in
        ["777\n", "0", "0x10", "-1", "", "x", "18446744073709551615", "18446744073709551616", " 5", "9"]
    {
        println!("{text:?}: {}, then {}", set(own, text), get(own));
    }
    report("by prctl", sys!(libc::SYS_prctl, libc::PR_GET_TIMERSLACK));
    let thread = format!("/proc/self/task/{}/timerslack_ns", sys!(libc::SYS_gettid));
    println!("of a thread: {}", get(&thread));
    let pid = fork(sys::forever);
    let child = format!("/proc/{pid}/timerslack_ns");
    println!("a child's: {}, {}, {}", get(&child), set(&child, "4000"), get(&child));
    println!("its own again: {}, {}", set(&child, "0"), get(&child));
    in_child("a stranger", || {
        drop_capability(CAP_SYS_NICE);
        println!("{}, {}", get(&child), set(&child, "4000"));
        0
    });
    sys::end(pid);
}

const CAP_SYS_NICE: u32 = 23;
const CAP_SYS_RESOURCE: u32 = 24;
const SCORE: &str = "/proc/self/oom_score_adj";
const OLD: &str = "/proc/self/oom_adj";

fn oom() {
    in_child("without privilege", || {
        drop_capability(CAP_SYS_RESOURCE);
        println!("{} {} {}", set(SCORE, "300"), get(SCORE), get(OLD));
        in_child("inherited", || {
            println!("{} {}", get(SCORE), get(OLD));
            println!("{} {}", set(SCORE, "400"), get(SCORE));
            0
        });
        println!("still {}", get(SCORE));
        for text in [" 12 \n", "0x10", "010", "1000", "0", "1001", "-1001", "x", "1x", "-", "99999999999"] {
            println!("{text:?} {} {}", set(SCORE, text), get(SCORE));
        }
        println!("below what it may be: {}", set(SCORE, "-1"));
        println!("{} {}", set(OLD, "15"), get(SCORE));
        println!("lower {} {}", set(OLD, "14"), get(SCORE));
        println!("out of range {} {}", set(OLD, "16"), set(OLD, "-18"));
        let high: i64 = get("/proc/self/oom_score").parse().unwrap_or(-1);
        println!("{}", set(SCORE, "0"));
        let low: i64 = get("/proc/self/oom_score").parse().unwrap_or(-1);
        println!("score {}", low >= 0 && high > low && high <= 2000);
        0
    });
    in_child("a thread's is its process's", || {
        println!("{}", set(SCORE, "77"));
        let thread = std::thread::spawn(|| get("/proc/thread-self/oom_score_adj"));
        println!("{:?}", thread.join().ok());
        0
    });
    let steps = Steps::new();
    let child = fork(|| {
        steps.pause();
        0
    });
    steps.await_child();
    let path = format!("/proc/{child}/oom_score_adj");
    println!("of a child: {} {}", set(&path, "55"), get(&path));
    in_child("of somebody else's", || {
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        println!("{} {}", set(&path, "66"), get(&path));
        0
    });
    steps.go_on();
    println!("{}", wait(child));
}

fn ids() {
    println!("{}", get("/proc/self/setgroups"));
    for text in ["allow", "allow\n", "deny", "denys", "x"] {
        println!("{text:?} {}", set("/proc/self/setgroups", text));
    }
    for file in ["uid_map", "gid_map"] {
        let path = format!("/proc/self/{file}");
        println!("{file} {}", set(&path, "0 0 1"));
        println!("{}", get(&path).split_whitespace().count());
    }
}

fn access() {
    let parent = sys!(libc::SYS_getpid);
    let look = || {
        for file in [
            "maps",
            "smaps",
            "smaps_rollup",
            "environ",
            "auxv",
            "mem",
            "personality",
            "limits",
            "status",
            "statm",
            "cmdline",
            "comm",
            "oom_score",
            "mountinfo",
        ] {
            let fd = open(&format!("/proc/{parent}/{file}"), libc::O_RDONLY, 0);
            report_ok(file, fd);
            close(fd);
        }
        for link in ["cwd", "exe", "root", "fd/0"] {
            let mut buffer = [0_u8; 64];
            let path = c(&format!("/proc/{parent}/{link}"));
            let result =
                sys!(libc::SYS_readlinkat, libc::AT_FDCWD, path.as_ptr(), buffer.as_mut_ptr(), buffer.len());
            report_ok(link, result);
        }
        let stat = fields(&format!("/proc/{parent}/stat"));
        println!("addresses {:?}", [26, 27, 28, 45, 48].map(|n| stat[n - 3] > 1));
    };
    in_child("root", || {
        look();
        0
    });
    in_child("somebody else", || {
        sys!(libc::SYS_setgroups, 0, 0);
        sys!(libc::SYS_setresgid, 1000, 1000, 1000);
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        look();
        println!("comm of others {}", set(&format!("/proc/{parent}/comm"), "x"));
        // Who has changed ids may have read what is not for the new one.
        println!("dumpable {}", sys!(libc::SYS_prctl, libc::PR_GET_DUMPABLE));
        println!("own score {}", set(SCORE, "5"));
        println!("own descriptor {}", std::fs::read_link("/proc/self/fd/1").is_ok());
        println!("own map {}", open("/proc/self/maps", libc::O_RDONLY, 0) >= 0);
        println!("own environment {}", sys::show(open("/proc/self/environ", libc::O_RDONLY, 0).min(0)));
        report("prctl", sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1));
        println!("own score {}", set(SCORE, "5"));
        println!("own environment {}", sys::show(open("/proc/self/environ", libc::O_RDONLY, 0).min(0)));
        0
    });
    in_child("names", || {
        println!("another's {}", set(&format!("/proc/{parent}/comm"), "x"));
        println!("{} {}", set("/proc/self/comm", "a name that is too long\n"), get("/proc/self/comm"));
        0
    });
    println!("written to: {} {}", set("/proc/self/maps", "x"), set("/proc/self/status", "x"));
}

fn personality() {
    const ADDR_NO_RANDOMIZE: i64 = 0x004_0000;
    in_child("child", || {
        report("before", sys!(libc::SYS_personality, ADDR_NO_RANDOMIZE));
        println!("{}", get("/proc/self/personality"));
        in_child("inherited", || {
            println!("{}", get("/proc/self/personality"));
            0
        });
        let addresses = || {
            let (output, input) = sys::pipe(0);
            let pid = fork(|| {
                sys!(libc::SYS_dup3, input, 1, 0);
                -crate::process::execute(crate::process::SELF, &["abi", "--child", "addresses"], &[]) as i32
            });
            close(input);
            let text = sys::read(output, 200).1;
            close(output);
            println!("{}", wait(pid));
            text
        };
        let [one, two, three] = [addresses(), addresses(), addresses()];
        println!("the same {}", !one.is_empty() && one == two && two == three);
        0
    });
}

/// The fields of a stat file from the third on, the state being 0.
fn fields(path: &str) -> Vec<i64> {
    let text = read_to_string(path).expect("stat");
    let rest = text.rsplit_once(')').expect("a name").1;
    // rsslim is unsigned.
    rest.split_whitespace().map(|word| word.parse::<i128>().unwrap_or(0) as i64).collect()
}

/// Uses the CPU for so many milliseconds.
fn spin(millis: i64) {
    let used = || {
        let mut time = [0_i64; 2];
        sys!(libc::SYS_clock_gettime, libc::CLOCK_PROCESS_CPUTIME_ID, time.as_mut_ptr());
        time[0] * 1000 + time[1] / 1_000_000
    };
    let end = used() + millis;
    while used() < end {
        std::hint::spin_loop();
    }
}

fn stat() {
    let field = |n: usize| fields("/proc/self/stat")[n - 3];
    println!("fields {}", fields("/proc/self/stat").len());
    println!("forked and executed {}", field(9) & 0x40 == 0);
    println!("exit signal {}", field(38));
    in_child("a child that has not executed", || {
        println!("{}", field(9) & 0x40 != 0);
        sys!(libc::SYS_setpriority, 0, 0, 5);
        println!("priority {} nice {} real-time {} policy {}", field(18), field(19), field(40), field(41));
        let limit = [1_i64 << 20, 1 << 20];
        sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_RSS, limit.as_ptr(), 0);
        println!("resident limit {}", field(25));
        let mask = field(31);
        println!("pending {} blocked {mask}", field(31));
        0
    });
    println!("of children: faults {}", field(11) > 0);
    println!(
        "{}",
        wait(fork(|| {
            spin(200);
            // As wait(2) tells it.
            i32::from(field(14) + field(15) >= 10)
        }))
    );
    println!("of children: ticks {}", field(16) + field(17) >= 10);
    println!("resident {}", field(24) > 0 && field(23) / PAGE >= field(24));
    println!("threads {}", field(20));
    let thread = std::thread::spawn(|| (fields("/proc/thread-self/stat")[35], fields("/proc/self/stat")[17]));
    println!("a thread's exit signal, threads: {:?}", thread.join().ok());
}

/// What a program writes over its arguments, as setproctitle(3) and perl's `$0` do.
fn title() {
    in_child("a title", || {
        let stat = fields("/proc/self/stat");
        let [args, end, env, env_end] = [48, 49, 50, 51].map(|n: usize| stat[n - 3]);
        println!("the environment follows {}", end == env && env < env_end);
        let line =
            || std::fs::read("/proc/self/cmdline").map(|line| String::from_utf8_lossy(&line).into_owned());
        let fill = |from: i64, to: i64, byte: u8| (from..to).for_each(|at| sys::poke(at, byte));
        let len = |line: std::io::Result<String>| line.map(|line| line.len() as i64 - (end - args)).ok();
        // The last byte is no NUL: one string.
        fill(args, end, b' ');
        fill(args, args + 2, b'x');
        sys::poke(args + 2, 0);
        println!("{:?}", line());
        // It goes on in the environment.
        fill(args, end, b'y');
        fill(env, env + 3, b'z');
        sys::poke(env + 3, 0);
        println!("{:?} {:?}", len(line()), line().map(|line| line.ends_with("yzzz\0")).ok());
        // The last byte is one: all of it, with what is behind the first.
        sys::poke(end - 1, 0);
        sys::poke(args + 2, 0);
        println!("{:?}", len(line()));
        0
    });
}

fn zombie() {
    let child = fork(|| 3);
    sys!(libc::SYS_waitid, libc::P_PID, child, 0, libc::WEXITED | libc::WNOWAIT, 0);
    let at = |file: &str| format!("/proc/{child}/{file}");
    let status = read_to_string(at("status")).expect("status");
    for name in ["State", "Uid", "Gid", "FDSize", "Threads"] {
        println!("{:?}", status.lines().find(|line| line.starts_with(name)));
    }
    println!("memory {}", status.contains("VmRSS"));
    let stat = fields(&at("stat"));
    println!("threads {} size {} code {}", stat[17], stat[20], stat[49]);
    for file in ["maps", "smaps", "smaps_rollup", "cmdline", "statm", "oom_score_adj", "comm"] {
        println!("{file} {:?}", get(&at(file)));
    }
    for link in ["exe", "cwd", "root"] {
        println!("{link} {:?}", std::fs::read_link(at(link)).map_err(|error| error.raw_os_error()));
    }
    println!("{}", wait(child));
    println!("gone {}", sys::show(open(&at("status"), 0, 0)));
}

fn system() {
    let names = || {
        let mut names = [0_u8; 6 * 65];
        sys!(libc::SYS_uname, names.as_mut_ptr());
        let name =
            |n: usize| String::from_utf8_lossy(&names[n * 65..][..65]).trim_end_matches('\0').to_owned();
        [0, 1, 2, 3, 5].map(name)
    };
    let [system, host, release, version, domain] = names();
    println!("{}", get("/proc/sys/kernel/ostype") == system);
    println!("{}", get("/proc/sys/kernel/hostname") == host);
    println!("{}", get("/proc/sys/kernel/osrelease") == release);
    println!("{}", get("/proc/sys/kernel/version") == version);
    println!("{}", get("/proc/sys/kernel/domainname") == domain);
    println!("{}", get("/proc/version").starts_with(&format!("Linux version {release} ")));
    let mut info = [0_u64; 14];
    sys!(libc::SYS_sysinfo, info.as_mut_ptr());
    let total = value(&get("/proc/meminfo"), "MemTotal");
    println!("memory {}", total > 0 && total == (info[4] * (info[13] & 0xffff_ffff) / 1024) as i64);
    let free = value(&get("/proc/meminfo"), "MemFree");
    println!("free {}", 0 < free && free < total);
    let uptime =
        || -> Vec<f64> { get("/proc/uptime").split(' ').filter_map(|word| word.parse().ok()).collect() };
    let words = uptime();
    let cpus = get("/proc/stat").lines().filter(|line| line.starts_with("cpu")).count() - 1;
    println!("uptime {} {}", words.len(), words[0] >= 0.0 && words[1] <= words[0] * cpus as f64 + 1.0);
    println!("cpus {}", cpus == value_count(&get("/proc/cpuinfo"), "processor"));
    // What a child has used stays used.
    let before = get("/proc/stat");
    let busy = |text: &str| {
        let words = text.lines().next().unwrap_or("").split_whitespace().skip(1);
        words.take(3).filter_map(|word| word.parse::<i64>().ok()).sum::<i64>()
    };
    let number = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
        line.and_then(|word| word.parse::<i64>().ok()).unwrap_or(-1)
    };
    // Linux counts by its ticks, of which a busy machine loses some.
    let mut after = before.clone();
    for children in 0..100 {
        if children >= 3 && busy(&after) - busy(&before) >= 10 {
            break;
        }
        wait(fork(|| {
            spin(70);
            0
        }));
        after = get("/proc/stat");
    }
    println!("busy {}", busy(&after) - busy(&before) >= 10);
    println!("processes {}", number(&after, "processes ") - number(&before, "processes ") >= 3);
    println!("switches {}", number(&after, "ctxt ") > number(&before, "ctxt "));
    println!("running {}", number(&after, "procs_running ") >= 1);
    let now = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.expect("a time").as_secs() as i64
    };
    let (earlier, up, later) = (now(), uptime()[0] as i64, now());
    println!("boot {}", (earlier - 3..=later + 3).contains(&(number(&after, "btime ") + up)));
    let load = get("/proc/loadavg");
    let words: Vec<&str> = load.split(' ').collect();
    println!(
        "load {} {}",
        words.len(),
        words[..3].iter().all(|word| word.parse::<f64>().is_ok_and(|n| n >= 0.0))
    );
    let (running, all) = words[3].split_once('/').expect("two numbers");
    let (running, all): (i64, i64) = (running.parse().unwrap_or(-1), all.parse().unwrap_or(-1));
    println!("tasks {}", running >= 1 && all >= running);
    println!("last id {}", words[4].parse::<i64>().is_ok_and(|id| id > 0));
}

fn value_count(text: &str, start: &str) -> usize {
    text.lines().filter(|line| line.starts_with(start)).count()
}

fn listing() {
    let names: Vec<_> = std::fs::read_dir("/proc/self").expect("a directory").flatten().collect();
    println!("all there {}", names.iter().all(|entry| std::fs::symlink_metadata(entry.path()).is_ok()));
    for name in ["fd", "fdinfo", "ns", "task", "cwd", "exe", "comm", "mem", "maps", "smaps", "stat", "status"]
    {
        let meta = std::fs::symlink_metadata(format!("/proc/self/{name}")).expect("metadata");
        use std::os::unix::fs::MetadataExt;
        println!("{name} {:o} {}", meta.mode(), meta.uid());
    }
}

/// Programs find out by the links of a directory whether they have threads, or children a process.
fn links() {
    use std::os::unix::fs::MetadataExt;
    let of = |path: &str| std::fs::metadata(path).map_or(0, |meta| meta.nlink());
    println!("one thread {}", of("/proc/self/task"));
    let (go, wait_for_it) = std::sync::mpsc::channel::<()>();
    let (here, said) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        here.send(()).expect("somebody who waits");
        wait_for_it.recv().is_err()
    });
    said.recv().expect("a thread");
    println!("two threads {} {}", of("/proc/self/task"), of("/proc/thread-self/fd"));
    drop(go);
    println!("{:?}", thread.join().ok());
    let steps = Steps::new();
    let child = fork(|| {
        steps.pause();
        0
    });
    steps.await_child();
    println!("a child's {} {}", of(&format!("/proc/{child}/task")), of(&format!("/proc/{child}/fdinfo")));
    let directories = |path: &str| {
        let entries = std::fs::read_dir(path).expect("a directory").flatten();
        2 + entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).count() as u64
    };
    println!("a process's {}", of("/proc/self") == directories("/proc/self"));
    steps.go_on();
    println!("{}", wait(child));
}
