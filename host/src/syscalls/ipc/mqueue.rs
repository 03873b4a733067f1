//! mq_open, mq_unlink, mq_timedsend, mq_timedreceive, mq_notify, mq_getsetattr.

use super::Args;
use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::kernel::ipc::mqnames::Opening;
use crate::kernel::ipc::mqueue::PRIORITIES;
use crate::kernel::signal::NSIG;
use crate::syscalls::args_time::timespec;
use crate::time::{monotonic_ns, realtime_ns};
use crate::vfs::PATH_MAX;
use linux_raw_sys::general as c;

/// `struct mq_attr`: flags, most messages, most bytes, messages, and room for more.
type RawAttributes = [i64; 8];

const SIGEV_SIGNAL: u32 = 0;
const SIGEV_NONE: u32 = 1;
const SIGEV_THREAD: u32 = 2;
/// What a thread's notification would be known by.
const COOKIE: usize = 32;

/// The name, as the C library leaves it: without the slash.
fn name(cur: &Current, addr: u64) -> Result<Vec<u8>> {
    let name = cur.mm().read_cstr(addr, PATH_MAX)?;
    if name.is_empty() { Err(Errno::ENOENT) } else { Ok(name) }
}

/// mq_open(2)
pub(in crate::syscalls) fn mq_open(cur: &mut Current, args: &Args) -> Result<u64> {
    let (flags, mode, addr) = (args.uint(1), args.uint(2), args.addr(3));
    let size = match addr {
        0 => None,
        _ => {
            let raw: RawAttributes = cur.mm().read_val(addr)?;
            Some((raw[1], raw[2]))
        }
    };
    let name = name(cur, args.addr(0))?;
    let perm = mode & 0o7777 & !cur.fs().umask();
    let opening = Opening { name: &name, flags, perm, size, limit: cur.mqueue_limit() };
    let file = cur.task.ipc().open_mqueue(&opening, &cur.cred())?;
    let limit = cur.limit(c::RLIMIT_NOFILE);
    // Closed by execve(2), whatever the flags say.
    Ok(cur.fds().install(file, true, limit)? as u64)
}

/// mq_unlink(2)
pub(in crate::syscalls) fn mq_unlink(cur: &mut Current, args: &Args) -> Result<u64> {
    let name = name(cur, args.addr(0))?;
    cur.task.ipc().unlink_mqueue(&name, &cur.cred()).map(|()| 0)
}

/// A time of the real-time clock as a deadline of the monotonic one.
fn deadline(cur: &Current, addr: u64) -> Result<Option<u64>> {
    let at = timespec(cur.mm(), addr)?;
    Ok(at.map(|at| monotonic_ns().saturating_add(at.saturating_sub(realtime_ns()))))
}

/// mq_timedsend(2)
pub(in crate::syscalls) fn mq_timedsend(cur: &mut Current, args: &Args) -> Result<u64> {
    let until = deadline(cur, args.addr(4))?;
    let priority = args.uint(3);
    if priority >= PRIORITIES {
        return Err(Errno::EINVAL);
    }
    cur.send_mail(args.fd(0), priority, (args.addr(1), args.size(2)), until).map(|()| 0)
}

/// mq_timedreceive(2)
pub(in crate::syscalls) fn mq_timedreceive(cur: &mut Current, args: &Args) -> Result<u64> {
    let until = deadline(cur, args.addr(4))?;
    let mail = cur.receive_mail(args.fd(0), args.size(2), until)?;
    if args.addr(3) != 0 {
        cur.mm().write_val(args.addr(3), &mail.priority)?;
    }
    cur.mm().write(args.addr(1), &mail.text)?;
    Ok(mail.text.len() as u64)
}

/// mq_notify(2)
pub(in crate::syscalls) fn mq_notify(cur: &mut Current, args: &Args) -> Result<u64> {
    let (fd, addr) = (args.fd(0), args.addr(1));
    if addr == 0 {
        return cur.notify_on_mail(fd, None).map(|()| 0);
    }
    // `struct sigevent`: value, signal and kind, and what a thread would get.
    let [value, kind, ..] = cur.mm().read_val::<[u64; 8]>(addr)?;
    let (signo, kind) = (kind as i32, (kind >> 32) as u32);
    let signal = match kind {
        SIGEV_NONE => None,
        SIGEV_SIGNAL if (0..=NSIG).contains(&signo) => Some((signo, value)),
        SIGEV_THREAD => {
            // A message to a netlink socket, of which there is none.
            cur.mm().read(value, &mut [0; COOKIE])?;
            let socket = cur.file(signo)?.stat().mode & c::S_IFMT == c::S_IFSOCK;
            return Err(if socket { Errno::EINVAL } else { Errno::ENOTSOCK });
        }
        _ => return Err(Errno::EINVAL),
    };
    cur.notify_on_mail(fd, Some(signal)).map(|()| 0)
}

/// mq_getsetattr(2)
pub(in crate::syscalls) fn mq_getsetattr(cur: &mut Current, args: &Args) -> Result<u64> {
    let mut nonblocking = None;
    if args.addr(1) != 0 {
        let flags = cur.mm().read_val::<RawAttributes>(args.addr(1))?[0];
        if flags & !i64::from(c::O_NONBLOCK) != 0 {
            return Err(Errno::EINVAL);
        }
        nonblocking = Some(flags != 0);
    }
    let [flags, messages, size, now] = cur.mqueue_attributes(args.fd(0), nonblocking)?;
    if args.addr(2) != 0 {
        let raw: RawAttributes = [flags, messages, size, now, 0, 0, 0, 0];
        cur.mm().write_val(args.addr(2), &raw)?;
    }
    Ok(0)
}
