//! ns, and what a user namespace says of ids.
//!
//! Who opens a map says who may write it, and what ids are called to whoever reads it: user_namespaces(7) asks the same of who
//! writes, so that nobody with more rights writes for another. Here those that an open file is handed on to may what its opener
//! might, who would not have been let without the rights himself.

use super::Subject;
use super::access::View;
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::cred::userns::IdKind;
use crate::fs::nsfs::NsFile;
use crate::fs::pseudo::{DynDir, Symlink};
use crate::kernel::namespaces::{NAMES, Ns};
use crate::vfs::{Inode, Kind, Link, ListEntry};
use std::sync::Arc;

/// uid_map and its like.
pub(super) fn map(view: &View, kind: IdKind) -> Vec<u8> {
    view.of_subject.show_map(kind, view.user_ns()).into_bytes()
}

/// Writes one.
pub(super) fn set_map(view: &View, kind: IdKind, text: &[u8]) -> Result<()> {
    view.of_subject.set_map(kind, text, view.opener(), view.opener())
}

/// Whether setgroups(2) may ever be called.
pub(super) fn setgroups(view: &View) -> Vec<u8> {
    let text = if view.of_subject.allows_setgroups() { "allow\n" } else { "deny\n" };
    text.into()
}

/// Forbids it, which can be done only before there is a map of group ids.
pub(super) fn set_setgroups(view: &View, text: &[u8]) -> Result<()> {
    if !view.opener().has_in(&view.of_subject, Caps::SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    view.of_subject.set_setgroups(allows(text)?)
}

fn allows(text: &[u8]) -> Result<bool> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    match text.trim_ascii_end() {
        _ if text.len() >= 8 => Err(Errno::EINVAL),
        b"allow" => Ok(true),
        b"deny" => Ok(false),
        _ => Err(Errno::EINVAL),
    }
}

/// By how much the clocks of a process's children are put forward.
pub(super) fn time(view: &View) -> Result<Vec<u8>> {
    let task = view.subject.task.as_ref().ok_or(Errno::ESRCH)?;
    Ok(task.namespaces().time_for_children.of.show().into_bytes())
}

/// Says it, as long as there are none.
pub(super) fn set_time(view: &View, text: &[u8]) -> Result<()> {
    let namespaces = view.subject.task.as_ref().ok_or(Errno::ESRCH)?.namespaces();
    let to = &namespaces.time_for_children;
    if !view.opener().has_in(&to.owner, Caps::SYS_TIME) {
        return Err(Errno::EPERM);
    }
    to.of.set(text)
}

/// One of a task's namespaces.
fn namespace(subject: &Subject, name: &str) -> Option<Ns> {
    let task = subject.task.as_ref()?;
    Ns::of(task, task.fs().as_deref(), name)
}

/// The directory. Its links lead to files of nsfs, for those who may look into the process.
pub(super) fn ns_dir(subject: &Subject, ino: u64, uid: u32, gid: u32) -> Arc<dyn Inode> {
    let subject = subject.clone();
    let entry_ino = move |index: usize| ino + ((index as u64 + 1) << 40);
    DynDir::new(
        ino,
        0o511,
        uid,
        gid,
        move |name| {
            let Some(index) = NAMES.iter().position(|known| known.as_bytes() == name) else {
                return Ok(None);
            };
            let own = subject.clone();
            let link = Symlink::new(entry_ino(index), move |caller| {
                own.peek(&own.observer(caller)?)?;
                let of = namespace(&own, NAMES[index]).ok_or(Errno::ENOENT)?;
                let text = of.text().into_bytes();
                Ok((Link::File(NsFile::open(of)), text))
            });
            Ok(Some(link.with(0o777, uid, gid)))
        },
        move || {
            let entry = |(index, name): (usize, &&str)| ListEntry {
                name: name.as_bytes().into(),
                ino: entry_ino(index),
                kind: Kind::Symlink,
            };
            Ok(NAMES.iter().enumerate().map(entry).collect())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::{Errno, allows};

    #[test]
    fn groups_can_be_allowed_and_forbidden() {
        assert_eq!(allows(b"allow\n"), Ok(true));
        assert_eq!(allows(b"deny"), Ok(false));
        for bad in [&b"denyx"[..], b" allow", b"", b"deny     "] {
            assert_eq!(allows(bad), Err(Errno::EINVAL));
        }
    }
}
