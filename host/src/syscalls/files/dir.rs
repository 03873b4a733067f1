//! getdents: directory listings.

use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::vfs::DirEntry;

/// Most bytes gathered before they are copied out.
const CHUNK: usize = 32 * 1024;
/// Bytes of a record beside the name and the 0 behind it: inode, offset, size, type.
const HEADER: usize = 19;

fn record_size(entry: &DirEntry<'_>) -> usize {
    (HEADER + entry.name.len() + 1).next_multiple_of(8)
}

/// What both kinds of records begin with: inode, offset, size. Returns where the record is to end.
fn begin_record(out: &mut Vec<u8>, entry: &DirEntry<'_>) -> usize {
    let size = record_size(entry);
    let end = out.len() + size;
    out.extend_from_slice(&entry.ino.to_ne_bytes());
    out.extend_from_slice(&entry.next.to_ne_bytes());
    out.extend_from_slice(&(size as u16).to_ne_bytes());
    end
}

/// Lays entries out one behind the other, and stops before the buffer overflows.
fn list(cur: &Current, args: &Args, put: fn(&mut Vec<u8>, &DirEntry<'_>)) -> Result<u64> {
    let file = cur.file(args.fd(0))?;
    let room = args.uint(2) as usize;
    let mut out: Vec<u8> = Vec::with_capacity(room.min(CHUNK));
    let mut full = false;
    let start = file.position();
    // Where each record ends, and the position behind it.
    let mut ends: Vec<(usize, u64)> = Vec::new();
    file.readdir(&mut |entry| {
        if out.len() + record_size(entry) > room.min(CHUNK) {
            full = true;
            return false;
        }
        put(&mut out, entry);
        ends.push((out.len(), entry.next));
        true
    })?;
    if out.is_empty() && full {
        return Err(Errno::EINVAL);
    }
    if cur.mm().write(args.addr(1), &out).is_ok() {
        return Ok(out.len() as u64);
    }
    // Whole records up to the fault count, and the next call begins behind them.
    let mut done = (0, start);
    for end in ends {
        if cur.mm().write(args.addr(1) + done.0 as u64, &out[done.0..end.0]).is_err() {
            break;
        }
        done = end;
    }
    file.set_position(done.1)?;
    if done.0 == 0 { Err(Errno::EFAULT) } else { Ok(done.0 as u64) }
}

/// getdents64(2): `struct linux_dirent64` is inode, offset, size, type, name.
pub(crate) fn getdents64(cur: &mut Current, args: &Args) -> Result<u64> {
    list(cur, args, |out, entry| {
        let end = begin_record(out, entry);
        out.push(entry.kind.dirent_type());
        out.extend_from_slice(entry.name);
        out.resize(end, 0);
    })
}

/// getdents(2): the old record, whose type is its last byte.
pub(crate) fn getdents(cur: &mut Current, args: &Args) -> Result<u64> {
    list(cur, args, |out, entry| {
        let end = begin_record(out, entry);
        out.extend_from_slice(entry.name);
        out.resize(end, 0);
        out[end - 1] = entry.kind.dirent_type();
    })
}
