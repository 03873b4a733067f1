//! Mounts by descriptor: open_tree, move_mount, mount_setattr.

use super::mounts::may_mount;
use super::names::{Names, fits, only, resolve_at, versioned};
use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::syscalls::descriptors::fd::install;
use crate::vfs::{MountFlags, Path, Propagation, open_detached, open_handle};
use linux_raw_sys::general as c;

/// linux/mount.h
const OPEN_TREE_CLONE: u32 = 1;
const F_SYMLINKS: u32 = 1;
const F_AUTOMOUNTS: u32 = 2;
const F_EMPTY_PATH: u32 = 4;
const T_SYMLINKS: u32 = 0x10;
const T_AUTOMOUNTS: u32 = 0x20;
const T_EMPTY_PATH: u32 = 0x40;

/// `MOUNT_ATTR_*`. When times change is one number among them.
const ATTR_TIMES: u64 = 0x70;
const ATTR_NOATIME: u64 = 0x10;
const ATTR_STRICTATIME: u64 = 0x20;
const ATTRS: [(u64, MountFlags); 6] = [
    (1, MountFlags::RDONLY),
    (2, MountFlags::NOSUID),
    (4, MountFlags::NODEV),
    (8, MountFlags::NOEXEC),
    (0x80, MountFlags::NODIRATIME),
    (0x20_0000, MountFlags::NOSYMFOLLOW),
];
/// `struct mount_attr` in its first version.
const MOUNT_ATTR: usize = 32;

/// What a mount is to forbid, of `MOUNT_ATTR_*`.
///
/// # Errors
/// EINVAL for unknown ones, and for two that say when times change.
pub(super) fn attributes(attrs: u64) -> Result<MountFlags> {
    let known: u64 = ATTRS.iter().map(|(bit, _)| bit).sum::<u64>() | ATTR_TIMES;
    if attrs & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let mut flags =
        ATTRS.iter().filter(|(bit, _)| attrs & bit != 0).map(|(_, flag)| *flag).collect::<MountFlags>();
    match attrs & ATTR_TIMES {
        0 => {}
        ATTR_NOATIME => flags |= MountFlags::NOATIME,
        ATTR_STRICTATIME => flags |= MountFlags::STRICTATIME,
        _ => return Err(Errno::EINVAL),
    }
    Ok(flags)
}

/// The same the other way round, as statmount(2) says it.
pub(super) fn shown(flags: MountFlags) -> u64 {
    let times = if flags.contains(MountFlags::NOATIME) {
        ATTR_NOATIME
    } else if flags.contains(MountFlags::STRICTATIME) {
        ATTR_STRICTATIME
    } else {
        0
    };
    ATTRS.iter().filter(|(_, flag)| flags.contains(*flag)).map(|(bit, _)| bit).sum::<u64>() | times
}

/// open_tree(2)
pub(crate) fn open_tree(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = args.uint(2);
    let at = c::AT_EMPTY_PATH | c::AT_NO_AUTOMOUNT | c::AT_RECURSIVE | c::AT_SYMLINK_NOFOLLOW;
    only(flags, OPEN_TREE_CLONE | c::O_CLOEXEC | at)?;
    let (clone, recursive) = (flags & OPEN_TREE_CLONE != 0, flags & c::AT_RECURSIVE != 0);
    if recursive && !clone {
        return Err(Errno::EINVAL);
    }
    if clone {
        may_mount(cur)?;
    }
    let path = resolve_at(cur, args.fd(0), args.addr(1), flags, flags & c::AT_SYMLINK_NOFOLLOW == 0)?;
    let file = match clone {
        true => open_detached(cur.fs().namespace().copy_detached(&path, recursive)?),
        false => open_handle(path),
    };
    install(cur, file, flags)
}

/// One of the two places of move_mount(2).
fn end(cur: &Current, fd: i32, name: u64, empty: bool, follow: bool) -> Result<Path> {
    resolve_at(cur, fd, name, if empty { c::AT_EMPTY_PATH } else { 0 }, follow)
}

/// move_mount(2). Nothing is put below another mount, and no peer groups are taken over.
pub(crate) fn move_mount(cur: &mut Current, args: &Args) -> Result<u64> {
    may_mount(cur)?;
    let flags = args.uint(4);
    let from = F_SYMLINKS | F_AUTOMOUNTS | F_EMPTY_PATH;
    only(flags, from | T_SYMLINKS | T_AUTOMOUNTS | T_EMPTY_PATH)?;
    let has = |flag| flags & flag != 0;
    let from = end(cur, args.fd(0), args.addr(1), has(F_EMPTY_PATH), has(F_SYMLINKS))?;
    let to = end(cur, args.fd(2), args.addr(3), has(T_EMPTY_PATH), has(T_SYMLINKS))?;
    cur.fs().namespace().move_mount(&from, &to).map(|()| 0)
}

/// `struct mount_attr`: what to set, what to clear, propagation, a user namespace.
fn mount_attr(cur: &Current, addr: u64, size: usize) -> Result<[u64; 4]> {
    let given: [u8; MOUNT_ATTR] = versioned(cur, addr, size, MOUNT_ATTR)?;
    let word = |i: usize| u64::from_ne_bytes(std::array::from_fn(|byte| given[i * 8 + byte]));
    Ok(std::array::from_fn(word))
}

/// What mount(2) calls a kind; none for 0.
pub(super) fn propagation(kind: u64) -> Result<Option<Propagation>> {
    Ok(Some(match u32::try_from(kind).map_err(|_| Errno::EINVAL)? {
        0 => return Ok(None),
        c::MS_SHARED => Propagation::Shared,
        c::MS_PRIVATE => Propagation::Private,
        c::MS_SLAVE => Propagation::Slave,
        c::MS_UNBINDABLE => Propagation::Unbindable,
        _ => return Err(Errno::EINVAL),
    }))
}

/// mount_setattr(2). Ids are never mapped.
pub(crate) fn mount_setattr(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = args.uint(2);
    only(flags, c::AT_EMPTY_PATH | c::AT_RECURSIVE | c::AT_SYMLINK_NOFOLLOW | c::AT_NO_AUTOMOUNT)?;
    let size = args.size(4);
    fits(size, MOUNT_ATTR)?;
    may_mount(cur)?;
    let [set, mut clear, kind, _] = mount_attr(cur, args.addr(3), size)?;
    if (set, clear, kind) == (0, 0, 0) {
        return Ok(0);
    }
    let kind = propagation(kind)?;
    let mut cleared = MountFlags::empty();
    // What says when times change is replaced as a whole.
    match clear & ATTR_TIMES {
        0 if set & ATTR_TIMES == 0 => {}
        ATTR_TIMES => {
            cleared |= MountFlags::NOATIME | MountFlags::STRICTATIME;
            clear &= !ATTR_TIMES;
        }
        _ => return Err(Errno::EINVAL),
    }
    let (set, cleared) = (attributes(set)?, cleared | attributes(clear)?);
    let path = resolve_at(cur, args.fd(0), args.addr(1), flags, flags & c::AT_SYMLINK_NOFOLLOW == 0)?;
    if !path.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    let names = Names::of(cur);
    let home = names.fs.namespace().home_of(&path.mount).ok_or(Errno::EINVAL)?;
    home.change(&path.mount, flags & c::AT_RECURSIVE != 0, |old| (old - cleared) | set, kind)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::{ATTR_TIMES, Errno, attributes, shown};

    #[test]
    fn attributes_round_trip() {
        for attrs in [0, 0xf, 0x10, 0x20, 0x8f, 0x20_00a1] {
            assert_eq!(attributes(attrs).map(shown), Ok(attrs));
        }
        for bad in [0x30, ATTR_TIMES, 0x40, 0x100, 0x10_0000, 1 << 40] {
            assert_eq!(attributes(bad), Err(Errno::EINVAL), "{bad:#x}");
        }
    }
}
