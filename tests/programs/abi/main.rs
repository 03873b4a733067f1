//! One program, many named cases: each makes system calls and prints what came of it.
//!
//! The harness runs every case natively and in a sandbox and compares output and exit status byte for byte, so a case
//! prints nothing that differs from run to run: no pids, addresses or times, only what it concludes from them.
//!
//! `abi --list` prints the names, `abi NAME...` runs cases, `abi --family FAMILY` each of a family in a process of its
//! own; `abi --child WORD...` is what cases execute.

#[macro_use]
#[expect(unsafe_code, reason = "system calls are the subject of this program")]
mod sys;

mod busy;
#[expect(unsafe_code, reason = "read gets pointers to nothing")]
mod calls;
mod cgroups;
mod child;
mod code;
mod controls;
mod coredump;
mod credentials;
mod details;
mod drive;
mod epoll;
mod events;
#[expect(unsafe_code, reason = "faults are provoked with bad pointers and instructions")]
#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "each block provokes, in a child of its own, the exception that its case is named after"
)]
mod exceptions;
mod filelocks;
mod files;
#[expect(unsafe_code, reason = "floating-point state is loaded by assembly and found in frames")]
mod frames;
mod garbage;
#[expect(unsafe_code, reason = "signal frames are filled with nonsense")]
mod hostile;
mod inet;
mod inotify;
mod jobs;
mod limits;
#[expect(unsafe_code, reason = "the C library's mutexes are under test")]
mod locks;
mod memory;
mod misc;
mod mounts;
mod mqueue;
mod names;
mod namespaces;
mod netlink;
mod options;
mod peek;
mod pipes;
mod proc;
mod process;
#[expect(unsafe_code, reason = "a register is kept over a call by assembly")]
mod ptrace;
#[expect(unsafe_code, reason = "a word of a mapping is an integer that others change")]
mod races;
#[expect(unsafe_code, reason = "critical sections are assembly")]
mod recent;
#[expect(unsafe_code, reason = "every register is loaded and stored by assembly")]
mod registers;
mod seccomp;
mod setid;
mod sigio;
mod signals;
mod sockets;
mod splice;
mod sysvipc;
mod terminals;
mod threads;
mod time;
mod timers;
mod users;
#[expect(unsafe_code, reason = "functions are called whose addresses the vDSO says")]
mod vdso;
mod windows;

/// A named case.
type Case = (&'static str, fn());

const FAMILIES: &[(&str, &[Case])] = &[
    ("process", process::CASES),
    ("signals", signals::CASES),
    ("jobs", jobs::CASES),
    ("terminals", terminals::CASES),
    ("exceptions", exceptions::CASES),
    ("instructions", exceptions::MORE),
    ("registers", registers::CASES),
    ("frames", frames::CASES),
    ("code", code::CASES),
    ("calls", calls::CASES),
    ("hostile", hostile::CASES),
    ("windows", windows::CASES),
    ("machine", windows::MACHINE_CASES),
    ("memory", memory::CASES),
    ("files", files::CASES),
    ("busy", busy::CASES),
    ("filelocks", filelocks::CASES),
    ("details", details::CASES),
    ("names", names::CASES),
    ("races", races::CASES),
    ("pipes", pipes::CASES),
    ("events", events::CASES),
    ("epoll", epoll::CASES),
    ("sigio", sigio::CASES),
    ("splice", splice::CASES),
    ("inet", inet::CASES),
    ("netlink", netlink::CASES),
    ("inotify", inotify::CASES),
    ("sockets", sockets::CASES),
    ("sysvipc", sysvipc::CASES),
    ("mqueue", mqueue::CASES),
    ("threads", threads::CASES),
    ("locks", locks::CASES),
    ("time", time::CASES),
    ("vdso", vdso::CASES),
    ("limits", limits::CASES),
    ("credentials", credentials::CASES),
    ("setid", setid::CASES),
    ("peek", peek::CASES),
    ("ptrace", ptrace::CASES),
    ("coredump", coredump::CASES),
    ("seccomp", seccomp::CASES),
    ("proc", proc::CASES),
    ("misc", misc::CASES),
    ("controls", controls::CASES),
    ("options", options::CASES),
    ("recent", recent::CASES),
    ("timers", timers::CASES),
    ("mounts", mounts::CASES),
    ("namespaces", namespaces::CASES),
    ("users", users::CASES),
    ("cgroups", cgroups::CASES),
];

/// Every family is one that the suite runs, and the other way round; `machine` runs where it has a machine.
const _: () = {
    let listed = tests::cases::FAMILIES;
    assert!(FAMILIES.len() == listed.len() + 1, "a family is missing here or in tests/src/cases/abi.rs");
    let mut at = 0;
    let mut known = 0;
    while at < FAMILIES.len() {
        if !same(FAMILIES[at].0, "machine") {
            assert!(
                same(FAMILIES[at].0, listed[known]),
                "families here and in tests/src/cases/abi.rs differ"
            );
            known += 1;
        }
        at += 1;
    }
};

/// Whether two words are the same, at compile time.
const fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Seconds after which a case that hangs is killed.
const PATIENCE: u32 = 200;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    let cases = || FAMILIES.iter().flat_map(|(_, cases)| cases.iter());
    match words.as_slice() {
        ["--list"] => cases().for_each(|(name, _)| println!("{name}")),
        ["--families"] => FAMILIES.iter().for_each(|(name, _)| println!("{name}")),
        ["--family", family] => match FAMILIES.iter().find(|(name, _)| name == family) {
            Some((_, cases)) => cases.iter().for_each(|(name, _)| separately(name)),
            None => unknown(family),
        },
        ["--child", rest @ ..] => child::run(rest),
        // As the interpreter of a script, which is the other word: scripts give one word of their own.
        ["--interpreter", _] => child::run(&["interpreter"]),
        names => {
            for name in names {
                match cases().find(|(n, _)| n == name) {
                    Some((_, run)) => run(),
                    None => unknown(name),
                }
            }
        }
    }
}

/// Runs a case in a program of its own: whatever becomes of it, the next one runs.
fn separately(name: &str) {
    println!("== {name}");
    let pid = sys::fork(|| {
        sys!(libc::SYS_setitimer, libc::ITIMER_REAL, [0_i64, 0, i64::from(PATIENCE), 0].as_ptr(), 0);
        -process::execute(process::SELF, &["abi", name], &[]) as i32
    });
    match sys::wait(pid).as_str() {
        "exited 0" => {}
        end => println!("== {end}"),
    }
}

fn unknown(name: &str) {
    eprintln!("abi: there is no {name}");
    std::process::exit(2);
}
