//! ioctl_iflags(2), and the same as XFS has it (ioctl_xfs_fsgetxattr(2)).

use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::syscalls::files::names::Names;
use crate::vfs::{File, of_xflags};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// linux/fs.h
pub(super) const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
pub(super) const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
pub(super) const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;
pub(super) const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;

/// `struct fsxattr`: flags, hint for the size of extents, their number, project, another hint; room.
type FsXattr = [u32; 7];

/// One of these on an open file.
///
/// # Errors
/// ENOTTY where there are none; EPERM, EROFS, EOPNOTSUPP, EFAULT.
pub(super) fn ioctl(cur: &Current, file: &Arc<File>, request: u32, arg: u64) -> Result<u64> {
    let path = file.named().filter(|path| path.dentry.inode.has_flags()).ok_or(Errno::ENOTTY)?;
    let meta = path.dentry.inode.meta();
    let names = Names::of(cur);
    match request {
        FS_IOC_GETFLAGS => cur.mm().write_val(arg, &meta.flags.load(Relaxed))?,
        FS_IOC_SETFLAGS => names.lookup().set_flags(path, cur.mm().read_val(arg)?)?,
        FS_IOC_FSGETXATTR => {
            let shown: FsXattr = [meta.xflags(), 0, 0, 0, 0, 0, 0];
            cur.mm().write_val(arg, &shown)?;
        }
        _ => {
            let [xflags, extent, _, project, cow_extent, _, _]: FsXattr = cur.mm().read_val(arg)?;
            path.mount.writable()?;
            let flags = of_xflags(xflags)?;
            // There are neither extents nor projects.
            if (extent, project, cow_extent) != (0, 0, 0) {
                return Err(Errno::EOPNOTSUPP);
            }
            names.lookup().set_flags(path, flags)?;
        }
    }
    Ok(0)
}
