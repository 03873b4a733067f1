//! What a file gives to those who execute it, set-id bits and capabilities, and when it loses that (inode(7),
//! capabilities(7)): nobody may put content of his own where others trust it, or make files that act for a group that he
//! is no member of.

use super::{File, Inode, Kind, Meta, Path, notify, perms};
use crate::cred::{Caps, Cred};
use linux_raw_sys::general as c;
use std::sync::atomic::Ordering::Relaxed;

/// The attribute that holds the capabilities of a program's file.
pub const CAPABILITIES: &[u8] = b"security.capability";

/// Whether files with that owner and of that group may be set-group-ID by the caller's doing.
pub(super) fn may_set_group(cred: &Cred, owners: (u32, u32)) -> bool {
    cred.in_group(owners.1) || cred.has_over(owners, Caps::FSETID)
}

/// The set-id bits that a change of content or owner takes (setattr_should_drop_suidgid). S_ISGID without S_IXGRP was
/// mandatory locking once: it stays with the members of the group.
fn dropped_bits(cred: &Cred, meta: &Meta) -> u32 {
    let perm = meta.perm.load(Relaxed);
    let keeps_group = perm & c::S_IXGRP == 0 && may_set_group(cred, perms::owners(meta));
    perm & (c::S_ISUID | if keeps_group { 0 } else { c::S_ISGID })
}

/// Takes these bits and the capabilities. Whether there was anything.
fn take(inode: &dyn Inode, bits: u32) -> bool {
    let meta = inode.meta();
    let capable = meta.capable.load(Relaxed) && inode.set_xattr(CAPABILITIES, None, 0).is_ok();
    if bits != 0 {
        let _read_only = inode.set_mode(meta.perm.load(Relaxed) & !bits);
    }
    capable || bits != 0
}

/// For a change of owner. Whether that took anything.
pub(super) fn owner_changes(cred: &Cred, inode: &dyn Inode) -> bool {
    let meta = inode.meta();
    meta.kind != Kind::Dir && take(inode, dropped_bits(cred, meta))
}

/// For a change of content, by whoever it is (file_remove_privs).
pub(super) fn content_changes(cred: &Cred, path: &Path) {
    let inode = &*path.dentry.inode;
    let meta = inode.meta();
    if !meta.is_privileged() {
        return;
    }
    // Only who has power over all files.
    let bits = if cred.has(Caps::FSETID) { 0 } else { dropped_bits(cred, meta) };
    if take(inode, bits) {
        meta.changed();
        notify::dentry(&path.dentry, c::IN_ATTRIB);
    }
}

impl Meta {
    /// Whether it is a file that gives anything to those who execute it.
    #[inline]
    pub fn is_privileged(&self) -> bool {
        let marked = self.perm.load(Relaxed) & (c::S_ISUID | c::S_ISGID) != 0 || self.capable.load(Relaxed);
        marked && self.kind == Kind::File
    }
}

impl File {
    /// Whether a change of its content has to go through [`lose_privileges`](Self::lose_privileges) first.
    #[inline]
    pub fn is_privileged(&self) -> bool {
        self.inode().is_some_and(|inode| inode.meta().is_privileged())
    }

    /// To be called before its content is changed on behalf of `cred`.
    #[cold]
    pub fn lose_privileges(&self, cred: &Cred) {
        if let Some(path) = self.named() {
            content_changes(cred, path);
        }
    }
}
