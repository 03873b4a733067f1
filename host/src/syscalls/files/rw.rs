//! read, write and their variants; lseek.

use super::names::raise;
use crate::abi::{Errno, Result};
use crate::fs::signalfd::SignalFd;
use crate::fs::terminal;
use crate::kernel::Current;
use crate::kernel::signal::{SIGPIPE, SIGXFSZ};
use crate::mm::io::MAX_RW;
use crate::mm::{IoDst, IoSrc};
use crate::syscalls::Args;
use crate::syscalls::sockets::message::receive_deadline;
use crate::vfs::{File, Kind, Whence};
use linux_raw_sys::general as c;
use std::sync::Arc;

/// What is moved at a time where nothing else ends a long read or write.
pub(super) const PIECE: usize = 64 << 10;
/// Events that end a wait for something to read.
pub(crate) const READABLE: u32 = c::POLLIN | c::POLLRDNORM | c::POLLERR | c::POLLHUP | c::POLLRDHUP;

/// Events that end a wait for room to write.
pub(crate) const WRITABLE: u32 = c::POLLOUT | c::POLLWRNORM | c::POLLERR | c::POLLHUP;

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
pub(crate) fn room(cur: &Current, file: &File, offset: Option<u64>, len: usize) -> Result<usize> {
    let limit = cur.limit(c::RLIMIT_FSIZE);
    if limit == u64::MAX || Kind::from_mode(file.stat().mode) != Some(Kind::File) {
        return Ok(len);
    }
    let start =
        if file.flags() & c::O_APPEND != 0 { file.stat().size } else { offset.unwrap_or(file.position()) };
    room_from(cur, start, len)
}

/// The same of a regular file, from `start` on.
pub(super) fn room_from(cur: &Current, start: u64, len: usize) -> Result<usize> {
    match cur.limit(c::RLIMIT_FSIZE).checked_sub(start) {
        Some(room) if room > 0 => Ok(len.min(usize::try_from(room).unwrap_or(usize::MAX))),
        _ if len == 0 => Ok(0),
        _ => Err(too_big(cur)),
    }
}

/// To be called before a regular file is written: it must not give others what it gave for its old content.
#[inline]
pub(crate) fn about_to_write(cur: &Current, file: &File, len: usize) {
    if len > 0 && file.is_privileged() {
        file.lose_privileges(&cur.cred());
    }
}

/// What happens to a process that makes a file larger than RLIMIT_FSIZE.
fn too_big(cur: &Current) -> Errno {
    raise(cur, SIGXFSZ);
    Errno::EFBIG
}

/// Fails where RLIMIT_FSIZE forbids a file of `size` bytes to grow to `len`.
pub(crate) fn check_size(cur: &Current, size: u64, len: u64) -> Result<()> {
    if len > size && len > cur.limit(c::RLIMIT_FSIZE) { Err(too_big(cur)) } else { Ok(()) }
}

/// read(2)
pub(crate) fn read(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = cur.file(args.fd(0))?;
    let (addr, len) = buffer(cur, args)?;
    if file.waits() {
        return read_waiting(cur, &file, addr, len);
    }
    if len > PIECE as u64 {
        let mm = cur.mm().clone();
        return read_to(cur, &file, &mut IoDst::user(&mm, addr, len), None, false);
    }
    match file.read(&mut IoDst::user(cur.mm(), addr, len)) {
        Ok(count) => Ok(count as u64),
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
    if !file.reads_itself() {
        let mm = cur.mm().clone();
        return read_to(cur, file, &mut IoDst::user(&mm, addr, len), None, false);
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
    let mut attempt = || match offset {
        None => file.read(dst),
        Some(offset) => file.pread(dst, offset),
    };
    Ok(cur.retry((queue, READABLE), receive_deadline(file), &mut attempt)? as u64)
}

/// Reads, waiting unless the file or the call says not to.
pub(super) fn read_to(
    cur: &mut Current,
    file: &Arc<File>,
    dst: &mut IoDst<'_>,
    offset: Option<u64>,
    nowait: bool,
) -> Result<u64> {
    if let Some(signals) = file.downcast::<SignalFd>() {
        if offset.is_some() {
            return Err(Errno::ESPIPE);
        }
        return crate::syscalls::descriptors::signalfd::read_signals(cur, file, signals, dst);
    }
    if !file.reads_itself()
        && offset.is_none()
        && file.readable()
        && let Some(terminal) = terminal::of(file)
    {
        let result = terminal::read(cur, terminal, dst, nowait || file.nonblocking());
        return file.told(c::IN_ACCESS, result).map(|count| count as u64);
    }
    if dst.remaining() > PIECE && file.ops().wait_queue().is_none() {
        return read_pieces(cur, file, dst, offset);
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

/// Reads much from what never has to be waited for; ends early with the program.
#[cold]
fn read_pieces(cur: &Current, file: &File, dst: &mut IoDst<'_>, offset: Option<u64>) -> Result<u64> {
    let mut done = 0;
    loop {
        let want = dst.remaining().min(PIECE);
        let result = dst.piece(want, |dst| match offset {
            None => file.read(dst),
            Some(offset) => file.pread(dst, offset + done),
        });
        match result {
            Ok(count) => done += count as u64,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => return Ok(done),
        }
        if result.is_ok_and(|count| count < want) || dst.remaining() == 0 || cur.pause().is_err() {
            return Ok(done);
        }
    }
}

/// Writes much to what never has to be waited for; ends early with the program.
#[cold]
fn write_pieces(cur: &Current, file: &File, src: &mut IoSrc<'_>, offset: Option<u64>) -> Result<usize> {
    let mut done = 0;
    loop {
        let want = src.remaining().min(PIECE);
        let result = src.piece(want, |src| match offset {
            None => file.write(src),
            Some(offset) => file.pwrite(src, offset + done as u64),
        });
        match result {
            Ok(count) => done += count,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => return Ok(done),
        }
        if result.is_ok_and(|count| count < want) || src.remaining() == 0 || cur.pause().is_err() {
            return Ok(done);
        }
    }
}

/// write(2)
pub(crate) fn write(cur: &mut Current, args: &Args) -> Result<u64> {
    let file = cur.file(args.fd(0))?;
    let (addr, mut len) = buffer(cur, args)?;
    if file.positioned() {
        len = room(cur, &file, None, len as usize)? as u64;
        about_to_write(cur, &file, len as usize);
    } else if file.names_writer() {
        let mm = cur.mm().clone();
        return write_named(cur, &file, &mut IoSrc::user(&mm, addr, len), false);
    }
    if len > PIECE as u64 && file.ops().wait_queue().is_none() {
        let mm = cur.mm().clone();
        let result = write_pieces(cur, &file, &mut IoSrc::user(&mm, addr, len), None);
        return finish_write(cur, result);
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

/// Writes to a file for which it matters who writes.
fn write_named(cur: &mut Current, file: &Arc<File>, src: &mut IoSrc<'_>, nowait: bool) -> Result<u64> {
    let Some(terminal) = terminal::of(file).filter(|_| file.writable()) else {
        return crate::syscalls::sockets::message::write(cur, file, src, nowait);
    };
    terminal::check_write(cur, terminal)?;
    if nowait || file.nonblocking() {
        let result = file.write(src);
        return finish_write(cur, result);
    }
    write_slow(cur, file, src, None, 0)
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
pub(super) fn write_from(
    cur: &mut Current,
    file: &Arc<File>,
    src: &mut IoSrc<'_>,
    offset: Option<u64>,
    nowait: bool,
) -> Result<u64> {
    if file.names_writer() && offset.is_none() {
        return write_named(cur, file, src, nowait);
    }
    if !nowait && !file.nonblocking() && file.ops().wait_queue().is_some() {
        return write_slow(cur, file, src, offset, 0);
    }
    if file.positioned() {
        src.limit(room(cur, file, offset, src.remaining())?);
        about_to_write(cur, file, src.remaining());
    }
    if src.remaining() > PIECE && file.ops().wait_queue().is_none() {
        let result = write_pieces(cur, file, src, offset);
        return finish_write(cur, result);
    }
    let result = match offset {
        None => file.write(src),
        Some(offset) => file.pwrite(src, offset),
    };
    finish_write(cur, result)
}

pub(crate) fn position(offset: i64) -> Result<u64> {
    u64::try_from(offset).map_err(|_| Errno::EINVAL)
}

/// pread64(2)
pub(crate) fn pread64(cur: &mut Current, args: &Args) -> Result<u64> {
    let offset = position(args.offset(3))?;
    let file = cur.file(args.fd(0))?;
    let mm = cur.mm().clone();
    let (addr, len) = buffer(cur, args)?;
    let mut dst = IoDst::user(&mm, addr, len);
    read_to(cur, &file, &mut dst, Some(offset), false)
}

/// pwrite64(2)
pub(crate) fn pwrite64(cur: &mut Current, args: &Args) -> Result<u64> {
    let offset = position(args.offset(3))?;
    let file = cur.file(args.fd(0))?;
    let mm = cur.mm().clone();
    let (addr, len) = buffer(cur, args)?;
    let mut src = IoSrc::user(&mm, addr, len);
    write_from(cur, &file, &mut src, Some(offset), false)
}

/// lseek(2)
pub(crate) fn lseek(cur: &mut Current, args: &Args) -> Result<u64> {
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
