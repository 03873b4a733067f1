//! What a random argument is made of.

use crate::sys;
use crate::table::Kind;
use std::ffi::CString;

/// The program's pages that calls are pointed at: writable ones, one that can only be read, and a hole behind them.
const PAGE: u64 = 4096;
const WRITABLE: u64 = 8 * PAGE;
/// How far descriptors count that calls use.
const DESCRIPTORS: u64 = 48;

/// Numbers at which arithmetic ends.
const EDGES: [u64; 24] = [
    0,
    1,
    2,
    3,
    7,
    8,
    64,
    255,
    511,
    4095,
    4096,
    4097,
    65535,
    65536,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_f000,
    0x8000_0000_0000,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// Addresses that are somebody else's: null's page, the stub's, the image's, the arena's, the kernel half.
const ELSEWHERE: [u64; 8] = [
    8,
    0x6800_0000,
    0x7000_0000,
    0x7010_0000,
    384 << 30,
    (384 << 30) + 0x10_0000,
    0xffff_8000_0000_0000,
    1 << 55,
];

const PATHS: [&str; 40] = [
    "",
    ".",
    "..",
    "/",
    "a",
    "a/",
    "a/b",
    "b",
    "c",
    "d/e/f",
    "./a",
    "../fuzz/a",
    "link",
    "link/a",
    "/tmp",
    "/tmp/fuzz/a",
    "/proc/self",
    "/proc/self/mem",
    "/proc/self/maps",
    "/proc/self/fd",
    "/proc/self/fd/3",
    "/proc/self/fd/5",
    "/proc/self/exe",
    "/proc/self/ns/mnt",
    "/proc/self/task",
    "/proc/self/status",
    "/proc/1/mem",
    "/proc/sys/kernel/hostname",
    "/proc/mounts",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/ptmx",
    "/dev/tty",
    "/dev/shm/x",
    "/dev/fd/7",
    "/etc/passwd",
    "/bin",
    "user.name",
    "memory",
];

/// A source of arguments, all of which come from one seed.
pub(crate) struct Values {
    pub(crate) rng: fastrand::Rng,
    pages: u64,
    texts: Vec<CString>,
    carrier: i64,
}

impl Values {
    /// With pages and strings of its own.
    pub(crate) fn new(seed: u64) -> Self {
        let pages = sys::map(WRITABLE + 3 * PAGE, libc::PROT_READ | libc::PROT_WRITE, 0) as u64;
        sys!(libc::SYS_mprotect, pages + WRITABLE, PAGE, libc::PROT_READ);
        sys!(libc::SYS_munmap, pages + WRITABLE + PAGE, 2 * PAGE);
        let long = ["x".repeat(255), "y".repeat(256), "z/".repeat(2000)];
        let texts = PATHS.iter().map(|path| (*path).to_owned()).chain(long);
        let texts = texts.filter_map(|path| CString::new(path).ok()).collect();
        let carrier = sys!(libc::SYS_memfd_create, c"words".as_ptr(), 0);
        Values { rng: fastrand::Rng::with_seed(seed), pages, texts, carrier }
    }

    /// An argument of this kind, most of the time.
    pub(crate) fn argument(&mut self, kind: &Kind) -> u64 {
        match self.rng.u8(..) {
            0..8 => return self.number(),
            8..16 => return self.memory(),
            _ => {}
        }
        match kind {
            Kind::Number => self.number(),
            Kind::Descriptor => self.descriptor(),
            Kind::Text => self.text(),
            Kind::Bits(bits) => (0..self.rng.u8(0..4)).fold(0, |all, _| all | self.one(bits)),
            Kind::One(values) => self.one(values),
            Kind::Signal => self.rng.u64(0..68),
            Kind::Memory => self.memory(),
        }
    }

    fn one(&mut self, values: &[u64]) -> u64 {
        self.rng.choice(values).copied().unwrap_or_default()
    }

    fn number(&mut self) -> u64 {
        match self.rng.u8(0..8) {
            0..3 => self.rng.u64(0..16),
            3 => self.rng.u64(..),
            4 => std::process::id().into(),
            5 => self.rng.u64(0..1 << 20),
            _ => self.one(&EDGES),
        }
    }

    fn descriptor(&mut self) -> u64 {
        match self.rng.u8(0..32) {
            0 => libc::AT_FDCWD as u64,
            1 => self.one(&EDGES),
            _ => self.rng.u64(0..DESCRIPTORS),
        }
    }

    fn text(&mut self) -> u64 {
        let text = self.rng.usize(0..self.texts.len());
        self.texts[text].as_ptr().expose_provenance() as u64
    }

    /// An address: of new words mostly, now and then near an end, or nobody's.
    fn memory(&mut self) -> u64 {
        let end = self.pages + WRITABLE;
        match self.rng.u8(0..16) {
            0 => 0,
            1 => self.one(&ELSEWHERE),
            2 => end + self.rng.u64(0..2 * PAGE),
            3 => end + PAGE - self.rng.u64(0..32),
            4 => end - self.rng.u64(0..128),
            5 => self.pages + self.rng.u64(0..WRITABLE),
            _ => self.words(),
        }
    }

    /// Somewhere in the pages, with words that may mean anything: lengths, addresses, descriptors, times.
    fn words(&mut self) -> u64 {
        let at = self.pages + self.rng.u64(0..WRITABLE / 64 - 4) * 64;
        let words: [u64; 16] = std::array::from_fn(|_| match self.rng.u8(0..8) {
            0 | 1 => 0,
            2 => self.pages + self.rng.u64(0..WRITABLE),
            3 => self.text(),
            4 => self.descriptor() | self.rng.u64(0..1 << 16) << 32,
            _ => self.number(),
        });
        // By way of a file: the page may be gone.
        sys!(libc::SYS_pwrite64, self.carrier, words.as_ptr(), size_of_val(&words), 0);
        sys!(libc::SYS_pread64, self.carrier, at, size_of_val(&words), 0);
        at
    }
}
