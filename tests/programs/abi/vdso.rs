//! The vDSO (vdso(7)): a library that nobody loaded, with clocks that are those of the system calls.

use crate::Case;
use crate::sys::{self, in_child, report};
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSymbol};
use std::sync::atomic::{AtomicI64, Ordering};

pub(crate) const CASES: &[Case] = &[
    ("vdso_areas", areas),
    ("vdso_symbols", symbols),
    ("vdso_clocks", clocks),
    ("vdso_never_backwards", never_backwards),
    ("vdso_threads", threads),
    ("vdso_processes", processes),
    ("vdso_time_of_day", time_of_day),
    ("vdso_protection", protection),
    ("vdso_patched", patched),
    ("vdso_unmapped", unmapped),
];

#[cfg(target_arch = "x86_64")]
const NAMES: &[&str] =
    &["__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time", "clock_gettime", "time"];
#[cfg(target_arch = "aarch64")]
const NAMES: &[&str] = &["__kernel_clock_gettime", "__kernel_gettimeofday", "__kernel_rt_sigreturn"];
#[cfg(target_arch = "x86_64")]
const VERSION: &[u8] = b"LINUX_2.6";
#[cfg(target_arch = "aarch64")]
const VERSION: &[u8] = b"LINUX_2.6.39";

/// Start, end and protection of the area with that name.
fn area(name: &str) -> Option<(i64, i64, String)> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("what is mapped");
    let line = maps.lines().find(|line| line.ends_with(name))?;
    let (start, rest) = line.split_once('-')?;
    let (end, rest) = rest.split_once(' ')?;
    let number = |text| i64::from_str_radix(text, 16).ok();
    Some((number(start)?, number(end)?, rest.split(' ').next()?.to_owned()))
}

fn image() -> (i64, &'static [u8]) {
    let (start, end, _) = area("[vdso]").expect("a vDSO");
    // SAFETY: mapped, readable, and left alone while the slice is used.
    (start, unsafe { std::slice::from_raw_parts(start as *const u8, (end - start) as usize) })
}

/// The address of a function, as a dynamic linker finds it.
fn function(name: &str) -> Option<i64> {
    let (base, bytes) = image();
    let file = ElfFile64::<LittleEndian>::parse(bytes).ok()?;
    let symbol = file.dynamic_symbols().find(|symbol| symbol.name() == Ok(name))?;
    symbol.is_definition().then(|| base + symbol.address() as i64)
}

/// The functions behind [`NAMES`], called as C calls them.
fn call(index: usize, first: i64, second: i64) -> i64 {
    let address = function(NAMES[index]).expect("a function");
    // SAFETY: functions of up to two words that return one; what they write to is the caller's business.
    let function: extern "C" fn(i64, i64) -> i64 = unsafe { std::mem::transmute(address) };
    function(first, second)
}

/// A clock of the vDSO's.
pub(crate) type Clock = extern "C" fn(i64, *mut [i64; 2]) -> i32;

/// Its first.
pub(crate) fn clock() -> Clock {
    // SAFETY: that is its type.
    unsafe { std::mem::transmute(function(NAMES[0]).expect("a clock")) }
}

/// By a system call.
pub(crate) fn asked(id: i64) -> (i64, [i64; 2]) {
    let mut time = [0; 2];
    (sys!(libc::SYS_clock_gettime, id, time.as_mut_ptr()), time)
}

/// By the function.
pub(crate) fn read(clock: Clock, id: i64) -> (i64, [i64; 2]) {
    let mut time = [0; 2];
    (clock(id, &raw mut time).into(), time)
}

fn areas() {
    let (start, _, prot) = area("[vdso]").expect("a vDSO");
    println!("[vdso] {prot}");
    println!("[vvar] {}", area("[vvar]").map_or("none".to_owned(), |(_, _, prot)| prot));
    // SAFETY: always allowed.
    let known = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    println!("known to programs {}", known as i64 == start);
    in_child("child", || i32::from(area("[vdso]").map(|area| area.0) != Some(start)));
}

fn symbols() {
    for name in NAMES {
        println!("{name} {}", function(name).is_some());
    }
    println!("getenv {}", function("getenv").is_some());
    let (_, bytes) = image();
    println!("version {}", bytes.windows(VERSION.len()).any(|bytes| bytes == VERSION));
}

fn clocks() {
    let clock = clock();
    for id in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 31, 32, 99, -1, i64::from(i32::MIN)] {
        let (before, function, after) = (asked(id), read(clock, id), asked(id));
        let right = if before.0 == 0 { before.1 <= function.1 && function.1 <= after.1 } else { true };
        let fraction = (0..1_000_000_000).contains(&function.1[1]);
        println!("{id}: {} the same {right} fraction {fraction}", function.0 == before.0);
    }
}

/// Readings by either way are in order.
fn never_backwards() {
    let clock = clock();
    for id in [1, 4, 7] {
        let mut last = [0; 2];
        let mut backwards = 0;
        for round in 0..9_000 {
            let (_, now) = if round % 3 == 0 { asked(id) } else { read(clock, id) };
            backwards += i32::from(now < last);
            last = now;
        }
        println!("{id}: backwards {backwards}");
    }
    // For so long that the kernel brings the numbers up to date several times.
    let (mut last, mut backwards) = (read(clock, 1).1, 0);
    let end = [last[0] + 2, last[1]];
    while last < end {
        let (_, now) = read(clock, 1);
        backwards += i32::from(now < last);
        last = now;
    }
    println!("for two seconds: backwards {backwards}");
}

fn nanoseconds(time: [i64; 2]) -> i64 {
    time[0] * 1_000_000_000 + time[1]
}

/// What one thread has read is not before what another one reads afterwards.
fn threads() {
    static LATEST: AtomicI64 = AtomicI64::new(0);
    let clock = clock();
    let reader = move |by_call: bool| {
        let mut backwards = 0;
        for _ in 0..6_000 {
            let latest = LATEST.load(Ordering::SeqCst);
            let (_, now) = if by_call { asked(1) } else { read(clock, 1) };
            backwards += i32::from(nanoseconds(now) < latest);
            LATEST.fetch_max(nanoseconds(now), Ordering::SeqCst);
        }
        backwards
    };
    let others = [false, true].map(|by_call| std::thread::spawn(move || reader(by_call)));
    println!("backwards {}", reader(false));
    for other in others {
        println!("backwards {}", other.join().expect("a thread"));
    }
}

/// The same across fork and execve.
fn processes() {
    let clock = clock();
    let before = read(clock, 1).1;
    in_child("forked", move || i32::from(read(clock, 1).1 < before));
    let earliest = nanoseconds(before).to_string();
    in_child("executed", || {
        -crate::process::execute(crate::process::SELF, &["abi", "--child", "not-before", &earliest], &[])
            as i32
    });
}

/// `abi --child not-before NS`.
pub(crate) fn not_before(earliest: &str) -> i32 {
    let (_, now) = read(clock(), 1);
    i32::from(earliest.parse().is_ok_and(|earliest: i64| nanoseconds(now) < earliest))
}

fn time_of_day() {
    let mut time = [-1_i64; 2];
    let mut zone = [-1_i32; 2];
    let before = asked(0).1;
    println!("gettimeofday {}", call(1, time.as_mut_ptr() as i64, zone.as_mut_ptr() as i64));
    let after = asked(0).1;
    let micros = |time: [i64; 2]| [time[0], time[1] / 1000];
    println!("right {}", micros(before) <= time && time <= micros(after));
    println!("zone {zone:?}");
    println!("nothing {}", call(1, 0, 0));
    #[cfg(target_arch = "x86_64")]
    {
        let mut seconds = -1_i64;
        let returned = call(2, &raw mut seconds as i64, 0);
        println!("stored {}", returned == seconds);
        let elsewhere = call(2, 0, 0);
        println!("now {}", (before[0]..=asked(0).1[0] + 1).contains(&elsewhere) && returned <= elsewhere);
    }
}

/// Nobody writes to it.
fn protection() {
    let (data, ..) = area("[vvar]").expect("its data");
    let (start, end, _) = area("[vdso]").expect("a vDSO");
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    report("mprotect data", sys!(libc::SYS_mprotect, data, 4096, rights));
    in_child("write data", || {
        sys::poke(data, 1);
        0
    });
    in_child("write image", || {
        sys::poke(start, 1);
        0
    });
    in_child("write after mprotect", || {
        report("mprotect image", sys!(libc::SYS_mprotect, start, end - start, rights));
        (start..end).for_each(|address| sys::poke(address, 0));
        i32::from(sys::peek(start))
    });
    println!("still there {}", image().1.starts_with(b"\x7fELF"));
    println!("clock {}", read(clock(), 1).0);
}

/// What a debugger or tracer writes into its own copy stays there.
fn patched() {
    let (start, end, _) = area("[vdso]").expect("a vDSO");
    let address = function(NAMES[0]).expect("a clock");
    let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    in_child("patched", || {
        report("mprotect", sys!(libc::SYS_mprotect, start, end - start, all));
        #[cfg(target_arch = "x86_64")]
        // mov eax, 77; ret
        let code = [0xb8, 77, 0, 0, 0, 0xc3];
        #[cfg(target_arch = "aarch64")]
        // mov w0, #77; ret
        let code = [0xa0, 0x09, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6];
        code.iter().zip(address..).for_each(|(byte, address)| sys::poke(address, *byte));
        sys::synchronize(address);
        read(clock(), 1).0 as i32
    });
    println!("here {}", read(clock(), 1).0);
}

/// Without it the system calls are left.
fn unmapped() {
    in_child("unmapped", || {
        let (start, end, _) = area("[vdso]").expect("a vDSO");
        let (data, ..) = area("[vvar]").expect("its data");
        report("munmap", sys!(libc::SYS_munmap, data, end - data.min(start)));
        report("clock_gettime", asked(1).0);
        println!("gone {}", area("[vdso]").is_none());
        0
    });
}
