//! The sandbox keeps two windows of the lower half and something in the upper one for itself: to a program they are
//! addresses like any that it has not mapped. And nothing of one program's memory is another's.

use crate::Case;
use crate::exceptions::provoke;
use crate::sys::{self, fork, memory, mmap, report, wait};
use ring0::layout;

pub(crate) const CASES: &[Case] = &[
    ("windows_pointers", pointers),
    ("windows_mapping", mapping),
    ("windows_hints", hints),
    ("windows_fixed", fixed_by_run_times),
    ("windows_other_programs", other_programs),
    ("windows_unmapped_while_used", unmapped_while_used),
    ("windows_turns", turns),
];

/// Where nothing at all of the sandbox's can be seen: in a VM. (In a process of the host's there is a little code.)
pub(crate) const MACHINE_CASES: &[Case] =
    &[("machine_accesses", accesses), ("machine_bases", crate::registers::upper_bases)];

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
/// What the kernel half is or-ed with: `KERNEL_HALF` of the architectures.
const KERNEL_HALF: u64 =
    if cfg!(target_arch = "x86_64") { 0xffff_8000_0000_0000 } else { 0xffff_0000_0000_0000 };

/// Where systrap has its stub.
const STUB: (u64, u64) = (0x6800_0000, 0x7800_0000);

/// The places that hold, or could hold, something of the kernel's.
fn places() -> Vec<(String, i64)> {
    let windows = [
        ("the stub", STUB.0, STUB.1),
        ("the image", layout::IMAGE_BASE, layout::IMAGE_END),
        ("per-CPU blocks", layout::PERCPU_BASE, layout::PERCPU_END),
        ("tables", layout::TABLES_BASE, layout::TABLES_END),
        ("kernel stacks", layout::STACKS_BASE, layout::STACKS_END),
        ("the heap", layout::HEAP_BASE, layout::HEAP_END),
        ("files", layout::FILES_BASE, layout::FILES_END),
        ("frames", layout::FRAMES_BASE, layout::FRAMES_END),
    ];
    let mut places = Vec::new();
    for (name, base, end) in windows {
        for (where_, address) in [
            ("start", base),
            ("second page", base + 4096),
            ("start + 2 MiB", base + (2 << 20)),
            ("end", end - 4096),
        ] {
            places.push((format!("{name}, {where_}"), address as i64));
            places.push((format!("{name}, {where_}, upper half"), (address | KERNEL_HALF) as i64));
        }
    }
    places
}

/// Reads, writes and executes there.
fn accesses() {
    for (name, address) in places() {
        provoke(&format!("read {name}"), address, || {
            sys::peek(address);
        });
        provoke(&format!("write {name}"), address, || sys::poke(address, 1));
        provoke(&format!("execute {name}"), address, || {
            sys::jump(address);
        });
    }
}

/// Gives the kernel pointers there.
fn pointers() {
    let (read_end, write_end) = sys::pipe(0);
    let mut seen: Vec<String> = Vec::new();
    for (name, at) in places() {
        sys::write(write_end, b"12345678");
        let results = [
            sys!(libc::SYS_write, write_end, at, 8),
            sys!(libc::SYS_read, read_end, at, 8),
            sys!(libc::SYS_openat, libc::AT_FDCWD, at, 0),
            sys!(libc::SYS_uname, at),
            sys!(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, at, 0, 8),
            sys!(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, 0, at, 8),
            sys!(libc::SYS_futex, at, libc::FUTEX_WAKE, 1, 0, 0, 0),
            sys!(libc::SYS_futex, at, libc::FUTEX_WAIT, 0, 0, 0, 0),
            sys!(libc::SYS_writev, write_end, at, 1),
            sys!(libc::SYS_execve, at, 0, 0),
            sys!(libc::SYS_clock_gettime, 0, at),
            sys!(libc::SYS_getcwd, at, 4096),
            sys!(libc::SYS_sigaltstack, 0, at),
            sys!(libc::SYS_wait4, -1, at, libc::WNOHANG, 0),
            sys!(libc::SYS_getrandom, at, 8, 0),
            sys!(libc::SYS_ppoll, at, 1, 0, 0, 8),
        ];
        sys::read(read_end, 8);
        let shown = results.map(sys::show).join(" ");
        if !seen.contains(&shown) {
            println!("{name}: {shown}");
            seen.push(shown);
        }
    }
    // A length that reaches from the program's memory into a window: the image's or the stub's.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let below = [layout::IMAGE_BASE, STUB.0].map(|base| base as i64 - 4096);
    let own = below.into_iter().find(|&page| mmap(page, 4096, RW, flags, -1, 0) == page).unwrap_or(0);
    println!("a page below: {}", own != 0);
    // Refused, or cut short.
    let written = sys!(libc::SYS_write, write_end, own + 4096 - 8, 16);
    println!("write across: {}", written == -i64::from(libc::EFAULT) || written == 8);
    sys::write(write_end, b"87654321");
    report("read across", sys!(libc::SYS_read, read_end, own + 4096 - 8, 16));
}

/// Mapping there is refused, or it is ordinary memory.
fn mapping() {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    for (name, at) in places() {
        let fixed = mmap(at, 4096, RW, flags | libc::MAP_FIXED, -1, 0);
        let verdict = if fixed == at {
            let clean = sys::peek(at) == 0;
            sys::poke(at, 0x5a);
            clean && sys::peek(at) == 0x5a && sys!(libc::SYS_munmap, at, 4096) == 0
        } else {
            fixed == -i64::from(libc::ENOMEM)
        };
        println!("{name}: refused or harmless {verdict}");
        // Neither of these may touch what is there, or tell it.
        sys!(libc::SYS_munmap, at, 4096);
        sys!(libc::SYS_mprotect, at, 4096, RW);
        sys!(libc::SYS_madvise, at, 4096, libc::MADV_DONTNEED);
        let own = memory(4096);
        sys::poke(own, 7);
        let moved = sys!(libc::SYS_mremap, own, 4096, 4096, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, at);
        println!(
            "{name}: moving {}",
            moved == at || moved == -i64::from(libc::ENOMEM) || moved == -i64::from(libc::EINVAL)
        );
        sys!(libc::SYS_munmap, at, 4096);
    }
    // Everything at once: what spans a window must not reach it.
    let span = layout::ARENA_END - layout::IMAGE_BASE + (4 << 20);
    let reserved = mmap(
        layout::IMAGE_BASE as i64 - (2 << 20),
        span as usize,
        libc::PROT_NONE,
        flags | libc::MAP_FIXED | libc::MAP_NORESERVE,
        -1,
        0,
    );
    report_mapped("reserve across both", reserved);
    report("protect across both", sys!(libc::SYS_mprotect, reserved, span, libc::PROT_NONE));
    report("unmap across both", sys!(libc::SYS_munmap, reserved, span));
    println!("still running");
}

/// Whatever address a hint names, what comes of it can be used, also if it is made accessible later only. (V8 picks addresses
/// at random and uses what it gets.)
fn hints() {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let everywhere =
        (1..128).map(|n| (format!("{n} GiB"), n << 30)).chain((7..47).map(|n| (format!("2^{n}"), 1 << n)));
    let lower = places().into_iter().filter(|place| place.1 > 0);
    let every_gib = (0x40..0x80).map(|n| (format!("{n:#x} GiB"), n << 33));
    for (name, hint) in lower.chain(everywhere).chain(every_gib) {
        // A length that reaches into a window from below, or lies inside.
        for at in [hint, hint - 0x1_0000, hint + 1] {
            for prot in [libc::PROT_NONE, RW] {
                let got = mmap(at, 1 << 18, prot, flags, -1, 0);
                let raised = sys!(libc::SYS_mprotect, got, 1 << 18, RW);
                if got < 0 || raised != 0 {
                    println!("{name}: {} {}", sys::show(got.min(0)), sys::show(raised));
                    continue;
                }
                sys::poke(got, 1);
                sys::poke(got + (1 << 18) - 1, 1);
                sys!(libc::SYS_munmap, got, 1 << 18);
            }
        }
    }
    // Rounded down, and the lowest page is no hint.
    let free = mmap(0, 1 << 16, libc::PROT_NONE, flags, -1, 0);
    sys!(libc::SYS_munmap, free, 1 << 16);
    println!("rounded down: {}", mmap(free + 4095, 4096, RW, flags, -1, 0) == free);
    println!("taken: {}", mmap(free, 4096, RW, flags, -1, 0) != free);
    // At the lowest address that the sysctl or a security module allows, unless the hint is above it.
    let lowest =
        std::fs::read_to_string("/proc/sys/vm/mmap_min_addr").ok().and_then(|text| text.trim().parse().ok());
    let got = mmap(0x2000, 4096, RW, flags, -1, 0);
    println!("below everything: {}", lowest.is_some_and(|lowest: i64| (lowest..=0x1_0000).contains(&got)));
    println!("nothing: {}", mmap(0xfff, 4096, RW, flags, -1, 0) > 1 << 32);
}

/// What run-times of compilers and languages fix can be mapped there.
fn fixed_by_run_times() {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE;
    for place in layout::fixed::FIXED {
        for at in [place.start, ((place.start + place.end) / 2) & !4095, place.end - 4096] {
            // Above that is nothing on x86_64.
            if at < 0x7000_0000_0000 {
                let got = mmap(at as i64, 4096, RW, flags, -1, 0);
                let something_there = got == -i64::from(libc::EEXIST);
                println!("{} at {at:#x}: {}", place.what, got == at as i64 || something_there);
                if got > 0 {
                    sys::poke(got, 1);
                    sys!(libc::SYS_munmap, got, 4096);
                }
            }
        }
    }
    // AddressSanitizer's shadow whole, and the gap in the middle of it, which reaches over windows.
    let shadow = mmap(0x7fff_7000, 0x1000_0000, RW, flags, -1, 0);
    println!("low shadow: {}", shadow == 0x7fff_7000);
    let gap = mmap(0x8fff_7000, 0x200_0000_0000, libc::PROT_NONE, flags, -1, 0);
    println!("gap: {}", gap == 0x8fff_7000);
}

fn report_mapped(what: &str, result: i64) {
    println!("{what}: {}", if result > 0 { "ok".to_owned() } else { sys::show(result) });
}

/// A program's memory is its own: others find holes there, and what it leaves is wiped.
fn other_programs() {
    let secret = memory(16 << 20);
    let pid = fork(|| {
        let own = memory(32 << 20);
        for page in 0..8192 {
            sys::poke(own + page * 4096 + 8, 0x77);
        }
        0
    });
    println!("{}", wait(pid));
    let fresh = memory(48 << 20);
    println!("fresh memory is zero: {}", (0..12288).all(|page| sys::peek(fresh + page * 4096 + 8) == 0));
    sys::poke(secret, 0x66);
    let pid = fork(|| {
        sys!(libc::SYS_munmap, secret, 4096);
        let again = mmap(secret, 4096, RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED, -1, 0);
        i32::from(sys::peek(again))
    });
    println!("unmapped and mapped again in a child: {}", wait(pid));
    provoke("unmapped in a child", secret, || {
        sys!(libc::SYS_munmap, secret, 4096);
        sys::peek(secret);
    });
    println!("here it is still {:#x}", sys::peek(secret));
    // Both write the page that they share after a fork, again and again.
    let pid = fork(|| {
        let mut good = true;
        for round in 0..2000_i64 {
            sys::poke(secret + round % 64 * 4096, 1);
            good &= sys::peek(secret + round % 64 * 4096) == 1;
        }
        i32::from(!good)
    });
    let mut good = true;
    for round in 0..2000_i64 {
        sys::poke(secret + round % 64 * 4096, 2);
        good &= sys::peek(secret + round % 64 * 4096) == 2;
    }
    println!("{} and {good}", wait(pid));
}

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};

/// The page that a thread reads, what it has read it, and where its faults go on.
static TARGET: AtomicI64 = AtomicI64::new(0);
static READS: AtomicU64 = AtomicU64::new(0);
static FAULTS: AtomicU64 = AtomicU64::new(0);
static POISON: AtomicU64 = AtomicU64::new(0);

/// The reader's fault: it waits until the page is mapped again.
extern "C" fn wait_for_page(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let gone = sys::info_address(info);
    FAULTS.fetch_add(1, SeqCst);
    while TARGET.load(SeqCst) == gone {
        std::thread::yield_now();
    }
    // Map a page of ones back where the read will be made once more.
    let at = mmap(gone, 4096, RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED, -1, 0);
    sys::poke(at, 1);
}

/// One thread reads a page for ever; another unmaps it and has the memory used again at once: the reader must fault, and
/// never see what others write.
fn unmapped_while_used() {
    const ROUNDS: u64 = 100;
    sys::handle(libc::SIGSEGV, wait_for_page, 0);
    // Every round has a page of its own: an address that is used again would be somebody's by right.
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let area = mmap(0, 2 * ROUNDS as usize * 8192, libc::PROT_NONE, anonymous, -1, 0);
    let fresh = |round: u64| {
        let page = mmap(area + round as i64 * 8192, 4096, RW, anonymous | libc::MAP_FIXED, -1, 0);
        sys::poke(page, 1);
        page
    };
    let others = memory(8 * 4096);
    TARGET.store(fresh(0), SeqCst);
    let reader = std::thread::spawn(|| {
        loop {
            let page = TARGET.load(SeqCst);
            if page == 0 {
                break;
            }
            for _ in 0..1000 {
                if sys::peek(page) != 1 {
                    POISON.fetch_add(1, SeqCst);
                }
            }
            READS.fetch_add(1, SeqCst);
        }
    });
    for round in 0..ROUNDS {
        let page = TARGET.load(SeqCst);
        let (reads, faults) = (READS.load(SeqCst), FAULTS.load(SeqCst));
        while READS.load(SeqCst) < reads + 2 {
            std::thread::yield_now();
        }
        let how = round % 3;
        match how {
            0 => sys!(libc::SYS_munmap, page, 4096),
            1 => sys!(libc::SYS_mprotect, page, 4096, libc::PROT_NONE),
            _ => {
                let other = area + (ROUNDS + round) as i64 * 8192;
                sys!(libc::SYS_mremap, page, 4096, 4096, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, other);
                sys!(libc::SYS_munmap, other, 4096)
            }
        };
        // What was freed is somebody else's now.
        sys!(libc::SYS_madvise, others, 8 * 4096, libc::MADV_DONTNEED);
        (0..8).for_each(|n| sys::poke(others + n * 4096, 0xee));
        while FAULTS.load(SeqCst) == faults {
            std::thread::yield_now();
        }
        TARGET.store(fresh(round + 1), SeqCst);
    }
    TARGET.store(0, SeqCst);
    let joined = reader.join().is_ok();
    println!("joined {joined}, faults {}, others' bytes {}", FAULTS.load(SeqCst), POISON.load(SeqCst));
}

/// More threads than CPUs, none of which ever makes a call: all of them get on.
fn turns() {
    const THREADS: usize = 6;
    static COUNTS: [AtomicU64; THREADS] = [const { AtomicU64::new(0) }; THREADS];
    static OVER: AtomicU64 = AtomicU64::new(0);
    let threads: Vec<_> = (0..THREADS)
        .map(|n| {
            std::thread::spawn(move || {
                while OVER.load(SeqCst) == 0 {
                    COUNTS[n].fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut rounds = 0;
    while rounds < 10 && std::time::Instant::now() < deadline {
        let before: Vec<u64> = COUNTS.iter().map(|count| count.load(SeqCst)).collect();
        while COUNTS.iter().zip(&before).any(|(now, then)| now.load(SeqCst) == *then)
            && std::time::Instant::now() < deadline
        {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        rounds += i32::from(COUNTS.iter().zip(&before).all(|(now, then)| now.load(SeqCst) != *then));
    }
    OVER.store(1, SeqCst);
    let joined = threads.into_iter().all(|thread| thread.join().is_ok());
    println!("{rounds} rounds in which every thread got on; all ended: {joined}");
}
