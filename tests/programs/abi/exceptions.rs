//! Synchronous exceptions: which signal, code and address each gives.

use crate::Case;
use crate::sys::{self, fork, handle, memory, wait};

pub(crate) const CASES: &[Case] = &[
    ("exception_memory", memory_faults),
    ("exception_file_mapping", file_mapping),
    ("exception_instructions", instructions),
    ("exception_default_kills", default_kills),
    ("exception_blocked_kills", blocked_kills),
    ("exception_handler_repairs", handler_repairs),
    ("exception_kernel_addresses", kernel_addresses),
];

/// The address that the running case expects, to print it as a difference.
static mut EXPECTED: i64 = 0;

extern "C" fn tell(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
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
    println!("  signal {signal} signo {signo} code {code} at {place}");
    sys::flush();
    sys::exit(0);
}

/// Runs `fault` in a child whose handlers tell what happened.
fn provoke(what: &str, expected: i64, fault: impl FnOnce()) {
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
    provoke("execute data", page, || jump(page));
    provoke("execute near null", 0x10, || jump(0x10));
    let text = memory_faults as *const () as i64;
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

#[cfg(target_arch = "x86_64")]
fn instructions() {
    use core::arch::asm;
    // SAFETY (every block): the exception is the point; it ends the child.
    let here = 0;
    provoke("ud2", here, || unsafe { asm!("ud2") });
    provoke("int3", here, || unsafe { asm!("int3") });
    provoke("hlt", here, || unsafe { asm!("hlt") });
    provoke("cli", here, || unsafe { asm!("cli") });
    provoke("out", here, || unsafe { asm!("out 0x80, al") });
    provoke("divide by zero", here, || unsafe {
        asm!("xor edx, edx", "mov eax, 1", "xor ecx, ecx", "div ecx", out("eax") _, out("ecx") _, out("edx") _);
    });
    provoke("divide overflow", here, || unsafe {
        asm!("mov edx, 2", "xor eax, eax", "mov ecx, 1", "div ecx", out("eax") _, out("ecx") _, out("edx") _);
    });
    provoke("non-canonical read", here, || {
        sys::peek(0x0100_0000_0000_0000);
    });
    provoke("non-canonical stack", here, || unsafe {
        asm!("mov r12, rsp", "mov rsp, {0}", "push rax", "mov rsp, r12", in(reg) 0x0100_0000_0000_0000_u64,
            out("r12") _);
    });
    provoke("non-canonical jump", here, || jump(0x0100_0000_0000_0000));
    provoke("SSE divide by zero, unmasked", here, || unsafe {
        let control = 0x1f80_u32 & !(1 << 9);
        asm!("ldmxcsr [{0}]", "divss {1}, {2}", in(reg) &raw const control, inout(xmm_reg) 1.0_f32 => _,
            in(xmm_reg) 0.0_f32);
    });
    provoke("SSE invalid, unmasked", here, || unsafe {
        let control = 0x1f80_u32 & !(1 << 7);
        asm!("ldmxcsr [{0}]", "divss {1}, {2}", in(reg) &raw const control, inout(xmm_reg) 0.0_f32 => _,
            in(xmm_reg) 0.0_f32);
    });
    provoke("x87 divide by zero, unmasked", here, || unsafe {
        let control = 0x037f_u16 & !(1 << 2);
        asm!("fldcw [{0}]", "fldz", "fld1", "fdivrp", "fwait", in(reg) &raw const control);
    });
    provoke("misaligned SSE", here, || unsafe {
        let area = [0_u8; 64];
        asm!("movaps xmm0, [{0}]", in(reg) (area.as_ptr() as usize & !15) + 1, out("xmm0") _);
    });
    provoke("alignment check", here, || unsafe {
        asm!("pushfq", "or qword ptr [rsp], 0x40000", "popfq", "mov rax, rsp", "mov eax, [rax + 1]", out("rax") _);
    });
    provoke("single step", here, || unsafe {
        asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop");
    });
    provoke("bad selector", here, || unsafe {
        asm!("mov ds, {0:x}", in(reg) 0xfff8_u32);
    });
    provoke("popf cannot take interrupts or IOPL", here, || {
        let (before, flags): (u64, u64);
        unsafe {
            asm!("pushfq", "pop {0}", "mov {1}, {0}", "xor {1}, 0x3200", "push {1}", "popfq", "pushfq", "pop {1}",
                out(reg) before, out(reg) flags);
        }
        println!("  interrupts {:#x} changed {:#x}", flags & 0x200, (before ^ flags) & 0x3200);
    });
    provoke("rdpmc", here, || unsafe {
        asm!("rdpmc", in("ecx") 0, out("eax") _, out("edx") _);
    });
    provoke("invlpg", here, || unsafe { asm!("invlpg [rsp]") });
    provoke("rdmsr", here, || unsafe {
        asm!("rdmsr", in("ecx") 0x10, out("eax") _, out("edx") _);
    });
    provoke("mov from cr0", here, || unsafe {
        asm!("mov rax, cr0", out("rax") _);
    });
    provoke("int 0x20", here, || unsafe { asm!("int 0x20") });
    provoke("int 4", here, || unsafe { asm!("int 4") });
}

#[cfg(target_arch = "aarch64")]
fn instructions() {
    use core::arch::asm;
    let here = 0;
    // SAFETY (every block): the exception is the point; it ends the child.
    provoke("udf", here, || unsafe { asm!("udf #0") });
    provoke("brk", here, || unsafe { asm!("brk #1") });
    provoke("hvc", here, || unsafe { asm!("hvc #0") });
    provoke("msr daifset", here, || unsafe { asm!("msr daifset, #2") });
    provoke("mrs sctlr_el1", here, || unsafe {
        asm!("mrs {0}, sctlr_el1", out(reg) _);
    });
    let odd = memory(4096) + 1;
    provoke("misaligned exclusive", odd, || unsafe {
        asm!("ldxr {0}, [{1}]", out(reg) _, in(reg) odd);
    });
    provoke("misaligned jump", here, || jump(0x1001));
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
