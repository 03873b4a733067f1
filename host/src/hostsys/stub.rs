//! Host calls of the systrap platform: memory files, spawning and reaping stubs, futexes shared between processes.

use super::fd::{HostFd, What};
use super::syscall;
use crate::abi::{Errno, Result};
use core::ffi::CStr;
use core::sync::atomic::AtomicU32;

/// Pieces of CPU mask that `sched_setaffinity` is given: 1024 CPUs.
const MASK_WORDS: usize = 16;

/// A memory file of `len` sparse bytes. `executable` says that it will be executed or mapped executable.
///
/// # Errors
/// What memfd_create(2) and ftruncate(2) return.
pub fn memory_file(name: &'static CStr, len: u64, executable: bool) -> Result<HostFd> {
    // Kernels before 6.3 do not know MFD_EXEC (and refuse it); there every memfd is executable.
    const MFD_EXEC: u64 = 0x10;
    let cloexec = u64::from(libc::MFD_CLOEXEC);
    let create = |flags: u64| {
        // SAFETY: the name is a C string.
        unsafe { syscall(libc::SYS_memfd_create, [name.as_ptr() as u64, flags, 0, 0, 0, 0]) }
    };
    let fd = match executable {
        true => create(cloexec | MFD_EXEC).or_else(|_| create(cloexec))?,
        false => create(cloexec)?,
    };
    let fd = HostFd::new(fd, What::Memory(name, len))?;
    // SAFETY: no pointers.
    unsafe { syscall(libc::SYS_ftruncate, [fd.raw() as u64, len, 0, 0, 0, 0]) }?;
    Ok(fd)
}

/// Maps a file shared and writable, wherever the host likes.
///
/// # Errors
/// What mmap(2) returns.
pub fn map_shared(file: &HostFd, len: u64) -> Result<*mut u8> {
    let prot = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let flags = (libc::MAP_SHARED | libc::MAP_NORESERVE) as u64;
    // SAFETY: a fresh mapping at an address of the host's choice.
    let at = unsafe { syscall(libc::SYS_mmap, [0, len, prot, flags, file.raw() as u64, 0]) }?;
    Ok(at as *mut u8)
}

/// Removes a mapping made by [`map_shared`].
///
/// # Safety
/// Nothing may use it any more.
pub unsafe fn unmap(at: *mut u8, len: u64) {
    // SAFETY: the caller's.
    let _ = unsafe { syscall(libc::SYS_munmap, [at as u64, len, 0, 0, 0, 0]) };
}

/// Executes `program` as a child of the calling *thread* with exactly `fds` as its descriptors 0, 1, 2 and every
/// signal blocked. The child shares nothing else that outlives its exec.
///
/// # Errors
/// What posix_spawn(3) returns.
pub fn spawn(program: &CStr, fds: [&HostFd; 3]) -> Result<i32> {
    let mut pid = 0;
    let argv = [c"pillbox-stub".as_ptr().cast_mut(), core::ptr::null_mut()];
    let envp = [core::ptr::null_mut()];
    // SAFETY: attributes and actions are initialised before use and destroyed after; all pointers live across the call.
    let error = unsafe {
        let mut actions = core::mem::zeroed::<libc::posix_spawn_file_actions_t>();
        let mut attr = core::mem::zeroed::<libc::posix_spawnattr_t>();
        libc::posix_spawn_file_actions_init(&mut actions);
        libc::posix_spawnattr_init(&mut attr);
        for (to, fd) in fds.iter().enumerate() {
            libc::posix_spawn_file_actions_adddup2(&mut actions, fd.raw(), to as i32);
        }
        let mut mask = core::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&mut mask);
        libc::posix_spawnattr_setsigmask(&mut attr, &mask);
        // A process group of its own: the terminal's signals are for the sandbox's main process. Not a session of its
        // own: the host's scheduler treats a session as one (sched(7), "autogroup"), and threads that take turns
        // should not compete with each other.
        libc::posix_spawnattr_setpgroup(&mut attr, 0);
        let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETPGROUP;
        libc::posix_spawnattr_setflags(&mut attr, flags as libc::c_short);
        let error =
            libc::posix_spawn(&mut pid, program.as_ptr(), &actions, &attr, argv.as_ptr(), envp.as_ptr());
        libc::posix_spawnattr_destroy(&mut attr);
        libc::posix_spawn_file_actions_destroy(&mut actions);
        error
    };
    if error == 0 { Ok(pid) } else { Err(Errno(error)) }
}

/// Waits for the end of any child *of the calling thread*; returns its pid and whether SIGKILL ended it.
///
/// # Errors
/// ECHILD without children.
pub fn reap_any() -> Result<(i32, bool)> {
    loop {
        let mut status = 0i32;
        let at = core::ptr::from_mut(&mut status) as u64;
        let options = (libc::__WNOTHREAD | libc::__WALL) as u64;
        // SAFETY: the word is valid for a write.
        match unsafe { syscall(libc::SYS_wait4, [u64::MAX, at, options, 0, 0, 0]) } {
            Err(Errno::EINTR) => (),
            other => {
                let killed = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL;
                return other.map(|pid| (pid as i32, killed));
            }
        }
    }
}

/// SIGKILL for a whole process.
pub fn kill(pid: i32) {
    // SAFETY: no pointers.
    let _ = unsafe { syscall(libc::SYS_kill, [pid as u64, libc::SIGKILL as u64, 0, 0, 0, 0]) };
}

/// Stops all processes of a process group, or continues them.
pub fn pause_group(group: i32, on: bool) {
    let signal = if on { libc::SIGSTOP } else { libc::SIGCONT };
    // SAFETY: no pointers.
    let _ = unsafe { syscall(libc::SYS_kill, [-i64::from(group) as u64, signal as u64, 0, 0, 0, 0]) };
}

/// A signal for one thread of one process; 0 only asks whether it exists.
///
/// # Errors
/// ESRCH when `tid` is not a thread of `pid`.
pub fn signal_thread(pid: i32, tid: i32, signal: i32) -> Result<()> {
    // SAFETY: no pointers.
    unsafe { syscall(libc::SYS_tgkill, [pid as u64, tid as u64, signal as u64, 0, 0, 0]) }.map(drop)
}

/// The calling process.
pub fn own_pid() -> i32 {
    // SAFETY: no pointers.
    unsafe { syscall(libc::SYS_getpid, [0; 6]) }.unwrap_or(0) as i32
}

/// CPUs that thread `tid` (0: the calling one) may run on.
pub fn cpus(tid: i32) -> Vec<usize> {
    let mut mask = [0u64; MASK_WORDS];
    let args = [tid as u64, size_of_val(&mask) as u64, mask.as_mut_ptr() as u64, 0, 0, 0];
    // SAFETY: the mask is valid for a write of its size.
    if unsafe { syscall(libc::SYS_sched_getaffinity, args) }.is_err() {
        return Vec::new();
    }
    (0..MASK_WORDS * 64).filter(|cpu| mask[cpu / 64] >> (cpu % 64) & 1 == 1).collect()
}

/// Binds thread `tid` (0: the calling one) to one CPU. Best effort: where it is refused, hand-overs are slower.
pub fn pin(tid: i32, cpu: usize) {
    let mut mask = [0u64; MASK_WORDS];
    if let Some(word) = mask.get_mut(cpu / 64) {
        *word = 1 << (cpu % 64);
    }
    let args = [tid as u64, size_of_val(&mask) as u64, mask.as_ptr() as u64, 0, 0, 0];
    // SAFETY: the mask is valid for a read of its size.
    let _ = unsafe { syscall(libc::SYS_sched_setaffinity, args) };
}

/// The CPU that the caller is on right now.
pub fn current_cpu() -> usize {
    let mut cpu = 0u32;
    // SAFETY: the word is valid for a write.
    let _ = unsafe { syscall(libc::SYS_getcpu, [core::ptr::from_mut(&mut cpu) as u64, 0, 0, 0, 0, 0]) };
    cpu as usize
}

/// Sleeps while `*word == expected`; the word may be shared with other processes. Returns on a wake, a signal or a
/// mismatch.
pub fn wait_shared(word: &AtomicU32, expected: u32) {
    let args = [word.as_ptr() as u64, libc::FUTEX_WAIT as u64, expected.into(), 0, 0, 0];
    // SAFETY: the word is a valid aligned u32.
    let _ = unsafe { syscall(libc::SYS_futex, args) };
}

/// As [`wait_shared`], for some time at most.
pub fn wait_shared_for(word: &AtomicU32, expected: u32, time: core::time::Duration) {
    let spec = [time.as_secs(), u64::from(time.subsec_nanos())];
    let args = [word.as_ptr() as u64, libc::FUTEX_WAIT as u64, expected.into(), spec.as_ptr() as u64, 0, 0];
    // SAFETY: the word is a valid aligned u32, the time a `struct timespec` on both architectures.
    let _ = unsafe { syscall(libc::SYS_futex, args) };
}

/// Wakes everybody who sleeps on a word shared between processes.
pub fn wake_shared(word: &AtomicU32) {
    let args = [word.as_ptr() as u64, libc::FUTEX_WAKE as u64, i32::MAX as u64, 0, 0, 0];
    // SAFETY: the word is a valid aligned u32.
    let _ = unsafe { syscall(libc::SYS_futex, args) };
}
