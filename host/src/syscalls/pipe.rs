//! pipe, and calls that move bytes between descriptors inside the kernel.

use super::Args;
use super::names::{only, raise};
use super::rw::{READABLE, WRITABLE};
use crate::abi::{Errno, Result};
use crate::fs::pipe::{Pipe, PipeEnd};
use crate::kernel::Current;
use crate::kernel::signal::SIGPIPE;
use crate::mm::{IoDst, IoSrc};
use crate::vfs::{File, Kind, is_cloexec};
use linux_raw_sys::general as c;
use std::sync::Arc;

/// SPLICE_F_MOVE, NONBLOCK, MORE and GIFT. All but the second are hints.
const SPLICE_FLAGS: u32 = 15;
/// Bytes moved at a time.
const CHUNK: usize = 64 * 1024;

/// pipe(2)
pub(super) fn pipe(cur: &mut Current, args: &Args) -> Result<u64> {
    make(cur, args.addr(0), 0)
}

/// pipe2(2)
pub(super) fn pipe2(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = args.uint(1);
    // Not O_DIRECT, which would keep packets apart (Linux 3.4).
    only(flags, c::O_CLOEXEC | c::O_NONBLOCK)?;
    make(cur, args.addr(0), flags)
}

fn make(cur: &mut Current, addr: u64, flags: u32) -> Result<u64> {
    let (reader, writer) = Pipe::pair(flags);
    install_pair(cur, addr, reader, writer, is_cloexec(flags))
}

/// Installs two files and tells the program their numbers, or leaves nothing behind.
pub(super) fn install_pair(
    cur: &mut Current,
    addr: u64,
    first: Arc<File>,
    second: Arc<File>,
    cloexec: bool,
) -> Result<u64> {
    let (fds, limit) = (cur.fds(), cur.limit(c::RLIMIT_NOFILE));
    let a = fds.install(first, cloexec, limit)?;
    let b = match fds.install(second, cloexec, limit) {
        Ok(b) => b,
        Err(errno) => {
            drop(fds.close(a));
            return Err(errno);
        }
    };
    if let Err(errno) = cur.mm().write_val(addr, &[a, b]) {
        drop(fds.close(a));
        drop(fds.close(b));
        return Err(errno);
    }
    Ok(0)
}

/// An offset argument by pointer: absent, or a position that is used and updated.
fn offset_at(cur: &Current, addr: u64) -> Result<Option<u64>> {
    if addr == 0 {
        return Ok(None);
    }
    let offset: i64 = cur.mm().read_val(addr)?;
    u64::try_from(offset).map(Some).map_err(|_| Errno::EINVAL)
}

fn read_some(file: &File, buf: &mut [u8], at: Option<u64>) -> Result<usize> {
    match at {
        None => file.read_untold(&mut IoDst::kernel(buf)),
        Some(at) => file.pread_untold(&mut IoDst::kernel(buf), at),
    }
}

fn write_some(file: &File, bytes: &[u8], at: Option<u64>) -> Result<usize> {
    match at {
        None => file.write(&mut IoSrc::kernel(bytes)),
        Some(at) => file.pwrite(&mut IoSrc::kernel(bytes), at),
    }
}

/// Who moves what where.
struct Move<'a> {
    from: &'a Arc<File>,
    from_at: Option<u64>,
    to: &'a Arc<File>,
    to_at: Option<u64>,
    nowait: bool,
}

/// Moves up to `len` bytes, and tells watchers when all is done.
fn transfer(cur: &mut Current, job: &mut Move<'_>, len: usize) -> Result<usize> {
    let moved = move_bytes(cur, job, len)?;
    if moved > 0 {
        job.from.tell(c::IN_ACCESS);
        job.to.tell(c::IN_MODIFY);
    }
    Ok(moved)
}

/// Moves up to `len` bytes. Stops at the end of the source, and where a source that can block has no more after
/// something was moved. Everything read is written, whatever it takes: nothing may get lost on the way.
fn move_bytes(cur: &mut Current, job: &mut Move<'_>, len: usize) -> Result<usize> {
    let mut buf = vec![0u8; len.min(CHUNK)];
    let mut total = 0;
    while total < len {
        let want = (len - total).min(buf.len());
        let got = match read_some(job.from, &mut buf[..want], job.from_at) {
            Ok(0) => break,
            Ok(got) => got,
            Err(Errno::EAGAIN) if total > 0 => break,
            Err(Errno::EAGAIN) if !job.nowait && !job.from.nonblocking() => {
                let queue = job.from.ops().wait_queue().ok_or(Errno::EAGAIN)?;
                let (from, at) = (job.from, job.from_at);
                let part = &mut buf[..want];
                let got =
                    cur.wait_on(&[(queue, READABLE)], None, &mut || match read_some(from, part, at) {
                        Err(Errno::EAGAIN) => None,
                        result => Some(result),
                    })??;
                if got == 0 {
                    break;
                }
                got
            }
            Err(_) if total > 0 => break,
            Err(errno) => return Err(errno),
        };
        if let Some(at) = &mut job.from_at {
            *at += got as u64;
        }
        let mut put = 0;
        while put < got {
            let (to, at) = (job.to, job.to_at);
            let rest = &buf[put..got];
            let result = match write_some(to, rest, at) {
                Err(Errno::EAGAIN) if let Some(queue) = to.ops().wait_queue() => cur
                    .wait_killable(&[(queue, WRITABLE)], &mut || match write_some(to, rest, at) {
                        Err(Errno::EAGAIN) => None,
                        result => Some(result),
                    })
                    .and_then(|result| result),
                result => result,
            };
            match result {
                Ok(count) => {
                    put += count;
                    if let Some(at) = &mut job.to_at {
                        *at += count as u64;
                    }
                }
                Err(errno) => {
                    if errno == Errno::EPIPE {
                        raise(cur, SIGPIPE);
                    }
                    give_back(job, (got - put) as u64);
                    total += put;
                    return if total > 0 { Ok(total) } else { Err(errno) };
                }
            }
        }
        total += got;
    }
    Ok(total)
}

/// Winds the source back over what could not be written.
fn give_back(job: &mut Move<'_>, count: u64) {
    match &mut job.from_at {
        Some(at) => *at -= count,
        None => drop(job.from.seek(-(count as i64), crate::vfs::Whence::Current)),
    }
}

/// sendfile(2)
pub(super) fn sendfile(cur: &mut Current, args: &Args) -> Result<u64> {
    let fds = cur.fds();
    let (to, from) = (fds.get(args.fd(0))?, fds.get(args.fd(1))?);
    let from_at = offset_at(cur, args.addr(2))?;
    if !from.readable() || !to.writable() {
        return Err(Errno::EBADF);
    }
    if !from.positioned() && from.ops().host_fd().is_none() {
        return Err(Errno::EINVAL);
    }
    if to.flags() & c::O_APPEND != 0 {
        return Err(Errno::EINVAL);
    }
    let nowait = to.nonblocking();
    let mut job = Move { from: &from, from_at, to: &to, to_at: None, nowait };
    let count = transfer(cur, &mut job, args.size(3).min(0x7fff_f000))?;
    if let Some(at) = job.from_at {
        cur.mm().write_val(args.addr(2), &at)?;
    }
    Ok(count as u64)
}

/// copy_file_range(2)
pub(super) fn copy_file_range(cur: &mut Current, args: &Args) -> Result<u64> {
    only(args.uint(5), 0)?;
    let fds = cur.fds();
    let (from, to) = (fds.get(args.fd(0))?, fds.get(args.fd(2))?);
    if !from.readable() || !to.writable() || to.flags() & c::O_APPEND != 0 {
        return Err(Errno::EBADF);
    }
    for file in [&from, &to] {
        match Kind::from_mode(file.stat().mode) {
            Some(Kind::Dir) => return Err(Errno::EISDIR),
            Some(Kind::File) => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    let (from_at, to_at) = (offset_at(cur, args.addr(1))?, offset_at(cur, args.addr(3))?);
    let len = args.size(4).min(0x7fff_f000);
    if Arc::ptr_eq(from.ops(), to.ops())
        || from.named().zip(to.named()).is_some_and(|(a, b)| Arc::ptr_eq(&a.dentry.inode, &b.dentry.inode))
    {
        let (a, b) = (from_at.unwrap_or(from.position()), to_at.unwrap_or(to.position()));
        if a < b.saturating_add(len as u64) && b < a.saturating_add(len as u64) {
            return Err(Errno::EINVAL);
        }
    }
    let mut job = Move { from: &from, from_at, to: &to, to_at, nowait: false };
    let count = transfer(cur, &mut job, len)?;
    for (addr, at) in [(args.addr(1), job.from_at), (args.addr(3), job.to_at)] {
        if let Some(at) = at {
            cur.mm().write_val(addr, &at)?;
        }
    }
    Ok(count as u64)
}

/// splice(2)
pub(super) fn splice(cur: &mut Current, args: &Args) -> Result<u64> {
    only(args.uint(5), SPLICE_FLAGS)?;
    let fds = cur.fds();
    let (from, to) = (fds.get(args.fd(0))?, fds.get(args.fd(2))?);
    if !from.readable() || !to.writable() {
        return Err(Errno::EBADF);
    }
    let (in_pipe, out_pipe) = (from.downcast::<PipeEnd>(), to.downcast::<PipeEnd>());
    if in_pipe.is_none() && out_pipe.is_none() {
        return Err(Errno::EINVAL);
    }
    if (in_pipe.is_some() && args.addr(1) != 0) || (out_pipe.is_some() && args.addr(3) != 0) {
        return Err(Errno::ESPIPE);
    }
    if let (Some(a), Some(b)) = (in_pipe, out_pipe)
        && a.same_pipe(b)
    {
        return Err(Errno::EINVAL);
    }
    let nowait = args.uint(5) & c::SPLICE_F_NONBLOCK != 0;
    let (from_at, to_at) = (offset_at(cur, args.addr(1))?, offset_at(cur, args.addr(3))?);
    let mut job = Move { from: &from, from_at, to: &to, to_at, nowait };
    // One chunk: a pipe that fills up must not keep what was taken out of the other waiting for long.
    let count = transfer(cur, &mut job, args.size(4).min(CHUNK))?;
    for (addr, at) in [(args.addr(1), job.from_at), (args.addr(3), job.to_at)] {
        if let Some(at) = at {
            cur.mm().write_val(addr, &at)?;
        }
    }
    Ok(count as u64)
}

/// tee(2)
pub(super) fn tee(cur: &mut Current, args: &Args) -> Result<u64> {
    only(args.uint(3), SPLICE_FLAGS)?;
    let fds = cur.fds();
    let (from, to) = (fds.get(args.fd(0))?, fds.get(args.fd(1))?);
    if !from.readable() || !to.writable() {
        return Err(Errno::EBADF);
    }
    let source = from.downcast::<PipeEnd>().ok_or(Errno::EINVAL)?;
    let sink = to.downcast::<PipeEnd>().ok_or(Errno::EINVAL)?;
    if source.same_pipe(sink) {
        return Err(Errno::EINVAL);
    }
    let nowait = args.uint(3) & c::SPLICE_F_NONBLOCK != 0 || from.nonblocking();
    let mut buf = vec![0u8; args.size(2).min(CHUNK)];
    let got =
        match source.peek(&mut IoDst::kernel(&mut buf)) {
            Err(Errno::EAGAIN) if !nowait => {
                let queue = from.ops().wait_queue().ok_or(Errno::EAGAIN)?;
                cur.wait_on(&[(queue, READABLE)], None, &mut || match source
                    .peek(&mut IoDst::kernel(&mut buf))
                {
                    Err(Errno::EAGAIN) => None,
                    result => Some(result),
                })??
            }
            result => result?,
        };
    if got == 0 {
        return Ok(0);
    }
    Ok(to.write(&mut IoSrc::kernel(&buf[..got]))? as u64)
}

/// vmsplice(2): the bytes are copied, not lent.
pub(super) fn vmsplice(cur: &mut Current, args: &Args) -> Result<u64> {
    only(args.uint(3), SPLICE_FLAGS)?;
    let nowait = args.uint(3) & c::SPLICE_F_NONBLOCK != 0;
    let file = cur.file(args.fd(0))?;
    if file.downcast::<PipeEnd>().is_none() {
        return Err(Errno::EBADF);
    }
    if file.writable() {
        super::rw::write_vector(cur, args, None, nowait)
    } else {
        super::rw::read_vector(cur, args, None, nowait)
    }
}
