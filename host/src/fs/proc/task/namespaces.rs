//! ns and net: what is the same for all processes of a sandbox.

use crate::fs::pseudo::{DynDir, Symlink, Text};
use crate::vfs::{Inode, Kind, ListEntry};
use std::sync::Arc;

/// The namespaces of proc(5): there is one of each.
const NAMESPACES: [(&str, u64); 8] = [
    ("cgroup", 4_026_531_835),
    ("ipc", 4_026_531_839),
    ("mnt", 4_026_531_841),
    ("net", 4_026_531_840),
    ("pid", 4_026_531_836),
    ("time", 4_026_531_834),
    ("user", 4_026_531_837),
    ("uts", 4_026_531_838),
];

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

/// Tables of /proc/net that programs read to find no sockets.
const NET: [(&str, &str); 6] = [
    (
        "dev",
        "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n",
    ),
    (
        "tcp",
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n",
    ),
    (
        "tcp6",
        "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n",
    ),
    (
        "udp",
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n",
    ),
    ("unix", "Num       RefCount Protocol Flags    Type St Inode Path\n"),
    ("route", "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"),
];

pub(super) fn net_dir(ino: u64) -> Arc<dyn Inode> {
    DynDir::new(
        ino,
        0o555,
        0,
        0,
        move |name| {
            let found = NET.iter().enumerate().find(|(_, (known, _))| known.as_bytes() == name);
            Ok(found.map(|(at, (_, text))| {
                let text = text.as_bytes().to_vec();
                Text::new(ino + ((at as u64 + 1) << 40), move |_| Ok(text.clone())) as Arc<dyn Inode>
            }))
        },
        move || {
            let entry = |(at, (name, _)): (usize, &(&str, &str))| ListEntry {
                name: name.as_bytes().into(),
                ino: ino + ((at as u64 + 1) << 40),
                kind: Kind::File,
            };
            Ok(NET.iter().enumerate().map(entry).collect())
        },
    )
}
