//! `struct stat`, `statfs`, `statx`: asm/stat.h, asm-generic/statfs.h, linux/stat.h.

use zerocopy::{Immutable, IntoBytes};

/// `struct stat` on x86_64.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
#[expect(missing_docs, reason = "the header's names")]
pub struct RawStat {
    pub st_dev: u64,
    pub st_ino: u64,
    pub st_nlink: u64,
    pub st_mode: u32,
    pub st_uid: u32,
    pub st_gid: u32,
    pub pad: u32,
    pub st_rdev: u64,
    pub st_size: i64,
    pub st_blksize: i64,
    pub st_blocks: i64,
    pub st_atime: [i64; 2],
    pub st_mtime: [i64; 2],
    pub st_ctime: [i64; 2],
    pub unused: [i64; 3],
}

/// `struct stat` on aarch64 (asm-generic).
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
#[expect(missing_docs, reason = "the header's names")]
pub struct RawStat {
    pub st_dev: u64,
    pub st_ino: u64,
    pub st_mode: u32,
    pub st_nlink: u32,
    pub st_uid: u32,
    pub st_gid: u32,
    pub st_rdev: u64,
    pub pad: u64,
    pub st_size: i64,
    pub st_blksize: i32,
    pub pad2: i32,
    pub st_blocks: i64,
    pub st_atime: [i64; 2],
    pub st_mtime: [i64; 2],
    pub st_ctime: [i64; 2],
    pub unused: [i32; 2],
}

const _: () = assert!(size_of::<RawStat>() == size_of::<linux_raw_sys::general::stat>());

/// `struct statfs` (64 bits).
#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
#[expect(missing_docs, reason = "the header's names")]
pub struct RawStatFs {
    pub f_type: u64,
    pub f_bsize: u64,
    pub f_blocks: u64,
    pub f_bfree: u64,
    pub f_bavail: u64,
    pub f_files: u64,
    pub f_ffree: u64,
    pub f_fsid: [u32; 2],
    pub f_namelen: u64,
    pub f_frsize: u64,
    pub f_flags: u64,
    pub f_spare: [u64; 4],
}

/// `struct statx_timestamp`.
#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
#[expect(missing_docs, reason = "the header's names")]
pub struct RawTime {
    pub sec: i64,
    pub nsec: u32,
    pub pad: i32,
}

/// `struct statx`.
#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
#[expect(missing_docs, reason = "the header's names")]
pub struct RawStatx {
    pub mask: u32,
    pub blksize: u32,
    pub attributes: u64,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub mode: u16,
    pub pad: u16,
    pub ino: u64,
    pub size: u64,
    pub blocks: u64,
    pub attributes_mask: u64,
    pub atime: RawTime,
    pub btime: RawTime,
    pub ctime: RawTime,
    pub mtime: RawTime,
    pub rdev: [u32; 2],
    pub dev: [u32; 2],
    pub mnt_id: u64,
    pub dio: [u32; 2],
    pub spare: [u64; 12],
}

const _: () = assert!(size_of::<RawStatx>() == 256);
