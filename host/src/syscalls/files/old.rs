//! ustat(2) and sysfs(2), which statfs(2) and /proc/filesystems have replaced.

use crate::abi::{Errno, Result};
use crate::fs::FILESYSTEMS;
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::vfs::makedev;

/// ustat(2)
pub(crate) fn ustat(cur: &mut Current, args: &Args) -> Result<u64> {
    // As programs spell device numbers (new_decode_dev).
    let dev = args.uint(0);
    let (major, minor) = (dev >> 8 & 0xfff, dev & 0xff | dev >> 12 & 0xfff00);
    let dev = makedev(major, minor);
    let mounts = cur.fs().namespace().mounts();
    let mount = mounts.iter().find(|mount| mount.root.sb.dev == dev).ok_or(Errno::EINVAL)?;
    let stat = mount.root.sb.statfs();
    // `struct ustat`: free blocks (32 bits), free inodes, two names that nobody fills.
    let words = [stat.bfree & 0xffff_ffff, stat.ffree, 0, 0];
    cur.mm().write_val(args.addr(1), &words)?;
    Ok(0)
}

/// sysfs(2)
pub(crate) fn sysfs(cur: &mut Current, args: &Args) -> Result<u64> {
    match args.int(0) {
        1 => {
            let name = super::names::path_arg(cur, args.addr(1))?;
            let index = FILESYSTEMS.iter().position(|known| known.as_bytes() == name);
            index.map(|index| index as u64).ok_or(Errno::EINVAL)
        }
        2 => {
            let name = FILESYSTEMS.get(args.uint(1) as usize).ok_or(Errno::EINVAL)?;
            let text: Vec<u8> = name.bytes().chain([0]).collect();
            cur.mm().write(args.addr(2), &text)?;
            Ok(0)
        }
        3 => Ok(FILESYSTEMS.len() as u64),
        _ => Err(Errno::EINVAL),
    }
}
