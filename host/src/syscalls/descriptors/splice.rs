//! Moving bytes between descriptors inside the kernel: splice, tee, vmsplice, sendfile, copy_file_range.
//!
//! Nothing may get lost on the way, and every wait hears signals. So room in a pipe is kept before bytes are taken from
//! elsewhere, a file's position follows what was written only, and what a pipe gave and nobody took goes back in front.

use crate::abi::{Errno, Result};
use crate::fs::pipe::{PipeEnd, Room};
use crate::kernel::Current;
use crate::kernel::signal::SIGPIPE;
use crate::mm::{IoDst, IoSrc};
use crate::syscalls::Args;
use crate::syscalls::files::names::{only, raise};
use crate::syscalls::files::rw::{self, READABLE, WRITABLE};
use crate::syscalls::files::vectors;
use crate::vfs::{File, Kind, Whence};
use linux_raw_sys::general as c;
use std::sync::Arc;

/// SPLICE_F_MOVE, NONBLOCK, MORE and GIFT. All but the second are hints.
const SPLICE_FLAGS: u32 = 15;
/// Bytes moved at a time.
const CHUNK: usize = 64 * 1024;
/// Most bytes moved by one call (MAX_RW_COUNT).
const MOST: usize = 0x7fff_f000;

/// An offset argument by pointer: absent, or a position that is used and updated.
fn offset_at(cur: &Current, addr: u64) -> Result<Option<u64>> {
    if addr == 0 {
        return Ok(None);
    }
    let offset: i64 = cur.mm().read_val(addr)?;
    u64::try_from(offset).map(Some).map_err(|_| Errno::EINVAL)
}

fn put_offset(cur: &Current, addr: u64, at: Option<u64>) -> Result<()> {
    at.map_or(Ok(()), |at| cur.mm().write_val(addr, &at))
}

/// A length as read(2) and write(2) take it.
fn length(len: usize) -> Result<usize> {
    if len > isize::MAX as usize { Err(Errno::EINVAL) } else { Ok(len.min(MOST)) }
}

/// Tries until it does not have to wait, or gives EAGAIN with `nowait`.
fn waiting<T>(
    cur: &mut Current,
    file: &File,
    events: u32,
    nowait: bool,
    attempt: &mut dyn FnMut() -> Result<T>,
) -> Result<T> {
    match attempt() {
        Err(Errno::EAGAIN) if !nowait => {}
        result => return result,
    }
    let queue = file.ops().wait_queue().ok_or(Errno::EAGAIN)?;
    let mut ready = || match attempt() {
        Err(Errno::EAGAIN) => None,
        result => Some(result),
    };
    cur.wait_on(&[(queue, events)], None, &mut ready)?
}

/// One side of a move: an open file, and where in it, if not at its position.
struct Side<'a> {
    file: &'a Arc<File>,
    at: Option<u64>,
    nowait: bool,
    /// After a part it tries the rest, even if that is over the limit of file sizes: all but copy_file_range(2).
    tries_on: bool,
}

impl<'a> Side<'a> {
    fn new(file: &'a Arc<File>, at: Option<u64>, nowait: bool) -> Self {
        Side { file, at, nowait: nowait || file.nonblocking(), tries_on: true }
    }

    fn pipe(&self) -> Option<&'a PipeEnd> {
        self.file.downcast()
    }

    /// Bytes to move at a time: no more than a file has left that says how much it has.
    fn piece(&self, len: usize) -> usize {
        let stat = self.file.stat();
        let left = stat.size.saturating_sub(self.at.unwrap_or_else(|| self.file.position()));
        let says = Kind::from_mode(stat.mode) == Some(Kind::File) && left > 0;
        len.min(CHUNK).min(if says { usize::try_from(left).unwrap_or(CHUNK) } else { CHUNK })
    }

    /// Reads into `buf`, waiting for something; the position does not move.
    fn look(&self, cur: &mut Current, buf: &mut [u8]) -> Result<usize> {
        let file = self.file;
        let at = self.at.or_else(|| file.positioned().then(|| file.position()));
        waiting(cur, file, READABLE, self.nowait, &mut || match at {
            None => file.read_untold(&mut IoDst::kernel(buf)),
            Some(at) => file.pread_untold(&mut IoDst::kernel(buf), at),
        })
    }

    /// Moves on by `used` of `got` bytes that [`look`](Self::look) returned.
    fn advance(&mut self, got: usize, used: usize) {
        match &mut self.at {
            Some(at) => *at += used as u64,
            None if self.file.positioned() => {
                let _ = self.file.seek(used as i64, Whence::Current);
            }
            // A host file that was read: back over the rest.
            None if used < got => {
                let _ = self.file.seek(-((got - used) as i64), Whence::Current);
            }
            None => {}
        }
    }

    /// Writes all of `bytes`, waiting for room, and says how much went, and why not all.
    fn write(&mut self, cur: &mut Current, bytes: &[u8]) -> (usize, Result<()>) {
        let file = self.file;
        let mut bytes = bytes;
        let wanted = bytes.len();
        if file.positioned() {
            match rw::room(cur, file, self.at, bytes.len()) {
                Ok(room) => bytes = &bytes[..room],
                Err(errno) => return (0, Err(errno)),
            }
        }
        rw::about_to_write(cur, file, bytes.len());
        let mut done = 0;
        while done < bytes.len() {
            let (rest, at) = (&bytes[done..], self.at);
            let result = waiting(cur, file, WRITABLE, self.nowait, &mut || match at {
                None => file.write(&mut IoSrc::kernel(rest)),
                Some(at) => file.pwrite(&mut IoSrc::kernel(rest), at),
            });
            match result {
                Ok(0) => break,
                Ok(count) => {
                    done += count;
                    self.at = self.at.map(|at| at + count as u64);
                }
                Err(errno) => {
                    if errno == Errno::EPIPE {
                        raise(cur, SIGPIPE);
                    }
                    return (done, Err(errno));
                }
            }
        }
        if bytes.len() < wanted && done == bytes.len() && self.tries_on {
            // What is left is tried too, and told of: the limit of file sizes.
            return (done, rw::room(cur, file, self.at, wanted - done).map(drop));
        }
        (done, Ok(()))
    }

    /// Keeps room in the pipe that this is.
    fn room(&self, cur: &mut Current, pipe: &'a PipeEnd, max: usize) -> Result<Room<'a>> {
        let result = waiting(cur, self.file, WRITABLE, self.nowait, &mut || pipe.keep_room(max));
        if result.as_ref().err() == Some(&Errno::EPIPE) {
            raise(cur, SIGPIPE);
        }
        result
    }
}

/// What was moved counts, whatever ended it.
fn outcome(moved: usize, result: Result<()>) -> Result<usize> {
    if moved > 0 { Ok(moved) } else { result.map(|()| 0) }
}

/// From a file to a file.
fn copy(cur: &mut Current, from: &mut Side<'_>, to: &mut Side<'_>, len: usize) -> Result<usize> {
    let mut buf = vec![0; from.piece(len)];
    let mut moved = 0;
    while moved < len {
        let want = (len - moved).min(buf.len());
        let got = match from.look(cur, &mut buf[..want]) {
            Ok(0) => break,
            Ok(got) => got,
            Err(errno) => return outcome(moved, Err(errno)),
        };
        let (put, result) = to.write(cur, &buf[..got]);
        from.advance(got, put);
        moved += put;
        if result.is_err() || put < got {
            return outcome(moved, result);
        }
        if cur.pause().is_err() {
            break;
        }
    }
    Ok(moved)
}

/// From a file to a pipe: as much as there is room for at once.
fn into_pipe(
    cur: &mut Current,
    from: &mut Side<'_>,
    to: &Side<'_>,
    pipe: &PipeEnd,
    len: usize,
) -> Result<usize> {
    let room = to.room(cur, pipe, len)?;
    let mut buf = vec![0; room.len()];
    let got = from.look(cur, &mut buf)?;
    from.advance(got, got);
    room.fill(&buf[..got]);
    Ok(got)
}

/// From a pipe to a file: what is in it, after waiting for something.
fn out_of_pipe(
    cur: &mut Current,
    from: &Side<'_>,
    pipe: &PipeEnd,
    to: &mut Side<'_>,
    len: usize,
) -> Result<usize> {
    let mut moved = 0;
    while moved < len {
        let want = (len - moved).min(CHUNK);
        let nowait = from.nowait || moved > 0;
        let bytes = match waiting(cur, from.file, READABLE, nowait, &mut || pipe.take_out(want)) {
            Ok(bytes) if bytes.is_empty() => break,
            Ok(bytes) => bytes,
            Err(errno) => return outcome(moved, Err(errno)),
        };
        let (put, result) = to.write(cur, &bytes);
        pipe.put_back(&bytes[put..]);
        moved += put;
        if result.is_err() || put < bytes.len() {
            return outcome(moved, result);
        }
    }
    Ok(moved)
}

/// From pipe to pipe: until the one is empty or the other full, after waiting for something and for room.
fn between_pipes(
    cur: &mut Current,
    (from, source): (&Side<'_>, &PipeEnd),
    (to, sink): (&Side<'_>, &PipeEnd),
    len: usize,
    keep: bool,
) -> Result<usize> {
    loop {
        let there = waiting(cur, from.file, READABLE, from.nowait, &mut || source.ready())?;
        if !there {
            return Ok(0);
        }
        let room = to.room(cur, sink, len)?;
        let bytes = if keep {
            let mut bytes = vec![0; room.len().min(source.pending())];
            let count = match source.peek(&mut IoDst::kernel(&mut bytes)) {
                Err(Errno::EAGAIN) => 0,
                result => result?,
            };
            bytes.truncate(count);
            bytes
        } else {
            match source.take_out(room.len()) {
                Err(Errno::EAGAIN) => Vec::new(),
                result => result?,
            }
        };
        room.fill(&bytes);
        // Somebody else may have been faster.
        if !bytes.is_empty() {
            return Ok(bytes.len());
        }
    }
}

/// Tells watchers when all is done.
fn told(from: &Arc<File>, to: &Arc<File>, moved: Result<usize>) -> Result<usize> {
    if moved.is_ok_and(|moved| moved > 0) {
        from.tell(c::IN_ACCESS);
        to.tell(c::IN_MODIFY);
    }
    moved
}

/// sendfile(2)
pub(crate) fn sendfile(cur: &mut Current, args: &Args) -> Result<u64> {
    let fds = cur.fds();
    let (to, from) = (fds.get(args.fd(0))?, fds.get(args.fd(1))?);
    let from_at = offset_at(cur, args.addr(2))?;
    if !from.readable() || !to.writable() {
        return Err(Errno::EBADF);
    }
    if !from.positioned() && from.ops().host_fd().is_none() {
        return Err(Errno::EINVAL);
    }
    let len = length(args.size(3))?;
    if to.flags() & c::O_APPEND != 0 || !takes_bytes(&to) {
        return Err(Errno::EINVAL);
    }
    let mut source = Side::new(&from, from_at, false);
    let mut sink = Side::new(&to, None, false);
    let moved = match sink.pipe() {
        _ if len == 0 => Ok(0),
        Some(pipe) => into_pipe(cur, &mut source, &sink, pipe, len),
        None => copy(cur, &mut source, &mut sink, len),
    };
    let count = told(&from, &to, moved)?;
    put_offset(cur, args.addr(2), source.at)?;
    Ok(count as u64)
}

/// Whether it is made for bytes that come from elsewhere: not those that mean something only as a whole.
fn takes_bytes(file: &File) -> bool {
    file.positioned() || file.names_writer() || file.named().is_some() || file.downcast::<PipeEnd>().is_some()
}

/// copy_file_range(2)
pub(crate) fn copy_file_range(cur: &mut Current, args: &Args) -> Result<u64> {
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
    // Not from one file system to another (generic_copy_file_checks, since Linux 5.19).
    if from.stat().dev != to.stat().dev {
        return Err(Errno::EXDEV);
    }
    let len = args.size(4).min(MOST);
    if Arc::ptr_eq(from.ops(), to.ops())
        || from.named().zip(to.named()).is_some_and(|(a, b)| Arc::ptr_eq(&a.dentry.inode, &b.dentry.inode))
    {
        let (a, b) = (from_at.unwrap_or(from.position()), to_at.unwrap_or(to.position()));
        if a < b.saturating_add(len as u64) && b < a.saturating_add(len as u64) {
            return Err(Errno::EINVAL);
        }
    }
    let (mut source, mut sink) = (Side::new(&from, from_at, false), Side::new(&to, to_at, false));
    sink.tries_on = false;
    let moved = copy(cur, &mut source, &mut sink, len);
    let count = told(&from, &to, moved)?;
    put_offset(cur, args.addr(1), source.at)?;
    put_offset(cur, args.addr(3), sink.at)?;
    Ok(count as u64)
}

/// splice(2)
pub(crate) fn splice(cur: &mut Current, args: &Args) -> Result<u64> {
    let len = args.size(4);
    if len == 0 {
        return Ok(0);
    }
    only(args.uint(5), SPLICE_FLAGS)?;
    let fds = cur.fds();
    let (from, to) = (fds.get(args.fd(0))?, fds.get(args.fd(2))?);
    let (in_pipe, out_pipe) = (from.downcast::<PipeEnd>(), to.downcast::<PipeEnd>());
    if (in_pipe.is_some() && args.addr(1) != 0) || (out_pipe.is_some() && args.addr(3) != 0) {
        return Err(Errno::ESPIPE);
    }
    let nowait = args.uint(5) & c::SPLICE_F_NONBLOCK != 0;
    let (from_at, to_at) = (offset_at(cur, args.addr(1))?, offset_at(cur, args.addr(3))?);
    if !from.readable() || !to.writable() {
        return Err(Errno::EBADF);
    }
    let (mut source, mut sink) = (Side::new(&from, from_at, nowait), Side::new(&to, to_at, nowait));
    let moved = match (in_pipe, out_pipe) {
        (None, None) => return Err(Errno::EINVAL),
        (Some(a), Some(b)) => {
            if a.same_pipe(b) {
                return Err(Errno::EINVAL);
            }
            between_pipes(cur, (&source, a), (&sink, b), len, false)
        }
        (Some(pipe), None) => {
            if to.flags() & c::O_APPEND != 0 || !takes_bytes(&to) {
                return Err(Errno::EINVAL);
            }
            // Whether the pipe waits is the call's business, whether the file does its own.
            sink.nowait = to.nonblocking();
            out_of_pipe(cur, &source, pipe, &mut sink, length(len)?)
        }
        (None, Some(pipe)) => {
            if !takes_bytes(&from) {
                return Err(Errno::EINVAL);
            }
            into_pipe(cur, &mut source, &sink, pipe, length(len)?)
        }
    };
    let count = told(&from, &to, moved)?;
    put_offset(cur, args.addr(1), source.at)?;
    put_offset(cur, args.addr(3), sink.at)?;
    Ok(count as u64)
}

/// tee(2)
pub(crate) fn tee(cur: &mut Current, args: &Args) -> Result<u64> {
    only(args.uint(3), SPLICE_FLAGS)?;
    let len = args.size(2);
    if len == 0 {
        return Ok(0);
    }
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
    let nowait = args.uint(3) & c::SPLICE_F_NONBLOCK != 0 || from.nonblocking() || to.nonblocking();
    let sides = (Side::new(&from, None, nowait), Side::new(&to, None, nowait));
    Ok(between_pipes(cur, (&sides.0, source), (&sides.1, sink), len, true)? as u64)
}

/// vmsplice(2): the bytes are copied, not lent.
pub(crate) fn vmsplice(cur: &mut Current, args: &Args) -> Result<u64> {
    only(args.uint(3), SPLICE_FLAGS)?;
    let nowait = args.uint(3) & c::SPLICE_F_NONBLOCK != 0;
    let file = cur.file(args.fd(0))?;
    if file.downcast::<PipeEnd>().is_none() {
        return Err(Errno::EBADF);
    }
    if file.writable() {
        vectors::write_vector(cur, args, None, nowait)
    } else {
        vectors::read_vector(cur, args, None, nowait)
    }
}
