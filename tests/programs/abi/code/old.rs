//! What only x86_64 has: the trap flag, and system calls that are made by calling fixed addresses.

use crate::sys::{self, fork, handle, in_child, report, wait};
use std::arch::asm;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

static STEPS: AtomicU64 = AtomicU64::new(0);
static CODES: AtomicU64 = AtomicU64::new(0);
static CRC: AtomicU64 = AtomicU64::new(0);

/// Notes where a step ended, relative to the first one.
extern "C" fn stepped(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    static FIRST: AtomicU64 = AtomicU64::new(0);
    let at = sys::info_address(info) as u64;
    let step = STEPS.fetch_add(1, SeqCst);
    if step == 0 {
        FIRST.store(at, SeqCst);
    }
    CODES.fetch_or(1 << sys::info_fields(info).1, SeqCst);
    let place = at.wrapping_sub(FIRST.load(SeqCst));
    CRC.store(CRC.load(SeqCst).wrapping_mul(31).wrapping_add(place), SeqCst);
}

/// Every instruction traps, system calls and repeated ones included, and handlers run at full speed.
pub(super) fn single_stepped() {
    handle(libc::SIGTRAP, stepped, 0);
    let (from, mut to) = ([5_u8; 16], [0_u8; 16]);
    for _ in 0..3 {
        let result: i64;
        // SAFETY: the handler changes no register; the calls have no effect; sixteen bytes are copied.
        unsafe {
            asm!(
                "pushfq", "or qword ptr [rsp], 0x100", "popfq",
                "nop",
                "mov eax, 39", "syscall",
                "mov ecx, 16", "rep movsb",
                "2: dec r8", "jnz 2b",
                "mov eax, 186", "syscall",
                "pushfq", "and qword ptr [rsp], -0x101", "popfq",
                "nop",
                out("rax") result, out("rcx") _, out("r11") _,
                inout("rsi") from.as_ptr() => _, inout("rdi") to.as_mut_ptr() => _, inout("r8") 5_u64 => _,
            );
        }
        println!(
            "{} steps, codes {:#x}, places {:#x}",
            STEPS.swap(0, SeqCst),
            CODES.load(SeqCst),
            CRC.load(SeqCst)
        );
        println!("a call worked: {}", result == sys!(libc::SYS_gettid));
    }
    println!("afterwards {}", STEPS.load(SeqCst));
}

const GETTIMEOFDAY: u64 = 0xffff_ffff_ff60_0000;
const TIME: u64 = 0xffff_ffff_ff60_0400;
const GETCPU: u64 = 0xffff_ffff_ff60_0800;

/// Calls an address with two arguments.
fn at(address: u64, first: i64, second: i64) -> i64 {
    let result;
    // SAFETY: what is called changes no more registers than a system call does, or the child ends.
    unsafe {
        asm!("call {0}", in(reg) address, inout("rdi") first => _, inout("rsi") second => _, in("rdx") 0, out("rax") result,
            out("rcx") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    result
}

/// Programs from before the vDSO. Compared where the host's kernel has them.
pub(super) fn calls() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    println!("{:?}", maps.lines().last().filter(|line| line.contains("vsyscall")));
    in_child("time", || {
        let mut stored = 0_i64;
        let (before, now) = (sys!(libc::SYS_time, 0), at(TIME, &raw mut stored as i64, 0));
        println!("{} {}", (before..before + 60).contains(&now), stored == now);
        println!("{}", (before..before + 60).contains(&at(TIME, 0, 0)));
        0
    });
    in_child("gettimeofday", || {
        let (mut value, mut zone) = ([0_i64; 2], [7_i32; 2]);
        let before = sys!(libc::SYS_time, 0);
        report("called", at(GETTIMEOFDAY, value.as_mut_ptr() as i64, zone.as_mut_ptr() as i64));
        println!(
            "{} {} {zone:?}",
            (before..before + 60).contains(&value[0]),
            (0..1_000_000).contains(&value[1])
        );
        report("nothing wanted", at(GETTIMEOFDAY, 0, 0));
        0
    });
    in_child("getcpu", || {
        let (mut cpu, mut node) = (-1_i32, -1_i32);
        report("called", at(GETCPU, &raw mut cpu as i64, &raw mut node as i64));
        println!("{} {node}", cpu >= 0);
        0
    });
    for (what, address, argument) in [
        ("a bad pointer", TIME, 8),
        ("a kernel pointer", TIME, -4096),
        ("between the calls", TIME + 1, 0),
        ("behind them", GETCPU + 0x400, 0),
    ] {
        println!("{what}: {}", wait(fork(|| at(address, argument, 0) as i32)));
    }
    println!("a look at it: {}", wait(fork(|| i32::from(sys::peek(TIME as i64)))));
}
