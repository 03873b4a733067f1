//! Mounts: which file system's root hides which directory.

use super::{AbstractNames, Dentry, Kind, Stat, notify};
use crate::abi::{Errno, Result};
use crate::sync::Lock;
use linux_raw_sys::general as c;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

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
    }
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
}

impl Mount {
    /// A mount not attached anywhere (the root, or the home of pipes).
    pub fn new(id: u64, root: Arc<Dentry>, source: &str, flags: MountFlags) -> Arc<Mount> {
        Arc::new(Mount {
            id,
            root,
            source: source.to_owned(),
            flags: AtomicU32::new(flags.bits()),
            place: Lock::new(None),
        })
    }

    /// What it forbids.
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.flags.load(Ordering::Relaxed))
    }

    /// Changes what it forbids.
    pub fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
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
        if self.flags().contains(MountFlags::RDONLY) { Err(Errno::EROFS) } else { Ok(()) }
    }
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

    /// One step up, out of mounts, not above `root`.
    pub fn up(&self, root: &Path) -> Path {
        let mut at = self.clone();
        loop {
            if at.same(root) {
                return at;
            }
            if !at.is_mount_root() {
                return match at.dentry.parent() {
                    Some(parent) => at.with(parent),
                    None => at,
                };
            }
            match at.mount.place() {
                Some(place) => at = place,
                None => return at,
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
        let mut text = Vec::new();
        for part in parts.iter().rev() {
            text.push(b'/');
            text.extend_from_slice(part);
        }
        if text.is_empty() {
            text.push(b'/');
        }
        (reached, text)
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

/// All mounts that a group of tasks sees.
pub struct Namespace {
    root: Path,
    mounts: Lock<Vec<Arc<Mount>>>,
    next: AtomicU64,
    /// Sockets bound to names that are no files.
    pub sockets: AbstractNames,
    /// How much each user watches.
    pub watchers: Arc<notify::Users>,
    /// The last number that a rename was given for its two events.
    cookie: AtomicU32,
}

impl Namespace {
    /// A namespace whose root is the root of `mount`.
    pub fn new(mount: Arc<Mount>) -> Arc<Namespace> {
        let root = Path { dentry: mount.root.clone(), mount: mount.clone() };
        Arc::new(Namespace {
            root,
            next: AtomicU64::new(mount.id + 1),
            mounts: Lock::new(vec![mount]),
            sockets: AbstractNames::default(),
            watchers: Arc::default(),
            cookie: AtomicU32::new(0),
        })
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Mounts `root` at `place`.
    ///
    /// # Errors
    /// ENOTDIR if exactly one of the two is a directory.
    pub fn mount(
        &self,
        place: &Path,
        root: Arc<Dentry>,
        source: &str,
        flags: MountFlags,
    ) -> Result<Arc<Mount>> {
        if (place.dentry.kind() == Kind::Dir) != (root.kind() == Kind::Dir) {
            return Err(Errno::ENOTDIR);
        }
        let place = place.with(place.dentry.keep());
        let mount = Mount::new(self.next.fetch_add(1, Ordering::Relaxed), root, source, flags);
        place.dentry.set_mountpoint();
        *mount.place.lock() = Some(place);
        self.mounts.lock().push(mount.clone());
        Ok(mount)
    }

    /// Takes a mount away.
    ///
    /// # Errors
    /// EINVAL if it is the root or not here, EBUSY if something is mounted on it.
    pub fn unmount(&self, mount: &Arc<Mount>) -> Result<()> {
        let mut mounts = self.mounts.lock();
        if mounts.iter().any(|m| m.place().is_some_and(|place| Arc::ptr_eq(&place.mount, mount))) {
            return Err(Errno::EBUSY);
        }
        let at = mounts.iter().position(|m| Arc::ptr_eq(m, mount)).ok_or(Errno::EINVAL)?;
        if at == 0 {
            return Err(Errno::EINVAL);
        }
        mounts.remove(at);
        // The detached mount keeps its place: whoever still works below finds the way up.
        Ok(())
    }

    /// A number for the two events of a rename.
    pub(super) fn next_cookie(&self) -> u32 {
        self.cookie.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// What is mounted on top of `path`, all the way.
    pub fn cross(&self, path: Path) -> Path {
        let mut at = path;
        while at.dentry.is_mountpoint() {
            let mounts = self.mounts.lock();
            let Some(on) = mounts.iter().rev().find(|m| m.place.lock().as_ref().is_some_and(|p| p.same(&at)))
            else {
                break;
            };
            at = Path { dentry: on.root.clone(), mount: on.clone() };
        }
        at
    }

    /// Whether something is mounted exactly on this dentry.
    pub fn is_busy(&self, dentry: &Arc<Dentry>) -> bool {
        dentry.is_mountpoint()
            && self
                .mounts
                .lock()
                .iter()
                .any(|m| m.place.lock().as_ref().is_some_and(|p| Arc::ptr_eq(&p.dentry, dentry)))
    }

    /// All mounts, in the order they were made.
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        self.mounts.lock().clone()
    }

    /// The text of /proc/mounts or /proc/PID/mountinfo as seen from `root`.
    pub fn show(&self, root: &Path, info: bool) -> Vec<u8> {
        let mut text = Vec::new();
        for mount in self.mounts() {
            let here = Path { dentry: mount.root.clone(), mount: mount.clone() };
            let (reached, at) = here.display_from(root);
            if !reached {
                continue;
            }
            let at = escape(&at);
            let mut options =
                String::from(if mount.flags().contains(MountFlags::RDONLY) { "ro" } else { "rw" });
            for (flag, name) in [
                (MountFlags::NOSUID, ",nosuid"),
                (MountFlags::NODEV, ",nodev"),
                (MountFlags::NOEXEC, ",noexec"),
            ] {
                if mount.flags().contains(flag) {
                    options.push_str(name);
                }
            }
            options.push_str(",relatime");
            let fstype = mount.root.sb.fstype;
            let line = if info {
                let parent = mount.place().map_or(mount.id, |place| place.mount.id);
                let dev = mount.root.sb.dev;
                let (major, minor) = (super::stat::major(dev), super::stat::minor(dev));
                format!(
                    "{} {parent} {major}:{minor} / {at} {options} - {fstype} {} {}\n",
                    mount.id,
                    mount.source,
                    if mount.flags().contains(MountFlags::RDONLY) { "ro" } else { "rw" }
                )
            } else {
                format!("{} {at} {fstype} {options} 0 0\n", mount.source)
            };
            text.extend_from_slice(line.as_bytes());
        }
        text
    }
}

/// Spaces and the like in octal, as in /proc/mounts.
fn escape(name: &[u8]) -> String {
    let mut text = String::new();
    for &byte in name {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => text.push_str(&format!("\\{byte:03o}")),
            _ => text.push(byte as char),
        }
    }
    text
}

/// `ST_*` flags of statfs(2) for a mount.
pub fn statfs_flags(flags: MountFlags) -> u64 {
    // ST_VALID | ST_RELATIME: what Linux sets on every mount (statfs(2)).
    let mut bits = 0x20 | 0x1000;
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
