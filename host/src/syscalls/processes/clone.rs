//! fork, vfork, clone, clone3, unshare.

use super::pidfd as pidfds;
use crate::abi::{Errno, Result};
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
    CloneArgs { flags, child_tid: 0, parent_tid: 0, exit_signal: SIGCHLD, stack: 0, tls: 0 }
}

pub(crate) fn fork(cur: &mut Current, _args: &Args) -> Result<u64> {
    cur.clone_task(&plain(CloneFlags::empty())).map(|tid| tid as u64)
}

pub(crate) fn vfork(cur: &mut Current, _args: &Args) -> Result<u64> {
    cur.clone_task(&plain(CloneFlags::VFORK | CloneFlags::VM)).map(|tid| tid as u64)
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
    };
    with_pidfd(cur, &args, parent_tid)
}

/// Clones, and with CLONE_PIDFD stores a descriptor for the child at `pidfd`.
fn with_pidfd(cur: &mut Current, args: &CloneArgs, pidfd: u64) -> Result<u64> {
    if !args.flags.contains(CloneFlags::PIDFD) {
        return cur.clone_task(args).map(|tid| tid as u64);
    }
    if args.flags.intersects(CloneFlags::THREAD | CloneFlags::DETACHED)
        || args.flags.contains(CloneFlags::PARENT_SETTID) && pidfd == args.parent_tid
    {
        return Err(Errno::EINVAL);
    }
    cur.mm().write_val(pidfd, &-1_i32)?;
    let tid = cur.clone_task(args)?;
    // Nobody but the caller can have waited for the child: it is still there, if only as a zombie.
    let child = cur.kernel.tree.lock().node(tid).map(|node| node.group.clone());
    if let Some(group) = child
        && let Ok(fd) = pidfds::install(cur, group, 0)
    {
        cur.mm().write_val(pidfd, &fd)?;
    }
    Ok(tid as u64)
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
        _cgroup,
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
    let args = CloneArgs { flags, child_tid, parent_tid, exit_signal: exit_signal as i32, stack, tls };
    with_pidfd(cur, &args, pidfd)
}

/// unshare(2). There is one user, pid, cgroup and time namespace.
pub(crate) fn unshare(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = CloneFlags::from_bits(args.addr(0)).ok_or(Errno::EINVAL)?;
    let namespaces = crate::kernel::NAMESPACES;
    let threads = CloneFlags::THREAD | CloneFlags::SIGHAND | CloneFlags::VM;
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
    if flags.contains(CloneFlags::FS) && !flags.contains(CloneFlags::NEWNS) {
        let own = cur.fs().fork();
        cur.set_fs(own);
    }
    if flags.contains(CloneFlags::FILES) {
        let own = cur.fds().fork();
        cur.set_fds(own);
    }
    Ok(0)
}
