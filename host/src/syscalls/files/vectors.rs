//! readv, writev and their variants with offsets and flags.

use super::rw::{PIECE, about_to_write, position, read_to, room_from, write_from};
use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::mm::{IoDst, IoSrc};
use crate::syscalls::Args;
use crate::vfs::{File, Whence};
use linux_raw_sys::general as c;
use std::sync::Arc;

pub(crate) fn read_vector(cur: &mut Current, args: &Args, offset: Option<u64>, nowait: bool) -> Result<u64> {
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

pub(crate) fn write_vector(cur: &mut Current, args: &Args, offset: Option<u64>, nowait: bool) -> Result<u64> {
    let file = cur.file(args.fd(0))?;
    let mm = cur.mm().clone();
    let iovecs = mm.read_iovecs(args.addr(1), args.addr(2))?;
    write_from(cur, &file, &mut IoSrc::user_iovecs(&mm, &iovecs), offset, nowait)
}

/// readv(2)
pub(crate) fn readv(cur: &mut Current, args: &Args) -> Result<u64> {
    read_vector(cur, args, None, false)
}

/// writev(2)
pub(crate) fn writev(cur: &mut Current, args: &Args) -> Result<u64> {
    write_vector(cur, args, None, false)
}

/// preadv(2)
pub(crate) fn preadv(cur: &mut Current, args: &Args) -> Result<u64> {
    let offset = position(args.offset(3))?;
    read_vector(cur, args, Some(offset), false)
}

/// pwritev(2)
pub(crate) fn pwritev(cur: &mut Current, args: &Args) -> Result<u64> {
    let offset = position(args.offset(3))?;
    write_vector(cur, args, Some(offset), false)
}

/// RWF_NOAPPEND: an offset counts although the file is open for appending (Linux 6.9).
const RWF_NOAPPEND: u32 = 0x20;

/// The offset and flags of preadv2 and pwritev2: -1 is the file's position.
fn second(args: &Args, known: u32) -> Result<(Option<u64>, u32)> {
    let offset = if args.offset(3) == -1 { None } else { Some(position(args.offset(3))?) };
    let flags = args.uint(5);
    if flags & !known != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok((offset, flags))
}

/// preadv2(2)
pub(crate) fn preadv2(cur: &mut Current, args: &Args) -> Result<u64> {
    let known = c::RWF_HIPRI | c::RWF_NOWAIT | c::RWF_SYNC | c::RWF_DSYNC | c::RWF_APPEND | RWF_NOAPPEND;
    let (offset, flags) = second(args, known)?;
    both_ways(flags)?;
    read_vector(cur, args, offset, flags & c::RWF_NOWAIT != 0)
}

/// Fails if a call is to append and not to.
fn both_ways(flags: u32) -> Result<()> {
    let both = c::RWF_APPEND | RWF_NOAPPEND;
    if flags & both == both { Err(Errno::EINVAL) } else { Ok(()) }
}

/// pwritev2(2)
pub(crate) fn pwritev2(cur: &mut Current, args: &Args) -> Result<u64> {
    let sync = c::RWF_SYNC | c::RWF_DSYNC;
    let known = c::RWF_HIPRI | c::RWF_NOWAIT | sync | c::RWF_APPEND | RWF_NOAPPEND;
    let (offset, flags) = second(args, known)?;
    both_ways(flags)?;
    let file = cur.file(args.fd(0))?;
    let appends = file.flags() & c::O_APPEND != 0;
    let nowait = flags & c::RWF_NOWAIT != 0;
    let count = match flags & (c::RWF_APPEND | RWF_NOAPPEND) {
        c::RWF_APPEND if !appends && file.positioned() => append_vector(cur, args, &file, offset)?,
        RWF_NOAPPEND if appends && file.positioned() && offset.is_some() => {
            insert_vector(cur, args, &file, offset)?
        }
        _ => write_vector(cur, args, offset, nowait)?,
    };
    if flags & sync != 0 {
        match file.ops().sync() {
            // What has nothing to write back: pipes, sockets.
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(count)
}

/// The bytes of a vector for a file with positions, as many as RLIMIT_FSIZE lets be written from `start` on; they are at
/// most [`PIECE`] at a time.
fn vector_for(
    cur: &mut Current,
    args: &Args,
    file: &Arc<File>,
    start: u64,
    put: &mut dyn FnMut(&mut IoSrc<'_>) -> Result<usize>,
) -> Result<u64> {
    if !file.writable() {
        return Err(Errno::EBADF);
    }
    let mm = cur.mm().clone();
    let iovecs = mm.read_iovecs(args.addr(1), args.addr(2))?;
    let mut src = IoSrc::user_iovecs(&mm, &iovecs);
    src.limit(room_from(cur, start, src.remaining())?.min(PIECE));
    about_to_write(cur, file, src.remaining());
    let count = file.told(c::IN_MODIFY, put(&mut src))?;
    Ok(count as u64)
}

/// RWF_APPEND: at the end; with -1 for the offset the position follows.
fn append_vector(cur: &mut Current, args: &Args, file: &Arc<File>, offset: Option<u64>) -> Result<u64> {
    let start = file.stat().size;
    vector_for(cur, args, file, start, &mut |src| {
        let (count, end) = file.ops().append(src)?;
        if offset.is_none() {
            file.seek(i64::try_from(end).map_err(|_| Errno::EOVERFLOW)?, Whence::Set)?;
        }
        Ok(count)
    })
}

/// RWF_NOAPPEND: at the offset, whatever the file was opened for.
fn insert_vector(cur: &mut Current, args: &Args, file: &Arc<File>, offset: Option<u64>) -> Result<u64> {
    vector_for(cur, args, file, offset.unwrap_or(0), &mut |src| file.ops().write(src, offset))
}
