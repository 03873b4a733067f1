//! What this process gives up, for good: descriptors that it has inherited, capabilities, its environment, and all host
//! calls but those of a list.

use super::fd::{HostFd, What};
use super::process::{decimal, die};
use super::syscall;
use crate::abi::{Errno, Result};
use core::ffi::c_void;
use core::sync::atomic::{AtomicUsize, Ordering};
use seccompiler::sock_filter;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The name of a host call, for messages.
pub type Name = fn(u64) -> Option<&'static str>;

/// The installed [`Name`]; signal handlers have no other way to get at it. 0 while nothing is refused.
static NAME: AtomicUsize = AtomicUsize::new(0);

/// First descriptor that is nobody's standard stream.
const FIRST: u64 = 3;
/// _LINUX_CAPABILITY_VERSION_3, for the calling thread.
const CAPABILITIES: [u32; 2] = [0x2008_0522, 0];

/// Closes every descriptor but standard input, output and error and those in `kept`. Before anything is opened.
pub fn close_inherited(kept: &[i32]) {
    let mut kept: Vec<u64> = kept.iter().map(|fd| u64::from(fd.unsigned_abs())).collect();
    kept.sort_unstable();
    let mut first = FIRST;
    for end in kept.into_iter().chain([u64::from(u32::MAX)]) {
        if first < end {
            close_range(first, end - 1);
        }
        first = first.max(end + 1);
    }
}

/// Closes the descriptors from `first` to `last`.
fn close_range(first: u64, last: u64) {
    // SAFETY: nobody refers to these descriptors: the process has just begun.
    let closed = unsafe { syscall(libc::SYS_close_range, [first, last, 0, 0, 0, 0]) };
    if closed == Err(Errno::ENOSYS) {
        // Linux before 5.9.
        let listed = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let open: Vec<u64> = listed
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|fd| (first..=last).contains(fd))
            .collect();
        for fd in open {
            // SAFETY: as above; the descriptor of the listing itself is closed already.
            let _ = unsafe { syscall(libc::SYS_close, [fd, 0, 0, 0, 0, 0]) };
        }
    }
}

/// No program that this thread, or what it starts, executes has more rights than it has (PR_SET_NO_NEW_PRIVS).
///
/// # Errors
/// EINVAL on Linux before 3.5.
pub fn no_new_privileges() -> Result<()> {
    // SAFETY: no pointers.
    unsafe { syscall(libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as u64, 1, 0, 0, 0, 0]) }.map(drop)
}

/// Gives the calling thread, and what it starts from then on, namespaces of its own: `CLONE_NEW*` (unshare(2)).
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN, EINVAL for one that the host does not have, ENOSPC beyond its limits.
pub fn own_namespaces(kinds: i32) -> Result<()> {
    // SAFETY: no pointers.
    unsafe { syscall(libc::SYS_unshare, [kinds as u64, 0, 0, 0, 0, 0]) }.map(drop)
}

/// What the calling thread mounts from now on, nobody else sees: its mount namespace is its own already.
///
/// # Errors
/// What mount(2) returns.
pub fn mount_privately() -> Result<()> {
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: C strings, alive across the call.
    unsafe { syscall(libc::SYS_mount, [0, c"/".as_ptr() as u64, 0, flags, 0, 0]) }.map(drop)
}

/// Mounts an empty directory over the one at `place`.
///
/// # Errors
/// What mount(2) returns.
pub fn cover(place: &Path) -> Result<()> {
    let place = CString::new(place.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let (name, options) = (c"tmpfs".as_ptr() as u64, c"size=4k,nr_inodes=1,mode=555".as_ptr() as u64);
    let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: C strings, alive across the call.
    unsafe { syscall(libc::SYS_mount, [name, place.as_ptr() as u64, name, flags, options, 0]) }.map(drop)
}

/// Mounts what is at `from`, and not what is mounted below, at `place`, too.
///
/// # Errors
/// What mount(2) returns.
pub fn bind(from: &Path, place: &Path) -> Result<()> {
    let path = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL);
    let (from, place) = (path(from)?, path(place)?);
    let args = [from.as_ptr() as u64, place.as_ptr() as u64, 0, libc::MS_BIND, 0, 0];
    // SAFETY: C strings, alive across the call.
    unsafe { syscall(libc::SYS_mount, args) }.map(drop)
}

/// A copy of what is mounted at `path` and below: attached nowhere, so that `..` leads out of it nowhere, and nothing can be
/// written (unless it is to be `writable`), no device opened and no set-id program executed through it. The descriptor is one of O_PATH.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN, ENOSYS on Linux before 5.12, what open_tree(2) says of the path.
pub fn copy_of_mounts(path: &Path, writable: bool) -> Result<HostFd> {
    const EMPTY_PATH_AND_ALL: u64 = (libc::AT_EMPTY_PATH | libc::AT_RECURSIVE) as u64;
    let what = What::Mounts(path.as_os_str().as_bytes().into());
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let flags = u64::from(libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC) | libc::AT_RECURSIVE as u64;
    let args = [libc::AT_FDCWD as u64, path.as_ptr() as u64, flags, 0, 0, 0];
    // SAFETY: a C string, alive across the call.
    let tree = HostFd::new(unsafe { syscall(libc::SYS_open_tree, args) }?, what)?;
    // struct mount_attr: what to set, what to clear, propagation, user namespace.
    let rights = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    let rights = [if writable { rights } else { rights | libc::MOUNT_ATTR_RDONLY }, 0, 0, 0];
    let (fd, size) = (tree.raw() as u64, size_of_val(&rights) as u64);
    let args = [fd, c"".as_ptr() as u64, EMPTY_PATH_AND_ALL, rights.as_ptr() as u64, size, 0];
    // SAFETY: a C string and a structure, alive across the call.
    unsafe { syscall(libc::SYS_mount_setattr, args) }?;
    Ok(tree)
}

/// Makes the working directory the root directory, for the process (chroot(2)).
///
/// # Errors
/// EPERM without CAP_SYS_CHROOT.
pub fn enclose() -> Result<()> {
    // SAFETY: a C string, alive across the call.
    unsafe { syscall(libc::SYS_chroot, [c".".as_ptr() as u64, 0, 0, 0, 0, 0]) }.map(drop)
}

/// Makes `root` the root directory of this mount namespace, which is nobody else's, and takes what was mounted elsewhere away:
/// for those who enter the namespace. The working directory stays what it is, wherever that is mounted.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN; what mount(2) and pivot_root(2) say.
pub fn show_root(root: &Path) -> Result<()> {
    mount_privately()?;
    let here = super::file::openat(libc::AT_FDCWD, b".", libc::O_PATH | libc::O_DIRECTORY, 0, || {
        What::Given("the working directory")
    })?;
    let path = CString::new(root.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let (path, dot) = (path.as_ptr() as u64, c".".as_ptr() as u64);
    let flags = libc::MS_BIND | libc::MS_REC;
    let detach = libc::MNT_DETACH as u64;
    // The old root lies on the new one until it is taken away (pivot_root(2), notes).
    let steps = [
        (libc::SYS_mount, [path, path, 0, flags, 0, 0]),
        (libc::SYS_chdir, [path, 0, 0, 0, 0, 0]),
        (libc::SYS_pivot_root, [dot, dot, 0, 0, 0, 0]),
        (libc::SYS_umount2, [dot, detach, 0, 0, 0, 0]),
    ];
    let result = steps.into_iter().try_for_each(|(call, args)| {
        // SAFETY: C strings, alive across the calls.
        unsafe { syscall(call, args) }.map(drop)
    });
    // SAFETY: no pointers.
    unsafe { syscall(libc::SYS_fchdir, [here.raw() as u64, 0, 0, 0, 0, 0]) }?;
    result
}

/// Gives the calling thread's capabilities up, and those that it could get by executing a file, but for the ones in `kept`
/// (bit n is capability n), as far as it has them. Threads that it makes from then on have no others.
///
/// # Errors
/// What capset(2) returns.
pub fn drop_capabilities(kept: u64) -> Result<()> {
    let prctl = |option: i32, arg: u64| {
        // SAFETY: no pointers.
        unsafe { syscall(libc::SYS_prctl, [option as u64, arg, 0, 0, 0, 0]) }
    };
    // Until there is none of that number. Whoever may not do it has no capability that counts.
    let _last = (0..64).filter(|bit| kept & 1 << bit == 0).try_for_each(|bit| {
        let dropped = prctl(libc::PR_CAPBSET_DROP, bit);
        if dropped == Err(Errno::EINVAL) { Err(()) } else { Ok(()) }
    });
    let _before_4_3 = prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64);
    // Effective, permitted, inheritable: low halves, then high halves.
    let mut sets = [0_u32; 6];
    let mut header = CAPABILITIES;
    // SAFETY: a header and two structures of three words, alive across the call.
    unsafe { syscall(libc::SYS_capget, [header.as_mut_ptr() as u64, sets.as_mut_ptr() as u64, 0, 0, 0, 0]) }?;
    for (half, of) in sets.chunks_mut(3).enumerate() {
        let kept = (kept >> (32 * half)) as u32;
        of[1] &= kept;
        (of[0], of[2]) = (of[1], 0);
    }
    // SAFETY: as above.
    unsafe { syscall(libc::SYS_capset, [header.as_mut_ptr() as u64, sets.as_ptr() as u64, 0, 0, 0, 0]) }
        .map(drop)
}

/// Overwrites the environment that the process was started with, and forgets it. Call while no other thread reads it.
pub fn forget_environment() {
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    // SAFETY: libc's list of C strings, which are writable; nobody else looks at it (the caller's promise), and nobody
    // does afterwards.
    unsafe {
        let mut at = environ;
        while !at.is_null() && !(*at).is_null() {
            let text = *at;
            core::ptr::write_bytes(text, 0, libc::strlen(text));
            at = at.add(1);
        }
        libc::clearenv();
    }
}

/// Allows all threads of this process the host calls that `program` allows, from now on (seccomp(2)). A call that it traps
/// ends the process with a message that has its name in it, as `name` says it.
///
/// # Errors
/// EINVAL where the host has no filters, or one of another process's making forbids this one; EAGAIN if a thread cannot
/// have it.
pub fn filter_host_calls(program: &[sock_filter], name: Name) -> Result<()> {
    let count = u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    NAME.store(name as usize, Ordering::Release);
    install_handler();
    // struct sock_fprog: count, padding, pointer.
    let descriptor = [u64::from(count), program.as_ptr() as u64];
    // Filtered calls are no reason for the host to slow memory accesses down (Linux before 5.16 does).
    let flags = libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    let operation = u64::from(libc::SECCOMP_SET_MODE_FILTER);
    // SAFETY: the program lives across the call, which copies it.
    match unsafe { syscall(libc::SYS_seccomp, [operation, flags, descriptor.as_ptr() as u64, 0, 0, 0]) } {
        Ok(0) => Ok(()),
        // The number of a thread that has another filter.
        Ok(_) => Err(Errno::EAGAIN),
        Err(errno) => Err(errno),
    }
}

/// Whether this process has given host calls up.
pub fn is_confined() -> bool {
    NAME.load(Ordering::Acquire) != 0
}

/// Refused calls are told of. The signal is open in every thread that is made by us; the caller's mask may have closed it
/// for the first one.
fn install_handler() {
    // SAFETY: `on_refusal` has the signature that SA_SIGINFO calls; the mask is this thread's.
    unsafe {
        let mut action = core::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = on_refusal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigfillset(&mut action.sa_mask);
        libc::sigaction(libc::SIGSYS, &action, core::ptr::null_mut());
        let mut set = core::mem::zeroed::<libc::sigset_t>();
        libc::sigaddset(&mut set, libc::SIGSYS);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, core::ptr::null_mut());
    }
}

/// `si_syscall` of a SIGSYS, behind the three words, the padding and the address.
const NUMBER_AT: usize = 24;

unsafe extern "C" fn on_refusal(_: i32, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the host kernel passes a valid siginfo to an SA_SIGINFO handler.
    let number = unsafe { info.cast::<u8>().add(NUMBER_AT).cast::<u32>().read() };
    let name = NAME.load(Ordering::Acquire);
    let name = (name != 0).then(|| {
        // SAFETY: only `filter_host_calls` stores there, and it stores a `Name`.
        unsafe { core::mem::transmute::<usize, Name>(name) }
    });
    let name = name.and_then(|name| name(number.into()));
    die(&[
        "pillbox: the jail refused host call ",
        name.unwrap_or("without a name"),
        " (",
        decimal(number.into(), &mut [0; 20]),
        "); the sandbox is over\n",
    ])
}
