//! /proc/PID: memory. What smaps says is compared number by number.

use super::{Steps, value};
use crate::sys::{self, c, fork, in_child, memory, mmap, open, poke, report, wait};
use std::fs::read_to_string;

const PAGE: i64 = 4096;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// The lines of smaps about the area at `at`.
fn area(pid: &str, at: i64) -> String {
    let text = read_to_string(format!("/proc/{pid}/smaps")).expect("smaps");
    let start = format!("{at:08x}-");
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&start));
    lines.next();
    let head = |line: &&str| line.split(' ').next().is_some_and(|word| word.contains('-'));
    lines.take_while(|line| !head(line)).map(|line| format!("{line}\n")).collect()
}

/// Prints what smaps says, as far as it does not depend on the machine.
fn show(what: &str, text: &str) {
    let names = [
        "Size",
        "Rss",
        "Pss",
        "Shared_Clean",
        "Shared_Dirty",
        "Private_Clean",
        "Private_Dirty",
        "Anonymous",
        "Locked",
    ];
    let numbers: Vec<String> = names.iter().map(|name| format!("{name} {}", value(text, name))).collect();
    println!("{what}: {}", numbers.join(", "));
}

/// The flags that depend on what the program asked for.
fn flags(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("VmFlags:")).unwrap_or("none");
    let known = ["rd", "wr", "ex", "sh", "mr", "mw", "me", "ms", "gd", "lo", "dc", "wf", "dd"];
    let words: Vec<&str> = line.split_whitespace().filter(|word| known.contains(word)).collect();
    words.join(" ")
}

/// An area of so many pages with neighbours that it is never merged with.
fn alone(pages: i64, prot: i32, flags: i32) -> i64 {
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let around = mmap(0, ((pages + 2) * PAGE) as usize, libc::PROT_NONE, anonymous, -1, 0);
    let fixed = flags | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    mmap(around + PAGE, (pages * PAGE) as usize, prot, fixed, -1, 0)
}

fn touch(at: i64, pages: i64) {
    (0..pages).for_each(|page| poke(at + page * PAGE, 7));
}

pub(super) fn smaps() {
    let own = alone(64, RW, libc::MAP_PRIVATE);
    show("untouched", &area("self", own));
    touch(own, 64);
    show("touched", &area("self", own));
    println!("{}", flags(&area("self", own)));
    sys!(libc::SYS_mlock, own, 64 * PAGE);
    sys!(libc::SYS_madvise, own, 64 * PAGE, libc::MADV_DONTDUMP);
    show("locked", &area("self", own));
    println!("{}", flags(&area("self", own)));
    sys!(libc::SYS_munlock, own, 64 * PAGE);
    let steps = Steps::new();
    let child = fork(|| {
        steps.pause();
        // Not one after the other: how many go along in a sequence is each kernel's own affair.
        (0..16).for_each(|page| touch(own + 4 * page * PAGE, 1));
        steps.pause();
        0
    });
    steps.await_child();
    show("with a child", &area("self", own));
    show("the child", &area(&child.to_string(), own));
    steps.go_on();
    steps.await_child();
    show("the child has written", &area("self", own));
    show("the child", &area(&child.to_string(), own));
    steps.go_on();
    println!("{}", wait(child));
    show("alone again", &area("self", own));
    sys!(libc::SYS_madvise, own, 32 * PAGE, libc::MADV_DONTNEED);
    show("half of it given back", &area("self", own));
    sys!(libc::SYS_mprotect, own, 64 * PAGE, libc::PROT_READ);
    println!("{}", flags(&area("self", own)));
    let grows =
        mmap(0, PAGE as usize, RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_GROWSDOWN, -1, 0);
    println!("{}", flags(&area("self", grows)));
    let sum = read_to_string("/proc/self/smaps_rollup").expect("a sum");
    let all = read_to_string("/proc/self/smaps").expect("smaps");
    for name in ["Rss", "Anonymous", "Private_Dirty"] {
        let start = format!("{name}:");
        let lines = all.lines().filter(|line| line.starts_with(&start));
        let total: i64 = lines.map(|line| value(line, name)).sum();
        // The buffer of one text lies in memory by the time of the other.
        println!("{name} {}", total > 0 && (total - value(&sum, name)).abs() < 256);
    }
}

pub(super) fn smaps_shared() {
    let shared = alone(32, RW, libc::MAP_SHARED);
    touch(shared, 32);
    show("shared", &area("self", shared));
    println!("{}", flags(&area("self", shared)));
    let steps = Steps::new();
    let child = fork(|| {
        show("a child that has not looked", &area("self", shared));
        touch(shared, 32);
        steps.pause();
        0
    });
    steps.await_child();
    show("with a child", &area("self", shared));
    steps.go_on();
    println!("{}", wait(child));
    // A file, of which the program makes four pages its own.
    sys::scratch("proc-smaps");
    std::fs::write("file", vec![1; 16 * PAGE as usize]).expect("a file");
    let fd = open("file", libc::O_RDONLY, 0);
    let file = mmap(0, 16 * PAGE as usize, RW, libc::MAP_PRIVATE, fd, 0);
    (0..16).for_each(|page| assert_eq!(sys::peek(file + page * PAGE), 1));
    let text = area("self", file);
    println!("file {} {} {}", value(&text, "Rss"), value(&text, "Pss"), value(&text, "Anonymous"));
    touch(file, 4);
    let text = area("self", file);
    println!("written {} {} {}", value(&text, "Rss"), value(&text, "Pss"), value(&text, "Anonymous"));
    let read_only = mmap(0, PAGE as usize, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
    println!("{}", flags(&area("self", read_only)));
    sys::unscratch();
}

pub(super) fn peaks() {
    const MIB: i64 = 1 << 20;
    let status = || read_to_string("/proc/self/status").expect("status");
    let before = status();
    let area = memory((8 * MIB) as usize);
    // Where there are large pages they would come at once.
    sys!(libc::SYS_madvise, area, 8 * MIB, libc::MADV_NOHUGEPAGE);
    let mapped = status();
    touch(area, 8 * MIB / PAGE);
    let touched = status();
    let grown = |name, from: &str, to: &str| value(to, name) - value(from, name);
    println!("VmSize {}", grown("VmSize", &before, &mapped) >= 8 << 10);
    println!("not yet {}", grown("VmRSS", &before, &mapped) < 1 << 10);
    println!("VmRSS {}", grown("VmRSS", &mapped, &touched) >= 7 << 10);
    println!("RssAnon {}", grown("RssAnon", &mapped, &touched) >= 7 << 10);
    // Linux counts in batches: a few pages more or less.
    let shared = mmap(0, (4 * MIB) as usize, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
    touch(shared, 4 * MIB / PAGE);
    println!("RssShmem {}", grown("RssShmem", &touched, &status()) >= 3 << 10);
    sys!(libc::SYS_munmap, shared, 4 * MIB);
    sys!(libc::SYS_munmap, area, 8 * MIB);
    let gone = status();
    println!("gone {}", grown("VmRSS", &touched, &gone) <= -(7 << 10));
    println!("VmHWM {}", value(&gone, "VmHWM") - value(&gone, "VmRSS") >= 7 << 10);
    println!("VmPeak {}", value(&gone, "VmPeak") - value(&gone, "VmSize") >= 8 << 10);
    let sum = ["RssAnon", "RssFile", "RssShmem"].map(|name| value(&gone, name)).iter().sum::<i64>();
    println!("sum {}", sum == value(&gone, "VmRSS"));
    let statm = read_to_string("/proc/self/statm").expect("statm");
    let words: Vec<i64> = statm.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    println!("statm {} {} {}", words.len(), words[0] * 4 == value(&gone, "VmSize"), words[1] > words[2]);
    let most = |who| {
        let mut usage = [0_i64; 18];
        sys!(libc::SYS_getrusage, who, usage.as_mut_ptr());
        usage[4]
    };
    println!("ru_maxrss {}", most(libc::RUSAGE_SELF) - value(&gone, "VmRSS") >= 7 << 10);
    in_child("a child's peak is its own", || {
        println!("{}", value(&status(), "VmHWM") < value(&gone, "VmHWM"));
        touch(memory((16 * MIB) as usize), 16 * MIB / PAGE);
        0
    });
    println!("of children {}", most(libc::RUSAGE_CHILDREN) >= 15 << 10);
}

pub(super) fn mem() {
    let area = alone(2, RW, libc::MAP_PRIVATE);
    poke(area, b'a');
    let own = open("/proc/self/mem", libc::O_RDWR, 0);
    let mut byte = [0_u8; 1];
    report("read", sys!(libc::SYS_pread64, own, byte.as_mut_ptr(), 1, area));
    println!("{}", byte[0]);
    report("write", sys!(libc::SYS_pwrite64, own, c("b").as_ptr(), 1, area + 4095));
    println!("{}", sys::peek(area + 4095));
    let mut three = vec![0_u8; 3 * PAGE as usize];
    report("both", sys!(libc::SYS_pread64, own, three.as_mut_ptr(), 2 * PAGE, area));
    sys!(libc::SYS_munmap, area + PAGE, 2 * PAGE);
    report("as far as it goes", sys!(libc::SYS_pread64, own, three.as_mut_ptr(), 2 * PAGE, area));
    report("nothing there", sys!(libc::SYS_pread64, own, byte.as_mut_ptr(), 1, area + PAGE));
    report("nor here", sys!(libc::SYS_pwrite64, own, byte.as_ptr(), 1, area + PAGE));
    report("bad buffer", sys!(libc::SYS_pread64, own, 8, 1, area));
    let steps = Steps::new();
    let child = fork(|| {
        poke(area, b'c');
        steps.pause();
        i32::from(sys::peek(area))
    });
    steps.await_child();
    let other = open(&format!("/proc/{child}/mem"), libc::O_RDWR, 0);
    report("a child's", sys!(libc::SYS_pread64, other, byte.as_mut_ptr(), 1, area));
    println!("{} not {}", byte[0], sys::peek(area));
    report("changed", sys!(libc::SYS_pwrite64, other, c("d").as_ptr(), 1, area));
    steps.go_on();
    println!("{}", wait(child));
    report("afterwards", sys!(libc::SYS_pread64, other, byte.as_mut_ptr(), 1, area));
    report("seek", sys!(libc::SYS_lseek, own, 4096, libc::SEEK_SET));
    report("seek on", sys!(libc::SYS_lseek, own, 1, libc::SEEK_CUR));
    report("seek to the end", sys!(libc::SYS_lseek, own, 0, libc::SEEK_END));
}
