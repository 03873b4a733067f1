//! pipe(2).

use crate::abi::Result;
use crate::fs::pipe::Pipe;
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::syscalls::files::names::only;
use crate::vfs::{File, is_cloexec};
use linux_raw_sys::general as c;
use std::sync::Arc;

/// pipe(2)
pub(crate) fn pipe(cur: &mut Current, args: &Args) -> Result<u64> {
    make(cur, args.addr(0), 0)
}

/// pipe2(2)
pub(crate) fn pipe2(cur: &mut Current, args: &Args) -> Result<u64> {
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
pub(crate) fn install_pair(
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
