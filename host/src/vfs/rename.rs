//! renameat2(2).

use super::ops::{may_edit, until_fresh};
use super::through::Move;
use super::{Dentry, Found, Kind, Lookup, NewNode, Path, Resolve, Want, notify, perms};
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use linux_raw_sys::general as c;
use std::sync::Arc;

/// Fails for flags that are unknown or make no sense together.
fn check_flags(flags: u32) -> Result<()> {
    let known = c::RENAME_NOREPLACE | c::RENAME_EXCHANGE | c::RENAME_WHITEOUT;
    if flags & !known != 0 || (flags & c::RENAME_EXCHANGE != 0 && flags != c::RENAME_EXCHANGE) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// Fails where a name may not be moved from one directory to the other.
fn may_move(cred: &Cred, from: &Path, to: &Path) -> Result<()> {
    may_edit(cred, from)?;
    may_edit(cred, to)?;
    if from.dentry.inode.has_fixed_files() { Err(Errno::EPERM) } else { Ok(()) }
}

/// Fails where the names themselves do not go together. What is moved is returned.
fn check_names(old: &Found, new: &Found, flags: u32) -> Result<Path> {
    let exchange = flags & c::RENAME_EXCHANGE != 0;
    if !Arc::ptr_eq(&old.dir.mount, &new.dir.mount) {
        return Err(Errno::EXDEV);
    }
    if old.name.is_empty() || new.name.is_empty() {
        let replaces = flags & c::RENAME_NOREPLACE == 0 || !new.name.is_empty();
        return Err(if replaces { Errno::EBUSY } else { Errno::EEXIST });
    }
    let child = old.path.clone().ok_or(Errno::ENOENT)?;
    match &new.path {
        None if exchange => return Err(Errno::ENOENT),
        Some(_) if flags & c::RENAME_NOREPLACE != 0 => return Err(Errno::EEXIST),
        Some(other) if exchange && new.slash && other.dentry.kind() != Kind::Dir => {
            return Err(Errno::ENOTDIR);
        }
        _ => {}
    }
    if child.dentry.kind() != Kind::Dir && (old.slash || (new.slash && !exchange)) {
        return Err(Errno::ENOTDIR);
    }
    Ok(child)
}

impl Lookup<'_> {
    /// Moves what `old_name` names to `new_name`.
    ///
    /// # Errors
    /// As rename(2).
    pub fn rename(
        &self,
        old_base: Option<&Path>,
        old_name: &[u8],
        new_base: Option<&Path>,
        new_name: &[u8],
        flags: u32,
    ) -> Result<()> {
        check_flags(flags)?;
        until_fresh(|| {
            let old = self.resolve_parent(old_base, old_name, Resolve::empty())?;
            let new = self.resolve_parent(new_base, new_name, Resolve::empty())?;
            self.rename_found(&old, &new, flags)
        })
    }

    fn rename_found(&self, old: &Found, new: &Found, flags: u32) -> Result<()> {
        let exchange = flags & c::RENAME_EXCHANGE != 0;
        let child = check_names(old, new, flags)?;
        may_move(self.cred, &old.dir, &new.dir)?;
        perms::sticky(self.cred, old.dir.dentry.inode.meta(), child.dentry.inode.meta())?;
        if let Some(victim) = &new.path {
            if Arc::ptr_eq(&victim.dentry.inode, &child.dentry.inode) {
                // rename(2): two links to one file, nothing happens.
                return Ok(());
            }
            perms::sticky(self.cred, new.dir.dentry.inode.meta(), victim.dentry.inode.meta())?;
            match (child.dentry.kind() == Kind::Dir, victim.dentry.kind() == Kind::Dir) {
                (true, false) if !exchange => return Err(Errno::ENOTDIR),
                (false, true) if !exchange => return Err(Errno::EISDIR),
                _ => {}
            }
        }
        if !Arc::ptr_eq(&old.dir.dentry, &new.dir.dentry) {
            // Its ".." leads elsewhere afterwards: that is a change of the directory itself.
            for moved in [Some(&child), new.path.as_ref().filter(|_| exchange)].into_iter().flatten() {
                if moved.dentry.kind() == Kind::Dir {
                    perms::may(self.cred, moved.dentry.inode.meta(), Want::WRITE)?;
                }
            }
        }
        let ns = self.fs.namespace();
        for path in [Some(&child), new.path.as_ref()].into_iter().flatten() {
            if path.is_mount_root() || ns.is_busy(&path.dentry) {
                return Err(Errno::EBUSY);
            }
        }
        Move::of(old, new, flags)?.make()?;
        if flags & c::RENAME_WHITEOUT != 0 {
            self.leave_whiteout(old);
        }
        match new.path.as_ref().map(|path| &path.dentry) {
            Some(other) if exchange => {
                self.tell_of_move(old, new, &child.dentry, None);
                self.tell_of_move(new, old, other, None);
            }
            victim => self.tell_of_move(old, new, &child.dentry, victim),
        }
        Ok(())
    }

    /// Tells who watches.
    fn tell_of_move(&self, from: &Found, to: &Found, moved: &Dentry, replaced: Option<&Arc<Dentry>>) {
        let (kind, cookie) = (moved.kind(), self.fs.namespace().next_cookie());
        notify::name(&from.dir.dentry, c::IN_MOVED_FROM, &from.name, kind, cookie);
        notify::name(&to.dir.dentry, c::IN_MOVED_TO, &to.name, kind, cookie);
        if let Some(replaced) = replaced {
            notify::inode(replaced, c::IN_ATTRIB);
        }
        notify::inode(moved, c::IN_MOVE_SELF);
    }

    /// Leaves a device 0:0 where something was moved away from: to overlayfs, a name that is to be missing.
    fn leave_whiteout(&self, old: &Found) {
        // Somebody may be faster and take the name: then there is nothing to be hidden.
        let hidden = NewNode { kind: Kind::Char, ..self.plain() };
        let _ = old.dir.dentry.add(&old.name, || old.dir.dentry.inode.create(&old.name, &hidden));
    }
}
