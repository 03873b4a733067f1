//! stat, statx, statfs, access.

use super::names::{Names, base, only, path_arg, resolve_at};
use super::statmount::UNIQUE;
use crate::abi::stat::{RawStat, RawStatFs, RawStatx, RawTime};
use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::vfs::{File, Path, Resolve, Stat, Timestamp, Want, major, minor, statfs_flags, statx_attributes};
use linux_raw_sys::general as c;
use std::sync::Arc;

/// `STATX_ATTR_*` that are of the VFS (linux/stat.h).
const STATX_ATTR_AUTOMOUNT: u64 = 0x1000;
const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
const STATX_ATTR_DAX: u64 = 0x20_0000;

fn put_stat(cur: &Current, addr: u64, stat: &Stat) -> Result<u64> {
    let (uid, gid) = cur.show((stat.uid, stat.gid));
    let raw = RawStat {
        st_dev: stat.dev,
        st_ino: stat.ino,
        st_nlink: stat.nlink as _,
        st_mode: stat.mode,
        st_uid: uid,
        st_gid: gid,
        st_rdev: stat.rdev,
        st_size: stat.size as i64,
        st_blksize: stat.blksize as _,
        st_blocks: stat.blocks as i64,
        st_atime: time(stat.atime),
        st_mtime: time(stat.mtime),
        st_ctime: time(stat.ctime),
        ..RawStat::default()
    };
    cur.mm().write_val(addr, &raw)?;
    Ok(0)
}

fn time(time: Timestamp) -> [i64; 2] {
    [time.sec, time.nsec.into()]
}

/// stat(2)
pub(crate) fn stat(cur: &mut Current, args: &Args) -> Result<u64> {
    let path = resolve_at(cur, c::AT_FDCWD, args.addr(0), 0, true)?;
    put_stat(cur, args.addr(1), &path.stat())
}

/// lstat(2)
pub(crate) fn lstat(cur: &mut Current, args: &Args) -> Result<u64> {
    let path = resolve_at(cur, c::AT_FDCWD, args.addr(0), 0, false)?;
    put_stat(cur, args.addr(1), &path.stat())
}

/// fstat(2)
pub(crate) fn fstat(cur: &mut Current, args: &Args) -> Result<u64> {
    let stat = cur.fds().get_path(args.fd(0))?.stat();
    put_stat(cur, args.addr(1), &stat)
}

/// What is asked about.
enum Found {
    Open(Arc<File>),
    Named(Path),
}

impl Found {
    /// By descriptor, name and `AT_*` flags.
    fn at(cur: &Current, dirfd: i32, name: u64, flags: u32) -> Result<Found> {
        // glibc's fstat is this call with an empty name: no path is needed for it.
        if flags & c::AT_EMPTY_PATH != 0 && dirfd >= 0 {
            let empty = name == 0 || cur.mm().read_val::<u8>(name)? == 0;
            if empty {
                return Ok(Found::Open(cur.fds().get_path(dirfd)?));
            }
        }
        let follow = flags & c::AT_SYMLINK_NOFOLLOW == 0;
        Ok(Found::Named(resolve_at(cur, dirfd, name, flags, follow)?))
    }

    fn stat(&self) -> Stat {
        match self {
            Found::Open(file) => file.stat(),
            Found::Named(path) => path.stat(),
        }
    }

    /// `STATX_ATTR_*`: those that hold, and those that are known.
    fn attributes(&self) -> (u64, u64) {
        let path = match self {
            Found::Open(file) => file.named(),
            Found::Named(path) => Some(path),
        };
        let root = path.is_some_and(Path::is_mount_root);
        let (hold, known) = path.map_or((0, 0), |path| statx_attributes(&*path.dentry.inode));
        let root = if root { STATX_ATTR_MOUNT_ROOT } else { 0 };
        (hold | root, known | STATX_ATTR_MOUNT_ROOT | STATX_ATTR_AUTOMOUNT | STATX_ATTR_DAX)
    }
}

/// newfstatat(2)
pub(crate) fn newfstatat(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = args.uint(3);
    only(flags, c::AT_SYMLINK_NOFOLLOW | c::AT_NO_AUTOMOUNT | c::AT_EMPTY_PATH)?;
    let stat = Found::at(cur, args.fd(0), args.addr(1), flags)?.stat();
    put_stat(cur, args.addr(2), &stat)
}

/// statx(2)
pub(crate) fn statx(cur: &mut Current, args: &Args) -> Result<u64> {
    let (flags, mask) = (args.uint(2), args.uint(3));
    only(flags, c::AT_SYMLINK_NOFOLLOW | c::AT_NO_AUTOMOUNT | c::AT_EMPTY_PATH | c::AT_STATX_SYNC_TYPE)?;
    if mask & c::STATX__RESERVED != 0 || flags & c::AT_STATX_SYNC_TYPE == c::AT_STATX_SYNC_TYPE {
        return Err(Errno::EINVAL);
    }
    let found = Found::at(cur, args.fd(0), args.addr(1), flags)?;
    let (stat, attributes) = (found.stat(), found.attributes());
    let (uid, gid) = cur.show((stat.uid, stat.gid));
    let (kind, mnt_id) = match stat.mount_id {
        0 => (0, 0),
        id if mask & STATX_MNT_ID_UNIQUE != 0 => (STATX_MNT_ID_UNIQUE, id + UNIQUE),
        id => (c::STATX_MNT_ID, id),
    };
    let x = |time: Timestamp| RawTime { sec: time.sec, nsec: time.nsec, pad: 0 };
    let raw = RawStatx {
        mask: c::STATX_BASIC_STATS | c::STATX_BTIME | kind,
        blksize: stat.blksize,
        nlink: stat.nlink,
        uid,
        gid,
        mode: stat.mode as u16,
        ino: stat.ino,
        size: stat.size,
        blocks: stat.blocks,
        atime: x(stat.atime),
        btime: x(stat.btime),
        ctime: x(stat.ctime),
        mtime: x(stat.mtime),
        rdev: [major(stat.rdev), minor(stat.rdev)],
        dev: [major(stat.dev), minor(stat.dev)],
        mnt_id,
        attributes: attributes.0,
        attributes_mask: attributes.1,
        ..RawStatx::default()
    };
    cur.mm().write_val(args.addr(4), &raw)?;
    Ok(0)
}

fn put_statfs(cur: &Current, addr: u64, path: &Path) -> Result<u64> {
    let stat = path.dentry.inode.statfs().unwrap_or_else(|| path.dentry.sb.statfs());
    let raw = RawStatFs {
        f_type: stat.magic,
        f_bsize: stat.bsize,
        f_blocks: stat.blocks,
        f_bfree: stat.bfree,
        f_bavail: stat.bfree,
        f_files: stat.files,
        f_ffree: stat.ffree,
        f_fsid: [path.dentry.sb.dev as u32, (path.dentry.sb.dev >> 32) as u32],
        f_namelen: 255,
        f_frsize: stat.bsize,
        f_flags: statfs_flags(path.mount.flags()),
        f_spare: [0; 4],
    };
    cur.mm().write_val(addr, &raw)?;
    Ok(0)
}

/// statfs(2)
pub(crate) fn statfs(cur: &mut Current, args: &Args) -> Result<u64> {
    let path = resolve_at(cur, c::AT_FDCWD, args.addr(0), 0, true)?;
    put_statfs(cur, args.addr(1), &path)
}

/// fstatfs(2)
pub(crate) fn fstatfs(cur: &mut Current, args: &Args) -> Result<u64> {
    let path = cur.fds().get_path(args.fd(0))?.path();
    put_statfs(cur, args.addr(1), &path)
}

fn access_at(cur: &Current, dirfd: i32, name: u64, mode: u32, flags: u32) -> Result<u64> {
    let want = Want::from_bits(mode).ok_or(Errno::EINVAL)?;
    only(flags, c::AT_EACCESS | c::AT_SYMLINK_NOFOLLOW | c::AT_EMPTY_PATH)?;
    let name = path_arg(cur, name)?;
    let mut how = Resolve::empty();
    how.set(Resolve::FOLLOW, flags & c::AT_SYMLINK_NOFOLLOW == 0);
    how.set(Resolve::EMPTY, flags & c::AT_EMPTY_PATH != 0);
    let base = base(cur, dirfd, &name)?;
    let names = Names::of(cur);
    let lookup = names.lookup();
    let path = lookup.resolve(base.as_ref(), &name, how)?;
    lookup.access(&path, want, flags & c::AT_EACCESS != 0)?;
    Ok(0)
}

/// access(2)
pub(crate) fn access(cur: &mut Current, args: &Args) -> Result<u64> {
    access_at(cur, c::AT_FDCWD, args.addr(0), args.uint(1), 0)
}

/// faccessat(2): the old call, without flags.
pub(crate) fn faccessat(cur: &mut Current, args: &Args) -> Result<u64> {
    access_at(cur, args.fd(0), args.addr(1), args.uint(2), 0)
}

/// faccessat2(2)
pub(crate) fn faccessat2(cur: &mut Current, args: &Args) -> Result<u64> {
    access_at(cur, args.fd(0), args.addr(1), args.uint(2), args.uint(3))
}
