//! Calls that take as long as a number says.

use crate::sys;

/// The most that one call moves (Linux's MAX_RW_COUNT).
const MOST: u64 = 0x7fff_f000;

/// Populates more address space than there is time, again and again. (The zero page needs no memory.)
pub(crate) fn populate() -> i32 {
    loop {
        if sys::map(100 << 40, libc::PROT_READ, libc::MAP_POPULATE) < 0 {
            return 1;
        }
    }
}

/// Asks for the same of a range that is there.
pub(crate) fn advise() -> i32 {
    const MADV_POPULATE_READ: i32 = 22;
    let len = 100_u64 << 40;
    let at = sys::map(len, libc::PROT_READ, 0);
    loop {
        if sys!(libc::SYS_madvise, at, len, MADV_POPULATE_READ) != 0 {
            return 1;
        }
    }
}

/// Punches a hole as large as a file can be, where there is nothing.
pub(crate) fn punch() -> i32 {
    let len = 15_i64 << 40;
    let Some(file) = file(len) else { return 1 };
    let how = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    loop {
        if sys!(libc::SYS_fallocate, file, how, 0, len) != 0 {
            return 2;
        }
    }
}

/// Sends a file without an end nowhere.
pub(crate) fn send() -> i32 {
    let Some(file) = file(15 << 40) else { return 1 };
    let nowhere = sys!(libc::SYS_openat, libc::AT_FDCWD, c"/dev/null".as_ptr(), libc::O_WRONLY);
    loop {
        if sys!(libc::SYS_sendfile, nowhere, file, 0, MOST) <= 0 {
            return 2;
        }
    }
}

/// Reads as much as one call can: into the same pages over and over, so that it takes time and no memory.
pub(crate) fn random() -> i32 {
    read_much(c"/dev/urandom")
}

/// The same of nothing.
pub(crate) fn zero() -> i32 {
    read_much(c"/dev/zero")
}

/// The same of a file without an end.
pub(crate) fn sparse() -> i32 {
    match file(15 << 40) {
        Some(file) => read_into_the_same(file),
        None => 1,
    }
}

/// Reads as much of its own memory as of another's.
pub(crate) fn peek() -> i32 {
    let len = 2_u64 << 20;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let [from, to] = [sys::map(len, prot, libc::MAP_POPULATE) as u64, sys::map(len, prot, 0) as u64];
    let parts = |at: u64| vec![[at, len]; 1023];
    let (from, to, me) = (parts(from), parts(to), sys!(libc::SYS_getpid));
    loop {
        let (own, theirs) = ((to.as_ptr(), to.len()), (from.as_ptr(), from.len()));
        if sys!(libc::SYS_process_vm_readv, me, own.0, own.1, theirs.0, theirs.1, 0) <= 0 {
            return 1;
        }
    }
}

fn read_much(name: &std::ffi::CStr) -> i32 {
    read_into_the_same(sys!(libc::SYS_openat, libc::AT_FDCWD, name.as_ptr(), libc::O_RDONLY))
}

fn read_into_the_same(file: i64) -> i32 {
    let len = 2_u64 << 20;
    let at = sys::map(len, libc::PROT_READ | libc::PROT_WRITE, 0) as u64;
    let parts = vec![[at, len]; 1023];
    loop {
        if sys!(libc::SYS_readv, file, parts.as_ptr(), parts.len()) <= 0 {
            return 1;
        }
    }
}

/// Writes to standard input, which is a pipe that nobody reads, as much as it takes and more.
pub(crate) fn flood() -> i32 {
    let bytes = [0_u8; 4096];
    loop {
        if sys!(libc::SYS_write, 0, bytes.as_ptr(), bytes.len()) < 0 {
            return 1;
        }
    }
}

/// Makes and unmakes as many areas as a process can have.
pub(crate) fn areas() -> i32 {
    const COUNT: u64 = 30_000;
    let (read, write) = (libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE);
    loop {
        let at = sys::map(COUNT * 8192, write, 0);
        if at < 0 {
            return 1;
        }
        for area in 0..COUNT as i64 {
            sys!(libc::SYS_mprotect, at + area * 8192, 4096, read);
        }
        sys!(libc::SYS_munmap, at, COUNT * 8192);
    }
}

/// An empty file of this length.
fn file(len: i64) -> Option<i64> {
    let file = sys!(libc::SYS_memfd_create, c"hole".as_ptr(), 0);
    (sys!(libc::SYS_ftruncate, file, len) == 0).then_some(file)
}
