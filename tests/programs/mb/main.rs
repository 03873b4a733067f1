//! The micro-benchmarks: the same binary runs natively and in the sandbox, and checks what it gets.
//!
//! `mb [--hold] [--untimed] [--n N] NAME...` prints one line per operation: name, operations, nanoseconds in all. It
//! warms up first; the clock is `CLOCK_MONOTONIC`, which under instruction counting counts instructions. VM exits per
//! operation are found from outside, by running it with two values of N and comparing the counters (`--untimed` leaves
//! the clock alone meanwhile, as now and then a reading asks the host), or with `--hold`, which waits for a byte before
//! and after the timed part. `mb now` prints the clock.

mod net;
#[expect(unsafe_code, reason = "bare system calls are what is measured")]
mod sys;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Pages that the operation `mmap` maps, touches and unmaps.
const MMAP_PAGES: usize = 64;
/// Pages of the big mapping that the operation `fault` walks through.
const FAULT_PAGES: usize = 16384;

/// One operation: its name, how often it runs by default, and what runs it that often, returning the
/// nanoseconds that took.
struct Operation {
    name: &'static str,
    times: u64,
    run: fn(u64) -> Result<u64, String>,
}

const OPERATIONS: &[Operation] = &[
    Operation { name: "null", times: 100_000, run: null },
    Operation { name: "read", times: 100_000, run: read },
    Operation { name: "pipe", times: 10_000, run: pipe },
    Operation { name: "futex", times: 10_000, run: futex },
    Operation { name: "mmap", times: 2_000, run: mmap },
    Operation { name: "fault", times: 100_000, run: fault },
    Operation { name: "down", times: 100_000, run: down },
    Operation { name: "cow", times: 100_000, run: copy_on_write },
    Operation { name: "fork", times: 1_000, run: fork },
    Operation { name: "exec", times: 100, run: exec },
    Operation { name: "thread", times: 2_000, run: thread },
    Operation { name: "signal", times: 20_000, run: signal },
    Operation { name: "clock", times: 50_000, run: clock },
    Operation { name: "tcp", times: 5_000, run: net::tcp },
    Operation { name: "tcp16k", times: 2_000, run: net::tcp16k },
    Operation { name: "stream", times: 50_000, run: net::stream },
    Operation { name: "connect", times: 2_000, run: net::connect },
    Operation { name: "udp", times: 5_000, run: net::udp },
];

/// Whether operations are timed.
static TIMED: AtomicBool = AtomicBool::new(true);

fn main() -> ExitCode {
    let mut times = None;
    let mut hold = false;
    let mut names = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // What `exec` executes.
            "true" => return ExitCode::from(sys::TRUE_STATUS),
            "now" => {
                println!("{}", sys::now());
                return ExitCode::SUCCESS;
            }
            "--hold" => hold = true,
            "--untimed" => TIMED.store(false, Ordering::Relaxed),
            "--n" => times = arguments.next().and_then(|n| n.parse::<u64>().ok()),
            "--list" => {
                for operation in OPERATIONS {
                    println!("{} {}", operation.name, operation.times);
                }
                return ExitCode::SUCCESS;
            }
            name => names.push(name.to_owned()),
        }
    }
    let mut status = ExitCode::SUCCESS;
    for name in &names {
        if !OPERATIONS.iter().any(|operation| operation.name == name) {
            eprintln!("mb: no operation {name} (--list shows them)");
            status = ExitCode::from(2);
        }
    }
    for operation in OPERATIONS {
        if !names.is_empty() && !names.iter().any(|name| name == operation.name) {
            continue;
        }
        let times = times.unwrap_or(operation.times).max(1);
        let warm_up = (operation.times / 20).max(2);
        let warm = (operation.run)(warm_up);
        if hold {
            println!("ready");
            sys::read(&std::io::stdin(), &mut [0]);
        }
        match warm.and_then(|_| (operation.run)(times)) {
            Ok(ns) => {
                println!("{} {times} {ns}", operation.name);
                if hold {
                    sys::read(&std::io::stdin(), &mut [0]);
                }
            }
            Err(error) => {
                eprintln!("mb: {}: {error}", operation.name);
                status = ExitCode::FAILURE;
            }
        }
    }
    status
}

/// Runs `operation` `times` times and returns the nanoseconds.
fn timed(times: u64, mut operation: impl FnMut() -> Result<(), String>) -> Result<u64, String> {
    let clock = || if TIMED.load(Ordering::Relaxed) { sys::now() } else { 0 };
    let start = clock();
    for _ in 0..times {
        operation()?;
    }
    Ok(clock() - start)
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, got: T, want: T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{what}: got {got:?}, want {want:?}")) }
}

fn null(times: u64) -> Result<u64, String> {
    let own = sys::getpid();
    timed(times, || expect("getpid", sys::getpid(), own))
}

fn read(times: u64) -> Result<u64, String> {
    let zero = std::fs::File::open("/dev/zero").map_err(|e| format!("/dev/zero: {e}"))?;
    timed(times, || {
        let mut byte = [1];
        expect("read", sys::read(&zero, &mut byte), 1)?;
        expect("the byte", byte, [0])
    })
}

/// Two processes pass a byte to and fro; one operation is a round trip.
fn pipe(times: u64) -> Result<u64, String> {
    let (their_input, our_output) = sys::pipe()?;
    let (our_input, their_output) = sys::pipe()?;
    let child = sys::fork(|| {
        for _ in 0..times {
            let mut byte = [0];
            if sys::read(&their_input, &mut byte) != 1 || sys::write(&their_output, &byte) != 1 {
                return 1;
            }
        }
        0
    })?;
    let mut sent = 0u8;
    let ns = timed(times, || {
        sent = sent.wrapping_add(1);
        expect("write", sys::write(&our_output, &[sent]), 1)?;
        let mut byte = [0];
        expect("read", sys::read(&our_input, &mut byte), 1)?;
        expect("the byte", byte, [sent])
    })?;
    expect("the other process", sys::wait(child)?, 0)?;
    Ok(ns)
}

/// Two threads wait for each other; one operation is a round trip.
fn futex(times: u64) -> Result<u64, String> {
    let turns = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let theirs = Arc::clone(&turns);
    let rounds = u32::try_from(times).map_err(|e| e.to_string())?;
    let other = std::thread::spawn(move || {
        for round in 0..rounds {
            sys::futex_wait_until(&theirs[0], round + 1);
            sys::futex_set(&theirs[1], round + 1);
        }
    });
    let mut round = 0;
    let ns = timed(times, || {
        round += 1;
        sys::futex_set(&turns[0], round);
        sys::futex_wait_until(&turns[1], round);
        Ok(())
    })?;
    other.join().map_err(|_| "the other thread panicked")?;
    Ok(ns)
}

fn mmap(times: u64) -> Result<u64, String> {
    timed(times, || {
        let mut memory = sys::Mapping::new(MMAP_PAGES)?;
        for page in 0..MMAP_PAGES {
            expect("a new page's byte", memory.touch(page), 0)?;
        }
        Ok(())
    })
}

/// First touches of the pages of a big mapping; mapping and unmapping it is not timed.
fn fault(times: u64) -> Result<u64, String> {
    walk(times, |memory, pages| touched(memory, 0..pages))
}

/// The same from the last page down.
fn down(times: u64) -> Result<u64, String> {
    walk(times, |memory, pages| touched(memory, (0..pages).rev()))
}

/// First writes to pages that a forked child shares.
fn copy_on_write(times: u64) -> Result<u64, String> {
    walk(times, |memory, pages| {
        touched(memory, 0..pages)?;
        let (theirs, ours) = sys::pipe()?;
        let child = sys::fork(|| sys::read(&theirs, &mut [0]) as i32)?;
        let ns = touched(memory, 0..pages)?;
        expect("the word to go", sys::write(&ours, &[0]), 1)?;
        expect("the child's status", sys::wait(child)?, 1)?;
        Ok(ns)
    })
}

/// Calls `round` with fresh mappings and how many of their pages are its own, as many in all as there are `times`.
fn walk(
    times: u64,
    mut round: impl FnMut(&mut sys::Mapping, usize) -> Result<u64, String>,
) -> Result<u64, String> {
    let mut left = usize::try_from(times).map_err(|e| e.to_string())?;
    let mut ns = 0;
    while left > 0 {
        let pages = left.min(FAULT_PAGES);
        ns += round(&mut sys::Mapping::new(FAULT_PAGES)?, pages)?;
        left -= pages;
    }
    Ok(ns)
}

/// Touches each of these pages; returns the nanoseconds.
fn touched(memory: &mut sys::Mapping, pages: impl ExactSizeIterator<Item = usize>) -> Result<u64, String> {
    let (times, mut pages) = (pages.len() as u64, pages);
    timed(times, || {
        let page = pages.next().unwrap_or_default();
        expect("a new page's byte", memory.touch(page), 0)
    })
}

fn fork(times: u64) -> Result<u64, String> {
    timed(times, || {
        let child = sys::fork(|| 42)?;
        expect("the child's status", sys::wait(child)?, 42)
    })
}

fn exec(times: u64) -> Result<u64, String> {
    let own = std::env::args().next().unwrap_or_default();
    let own = if own.contains('/') { own } else { "/proc/self/exe".to_owned() };
    let program = sys::Program::new(&own)?;
    timed(times, || {
        let child = sys::fork(|| program.exec())?;
        let want = i32::from(sys::TRUE_STATUS);
        expect("the program's status", sys::wait(child)?, want)
    })
}

fn thread(times: u64) -> Result<u64, String> {
    let mut number = 0u64;
    timed(times, || {
        number += 1;
        let n = number;
        let joined = std::thread::spawn(move || n * 2).join();
        let doubled = joined.map_err(|_| "the thread panicked")?;
        expect("the thread's value", doubled, n * 2)
    })
}

fn signal(times: u64) -> Result<u64, String> {
    sys::handle_usr1()?;
    let own = sys::getpid();
    let before = sys::usr1_count();
    let ns = timed(times, || sys::raise_usr1(own))?;
    expect("signals handled", sys::usr1_count() - before, times)?;
    Ok(ns)
}

fn clock(times: u64) -> Result<u64, String> {
    let mut last = sys::now();
    timed(times, || {
        let now = sys::now();
        let forward = now >= last;
        last = now;
        expect("time goes forward", forward, true)
    })
}
