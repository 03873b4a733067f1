//! read, write and their variants; lseek; truncate; sync.

use super::Args;
use super::message::{receive_deadline, timed_out};
use super::names::{Names, only, path_arg, raise};
use crate::abi::{Errno, Result};
use crate::fs::signalfd::SignalFd;
use crate::kernel::Current;
use crate::kernel::signal::{SIGPIPE, SIGXFSZ};
use crate::mm::io::MAX_RW;
use crate::mm::{IoDst, IoSrc};
use crate::vfs::{File, Kind, Resolve, Whence};
use linux_raw_sys::general as c;
use std::sync::Arc;

/// Events that end a wait for something to read.
pub(super) const READABLE: u32 = c::POLLIN | c::POLLRDNORM | c::POLLERR | c::POLLHUP | c::POLLRDHUP;
/// Events that end a wait for room to write.
pub(super) const WRITABLE: u32 = c::POLLOUT | c::POLLWRNORM | c::POLLERR | c::POLLHUP;

/// The buffer of read(2) and its kin: it must lie below the kernel, however much of it is used.
#[inline]
fn buffer(cur: &Current, args: &Args) -> Result<(u64, u64)> {
    let (addr, len) = (args.addr(1), args.addr(2));
    match addr.checked_add(len) {
        Some(end) if end <= cur.mm().task_size() => Ok((addr, len.min(MAX_RW))),
        _ => Err(Errno::EFAULT),
    }
}

/// How much RLIMIT_FSIZE lets a regular file be written from `offset` (its position, if none) on. Beyond the limit
/// there is a signal, too.
fn room(cur: &Current, file: &File, offset: Option<u64>, len: usize) -> Result<usize> {
    let limit = cur.limit(c::RLIMIT_FSIZE);
    if limit == u64::MAX || Kind::from_mode(file.stat().mode) != Some(Kind::File) {
        return Ok(len);
    }
    let start =
        if file.flags() & c::O_APPEND != 0 { file.stat().size } else { offset.unwrap_or(file.position()) };
    match limit.checked_sub(start) {
        Some(room) if room > 0 => Ok(len.min(usize::try_from(room).unwrap_or(usize::MAX))),
        _ if len == 0 => Ok(0),
        _ => Err(too_big(cur)),
    }
}

/// What happens to a process that makes a file larger than RLIMIT_FSIZE.
fn too_big(cur: &Current) -> Errno {
    raise(cur, SIGXFSZ);
    Errno::EFBIG
}

/// Fails where RLIMIT_FSIZE forbids a file of this size.
fn check_size(cur: &Current, len: u64) -> Result<()> {
    if len > cur.limit(c::RLIMIT_FSIZE) { Err(too_big(cur)) } else { Ok(()) }
}

/// read(2)
pub(super) fn read(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = cur.file(args.fd(0))?;
    let (addr, len) = buffer(cur, args)?;
    if file.waits() {
        return read_waiting(cur, &file, addr, len);
    }
    match file.read(&mut IoDst::user(cur.mm(), addr, len)) {
        Ok(count) => Ok(count as u64),
        Err(Errno::EAGAIN) if file.downcast::<SignalFd>().is_some() => {
            let mm = cur.mm().clone();
            read_to(cur, &file, &mut IoDst::user(&mm, addr, len), None, false)
        }
        Err(Errno::EAGAIN) if !file.nonblocking() => {
            let mm = cur.mm().clone();
            read_slow(cur, &file, &mut IoDst::user(&mm, addr, len), None)
        }
        Err(errno) => Err(errno),
    }
}

/// Reads from a file that [waits](File::waits).
#[inline(never)]
fn read_waiting(cur: &mut Current, file: &Arc<File>, addr: u64, len: u64) -> Result<u64> {
    if !file.readable() {
        return Err(Errno::EBADF);
    }
    let ops = &**file.ops();
    let Some(queue) = ops.wait_queue() else { return Err(Errno::EAGAIN) };
    // Before the attempt: what changes after it changes the version too.
    let version = queue.version();
    match ops.read(&mut IoDst::user(cur.mm(), addr, len), None) {
        Ok(count) => return file.told(c::IN_ACCESS, Ok(count)).map(|count| count as u64),
        Err(Errno::EAGAIN) if !file.nonblocking() => {}
        Err(errno) => return Err(errno),
    }
    let mm = cur.mm().clone();
    if receive_deadline(file).is_some() {
        return read_slow(cur, file, &mut IoDst::user(&mm, addr, len), None);
    }
    let mut attempt = || match ops.read(&mut IoDst::user(&mm, addr, len), None) {
        Err(Errno::EAGAIN) => None,
        other => Some(other),
    };
    let result = cur.wait_since((queue, READABLE), version, &mut attempt)?;
    Ok(file.told(c::IN_ACCESS, result)? as u64)
}

/// Waits until a read gives something.
#[cold]
fn read_slow(cur: &mut Current, file: &Arc<File>, dst: &mut IoDst<'_>, offset: Option<u64>) -> Result<u64> {
    let queue = file.ops().wait_queue().ok_or(Errno::EAGAIN)?;
    let mut attempt = || {
        let result = match offset {
            None => file.read(dst),
            Some(offset) => file.pread(dst, offset),
        };
        match result {
            Err(Errno::EAGAIN) => None,
            other => Some(other),
        }
    };
    Ok(cur.wait_on(&[(queue, READABLE)], receive_deadline(file), &mut attempt).map_err(timed_out)?? as u64)
}

/// Reads, waiting unless the file or the call says not to.
fn read_to(
    cur: &mut Current,
    file: &Arc<File>,
    dst: &mut IoDst<'_>,
    offset: Option<u64>,
    nowait: bool,
) -> Result<u64> {
    if let Some(signals) = file.downcast::<SignalFd>() {
        return super::event::read_signals(cur, file, signals, dst);
    }
    let result = match offset {
        None => file.read(dst),
        Some(offset) => file.pread(dst, offset),
    };
    match result {
        Ok(count) => Ok(count as u64),
        Err(Errno::EAGAIN) if !nowait && !file.nonblocking() => read_slow(cur, file, dst, offset),
        Err(errno) => Err(errno),
    }
}

/// write(2)
pub(super) fn write(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = cur.file(args.fd(0))?;
    let (addr, mut len) = buffer(cur, args)?;
    if file.positioned() {
        len = room(cur, &file, None, len as usize)? as u64;
    } else if file.names_writer() {
        let mm = cur.mm().clone();
        return super::message::write(cur, &file, &mut IoSrc::user(&mm, addr, len), false);
    }
    let first = file.write(&mut IoSrc::user(cur.mm(), addr, len));
    match first {
        Ok(count) if count as u64 == len => Ok(len),
        // A bounced host write may have taken less than was read off the source: start again behind what was taken.
        Ok(count) if file.ops().wait_queue().is_some() && !file.nonblocking() && count > 0 => {
            let mm = cur.mm().clone();
            write_slow(
                cur,
                &file,
                &mut IoSrc::user(&mm, addr + count as u64, len - count as u64),
                None,
                count,
            )
        }
        Err(Errno::EAGAIN) if !file.nonblocking() => {
            let mm = cur.mm().clone();
            write_slow(cur, &file, &mut IoSrc::user(&mm, addr, len), None, 0)
        }
        result => finish_write(cur, result),
    }
}

/// SIGPIPE goes with EPIPE.
fn finish_write(cur: &mut Current, result: Result<usize>) -> Result<u64> {
    match result {
        Ok(count) => Ok(count as u64),
        Err(Errno::EPIPE) => {
            raise(cur, SIGPIPE);
            Err(Errno::EPIPE)
        }
        Err(errno) => Err(errno),
    }
}

/// Writes everything, waiting for room; `done` was written before.
#[cold]
fn write_slow(
    cur: &mut Current,
    file: &Arc<File>,
    src: &mut IoSrc<'_>,
    offset: Option<u64>,
    done: usize,
) -> Result<u64> {
    let Some(queue) = file.ops().wait_queue() else { return Err(Errno::EAGAIN) };
    let mut done = done;
    loop {
        let mut attempt = || {
            let result = match offset {
                None => file.write(src),
                Some(offset) => file.pwrite(src, offset + done as u64),
            };
            match result {
                Err(Errno::EAGAIN) => None,
                other => Some(other),
            }
        };
        match cur.wait_on(&[(queue, WRITABLE)], None, &mut attempt).and_then(|result| result) {
            Ok(count) => {
                done += count;
                if src.remaining() == 0 || count == 0 {
                    return Ok(done as u64);
                }
            }
            Err(Errno::EPIPE) => {
                raise(cur, SIGPIPE);
                return if done > 0 { Ok(done as u64) } else { Err(Errno::EPIPE) };
            }
            Err(_) if done > 0 => return Ok(done as u64),
            Err(errno) => return Err(errno),
        }
    }
}

/// Writes everything, waiting unless the file or the call says not to.
fn write_from(
    cur: &mut Current,
    file: &Arc<File>,
    src: &mut IoSrc<'_>,
    offset: Option<u64>,
    nowait: bool,
) -> Result<u64> {
    if file.names_writer() && offset.is_none() {
        return super::message::write(cur, file, src, nowait);
    }
    if !nowait && !file.nonblocking() && file.ops().wait_queue().is_some() {
        return write_slow(cur, file, src, offset, 0);
    }
    if file.positioned() {
        src.limit(room(cur, file, offset, src.remaining())?);
    }
    let result = match offset {
        None => file.write(src),
        Some(offset) => file.pwrite(src, offset),
    };
    finish_write(cur, result)
}

fn position(offset: i64) -> Result<u64> {
    u64::try_from(offset).map_err(|_| Errno::EINVAL)
}

/// pread64(2)
pub(super) fn pread64(cur: &mut Current, args: &Args) -> Result<u64> {
    let offset = position(args.offset(3))?;
    let file = cur.file(args.fd(0))?;
    let mm = cur.mm().clone();
    let (addr, len) = buffer(cur, args)?;
    let mut dst = IoDst::user(&mm, addr, len);
    read_to(cur, &file, &mut dst, Some(offset), false)
}

/// pwrite64(2)
pub(super) fn pwrite64(cur: &mut Current, args: &Args) -> Result<u64> {
    let offset = position(args.offset(3))?;
    let file = cur.file(args.fd(0))?;
    let mm = cur.mm().clone();
    let (addr, len) = buffer(cur, args)?;
    let mut src = IoSrc::user(&mm, addr, len);
    write_from(cur, &file, &mut src, Some(offset), false)
}

pub(super) fn read_vector(cur: &mut Current, args: &Args, offset: Option<u64>, nowait: bool) -> Result<u64> {
    let file = cur.file(args.fd(0))?;
    let mm = cur.mm().clone();
    let iovecs = mm.read_iovecs(args.addr(1), args.addr(2))?;
    let count = read_to(cur, &file, &mut IoDst::user_iovecs(&mm, &iovecs), offset, nowait)?;
    if count == 0 {
        // Watchers hear of the end of a file from this call, unlike from read(2).
        file.tell(c::IN_ACCESS);
    }
    Ok(count)
}

pub(super) fn write_vector(cur: &mut Current, args: &Args, offset: Option<u64>, nowait: bool) -> Result<u64> {
    let file = cur.file(args.fd(0))?;
    let mm = cur.mm().clone();
    let iovecs = mm.read_iovecs(args.addr(1), args.addr(2))?;
    write_from(cur, &file, &mut IoSrc::user_iovecs(&mm, &iovecs), offset, nowait)
}

/// readv(2)
pub(super) fn readv(cur: &mut Current, args: &Args) -> Result<u64> {
    read_vector(cur, args, None, false)
}

/// writev(2)
pub(super) fn writev(cur: &mut Current, args: &Args) -> Result<u64> {
    write_vector(cur, args, None, false)
}

/// preadv(2)
pub(super) fn preadv(cur: &mut Current, args: &Args) -> Result<u64> {
    let offset = position(args.offset(3))?;
    read_vector(cur, args, Some(offset), false)
}

/// pwritev(2)
pub(super) fn pwritev(cur: &mut Current, args: &Args) -> Result<u64> {
    let offset = position(args.offset(3))?;
    write_vector(cur, args, Some(offset), false)
}

/// The offset and flags of preadv2 and pwritev2: -1 is the file's position.
fn second(args: &Args, known: u32) -> Result<(Option<u64>, bool)> {
    let offset = if args.offset(3) == -1 { None } else { Some(position(args.offset(3))?) };
    if args.uint(5) & !known != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok((offset, args.uint(5) & c::RWF_NOWAIT != 0))
}

/// preadv2(2)
pub(super) fn preadv2(cur: &mut Current, args: &Args) -> Result<u64> {
    let (offset, nowait) = second(args, c::RWF_HIPRI | c::RWF_NOWAIT)?;
    read_vector(cur, args, offset, nowait)
}

/// pwritev2(2)
pub(super) fn pwritev2(cur: &mut Current, args: &Args) -> Result<u64> {
    let sync = c::RWF_SYNC | c::RWF_DSYNC;
    let (offset, nowait) = second(args, c::RWF_HIPRI | c::RWF_NOWAIT | sync)?;
    let count = write_vector(cur, args, offset, nowait)?;
    if args.uint(5) & sync != 0 {
        match cur.file(args.fd(0))?.ops().sync() {
            // What has nothing to write back: pipes, sockets.
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(count)
}

/// lseek(2)
pub(super) fn lseek(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = cur.file(args.fd(0))?;
    let whence = match args.uint(2) {
        c::SEEK_SET => Whence::Set,
        c::SEEK_CUR => Whence::Current,
        c::SEEK_END => Whence::End,
        c::SEEK_DATA => Whence::Data,
        c::SEEK_HOLE => Whence::Hole,
        _ => return Err(Errno::EINVAL),
    };
    file.seek(args.long(1), whence)
}

/// truncate(2)
pub(super) fn truncate(cur: &mut Current, args: &Args) -> Result<u64> {
    let len = position(args.long(1))?;
    check_size(cur, len)?;
    let name = path_arg(cur, args.addr(0))?;
    let names = Names::of(cur);
    let path = names.lookup().resolve(None, &name, Resolve::FOLLOW)?;
    names.lookup().truncate(&path, len)?;
    Ok(0)
}

/// ftruncate(2)
pub(super) fn ftruncate(cur: &mut Current, args: &Args) -> Result<u64> {
    let len = position(args.long(1))?;
    let file = cur.file(args.fd(0))?;
    if !file.writable() {
        return Err(Errno::EINVAL);
    }
    check_size(cur, len)?;
    file.truncate(len)?;
    Ok(0)
}

/// fallocate(2)
pub(super) fn fallocate(cur: &mut Current, args: &Args) -> Result<u64> {
    let (offset, len) = (position(args.long(2))?, position(args.long(3))?);
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    cur.file(args.fd(0))?.allocate(args.uint(1), offset, len)?;
    Ok(0)
}

/// fsync(2), fdatasync(2)
pub(super) fn fsync(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.file(args.fd(0))?.ops().sync()?;
    Ok(0)
}

/// sync_file_range(2): nothing is written late.
pub(super) fn sync_file_range(cur: &mut Current, args: &Args) -> Result<u64> {
    only(args.uint(3), 7)?;
    let file = cur.file(args.fd(0))?;
    match Kind::from_mode(file.stat().mode) {
        Some(Kind::File | Kind::Dir | Kind::Block | Kind::Symlink) => Ok(0),
        _ => Err(Errno::ESPIPE),
    }
}

/// sync(2). There is nothing to write back: files of the sandbox's own are memory, and what is written to the host's is
/// the host's at once.
pub(super) fn sync(_cur: &mut Current, _args: &Args) -> Result<u64> {
    Ok(0)
}

/// syncfs(2)
pub(super) fn syncfs(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.file(args.fd(0))?;
    Ok(0)
}

/// posix_fadvise(2): advice, which Linux need not take either.
pub(super) fn fadvise64(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = cur.file(args.fd(0))?;
    if args.uint(3) > 5 || args.long(2) < 0 {
        return Err(Errno::EINVAL);
    }
    match Kind::from_mode(file.stat().mode) {
        Some(Kind::Fifo) => Err(Errno::ESPIPE),
        _ => Ok(0),
    }
}

/// readahead(2): advice, too.
pub(super) fn readahead(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = cur.file(args.fd(0))?;
    if !file.readable() {
        return Err(Errno::EBADF);
    }
    match Kind::from_mode(file.stat().mode) {
        Some(Kind::File) => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}
