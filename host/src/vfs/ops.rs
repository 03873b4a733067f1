//! What programs do with names: open, make, remove, truncate.

use super::{Caller, DirFile, File, Kind, Lookup, MountFlags, NewNode, Path, Resolve, Want, Writing};
use super::{Dentry, handle::PathOps, notify, perms, privileges};
use crate::abi::{Errno, Result};
use crate::cred::{Caps, Cred};
use linux_raw_sys::general as c;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What a file is opened for.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenHow {
    /// Flags of open(2).
    pub flags: u32,
    /// Permission bits of a new file, before the umask.
    pub mode: u32,
    /// Restrictions of openat2(2).
    pub resolve: Resolve,
    /// Who opens.
    pub caller: Caller,
}

/// The access that open flags ask for (3, used by some for ioctl only, asks for both).
fn wanted(flags: u32) -> Want {
    let mut want = match flags & c::O_ACCMODE {
        c::O_RDONLY => Want::READ,
        c::O_WRONLY => Want::WRITE,
        _ => Want::READ | Want::WRITE,
    };
    if flags & c::O_TRUNC != 0 {
        want |= Want::WRITE;
    }
    want
}

/// Fails where a name may not be added to or removed from `dir`.
pub(super) fn may_edit(cred: &Cred, dir: &Path) -> Result<()> {
    perms::may(cred, dir.dentry.inode.meta(), Want::WRITE | Want::EXEC)?;
    dir.mount.writable()?;
    dir.dentry.inode.can_edit()
}

/// Opens what `path` names, its permissions having been checked.
fn open_path(path: &Path, how: &OpenHow) -> Result<Arc<File>> {
    let ops = path.dentry.inode.clone().open(path, how)?;
    Ok(File::new(ops, how.flags, path.clone()))
}

/// Does it again while others put something else into the place of what it has found.
pub(super) fn until_fresh<T>(mut once: impl FnMut() -> Result<T>) -> Result<T> {
    /// How often that may be: each time somebody else was faster.
    const TIMES: usize = 100;
    for _ in 1..TIMES {
        match once() {
            Err(Errno::ESTALE) => {}
            done => return done,
        }
    }
    once()
}

impl Lookup<'_> {
    /// open(2), openat(2), openat2(2). A FIFO's open is complete when [`super::FileOps::opened`] says so.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(&self, base: Option<&Path>, name: &[u8], how: &OpenHow) -> Result<Arc<File>> {
        until_fresh(|| self.open_once(base, name, how))
    }

    fn open_once(&self, base: Option<&Path>, name: &[u8], how: &OpenHow) -> Result<Arc<File>> {
        let flags = how.flags;
        if flags & c::O_PATH != 0 {
            return self.open_handle(base, name, how);
        }
        if flags & c::O_TMPFILE == c::O_TMPFILE {
            return self.open_nameless(base, name, how);
        }
        let exclusive = flags & (c::O_CREAT | c::O_EXCL) == c::O_CREAT | c::O_EXCL;
        let mut resolve = how.resolve;
        resolve.set(Resolve::FOLLOW, flags & c::O_NOFOLLOW == 0 && !exclusive);
        if flags & c::O_CREAT == 0 {
            let path = self.resolve(base, name, resolve)?;
            return self.open_there(&path, how);
        }
        let found = self.resolve_parent(base, name, resolve)?;
        let path = match found.path {
            _ if found.slash && !found.name.is_empty() => return Err(Errno::EISDIR),
            Some(_) if exclusive => return Err(Errno::EEXIST),
            Some(path) if path.dentry.kind() == Kind::Dir => return Err(Errno::EISDIR),
            Some(path) => path,
            None => {
                match self.make(&found, &NewNode { kind: Kind::File, perm: how.mode, ..self.plain() }) {
                    // No permission check: the creator may open a read-only file for writing.
                    Ok(path) => return self.open_existing(&path, how, false),
                    // Somebody else made it between look-up and here.
                    Err(Errno::EEXIST) if !exclusive => found
                        .dir
                        .dentry
                        .child(&found.name)?
                        .map(|d| found.dir.with(d))
                        .ok_or(Errno::ESTALE)?,
                    Err(errno) => return Err(errno),
                }
            }
        };
        self.open_there(&path, how)
    }

    /// Opens what was found under a name.
    fn open_there(&self, path: &Path, how: &OpenHow) -> Result<Arc<File>> {
        match self.open_existing(path, how, true) {
            // It has gone since it was found: there may be another, or one is to be made.
            Err(Errno::ENOENT) if path.dentry.sb.through => Err(Errno::ESTALE),
            done => done,
        }
    }

    pub(super) fn open_existing(&self, path: &Path, how: &OpenHow, check: bool) -> Result<Arc<File>> {
        let flags = how.flags;
        let meta = path.dentry.inode.meta();
        let writes = wanted(flags).contains(Want::WRITE);
        match meta.kind {
            Kind::Symlink => return Err(Errno::ELOOP),
            Kind::Dir if writes => return Err(Errno::EISDIR),
            Kind::Socket => return Err(Errno::ENXIO),
            _ => {}
        }
        if flags & c::O_DIRECTORY != 0 && meta.kind != Kind::Dir {
            return Err(Errno::ENOTDIR);
        }
        if check {
            perms::may(self.cred, meta, wanted(flags))?;
        }
        if meta.is_append_only() && (writes && flags & c::O_APPEND == 0 || flags & c::O_TRUNC != 0) {
            return Err(Errno::EPERM);
        }
        let ordinary = matches!(meta.kind, Kind::File | Kind::Dir);
        if ordinary && writes {
            path.mount.writable()?;
        }
        let device = matches!(meta.kind, Kind::Char | Kind::Block);
        let barred = || path.mount.flags().contains(MountFlags::NODEV) || !path.dentry.sb.owner().is_first();
        if device && barred() {
            return Err(Errno::EACCES);
        }
        if flags & c::O_NOATIME != 0 {
            perms::owner(self.cred, meta)?;
        }
        let file = open_path(path, &OpenHow { caller: self.caller, ..*how })?;
        if flags & c::O_TRUNC != 0 && meta.kind == Kind::File && check {
            file.announce();
            let _writing = Writing::claim(&path.dentry.inode)?;
            privileges::content_changes(self.cred, path);
            path.dentry.inode.truncate(0)?;
            notify::dentry(&path.dentry, c::IN_MODIFY);
        }
        Ok(file)
    }

    /// O_PATH: a handle on a name.
    fn open_handle(&self, base: Option<&Path>, name: &[u8], how: &OpenHow) -> Result<Arc<File>> {
        let mut resolve = how.resolve;
        resolve.set(Resolve::FOLLOW, how.flags & c::O_NOFOLLOW == 0);
        let path = self.resolve(base, name, resolve)?;
        if how.flags & c::O_DIRECTORY != 0 && path.dentry.kind() != Kind::Dir {
            return Err(Errno::ENOTDIR);
        }
        let flags = how.flags & (c::O_PATH | c::O_DIRECTORY | c::O_NOFOLLOW | c::O_CLOEXEC);
        Ok(File::new(Arc::new(PathOps), flags, path))
    }

    /// O_TMPFILE: a file without a name in the file system of a directory.
    fn open_nameless(&self, base: Option<&Path>, name: &[u8], how: &OpenHow) -> Result<Arc<File>> {
        if !wanted(how.flags).contains(Want::WRITE) {
            return Err(Errno::EINVAL);
        }
        let dir = self.resolve(base, name, how.resolve | Resolve::FOLLOW)?;
        if dir.dentry.kind() != Kind::Dir {
            return Err(Errno::ENOTDIR);
        }
        may_edit(self.cred, &dir)?;
        let new = NewNode { kind: Kind::File, perm: how.mode, ..self.plain() };
        let inode = self.create_in(&dir, b"", &new)?;
        inode.meta().nlink.store(0, Relaxed);
        inode.meta().linkable.store(how.flags & c::O_EXCL == 0, Relaxed);
        let name = format!("#{}", inode.meta().ino);
        let path = dir.with(Dentry::below(&dir.dentry, name.as_bytes(), inode));
        open_path(&path, how)
    }

    /// Opens a program: execute permission, a regular file, not on a noexec mount.
    ///
    /// # Errors
    /// EACCES, and as open(2).
    pub fn open_program(&self, base: Option<&Path>, name: &[u8], resolve: Resolve) -> Result<Arc<File>> {
        let path = self.resolve(base, name, resolve)?;
        let meta = path.dentry.inode.meta();
        match meta.kind {
            Kind::File => {}
            Kind::Symlink => return Err(Errno::ELOOP),
            _ => return Err(Errno::EACCES),
        }
        perms::may(self.cred, meta, Want::EXEC)?;
        if path.mount.flags().contains(MountFlags::NOEXEC) {
            return Err(Errno::EACCES);
        }
        open_path(&path, &OpenHow { caller: self.caller, ..OpenHow::default() })
    }

    /// link(2): gives `old` one more name.
    ///
    /// # Errors
    /// As link(2).
    pub fn link(&self, old: &Path, base: Option<&Path>, name: &[u8]) -> Result<()> {
        let found = self.resolve_parent(base, name, Resolve::empty())?;
        if found.path.is_some() {
            return Err(Errno::EEXIST);
        }
        if found.slash {
            return Err(Errno::ENOENT);
        }
        let meta = old.dentry.inode.meta();
        if !Arc::ptr_eq(&old.mount, &found.dir.mount) || !Arc::ptr_eq(&old.dentry.sb, &found.dir.dentry.sb) {
            return Err(Errno::EXDEV);
        }
        may_edit(self.cred, &found.dir)?;
        if meta.is_fixed() || meta.kind == Kind::Dir || found.dir.dentry.inode.has_fixed_files() {
            return Err(Errno::EPERM);
        }
        if found.dir.dentry.sb.through {
            found.dir.dentry.link_through(&found.name, old)?;
            notify::inode(&old.dentry, c::IN_ATTRIB);
            notify::name(&found.dir.dentry, c::IN_CREATE, &found.name, meta.kind, 0);
            return Ok(());
        }
        found.dir.dentry.add(&found.name, || {
            // What has lost its last name is on its way out, unless it never had one.
            let one_more = |names| (names > 0 || meta.linkable.load(Relaxed)).then_some(names + 1);
            meta.nlink.fetch_update(Relaxed, Relaxed, one_more).map_err(|_| Errno::ENOENT)?;
            meta.linkable.store(false, Relaxed);
            Ok(old.dentry.inode.clone())
        })?;
        meta.changed();
        notify::inode(&old.dentry, c::IN_ATTRIB);
        notify::name(&found.dir.dentry, c::IN_CREATE, &found.name, meta.kind, 0);
        Ok(())
    }

    /// unlink(2) and rmdir(2).
    ///
    /// # Errors
    /// As unlink(2), rmdir(2).
    pub fn remove(&self, base: Option<&Path>, name: &[u8], dir: bool) -> Result<()> {
        until_fresh(|| self.remove_once(base, name, dir))
    }

    fn remove_once(&self, base: Option<&Path>, name: &[u8], dir: bool) -> Result<()> {
        let found = self.resolve_parent(base, name, Resolve::empty())?;
        if found.name.is_empty() {
            return Err(match name.rsplit(|&b| b == b'/').find(|part| !part.is_empty()) {
                None if dir => Errno::EBUSY,
                Some(b".") if dir => Errno::EINVAL,
                Some(b"..") if dir => Errno::ENOTEMPTY,
                _ => Errno::EISDIR,
            });
        }
        let victim = found.path.ok_or(Errno::ENOENT)?;
        perms::may(self.cred, found.dir.dentry.inode.meta(), Want::WRITE | Want::EXEC)?;
        perms::sticky(self.cred, found.dir.dentry.inode.meta(), victim.dentry.inode.meta())?;
        let is_dir = victim.dentry.kind() == Kind::Dir;
        if dir && !is_dir {
            return Err(Errno::ENOTDIR);
        }
        if !dir && is_dir {
            return Err(Errno::EISDIR);
        }
        if !dir && found.slash {
            return Err(Errno::ENOTDIR);
        }
        found.dir.mount.writable()?;
        found.dir.dentry.inode.can_edit()?;
        if !is_dir && found.dir.dentry.inode.has_fixed_files() {
            return Err(Errno::EPERM);
        }
        if victim.is_mount_root() || self.fs.namespace().is_busy(&victim.dentry) {
            return Err(Errno::EBUSY);
        }
        found.dir.dentry.remove(&found.name, &victim.dentry)?;
        if !is_dir {
            notify::inode(&victim.dentry, c::IN_ATTRIB);
        }
        let kind = victim.dentry.kind();
        // If nobody else uses it, it has gone before its directory's watchers hear of it.
        drop(victim);
        notify::name(&found.dir.dentry, c::IN_DELETE, &found.name, kind, 0);
        Ok(())
    }

    /// access(2): with the real ids unless `effective`.
    ///
    /// # Errors
    /// EACCES, EROFS.
    pub fn access(&self, path: &Path, want: Want, effective: bool) -> Result<()> {
        let meta = path.dentry.inode.meta();
        if want.contains(Want::WRITE) && matches!(meta.kind, Kind::File | Kind::Dir) {
            path.mount.writable()?;
        }
        if want.contains(Want::EXEC)
            && meta.kind == Kind::File
            && path.mount.flags().contains(MountFlags::NOEXEC)
        {
            return Err(Errno::EACCES);
        }
        if effective || (self.cred.uid.real == self.cred.uid.fs && self.cred.gid.real == self.cred.gid.fs) {
            return perms::may(self.cred, meta, want);
        }
        // access(2): a set-user-ID program asks what its caller may; only root keeps its powers.
        let mut cred = self.cred.clone();
        cred.effective = if cred.is_really_root() { cred.permitted } else { Caps::empty() };
        perms::may_as(&cred, cred.uid.real, cred.gid.real, meta, want)
    }

    /// Opens a directory for the kernel's own use.
    pub fn open_dir(&self, path: &Path) -> Arc<File> {
        File::new(DirFile::new(path), c::O_RDONLY | c::O_DIRECTORY, path.clone())
    }
}
