//! pidfd_open and what is done with its descriptors; CLONE_PIDFD is `clone`'s.

use crate::abi::{Errno, Result};
use crate::fs::pidfd::PidFd;
use crate::kernel::peek::As;
use crate::kernel::{Current, ThreadGroup};
use crate::syscalls::Args;
use crate::syscalls::signals::signal;
use linux_raw_sys::general as c;
use std::sync::Arc;

const NOFILE: u32 = c::RLIMIT_NOFILE;
/// PIDFD_THREAD.
const THREAD: u32 = c::O_EXCL;
/// PIDFD_SIGNAL_*: whom a signal is for, whatever the descriptor.
const SIGNAL_THREAD: u32 = 1;
const SIGNAL_THREAD_GROUP: u32 = 2;
const SIGNAL_PROCESS_GROUP: u32 = 4;

/// pidfd_open(2)
pub(crate) fn pidfd_open(cur: &mut Current, args: &Args) -> Result<u64> {
    let (pid, flags) = (args.int(0), args.uint(1));
    if flags & !(c::O_NONBLOCK | THREAD) != 0 || pid <= 0 {
        return Err(Errno::EINVAL);
    }
    let (group, thread) = {
        let tree = cur.kernel.tree.lock();
        let task = tree.task(pid).filter(|_| flags & THREAD != 0).cloned();
        // A thread that leads no process is EINVAL, nobody ESRCH.
        let none = if tree.task(pid).is_some() { Errno::EINVAL } else { Errno::ESRCH };
        let group = task.as_ref().map(|task| task.group.clone());
        (group.or_else(|| tree.node(pid).map(|node| node.group.clone())).ok_or(none)?, task)
    };
    let limit = cur.limit(NOFILE);
    Ok(cur.fds().install(PidFd::open(group, thread, flags), true, limit)? as u64)
}

/// Gives the caller a descriptor for a process.
pub(crate) fn install(cur: &mut Current, group: Arc<ThreadGroup>, flags: u32) -> Result<i32> {
    let limit = cur.limit(NOFILE);
    cur.fds().install(PidFd::open(group, None, flags), true, limit)
}

/// The process behind a descriptor.
pub(crate) fn process(cur: &Current, fd: i32) -> Result<Arc<ThreadGroup>> {
    let file = cur.file(fd)?;
    file.downcast::<PidFd>().map(|pidfd| pidfd.group().clone()).ok_or(Errno::EBADF)
}

/// pidfd_send_signal(2)
pub(crate) fn pidfd_send_signal(cur: &mut Current, args: &Args) -> Result<u64> {
    let whom = args.uint(3);
    if whom & !(SIGNAL_THREAD | SIGNAL_THREAD_GROUP | SIGNAL_PROCESS_GROUP) != 0 || whom.count_ones() > 1 {
        return Err(Errno::EINVAL);
    }
    let file = cur.file(args.fd(0))?;
    let pidfd = file.downcast::<PidFd>().ok_or(Errno::EBADF)?;
    if pidfd.is_gone() {
        return Err(Errno::ESRCH);
    }
    let (signo, info) = (args.addr(1), args.addr(2));
    let pid = pidfd.group().tgid as u64;
    let tid = pidfd.thread().map_or(pid, |thread| thread.tid() as u64);
    let to_thread = whom == SIGNAL_THREAD || (whom == 0 && pidfd.thread().is_some());
    match (whom, info) {
        (SIGNAL_PROCESS_GROUP, 0) => {
            let group = cur.group_and_session(pidfd.group().tgid)?.0;
            signal::kill(cur, &Args([-i64::from(group) as u64, signo, 0, 0, 0, 0]))
        }
        // A siginfo that a program made is for one process.
        (SIGNAL_PROCESS_GROUP, _) => Err(Errno::EINVAL),
        (_, 0) if to_thread => signal::tgkill(cur, &Args([pid, tid, signo, 0, 0, 0])),
        (_, _) if to_thread => signal::rt_tgsigqueueinfo(cur, &Args([pid, tid, signo, info, 0, 0])),
        (_, 0) => signal::kill(cur, &Args([pid, signo, 0, 0, 0, 0])),
        _ => signal::rt_sigqueueinfo(cur, &Args([pid, signo, info, 0, 0, 0])),
    }
}

/// pidfd_getfd(2)
pub(crate) fn pidfd_getfd(cur: &mut Current, args: &Args) -> Result<u64> {
    if args.uint(2) != 0 {
        return Err(Errno::EINVAL);
    }
    let group = process(cur, args.fd(0))?;
    let other = group.threads().first().cloned().ok_or(Errno::ESRCH)?;
    let file = other.peek_file(&cur.task.observer(), As::Real, args.fd(1))?;
    let limit = cur.limit(NOFILE);
    Ok(cur.fds().install(file, true, limit)? as u64)
}

/// process_mrelease(2): memory of a process that was killed is given back as it ends, which nothing delays here.
pub(crate) fn process_mrelease(cur: &mut Current, args: &Args) -> Result<u64> {
    if args.uint(1) != 0 {
        return Err(Errno::EINVAL);
    }
    let group = process(cur, args.fd(0))?;
    let holds_memory = group.threads().iter().any(|task| task.mm().is_some());
    if !holds_memory {
        return Err(Errno::ESRCH);
    }
    if group.is_ending() { Ok(0) } else { Err(Errno::EINVAL) }
}
