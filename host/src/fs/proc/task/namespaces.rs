//! ns and net, and what the user namespace says: the same for all processes of a sandbox, which has one of each.

use crate::abi::{Errno, Result};
use crate::fs::pseudo::{DynDir, Symlink, Text};
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

pub(super) fn ns_dir(ino: u64, uid: u32, gid: u32) -> Arc<dyn Inode> {
    DynDir::new(
        ino,
        0o511,
        uid,
        gid,
        |name| {
            let Some((name, id)) = NAMESPACES.iter().find(|(known, _)| known.as_bytes() == name) else {
                return Ok(None);
            };
            Ok(Some(Symlink::named(*id, move |_| format!("{name}:[{id}]").into_bytes())))
        },
        || {
            let entry = |(name, id): &(&str, u64)| ListEntry {
                name: name.as_bytes().into(),
                ino: *id,
                kind: Kind::Symlink,
            };
            Ok(NAMESPACES.iter().map(entry).collect())
        },
    )
}

/// There are no network interfaces, and no protocols that have tables.
const INTERFACES: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
";

pub(super) fn net_dir(ino: u64) -> Arc<dyn Inode> {
    const NAME: &[u8] = b"dev";
    let file = ino + (1 << 40);
    DynDir::new(
        ino,
        0o555,
        0,
        0,
        move |name| {
            let text = || Text::new(file, |_| Ok(INTERFACES.into())) as Arc<dyn Inode>;
            Ok((name == NAME).then(text))
        },
        move || Ok(vec![ListEntry { name: NAME.into(), ino: file, kind: Kind::File }]),
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
