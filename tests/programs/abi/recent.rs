//! Calls of the last years, and some of the first: rseq, futex_waitv and its siblings, sealing, advice to others.
//!
//! Some are younger than the kernel that this may run on natively: where it says ENOSYS, they are as they should be.

use crate::Case;
use crate::process;
use crate::sys::{self, in_child, report, report_ok};
use core::arch::asm;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

pub(crate) const CASES: &[Case] = &[
    ("recent_rseq", rseq),
    ("recent_futex_waitv", waitv),
    ("recent_futex2", futex2),
    ("recent_mseal", mseal),
    ("recent_cachestat", cachestat),
    ("recent_process_madvise", process_madvise),
    ("recent_process_mrelease", process_mrelease),
    ("recent_log", log),
    ("recent_clock", clock),
    ("recent_refused", refused),
];

const PRIVATE_WORD: u32 = 2 | 128;

/// The first two numbers of the kernel's release.
fn release() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|part| part.trim().parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether the kernel is older than Linux 6.`minor`.
pub(crate) fn older_than(minor: u32) -> bool {
    release() < (6, minor)
}

/// Reports a call that came after Linux 6.1.
pub(crate) fn newer(what: &str, result: i64, expected: i64) {
    since(12, what, result, expected);
}

/// Reports a call that came with Linux 6.`minor`.
pub(crate) fn since(minor: u32, what: &str, result: i64, expected: i64) {
    let unknown = older_than(minor) && result == -i64::from(libc::ENOSYS);
    let said = if unknown || result == expected { "as it should be".to_owned() } else { sys::show(result) };
    println!("{what}: {said}");
}

/// Reports a call that kernels are also built without; then the refusals are as good.
fn absent(what: &str, result: i64) {
    let refused = [libc::EPERM, libc::ENOSYS, libc::EINVAL].iter().any(|errno| result == -i64::from(*errno));
    println!("{what}: {}", if refused { "refused".to_owned() } else { sys::show(result) });
}

fn rseq() {
    // The C library registers an area at the start of a program, unless it is told not to.
    in_child("a program without one", || {
        let tunables = ["GLIBC_TUNABLES=glibc.pthread.rseq=0"];
        -process::execute(process::SELF, &["abi", "--child", "rseq"], &tunables) as i32
    });
}

/// `struct rseq` and `struct rseq_cs`.
#[repr(C, align(32))]
struct Area([u64; 4]);

#[cfg(target_arch = "x86_64")]
const SIGNATURE: u32 = 0x5305_3053;
#[cfg(target_arch = "aarch64")]
const SIGNATURE: u32 = 0xd428_bc00;

/// Goes round in a critical section until it is thrown out of it.
fn go_round(area: &mut Area) {
    let mut section = Area([0; 4]);
    // SAFETY: the section has one instruction that jumps to itself; what follows is its abort address.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "lea {t}, [rip + 2f]", "mov [{d} + 8], {t}", "lea {u}, [rip + 3f]", "sub {u}, {t}",
            "mov [{d} + 16], {u}", "lea {t}, [rip + 4f]", "mov [{d} + 24], {t}", "mov [{r} + 8], {d}",
            "2:", "pause", "jmp 2b", "3:", ".long 0x53053053", "4:",
            t = out(reg) _, u = out(reg) _, d = in(reg) &raw mut section, r = in(reg) &raw mut *area,
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "adr {t}, 2f", "str {t}, [{d}, #8]", "adr {u}, 3f", "sub {u}, {u}, {t}", "str {u}, [{d}, #16]",
            "adr {t}, 4f", "str {t}, [{d}, #24]", "str {d}, [{r}, #8]",
            "2:", "yield", "b 2b", "3:", ".inst 0xd428bc00", "4:",
            t = out(reg) _, u = out(reg) _, d = in(reg) &raw mut section, r = in(reg) &raw mut *area,
        );
    }
    std::hint::black_box(&section);
}

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn handler(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    HANDLED.fetch_add(1, SeqCst);
}

/// What `--child rseq` does: nothing is registered there.
pub(crate) fn rseq_child() {
    let mut area = Area([0, 0, 0, 0]);
    let at = &raw mut area as i64;
    let register = |at: i64, len: u32, flags: i32, sig: u32| sys!(libc::SYS_rseq, at, len, flags, sig);
    report("bad flags", register(at, 32, 4, SIGNATURE));
    report("too short", register(at, 16, 0, SIGNATURE));
    report("misaligned", register(at + 8, 32, 0, SIGNATURE));
    report("not registered", register(at, 32, 1, SIGNATURE));
    report("register", register(at, 32, 0, SIGNATURE));
    report("again", register(at, 32, 0, SIGNATURE));
    report("another place", register(at + 64, 32, 0, SIGNATURE));
    report("another signature", register(at, 32, 0, 1));
    sys!(libc::SYS_sched_yield);
    let ids: [u32; 2] = sys::load(at);
    println!("a CPU {} twice the same {}", ids[0] < 4096, ids[0] == ids[1]);
    sys::handle(libc::SIGALRM, handler, 0);
    sys!(libc::SYS_setitimer, libc::ITIMER_REAL, [0_i64, 0, 0, 20_000].as_ptr(), 0);
    // It may be preempted first.
    while HANDLED.load(SeqCst) == 0 {
        go_round(&mut area);
    }
    println!("a signal: handled {}, section {:#x}", HANDLED.load(SeqCst), area.0[1]);
    // More that run than there are CPUs, or almost: it is preempted.
    let busy: Vec<i64> = (0..8)
        .map(|_| {
            sys::fork(|| {
                loop {
                    std::hint::spin_loop()
                }
            })
        })
        .collect();
    go_round(&mut area);
    println!("preemption: section {:#x}", area.0[1]);
    in_child("a child is registered", || {
        report("again", register(at, 32, 0, SIGNATURE));
        0
    });
    std::thread::scope(|scope| {
        scope.spawn(|| report("a thread is not", register(at, 32, 1, SIGNATURE)));
    });
    for pid in busy {
        sys!(libc::SYS_kill, pid, libc::SIGKILL);
        sys::wait(pid);
    }
    in_child("a bad section", || {
        area.0[1] = 8;
        sys!(libc::SYS_kill, sys!(libc::SYS_getpid), libc::SIGALRM);
        0
    });
    report("unregister with another signature", register(at, 32, 1, 1));
    report("unregister", register(at, 32, 1, SIGNATURE));
    println!("no CPU {:#x}", sys::load::<u64>(at));
    report("unregister again", register(at, 32, 1, SIGNATURE));
}

/// `struct futex_waitv`s for words and values.
fn vector(words: &[(&AtomicU32, u64)], flags: u32) -> Vec<[u64; 3]> {
    words.iter().map(|(word, value)| [*value, word.as_ptr() as u64, u64::from(flags)]).collect()
}

fn waitv() {
    let words = [const { AtomicU32::new(1) }; 3];
    let waiters = |value: u64| vector(&[(&words[0], 1), (&words[1], value), (&words[2], 1)], PRIVATE_WORD);
    let call = |list: &[[u64; 3]], count: usize, flags: i32, time: i64, clock: i32| {
        sys!(libc::SYS_futex_waitv, list.as_ptr(), count, flags, time, clock)
    };
    report("a word is not", call(&waiters(2), 3, 0, 0, 0));
    report("flags", call(&waiters(1), 3, 1, 0, 0));
    report("none", call(&waiters(1), 0, 0, 0, 0));
    report("too many", call(&waiters(1), 129, 0, 0, 0));
    report("nowhere", sys!(libc::SYS_futex_waitv, 8, 1, 0, 0, 0));
    report("bad size", call(&vector(&[(&words[0], 1)], 1), 1, 0, 0, 0));
    report("bad flag", call(&vector(&[(&words[0], 1)], 2 | 64), 1, 0, 0, 0));
    let time = [0_i64, 1];
    report("long ago", call(&waiters(1), 3, 0, time.as_ptr() as i64, libc::CLOCK_MONOTONIC));
    report("bad clock", call(&waiters(1), 3, 0, time.as_ptr() as i64, 5));
    let bad = [0_i64, 2_000_000_000];
    report("bad time", call(&waiters(1), 3, 0, bad.as_ptr() as i64, libc::CLOCK_REALTIME));
    for index in [2_usize, 0] {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _sent = tell.send(sys!(libc::SYS_gettid));
                report("woken", call(&waiters(1), 3, 0, 0, 0));
            });
            sys::until_asleep(sys!(libc::SYS_getpid), told.recv().unwrap_or(0));
            report("wake", sys!(libc::SYS_futex, words[index].as_ptr(), 1 | 128, 1));
        });
    }
    report("nobody is left", sys!(libc::SYS_futex, words[1].as_ptr(), 1 | 128, 1));
}

fn futex2() {
    const WAKE: i64 = 454;
    const WAIT: i64 = 455;
    const REQUEUE: i64 = 456;
    let (first, second) = (AtomicU32::new(7), AtomicU32::new(7));
    let (at, einval) = (first.as_ptr(), -i64::from(libc::EINVAL));
    newer("wake nobody", sys!(WAKE, at, u32::MAX, 1, PRIVATE_WORD), 0);
    newer("no bits", sys!(WAKE, at, 0, 1, PRIVATE_WORD), einval);
    newer("bad size", sys!(WAKE, at, u32::MAX, 1, 0), einval);
    newer("wide mask", sys!(WAKE, at, u64::MAX, 1, PRIVATE_WORD), einval);
    newer("not that value", sys!(WAIT, at, 8, u32::MAX, PRIVATE_WORD, 0, 1), -i64::from(libc::EAGAIN));
    newer("wide value", sys!(WAIT, at, 1_u64 << 32, u32::MAX, PRIVATE_WORD, 0, 1), einval);
    let time = [0_i64, 1];
    let late = sys!(WAIT, at, 7, u32::MAX, PRIVATE_WORD, time.as_ptr(), 1);
    newer("long ago", late, -i64::from(libc::ETIMEDOUT));
    let pair = |value| vector(&[(&first, value), (&second, 0)], PRIVATE_WORD);
    newer("requeue", sys!(REQUEUE, pair(7).as_ptr(), 0, 1, 1), 0);
    newer("requeue another", sys!(REQUEUE, pair(6).as_ptr(), 0, 1, 1), -i64::from(libc::EAGAIN));
    newer("negative", sys!(REQUEUE, pair(7).as_ptr(), 0, -1, 1), einval);
    newer("nothing", sys!(REQUEUE, 0, 0, 1, 1), einval);
}

fn mseal() {
    const MSEAL: i64 = 462;
    const PAGE: i64 = 4096;
    let at = sys::memory(8 * PAGE as usize);
    let (eperm, read) = (-i64::from(libc::EPERM), libc::PROT_READ);
    newer("flags", sys!(MSEAL, at, PAGE, 1), -i64::from(libc::EINVAL));
    newer("misaligned", sys!(MSEAL, at + 1, PAGE, 0), -i64::from(libc::EINVAL));
    newer("nothing", sys!(MSEAL, at, 0, 0), 0);
    let known = sys!(MSEAL, at, 2 * PAGE, 0);
    newer("seal", known, 0);
    if known != 0 {
        // Nothing is sealed: what follows would succeed.
        for _ in 0..8 {
            newer("sealed", eperm, eperm);
        }
        return;
    }
    sys::poke(at, 1);
    newer("sealed", sys!(libc::SYS_munmap, at, PAGE), eperm);
    newer("sealed", sys!(libc::SYS_mprotect, at + PAGE, 2 * PAGE, read), eperm);
    newer("sealed", sys!(libc::SYS_mremap, at, PAGE, 2 * PAGE, 1), eperm);
    let fixed = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    newer("sealed", sys::mmap(at, PAGE as usize, read, fixed, -1, 0), eperm);
    newer("sealed", sys!(libc::SYS_mremap, at + 4 * PAGE, PAGE, PAGE, 3, at), eperm);
    let only_read = at + 6 * PAGE;
    sys!(libc::SYS_mprotect, only_read, PAGE, read);
    sys!(MSEAL, only_read, PAGE, 0);
    newer("sealed", sys!(libc::SYS_madvise, only_read, PAGE, libc::MADV_DONTNEED), eperm);
    // What can be written anyway may be forgotten.
    newer("sealed", eperm + sys!(libc::SYS_madvise, at, PAGE, libc::MADV_DONTNEED), eperm);
    newer("sealed", eperm + i64::from(sys::peek(at)), eperm);
}

fn cachestat() {
    const CACHESTAT: i64 = 451;
    sys::scratch("cachestat");
    let fd = sys::open("file", libc::O_RDWR | libc::O_CREAT, 0o600);
    sys::write(fd, &[1; 10_000]);
    let (range, mut pages) = ([0_u64, 0], [9_u64; 5]);
    let asked = sys!(CACHESTAT, fd, range.as_ptr(), pages.as_mut_ptr(), 0);
    newer("cachestat", asked, 0);
    println!("{}", asked != 0 || pages[0] == 3);
    let part = [4096_u64, 1];
    let asked = sys!(CACHESTAT, fd, part.as_ptr(), pages.as_mut_ptr(), 0);
    println!("{}", asked != 0 || pages[0] == 1);
    newer("flags", sys!(CACHESTAT, fd, range.as_ptr(), pages.as_mut_ptr(), 1), -i64::from(libc::EINVAL));
    newer("no file", sys!(CACHESTAT, 99, range.as_ptr(), pages.as_mut_ptr(), 0), -i64::from(libc::EBADF));
    newer("nowhere", sys!(CACHESTAT, fd, 8, pages.as_mut_ptr(), 0), -i64::from(libc::EFAULT));
    sys::unscratch();
}

fn process_madvise() {
    let at = sys::memory(8192);
    let (read_end, write_end) = sys::pipe(0);
    let pid = sys::fork(|| {
        sys::close(write_end);
        sys::read(read_end, 1);
        0
    });
    let fd = sys!(libc::SYS_pidfd_open, pid, 0);
    let ranges = [at as u64, 4096, at as u64 + 4096, 4096];
    let call = |fd: i64, advice: i32, count: usize, flags: i32| {
        sys!(libc::SYS_process_madvise, fd, ranges.as_ptr(), count, advice, flags)
    };
    report("cold", call(fd, libc::MADV_COLD, 2, 0));
    report("needed", call(fd, libc::MADV_WILLNEED, 1, 0));
    report("flags", call(fd, libc::MADV_COLD, 2, 1));
    report("no process", call(0, libc::MADV_COLD, 2, 0));
    report("not to others", call(fd, libc::MADV_DONTNEED, 2, 0));
    report("many", call(fd, libc::MADV_COLD, 5000, 0));
    in_child("without the capability", || {
        sys!(libc::SYS_setresuid, 65534, 65534, 65534);
        report("cold", call(fd, libc::MADV_COLD, 2, 0));
        0
    });
    sys::close(write_end);
    println!("{}", sys::wait(pid));
    report("gone", call(fd, libc::MADV_COLD, 2, 0));
}

fn process_mrelease() {
    let (read_end, write_end) = sys::pipe(0);
    let pid = sys::fork(|| {
        sys::close(write_end);
        sys::read(read_end, 1);
        0
    });
    let fd = sys!(libc::SYS_pidfd_open, pid, 0);
    report("alive", sys!(libc::SYS_process_mrelease, fd, 0));
    report("flags", sys!(libc::SYS_process_mrelease, fd, 1));
    report("no process", sys!(libc::SYS_process_mrelease, 0, 0));
    sys::close(write_end);
    println!("{}", sys::wait(pid));
    report("gone", sys!(libc::SYS_process_mrelease, fd, 0));
}

fn log() {
    let mut text = [0_u8; 65536];
    let call = |action: i32, at: i64, len: i32| sys!(libc::SYS_syslog, action, at, len);
    report_ok("size", call(10, 0, 0));
    report_ok("all", call(3, text.as_mut_ptr() as i64, text.len() as i32));
    println!("levels {}", text[0] == b'<' && text[1].is_ascii_digit());
    report("nowhere", call(3, 0, 10));
    report("negative", call(3, text.as_mut_ptr() as i64, -1));
    report("unknown", call(11, 0, 0));
    report("bad level", call(8, 0, 9));
    in_child("without the capability", || {
        sys!(libc::SYS_setresuid, 65534, 65534, 65534);
        for action in [2, 4, 5, 6, 9] {
            report("refused", call(action, text.as_mut_ptr() as i64, 10));
        }
        0
    });
}

fn clock() {
    let mut words = [0_u64; 26];
    report_ok("read", sys!(libc::SYS_adjtimex, words.as_mut_ptr()));
    println!("a tick {} a time {}", words[11], words[9] > 1_600_000_000);
    report_ok("read", sys!(libc::SYS_clock_adjtime, libc::CLOCK_REALTIME, words.as_mut_ptr()));
    report("monotonic", sys!(libc::SYS_clock_adjtime, libc::CLOCK_MONOTONIC, words.as_mut_ptr()));
    report("no clock", sys!(libc::SYS_clock_adjtime, 99, words.as_mut_ptr()));
    report("nowhere", sys!(libc::SYS_adjtimex, 8));
    in_child("set", || {
        sys!(libc::SYS_setresuid, 65534, 65534, 65534);
        words[0] = 2;
        report("without the capability", sys!(libc::SYS_adjtimex, words.as_mut_ptr()));
        words[0] = 0x8000;
        report("not at once", sys!(libc::SYS_adjtimex, words.as_mut_ptr()));
        0
    });
}

fn refused() {
    in_child("a user", || {
        sys!(libc::SYS_setresuid, 65534, 65534, 65534);
        let nothing = sys::c("");
        report("acct", sys!(libc::SYS_acct, 0));
        report("swapon", sys!(libc::SYS_swapon, nothing.as_ptr(), 0));
        report("swapoff", sys!(libc::SYS_swapoff, nothing.as_ptr()));
        report("reboot", sys!(libc::SYS_reboot, 0, 0, 0, 0));
        absent("init_module", sys!(libc::SYS_init_module, 0, 0, nothing.as_ptr()));
        absent("finit_module", sys!(libc::SYS_finit_module, 0, nothing.as_ptr(), 0));
        absent("delete_module", sys!(libc::SYS_delete_module, nothing.as_ptr(), 0));
        absent("kexec_load", sys!(libc::SYS_kexec_load, 0, 0, 0, 0));
        #[cfg(target_arch = "x86_64")]
        {
            absent("iopl", sys!(libc::SYS_iopl, 3));
            absent("iopl", sys!(libc::SYS_iopl, 4));
            absent("ioperm", sys!(libc::SYS_ioperm, 0, 8, 1));
            absent("ioperm", sys!(libc::SYS_ioperm, 65536, 8, 1));
            report("sysfs", sys!(libc::SYS_sysfs, 1, sys::c("no-such-file-system").as_ptr()));
            report_ok("sysfs", sys!(libc::SYS_sysfs, 1, sys::c("proc").as_ptr()));
            report("sysfs", sys!(libc::SYS_sysfs, 9));
            report("ustat", sys!(libc::SYS_ustat, 0xfff, [0_u64; 4].as_mut_ptr()));
        }
        0
    });
}
