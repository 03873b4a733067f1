//! What the handlers of file calls share: names, starting points, credentials.

use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::kernel::Current;
use crate::kernel::signal::SigInfo;
use crate::vfs::{Caller, FsContext, Lookup, PATH_MAX, Path, Resolve};
use linux_raw_sys::general as c;
use std::sync::Arc;

/// Keeps alive what a [`Lookup`] borrows.
pub(super) struct Names {
    pub(super) fs: Arc<FsContext>,
    pub(super) cred: Arc<Cred>,
    pub(super) caller: Caller,
}

impl Names {
    pub(super) fn of(cur: &Current) -> Names {
        Names { fs: cur.fs(), cred: cur.cred(), caller: caller(cur) }
    }

    pub(super) fn lookup(&self) -> Lookup<'_> {
        Lookup { fs: &self.fs, cred: &self.cred, caller: self.caller }
    }
}

/// Who makes a call, for /proc/self.
pub(super) fn caller(cur: &Current) -> Caller {
    Caller { pid: cur.task.tgid(), tid: cur.task.tid() }
}

/// A path argument.
pub(super) fn path_arg(cur: &Current, addr: u64) -> Result<Vec<u8>> {
    cur.mm().read_cstr(addr, PATH_MAX)
}

/// Where a relative `name` starts: `None` is the working directory.
pub(super) fn base(cur: &Current, dirfd: i32, name: &[u8]) -> Result<Option<Path>> {
    if dirfd == c::AT_FDCWD || name.first() == Some(&b'/') {
        return Ok(None);
    }
    Ok(Some(cur.fds().get_path(dirfd)?.path()))
}

/// Resolves the `*at` triple of descriptor, name and `AT_*` flags. A null name with AT_EMPTY_PATH is an empty one.
pub(super) fn resolve_at(cur: &Current, dirfd: i32, addr: u64, flags: u32, follow: bool) -> Result<Path> {
    let name = if addr == 0 && flags & c::AT_EMPTY_PATH != 0 { Vec::new() } else { path_arg(cur, addr)? };
    let mut how = Resolve::empty();
    how.set(Resolve::FOLLOW, follow);
    how.set(Resolve::EMPTY, flags & c::AT_EMPTY_PATH != 0);
    let base = base(cur, dirfd, &name)?;
    Names::of(cur).lookup().resolve(base.as_ref(), &name, how)
}

/// Fails on flags outside `known`.
pub(super) fn only(flags: u32, known: u32) -> Result<()> {
    if flags & !known == 0 { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Sends the calling thread a signal.
pub(super) fn raise(cur: &Current, signo: i32) {
    let info = SigInfo::user(signo, 0, cur.task.tgid(), cur.cred().uid.real);
    let _ = cur.kernel.signal_task(&cur.task, info);
}
