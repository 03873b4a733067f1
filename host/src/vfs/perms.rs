//! Permission checks: file modes against credentials.

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
/// EACCES.
#[inline]
pub fn may(cred: &Cred, meta: &Meta, want: Want) -> Result<()> {
    may_as(cred, cred.uid.fs, cred.gid.fs, meta, want)
}

/// The same for given ids: access(2) asks for the real ones.
///
/// # Errors
/// EACCES.
pub fn may_as(cred: &Cred, uid: u32, gid: u32, meta: &Meta, want: Want) -> Result<()> {
    let perm = meta.perm.load(Relaxed);
    let bits = if meta.uid.load(Relaxed) == uid {
        perm >> 6
    } else {
        let group = meta.gid.load(Relaxed);
        if group == gid || cred.groups.contains(&group) { perm >> 3 } else { perm }
    };
    if want.bits() & !bits == 0 {
        return Ok(());
    }
    // capabilities(7): DAC_OVERRIDE covers everything but executing a file that nobody may execute.
    let executable = meta.kind == Kind::Dir || perm & 0o111 != 0;
    if cred.has(Caps::DAC_OVERRIDE) && (!want.contains(Want::EXEC) || executable) {
        return Ok(());
    }
    let reading = if meta.kind == Kind::Dir { Want::READ | Want::EXEC } else { Want::READ };
    if cred.has(Caps::DAC_READ_SEARCH) && reading.contains(want) {
        return Ok(());
    }
    Err(Errno::EACCES)
}

/// Whether the caller may change attributes: the owner, or CAP_FOWNER.
///
/// # Errors
/// EPERM.
pub fn owner(cred: &Cred, meta: &Meta) -> Result<()> {
    if meta.uid.load(Relaxed) == cred.uid.fs || cred.has(Caps::FOWNER) { Ok(()) } else { Err(Errno::EPERM) }
}

/// Whether the caller may remove or rename `victim` in `dir` (the sticky bit; write permission is checked apart).
///
/// # Errors
/// EPERM.
pub fn sticky(cred: &Cred, dir: &Meta, victim: &Meta) -> Result<()> {
    if dir.perm.load(Relaxed) & 0o1000 == 0
        || dir.uid.load(Relaxed) == cred.uid.fs
        || victim.uid.load(Relaxed) == cred.uid.fs
        || cred.has(Caps::FOWNER)
    {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}
