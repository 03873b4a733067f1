//! Host reads and writes straight into user pages and page caches: one host call, no copy.

use crate::abi::{Errno, Result};
use crate::hostsys::file::{self, IoVec, MAX_PIECES};
use crate::mm::frames::Page;
use crate::mm::{IoDst, IoSrc};
use crate::sync::HostLine;

/// Largest part that goes through a buffer when user pages cannot be held.
const BOUNCE: usize = 64 * 1024;

fn iovecs(pieces: &[(u64, usize)]) -> Vec<IoVec> {
    pieces.iter().take(MAX_PIECES).map(|&(addr, len)| IoVec { addr, len: len as u64 }).collect()
}

/// A host descriptor, and the way to make calls that it may keep.
#[derive(Clone, Copy)]
pub struct At<'a> {
    /// Its number.
    pub fd: i32,
    /// Who is told of the calls.
    pub line: &'a HostLine,
}

/// One host read of up to `max` bytes into `dst`; `offset` and `flags` as preadv2(2).
///
/// # Errors
/// The host's, or EFAULT.
pub fn read(
    At { fd, line }: At<'_>,
    dst: &mut IoDst<'_>,
    max: usize,
    offset: Option<u64>,
    flags: i32,
) -> Result<usize> {
    let max = max.min(dst.remaining());
    if max == 0 {
        return Ok(0);
    }
    let pinned = dst.pin(max)?;
    if pinned.is_empty() {
        let mut bounce = vec![0u8; max.min(BOUNCE)];
        let piece = [IoVec { addr: bounce.as_mut_ptr() as u64, len: bounce.len() as u64 }];
        // SAFETY: the one piece is the buffer, which nobody else refers to.
        let got = line.call(|| unsafe { file::readv(fd, &piece, offset, flags) })?;
        return dst.write_bytes(&bounce[..got]);
    }
    let pieces = iovecs(pinned.pieces());
    // SAFETY: the pieces are frames of user memory, which hold no Rust object, kept in place by `pinned`.
    let got = line.call(|| unsafe { file::readv(fd, &pieces, offset, flags) })?;
    dst.advance(got);
    Ok(got)
}

/// One host write of up to `max` bytes from `src`; `offset` and `flags` as pwritev2(2).
///
/// # Errors
/// The host's, or EFAULT.
pub fn write(
    At { fd, line }: At<'_>,
    src: &mut IoSrc<'_>,
    max: usize,
    offset: Option<u64>,
    flags: i32,
) -> Result<usize> {
    let max = max.min(src.remaining());
    if max == 0 {
        return Ok(0);
    }
    let pinned = src.pin(max)?;
    if pinned.is_empty() {
        // What the host does not take must stay in `src`: a short write ends the operation, so that the caller's
        // count says where to go on.
        let mut bounce = vec![0u8; max.min(BOUNCE)];
        let len = src.read_bytes(&mut bounce)?;
        let piece = [IoVec { addr: bounce.as_ptr() as u64, len: len as u64 }];
        // SAFETY: the one piece is the buffer.
        return line.call(|| unsafe { file::writev(fd, &piece, offset, flags) });
    }
    let pieces = iovecs(pinned.pieces());
    // SAFETY: the pieces are frames of user memory, kept in place by `pinned`.
    let put = line.call(|| unsafe { file::writev(fd, &pieces, offset, flags) })?;
    src.advance(put);
    Ok(put)
}

/// Fills whole pages from a host file at `offset`; what lies beyond its end stays zero.
///
/// # Errors
/// The host's.
pub fn read_pages(At { fd, line }: At<'_>, pages: &[Page], offset: u64) -> Result<()> {
    let all: Vec<IoVec> = pages.iter().map(|page| IoVec { addr: page.frame().0, len: 4096 }).collect();
    let mut done = 0;
    while done < pages.len() * 4096 {
        let skip = done % 4096;
        let mut rest = all[done / 4096..].to_vec();
        rest.truncate(MAX_PIECES);
        rest[0].addr += skip as u64;
        rest[0].len -= skip as u64;
        let making = line.enter()?;
        // SAFETY: the pages are new frames that only the caller knows of.
        let got = unsafe { file::readv(fd, &rest, Some(offset + done as u64), 0) };
        drop(making);
        match got {
            Ok(0) => break,
            Ok(got) => done += got,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
