//! System calls as plain functions: results are what the kernel returns, errors negative.
//!
//! They are safe to call only in the sense that a test program may crash itself; keeping the `unsafe` here keeps the
//! cases readable.

use std::ffi::CString;

/// Makes a system call: `sys!(libc::SYS_dup3, 1, 5, 0)`; missing arguments are 0.
macro_rules! sys {
    ($number:expr $(, $arg:expr)* $(,)?) => {
        // One expression: temporaries whose address is passed live until the call has returned.
        $crate::sys::call($number, &[$($arg as i64),*])
    };
}

/// Makes a system call; the result, or a negative errno.
pub(crate) fn call(number: i64, given: &[i64]) -> i64 {
    let mut args = [0_i64; 6];
    args[..given.len()].copy_from_slice(given);
    let result: i64;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a test program; what the call does to memory is the case's business.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") number => result, in("rdi") args[0], in("rsi") args[1],
            in("rdx") args[2], in("r10") args[3], in("r8") args[4], in("r9") args[5], out("rcx") _, out("r11") _);
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("svc #0", in("x8") number, inlateout("x0") args[0] => result, in("x1") args[1],
            in("x2") args[2], in("x3") args[3], in("x4") args[4], in("x5") args[5]);
    }
    result
}

/// The errno name of a negative result, or the value.
pub(crate) fn show(result: i64) -> String {
    if !(-4095..0).contains(&result) {
        return result.to_string();
    }
    let name = match -result as i32 {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::ESRCH => "ESRCH",
        libc::EINTR => "EINTR",
        libc::EIO => "EIO",
        libc::ENXIO => "ENXIO",
        libc::E2BIG => "E2BIG",
        libc::ENOEXEC => "ENOEXEC",
        libc::EBADF => "EBADF",
        libc::ECHILD => "ECHILD",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::EXDEV => "EXDEV",
        libc::ENODEV => "ENODEV",
        libc::ENOTDIR => "ENOTDIR",
        libc::EISDIR => "EISDIR",
        libc::EINVAL => "EINVAL",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        libc::EMFILE => "EMFILE",
        libc::ENOTTY => "ENOTTY",
        libc::ETXTBSY => "ETXTBSY",
        libc::EFBIG => "EFBIG",
        libc::ENOSPC => "ENOSPC",
        libc::ESPIPE => "ESPIPE",
        libc::EROFS => "EROFS",
        libc::EPIPE => "EPIPE",
        libc::ENOLCK => "ENOLCK",
        libc::ERANGE => "ERANGE",
        libc::EDEADLK => "EDEADLK",
        libc::EIDRM => "EIDRM",
        libc::ENOMSG => "ENOMSG",
        libc::ENAMETOOLONG => "ENAMETOOLONG",
        libc::ENOSYS => "ENOSYS",
        libc::ENOTEMPTY => "ENOTEMPTY",
        libc::ELOOP => "ELOOP",
        libc::ENODATA => "ENODATA",
        libc::ENOTSOCK => "ENOTSOCK",
        libc::EDESTADDRREQ => "EDESTADDRREQ",
        libc::EMSGSIZE => "EMSGSIZE",
        libc::EPROTOTYPE => "EPROTOTYPE",
        libc::ENOPROTOOPT => "ENOPROTOOPT",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EAFNOSUPPORT => "EAFNOSUPPORT",
        libc::EADDRINUSE => "EADDRINUSE",
        libc::EISCONN => "EISCONN",
        libc::ENOTCONN => "ENOTCONN",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::ECONNRESET => "ECONNRESET",
        libc::ECANCELED => "ECANCELED",
        libc::EOVERFLOW => "EOVERFLOW",
        other => return format!("-{other}"),
    };
    name.to_owned()
}

/// Prints `what: result`.
pub(crate) fn report(what: &str, result: i64) {
    println!("{what}: {}", show(result));
}

/// Prints `what: ok` for any result that is no error (where the value differs from run to run).
pub(crate) fn report_ok(what: &str, result: i64) {
    println!("{what}: {}", if result >= 0 { "ok".to_owned() } else { show(result) });
}

/// Forks; in the child runs `body` and exits with what it returns. Returns the child's pid.
pub(crate) fn fork(body: impl FnOnce() -> i32) -> i64 {
    // What is buffered would be printed twice.
    flush();
    // SAFETY: the cases are single-threaded where they fork.
    let pid = i64::from(unsafe { libc::fork() });
    // -1 must never get into a kill(2): it means everybody.
    assert!(pid >= 0, "fork failed");
    if pid == 0 {
        let status = body();
        flush();
        exit(status);
    }
    pid
}

/// Writes out what `println!` has buffered.
pub(crate) fn flush() {
    use std::io::Write;
    let _closed = std::io::stdout().flush();
}

/// Ends the process at once.
pub(crate) fn exit(status: i32) -> ! {
    sys!(libc::SYS_exit_group, status);
    std::process::abort()
}

/// Waits for a child and returns what `wait4` says and the status.
pub(crate) fn wait4(pid: i64, options: i32) -> (i64, i32) {
    let mut status = -1_i32;
    let result = sys!(libc::SYS_wait4, pid, &raw mut status, options, 0);
    (result, status)
}

/// Waits for a child and describes its end.
pub(crate) fn wait(pid: i64) -> String {
    let (result, status) = wait4(pid, 0);
    if result == pid { describe(status) } else { format!("wait4 {}", show(result)) }
}

/// Kills a child, and says how it ended.
pub(crate) fn end(pid: i64) {
    sys!(libc::SYS_kill, pid, libc::SIGKILL);
    println!("{}", wait(pid));
}

/// Waits for a signal, for ever.
pub(crate) fn forever() -> i32 {
    loop {
        sys!(libc::SYS_ppoll, 0, 0, 0, 0, 8);
    }
}

/// A wait status in words.
pub(crate) fn describe(status: i32) -> String {
    if libc::WIFEXITED(status) {
        format!("exited {}", libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        format!("killed by {}{}", libc::WTERMSIG(status), if libc::WCOREDUMP(status) { " core" } else { "" })
    } else if libc::WIFSTOPPED(status) {
        format!("stopped by {}", libc::WSTOPSIG(status))
    } else if libc::WIFCONTINUED(status) {
        "continued".to_owned()
    } else {
        format!("status {status:#x}")
    }
}

/// Forks, waits and prints how the child ended.
pub(crate) fn in_child(what: &str, body: impl FnOnce() -> i32) {
    let pid = fork(body);
    println!("{what}: {}", wait(pid));
}

/// Waits until a thread of a process waits for something: what finds it there does not depend on who is faster.
pub(crate) fn until_asleep(pid: i64, tid: i64) {
    let path = format!("/proc/{pid}/task/{tid}/stat");
    // The name in parentheses may hold anything.
    let asleep = || match std::fs::read_to_string(&path) {
        Ok(stat) => stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S')),
        // Nobody is to wait for who is gone.
        Err(_) => true,
    };
    let sleeps_on = || {
        // A kernel may wait for locks of its own, but not for long.
        (0..3).all(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            asleep()
        })
    };
    while !sleeps_on() {}
}

/// A C string.
pub(crate) fn c(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

/// `open` with a mode.
pub(crate) fn open(path: &str, flags: i32, mode: u32) -> i64 {
    let path = c(path);
    sys!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, mode)
}

/// `close`.
pub(crate) fn close(fd: i64) -> i64 {
    sys!(libc::SYS_close, fd)
}

/// `write`.
pub(crate) fn write(fd: i64, bytes: &[u8]) -> i64 {
    sys!(libc::SYS_write, fd, bytes.as_ptr(), bytes.len())
}

/// Writes to a file that exists, in one piece; what open(2) or write(2) said.
pub(crate) fn put(path: &str, text: &str) -> i64 {
    let fd = open(path, libc::O_WRONLY, 0);
    if fd < 0 {
        return fd;
    }
    let result = write(fd, text.as_bytes());
    close(fd);
    result
}

/// `read` of at most `len` bytes: the result and the bytes.
pub(crate) fn read(fd: i64, len: usize) -> (i64, Vec<u8>) {
    let mut bytes = vec![0; len];
    let result = sys!(libc::SYS_read, fd, bytes.as_mut_ptr(), len);
    bytes.truncate(usize::try_from(result).unwrap_or(0));
    (result, bytes)
}

/// Reads and prints result and text.
pub(crate) fn report_read(what: &str, fd: i64, len: usize) {
    let (result, bytes) = read(fd, len);
    println!("{what}: {} {:?}", show(result), String::from_utf8_lossy(&bytes));
}

/// `pipe2`: both ends.
pub(crate) fn pipe(flags: i32) -> (i64, i64) {
    let mut fds = [-1_i32; 2];
    let result = sys!(libc::SYS_pipe2, fds.as_mut_ptr(), flags);
    assert_eq!(result, 0, "pipe2: {}", show(result));
    (i64::from(fds[0]), i64::from(fds[1]))
}

/// A fresh empty directory under /tmp, made the working directory.
pub(crate) fn scratch(name: &str) {
    let path = format!("/tmp/abi-{name}-{}", sys!(libc::SYS_getpid));
    let _absent = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a directory under /tmp");
    std::env::set_current_dir(&path).expect("it can be entered");
}

/// Leaves and removes the directory that [`scratch`] made.
pub(crate) fn unscratch() {
    let path = std::env::current_dir().expect("a working directory");
    let own = path.to_str().is_some_and(|p| p.starts_with("/tmp/abi-") && p.matches('/').count() == 2);
    assert!(own, "only our own directory is removed");
    let _left = std::env::set_current_dir("/");
    let _gone = std::fs::remove_dir_all(path);
}

/// `mmap`.
pub(crate) fn mmap(address: i64, len: usize, prot: i32, flags: i32, fd: i64, offset: i64) -> i64 {
    sys!(libc::SYS_mmap, address, len, prot, flags, fd, offset)
}

/// Private anonymous readable and writable memory.
pub(crate) fn memory(len: usize) -> i64 {
    mmap(0, len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
}

/// Reads a byte at an address.
pub(crate) fn peek(address: i64) -> u8 {
    // SAFETY: a test program; a bad address is the point of some cases.
    unsafe { (address as *const u8).read_volatile() }
}

/// Writes a byte at an address.
pub(crate) fn poke(address: i64, value: u8) {
    // SAFETY: as above.
    unsafe { (address as *mut u8).write_volatile(value) }
}

/// Reads a value at an address.
pub(crate) fn load<T: Copy>(address: i64) -> T {
    // SAFETY: as above.
    unsafe { (address as *const T).read_unaligned() }
}

/// Writes a value at an address.
pub(crate) fn store<T: Copy>(address: i64, value: T) {
    // SAFETY: as above.
    unsafe { (address as *mut T).write_unaligned(value) }
}

/// A signal handler with the `SA_SIGINFO` signature.
pub(crate) type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// Installs a handler.
pub(crate) fn handle(signal: i32, handler: Handler, flags: i32) -> i64 {
    action(signal, handler as usize, flags, &[])
}

/// `sigaction` by handler value (`SIG_IGN`, `SIG_DFL` or an address) and a mask of signals.
pub(crate) fn action(signal: i32, handler: usize, flags: i32, mask: &[i32]) -> i64 {
    // SAFETY: an all-zero sigaction is valid, and the handlers of this program are handlers.
    unsafe {
        let mut new: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = handler;
        new.sa_flags = flags | libc::SA_SIGINFO;
        for number in mask {
            libc::sigaddset(&raw mut new.sa_mask, *number);
        }
        i64::from(libc::sigaction(signal, &raw const new, std::ptr::null_mut()))
    }
}

/// The bit set of some signals, as the kernel has it.
pub(crate) fn set_of(signals: &[i32]) -> u64 {
    signals.iter().fold(0, |set, n| set | 1 << (n - 1))
}

/// `rt_sigprocmask`; the old set.
pub(crate) fn mask(how: i32, set: u64) -> u64 {
    let mut old = 0_u64;
    sys!(libc::SYS_rt_sigprocmask, how, &raw const set, &raw mut old, 8);
    old
}

/// Signals in a set as numbers.
pub(crate) fn members(set: u64) -> Vec<u32> {
    (1..=64).filter(|n| set >> (n - 1) & 1 == 1).collect()
}

/// Fields of a siginfo: signal, code, pid, status-or-value (the union's words).
pub(crate) fn info_fields(info: *const libc::siginfo_t) -> (i32, i32, i32, u32, i64) {
    // SAFETY: the kernel hands handlers a whole siginfo: 128 bytes.
    unsafe {
        let words = info.cast::<i32>();
        (
            words.read(),
            words.add(2).read(),
            words.add(4).read(),
            words.add(5).cast::<u32>().read(),
            words.add(6).cast::<i64>().read_unaligned(),
        )
    }
}

/// `si_addr`.
pub(crate) fn info_address(info: *const libc::siginfo_t) -> i64 {
    // SAFETY: as above.
    unsafe { info.cast::<i64>().add(2).read_unaligned() }
}

/// Calls code at an address.
pub(crate) fn jump(address: i64) -> i32 {
    // SAFETY: the case has put a function there.
    let function: extern "C" fn() -> i32 = unsafe { std::mem::transmute(address) };
    function()
}

/// Makes freshly written code visible to instruction fetch.
pub(crate) fn synchronize(address: i64) {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: cache maintenance by virtual address of memory that the case has written.
    unsafe {
        core::arch::asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", "dsb ish", "isb", in(reg) address);
    }
    std::hint::black_box(address);
}

/// Drops what the processor has fetched ahead: another one may have changed it, and told all caches, meanwhile.
pub(crate) fn forget_prefetched() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier.
    unsafe {
        core::arch::asm!("isb");
    }
}

/// Makes a call with known values in all other registers and says whether they are still there.
#[cfg(target_arch = "x86_64")]
pub(crate) fn keeps_registers(seed: u64) -> bool {
    let (mut r8, mut r9, mut r10, mut r12, mut r13, mut r14, mut r15) =
        (seed, seed + 1, seed + 2, seed + 3, seed + 4, seed + 5, seed + 6);
    let (mut rdi, mut rsi, mut rdx) = (seed + 7, seed + 8, seed + 9);
    // SAFETY: getppid has no effect.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") libc::SYS_getppid => _, out("rcx") _, out("r11") _,
            inout("rdi") rdi, inout("rsi") rsi, inout("rdx") rdx, inout("r8") r8, inout("r9") r9, inout("r10") r10,
            inout("r12") r12, inout("r13") r13, inout("r14") r14, inout("r15") r15);
    }
    [r8, r9, r10, r12, r13, r14, r15, rdi, rsi, rdx].iter().enumerate().all(|(n, v)| *v == seed + n as u64)
}

/// Makes a call with known values in all other registers and says whether they are still there.
#[cfg(target_arch = "aarch64")]
pub(crate) fn keeps_registers(seed: u64) -> bool {
    let (mut x1, mut x2, mut x9, mut x17, mut x20, mut x28) =
        (seed, seed + 1, seed + 2, seed + 3, seed + 4, seed + 5);
    // SAFETY: getppid has no effect.
    unsafe {
        core::arch::asm!("svc #0", in("x8") libc::SYS_getppid, lateout("x0") _, inout("x1") x1, inout("x2") x2,
            inout("x9") x9, inout("x17") x17, inout("x20") x20, inout("x28") x28);
    }
    [x1, x2, x9, x17, x20, x28].iter().enumerate().all(|(n, v)| *v == seed + n as u64)
}
