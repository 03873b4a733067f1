//! Mounts: which file system's root hides which directory. Who sees which is [`super::namespace`]'s.

use super::{Dentry, Kind, Stat};
use crate::abi::{Errno, Result};
use crate::sync::{Lock, Rank};
use linux_raw_sys::general as c;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

bitflags::bitflags! {
    /// What a mount forbids.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct MountFlags: u32 {
        /// No changes.
        const RDONLY = 1;
        /// Set-user-ID bits are ignored.
        const NOSUID = 2;
        /// Device nodes cannot be opened.
        const NODEV = 4;
        /// Programs cannot be executed.
        const NOEXEC = 8;
        /// Reading changes no times.
        const NOATIME = 0x10;
        /// Reading directories changes no times.
        const NODIRATIME = 0x20;
        /// Reading always changes times; else as relatime (mount(8)).
        const STRICTATIME = 0x40;
        /// Symbolic links are not followed.
        const NOSYMFOLLOW = 0x80;
    }
}

impl MountFlags {
    /// What says when times change: one thing.
    pub const TIMES: MountFlags =
        MountFlags::NOATIME.union(MountFlags::NODIRATIME).union(MountFlags::STRICTATIME);
    /// What nobody takes back where it is kept.
    const KEPT: MountFlags =
        MountFlags::RDONLY.union(MountFlags::NOSUID).union(MountFlags::NODEV).union(MountFlags::NOEXEC);
}

/// A file system attached somewhere.
pub struct Mount {
    /// Number shown in mountinfo and statx.
    pub id: u64,
    /// The directory (or file) that appears.
    pub root: Arc<Dentry>,
    /// What /proc/mounts calls its device.
    pub source: String,
    flags: AtomicU32,
    place: Lock<Option<Path>>,
    /// What is mounted on it, by the address of the dentry that is covered.
    covered: Lock<BTreeMap<usize, Arc<Mount>>>,
    sharing: Lock<Sharing>,
    /// umount2(MNT_EXPIRE) was called, and nobody has used it since.
    pub(super) expiring: AtomicBool,
    /// It hides what is below it, whatever the privileges of those who would see (MNT_LOCKED in Linux).
    locked: AtomicBool,
    /// What it forbids for good (MNT_LOCK_READONLY and its like), and whether that is decided: then its times are, too.
    kept: AtomicU32,
}

/// In [`Mount::kept`]: it is decided.
const DECIDED: u32 = 1 << 31;

/// Whom a mount tells of what is mounted on it, and who tells it (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// The peer group; 0 for none.
    pub group: u64,
    /// The peer group that it is a slave of; 0 for none.
    pub master: u64,
    /// It cannot be bound elsewhere.
    pub unbindable: bool,
}

impl Mount {
    /// A mount not attached anywhere (the root, or the home of pipes).
    pub fn new(id: u64, root: Arc<Dentry>, source: &str, flags: MountFlags) -> Arc<Mount> {
        root.sb.mounted();
        Arc::new(Mount {
            id,
            root,
            source: source.to_owned(),
            flags: AtomicU32::new(flags.bits()),
            place: Lock::new(Rank::MountPlace, None),
            covered: Lock::new(Rank::MountCovered, BTreeMap::new()),
            sharing: Lock::new(Rank::MountSharing, Sharing::default()),
            expiring: AtomicBool::new(false),
            locked: AtomicBool::new(false),
            kept: AtomicU32::new(0),
        })
    }

    /// Whom it tells, and who tells it.
    pub fn sharing(&self) -> Sharing {
        *self.sharing.lock()
    }

    pub(super) fn set_sharing(&self, sharing: Sharing) {
        *self.sharing.lock() = sharing;
    }

    /// What is mounted on `dentry` of it.
    pub(super) fn on(&self, dentry: &Arc<Dentry>) -> Option<Arc<Mount>> {
        self.covered.lock().get(&key(dentry)).cloned()
    }

    /// All that is mounted on it.
    pub(super) fn children(&self) -> Vec<Arc<Mount>> {
        self.covered.lock().values().cloned().collect()
    }

    /// Mounts it at `place`, where nothing is mounted.
    pub(super) fn attach(self: &Arc<Self>, place: Path) {
        place.dentry.set_mountpoint();
        place.mount.covered.lock().insert(key(&place.dentry), self.clone());
        *self.place.lock() = Some(place);
    }

    /// Takes it from where it is mounted.
    pub(super) fn detach(&self) {
        let Some(place) = self.place.lock().take() else { return };
        let taken = place.mount.covered.lock().remove(&key(&place.dentry));
        drop(taken);
    }

    /// Forgets where it is, and goes on to hide what it hides of the mount that it is on: that goes with it, and somebody may
    /// still have it.
    pub(super) fn leave(&self) {
        let place = self.place.lock().take();
        drop(place);
    }

    /// Forgets what is mounted on it and hides nothing for good, and where it is: the end of its namespace.
    pub(super) fn dissolve(&self) {
        let mut covered = self.covered.lock();
        let (kept, gone) =
            std::mem::take(&mut *covered).into_iter().partition(|(_, mount)| mount.is_locked());
        *covered = kept;
        drop(covered);
        drop::<BTreeMap<usize, Arc<Mount>>>(gone);
        self.leave();
    }

    /// What it forbids.
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.flags.load(Ordering::Relaxed))
    }

    /// Changes what it forbids.
    pub fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }

    /// Whether nobody may take it away from what it hides.
    pub fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Relaxed)
    }

    /// Says whether anybody may.
    pub fn set_locked(&self, locked: bool) {
        self.locked.store(locked, Ordering::Relaxed);
    }

    pub(super) fn kept(&self) -> u32 {
        self.kept.load(Ordering::Relaxed)
    }

    pub(super) fn set_kept(&self, kept: u32) {
        self.kept.store(kept, Ordering::Relaxed);
    }

    /// What it forbids now it forbids for good (mount_namespaces(7), "Restrictions on mount namespaces").
    pub(super) fn keep_flags(&self) {
        let now = (self.flags() & MountFlags::KEPT).bits();
        self.kept.fetch_or(now | DECIDED, Ordering::Relaxed);
    }

    /// Whether it may forbid these instead of what it forbids now.
    ///
    /// # Errors
    /// EPERM where it is to forbid something for good.
    pub fn may_become(&self, wanted: MountFlags) -> Result<()> {
        let kept = self.kept();
        let forbids = MountFlags::from_bits_truncate(kept & !DECIDED);
        let times = (wanted & MountFlags::TIMES) == (self.flags() & MountFlags::TIMES);
        if wanted.contains(forbids) && (kept & DECIDED == 0 || times) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// What another mount of the same must forbid for good that is to forbid `wanted`; none where that is less than this one
    /// forbids for good.
    pub(super) fn kept_by_another(&self, wanted: MountFlags) -> Option<u32> {
        let read_only = if self.root.sb.is_read_only() { MountFlags::RDONLY.bits() } else { 0 };
        let kept = (self.kept() | read_only) & (MountFlags::RDONLY.bits() | DECIDED);
        let shows = !MountFlags::from_bits_truncate(kept).difference(wanted).is_empty();
        let same_times = (wanted ^ self.flags()) & MountFlags::TIMES == MountFlags::empty();
        (!shows && (kept & DECIDED == 0 || same_times)).then_some(kept)
    }

    /// From here on it hears of its peers' changes, but tells nobody of its own.
    pub(super) fn hear_only(&self) {
        let mut sharing = self.sharing.lock();
        if sharing.group != 0 {
            *sharing = Sharing { group: 0, master: sharing.group, ..*sharing };
        }
    }

    /// Where it is attached.
    pub fn place(&self) -> Option<Path> {
        self.place.lock().clone()
    }

    /// Fails on a read-only mount.
    ///
    /// # Errors
    /// EROFS.
    pub fn writable(&self) -> Result<()> {
        let read_only = self.flags().contains(MountFlags::RDONLY) || self.root.sb.is_read_only();
        if read_only { Err(Errno::EROFS) } else { Ok(()) }
    }
}

impl Drop for Mount {
    /// Open files and working directories keep their mount: with the last one nobody can reach the file system any more.
    fn drop(&mut self) {
        if let Some(ruins) = self.root.sb.unmounted() {
            ruins.leave(self.root.clone());
        }
    }
}

/// What covered places are told apart by.
fn key(dentry: &Arc<Dentry>) -> usize {
    Arc::as_ptr(dentry) as usize
}

/// A name in the tree of mounts.
#[derive(Clone)]
pub struct Path {
    /// Mount it was reached through.
    pub mount: Arc<Mount>,
    /// Where on it.
    pub dentry: Arc<Dentry>,
}

impl Path {
    /// Whether both name the same place.
    pub fn same(&self, other: &Path) -> bool {
        Arc::ptr_eq(&self.dentry, &other.dentry) && Arc::ptr_eq(&self.mount, &other.mount)
    }

    /// Attributes, device and mount included.
    pub fn stat(&self) -> Stat {
        let mut stat = self.dentry.inode.stat();
        if stat.dev == 0 {
            stat.dev = self.dentry.sb.dev;
        }
        stat.mount_id = self.mount.id;
        stat
    }

    /// Another name below the same mount.
    pub fn with(&self, dentry: Arc<Dentry>) -> Path {
        Path { mount: self.mount.clone(), dentry }
    }

    /// Whether this is the root of its mount.
    pub fn is_mount_root(&self) -> bool {
        Arc::ptr_eq(&self.dentry, &self.mount.root)
    }

    /// What is mounted on top of it, all the way.
    #[must_use]
    pub fn cross(self) -> Path {
        let mut at = self;
        while at.dentry.is_mountpoint()
            && let Some(on) = at.mount.on(&at.dentry)
        {
            at = Path { dentry: on.root.clone(), mount: on };
        }
        at
    }

    /// Whether it is `above` or lies below it, over mounts.
    pub fn is_below(&self, above: &Path) -> bool {
        self.display_from(above).0
    }

    /// One step up, out of mounts, not above `root`.
    ///
    /// # Errors
    /// ENOENT where that is not of the mount: the directory was moved out of the part that is mounted.
    pub fn up(&self, root: &Path) -> Result<Path> {
        let mut at = self.clone();
        loop {
            if at.same(root) {
                return Ok(at);
            }
            if !at.is_mount_root() {
                let Some(parent) = at.dentry.parent() else { return Ok(at) };
                let top = &at.mount.root;
                // Where all of a file system is mounted, everything is inside.
                if top.parent().is_some() && !parent.is_inside(top) {
                    return Err(Errno::ENOENT);
                }
                return Ok(at.with(parent));
            }
            match at.mount.place() {
                Some(place) => at = place,
                None => return Ok(at),
            }
        }
    }

    /// The name as seen from `root`, without a deletion mark; `None` in front when `root` is not above it.
    pub fn display_from(&self, root: &Path) -> (bool, Vec<u8>) {
        // A file that is all of its mount (memfd) is called by its own name, whatever the root.
        if self.is_mount_root() && self.dentry.kind() != Kind::Dir && self.mount.place().is_none() {
            return (false, self.dentry.place().1.to_vec());
        }
        let mut parts: Vec<Arc<[u8]>> = Vec::new();
        let mut at = self.clone();
        let reached = loop {
            if at.same(root) {
                break true;
            }
            if at.is_mount_root() {
                match at.mount.place() {
                    Some(place) => at = place,
                    None => break false,
                }
                continue;
            }
            let (parent, name) = at.dentry.place();
            match parent {
                Some(parent) => {
                    parts.push(name);
                    at = at.with(parent);
                }
                None => {
                    // Something that never had a place: pipes and sockets are called by their own name.
                    if parts.is_empty() && at.dentry.kind() != Kind::Dir {
                        return (false, name.to_vec());
                    }
                    break false;
                }
            }
        };
        (reached, absolute(&parts))
    }

    /// The name as /proc shows it: with " (deleted)" where it has gone.
    pub fn display(&self, root: &Path) -> Vec<u8> {
        let mut text = self.display_from(root).1;
        if self.dentry.is_dead() {
            text.extend_from_slice(b" (deleted)");
        }
        text
    }
}

/// The path that consists of `parts`, the last one first.
pub(super) fn absolute(parts: &[Arc<[u8]>]) -> Vec<u8> {
    let mut text = Vec::new();
    for part in parts.iter().rev() {
        text.push(b'/');
        text.extend_from_slice(part);
    }
    if text.is_empty() {
        text.push(b'/');
    }
    text
}

/// As statfs(2) says it.
const ST_RELATIME: u64 = 0x1000;

/// `ST_*` flags of statfs(2) for a mount.
pub fn statfs_flags(flags: MountFlags) -> u64 {
    // ST_VALID: what Linux sets on every mount (statfs(2)).
    let mut bits = 0x20;
    if !flags.intersects(MountFlags::NOATIME | MountFlags::STRICTATIME) {
        bits |= ST_RELATIME;
    }
    for (flag, bit) in
        [(MountFlags::NOATIME, 0x400), (MountFlags::NODIRATIME, 0x800), (MountFlags::NOSYMFOLLOW, 0x2000)]
    {
        if flags.contains(flag) {
            bits |= bit;
        }
    }
    for (flag, bit) in [
        (MountFlags::RDONLY, c::MS_RDONLY),
        (MountFlags::NOSUID, c::MS_NOSUID),
        (MountFlags::NODEV, c::MS_NODEV),
        (MountFlags::NOEXEC, c::MS_NOEXEC),
    ] {
        if flags.contains(flag) {
            bits |= u64::from(bit);
        }
    }
    bits
}
