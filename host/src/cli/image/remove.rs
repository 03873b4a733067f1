//! Removes trees, however deep they are.
//!
//! `std::fs::remove_dir_all` holds a descriptor and a frame of the stack for each level, and links let an image become deeper than
//! either lasts, or than any path may be long. Here there is one descriptor, of where it is: it goes down by a name, and up
//! by `..`. What has been listed and is still to be removed waits in memory, which the names of an image are counted for.

use rustix::fs::{AtFlags, Dir, Mode, OFlags, fstat, openat, unlinkat};
use rustix::io::{Errno, Result};
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};

/// A directory on the way down.
struct Level {
    /// What it is called in the one above.
    name: CString,
    /// Device and inode.
    id: (u64, u64),
    /// Directories in it that are not empty.
    left: Vec<CString>,
}

impl Level {
    /// Removes all from a directory that has nothing below.
    fn of(dir: &OwnedFd, name: CString) -> Result<Level> {
        let mut names = Vec::new();
        for entry in Dir::read_from(dir)? {
            let name = entry?.file_name().to_owned();
            if !matches!(name.as_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        let mut left = Vec::new();
        for name in names {
            match unlinkat(dir, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => match unlinkat(dir, &name, AtFlags::REMOVEDIR) {
                    Ok(()) => {}
                    Err(Errno::NOTEMPTY | Errno::EXIST) => left.push(name),
                    Err(_) => return Err(errno),
                },
            }
        }
        Ok(Level { name, id: id(dir)?, left })
    }
}

fn id(dir: &OwnedFd) -> Result<(u64, u64)> {
    fstat(dir).map(|stat| (stat.st_dev, stat.st_ino))
}

fn enter(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd> {
    openat(dir, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Removes a directory and all below. Links are removed, not followed.
pub(super) fn tree(parent: impl AsFd, name: &OsStr) -> Result<()> {
    let mut here = enter(&parent, name)?;
    let mut level = Level::of(&here, CString::default())?;
    let mut above = Vec::new();
    loop {
        if let Some(name) = level.left.pop() {
            here = enter(&here, &name)?;
            above.push(std::mem::replace(&mut level, Level::of(&here, name)?));
        } else if let Some(upper) = above.pop() {
            here = enter(&here, "..")?;
            // Somebody has moved it: what is above now is not ours to remove.
            if id(&here)? != upper.id {
                return Err(Errno::STALE);
            }
            unlinkat(&here, &level.name, AtFlags::REMOVEDIR)?;
            level = upper;
        } else {
            return unlinkat(&parent, name, AtFlags::REMOVEDIR);
        }
    }
}
