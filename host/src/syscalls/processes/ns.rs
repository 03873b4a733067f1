//! setns, and the ioctls of namespaces' files.

use super::pidfd;
use crate::abi::{Errno, Result};
use crate::fs::nsfs::NsFile;
use crate::fs::pidfd::PidFd;
use crate::kernel::namespaces::Ns;
use crate::kernel::peek::As;
use crate::kernel::{CloneFlags, Current, NAMESPACES};
use crate::syscalls::Args;
use linux_raw_sys::general as c;

/// `_IO(NSIO, n)` (linux/nsfs.h).
const NS_GET_USERNS: u32 = 0xb701;
const NS_GET_PARENT: u32 = 0xb702;
const NS_GET_NSTYPE: u32 = 0xb703;
const NS_GET_OWNER_UID: u32 = 0xb704;

/// The names in /proc/PID/ns of those that setns(2) by pidfd enters, in the order of Linux: what is asked of the mounts is
/// asked before a change.
const BY_PIDFD: [(CloneFlags, &str); 8] = [
    (CloneFlags::NEWUSER, "user"),
    (CloneFlags::NEWNS, "mnt"),
    (CloneFlags::NEWUTS, "uts"),
    (CloneFlags::NEWIPC, "ipc"),
    (CloneFlags::NEWCGROUP, "cgroup"),
    (CloneFlags::NEWPID, "pid"),
    (CloneFlags::NEWNET, "net"),
    (CloneFlags::NEWTIME, "time"),
];

/// setns(2)
pub(crate) fn setns(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = CloneFlags::from_bits(u64::from(args.uint(1)));
    let file = cur.file(args.fd(0))?;
    if let Some(file) = file.downcast::<NsFile>() {
        let of = file.namespace();
        if args.uint(1) != 0 && flags != Some(of.kind()) {
            return Err(Errno::EINVAL);
        }
        return cur.enter_namespaces(std::slice::from_ref(of)).map(|()| 0);
    }
    if file.downcast::<PidFd>().is_none() {
        return Err(Errno::EINVAL);
    }
    let flags =
        flags.filter(|flags| !flags.is_empty() && NAMESPACES.contains(*flags)).ok_or(Errno::EINVAL)?;
    let group = pidfd::process(cur, args.fd(0))?;
    let task = group.threads().first().cloned().ok_or(Errno::ESRCH)?;
    let seen = task.peek(&cur.task.observer(), As::Real)?;
    let wanted = BY_PIDFD.iter().filter(|(kind, _)| flags.contains(*kind));
    let all: Option<Vec<Ns>> = wanted.map(|(_, name)| Ns::of(&task, seen.fs.as_deref(), name)).collect();
    cur.enter_namespaces(&all.ok_or(Errno::ESRCH)?).map(|()| 0)
}

/// ioctl_ns(2).
pub(crate) fn ioctl(cur: &mut Current, file: &NsFile, request: u32) -> Result<u64> {
    let of = file.namespace();
    let found = match (request, of) {
        (NS_GET_NSTYPE, _) => return Ok(of.kind().bits()),
        // Nobody sees further up than where he is himself; the first one is nobody's, and has none above it.
        (NS_GET_USERNS, _) | (NS_GET_PARENT, Ns::User(_)) => {
            let cred = cur.cred();
            let owner = of.owner().filter(|owner| owner.is_in(&cred.user_ns));
            Ns::User(owner.ok_or(Errno::EPERM)?.clone())
        }
        (NS_GET_PARENT, Ns::Pids(pids)) => {
            let parent = pids.parent().filter(|parent| parent.is_in(cur.pids()));
            Ns::Pids(parent.ok_or(Errno::EPERM)?.clone())
        }
        (NS_GET_PARENT | NS_GET_OWNER_UID, _) => return Err(Errno::EINVAL),
        _ => return Err(Errno::ENOTTY),
    };
    let limit = cur.limit(c::RLIMIT_NOFILE);
    Ok(cur.fds().install(NsFile::open(found), true, limit)? as u64)
}

/// NS_GET_OWNER_UID, which has somewhere to write to.
pub(crate) fn owner(cur: &Current, file: &NsFile, request: u32, addr: u64) -> Option<Result<u64>> {
    match file.namespace() {
        Ns::User(of) if request == NS_GET_OWNER_UID => {
            let owner = cur.cred().user_ns.show_uid(of.owner());
            Some(cur.mm().write_val(addr, &owner).map(|()| 0))
        }
        _ => None,
    }
}
