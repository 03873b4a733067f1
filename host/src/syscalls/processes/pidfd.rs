//! pidfd_open and what is done with its descriptors; CLONE_PIDFD is `clone`'s.

use crate::abi::{Errno, Result};
use crate::fs::pidfd::PidFd;
use crate::kernel::peek::As;
use crate::kernel::signal::code;
use crate::kernel::{Current, Target, ThreadGroup};
use crate::syscalls::Args;
use crate::syscalls::signals::signal;
use crate::vfs::File;
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
        let pid = cur.id_of(pid)?;
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
    let (process, thread) = match file.downcast::<PidFd>() {
        Some(pidfd) if pidfd.is_gone() => return Err(Errno::ESRCH),
        Some(pidfd) => (pidfd.group().clone(), pidfd.thread().cloned()),
        None => (process_of(&file).ok_or(Errno::EBADF)?, None),
    };
    if process.is_reaped() {
        return Err(Errno::ESRCH);
    }
    // Nobody reaches up, or into the namespaces beside his own.
    if !process.pids.is_in(cur.pids()) {
        return Err(Errno::EINVAL);
    }
    let (signo, from) = (args.int(1), args.addr(2));
    let tid = thread.as_ref().map_or(process.tgid, |thread| thread.tid());
    let to_thread = whom == SIGNAL_THREAD || (whom == 0 && thread.is_some());
    let info = if from == 0 {
        signal::check_signal(signo)?;
        signal::sender(cur, signo, if to_thread { code::SI_TKILL } else { code::SI_USER })
    } else if whom == SIGNAL_PROCESS_GROUP {
        // A siginfo that a program made is for one process.
        return Err(Errno::EINVAL);
    } else {
        let own = if to_thread { tid == cur.task.tid() } else { process.tgid == cur.task.tgid() };
        signal::read_info(cur, from, signo, own)?
    };
    match whom {
        SIGNAL_PROCESS_GROUP => {
            let pgid = cur.group_and_session(process.tgid)?.0;
            cur.kill(Target::Group(pgid), signo, info)
        }
        _ if to_thread => cur.kill_thread(process.tgid, tid, signo, info),
        _ => cur.kill(Target::Process(process.tgid), signo, info),
    }
    .map(|()| 0)
}

/// The process whose directory in /proc is open, which was a process's descriptor before pidfd_open(2).
fn process_of(directory: &Arc<File>) -> Option<Arc<ThreadGroup>> {
    let inode = directory.inode().filter(|_| !directory.is_path())?;
    inode.about()?.downcast().ok()
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
