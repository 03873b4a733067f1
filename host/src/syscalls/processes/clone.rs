//! fork, vfork, clone, clone3, unshare.

use super::pidfd as pidfds;
use crate::abi::{Errno, Result};
use crate::fs::cgroup::Dir as Cgroup;
use crate::kernel::cgroups::CgroupId;
use crate::kernel::signal::SIGCHLD;
use crate::kernel::{CloneArgs, CloneFlags, Current};
use crate::syscalls::Args;

/// The signal in clone(2)'s flags.
const CSIGNAL: u64 = 0xff;
/// Size of the first `struct clone_args`.
const CLONE_ARGS_SIZE_VER0: usize = 64;
/// Largest structure looked at.
const PAGE: usize = 4096;

fn plain(flags: CloneFlags) -> CloneArgs {
    CloneArgs { flags, child_tid: 0, parent_tid: 0, exit_signal: SIGCHLD, stack: 0, tls: 0, cgroup: None }
}

/// Makes a child, and says what the caller calls it.
fn called(cur: &mut Current, args: &CloneArgs) -> Result<u64> {
    cur.clone_task(args).map(|(_, number)| number as u64)
}

pub(crate) fn fork(cur: &mut Current, _args: &Args) -> Result<u64> {
    called(cur, &plain(CloneFlags::empty()))
}

pub(crate) fn vfork(cur: &mut Current, _args: &Args) -> Result<u64> {
    called(cur, &plain(CloneFlags::VFORK | CloneFlags::VM))
}

/// The argument order is x86_64's or arm64's (CONFIG_CLONE_BACKWARDS).
pub(crate) fn clone(cur: &mut Current, args: &Args) -> Result<u64> {
    let [flags, stack, parent_tid, fourth, fifth, _] = args.0;
    let (child_tid, tls) = if crate::arch::CLONE_BACKWARDS { (fifth, fourth) } else { (fourth, fifth) };
    let args = CloneArgs {
        flags: CloneFlags::from_bits_truncate(flags & 0xffff_ffff & !CSIGNAL),
        child_tid,
        parent_tid,
        exit_signal: (flags & CSIGNAL) as i32,
        stack,
        tls,
        cgroup: None,
    };
    with_pidfd(cur, &args, parent_tid)
}

/// Clones, and with CLONE_PIDFD stores a descriptor for the child at `pidfd`.
fn with_pidfd(cur: &mut Current, args: &CloneArgs, pidfd: u64) -> Result<u64> {
    if !args.flags.contains(CloneFlags::PIDFD) {
        return called(cur, args);
    }
    if args.flags.intersects(CloneFlags::THREAD | CloneFlags::DETACHED)
        || args.flags.contains(CloneFlags::PARENT_SETTID) && pidfd == args.parent_tid
    {
        return Err(Errno::EINVAL);
    }
    cur.mm().write_val(pidfd, &-1_i32)?;
    let (tid, number) = cur.clone_task(args)?;
    // Nobody but the caller can have waited for the child: it is still there, if only as a zombie.
    let child = cur.kernel.tree.lock().node(tid).map(|node| node.group.clone());
    if let Some(group) = child
        && let Ok(fd) = pidfds::install(cur, group, 0)
    {
        cur.mm().write_val(pidfd, &fd)?;
    }
    Ok(number as u64)
}

pub(crate) fn clone3(cur: &mut Current, args: &Args) -> Result<u64> {
    let (addr, size) = (args.addr(0), args.size(1));
    if size < CLONE_ARGS_SIZE_VER0 {
        return Err(Errno::EINVAL);
    }
    if size > PAGE {
        return Err(Errno::E2BIG);
    }
    let mut words = [0u64; PAGE / 8];
    let given = cur.mm().read_vec::<u8>(addr, size)?;
    for (word, bytes) in words.iter_mut().zip(given.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(whole);
    }
    let [
        flags,
        pidfd,
        child_tid,
        parent_tid,
        exit_signal,
        stack,
        stack_size,
        tls,
        set_tid,
        set_tid_size,
        cgroup,
    ] = core::array::from_fn(|i| words[i]);
    if words[11..].iter().any(|word| *word != 0) {
        return Err(Errno::E2BIG);
    }
    let flags = CloneFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let thread_with_signal = flags.intersects(CloneFlags::THREAD | CloneFlags::PARENT) && exit_signal != 0;
    if flags.contains(CloneFlags::DETACHED)
        || thread_with_signal
        || (stack == 0) != (stack_size == 0)
        || set_tid != 0
        || set_tid_size != 0
        || exit_signal > CSIGNAL
    {
        return Err(Errno::EINVAL);
    }
    let stack = stack.checked_add(stack_size).ok_or(Errno::EINVAL)?;
    let cgroup = match flags.contains(CloneFlags::INTO_CGROUP) {
        true => Some(cgroup_of(cur, cgroup, flags)?),
        false => None,
    };
    let exit_signal = exit_signal as i32;
    let args = CloneArgs { flags, child_tid, parent_tid, exit_signal, stack, tls, cgroup };
    with_pidfd(cur, &args, pidfd)
}

/// The control group whose directory is open as `fd`, if the caller may move processes there.
fn cgroup_of(cur: &Current, fd: u64, flags: CloneFlags) -> Result<CgroupId> {
    let fd = i32::try_from(fd).map_err(|_| Errno::EINVAL)?;
    let file = cur.fds().get_path(fd)?;
    let inode = file.path().dentry.inode.clone();
    let dir = inode.as_any().downcast_ref::<Cgroup>().ok_or(Errno::EBADF)?;
    cur.kernel.cgroups.check(dir.id()).map_err(|_| Errno::ENOENT)?;
    let own = cur.task.group.cgroup();
    dir.may_come_from(&cur.cred(), own)?;
    // Threads are where their process is.
    if flags.contains(CloneFlags::THREAD) && dir.id() != own { Err(Errno::EOPNOTSUPP) } else { Ok(dir.id()) }
}

/// unshare(2)
pub(crate) fn unshare(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = CloneFlags::from_bits(args.addr(0)).ok_or(Errno::EINVAL)?;
    let namespaces = crate::kernel::NAMESPACES;
    // Nor are threads in different user namespaces.
    let threads = CloneFlags::THREAD | CloneFlags::SIGHAND | CloneFlags::VM | CloneFlags::NEWUSER;
    let known = CloneFlags::FS | CloneFlags::FILES | CloneFlags::SYSVSEM | threads | namespaces;
    if !known.contains(flags) {
        return Err(Errno::EINVAL);
    }
    // A process cannot be taken apart. One that is a single thread shares none of this.
    if flags.intersects(threads) && cur.task.group.threads().len() > 1 {
        return Err(Errno::EINVAL);
    }
    if flags.contains(CloneFlags::SYSVSEM) {
        cur.task.leave_undo_list();
    }
    cur.unshare_namespaces(flags)?;
    if flags.contains(CloneFlags::FILES) {
        let own = cur.fds().fork();
        cur.set_fds(own);
    }
    Ok(0)
}
