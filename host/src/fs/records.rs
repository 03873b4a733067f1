//! What getdents64(2) of the host returns.

use crate::vfs::{Kind, ListEntry};

/// Takes `struct linux_dirent64` records apart, `.` and `..` excepted; `ino` makes our inode numbers of the host's.
pub(super) fn parse(mut rest: &[u8], ino: impl Fn(u64) -> u64, to: &mut Vec<ListEntry>) {
    while rest.len() > 19 {
        let number = u64::from_ne_bytes(rest[..8].try_into().unwrap_or_default());
        let size = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
        let Some(record) = rest.get(..size) else { return };
        let name = record[19..].split(|&b| b == 0).next().unwrap_or_default();
        // Types unknown to the host's file system are looked up when they matter: files are the common case.
        let kind = Kind::from_dirent_type(record[18]).unwrap_or(Kind::File);
        if name != b"." && name != b".." {
            to.push(ListEntry { name: name.into(), ino: ino(number), kind });
        }
        rest = &rest[size.max(1)..];
    }
}
