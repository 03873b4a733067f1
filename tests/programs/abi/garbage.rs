//! Garbage wherever the host process has memory, and calls of every kind above it.
//!
//! Standard input has the host process's mappings (proc(5), `maps`). What the kernel means by those addresses is the
//! host's memory; in the VM's page tables they are this program's.

use crate::sys::{self, fork, mmap, wait};
use crate::{Case, events, files, memory, pipes, process, signals, threads, time};
use ring0::layout;
use std::ops::Range;

const PAGE: i64 = 4096;
/// Of a mapping longer than twice this, both ends are covered.
const END: i64 = 2 << 20;
/// The first address that is not a program's.
const TASK_SIZE: i64 = if cfg!(target_arch = "x86_64") { 0x7fff_ffff_f000 } else { 1 << 48 };
const GARBAGE: i64 = 0x5a5a_a5a5_dead_1234;
/// Cases that start no time limit of their own and leave the rest of the address space alone.
const FAMILIES: [&[Case]; 8] = [
    process::CASES,
    signals::CASES,
    memory::CASES,
    files::CASES,
    pipes::CASES,
    events::CASES,
    threads::CASES,
    time::CASES,
];

/// What `pillbox self-test --with-bug` makes of this call: kernel code reads the host process's memory, and returns a number
/// made from it. Natively there is no such operation.
const READ_HOST: i64 = 0x5042_4248;

/// Maps it, runs the cases, and looks whether it is still as it was.
pub(crate) fn everywhere() {
    let ranges: Vec<Range<i64>> = std::io::stdin().lines().map_while(Result::ok).flat_map(wanted).collect();
    let host = sys!(libc::SYS_prctl, READ_HOST);
    let mut pages = Vec::new();
    let mut taken = 0;
    for page in ranges.into_iter().flat_map(|range| range.step_by(PAGE as usize)) {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        if mmap(page, PAGE as usize, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) == page {
            fill(page);
            pages.push(page);
        } else {
            // This program's own already, which is just as well, or the sandbox's windows.
            taken += 1;
        }
    }
    for (name, run) in FAMILIES.iter().copied().flatten() {
        println!("== {name}");
        println!(
            "== {}",
            wait(fork(|| {
                run();
                0
            }))
        );
    }
    let child = fork(|| {
        let good = pages.iter().all(|page| intact(*page));
        pages.iter().for_each(|page| sys::poke(*page, 1));
        i32::from(!good)
    });
    println!("garbage in a child: {}", wait(child));
    println!("garbage here is intact: {}", pages.iter().all(|page| intact(*page)));
    println!("the host's memory is the host's: {}", sys!(libc::SYS_prctl, READ_HOST) == host);
    eprintln!("{} pages of garbage, {taken} not to be had, reads of host memory: {}", pages.len(), host >= 0);
    sys::exit(i32::from(pages.is_empty()));
}

/// What of a line's mapping to cover: two ranges, of which the second may be empty.
fn wanted(line: String) -> [Range<i64>; 2] {
    let parse = |hex: &str| i64::from_str_radix(hex, 16).ok();
    let bounds = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
    let (start, end) = bounds.and_then(|(start, end)| parse(start).zip(parse(end))).unwrap_or((0, 0));
    let window = |base: u64, stop: u64| start < stop as i64 && end > base as i64;
    if end > TASK_SIZE
        || window(layout::IMAGE_BASE, layout::IMAGE_END)
        || window(layout::ARENA_BASE, layout::ARENA_END)
    {
        [0..0, 0..0]
    } else if end - start > 2 * END {
        [start..start + END, end - END..end]
    } else {
        [start..end, 0..0]
    }
}

fn words(page: i64) -> impl Iterator<Item = i64> {
    (page..page + PAGE).step_by(8)
}

fn fill(page: i64) {
    words(page).for_each(|at| sys::store(at, at ^ GARBAGE));
}

fn intact(page: i64) -> bool {
    words(page).all(|at| sys::load::<i64>(at) == at ^ GARBAGE)
}
