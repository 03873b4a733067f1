//! Calls that set something: each setting must do what Linux does with it, or be refused.

use crate::Case;
use crate::sys::{self, in_child, report, report_ok, show};

pub(crate) const CASES: &[Case] = &[
    ("control_prctl", prctl),
    ("control_prctl_inherited", prctl_inherited),
    ("control_dumpable", dumpable),
    ("control_securebits", securebits),
    ("control_ambient", ambient),
    ("control_personality", personality),
    ("control_policies", policies),
    ("control_attributes", attributes),
    ("control_nice_limit", nice_limit),
    ("control_io_priority", io_priority),
    ("control_membarrier", membarrier),
    ("control_advice", advice),
    ("control_locked_memory", locked_memory),
    ("control_keys", keys),
    ("control_robust_list_of_others", robust_list_of_others),
    ("control_real_time", real_time),
];

fn get(operation: i32) -> i64 {
    sys!(libc::SYS_prctl, operation, 0, 0, 0, 0)
}

fn set(operation: i32, value: i64) -> i64 {
    sys!(libc::SYS_prctl, operation, value, 0, 0, 0)
}

/// Runs `body` as a user without privileges.
fn as_user(what: &str, body: impl FnOnce() -> i32) {
    in_child(what, || {
        sys!(libc::SYS_setgroups, 0, 0);
        sys!(libc::SYS_setresgid, 1000, 1000, 1000);
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        body()
    });
}

fn prctl() {
    report("no huge pages", get(libc::PR_GET_THP_DISABLE));
    report("set", set(libc::PR_SET_THP_DISABLE, 1));
    report("no huge pages", get(libc::PR_GET_THP_DISABLE));
    report("an argument too many", sys!(libc::SYS_prctl, libc::PR_GET_THP_DISABLE, 1, 0, 0, 0));
    report("set back", set(libc::PR_SET_THP_DISABLE, 0));
    report("no huge pages", get(libc::PR_GET_THP_DISABLE));
    report("slack", set(libc::PR_SET_TIMERSLACK, 123_456));
    report("slack", get(libc::PR_GET_TIMERSLACK));
    report("default", set(libc::PR_SET_TIMERSLACK, 0));
    report("slack", get(libc::PR_GET_TIMERSLACK));
}

fn prctl_inherited() {
    set(libc::PR_SET_THP_DISABLE, 1);
    set(libc::PR_SET_TIMERSLACK, 70_000);
    in_child("child", || {
        report("no huge pages", get(libc::PR_GET_THP_DISABLE));
        report("slack", get(libc::PR_GET_TIMERSLACK));
        set(libc::PR_SET_TIMERSLACK, 1);
        set(libc::PR_SET_TIMERSLACK, 0);
        report("default", get(libc::PR_GET_TIMERSLACK));
        0
    });
    let thread = std::thread::spawn(|| [get(libc::PR_GET_TIMERSLACK), get(libc::PR_GET_THP_DISABLE)]);
    println!("{:?}", thread.join().ok());
}

fn dumpable() {
    let shown = || println!("dumpable {} signal {}", get(libc::PR_GET_DUMPABLE) == 1, death_signal());
    shown();
    set(libc::PR_SET_DUMPABLE, 0);
    in_child("inherited", || {
        shown();
        0
    });
    set(libc::PR_SET_DUMPABLE, 1);
    set(libc::PR_SET_PDEATHSIG, 10);
    shown();
    in_child("another user", || {
        set(libc::PR_SET_PDEATHSIG, 10);
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        shown();
        report("set", set(libc::PR_SET_DUMPABLE, 1));
        shown();
        0
    });
    in_child("another group", || {
        set(libc::PR_SET_PDEATHSIG, 10);
        sys!(libc::SYS_setresgid, -1, 1000, -1);
        shown();
        0
    });
    in_child("a saved id", || {
        set(libc::PR_SET_PDEATHSIG, 10);
        sys!(libc::SYS_setresuid, -1, -1, 1000);
        shown();
        0
    });
}

fn death_signal() -> i32 {
    let mut signal = -1_i32;
    sys!(libc::SYS_prctl, libc::PR_GET_PDEATHSIG, &raw mut signal);
    signal
}

fn securebits() {
    const KEEP_CAPS: i64 = 1 << 4;
    const NOROOT: i64 = 1;
    report("keep", set(libc::PR_SET_KEEPCAPS, 1));
    report("bits", get(libc::PR_GET_SECUREBITS));
    report("an unknown one", set(libc::PR_SET_SECUREBITS, 1 << 20));
    in_child("locked", || {
        report("lock", set(libc::PR_SET_SECUREBITS, KEEP_CAPS << 1 | NOROOT << 1));
        report("keep", set(libc::PR_SET_KEEPCAPS, 1));
        report("a locked bit", set(libc::PR_SET_SECUREBITS, KEEP_CAPS << 1 | NOROOT << 1 | NOROOT));
        report("unlock", set(libc::PR_SET_SECUREBITS, KEEP_CAPS << 1));
        report("another bit", set(libc::PR_SET_SECUREBITS, KEEP_CAPS << 1 | NOROOT << 1 | 1 << 2));
        report("bits", get(libc::PR_GET_SECUREBITS));
        0
    });
    as_user("user", || {
        report("set", set(libc::PR_SET_SECUREBITS, 0));
        report("drop", sys!(libc::SYS_prctl, libc::PR_CAPBSET_DROP, 99, 0, 0, 0));
        0
    });
    report("no such capability", sys!(libc::SYS_prctl, libc::PR_CAPBSET_DROP, 99, 0, 0, 0));
}

fn ambient() {
    let ambient = |operation: i32, arg: i64, more: i64| {
        sys!(libc::SYS_prctl, libc::PR_CAP_AMBIENT, operation, arg, more, 0)
    };
    report("is set", ambient(libc::PR_CAP_AMBIENT_IS_SET, 1, 0));
    report("not inheritable", ambient(libc::PR_CAP_AMBIENT_RAISE, 1, 0));
    report("clear", ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0));
    report("clear one", ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL, 1, 0));
    report("more arguments", ambient(libc::PR_CAP_AMBIENT_IS_SET, 1, 1));
    report("no such capability", ambient(libc::PR_CAP_AMBIENT_IS_SET, 99, 0));
    report("no such operation", ambient(99, 1, 0));
}

fn personality() {
    const ADDR_NO_RANDOMIZE: i64 = 0x004_0000;
    const READ_IMPLIES_EXEC: i64 = 0x040_0000;
    const UNAME26: i64 = 0x002_0000;
    let names = |at: usize| {
        let mut names = [0_u8; 390];
        sys!(libc::SYS_uname, names.as_mut_ptr());
        let text = &names[at * 65..at * 65 + 65];
        String::from_utf8_lossy(&text[..text.iter().position(|b| *b == 0).unwrap_or(0)]).into_owned()
    };
    let to = |bits: i64| sys!(libc::SYS_personality, bits);
    in_child("old release", || {
        to(UNAME26);
        println!("{}", names(2).starts_with("2.6."));
        0
    });
    #[cfg(target_arch = "x86_64")]
    in_child("32 bits", || {
        report("set", to(8));
        println!("{}", names(4));
        0
    });
    in_child("reading is executing", || {
        to(READ_IMPLIES_EXEC);
        let page = sys::memory(4096);
        println!("{}", rights(page));
        sys!(libc::SYS_mprotect, page, 4096, libc::PROT_READ);
        println!("{}", rights(page));
        sys!(libc::SYS_mprotect, page, 4096, libc::PROT_NONE);
        println!("{}", rights(page));
        0
    });
    in_child("through execve", || {
        to(ADDR_NO_RANDOMIZE | READ_IMPLIES_EXEC | UNAME26);
        -crate::process::execute(crate::process::SELF, &["abi", "--child", "personality"], &[]) as i32
    });
    let places = || {
        let (read_end, write_end) = sys::pipe(0);
        let pid = sys::fork(|| {
            sys!(libc::SYS_dup3, write_end, 1, 0);
            -crate::process::execute(crate::process::SELF, &["abi", "--child", "places"], &[]) as i32
        });
        sys::close(write_end);
        let (_, text) = sys::read(read_end, 200);
        sys::close(read_end);
        println!("{}", sys::wait(pid));
        text
    };
    to(ADDR_NO_RANDOMIZE);
    println!("the same {}", places() == places());
    to(0);
    println!("the same {}", places() == places());
}

/// The rights of the page at `address`, as the kernel shows them.
fn rights(address: i64) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let holds = |line: &&str| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let number = |text| i64::from_str_radix(text, 16).ok();
        (number(start)? <= address && address < number(end)?).then_some(())
    };
    let line = maps.lines().find(|line| holds(line).is_some()).unwrap_or_default();
    line.split(' ').nth(1).unwrap_or("none").to_owned()
}

fn policies() {
    const RESET: i64 = 0x4000_0000;
    let param = [0_i32];
    let set = |policy: i64| sys!(libc::SYS_sched_setscheduler, 0, policy, param.as_ptr());
    let current = || sys!(libc::SYS_sched_getscheduler, 0);
    for policy in [libc::SCHED_BATCH, libc::SCHED_IDLE, libc::SCHED_OTHER] {
        report("set", set(i64::from(policy)));
        report("is", current());
    }
    report("with a flag", set(i64::from(libc::SCHED_BATCH) | RESET));
    report("is", current());
    in_child("child", || i32::from(current() == 0));
    report("negative", set(-1));
    report("unknown", set(77));
    report("nobody", sys!(libc::SYS_sched_setscheduler, 4_000_000, 0, param.as_ptr()));
    report("no parameter", sys!(libc::SYS_sched_setscheduler, 0, 0, 0));
    let wrong = [5_i32];
    report("a priority", sys!(libc::SYS_sched_setscheduler, 0, 0, wrong.as_ptr()));
    report("setparam", sys!(libc::SYS_sched_setparam, 0, param.as_ptr()));
    report("a priority", sys!(libc::SYS_sched_setparam, 0, wrong.as_ptr()));
    let mut got = [9_i32];
    report("getparam", sys!(libc::SYS_sched_getparam, 0, got.as_mut_ptr()));
    println!("{got:?}");
    report("nowhere", sys!(libc::SYS_sched_getparam, 0, 0));
    report("above all", sys!(libc::SYS_sched_setscheduler, 0, libc::SCHED_FIFO, [100_i32].as_ptr()));
    as_user("user", || {
        report("real time", sys!(libc::SYS_sched_setscheduler, 0, libc::SCHED_FIFO, [1_i32].as_ptr()));
        report("clear the flag", set(0));
        report("another's", sys!(libc::SYS_sched_setscheduler, 1, 0, param.as_ptr()));
        0
    });
}

fn attributes() {
    let attributes = |size: u32, policy: u32, flags: u64, nice: i32, priority: u32| {
        let mut words = [0_u64; 16];
        words[0] = u64::from(size) | u64::from(policy) << 32;
        words[1] = flags;
        words[2] = u64::from(nice as u32) | u64::from(priority) << 32;
        words
    };
    let set = |words: &mut [u64; 16]| sys!(libc::SYS_sched_setattr, 0, words.as_mut_ptr(), 0);
    report("set", set(&mut attributes(48, 3, 0, 4, 0)));
    let mut got = [0_u64; 16];
    report("get", sys!(libc::SYS_sched_getattr, 0, got.as_mut_ptr(), 48, 0));
    println!("{:?}", (got[0], got[1], got[2]));
    report("nice", sys!(libc::SYS_getpriority, 0, 0));
    report("no size", set(&mut attributes(0, 0, 0, 4, 0)));
    let mut small = attributes(40, 0, 0, 0, 0);
    report("too small", set(&mut small));
    let mut large = attributes(128, 0, 0, 0, 0);
    large[15] = 1;
    report("something unknown", set(&mut large));
    large[15] = 0;
    large[0] = 128;
    report("zeroes", set(&mut large));
    report("unknown flags", set(&mut attributes(48, 0, 1 << 40, 0, 0)));
    report("keep all", set(&mut attributes(48, 0, 0x18, 9, 0)));
    report("nice", sys!(libc::SYS_getpriority, 0, 0));
    report("a priority", set(&mut attributes(48, 0, 0, 0, 3)));
    report("small buffer", sys!(libc::SYS_sched_getattr, 0, got.as_mut_ptr(), 47, 0));
    report("flags", sys!(libc::SYS_sched_getattr, 0, got.as_mut_ptr(), 48, 1));
    report("nowhere", sys!(libc::SYS_sched_getattr, 0, 0, 48, 0));
    as_user("user", || {
        report("nice", sys!(libc::SYS_setpriority, 0, 0, 5));
        report("less nice", set(&mut attributes(48, 0, 0, 1, 0)));
        report("nicer", set(&mut attributes(48, 0, 0, 7, 0)));
        0
    });
}

fn nice_limit() {
    in_child("child", || {
        let limit = [22_u64, 22];
        if sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_NICE, limit.as_ptr(), 0) != 0 {
            // A container in which root may not: what would come of it.
            println!("nice: 0\nas far as that: 0\nfurther: EACCES\ninit: EPERM\nnice: 22");
            return 0;
        }
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        report("nice", sys!(libc::SYS_setpriority, 0, 0, 10));
        report("as far as that", sys!(libc::SYS_setpriority, 0, 0, -2));
        report("further", sys!(libc::SYS_setpriority, 0, 0, -3));
        report("init", sys!(libc::SYS_setpriority, 0, 1, 19));
        report("nice", sys!(libc::SYS_getpriority, 0, 0));
        0
    });
}

fn io_priority() {
    let get = |which: i32| sys!(libc::SYS_ioprio_get, which, 0);
    let set = |value: i32| sys!(libc::SYS_ioprio_set, 1, 0, value);
    report("set", set(2 << 13 | 6));
    report("get", get(1));
    in_child("inherited", || i32::from(get(1) == (2 << 13 | 6)));
    report("idle", set(3 << 13));
    report("get", get(1));
    report("none", set(0));
    report("none with a level", set(3));
    report("no such class", set(5 << 13));
    report("real time", set(1 << 13 | 4));
    report("get", get(1));
    report("whose", get(9));
    report("nobody's", sys!(libc::SYS_ioprio_get, 1, 4_000_000));
    report("set nobody's", sys!(libc::SYS_ioprio_set, 1, 4_000_000, 2 << 13));
    as_user("user", || {
        report("real time", set(1 << 13));
        report("best effort", set(2 << 13 | 7));
        report("init", sys!(libc::SYS_ioprio_set, 1, 1, 2 << 13 | 7));
        0
    });
}

fn membarrier() {
    const GLOBAL: i32 = 1;
    const GLOBAL_EXPEDITED: i32 = 2;
    const PRIVATE_EXPEDITED: i32 = 8;
    const REGISTER: i32 = 16;
    let call = |command: i32| sys!(libc::SYS_membarrier, command, 0, 0);
    report("global", call(GLOBAL));
    report("of all", call(GLOBAL_EXPEDITED));
    report("not registered", call(PRIVATE_EXPEDITED));
    report("register", call(REGISTER));
    report("registered", call(PRIVATE_EXPEDITED));
    in_child("inherited", || i32::from(call(PRIVATE_EXPEDITED) == 0));
    in_child("executed", || {
        -crate::process::execute(crate::process::SELF, &["abi", "--child", "membarrier"], &[]) as i32
    });
    report("two at once", call(GLOBAL | GLOBAL_EXPEDITED));
    report("flags", sys!(libc::SYS_membarrier, PRIVATE_EXPEDITED, 1, 0));
}

fn advice() {
    let page = sys::memory(8192);
    let file = sys::open(crate::process::SELF, libc::O_RDONLY, 0);
    let mapped = sys::mmap(0, 4096, libc::PROT_READ, libc::MAP_PRIVATE, file, 0);
    let shared = sys::mmap(0, 4096, 3, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
    let give = |at: i64, advice: i32| sys!(libc::SYS_madvise, at, 4096, advice);
    report("free", give(page, libc::MADV_FREE));
    report("free a file", give(mapped, libc::MADV_FREE));
    report("free what is shared", give(shared, libc::MADV_FREE));
    sys::poke(page, 7);
    sys!(libc::SYS_mlock, page, 4096);
    report("drop locked", give(page, libc::MADV_DONTNEED));
    println!("{}", sys::peek(page));
    report("drop locked, and mean it", give(page, libc::MADV_DONTNEED_LOCKED));
    println!("{}", sys::peek(page));
    report("unknown", give(page, 999));
    report("odd", sys!(libc::SYS_madvise, page + 1, 4096, libc::MADV_NORMAL));
}

fn locked_memory() {
    let limit = |bytes: u64| {
        let limit = [bytes, bytes];
        sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_MEMLOCK, limit.as_ptr(), 0)
    };
    let map = |pages: usize| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_LOCKED;
        sys::mmap(0, pages * 4096, libc::PROT_READ, flags, -1, 0).min(0)
    };
    let area = sys::memory(16 * 4096);
    let lock = |pages: usize| sys!(libc::SYS_mlock, area, pages * 4096);
    in_child("root", || {
        limit(8192);
        report("lock", lock(16));
        report("map", map(4));
        report("all", sys!(libc::SYS_mlockall, libc::MCL_CURRENT));
        0
    });
    for bytes in [8192_u64, 0] {
        in_child("user", || {
            limit(bytes);
            sys!(libc::SYS_setresuid, 1000, 1000, 1000);
            report("two pages", lock(2));
            report("one more", lock(3));
            sys!(libc::SYS_munlock, area, 16 * 4096);
            report("map two", map(2));
            report("map two more", map(2));
            report("all", sys!(libc::SYS_mlockall, libc::MCL_CURRENT));
            0
        });
    }
}

/// arm64 has these calls from Linux 6.12 on only, which is later than the guests' kernel.
fn keys() {
    if cfg!(target_arch = "aarch64") {
        return;
    }
    report("flags", sys!(libc::SYS_pkey_alloc, 1, 0));
    report("rights", sys!(libc::SYS_pkey_alloc, 0, 8));
    report("free none", sys!(libc::SYS_pkey_free, 77));
}

fn robust_list_of_others() {
    let page = sys::mmap(0, 4096, 3, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
    let pid = sys::fork(|| {
        let head = [sys!(libc::SYS_getpid), 0, 0];
        sys!(libc::SYS_set_robust_list, head.as_ptr(), 24);
        sys::store(page + 8, head.as_ptr() as i64);
        sys::poke(page, 1);
        while sys::peek(page) == 1 {
            std::thread::yield_now();
        }
        sys!(libc::SYS_set_robust_list, 0, 24);
        0
    });
    while sys::peek(page) != 1 {
        std::thread::yield_now();
    }
    let (mut head, mut size) = (0_i64, 0_u64);
    report("get", sys!(libc::SYS_get_robust_list, pid, &raw mut head, &raw mut size));
    println!("{} {size}", head == sys::load::<i64>(page + 8));
    as_user("user", || {
        report("get", sys!(libc::SYS_get_robust_list, pid, &raw mut head, &raw mut size));
        0
    });
    report("nobody's", sys!(libc::SYS_get_robust_list, 4_000_000, &raw mut head, &raw mut size));
    sys::poke(page, 2);
    println!("{}", sys::wait(pid));
}

/// Linux may refuse real-time policies, too; but nobody may say yes and not mean it.
fn real_time() {
    let set = sys!(libc::SYS_sched_setscheduler, 0, libc::SCHED_FIFO, [1_i32].as_ptr());
    let is = sys!(libc::SYS_sched_getscheduler, 0);
    let fair = match set {
        0 => is == i64::from(libc::SCHED_FIFO),
        refused => show(refused) == "EPERM" && is == 0,
    };
    println!("{fair}");
    report_ok("back", sys!(libc::SYS_sched_setscheduler, 0, 0, [0_i32].as_ptr()));
}
