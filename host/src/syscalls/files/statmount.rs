//! Mounts by number: statmount, listmount.
//!
//! Numbers of mounts are never used again here, so the unique ones (STATX_MNT_ID_UNIQUE) are the others with an offset.

use super::names::{Names, only, versioned};
use super::trees::shown;
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::kernel::Current;
use crate::syscalls::Args;
use crate::vfs::{Mount, Path, major, minor};
use linux_raw_sys::general as c;
use std::sync::Arc;
use zerocopy::{Immutable, IntoBytes};

/// Unique numbers are above this (MNT_UNIQUE_ID_OFFSET).
pub(super) const UNIQUE: u64 = 1 << 31;
/// `struct mnt_id_req` in its versions.
const REQUEST: usize = 24;
const REQUEST_WITH_NAMESPACE: usize = 32;
/// LSMT_ROOT: the caller's root directory.
const ROOT: u64 = u64::MAX;
const REVERSE: u32 = 1;
/// The most that are listed at once.
const MOST: u64 = 1_000_000;
/// Bytes of `struct statmount` without its strings.
const FIXED: usize = 512;

/// `struct mnt_id_req`
struct Request {
    id: u64,
    param: u64,
}

fn request(cur: &Current, addr: u64) -> Result<Request> {
    let size: u32 = cur.mm().read_val(addr)?;
    let given: [u8; REQUEST_WITH_NAMESPACE] = versioned(cur, addr, size as usize, REQUEST)?;
    let word = |i: usize| u64::from_ne_bytes(std::array::from_fn(|byte| given[i * 8 + byte]));
    // In front: the size, and room.
    if word(0) >> 32 != 0 {
        return Err(Errno::EINVAL);
    }
    let (id, param, namespace) = (word(1), word(2), word(3));
    if id <= UNIQUE {
        return Err(Errno::EINVAL);
    }
    let own = cur.fs().namespace().number;
    if namespace != 0 && namespace != own { Err(Errno::ENOENT) } else { Ok(Request { id, param }) }
}

/// A mount of the caller's by its unique number.
fn find(names: &Names, id: u64) -> Result<Arc<Mount>> {
    let mut all = names.fs.namespace().mounts().into_iter();
    all.find(|mount| mount.id + UNIQUE == id).ok_or(Errno::ENOENT)
}

fn top(mount: &Arc<Mount>) -> Path {
    Path { mount: mount.clone(), dentry: mount.root.clone() }
}

/// Whether the caller sees a place, or may know of it all the same.
fn may_know(names: &Names, place: &Path) -> Result<()> {
    let administers = names.cred.has_in(&names.fs.namespace().owner, Caps::SYS_ADMIN);
    if administers || place.is_below(&names.fs.root()) { Ok(()) } else { Err(Errno::EPERM) }
}

/// `struct statmount`
#[derive(Clone, Copy, Default, IntoBytes, Immutable)]
#[repr(C)]
struct Raw {
    size: u32,
    mnt_opts: u32,
    mask: u64,
    dev_major: u32,
    dev_minor: u32,
    sb_magic: u64,
    sb_flags: u32,
    fs_type: u32,
    mnt_id: u64,
    parent_id: u64,
    old_id: u32,
    old_parent_id: u32,
    attributes: u64,
    propagation: u64,
    peer_group: u64,
    master: u64,
    propagate_from: u64,
    mnt_root: u32,
    mnt_point: u32,
    namespace: u64,
    fs_subtype: u32,
    sb_source: u32,
    opt_num: u32,
    opt_array: u32,
    opt_sec_num: u32,
    opt_sec_array: u32,
    supported: u64,
}

/// What can be asked for.
const SUPPORTED: u32 = c::STATMOUNT_SB_BASIC
    | c::STATMOUNT_MNT_BASIC
    | c::STATMOUNT_PROPAGATE_FROM
    | c::STATMOUNT_MNT_ROOT
    | c::STATMOUNT_MNT_POINT
    | c::STATMOUNT_FS_TYPE
    | c::STATMOUNT_MNT_NS_ID
    | c::STATMOUNT_MNT_OPTS
    | c::STATMOUNT_SB_SOURCE
    | c::STATMOUNT_SUPPORTED_MASK;

/// What is told of a mount, and the strings that belong to it.
fn describe(names: &Names, mount: &Arc<Mount>, asked: u32) -> (Raw, Vec<u8>) {
    let asked = asked & SUPPORTED;
    let (sb, sharing) = (&mount.root.sb, mount.sharing());
    let parent = mount.place().map_or(mount.id, |place| place.mount.id);
    let mut raw = Raw { mask: asked.into(), ..Raw::default() };
    if asked & c::STATMOUNT_SB_BASIC != 0 {
        (raw.dev_major, raw.dev_minor) = (major(sb.dev), minor(sb.dev));
        (raw.sb_magic, raw.sb_flags) = (sb.magic, u32::from(sb.is_read_only()));
    }
    if asked & c::STATMOUNT_MNT_BASIC != 0 {
        (raw.mnt_id, raw.parent_id) = (mount.id + UNIQUE, parent + UNIQUE);
        (raw.old_id, raw.old_parent_id) = (mount.id as u32, parent as u32);
        raw.attributes = shown(mount.flags());
        let kinds = [
            (sharing.group != 0, c::MS_SHARED),
            (sharing.master != 0, c::MS_SLAVE),
            (sharing.unbindable, c::MS_UNBINDABLE),
        ];
        let held: u32 = kinds.iter().filter(|(is, _)| *is).map(|(_, kind)| kind).sum();
        raw.propagation = u64::from(if held == 0 { c::MS_PRIVATE } else { held });
        (raw.peer_group, raw.master) = (sharing.group, sharing.master);
    }
    if asked & c::STATMOUNT_PROPAGATE_FROM != 0 {
        raw.propagate_from = sharing.master;
    }
    if asked & c::STATMOUNT_MNT_NS_ID != 0 {
        raw.namespace = names.fs.namespace().number;
    }
    if asked & c::STATMOUNT_SUPPORTED_MASK != 0 {
        raw.supported = SUPPORTED.into();
    }
    let mut strings = Vec::new();
    let mut add = |bit: u32, text: &dyn Fn() -> Vec<u8>| {
        let at = strings.len() as u32;
        if asked & bit == 0 {
            return 0;
        }
        strings.extend(text());
        strings.push(0);
        at
    };
    raw.fs_type = add(c::STATMOUNT_FS_TYPE, &|| sb.fstype.as_bytes().to_vec());
    raw.mnt_root = add(c::STATMOUNT_MNT_ROOT, &|| mount.shown_root());
    raw.mnt_point = add(c::STATMOUNT_MNT_POINT, &|| top(mount).display(&names.fs.root()));
    raw.mnt_opts = add(c::STATMOUNT_MNT_OPTS, &|| sb.options.lock().trim_start_matches(',').into());
    raw.sb_source = add(c::STATMOUNT_SB_SOURCE, &|| mount.source.clone().into_bytes());
    (raw, strings)
}

/// statmount(2)
pub(crate) fn statmount(cur: &mut Current, args: &Args) -> Result<u64> {
    only(args.uint(3), 0)?;
    let request = request(cur, args.addr(0))?;
    let names = Names::of(cur);
    let mount = find(&names, request.id)?;
    may_know(&names, &top(&mount))?;
    let (mut raw, strings) = describe(&names, &mount, request.param as u32);
    let (addr, room) = (args.addr(1), args.size(2));
    raw.size = (FIXED + strings.len()) as u32;
    if !strings.is_empty() && FIXED + strings.len() > room {
        return Err(Errno::EOVERFLOW);
    }
    let mut fixed = raw.as_bytes().to_vec();
    fixed.resize(FIXED, 0);
    fixed.truncate(room.min(FIXED));
    cur.mm().write(addr, &fixed)?;
    if !strings.is_empty() {
        cur.mm().write(addr + FIXED as u64, &strings)?;
    }
    Ok(0)
}

/// listmount(2)
pub(crate) fn listmount(cur: &mut Current, args: &Args) -> Result<u64> {
    let flags = args.uint(3);
    only(flags, REVERSE)?;
    let (addr, room) = (args.addr(1), args.long(2) as u64);
    if room > MOST {
        return Err(Errno::EOVERFLOW);
    }
    let Request { id, param: last } = request(cur, args.addr(0))?;
    if last != 0 && last <= UNIQUE {
        return Err(Errno::EINVAL);
    }
    let names = Names::of(cur);
    let above = if id == ROOT { names.fs.root() } else { top(&find(&names, id)?) };
    may_know(&names, &above)?;
    let reverse = flags & REVERSE != 0;
    let mut all: Vec<(u64, Arc<Mount>)> =
        names.fs.namespace().mounts().into_iter().map(|mount| (mount.id + UNIQUE, mount)).collect();
    all.sort_unstable_by_key(|(id, _)| if reverse { !*id } else { *id });
    let behind = |id: u64| last == 0 || if reverse { id < last } else { id > last };
    let listed =
        |(number, mount): &(u64, Arc<Mount>)| *number != id && behind(*number) && top(mount).is_below(&above);
    let found: Vec<u64> =
        all.into_iter().filter(listed).map(|(id, _)| id).take(usize::try_from(room).unwrap_or(0)).collect();
    cur.mm().write(addr, found.as_bytes())?;
    Ok(found.len() as u64)
}
