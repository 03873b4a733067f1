//! ns, and what the user namespace says: the same for all processes of a sandbox, which has one of them.

use super::Subject;
use crate::abi::{Errno, Result};
use crate::fs::pseudo::{DynDir, Symlink};
use crate::vfs::{Inode, Kind, ListEntry};
use std::sync::Arc;

/// The namespaces of proc(5), with the numbers that Linux's first ones have.
const NAMESPACES: [(&str, u64); 7] = [
    ("ipc", 4_026_531_839),
    ("mnt", 4_026_531_841),
    ("net", 4_026_531_840),
    ("pid", 4_026_531_836),
    ("time", 4_026_531_834),
    ("user", 4_026_531_837),
    ("uts", 4_026_531_838),
];

/// Every id is itself.
pub(super) const ID_MAP: &str = "         0          0 4294967295\n";

/// A map of ids is written once, by whoever made the namespace; the first one has its own from the start.
pub(super) fn write_id_map(_: &[u8]) -> Result<()> {
    Err(Errno::EPERM)
}

/// setgroups: it can be forbidden only before there is a map of group ids.
pub(super) fn write_setgroups(text: &[u8]) -> Result<()> {
    match text.trim_ascii_end() {
        b"allow" => Ok(()),
        b"deny" => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

/// The numbers of a task's namespaces, by name.
fn numbers(subject: &Subject) -> Vec<(&'static str, u64)> {
    let own = subject.task.as_ref().map(|task| (task.namespaces(), task.fs()));
    let number = |&(name, first): &(&'static str, u64)| {
        let number = own.as_ref().and_then(|(own, fs)| match name {
            "ipc" => Some(own.ipc.number),
            "mnt" => fs.as_ref().map(|fs| fs.namespace().number),
            "net" => Some(own.network.number),
            "uts" => Some(own.uts.number),
            _ => None,
        });
        (name, number.unwrap_or(first))
    };
    NAMESPACES.iter().map(number).collect()
}

pub(super) fn ns_dir(subject: &Subject, ino: u64, uid: u32, gid: u32) -> Arc<dyn Inode> {
    let (finder, lister) = (subject.clone(), subject.clone());
    DynDir::new(
        ino,
        0o511,
        uid,
        gid,
        move |name| {
            let found = numbers(&finder).into_iter().find(|(known, _)| known.as_bytes() == name);
            let Some((name, id)) = found else { return Ok(None) };
            Ok(Some(Symlink::named(id, move |_| format!("{name}:[{id}]").into_bytes())))
        },
        move || {
            let entry = |(name, id): (&str, u64)| ListEntry {
                name: name.as_bytes().into(),
                ino: id,
                kind: Kind::Symlink,
            };
            Ok(numbers(&lister).into_iter().map(entry).collect())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::{Errno, write_setgroups};

    #[test]
    fn groups_can_be_set() {
        assert_eq!(write_setgroups(b"allow\n"), Ok(()));
        assert_eq!(write_setgroups(b"deny"), Err(Errno::EPERM));
        assert_eq!(write_setgroups(b"denyx"), Err(Errno::EINVAL));
        assert_eq!(write_setgroups(b" allow"), Err(Errno::EINVAL));
    }
}
