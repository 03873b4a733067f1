//! mount(2), umount2(2), pivot_root(2).

use super::names::{Names, path_arg};
use super::trees::propagation;
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::kernel::Current;
use crate::mm::PAGE_SIZE;
use crate::syscalls::Args;
use crate::vfs::{Kind, MountFlags, Path, Resolve};
use linux_raw_sys::general as c;

/// The upper half of flags that are none (MS_MGC_MSK).
const MAGIC_MASK: u32 = 0xffff_0000;
const MAGIC: u32 = 0xc0ed_0000;
/// How a mount's peers are set.
const KINDS: u32 = c::MS_SHARED | c::MS_PRIVATE | c::MS_SLAVE | c::MS_UNBINDABLE;

const FORCE: u32 = 1;
const DETACH: u32 = 2;
const EXPIRE: u32 = 4;
const NOFOLLOW: u32 = 8;

/// Only who administers what the mounts belong to changes them.
pub(super) fn may_mount(cur: &Current) -> Result<()> {
    if cur.cred().has_in(&cur.fs().namespace().owner, Caps::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}

/// A string argument that may be missing.
fn string(cur: &Current, addr: u64) -> Result<Vec<u8>> {
    if addr == 0 { Ok(Vec::new()) } else { path_arg(cur, addr) }
}

/// A page of options, as far as it is there, up to its end.
fn options(cur: &Current, addr: u64) -> Result<Vec<u8>> {
    if addr == 0 {
        return Ok(Vec::new());
    }
    let mut page = vec![0; PAGE_SIZE as usize];
    let read = cur.mm().read_some(addr, &mut page)?;
    page.truncate(page[..read].iter().position(|byte| *byte == 0).unwrap_or(read.min(page.len() - 1)));
    Ok(page)
}

/// A place by name, with what is mounted on it.
fn place(names: &Names, name: &[u8], how: Resolve) -> Result<Path> {
    names.lookup().resolve(None, name, how).map(Path::cross)
}

/// What a mount is to forbid, of `MS_*` flags.
fn mount_flags(flags: u32) -> MountFlags {
    let mut mount = MountFlags::empty();
    for (bit, flag) in [
        (c::MS_RDONLY, MountFlags::RDONLY),
        (c::MS_NOSUID, MountFlags::NOSUID),
        (c::MS_NODEV, MountFlags::NODEV),
        (c::MS_NOEXEC, MountFlags::NOEXEC),
        (c::MS_NOATIME, MountFlags::NOATIME),
        (c::MS_NODIRATIME, MountFlags::NODIRATIME),
        (c::MS_NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
    ] {
        mount.set(flag, flags & bit != 0);
    }
    if flags & c::MS_STRICTATIME != 0 {
        mount = (mount - MountFlags::NOATIME) | MountFlags::STRICTATIME;
    }
    mount
}

/// mount(2)
pub(crate) fn mount(cur: &mut Current, args: &Args) -> Result<u64> {
    let fstype = string(cur, args.addr(2))?;
    let source = string(cur, args.addr(0))?;
    let data = options(cur, args.addr(4))?;
    let name = path_arg(cur, args.addr(1))?;
    let mut flags = args.uint(3);
    if flags & MAGIC_MASK == MAGIC {
        flags &= !MAGIC_MASK;
    }
    let names = Names::of(cur);
    let place = place(&names, &name, Resolve::FOLLOW)?;
    may_mount(cur)?;
    if flags & c::MS_REMOUNT != 0 {
        remount(cur, &names, &place, flags, &data)?;
    } else if flags & c::MS_BIND != 0 {
        let from = named(&names, &source)?;
        names.fs.namespace().bind(&from, &place, flags & c::MS_REC != 0)?;
    } else if flags & KINDS != 0 {
        set_propagation(&names, &place, flags)?;
    } else if flags & c::MS_MOVE != 0 {
        names.fs.namespace().relocate(&named(&names, &source)?, &place)?;
    } else {
        new(cur, &names, &place, (&fstype, &source), flags, &data)?;
    }
    Ok(0)
}

/// What a bind or a move is of.
fn named(names: &Names, source: &[u8]) -> Result<Path> {
    if source.is_empty() {
        return Err(Errno::EINVAL);
    }
    place(names, source, Resolve::FOLLOW)
}

/// A mount of the caller's, by its root.
fn own_mount(names: &Names, place: &Path) -> Result<()> {
    if place.is_mount_root() && names.fs.namespace().has(&place.mount) { Ok(()) } else { Err(Errno::EINVAL) }
}

fn remount(cur: &Current, names: &Names, place: &Path, flags: u32, data: &[u8]) -> Result<()> {
    own_mount(names, place)?;
    let mut wanted = mount_flags(flags);
    // Who says nothing of times leaves them as they are.
    let times = MountFlags::TIMES;
    if flags & (c::MS_NOATIME | c::MS_NODIRATIME | c::MS_RELATIME | c::MS_STRICTATIME) == 0 {
        wanted = (wanted - times) | (place.mount.flags() & times);
    }
    place.mount.may_become(wanted)?;
    if flags & c::MS_BIND == 0 {
        // The file system itself is its owner's to change, not every mount's.
        if !names.cred.has_in(place.mount.root.sb.owner(), Caps::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        cur.kernel.filesystems()?.reconfigure(&place.mount.root, data)?;
        place.mount.root.sb.set_read_only(flags & c::MS_RDONLY != 0);
    }
    place.mount.set_flags(wanted);
    names.fs.namespace().changed();
    Ok(())
}

fn set_propagation(names: &Names, place: &Path, flags: u32) -> Result<()> {
    own_mount(names, place)?;
    let kind = propagation((flags & !(c::MS_REC | c::MS_SILENT)).into())?.ok_or(Errno::EINVAL)?;
    names.fs.namespace().set_propagation(&place.mount, kind, flags & c::MS_REC != 0);
    Ok(())
}

fn new(
    cur: &Current,
    names: &Names,
    place: &Path,
    (fstype, source): (&[u8], &[u8]),
    flags: u32,
    data: &[u8],
) -> Result<()> {
    if fstype.is_empty() {
        return Err(Errno::EINVAL);
    }
    let systems = cur.kernel.filesystems()?;
    let root = systems.make(fstype, data, names.caller)?;
    let wanted = mount_flags(flags);
    // Nothing is mounted twice at one place.
    if place.is_mount_root() && std::sync::Arc::ptr_eq(&place.mount.root, &root) {
        return Err(Errno::EBUSY);
    }
    let source = if source.is_empty() { "none".into() } else { String::from_utf8_lossy(source) };
    let mount = names.fs.namespace().mount(place, root, &source, wanted)?;
    if systems.find(fstype).is_some_and(|(_, fresh)| fresh) {
        mount.root.sb.set_read_only(flags & c::MS_RDONLY != 0);
    }
    Ok(())
}

/// umount2(2)
pub(crate) fn umount2(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = args.uint(1);
    if flags & !(FORCE | DETACH | EXPIRE | NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    may_mount(cur)?;
    let name = path_arg(cur, args.addr(0))?;
    let names = Names::of(cur);
    let how = if flags & NOFOLLOW != 0 { Resolve::empty() } else { Resolve::FOLLOW };
    let place = place(&names, &name, how)?;
    own_mount(&names, &place)?;
    if flags & FORCE != 0 && !names.cred.has(Caps::SYS_ADMIN) {
        return Err(if place.mount.is_locked() { Errno::EINVAL } else { Errno::EPERM });
    }
    let ns = names.fs.namespace();
    let result = if flags & EXPIRE != 0 {
        if flags & (FORCE | DETACH) != 0 {
            return Err(Errno::EINVAL);
        }
        ns.expire(&place.mount, 1)
    } else if place.same(&names.fs.root()) && flags & DETACH == 0 {
        Err(Errno::EBUSY)
    } else {
        ns.unmount(&place.mount, flags & DETACH != 0, 1)
    };
    result.map(|()| 0)
}

/// pivot_root(2)
pub(crate) fn pivot_root(cur: &mut Current, args: &Args) -> Result<u64> {
    may_mount(cur)?;
    let names = Names::of(cur);
    let directory = |name: &[u8]| {
        let path = place(&names, name, Resolve::FOLLOW)?;
        if path.dentry.kind() == Kind::Dir { Ok(path) } else { Err(Errno::ENOTDIR) }
    };
    let new = directory(&path_arg(cur, args.addr(0))?)?;
    let put_old = directory(&path_arg(cur, args.addr(1))?)?;
    let root = names.fs.root();
    names.fs.namespace().pivot(&root, &new, &put_old)?;
    // Whoever was at the old root is at the new one (pivot_root(2), "NOTES").
    let all: Vec<_> = cur.kernel.tree.lock().tasks().filter_map(|task| task.fs()).collect();
    for fs in all {
        fs.pivot(&root, &new);
    }
    Ok(0)
}
