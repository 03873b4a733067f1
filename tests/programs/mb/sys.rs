//! The system calls that are measured, made as directly as libc allows.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The exit status of `mb true`: not 0, so that a failed exec is not taken for it.
pub(crate) const TRUE_STATUS: u8 = 7;
const PAGE: usize = 4096;

fn failed(what: &str) -> String {
    format!("{what}: {}", io::Error::last_os_error())
}

/// Reads CLOCK_MONOTONIC in nanoseconds.
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec that the call fills.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

pub(crate) fn getpid() -> i32 {
    // SAFETY: takes and changes nothing.
    unsafe { libc::getpid() }
}

pub(crate) fn read(from: &impl AsRawFd, buffer: &mut [u8]) -> isize {
    // SAFETY: the buffer is writable for its whole length.
    unsafe { libc::read(from.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) }
}

pub(crate) fn write(to: &impl AsRawFd, buffer: &[u8]) -> isize {
    // SAFETY: the buffer is readable for its whole length.
    unsafe { libc::write(to.as_raw_fd(), buffer.as_ptr().cast(), buffer.len()) }
}

/// Returns the reading and the writing end of a new pipe.
pub(crate) fn pipe() -> Result<(File, File), String> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors.
    if unsafe { libc::pipe(ends.as_mut_ptr()) } != 0 {
        return Err(failed("pipe"));
    }
    // SAFETY: pipe returned two descriptors that nothing else owns.
    let own = ends.map(|fd| File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
    Ok(own.into())
}

/// Forks; the child exits at once with the status that `child` returns.
pub(crate) fn fork(child: impl FnOnce() -> i32) -> Result<i32, String> {
    // SAFETY: the callers fork while no other thread runs, and the child makes only bare system calls.
    match unsafe { libc::fork() } {
        -1 => Err(failed("fork")),
        0 => {
            let status = child();
            // SAFETY: ends the child without running the parent's destructors.
            unsafe { libc::_exit(status) }
        }
        pid => Ok(pid),
    }
}

/// Waits for a child and returns its exit status, or 128 + its signal.
pub(crate) fn wait(pid: i32) -> Result<i32, String> {
    let mut status = 0;
    // SAFETY: `status` is a live integer that the call fills.
    if unsafe { libc::waitpid(pid, &mut status, 0) } != pid {
        return Err(failed("waitpid"));
    }
    Ok(match libc::WIFEXITED(status) {
        true => libc::WEXITSTATUS(status),
        false => 128 + libc::WTERMSIG(status),
    })
}

/// This program with the argument that makes it exit at once, ready for execve.
pub(crate) struct Program {
    path: CString,
    argument: CString,
}

impl Program {
    pub(crate) fn new(path: &str) -> Result<Self, String> {
        let path = CString::new(path).map_err(|e| e.to_string())?;
        let argument = c"true".to_owned();
        Ok(Self { path, argument })
    }

    /// Returns only if it cannot be executed.
    pub(crate) fn exec(&self) -> i32 {
        let arguments = [self.path.as_ptr(), self.argument.as_ptr(), ptr::null()];
        let environment = [ptr::null()];
        // SAFETY: both lists end with a null pointer and hold pointers to live C strings.
        unsafe { libc::execve(self.path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        126
    }
}

fn futex(word: &AtomicU32, operation: i32, value: u32) {
    let timeout = ptr::null::<libc::timespec>();
    // SAFETY: the word is live and aligned; there is no timeout.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, timeout) };
}

/// Stores `value` and wakes who waits for it.
pub(crate) fn futex_set(word: &AtomicU32, value: u32) {
    word.store(value, Ordering::Release);
    futex(word, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1);
}

/// Sleeps until the word has this value.
pub(crate) fn futex_wait_until(word: &AtomicU32, value: u32) {
    loop {
        let now = word.load(Ordering::Acquire);
        if now == value {
            return;
        }
        futex(word, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, now);
    }
}

/// Anonymous memory without huge pages, so that each page faults for itself.
pub(crate) struct Mapping {
    start: *mut u8,
    pages: usize,
}

impl Mapping {
    pub(crate) fn new(pages: usize) -> Result<Self, String> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), pages * PAGE, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(failed("mmap"));
        }
        // 64 pages cannot become a huge page; asking would only add a call to what is measured.
        if pages >= 512 {
            // SAFETY: advice about the mapping just made. Kernels without huge pages refuse it, which is fine.
            unsafe { libc::madvise(start, pages * PAGE, libc::MADV_NOHUGEPAGE) };
        }
        let start = start.cast();
        Ok(Self { start, pages })
    }

    /// Writes the first byte of a page, then returns the one behind it, which nobody has written. The write
    /// comes first: a read would bring in the shared zero page, and the write would fault again.
    pub(crate) fn touch(&mut self, page: usize) -> u8 {
        assert!(page < self.pages);
        // SAFETY: both bytes lie in the mapping, which is readable and writable. Volatile: the touch is the point.
        unsafe {
            let at = self.start.add(page * PAGE);
            at.write_volatile(0xa5);
            at.add(1).read_volatile()
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `new` mapped; nothing refers to it any more.
        unsafe { libc::munmap(self.start.cast(), self.pages * PAGE) };
    }
}

static USR1: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_usr1(_signal: i32) {
    USR1.fetch_add(1, Ordering::Relaxed);
}

/// Installs a handler that counts SIGUSR1.
pub(crate) fn handle_usr1() -> Result<(), String> {
    let handler: extern "C" fn(i32) = on_usr1;
    // SAFETY: the handler only adds to an atomic.
    let old = unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    if old == libc::SIG_ERR {
        return Err(failed("signal"));
    }
    Ok(())
}

pub(crate) fn usr1_count() -> u64 {
    USR1.load(Ordering::Relaxed)
}

/// Sends SIGUSR1 to the process itself; it is handled before this returns.
pub(crate) fn raise_usr1(own: i32) -> Result<(), String> {
    // SAFETY: a signal that this process handles.
    match unsafe { libc::kill(own, libc::SIGUSR1) } {
        0 => Ok(()),
        _ => Err(failed("kill")),
    }
}

/// Switches the loopback interface on, where there is one to be switched. (What does not work is noticed by whoever
/// connects.)
pub(crate) fn loopback_up() {
    let mut request = [0_u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16..18].copy_from_slice(&(libc::IFF_UP as u16 | libc::IFF_RUNNING as u16).to_ne_bytes());
    // SAFETY: the request is a whole `struct ifreq`; the descriptor is closed again.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        libc::ioctl(fd, libc::SIOCSIFFLAGS as _, request.as_mut_ptr());
        libc::close(fd);
    }
}
