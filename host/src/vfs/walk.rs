//! Path resolution, as path_resolution(7) describes it.

use super::{File, FsContext, Kind, Link, MountFlags, OpenHow, Path, Want, perms};
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use std::borrow::Cow;
use std::sync::Arc;

/// Longest name of one component.
pub const NAME_MAX: usize = 255;
/// Longest path, its final NUL included.
pub const PATH_MAX: usize = 4096;
/// Symbolic links followed in one resolution before it is a loop.
const MAX_LINKS: u32 = 40;

bitflags::bitflags! {
    /// How a name is resolved.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Resolve: u32 {
        /// A final symbolic link is followed.
        const FOLLOW = 1;
        /// The empty name means the starting point (AT_EMPTY_PATH).
        const EMPTY = 2;
        /// The last component may be missing, and its directory is wanted.
        const PARENT = 4;
        /// Mounts are not crossed (openat2's RESOLVE_NO_XDEV).
        const NO_XDEV = 8;
        /// No magic links (RESOLVE_NO_MAGICLINKS).
        const NO_MAGICLINKS = 16;
        /// No links at all (RESOLVE_NO_SYMLINKS).
        const NO_SYMLINKS = 32;
        /// Never above the starting point (RESOLVE_BENEATH).
        const BENEATH = 64;
        /// The starting point is the root (RESOLVE_IN_ROOT).
        const IN_ROOT = 128;
    }
}

/// Whose links /proc/self and the like are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Process (thread group).
    pub pid: i32,
    /// Thread.
    pub tid: i32,
}

impl Caller {
    /// Who makes the sandbox, before there is a task: settings that it opens are those of the first namespaces.
    pub const MAKER: Caller = Caller { pid: -1, tid: -1 };
}

/// What a resolution needs to know of who asks.
pub struct Lookup<'a> {
    /// Root, working directory, mounts.
    pub fs: &'a FsContext,
    /// Permissions.
    pub cred: &'a Cred,
    /// Process.
    pub caller: Caller,
}

/// Where a resolution with [`Resolve::PARENT`] ended.
pub struct Found {
    /// The directory of the last component.
    pub dir: Path,
    /// The last component; empty if the name ended in `/` alone, `.` or `..`.
    pub name: Vec<u8>,
    /// What is there.
    pub path: Option<Path>,
    /// The name ended in a slash: only a directory will do.
    pub slash: bool,
}

impl Lookup<'_> {
    /// Opens what was found: whatever has its name by now.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_found(&self, path: &Path, how: &OpenHow) -> Result<Arc<File>> {
        self.open_existing(path, how, true)
    }

    /// Resolves `name`, which must exist, from `base` (`None`: the working directory).
    ///
    /// # Errors
    /// As path_resolution(7).
    pub fn resolve(&self, base: Option<&Path>, name: &[u8], how: Resolve) -> Result<Path> {
        self.walk(base, name, how - Resolve::PARENT)?.path.ok_or(Errno::ENOENT)
    }

    /// Resolves `name` up to its last component, which may be missing.
    ///
    /// # Errors
    /// As path_resolution(7).
    pub fn resolve_parent(&self, base: Option<&Path>, name: &[u8], how: Resolve) -> Result<Found> {
        self.walk(base, name, how | Resolve::PARENT)
    }

    fn walk(&self, base: Option<&Path>, name: &[u8], how: Resolve) -> Result<Found> {
        if name.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let scoped = how.intersects(Resolve::BENEATH | Resolve::IN_ROOT);
        let start = match base {
            Some(base) if scoped || name.first() != Some(&b'/') => base.clone(),
            _ if scoped || name.first() != Some(&b'/') => self.fs.cwd(),
            _ => self.fs.root(),
        };
        if name.is_empty() {
            if !how.contains(Resolve::EMPTY) {
                return Err(Errno::ENOENT);
            }
            return Ok(Found { dir: start.clone(), name: Vec::new(), path: Some(start), slash: false });
        }
        if how.contains(Resolve::BENEATH) && name[0] == b'/' {
            return Err(Errno::EXDEV);
        }
        let root = if scoped { start.clone() } else { self.fs.root() };
        let mut at = if name[0] == b'/' { root.clone() } else { start };
        let mut rest: Cow<'_, [u8]> = Cow::Borrowed(name);
        let mut pos = 0;
        let mut links = 0;
        loop {
            while rest.get(pos) == Some(&b'/') {
                pos += 1;
            }
            if pos == rest.len() {
                // Slashes only: the root, or where a link to a directory led.
                return Ok(Found { dir: at.clone(), name: Vec::new(), path: Some(at), slash: true });
            }
            let end = rest[pos..].iter().position(|&b| b == b'/').map_or(rest.len(), |n| pos + n);
            let last = rest[end..].iter().all(|&b| b == b'/');
            let slash = end < rest.len();
            let part = &rest[pos..end];
            pos = end;
            if at.dentry.kind() != Kind::Dir {
                return Err(Errno::ENOTDIR);
            }
            perms::may(self.cred, at.dentry.inode.meta(), Want::EXEC)?;
            match part {
                b"." => {
                    if last {
                        return Ok(Found { dir: at.clone(), name: Vec::new(), path: Some(at), slash });
                    }
                    continue;
                }
                b".." => {
                    at = step_up(&at, &root, how)?;
                    if last {
                        return Ok(Found { dir: at.clone(), name: Vec::new(), path: Some(at), slash });
                    }
                    continue;
                }
                _ => {}
            }
            if part.len() > NAME_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            let Some(child) = at.dentry.child(part)? else {
                if last && how.contains(Resolve::PARENT) {
                    return Ok(Found { name: part.to_vec(), dir: at, path: None, slash });
                }
                return Err(Errno::ENOENT);
            };
            let mut next = at.with(child);
            if next.dentry.is_mountpoint() {
                next = next.cross();
                if how.contains(Resolve::NO_XDEV) && next.mount.id != at.mount.id {
                    return Err(Errno::EXDEV);
                }
            }
            let kind = next.dentry.kind();
            // A name that is to be made or removed is the link's own, slash or not.
            let led = slash && !how.contains(Resolve::PARENT);
            if kind == Kind::Symlink && (!last || led || how.contains(Resolve::FOLLOW)) {
                links += 1;
                if links > MAX_LINKS || !follows(&at, how) {
                    return Err(Errno::ELOOP);
                }
                match next.dentry.inode.follow(self.caller)? {
                    Link::Name(text) => {
                        if text.is_empty() {
                            return Err(Errno::ENOENT);
                        }
                        if text[0] == b'/' {
                            if how.contains(Resolve::BENEATH) {
                                return Err(Errno::EXDEV);
                            }
                            if how.contains(Resolve::NO_XDEV) && at.mount.id != root.mount.id {
                                return Err(Errno::EXDEV);
                            }
                            at = root.clone();
                        }
                        let mut text = text;
                        text.extend_from_slice(&rest[pos..]);
                        rest = Cow::Owned(text);
                        pos = 0;
                        continue;
                    }
                    magic => {
                        if how.contains(Resolve::NO_MAGICLINKS) {
                            return Err(Errno::ELOOP);
                        }
                        if scoped {
                            return Err(Errno::EXDEV);
                        }
                        next = match magic {
                            Link::File(file) => file.path(),
                            Link::Jump(path) => path,
                            Link::Name(_) => return Err(Errno::EINVAL),
                        };
                        if last {
                            // A name is never made through a magic link: what it leads to exists.
                            if slash && next.dentry.kind() != Kind::Dir {
                                return Err(Errno::ENOTDIR);
                            }
                            return Ok(Found { dir: at, name: Vec::new(), path: Some(next), slash });
                        }
                        at = next;
                        continue;
                    }
                }
            }
            if last {
                if led && kind != Kind::Dir {
                    return Err(Errno::ENOTDIR);
                }
                let name = if how.contains(Resolve::PARENT) { part.to_vec() } else { Vec::new() };
                return Ok(Found { dir: at, name, path: Some(next), slash });
            }
            at = next;
        }
    }
}

/// Where `..` leads.
fn step_up(at: &Path, root: &Path, how: Resolve) -> Result<Path> {
    if how.contains(Resolve::BENEATH) && at.same(root) {
        return Err(Errno::EXDEV);
    }
    let up = at.up(root)?;
    if how.contains(Resolve::NO_XDEV) && up.mount.id != at.mount.id {
        return Err(Errno::EXDEV);
    }
    let up = up.cross();
    // Somebody may have moved it out of there.
    if how.intersects(Resolve::BENEATH | Resolve::IN_ROOT) && !up.is_below(root) {
        return Err(Errno::EAGAIN);
    }
    Ok(up)
}

/// Whether links are followed from there at all.
fn follows(at: &Path, how: Resolve) -> bool {
    !how.contains(Resolve::NO_SYMLINKS) && !at.mount.flags().contains(MountFlags::NOSYMFOLLOW)
}
