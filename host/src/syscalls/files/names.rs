//! What the handlers of file calls share: names, starting points, credentials.

use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::kernel::Current;
use crate::kernel::signal::SigInfo;
use crate::mm::PAGE_SIZE;
use crate::vfs::{Caller, FsContext, Lookup, PATH_MAX, Path, Resolve};
use linux_raw_sys::general as c;
use std::sync::Arc;

/// The working directory as a starting point.
pub(crate) const CWD: i32 = c::AT_FDCWD;

/// Keeps alive what a [`Lookup`] borrows.
pub(crate) struct Names {
    pub(crate) fs: Arc<FsContext>,
    pub(crate) cred: Arc<Cred>,
    pub(crate) caller: Caller,
}

impl Names {
    pub(crate) fn of(cur: &Current) -> Names {
        Names { fs: cur.fs(), cred: cur.cred(), caller: caller(cur) }
    }

    pub(crate) fn lookup(&self) -> Lookup<'_> {
        Lookup { fs: &self.fs, cred: &self.cred, caller: self.caller }
    }
}

/// Who makes a call, for /proc/self.
pub(crate) fn caller(cur: &Current) -> Caller {
    Caller { pid: cur.task.tgid(), tid: cur.task.tid() }
}

/// A path argument.
pub(crate) fn path_arg(cur: &Current, addr: u64) -> Result<Vec<u8>> {
    cur.mm().read_cstr(addr, PATH_MAX)
}

/// Where a relative `name` starts: `None` is the working directory.
pub(crate) fn base(cur: &Current, dirfd: i32, name: &[u8]) -> Result<Option<Path>> {
    if dirfd == c::AT_FDCWD || name.first() == Some(&b'/') {
        return Ok(None);
    }
    Ok(Some(cur.fds().get_path(dirfd)?.path()))
}

/// Resolves the `*at` triple of descriptor, name and `AT_*` flags. A null name with AT_EMPTY_PATH is an empty one.
pub(crate) fn resolve_at(cur: &Current, dirfd: i32, addr: u64, flags: u32, follow: bool) -> Result<Path> {
    let name = if addr == 0 && flags & c::AT_EMPTY_PATH != 0 { Vec::new() } else { path_arg(cur, addr)? };
    let mut how = Resolve::empty();
    how.set(Resolve::FOLLOW, follow);
    how.set(Resolve::EMPTY, flags & c::AT_EMPTY_PATH != 0);
    let base = base(cur, dirfd, &name)?;
    Names::of(cur).lookup().resolve(base.as_ref(), &name, how)
}

/// Whether a structure that its caller says is `size` bytes long can be one of which the first version had `least`.
///
/// # Errors
/// EINVAL, E2BIG.
pub(crate) fn fits(size: usize, least: usize) -> Result<()> {
    if size < least {
        return Err(Errno::EINVAL);
    }
    if size > PAGE_SIZE as usize { Err(Errno::E2BIG) } else { Ok(()) }
}

/// Such a structure, of which `N` bytes are known here: later versions are taken where they say no more, and what an earlier one
/// lacks is 0 (copy_struct_from_user).
///
/// # Errors
/// As [`fits`]; E2BIG where more is said; EFAULT.
pub(crate) fn versioned<const N: usize>(
    cur: &Current,
    addr: u64,
    size: usize,
    least: usize,
) -> Result<[u8; N]> {
    fits(size, least)?;
    let mut given = cur.mm().read_vec::<u8>(addr, size)?;
    if given.get(N..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0)) {
        return Err(Errno::E2BIG);
    }
    given.resize(N, 0);
    Ok(std::array::from_fn(|at| given[at]))
}

/// Fails on flags outside `known`.
pub(crate) fn only(flags: u32, known: u32) -> Result<()> {
    if flags & !known == 0 { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Sends the calling thread a signal.
pub(crate) fn raise(cur: &Current, signo: i32) {
    let info = SigInfo::user(signo, 0, cur.task.tgid(), cur.cred().uid.real);
    let _ = cur.kernel.signal_task(&cur.task, info);
}

/// What an open descriptor is the file of.
pub(crate) fn path_of(cur: &Current, fd: i32) -> Result<Path> {
    Ok(cur.file(fd)?.path())
}
