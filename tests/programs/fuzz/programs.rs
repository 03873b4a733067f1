//! Executables with something wrong in them.

use crate::{SCRATCH, sys};
use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

/// How many a process tries.
const FILES: usize = 40;
/// How long one may run that has become a program after all.
const RUNS: Duration = Duration::from_millis(100);
/// Where the right program is loaded, and how long it is.
const BASE: u64 = 0x40_0000;
const LENGTH: usize = 0x1200;
/// Sizes of an ELF file's header and a program header (elf(5)).
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const PROGRAM_HEADERS: usize = 6;

/// `exit_group(0)`.
#[cfg(target_arch = "x86_64")]
const CODE: [u8; 9] = [0xb8, 231, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05];
#[cfg(target_arch = "x86_64")]
const MACHINE: u64 = 62;
#[cfg(target_arch = "aarch64")]
const CODE: [u8; 12] = [0xc8, 0x0b, 0x80, 0xd2, 0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4];
#[cfg(target_arch = "aarch64")]
const MACHINE: u64 = 183;

/// Numbers at which loaders' arithmetic ends.
const EDGES: [u64; 16] = [
    0,
    1,
    7,
    0xfff,
    0x1000,
    0x1001,
    0xffff,
    0x6fff_f000,
    0x7000_0000,
    0x7fff_ffff,
    0xffff_ffff,
    384 << 30,
    0x7fff_ffff_f000,
    0xffff_8000_0000_0000,
    i64::MAX as u64,
    u64::MAX,
];

/// Writes files and executes them.
pub(crate) fn victim(seed: u64) -> i32 {
    let mut rng = fastrand::Rng::with_seed(seed);
    let path = format!("{SCRATCH}/{seed}");
    for _ in 0..FILES {
        let bytes = if rng.u8(0..4) == 0 { script(&mut rng, &path) } else { elf(&mut rng) };
        if write(&path, &bytes).is_err() {
            return 1;
        }
        run(&path);
    }
    0
}

fn write(path: &str, bytes: &[u8]) -> std::io::Result<()> {
    // A new file each time: the one before may still be running.
    let _none = std::fs::remove_file(path);
    std::fs::write(path, bytes)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

fn run(path: &str) {
    let Ok(name) = CString::new(path) else { return };
    let child = sys::fork(|| {
        sys!(libc::SYS_execve, name.as_ptr(), [name.as_ptr(), std::ptr::null()].as_ptr(), 0);
        1
    });
    let Ok(child) = child else { return };
    let start = Instant::now();
    while sys::reap().is_none() {
        if start.elapsed() > RUNS {
            sys::kill(child);
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// A right file, with some numbers of its headers replaced, and cut off now and then.
fn elf(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = right();
    for _ in 0..rng.usize(0..5) {
        let table = HEADER + PROGRAM_HEADERS * PROGRAM_HEADER;
        let (at, width) = (rng.usize(0..table), [1, 2, 4, 8][rng.usize(0..4)]);
        let value = if rng.bool() { EDGES[rng.usize(0..EDGES.len())] } else { rng.u64(..) };
        // On its own boundary: a whole field, mostly.
        let at = at / width * width;
        bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }
    if rng.u8(0..8) == 0 {
        bytes.truncate(rng.usize(0..bytes.len()));
    }
    bytes
}

/// A program that ends well, with a header of each kind that a loader reads.
fn right() -> Vec<u8> {
    let code = HEADER + PROGRAM_HEADERS * PROGRAM_HEADER;
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    put(
        &mut bytes,
        &[(2, 2), (MACHINE, 2), (1, 4), (BASE + code as u64, 8), (HEADER as u64, 8), (0, 8), (0, 4)],
    );
    put(
        &mut bytes,
        &[
            (HEADER as u64, 2),
            (PROGRAM_HEADER as u64, 2),
            (PROGRAM_HEADERS as u64, 2),
            (0, 2),
            (0, 2),
            (0, 2),
        ],
    );
    let (load, tls, properties, stack) = (1, 7, 0x6474_e553, 0x6474_e551);
    let text = LENGTH as u64;
    let headers: [[u64; 7]; PROGRAM_HEADERS] = [
        // type, flags, offset, address, size in the file, size in memory, alignment
        [load, 5, 0, BASE, text, text, 0x1000],
        [load, 6, 0x1000, BASE + 0x20_1000, 0x200, 0x5000, 0x1000],
        [load, 4, 0, BASE + 0x40_0000, 0x100, 0x100, 0x1000],
        [tls, 4, 0x1000, BASE + 0x20_1000, 16, 32, 8],
        [properties, 4, 0x1100, BASE + 0x20_1100, 32, 32, 8],
        [stack, 6, 0, 0, 0, 0, 16],
    ];
    for [kind, flags, offset, address, file, memory, align] in headers {
        let fields = [
            (kind, 4),
            (flags, 4),
            (offset, 8),
            (address, 8),
            (address, 8),
            (file, 8),
            (memory, 8),
            (align, 8),
        ];
        put(&mut bytes, &fields);
    }
    bytes.extend(CODE);
    bytes.resize(LENGTH, 0);
    bytes
}

fn put(bytes: &mut Vec<u8>, fields: &[(u64, usize)]) {
    fields.iter().for_each(|(value, width)| bytes.extend(&value.to_le_bytes()[..*width]));
}

/// A script whose interpreter is itself, another script, a program, nothing at all.
fn script(rng: &mut fastrand::Rng, path: &str) -> Vec<u8> {
    let interpreters =
        [path, "/proc/self/exe", "/bin/busybox", "/bin/true", "", "x", "/", "/dev/null", "/proc/self/fd/0"];
    let mut line = b"#!".to_vec();
    line.resize(2 + rng.usize(0..4), b' ');
    line.extend(interpreters[rng.usize(0..interpreters.len())].bytes());
    if rng.bool() {
        line.push([b' ', b'\t', 0, b'/', 0xff][rng.usize(0..5)]);
        line.extend(std::iter::repeat_n(b'a', [0, 1, 100, 126, 250, 255, 256, 5000][rng.usize(0..8)]));
    }
    if rng.bool() {
        line.push(b'\n');
    }
    line
}
