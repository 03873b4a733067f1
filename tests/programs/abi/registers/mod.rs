//! Registers: every one survives a system call, a fault, a handler and other programs, with exact values; a new program
//! finds nothing of anybody's in them.

use crate::Case;
use crate::sys::{self, fork, handle, report, wait};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
use aarch64 as cpu;
#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
use x86_64 as cpu;

pub(crate) use cpu::upper_bases;
use cpu::{ABI_IN, ABI_OUT, ABI_PAGE, State};

pub(crate) const CASES: &[Case] = &[
    ("registers_calls", calls),
    ("registers_faults", faults),
    ("registers_handlers", handlers),
    ("registers_preempted", preempted),
    ("registers_bases", cpu::bases),
    ("registers_base_per_thread", base_per_thread),
    ("registers_at_exec", at_exec),
];

// The routines of `abi_routine`: each loads all registers from `ABI_IN`, does what it is named after, and stores them all in
// `ABI_OUT`.
unsafe extern "C" {
    fn abi_syscall();
    fn abi_fault();
    fn abi_break();
    fn abi_spin();
}

/// Gives each general register a value of its own.
fn fill(general: &mut [u64], seed: u64) {
    for (place, register) in general.iter_mut().enumerate() {
        *register = pattern(seed, place as u64);
    }
}

/// A number that tells seed and place, with few zero bits in a row.
fn pattern(seed: u64, place: u64) -> u64 {
    (seed * 1000 + place + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Loads `state`, runs a routine's body, and returns what is in the registers then.
fn run(routine: unsafe extern "C" fn(), state: &State) -> State {
    // SAFETY: single-threaded where it is used; the routines keep what the ABI says and touch the statics only.
    unsafe {
        ABI_IN = *state;
        routine();
        ABI_OUT
    }
}

/// Says which registers differ from `want`, but for those in `except`.
fn compare(what: &str, want: &State, got: &State, flags: u64, except: &[usize]) {
    let mut names: Vec<String> = (0..cpu::NAMES.len())
        .filter(|n| !except.contains(n) && want.general[*n] != got.general[*n])
        .map(|n| format!("{} {:#x} instead of {:#x}", cpu::NAMES[n], got.general[n], want.general[n]))
        .collect();
    if (want.flags ^ got.flags) & flags != 0 {
        names.push(format!("flags {:#x} instead of {:#x}", got.flags, want.flags));
    }
    names.extend(want.fp_differences(got));
    if names.is_empty() {
        println!("{what}: exact");
    } else {
        println!("{what}: {names:?}");
    }
}

fn drop_page() {
    sys!(libc::SYS_madvise, &raw const ABI_PAGE, 4096, libc::MADV_DONTNEED);
}

fn touch_page() {
    sys::poke(&raw const ABI_PAGE as i64, 1);
}

fn call_state(seed: u64, number: i64, arguments: [u64; 3]) -> State {
    let mut state = State::filled(seed);
    state.general[cpu::NUMBER] = number as u64;
    for (place, value) in cpu::ARGUMENTS.into_iter().zip(arguments) {
        state.general[place] = value;
    }
    state
}

fn calls() {
    let text = [7_u8; 4096];
    let (read_end, write_end) = sys::pipe(0);
    let all = [
        (libc::SYS_getppid, [1, 2, 3]),
        (libc::SYS_sched_yield, [4, 5, 6]),
        (9999, [7, 8, 9]),
        // Copies by which a kernel may use vector registers of its own.
        (libc::SYS_write, [write_end as u64, text.as_ptr() as u64, 4096]),
        (libc::SYS_read, [read_end as u64, text.as_ptr() as u64, 4096]),
    ];
    for (number, arguments) in all {
        let mut want = call_state(number as u64, number, arguments);
        let got = run(abi_syscall, &want);
        want.general[cpu::RESULT] = got.general[cpu::RESULT];
        compare("a system call", &want, &got, cpu::FLAGS, cpu::CLOBBERED);
    }
    let mut good = 0;
    for seed in 0..2000 {
        let want = call_state(seed, libc::SYS_getppid, [seed, 0, 0]);
        let got = run(abi_syscall, &want);
        let kept = (0..cpu::NAMES.len())
            .filter(|n| !cpu::CLOBBERED.contains(n) && *n != cpu::RESULT)
            .all(|n| want.general[n] == got.general[n]);
        good += u32::from(kept && want.fp_differences(&got).is_empty());
    }
    println!("{good} of 2000 calls kept everything");
}

fn faults() {
    for seed in 0..3 {
        drop_page();
        let want = State::filled(50 + seed);
        let got = run(abi_fault, &want);
        compare("a page fault", &want, &got, cpu::FLAGS, &[]);
    }
    let mut good = 0;
    for seed in 0..2000 {
        drop_page();
        let want = State::filled(seed);
        let got = run(abi_fault, &want);
        good += u32::from(want.general == got.general && want.fp_differences(&got).is_empty());
    }
    println!("{good} of 2000 faults kept everything");
}

extern "C" fn step_over(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    cpu::step_over(context.cast());
}

/// A stack of their own for handlers.
fn alternate_stack() {
    let size = 256 << 10;
    let stack = [sys::memory(size) as u64, 0, size as u64];
    report("sigaltstack", sys!(libc::SYS_sigaltstack, stack.as_ptr(), 0));
}

fn handlers() {
    alternate_stack();
    handle(libc::SIGTRAP, step_over, libc::SA_ONSTACK);
    for seed in 0..3 {
        let mut want = State::filled(70 + seed);
        let got = run(abi_break, &want);
        want.general
            .iter_mut()
            .enumerate()
            .for_each(|(n, value)| *value = value.wrapping_add(cpu::stepped(n)));
        compare("a handler that changes every register", &want, &got, cpu::FLAGS, &[]);
    }
}

/// Spins for `rounds` with known values in every register: what is expected to be there afterwards, and what is.
fn spin(seed: u64, rounds: u32) -> (State, State) {
    let (start, want) = cpu::spinning(State::filled(seed), rounds);
    (want, run(abi_spin, &start))
}

/// Computes for `time` with known values in every register; counts the times they were wrong.
fn spin_for(seed: u64, time: Duration) -> i32 {
    let start = Instant::now();
    let mut bad = 0;
    while start.elapsed() < time {
        let (want, got) = spin(seed, 2_000_000);
        let right = cpu::has_spun(&got)
            && want.general == got.general
            && (want.flags ^ got.flags) & cpu::FLAGS_OF_SPIN == 0
            && want.fp_differences(&got).is_empty();
        bad += i32::from(!right);
    }
    bad.min(100)
}

fn preempted() {
    // More programs than CPUs: they take turns, wherever they happen to be.
    let time = Duration::from_millis(600);
    let children: Vec<i64> = (0..6).map(|n| fork(|| spin_for(500 + n, time))).collect();
    for child in children {
        println!("{}", wait(child));
    }
    // A timer's signals on top, taken on a stack of their own.
    extern "C" fn few(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        static CAME: AtomicU32 = AtomicU32::new(0);
        // A slow machine would do nothing else.
        if CAME.fetch_add(1, SeqCst) == 500 {
            sys!(libc::SYS_setitimer, libc::ITIMER_REAL, [0_i64; 4].as_ptr(), 0);
        }
    }
    alternate_stack();
    handle(libc::SIGALRM, few, libc::SA_ONSTACK | libc::SA_RESTART);
    let interval = [0_i64, 1000, 0, 1000];
    sys!(libc::SYS_setitimer, libc::ITIMER_REAL, interval.as_ptr(), 0);
    println!("with a timer: {}", spin_for(600, time));
    sys!(libc::SYS_setitimer, libc::ITIMER_REAL, [0_i64; 4].as_ptr(), 0);
}

fn base_per_thread() {
    let threads: Vec<_> = (1..=4_u64)
        .map(|n| {
            std::thread::spawn(move || {
                cpu::set_base(n << 32);
                let own = cpu::kept_base();
                let start = Instant::now();
                let mut good = true;
                while start.elapsed() < Duration::from_millis(300) {
                    for _ in 0..10_000 {
                        std::hint::spin_loop();
                    }
                    sys!(libc::SYS_sched_yield);
                    good &= cpu::kept_base() == own;
                }
                (own, good)
            })
        })
        .collect();
    let mut bases: Vec<(u64, bool)> = threads.into_iter().filter_map(|t| t.join().ok()).collect();
    println!("kept: {}", bases.iter().all(|(_, good)| *good));
    bases.sort_unstable();
    bases.dedup_by_key(|(base, _)| *base);
    println!("bases: {}", bases.len());
}

unsafe extern "C" {
    static abi_entry: u8;
    static abi_entry_end: u8;
}

fn at_exec() {
    sys::scratch("entry");
    // SAFETY: both labels delimit read-only bytes.
    let code = unsafe {
        let start = &raw const abi_entry;
        std::slice::from_raw_parts(start, &raw const abi_entry_end as usize - start as usize)
    };
    crate::code::write_program("entry", code);
    let path = c"entry";
    let argv = [path.as_ptr(), std::ptr::null()];
    // Others leave their marks in the same CPUs meanwhile.
    let others: Vec<i64> = (0..3).map(|n| fork(|| spin_for(800 + n, Duration::from_millis(800)))).collect();
    let mut seen = Vec::new();
    for seed in 0..20 {
        let (read_end, write_end) = sys::pipe(0);
        let child = fork(|| {
            sys!(libc::SYS_dup3, write_end, 1, 0);
            let none = [std::ptr::null::<u8>()];
            let state = call_state(
                seed,
                libc::SYS_execve,
                [path.as_ptr() as u64, argv.as_ptr() as u64, none.as_ptr() as u64],
            );
            run(abi_syscall, &state);
            99
        });
        sys::close(write_end);
        let mut bytes = Vec::new();
        loop {
            let (result, more) = sys::read(read_end, 4096);
            if result <= 0 {
                break;
            }
            bytes.extend(more);
        }
        sys::close(read_end);
        let end = wait(child);
        if !seen.contains(&(end.clone(), bytes.clone())) {
            println!("{end}");
            cpu::judge_entry(&bytes);
            seen.push((end, bytes));
        }
    }
    for other in others {
        println!("{}", wait(other));
    }
    sys::unscratch();
}
