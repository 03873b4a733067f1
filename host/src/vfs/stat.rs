//! What stat(2) and statfs(2) tell, before it is laid out for an architecture.

/// Seconds and nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds, below 1e9.
    pub nsec: u32,
}

impl Timestamp {
    /// The current CLOCK_REALTIME.
    pub fn now() -> Self {
        let ns = crate::time::realtime_ns();
        Timestamp { sec: (ns / 1_000_000_000) as i64, nsec: (ns % 1_000_000_000) as u32 }
    }
}

/// Attributes of a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stat {
    /// Device the file is on.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device the file is (for device nodes).
    pub rdev: u64,
    /// Bytes.
    pub size: u64,
    /// Preferred size of reads and writes.
    pub blksize: u32,
    /// 512-byte units in use.
    pub blocks: u64,
    /// Last read.
    pub atime: Timestamp,
    /// Last write.
    pub mtime: Timestamp,
    /// Last change of attributes.
    pub ctime: Timestamp,
    /// Creation.
    pub btime: Timestamp,
    /// Mount the file was reached through (statx).
    pub mount_id: u64,
}

/// Attributes of a file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatFs {
    /// Magic number (statfs(2)).
    pub magic: u64,
    /// Block size.
    pub bsize: u64,
    /// Blocks in total.
    pub blocks: u64,
    /// Free blocks.
    pub bfree: u64,
    /// Inodes in total.
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
    /// Mount flags (`ST_*`).
    pub flags: u64,
}

/// A device number as stat(2) has it: `makedev(3)`.
pub const fn makedev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (major & 0xfff) << 8 | (major & !0xfff) << 32 | minor & 0xff | (minor & !0xff) << 12
}

/// The major number of a device.
pub const fn major(dev: u64) -> u32 {
    ((dev >> 8 & 0xfff) | (dev >> 32 & !0xfff)) as u32
}

/// The minor number of a device.
pub const fn minor(dev: u64) -> u32 {
    (dev & 0xff | dev >> 12 & !0xff) as u32
}

#[cfg(test)]
mod tests {
    use super::{major, makedev, minor};

    #[test]
    fn device_numbers_round_trip() {
        for (a, b) in [(1, 3), (8, 0), (259, 70000), (4095, 255), (5000, 1 << 19)] {
            let dev = makedev(a, b);
            assert_eq!((major(dev), minor(dev)), (a, b));
        }
        assert_eq!(makedev(1, 3), 0x103);
    }
}
