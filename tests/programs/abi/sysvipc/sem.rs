//! Semaphores.

use super::{CREAT, EXCL, Helper, NOWAIT, PRIVATE, RMID, SET, STAT, Words, drop_root, key, nothing, perm};
use crate::sys::{self, in_child, report, report_ok, show};

const GETPID: i64 = libc::GETPID as i64;
const GETVAL: i64 = libc::GETVAL as i64;
const GETALL: i64 = libc::GETALL as i64;
const GETNCNT: i64 = libc::GETNCNT as i64;
const GETZCNT: i64 = libc::GETZCNT as i64;
const SETVAL: i64 = libc::SETVAL as i64;
const SETALL: i64 = libc::SETALL as i64;
const SEM_STAT: i64 = 18;
const SEM_STAT_ANY: i64 = 20;
const UNDO: i16 = libc::SEM_UNDO as i16;
const DONT_WAIT: i16 = NOWAIT as i16;

/// An operation: semaphore, change, flags.
type Op = (u16, i16, i16);

fn get(key: i64, count: i64, flags: i64) -> i64 {
    sys!(libc::SYS_semget, key, count, flags)
}

fn set(count: i64) -> i64 {
    get(PRIVATE, count, CREAT | 0o600)
}

fn control(id: i64, number: i64, command: i64, argument: i64) -> i64 {
    sys!(libc::SYS_semctl, id, number, command, argument)
}

fn remove(id: i64) -> i64 {
    control(id, 0, RMID, 0)
}

fn raw(ops: &[Op]) -> Vec<i16> {
    ops.iter().flat_map(|(number, change, flags)| [*number as i16, *change, *flags]).collect()
}

fn operate(id: i64, ops: &[Op]) -> i64 {
    sys!(libc::SYS_semtimedop, id, raw(ops).as_ptr(), ops.len(), 0)
}

fn timed(id: i64, ops: &[Op], time: [i64; 2]) -> i64 {
    sys!(libc::SYS_semtimedop, id, raw(ops).as_ptr(), ops.len(), time.as_ptr())
}

fn all(id: i64, count: usize) -> Vec<u16> {
    let mut values = vec![0xffff; count];
    control(id, 0, GETALL, values.as_mut_ptr() as i64);
    values
}

fn stat(id: i64) -> Words {
    let mut words = [0; 16];
    control(id, 0, STAT, words.as_mut_ptr() as i64);
    words
}

pub(super) fn values() {
    let id = get(key(), 3, CREAT | EXCL | 0o600);
    report_ok("made", id);
    println!("{:?}", all(id, 3));
    report("set", control(id, 1, SETVAL, 5));
    report("value", control(id, 1, GETVAL, 0));
    println!("by me {}", control(id, 1, GETPID, 0) == sys!(libc::SYS_getpid));
    report("by nobody", control(id, 0, GETPID, 0));
    report("set all", control(id, 0, SETALL, [1_u16, 2, 3].as_ptr() as i64));
    println!("{:?}", all(id, 3));
    report("too large", control(id, 0, SETVAL, 32768));
    report("negative", control(id, 0, SETVAL, -1));
    report("too large among all", control(id, 0, SETALL, [9_u16, 40000, 9].as_ptr() as i64));
    println!("{:?}", all(id, 3));
    report("nowhere", control(id, 0, GETALL, 0));
    report("from nowhere", control(id, 0, SETALL, 0));
    for (name, command) in [("GETVAL", GETVAL), ("SETVAL", SETVAL), ("GETNCNT", GETNCNT)] {
        report(&format!("{name} of none"), control(id, 3, command, 0));
        report(&format!("{name} of -1"), control(id, -1, command, 0));
    }
    report("removed", remove(id));
    report("value", control(id, 1, GETVAL, 0));
}

pub(super) fn errors() {
    report("no such key", get(key(), 1, 0));
    report("none", set(0));
    report("negative", set(-1));
    report("too many", set(32001));
    let id = get(key(), 2, CREAT | 0o600);
    println!("found {}", get(key(), 0, 0) == id && get(key(), 2, CREAT | 0o600) == id);
    report("fewer there", get(key(), 3, 0));
    report("there", get(key(), 2, CREAT | EXCL));
    report("no operations", operate(id, &[]));
    report("too many operations", operate(id, &[(0, 0, 0); 501]));
    report("many operations", operate(id, &[(0, 0, 0); 500]));
    report("no such semaphore", operate(id, &[(2, 1, 0)]));
    report("the last of all", operate(id, &[(0xffff, 1, 0)]));
    report("negative id", operate(-1, &[(0, 1, 0)]));
    report("no such id", operate(0x7fff_ffff, &[(0, 1, 0)]));
    report("from nowhere", sys!(libc::SYS_semtimedop, id, 0, 1, 0));
    report("time from nowhere", sys!(libc::SYS_semtimedop, id, raw(&[(0, 1, 0)]).as_ptr(), 1, 16));
    report("odd time", timed(id, &[(0, 1, 0)], [0, 1_000_000_000]));
    report("negative time", timed(id, &[(0, 1, 0)], [-1, 0]));
    println!("{:?}", all(id, 2));
    report("removed", remove(id));
    report("removed again", remove(id));
    report("operation", operate(id, &[(0, 1, 0)]));
}

pub(super) fn operations() {
    let id = set(3);
    report("up", operate(id, &[(0, 5, 0), (1, 2, 0)]));
    println!("{:?}", all(id, 3));
    report("all or nothing", operate(id, &[(0, -1, 0), (1, -3, DONT_WAIT)]));
    println!("{:?}", all(id, 3));
    report("in turn", operate(id, &[(2, 1, 0), (2, -1, 0), (2, 0, 0), (2, 4, 0)]));
    println!("{:?}", all(id, 3));
    report("not zero", operate(id, &[(2, 0, DONT_WAIT)]));
    report("zero after that", operate(id, &[(2, -4, 0), (2, 0, DONT_WAIT)]));
    report("up to the limit", operate(id, &[(2, 32767, 0)]));
    report("beyond", operate(id, &[(2, 1, 0)]));
    report("beyond in two", operate(id, &[(0, 1, 0), (2, 1, 0)]));
    report("beyond and back", operate(id, &[(2, 1, 0), (2, -1, 0)]));
    println!("{:?}", all(id, 3));
    report("lowest", operate(id, &[(0, -32768, DONT_WAIT)]));
    println!("by me {}", control(id, 1, GETPID, 0) == sys!(libc::SYS_getpid));
    report("removed", remove(id));
}

pub(super) fn waiting() {
    let id = set(2);
    let waiter = |ops: &[Op]| Helper::start(|| show(operate(id, ops)));
    let counts =
        || (0..2).map(|n| (control(id, n, GETNCNT, 0), control(id, n, GETZCNT, 0))).collect::<Vec<_>>();
    println!("{:?}", counts());
    let down = waiter(&[(0, -2, 0)]);
    let pid = down.pid;
    println!("{:?}", counts());
    report("not enough", operate(id, &[(0, 1, 0)]));
    println!("{:?} {:?}", counts(), all(id, 2));
    report("enough", operate(id, &[(0, 1, 0)]));
    println!("{} {:?} {:?}", down.end(), counts(), all(id, 2));
    println!("by the child {}", control(id, 0, GETPID, 0) == pid);
    control(id, 1, SETVAL, 1);
    let zero = waiter(&[(1, 0, 0)]);
    println!("{:?}", counts());
    report("down", operate(id, &[(1, -1, 0)]));
    println!("{} {:?}", zero.end(), counts());
    // Two at once: what blocks is the first that cannot be done.
    let both = waiter(&[(1, -1, 0), (0, -1, 0)]);
    println!("{:?}", counts());
    operate(id, &[(1, 1, 0)]);
    println!("{:?} {:?}", counts(), all(id, 2));
    report("by SETVAL", control(id, 0, SETVAL, 4));
    println!("{} {:?}", both.end(), all(id, 2));
    let last = waiter(&[(1, -7, 0)]);
    report("removed", remove(id));
    println!("{}", last.end());
}

/// Who waits first goes first, unless more is asked for than there is.
pub(super) fn order() {
    let id = set(2);
    let waiter =
        |mark: i16, change: i16| Helper::start(|| show(operate(id, &[(0, change, 0), (1, mark, 0)])));
    let (greedy, first, second) = (waiter(1, -3), waiter(10, -1), waiter(100, -1));
    operate(id, &[(0, 1, 0)]);
    println!("{}: {:?}", first.end(), all(id, 2));
    operate(id, &[(0, 3, 0)]);
    println!("{}: {:?}", greedy.end(), all(id, 2));
    operate(id, &[(0, 1, 0)]);
    println!("{}: {:?}", second.end(), all(id, 2));
    report("removed", remove(id));
}

pub(super) fn timeouts() {
    let id = set(1);
    report("at once", timed(id, &[(0, -1, 0)], [0, 0]));
    report("soon", timed(id, &[(0, -1, 0)], [0, 20_000_000]));
    report("possible", timed(id, &[(0, 1, 0)], [0, 0]));
    report("nobody waits", control(id, 0, GETNCNT, 0));
    let waiter = Helper::start(|| show(timed(id, &[(0, -2, 0)], [60, 0])));
    operate(id, &[(0, 1, 0)]);
    println!("in time: {}", waiter.end());
    report("removed", remove(id));
}

/// A signal ends the wait, whatever its handler says.
pub(super) fn interrupted() {
    let id = set(1);
    for (what, time) in [("no time", 0), ("a minute", [60_i64, 0].as_ptr() as i64)] {
        let waiter = Helper::start(|| {
            sys::handle(libc::SIGUSR1, nothing, libc::SA_RESTART);
            show(sys!(libc::SYS_semtimedop, id, raw(&[(0, -1, 0)]).as_ptr(), 1, time))
        });
        println!("waiting {}", control(id, 0, GETNCNT, 0));
        waiter.kill(libc::SIGUSR1);
        println!("{what}: {} {}", waiter.end(), control(id, 0, GETNCNT, 0));
    }
    report("removed", remove(id));
}

pub(super) fn undo() {
    let id = set(2);
    control(id, 0, SETVAL, 5);
    in_child("up and down", || {
        operate(id, &[(0, -3, UNDO), (1, 7, UNDO)]);
        println!("{:?}", all(id, 2));
        0
    });
    println!("{:?}", all(id, 2));
    in_child("taken by somebody else", || {
        operate(id, &[(1, 4, UNDO)]);
        in_child("who", || {
            report("takes", operate(id, &[(1, -3, 0)]));
            0
        });
        0
    });
    println!("not below zero: {:?}", all(id, 2));
    in_child("set meanwhile", || {
        operate(id, &[(0, -1, UNDO)]);
        control(id, 0, SETVAL, 2);
        0
    });
    println!("forgotten: {:?}", all(id, 2));
    in_child("not inherited", || {
        operate(id, &[(0, -1, UNDO)]);
        in_child("child", || 0);
        println!("{:?}", all(id, 2));
        report("unshared", sys!(libc::SYS_unshare, libc::CLONE_SYSVSEM));
        println!("{:?}", all(id, 2));
        0
    });
    in_child("too much", || {
        report("once", operate(id, &[(1, 32767, UNDO)]));
        report("down", operate(id, &[(1, -32767, 0)]));
        report("twice", operate(id, &[(1, 2, UNDO)]));
        println!("{:?}", all(id, 2));
        0
    });
    println!("{:?}", all(id, 2));
    let holder = Helper::start(|| {
        operate(id, &[(0, -2, UNDO)]);
        show(sys!(libc::SYS_ppoll, 0, 0, 0, 0))
    });
    let waiter = Helper::start(|| show(operate(id, &[(0, -2, 0)])));
    holder.kill(libc::SIGKILL);
    println!("had: {}", waiter.end());
    println!("{} {:?}", holder.end(), all(id, 2));
    in_child("execve keeps it", || {
        control(id, 0, SETVAL, 3);
        operate(id, &[(0, -1, UNDO)]);
        let id = id.to_string();
        -crate::process::execute(crate::process::SELF, &["abi", "--child", "sem-value", &id], &[]) as i32
    });
    println!("{:?}", all(id, 2));
    in_child("removed meanwhile", || {
        operate(id, &[(0, -1, UNDO)]);
        report("removed", remove(id));
        0
    });
}

/// What a program sees that was executed by one that had taken a semaphore.
pub(crate) fn value_elsewhere(id: &str) {
    println!("value {}", control(id.parse().unwrap_or(-1), 0, GETVAL, 0));
}

/// Threads share what is undone: their ends are not the process's.
pub(super) fn undo_threads() {
    let id = set(1);
    control(id, 0, SETVAL, 4);
    in_child("threads", || {
        let thread = std::thread::spawn(move || operate(id, &[(0, -1, UNDO)]));
        println!("{:?} {:?}", thread.join().ok(), all(id, 1));
        let alone = std::thread::spawn(move || {
            report("unshared", sys!(libc::SYS_unshare, libc::CLONE_SYSVSEM));
            operate(id, &[(0, -1, UNDO)])
        });
        println!("{:?}", alone.join().ok());
        // Joined is not quite gone.
        while all(id, 1) != [3] {
            std::thread::yield_now();
        }
        println!("{:?}", all(id, 1));
        0
    });
    println!("{:?}", all(id, 1));
    report("removed", remove(id));
}

pub(super) fn status() {
    let id = get(key(), 7, CREAT | 0o640);
    let (otime, ctime, count) = if cfg!(target_arch = "x86_64") { (6, 8, 10) } else { (6, 7, 8) };
    let words = stat(id);
    println!("{}", perm(&words));
    println!("operated {} changed {} count {}", words[otime] != 0, words[ctime] != 0, words[count]);
    operate(id, &[(0, 0, 0)]);
    println!("operated {}", stat(id)[otime] != 0);
    let mut change = words;
    change[0] = change[0] & 0xffff_ffff | 1000 << 32;
    change[2] = 0o7_1222 << 32;
    report("set", control(id, 0, SET, change.as_mut_ptr() as i64));
    println!("{}", perm(&stat(id)));
    let mut words: Words = [0; 16];
    let place = words.as_mut_ptr() as i64;
    println!("by index {}", control(id & 0x7fff, 0, SEM_STAT, place) == id);
    println!("any {} count {}", control(id & 0x7fff, 0, SEM_STAT_ANY, place) == id, words[count]);
    let text = std::fs::read_to_string("/proc/sysvipc/sem").unwrap_or_default();
    println!("{}", text.lines().next().unwrap_or_default());
    let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some(&id.to_string()));
    let line = line.unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    println!("{} words, length {}: {:?}", words.len(), line.len(), &words[2..8]);
    report("removed", remove(id));
}

pub(super) fn permissions() {
    let id = get(key(), 2, CREAT | 0o604);
    let mut words: Words = [0; 16];
    let place = words.as_mut_ptr() as i64;
    in_child("a stranger", || {
        drop_root();
        report("found", i64::from(get(key(), 0, 0o004) == id));
        report("found to change", get(key(), 0, 0o600));
        report("value", control(id, 0, GETVAL, 0));
        report("set", control(id, 0, SETVAL, 1));
        report("all set", control(id, 0, SETALL, place));
        report("waits for zero", operate(id, &[(0, 0, 0)]));
        report("changes", operate(id, &[(0, 1, 0)]));
        report("status", control(id, 0, STAT, place));
        report("given away", control(id, 0, SET, place));
        report("removed", remove(id));
        0
    });
    in_child("nobody's group", || {
        sys!(libc::SYS_setresuid, 1000, 1000, 1000);
        report("value", control(id, 0, GETVAL, 0));
        report("value of none", control(id, 9, GETVAL, 0));
        report("any", i64::from(control(id & 0x7fff, 0, SEM_STAT_ANY, place) == id));
        report("by index", control(id & 0x7fff, 0, SEM_STAT, place));
        0
    });
    report("removed", remove(id));
}
