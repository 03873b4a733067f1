//! Code that changes: written by the program itself, read from files, files overwritten and executed again.
//!
//! What is a matter of caches on aarch64 (Arm ARM B2.4.4): a program cleans and invalidates what it writes itself, the
//! kernel does it for what it reads from files.

use crate::Case;
use crate::sys::{self, fork, memory, mmap, wait};

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "sets the trap flag, and calls fixed addresses")]
mod old;

pub(crate) const CASES: &[Case] = &[
    ("code_jit", jit),
    ("code_jit_elsewhere", jit_elsewhere),
    ("code_through_two_mappings", two_mappings),
    ("code_from_a_file", from_a_file),
    ("code_program_overwritten", program_overwritten),
    #[cfg(target_arch = "x86_64")]
    ("code_single_stepped", old::single_stepped),
    #[cfg(target_arch = "x86_64")]
    ("code_old_calls", old::calls),
];

const RWX: i32 = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
const RX: i32 = libc::PROT_READ | libc::PROT_EXEC;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
/// Where [`write_program`]'s programs lie.
const BASE: u64 = 0x5000_0000;

/// A function that returns `value`.
#[cfg(target_arch = "x86_64")]
fn returning(value: u16) -> Vec<u8> {
    let [low, high] = value.to_le_bytes();
    vec![0xb8, low, high, 0, 0, 0xc3]
}

/// A function that returns `value`.
#[cfg(target_arch = "aarch64")]
fn returning(value: u16) -> Vec<u8> {
    let movz = 0x5280_0000_u32 | u32::from(value) << 5;
    [movz.to_le_bytes(), 0xd65f_03c0_u32.to_le_bytes()].concat()
}

/// A program that exits with `status`.
#[cfg(target_arch = "x86_64")]
fn exiting(status: u8) -> Vec<u8> {
    vec![0xbf, status, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]
}

/// A program that exits with `status`.
#[cfg(target_arch = "aarch64")]
fn exiting(status: u8) -> Vec<u8> {
    let words = [0x5280_0000 | u32::from(status) << 5, 0x5280_0008 | 94 << 5, 0xd400_0001];
    words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect()
}

/// Writes an ELF program that is nothing but `code`.
pub(crate) fn write_program(path: &str, code: &[u8]) {
    let machine: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    let start = 64 + 56;
    let length = (start + code.len()) as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2_u16, machine].iter().flat_map(|half| half.to_le_bytes()));
    file.extend(1_u32.to_le_bytes());
    file.extend([BASE + start as u64, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 56, 1, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    // PT_LOAD, readable and executable.
    file.extend([1_u32, 5].iter().flat_map(|half| half.to_le_bytes()));
    file.extend([0, BASE, BASE, length, length, 4096].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(code);
    // Over the old contents where there are any: the same file, other bytes.
    std::fs::write(path, &file).expect("a program can be written");
    let path = sys::c(path);
    sys!(libc::SYS_fchmodat, libc::AT_FDCWD, path.as_ptr(), 0o755);
}

/// Puts code at an address, as a JIT compiler does, and calls it.
fn put(at: i64, code: &[u8]) {
    code.iter().enumerate().for_each(|(n, byte)| sys::poke(at + n as i64, *byte));
    sys::synchronize(at);
}

fn jit() {
    let area = mmap(0, 4096, RWX, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
    let good = (0..2000_u16).filter(|value| {
        put(area, &returning(*value));
        sys::jump(area) == i32::from(*value)
    });
    println!("{} of 2000 versions ran", good.count());
    // As those do that never have a page writable and executable at once.
    let good = (0..200_u16).filter(|value| {
        sys!(libc::SYS_mprotect, area, 4096, RW);
        put(area, &returning(*value));
        sys!(libc::SYS_mprotect, area, 4096, RX);
        sys::jump(area) == i32::from(*value)
    });
    println!("{} of 200 ran after mprotect", good.count());
    sys!(libc::SYS_mprotect, area, 4096, RWX);
    let child = fork(|| {
        put(area, &returning(5));
        sys::jump(area)
    });
    put(area, &returning(6));
    println!("a child's own code: {}, ours {}", wait(child), sys::jump(area));
}

fn jit_elsewhere() {
    // One thread writes, another one, on another CPU perhaps, runs.
    const TURNS: i32 = 50;
    let area = mmap(0, 4096, RWX, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
    let (written, to_run) = std::sync::mpsc::sync_channel::<i32>(0);
    let (ran, done) = std::sync::mpsc::sync_channel::<bool>(0);
    let runner = std::thread::spawn(move || {
        for value in to_run {
            sys::forget_prefetched();
            let _left = ran.send(sys::jump(area) == value);
        }
    });
    let good = (0..TURNS).filter(|turn| {
        put(area, &returning(*turn as u16));
        written.send(*turn).is_ok() && done.recv() == Ok(true)
    });
    println!("{} of {TURNS} ran in the other thread", good.count());
    drop(written);
    println!("joined: {}", runner.join().is_ok());
}

fn two_mappings() {
    let fd = sys!(libc::SYS_memfd_create, c"code".as_ptr(), 0);
    sys!(libc::SYS_ftruncate, fd, 4096);
    let write = mmap(0, 4096, RW, libc::MAP_SHARED, fd, 0);
    let run = mmap(0, 4096, RX, libc::MAP_SHARED, fd, 0);
    let good = (0..200_u16).filter(|value| {
        put(write, &returning(*value));
        sys::synchronize(run);
        sys::jump(run) == i32::from(*value)
    });
    println!("{} of 200 ran through the other mapping", good.count());
}

fn from_a_file() {
    sys::scratch("code");
    let mut good = 0;
    for value in 0..50_u16 {
        std::fs::write("text", returning(value)).expect("a file");
        let fd = sys::open("text", libc::O_RDONLY, 0);
        let text = mmap(0, 4096, RX, libc::MAP_PRIVATE, fd, 0);
        sys::close(fd);
        good += i32::from(sys::jump(text) == i32::from(value));
        sys!(libc::SYS_munmap, text, 4096);
    }
    println!("{good} of 50 files ran");
    // Read into memory by the kernel, then executed.
    let area = memory(4096);
    let fd = sys::open("text", libc::O_RDWR, 0);
    let mut good = 0;
    for value in 0..50_u16 {
        sys!(
            libc::SYS_pwrite64,
            fd,
            returning(value).as_ptr(),
            8 - 2 * i64::from(cfg!(target_arch = "x86_64")),
            0
        );
        sys!(libc::SYS_mprotect, area, 4096, RW);
        sys!(libc::SYS_pread64, fd, area, 64, 0);
        sys!(libc::SYS_mprotect, area, 4096, RX);
        sys::synchronize(area);
        good += i32::from(sys::jump(area) == i32::from(value));
    }
    println!("{good} of 50 reads ran");
    sys::unscratch();
}

fn program_overwritten() {
    sys::scratch("program");
    let mut good = 0;
    for status in 0..40_u8 {
        write_program("program", &exiting(status));
        let child = fork(|| -crate::process::execute("program", &["program"], &[]) as i32);
        good += i32::from(wait(child) == format!("exited {status}"));
    }
    println!("{good} of 40 versions ran");
    sys::unscratch();
}
