//! Permission checks: file modes against credentials.

use super::acl::{Asker, Which};
use super::{Kind, Meta};
use crate::abi::{Errno, Result};
use crate::cred::{Caps, Cred};
use std::sync::atomic::Ordering::Relaxed;

bitflags::bitflags! {
    /// What somebody wants to do with a file.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Want: u32 {
        /// Execute, or search.
        const EXEC = 1;
        /// Write.
        const WRITE = 2;
        /// Read.
        const READ = 4;
    }
}

/// Checks the mode bits for the caller's file-system ids.
///
/// # Errors
/// EACCES; EPERM for writing to what is to stay as it is (ioctl_iflags(2)).
#[inline]
pub fn may(cred: &Cred, meta: &Meta, want: Want) -> Result<()> {
    may_as(cred, cred.uid.fs, cred.gid.fs, meta, want)
}

/// The same for given ids: access(2) asks for the real ones.
///
/// # Errors
/// As [`may`].
pub fn may_as(cred: &Cred, uid: u32, gid: u32, meta: &Meta, want: Want) -> Result<()> {
    if want.contains(Want::WRITE) && meta.is_immutable() {
        return Err(Errno::EPERM);
    }
    let perm = meta.perm.load(Relaxed);
    if allowed(cred, (uid, gid), meta, perm, want) {
        return Ok(());
    }
    // capabilities(7): DAC_OVERRIDE covers everything but executing a file that nobody may execute.
    let executable = meta.kind == Kind::Dir || perm & 0o111 != 0;
    if cred.has_over(owners(meta), Caps::DAC_OVERRIDE) && (!want.contains(Want::EXEC) || executable) {
        return Ok(());
    }
    let reading = if meta.kind == Kind::Dir { Want::READ | Want::EXEC } else { Want::READ };
    if cred.has_over(owners(meta), Caps::DAC_READ_SEARCH) && reading.contains(want) {
        return Ok(());
    }
    Err(Errno::EACCES)
}

/// What permission bits and access control list say (acl_permission_check).
#[inline]
fn allowed(cred: &Cred, (uid, gid): (u32, u32), meta: &Meta, perm: u32, want: Want) -> bool {
    let group = meta.gid.load(Relaxed);
    let bits = if meta.uid.load(Relaxed) == uid {
        perm >> 6
    } else {
        // Where a list lets nobody but the owner and others do anything, it is not looked at.
        if perm & 0o070 != 0
            && let Some(acl) = meta.acls.get(Which::Access)
        {
            let who = Asker { uid, gid, groups: &cred.groups, owners: owners(meta) };
            return acl.allows(&who, want);
        }
        if group == gid || cred.groups.contains(&group) { perm >> 3 } else { perm }
    };
    want.bits() & !bits == 0
}

/// Whose a file is.
pub(super) fn owners(meta: &Meta) -> (u32, u32) {
    (meta.uid.load(Relaxed), meta.gid.load(Relaxed))
}

/// Whether the caller may change attributes: the owner, or CAP_FOWNER where the owner has a name.
///
/// # Errors
/// EPERM.
pub fn owner(cred: &Cred, meta: &Meta) -> Result<()> {
    let uid = meta.uid.load(Relaxed);
    let privileged =
        || cred.has_own(Caps::FOWNER) && (cred.user_ns.is_first() || cred.user_ns.uid_of(uid).is_some());
    if uid == cred.uid.fs || privileged() { Ok(()) } else { Err(Errno::EPERM) }
}

/// Whether the caller may remove or rename `victim` in `dir` (the sticky bit; write permission is checked apart).
///
/// # Errors
/// EPERM, for what is to stay as it is (ioctl_iflags(2)) as well.
pub fn sticky(cred: &Cred, dir: &Meta, victim: &Meta) -> Result<()> {
    if dir.is_append_only() || victim.is_fixed() {
        return Err(Errno::EPERM);
    }
    if dir.perm.load(Relaxed) & 0o1000 == 0
        || dir.uid.load(Relaxed) == cred.uid.fs
        || victim.uid.load(Relaxed) == cred.uid.fs
        || cred.has_over(owners(victim), Caps::FOWNER)
    {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}
