//! pidfd_open and what is done with its descriptors; CLONE_PIDFD is `clone`'s.

use super::{Args, signal};
use crate::abi::{Errno, Result};
use crate::fs::pidfd::PidFd;
use crate::kernel::{Current, ThreadGroup};
use linux_raw_sys::general as c;
use std::sync::Arc;

const NOFILE: u32 = c::RLIMIT_NOFILE;

/// pidfd_open(2)
pub(super) fn pidfd_open(cur: &mut Current, args: &Args) -> Result<u64> {
    let (pid, flags) = (args.int(0), args.uint(1));
    if flags & !c::O_NONBLOCK != 0 || pid <= 0 {
        return Err(Errno::EINVAL);
    }
    let group = {
        let tree = cur.kernel.tree.lock();
        // A thread that leads no process is EINVAL, nobody ESRCH.
        let none = if tree.task(pid).is_some() { Errno::EINVAL } else { Errno::ESRCH };
        tree.node(pid).map(|node| node.group.clone()).ok_or(none)?
    };
    install(cur, group, flags).map(|fd| fd as u64)
}

/// Gives the caller a descriptor for a process.
pub(super) fn install(cur: &mut Current, group: Arc<ThreadGroup>, flags: u32) -> Result<i32> {
    let limit = cur.limit(NOFILE);
    cur.fds().install(PidFd::open(group, flags), true, limit)
}

/// The process behind a descriptor.
pub(super) fn process(cur: &Current, fd: i32) -> Result<Arc<ThreadGroup>> {
    let file = cur.file(fd)?;
    file.downcast::<PidFd>().map(|pidfd| pidfd.group().clone()).ok_or(Errno::EBADF)
}

/// pidfd_send_signal(2)
pub(super) fn pidfd_send_signal(cur: &mut Current, args: &Args) -> Result<u64> {
    if args.uint(3) != 0 {
        return Err(Errno::EINVAL);
    }
    let group = process(cur, args.fd(0))?;
    if group.is_dead() {
        return Err(Errno::ESRCH);
    }
    let (pid, signo) = (group.tgid as u64, args.addr(1));
    match args.addr(2) {
        0 => signal::kill(cur, &Args([pid, signo, 0, 0, 0, 0])),
        info => signal::rt_sigqueueinfo(cur, &Args([pid, signo, info, 0, 0, 0])),
    }
}

/// pidfd_getfd(2)
pub(super) fn pidfd_getfd(cur: &mut Current, args: &Args) -> Result<u64> {
    if args.uint(2) != 0 {
        return Err(Errno::EINVAL);
    }
    let group = process(cur, args.fd(0))?;
    let other = group.threads().first().cloned().ok_or(Errno::ESRCH)?;
    let (own, theirs) = (cur.cred(), other.cred());
    let same = own.uid.effective == theirs.uid.real && own.uid.effective == theirs.uid.saved;
    if !same && !own.has(crate::cred::Caps::SYS_PTRACE) {
        return Err(Errno::EPERM);
    }
    let file = other.fds().ok_or(Errno::ESRCH)?.get_path(args.fd(1))?;
    let limit = cur.limit(NOFILE);
    Ok(cur.fds().install(file, true, limit)? as u64)
}
