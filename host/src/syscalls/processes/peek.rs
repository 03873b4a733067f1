//! What looks into other processes: process_vm_readv, process_vm_writev, kcmp. Who may is decided in
//! [`kernel::peek`](crate::kernel::peek).

use crate::abi::{Errno, Result};
use crate::kernel::peek::As;
use crate::kernel::{Current, Task};
use crate::mm::io::MAX_IOVECS;
use crate::mm::{IoDst, IoSrc, Iovec, Mm};
use crate::syscalls::Args;
use std::cmp::Ordering;
use std::sync::Arc;

/// Bytes copied at a time: from one program's memory to the kernel's, and on to the other's.
const CHUNK: usize = 4096;

/// process_vm_readv(2)
pub(crate) fn process_vm_readv(cur: &mut Current, args: &Args) -> Result<u64> {
    let mm = cur.mm().clone();
    let own = own_iovecs(&mm, args)?;
    let mut dst = IoDst::user_iovecs(&mm, &own);
    transfer(cur, args, dst.remaining(), &mut |theirs, at, len| {
        let mut buffer = [0; CHUNK];
        let got = theirs.read_some(at, &mut buffer[..len])?;
        dst.write_bytes(&buffer[..got])
    })
}

/// process_vm_writev(2)
pub(crate) fn process_vm_writev(cur: &mut Current, args: &Args) -> Result<u64> {
    let mm = cur.mm().clone();
    let own = own_iovecs(&mm, args)?;
    let mut src = IoSrc::user_iovecs(&mm, &own);
    transfer(cur, args, src.remaining(), &mut |theirs, at, len| {
        let mut buffer = [0; CHUNK];
        let got = src.read_bytes(&mut buffer[..len])?;
        theirs.write_some(at, &buffer[..got])
    })
}

fn own_iovecs(mm: &Mm, args: &Args) -> Result<Vec<Iovec>> {
    if args.addr(5) != 0 {
        return Err(Errno::EINVAL);
    }
    mm.read_iovecs(args.addr(1), args.addr(2))
}

/// The other side's buffers. Addresses that it cannot have are found out when they are used.
fn their_iovecs(mm: &Mm, args: &Args) -> Result<Vec<Iovec>> {
    if args.addr(4) > MAX_IOVECS as u64 {
        return Err(Errno::EINVAL);
    }
    let iovecs: Vec<Iovec> = mm.read_vec(args.addr(3), args.size(4))?;
    if iovecs.iter().any(|iovec| iovec.len > i64::MAX as u64) { Err(Errno::EINVAL) } else { Ok(iovecs) }
}

/// Goes through the other side's memory, at most `room` bytes, by `step(memory, address, length)`, which says how many it
/// moved. Bytes moved before an error count.
fn transfer(
    cur: &Current,
    args: &Args,
    room: usize,
    step: &mut dyn FnMut(&Mm, u64, usize) -> Result<usize>,
) -> Result<u64> {
    if room == 0 {
        return Ok(0);
    }
    let iovecs = their_iovecs(cur.mm(), args)?;
    if iovecs.iter().all(|iovec| iovec.len == 0) {
        return Ok(0);
    }
    let task = other(cur, args.int(0))?;
    let theirs = task.peek(&cur.task.observer(), As::Real)?.mm.ok_or(Errno::ESRCH)?;
    let mut done = 0;
    for iovec in &iovecs {
        let mut at = 0;
        while at < iovec.len && done < room {
            let len = (iovec.len - at).min((room - done) as u64).min(CHUNK as u64) as usize;
            let moved = match step(&theirs, iovec.base.wrapping_add(at), len) {
                Err(errno) if done == 0 => return Err(errno),
                moved => moved.unwrap_or(0),
            };
            (at, done) = (at + moved as u64, done + moved);
            if moved < len || cur.pause().is_err() {
                return Ok(done as u64);
            }
        }
    }
    Ok(done as u64)
}

fn other(cur: &Current, pid: i32) -> Result<Arc<Task>> {
    cur.task_called(pid)
}

/// kcmp(2)
pub(crate) fn kcmp(cur: &mut Current, args: &Args) -> Result<u64> {
    const FILE: i32 = 0;
    const VM: i32 = 1;
    const FILES: i32 = 2;
    const FS: i32 = 3;
    const SIGHAND: i32 = 4;
    const IO: i32 = 5;
    const UNSUPPORTED: std::ops::RangeInclusive<i32> = 6..=7;
    let tasks = [other(cur, args.int(0))?, other(cur, args.int(1))?];
    let observer = cur.task.observer();
    let mut held = [0; 2];
    for (slot, task) in held.iter_mut().zip(&tasks) {
        let peek = task.peek(&observer, As::Real)?;
        *slot = match args.int(2) {
            VM => address(peek.mm.as_ref()),
            FILES => address(peek.fds.as_ref()),
            FS => address(peek.fs.as_ref()),
            SIGHAND => address(Some(&task.group)),
            // Nobody has an I/O context: there is no I/O scheduler.
            FILE | IO => 0,
            // System V semaphores, and what an epoll instance watches.
            kind if UNSUPPORTED.contains(&kind) => return Err(Errno::EOPNOTSUPP),
            _ => return Err(Errno::EINVAL),
        };
    }
    if args.int(2) == FILE {
        for ((slot, task), index) in held.iter_mut().zip(&tasks).zip([3, 4]) {
            let fd = i32::try_from(args.addr(index)).map_err(|_| Errno::EBADF)?;
            *slot = address(Some(&task.peek_file(&observer, As::Real, fd)?));
        }
    }
    let [first, second] = held.map(|address| cur.kernel.veil(address));
    Ok(match first.cmp(&second) {
        Ordering::Equal => 0,
        Ordering::Less => 1,
        Ordering::Greater => 2,
    })
}

/// What tells one object of the kernel from others.
fn address<T: ?Sized>(object: Option<&Arc<T>>) -> u64 {
    object.map_or(0, |object| Arc::as_ptr(object).cast::<()>() as u64)
}
