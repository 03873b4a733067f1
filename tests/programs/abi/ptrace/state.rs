//! Memory and registers of tracees.

use super::{info, next, pt, report_not_ok, stop, tracee};
use crate::sys::{self, report, show};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const PRSTATUS: i64 = 1;
const PRFPREG: i64 = 2;
const PAGE: usize = 4096;

static WORD: AtomicU64 = AtomicU64::new(0x1122_3344_5566_7788);
static CONSTANT: [u64; 2] = [0x1234_5678_9abc_def0, 7];

/// Bytes that hold every set: with AMX's tiles the extended state is longer than 8 KiB.
const ROOM: usize = 16384;

/// PTRACE_GETREGSET into room for `len` bytes: what it returns, the length that it says, and the words.
fn get_set(pid: i64, note: i64, len: usize) -> (i64, usize, Vec<u64>) {
    let mut words = vec![0_u64; ROOM / 8];
    let mut vector = [words.as_mut_ptr() as usize, len];
    let result = pt(libc::PTRACE_GETREGSET, pid, note, vector.as_mut_ptr() as i64);
    (result, vector[1], words)
}

fn set_set(pid: i64, note: i64, words: &[u64], len: usize) -> i64 {
    let mut vector = [words.as_ptr() as usize, len];
    pt(libc::PTRACE_SETREGSET, pid, note, vector.as_mut_ptr() as i64)
}

/// Where words of the general registers are: instruction pointer, result, first argument, a register that calls keep.
#[cfg(target_arch = "x86_64")]
const PLACES: [usize; 4] = [16, 10, 14, 5];
#[cfg(target_arch = "aarch64")]
const PLACES: [usize; 4] = [32, 0, 0, 19];

fn general(pid: i64) -> (Vec<u64>, usize) {
    let (result, len, words) = get_set(pid, PRSTATUS, ROOM);
    report_not_ok("registers", result);
    (words, len)
}

fn change(pid: i64, place: usize, value: u64) -> i64 {
    let (mut words, len) = general(pid);
    words[place] = value;
    set_set(pid, PRSTATUS, &words, len)
}

#[cfg(target_arch = "x86_64")]
pub(super) fn set_number(pid: i64, number: i64) {
    report_not_ok("number", change(pid, 15, number as u64));
}

#[cfg(target_arch = "aarch64")]
pub(super) fn set_number(pid: i64, number: i64) {
    const SYSTEM_CALL: i64 = 0x404;
    report_not_ok("number", set_set(pid, SYSTEM_CALL, &[number as u64], 4));
}

pub(super) fn set_argument(pid: i64, value: u64) {
    report_not_ok("argument", change(pid, PLACES[2], value));
}

pub(super) fn set_result(pid: i64, value: u64) {
    report_not_ok("result", change(pid, PLACES[1], value));
}

fn peek(pid: i64, at: i64) -> String {
    let mut word = 0_u64;
    match pt(libc::PTRACE_PEEKDATA, pid, at, &raw mut word as i64) {
        0 => format!("{word:#x}"),
        error => show(error),
    }
}

pub(super) fn memory() {
    let word = &raw const WORD as i64;
    let constant = &raw const CONSTANT as i64;
    let pid = tracee(|| {
        println!("it sees {:#x} and {:#x}", WORD.load(SeqCst), sys::load::<u64>(constant));
        0
    });
    println!("{} {}", peek(pid, word), peek(pid, word + 3));
    report("data", pt(libc::PTRACE_POKEDATA, pid, word, 0x99));
    report("read-only data", pt(libc::PTRACE_POKETEXT, pid, constant, 0x77));
    println!("{} {}", peek(pid, word), peek(pid, constant));
    println!("here still {:#x} {:#x}", WORD.load(SeqCst), sys::load::<u64>(constant));
    for at in [0, 8, -8, i64::MIN, 0x7000_0000_0000_0000, 1 << 62] {
        println!("at {at:#x}: {} {}", peek(pid, at), show(pt(libc::PTRACE_POKEDATA, pid, at, 1)));
    }
    report("to nowhere", pt(libc::PTRACE_PEEKDATA, pid, word, 8));
    println!("{}", next(pid));
}

/// Copies are the tracee's own; what cannot be copied is refused.
pub(super) fn memory_of_others() {
    sys::scratch("ptrace");
    std::fs::write("file", vec![0x41_u8; 2 * PAGE]).expect("a file");
    let fd = sys::open("file", libc::O_RDWR, 0);
    let (private, shared) = (libc::MAP_PRIVATE, libc::MAP_SHARED);
    let areas = [
        ("private, read-only", sys::mmap(0, PAGE, libc::PROT_READ, private, fd, 0)),
        ("private, code", sys::mmap(0, PAGE, libc::PROT_READ | libc::PROT_EXEC, private, fd, 0)),
        ("private, none", sys::mmap(0, PAGE, 0, private | libc::MAP_ANONYMOUS, -1, 0)),
        ("shared, writable", sys::mmap(0, PAGE, libc::PROT_READ | libc::PROT_WRITE, shared, fd, PAGE as i64)),
    ];
    let read_only = sys::mmap(0, PAGE, libc::PROT_READ, shared | libc::MAP_ANONYMOUS, -1, 0);
    let pid = tracee(|| {
        for (what, at) in &areas[..2] {
            println!("it sees {:#x} in what is {what}", sys::load::<u64>(*at));
        }
        0
    });
    for (what, at) in &areas {
        let before = peek(pid, *at);
        let poked = show(pt(libc::PTRACE_POKEDATA, pid, *at, 0x42));
        println!("{what}: {before}, {poked}, {}", peek(pid, *at));
    }
    report("shared, read-only", pt(libc::PTRACE_POKEDATA, pid, read_only, 0x42));
    // A word over the end of a page, behind which there is nothing.
    let lonely = sys::memory(2 * PAGE);
    sys!(libc::SYS_munmap, lonely + PAGE as i64, PAGE);
    println!("{}", next(pid));
    println!("here {:#x} {:#x}", sys::load::<u64>(areas[0].1), sys::load::<u64>(areas[3].1));
    let bytes = std::fs::read("file").expect("the file");
    println!("file {:#x} {:#x}", bytes[0], bytes[PAGE]);
    sys::unscratch();
}

/// /proc/PID/mem writes where PTRACE_POKEDATA does.
pub(super) fn proc_mem() {
    let constant = &raw const CONSTANT as i64;
    let pid = tracee(|| {
        println!("it sees {:#x}", sys::load::<u64>(constant));
        0
    });
    let fd = sys::open(&format!("/proc/{pid}/mem"), libc::O_RDWR, 0);
    let new = 0x5555_u64;
    report("write", sys!(libc::SYS_pwrite64, fd, &raw const new, 8, constant));
    let mut read = 0_u64;
    report("read", sys!(libc::SYS_pread64, fd, &raw mut read, 8, constant));
    println!("{read:#x}");
    report("nothing there", sys!(libc::SYS_pread64, fd, &raw mut read, 8, 8));
    println!("{}", next(pid));
}

#[inline(never)]
extern "C" fn target(value: u64) -> u64 {
    std::hint::black_box(value) + 1
}

/// The breakpoint instruction, its length in bits, and how far behind it the trap is.
#[cfg(target_arch = "x86_64")]
const BREAKPOINT: (u64, u64, u64) = (0xcc, 0xff, 1);
#[cfg(target_arch = "aarch64")]
const BREAKPOINT: (u64, u64, u64) = (0xd420_0000, 0xffff_ffff, 0);

pub(super) fn breakpoint() {
    let at = target as *const () as i64;
    let call = std::hint::black_box(target as extern "C" fn(u64) -> u64);
    let pid = tracee(move || {
        let sum: u64 = (0..40).map(|value| call(value)).sum();
        println!("sum {sum}");
        0
    });
    let mut word = 0_u64;
    report("code", pt(libc::PTRACE_PEEKTEXT, pid, at, &raw mut word as i64));
    let (instruction, bits, behind) = BREAKPOINT;
    let trap = word & !bits | instruction;
    for _ in 0..3 {
        report("set", pt(libc::PTRACE_POKETEXT, pid, at, trap as i64));
        println!("{}, {}", next(pid), info(pid, pid).replace("own true", "own false"));
        let (words, _) = general(pid);
        println!("there: {}", words[PLACES[0]] == at as u64 + behind);
        report("removed", pt(libc::PTRACE_POKETEXT, pid, at, word as i64));
        report("back", change(pid, PLACES[0], at as u64));
        if cfg!(target_arch = "x86_64") {
            report("step", pt(libc::PTRACE_SINGLESTEP, pid, 0, 0));
            println!("{}", stop(pid));
        }
    }
    println!("{}", next(pid));
    println!("here {}", target(1));
}

pub(super) fn register_sets() {
    let pid = tracee(|| 0);
    let small = if cfg!(target_arch = "x86_64") { &[0_usize, 8, 64][..] } else { &[0, 8, 64, 256] };
    for len in small.iter().chain(&[8000]) {
        let (result, got, words) = get_set(pid, PRSTATUS, *len);
        println!(
            "general in {len}: {} {got} behind {}",
            show(result),
            words[got / 8..].iter().all(|w| *w == 0)
        );
    }
    for len in [1, 7, 12] {
        println!("general in {len}: {}", show(get_set(pid, PRSTATUS, len).0));
    }
    let (result, got, _) = get_set(pid, PRFPREG, 8000);
    println!("floating point: {} {got}", show(result));
    for note in [0, 3, 99, 0x202_0000, -1] {
        println!("no set {note}: {}", show(get_set(pid, note, 8000).0));
    }
    report("no vector", pt(libc::PTRACE_GETREGSET, pid, PRSTATUS, 8));
    let nowhere = [8_usize, 64];
    report("no room", pt(libc::PTRACE_GETREGSET, pid, PRSTATUS, nowhere.as_ptr() as i64));
    architecture(pid);
    println!("{}", next(pid));
}

#[cfg(target_arch = "x86_64")]
fn architecture(pid: i64) {
    const XSTATE: i64 = 0x202;
    let (result, len, image) = get_set(pid, XSTATE, ROOM);
    println!("extended: {} components {:#x}", show(result), image[58] & 7);
    report("extended, shorter", set_set(pid, XSTATE, &image, len - 8));
    let mut words = [0_u64; 27];
    report("whole", pt(libc::PTRACE_GETREGS, pid, 0, words.as_mut_ptr() as i64));
    println!("the same {}", words[..] == general(pid).0[..27]);
    report("set", pt(libc::PTRACE_SETREGS, pid, 0, words.as_ptr() as i64));
    let mut image = [0_u64; 64];
    report("floating point", pt(libc::PTRACE_GETFPREGS, pid, 0, image.as_mut_ptr() as i64));
    report("set", pt(libc::PTRACE_SETFPREGS, pid, 0, image.as_ptr() as i64));
    for offset in [0, 128, 1, 4, 216, 224, 848, 904, 920, 928, 1 << 40, -8] {
        let mut word = 0_u64;
        let result = pt(libc::PTRACE_PEEKUSER, pid, offset, &raw mut word as i64);
        println!("at {offset}: {}", show(result));
    }
    println!("segments {:#x} {:#x}", words[17], words[20]);
    for (offset, value) in [(17 * 8, 0x33), (20 * 8, 0x2b), (216, 0), (928, 1), (4, 0)] {
        println!("set {offset}: {}", show(pt(libc::PTRACE_POKEUSER, pid, offset, value)));
    }
}

#[cfg(target_arch = "aarch64")]
fn architecture(pid: i64) {
    let mut word = 0_u64;
    report("user", pt(libc::PTRACE_PEEKUSER, pid, 0, &raw mut word as i64));
    report("user", pt(libc::PTRACE_POKEUSER, pid, 0, 0));
    report("whole", pt(12, pid, 0, &raw mut word as i64));
    for (note, what) in [(0x401, "thread pointer"), (0x404, "number")] {
        let (result, len, words) = get_set(pid, note, 4096);
        println!("{what}: {} {}", show(result), len.min(8));
        report(what, set_set(pid, note, &words, len.min(8)));
    }
}

pub(super) fn registers_changed() {
    let pid = tracee(|| {
        // The result of a call is what its tracer says.
        println!("result {}", sys!(libc::SYS_close, 12_345));
        0
    });
    super::options(pid, super::SYSGOOD);
    super::to_call(pid, libc::SYS_close);
    super::next_call(pid);
    let (before, _) = general(pid);
    report("changed", change(pid, PLACES[1], 0x1234));
    let (after, _) = general(pid);
    let others =
        before.iter().zip(&after).enumerate().filter(|(at, (a, b))| *at != PLACES[1] && a != b).count();
    println!("others changed: {others}");
    println!("{}", next(pid));
}

#[cfg(target_arch = "x86_64")]
pub(super) fn hostile_registers() {
    let cases = [
        ("code segment", 17, 0),
        ("code segment", 17, 8),
        ("stack segment", 20, 0),
        ("stack segment", 20, 0x18),
        ("data segment", 23, 0x10),
        ("fs base", 21, 1_u64 << 47),
        ("fs base", 21, 1 << 63),
        ("gs base", 22, !0),
    ];
    let pid = tracee(|| 0);
    for (what, index, value) in cases {
        println!("{what} {value:#x}: {}", show(pt(libc::PTRACE_POKEUSER, pid, index * 8, value as i64)));
    }
    // IOPL, VM, interrupts: nobody's.
    report("flags", pt(libc::PTRACE_POKEUSER, pid, 18 * 8, 0x3a_7202 | 0xcd5));
    println!("{:#x}", general(pid).0[18] & 0x3a_3eff);
    report("flags", pt(libc::PTRACE_POKEUSER, pid, 18 * 8, 0x202));
    println!("{}", next(pid));
    for ip in [1 << 63, 1 << 47, 0xffff_ffff_8000_0000, 0, 0x7fff_ffff_f000] {
        let pid = tracee(|| 0);
        report("instruction pointer", change(pid, PLACES[0], ip));
        println!("{ip:#x}: {}", next(pid));
        sys!(libc::SYS_kill, pid, libc::SIGKILL);
        stop(pid);
    }
    let pid = tracee(|| 0);
    report("stack pointer", change(pid, 19, 0xdead_0000_0000_0000));
    println!("{}", next(pid));
    sys!(libc::SYS_kill, pid, libc::SIGKILL);
    println!("{}", stop(pid));
    images();
}

/// Images that no processor would load.
#[cfg(target_arch = "x86_64")]
fn images() {
    const XSTATE: i64 = 0x202;
    let pid = tracee(|| 0);
    let (_, len, image) = get_set(pid, XSTATE, ROOM);
    if len == ROOM {
        return println!("{}", next(pid));
    }
    for (word, bits) in [(3, 0x8000_0000_u64), (64, 1 << 62), (65, 1 << 63), (66, 1), (71, 1 << 40)] {
        let mut bad = image.clone();
        bad[word] |= bits;
        println!("word {word}: {}", show(set_set(pid, XSTATE, &bad, len)));
    }
    let mut bad = get_set(pid, PRFPREG, 512).2;
    bad[3] |= 1 << 31;
    report("control word", set_set(pid, PRFPREG, &bad, 512));
    println!("{}", next(pid));
}

#[cfg(target_arch = "aarch64")]
pub(super) fn hostile_registers() {
    let pid = tracee(|| 0);
    for pstate in [0x5, 0x10, 0x3c5, 0x80, 0x1d] {
        println!("{pstate:#x}: {}", show(change(pid, 33, pstate)));
    }
    println!("{}", next(pid));
    for pc in [1_u64 << 63, 0, 2, 0xffff_0000_0000_0000] {
        let pid = tracee(|| 0);
        report("instruction pointer", change(pid, PLACES[0], pc));
        println!("{pc:#x}: {}", next(pid));
        sys!(libc::SYS_kill, pid, libc::SIGKILL);
        stop(pid);
    }
}

/// What a vector register holds after SIGUSR1, which the tracer keeps, if it was `value` before.
fn keep_over_signal(value: f64) -> f64 {
    let (number, pid, signal) = (libc::SYS_kill, super::me(), i64::from(libc::SIGUSR1));
    let mut kept = value;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: kill(2), and a register that nobody else uses meanwhile.
    unsafe {
        core::arch::asm!("movsd xmm14, [{kept}]", "syscall", "movsd [{kept}], xmm14", kept = in(reg) &raw mut kept,
            inlateout("rax") number => _, in("rdi") pid, in("rsi") signal, out("rcx") _, out("r11") _,
            out("xmm14") _);
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("ldr d14, [{kept}]", "svc #0", "str d14, [{kept}]", kept = in(reg) &raw mut kept,
            in("x8") number, inlateout("x0") pid => _, in("x1") signal, out("v14") _);
    }
    kept
}

/// A vector register survives, and is what its tracer says.
pub(super) fn floating_point() {
    let pid = tracee(|| {
        println!("it has {:?}", keep_over_signal(2.5));
        0
    });
    println!("{}", next(pid));
    let place = if cfg!(target_arch = "x86_64") { 160 / 8 + 2 * 14 } else { 2 * 14 };
    let (result, len, mut words) = get_set(pid, PRFPREG, 8000);
    println!("{} {:?}", show(result), f64::from_bits(words[place]));
    words[place] = 6.5_f64.to_bits();
    report("set", set_set(pid, PRFPREG, &words, len));
    println!("{}", next(pid));
}

/// Instructions one by one: over plain ones, a call, and into a handler.
#[cfg(target_arch = "x86_64")]
pub(super) fn steps() {
    let pid = tracee(|| {
        sys::handle(libc::SIGUSR1, super::count, 0);
        sys!(libc::SYS_kill, super::me(), libc::SIGUSR1);
        sys!(libc::SYS_getppid);
        0
    });
    let step = |signal: i32| {
        report_not_ok("step", pt(libc::PTRACE_SINGLESTEP, pid, 0, i64::from(signal)));
        stop(pid)
    };
    let mut moved = 0;
    let mut last = general(pid).0[16];
    for _ in 0..20 {
        let at = step(0);
        let now = general(pid).0[16];
        moved += i32::from(at == "stopped by 5" && now != last);
        last = now;
    }
    println!("moved {moved}, {}", info(pid, pid).replace("own true", "own false"));
    println!("flag {:#x}", general(pid).0[18] & 0x100);
    println!("{}", next(pid));
    println!("into the handler: {}, {}", step(libc::SIGUSR1), info(pid, pid));
    println!("first argument {}", general(pid).0[14]);
    println!("then {}", step(0));
    let mut steps = 0;
    let end = loop {
        steps += 1;
        let at = step(0);
        if at != "stopped by 5" || steps > 100_000 {
            break at;
        }
    };
    println!("{end}, after many: {}", steps > 50);
}

#[cfg(target_arch = "aarch64")]
pub(super) fn steps() {}

pub(super) fn mask() {
    const GETSIGMASK: u32 = 0x420a;
    const SETSIGMASK: u32 = 0x420b;
    let pid = tracee(|| {
        sys!(libc::SYS_kill, super::me(), libc::SIGUSR1);
        println!("blocked {:?}", sys::members(sys::mask(libc::SIG_BLOCK, 0)));
        sys::mask(libc::SIG_SETMASK, 0);
        0
    });
    let mut set = sys::set_of(&[libc::SIGUSR1, libc::SIGKILL, libc::SIGTERM]);
    report("wrong size", pt(GETSIGMASK, pid, 4, &raw mut set as i64));
    report("set", pt(SETSIGMASK, pid, 8, &raw mut set as i64));
    report("get", pt(GETSIGMASK, pid, 8, &raw mut set as i64));
    println!("{:?}", sys::members(set));
    println!("{}", next(pid));
    println!("{}", next(pid));
}
