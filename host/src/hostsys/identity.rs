//! Who the caller is: ids, groups, limits.

use super::syscall;
use crate::abi::Result;

/// Ids and groups.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// The calling process's.
///
/// # Errors
/// What getgroups(2) returns.
pub fn own() -> Result<Identity> {
    // SAFETY: these calls take no pointers, or a buffer as long as the call is told.
    let count = unsafe { syscall(libc::SYS_getgroups, [0; 6]) }? as usize;
    let mut groups = vec![0_u32; count];
    // SAFETY: as above.
    let got =
        unsafe { syscall(libc::SYS_getgroups, [count as u64, groups.as_mut_ptr() as u64, 0, 0, 0, 0]) }?;
    groups.truncate(got as usize);
    // SAFETY: as above.
    let uid = unsafe { syscall(libc::SYS_geteuid, [0; 6]) }? as u32;
    // SAFETY: as above.
    let gid = unsafe { syscall(libc::SYS_getegid, [0; 6]) }? as u32;
    Ok(Identity { uid, gid, groups })
}

/// Soft and hard limit of a resource of the calling process.
pub fn limit(resource: u32) -> Option<(u64, u64)> {
    let mut limit = [0_u64; 2];
    let args = [0, u64::from(resource), 0, limit.as_mut_ptr() as u64, 0, 0];
    // SAFETY: writes the two words of `limit`.
    unsafe { syscall(libc::SYS_prlimit64, args) }.ok()?;
    Some((limit[0], limit[1]))
}

/// Sets soft and hard limit of a resource of the calling process and of what it starts.
///
/// # Errors
/// EPERM to raise the hard one.
pub fn set_limit(resource: u32, (soft, hard): (u64, u64)) -> Result<()> {
    let limit = [soft, hard];
    let args = [0, u64::from(resource), limit.as_ptr() as u64, 0, 0, 0];
    // SAFETY: reads the two words of `limit`.
    unsafe { syscall(libc::SYS_prlimit64, args) }.map(drop)
}
