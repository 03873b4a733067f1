//! Descriptors of the host as the rest of the kernel has them: values of [`HostFd`], which are in one table
//! ([`list`]) with what they are and how they could be opened again, and one way to open files ([`HostFiles`]).
//!
//! Nobody else opens or keeps a descriptor (the hygiene test names the exceptions: the platforms' crates, and the front door
//! of containers, whose processes are no sandboxes).

use crate::abi::Result;
pub use crate::hostsys::fd::{HostFd, Listed, Origin, What, list};
use crate::hostsys::{confine, file};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Weak;

/// Who opens files of the host.
pub trait HostFiles: Send + Sync {
    /// Opens a file by its path, which takes that the jail has not been closed. It may be made, with flags that say so.
    ///
    /// # Errors
    /// The host's.
    fn open(&self, path: &Path, flags: i32) -> Result<HostFd>;

    /// Opens a copy of the mounts at `path` and below ([`confine::copy_of_mounts`]), to be written to or not, before the
    /// jail is closed.
    ///
    /// # Errors
    /// The host's: EPERM without CAP_SYS_ADMIN.
    fn open_copy(&self, path: &Path, writable: bool) -> Result<HostFd>;

    /// Opens `name`, one component, in a directory, without following a link. `origin` knows where that is.
    ///
    /// # Errors
    /// The host's.
    fn open_below(&self, dir: &HostFd, name: &[u8], flags: i32, origin: Weak<dyn Origin>) -> Result<HostFd>;

    /// Makes the regular file `name`, one component, in a directory, with the permission bits `mode`, and opens it. What is
    /// there already is EEXIST. An empty name: a file without one (O_TMPFILE).
    ///
    /// # Errors
    /// The host's.
    fn create_below(
        &self,
        dir: &HostFd,
        name: &[u8],
        flags: i32,
        mode: u32,
        origin: Weak<dyn Origin>,
    ) -> Result<HostFd>;

    /// Opens what a descriptor names once more, before the jail is closed: a description of its own.
    ///
    /// # Errors
    /// The host's.
    fn open_again(&self, fd: &HostFd, flags: i32) -> Result<HostFd>;
}

/// Who opens files for this process.
pub fn files() -> &'static dyn HostFiles {
    &Direct
}

/// This process does it.
struct Direct;

impl HostFiles for Direct {
    fn open(&self, path: &Path, flags: i32) -> Result<HostFd> {
        let path = path.as_os_str().as_bytes();
        file::openat(libc::AT_FDCWD, path, flags, file::MODE, || What::Path(path.into(), flags))
    }

    fn open_copy(&self, path: &Path, writable: bool) -> Result<HostFd> {
        confine::copy_of_mounts(path, writable)
    }

    fn open_below(&self, dir: &HostFd, name: &[u8], flags: i32, origin: Weak<dyn Origin>) -> Result<HostFd> {
        file::openat(dir.raw(), name, flags | libc::O_NOFOLLOW, 0, || What::Below(origin, flags))
    }

    fn create_below(
        &self,
        dir: &HostFd,
        name: &[u8],
        flags: i32,
        mode: u32,
        origin: Weak<dyn Origin>,
    ) -> Result<HostFd> {
        let (name, how) = match name {
            b"" => (&b"."[..], libc::O_TMPFILE),
            name => (name, libc::O_CREAT | libc::O_EXCL),
        };
        let flags = flags | how | libc::O_NOFOLLOW;
        // Opened again, it is there.
        file::openat(dir.raw(), name, flags, mode, || What::Below(origin, flags & !how))
    }

    fn open_again(&self, fd: &HostFd, flags: i32) -> Result<HostFd> {
        let path = format!("/proc/self/fd/{}", fd.raw());
        file::openat(libc::AT_FDCWD, path.as_bytes(), flags, file::MODE, || What::Again(fd.raw(), flags))
    }
}

impl io::Write for HostFd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        file::write(self.raw(), bytes).map_err(|errno| io::Error::from_raw_os_error(errno.0))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
