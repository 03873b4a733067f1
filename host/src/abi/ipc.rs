//! `struct ipc64_perm`, `semid64_ds`: asm/ipcbuf.h, asm/sembuf.h.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// `struct ipc64_perm`, the same on both architectures.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
#[expect(missing_docs, reason = "the header's names")]
pub struct RawPerm {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
    pub seq: u16,
    pub pad: [u16; 3],
    pub unused: [u64; 2],
}

const _: () = assert!(size_of::<RawPerm>() == 48);

/// `struct semid64_ds`, which x86_64 keeps a hole behind each time of.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
#[expect(missing_docs, reason = "the header's names")]
pub struct RawSemaphores {
    pub perm: RawPerm,
    pub otime: i64,
    pub unused1: u64,
    pub ctime: i64,
    pub unused2: u64,
    pub count: u64,
    pub unused: [u64; 2],
}

/// `struct semid64_ds` (asm-generic).
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
#[expect(missing_docs, reason = "the header's names")]
pub struct RawSemaphores {
    pub perm: RawPerm,
    pub otime: i64,
    pub ctime: i64,
    pub count: u64,
    pub unused: [u64; 2],
}
