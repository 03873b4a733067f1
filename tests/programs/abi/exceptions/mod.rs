//! Synchronous exceptions: which signal, code and address each gives.

use crate::Case;
use crate::sys::{self, fork, handle, memory, wait};

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
use aarch64 as cpu;
#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
use x86_64 as cpu;

pub(crate) const CASES: &[Case] = &[
    ("exception_memory", memory_faults),
    ("exception_file_mapping", file_mapping),
    ("exception_instructions", cpu::instructions),
    ("exception_default_kills", default_kills),
    ("exception_blocked_kills", blocked_kills),
    ("exception_handler_repairs", handler_repairs),
    ("exception_kernel_addresses", kernel_addresses),
];

/// Many more instructions than a quick look needs.
pub(crate) const MORE: &[Case] = &[("exception_instructions_more", cpu::more)];

/// The address that the running case expects, to print it as a difference.
static mut EXPECTED: i64 = 0;

extern "C" fn tell(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let (signo, code, ..) = sys::info_fields(info);
    let address = sys::info_address(info);
    // SAFETY: written before the fault by the same thread.
    let expected = unsafe { EXPECTED };
    let place = if address == expected {
        "the address".to_owned()
    } else if address == 0 {
        "0".to_owned()
    } else {
        format!("off by {}", address.wrapping_sub(expected))
    };
    println!(
        "  signal {signal} signo {signo} code {code} at {place}{}",
        cpu::reason(context.cast(), address)
    );
    sys::flush();
    sys::exit(0);
}

/// Runs `fault` in a child whose handlers tell what happened.
pub(crate) fn provoke(what: &str, expected: i64, fault: impl FnOnce()) {
    println!("{what}:");
    let pid = fork(|| {
        // SAFETY: single-threaded.
        unsafe { EXPECTED = expected };
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS] {
            handle(signal, tell, 0);
        }
        fault();
        println!("  nothing happened");
        0
    });
    let end = wait(pid);
    if end != "exited 0" {
        println!("  {end}");
    }
}

fn memory_faults() {
    provoke("read near null", 8, || {
        sys::peek(8);
    });
    provoke("write near null", 16, || sys::poke(16, 1));
    let page = memory(4096 * 3);
    sys!(libc::SYS_mprotect, page + 4096, 4096, libc::PROT_READ);
    provoke("write to a read-only page", page + 4100, || sys::poke(page + 4100, 1));
    sys!(libc::SYS_mprotect, page + 4096, 4096, libc::PROT_NONE);
    provoke("read of PROT_NONE", page + 4097, || {
        sys::peek(page + 4097);
    });
    sys!(libc::SYS_munmap, page + 4096, 4096);
    provoke("read of an unmapped page", page + 4096, || {
        sys::peek(page + 4096);
    });
    provoke("execute data", page, || {
        sys::poke(page, 0xc3);
        jump(page);
    });
    provoke("execute near null", 0x10, || jump(0x10));
    let text = memory_faults as *const () as i64;
    // Read first: the CPU tells what is not there yet from what may not be written.
    sys::peek(text);
    provoke("write to text", text, || sys::poke(text, 0));
    provoke("a word across the end", page + 4096, || {
        let _word: u64 = sys::load(page + 4092);
    });
}

fn jump(address: i64) {
    // SAFETY: the fault is the point.
    let target: extern "C" fn() = unsafe { std::mem::transmute(address) };
    target();
}

fn file_mapping() {
    sys::scratch("fault");
    std::fs::write("file", vec![7_u8; 5000]).expect("a file");
    let fd = sys::open("file", libc::O_RDWR, 0);
    let map = sys::mmap(0, 16384, 3, libc::MAP_SHARED, fd, 0);
    println!("in the file {} behind its end in the page {}", sys::peek(map + 4999), sys::peek(map + 5001));
    provoke("read behind the last page", map + 8192, || {
        sys::peek(map + 8192);
    });
    let copy = sys::mmap(0, 16384, 3, libc::MAP_PRIVATE, fd, 0);
    provoke("write behind the last page", copy + 12288, || sys::poke(copy + 12288, 1));
    let reader = sys::open("file", libc::O_RDONLY, 0);
    let map = sys::mmap(0, 4096, libc::PROT_READ, libc::MAP_SHARED, reader, 0);
    provoke("write to a read-only file", map, || sys::poke(map, 1));
    sys::unscratch();
}

fn default_kills() {
    for (what, signal) in [("segv", libc::SIGSEGV), ("bus", libc::SIGBUS), ("ill", libc::SIGILL)] {
        sys::in_child(what, || {
            let none = [0_u64; 2];
            sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_CORE, none.as_ptr(), 0);
            sys::action(signal, libc::SIG_DFL, 0, &[]);
            match signal {
                libc::SIGSEGV => {
                    sys::peek(8);
                }
                _ => _ = sys!(libc::SYS_kill, sys!(libc::SYS_getpid), signal),
            }
            0
        });
    }
}

fn blocked_kills() {
    sys::in_child("a blocked fault cannot be ignored", || {
        handle(libc::SIGSEGV, tell, 0);
        sys::mask(libc::SIG_BLOCK, sys::set_of(&[libc::SIGSEGV]));
        sys::peek(8);
        0
    });
    sys::in_child("nor an ignored one", || {
        sys::action(libc::SIGSEGV, libc::SIG_IGN, 0, &[]);
        sys::peek(8);
        0
    });
}

fn handler_repairs() {
    extern "C" fn repair(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        let page = sys::info_address(info) & !4095;
        sys!(libc::SYS_mprotect, page, 4096, libc::PROT_READ | libc::PROT_WRITE);
    }
    let area = sys::mmap(0, 65536, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
    handle(libc::SIGSEGV, repair, 0);
    for page in 0..16 {
        sys::poke(area + page * 4096 + 5, page as u8);
    }
    println!("repaired: {}", (0..16).all(|page| sys::peek(area + page * 4096 + 5) == page as u8));
}

fn kernel_addresses() {
    // Neither the top half nor anything the sandbox keeps for itself may be read, and calls on it fail.
    for address in [-4096_i64, -1, i64::MIN, 0xffff_8000_0000_0000_u64 as i64] {
        provoke("read above the user half", address, || {
            sys::peek(address);
        });
        sys::report("write(2) from there", sys!(libc::SYS_write, sys::pipe(0).1, address, 8));
    }
    sys::report("mmap there", sys::mmap(i64::MIN, 4096, 3, 0x32, -1, 0));
    sys::report("munmap there", sys!(libc::SYS_munmap, i64::MIN, 4096));
}
