//! The directory of the host that the sandbox's files come from, and no way from there to others.
//!
//! Where the caller may mount, it is opened in a copy of the mounts at and below it that is attached nowhere: read-only
//! (unless programs write it through), of no use for devices, and `..` ends at its top. The host's /proc, /sys and /dev are covered in the copy, for the sandbox has
//! its own. To cover them takes a mount namespace, which a thread makes for itself and takes along when it ends; what it did
//! there nobody has seen.

use crate::abi::{Errno, Result};
use crate::fs::world;
use crate::hostfd::{self, HostFd};
use crate::hostsys::{confine, file};
use crate::vfs::Kind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

/// What the sandbox has of its own.
const COVERED: [&str; 3] = ["proc", "sys", "dev"];

/// A root directory that is being made.
pub(super) struct Root {
    copy: Receiver<Result<HostFd>>,
}

impl Root {
    /// Begins to make one of `path`. Start-up goes on meanwhile.
    pub(super) fn begin(path: &Path, writable: bool) -> Self {
        let (send, copy) = sync_channel(1);
        let of = path.to_path_buf();
        let thread = crate::arena::thread::spawn("jail-root", move || {
            let _nobody_waits = send.send(copy_of(&of, writable));
        });
        // Without a thread, nothing will be received.
        drop(thread);
        Root { copy }
    }

    /// The directory; and why it is the host's own `path`, where it is not a copy.
    ///
    /// # Errors
    /// The host's for opening it.
    pub(super) fn open(self, path: &Path) -> Result<(HostFd, Option<Errno>)> {
        match self.copy.recv().unwrap_or(Err(Errno::EAGAIN)) {
            Ok(copy) => Ok((copy, None)),
            Err(errno) => world::open_root(path).map(|root| (root, Some(errno))),
        }
    }
}

fn copy_of(path: &Path, writable: bool) -> Result<HostFd> {
    confine::own_namespaces(libc::CLONE_NEWNS)?;
    confine::mount_privately()?;
    let mut empty: Option<PathBuf> = None;
    for name in COVERED {
        let place = path.join(name);
        // What is a link there has nothing mounted on it, and could lead anywhere.
        let name = place.as_os_str().as_encoded_bytes();
        let found = file::statx(libc::AT_FDCWD, name, libc::AT_SYMLINK_NOFOLLOW);
        if found.is_ok_and(|found| Kind::from_mode(found.stx_mode.into()) == Some(Kind::Dir)) {
            match &empty {
                // A file system costs more to make than a mount.
                Some(empty) => confine::bind(empty, &place)?,
                None => confine::cover(&place)?,
            }
            empty.get_or_insert(place);
        }
    }
    hostfd::files().open_copy(path, writable)
}
