//! File system instances.

use super::StatFs;
use super::caches::Miss;
use super::quota::{Count, Quota};
use super::ruins::Ruins;
use crate::abi::{Errno, Result};
use crate::arena::ledger;
use crate::cred::userns::UserNs;
use crate::sync::{Lock, Rank};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// What a name with nothing to it takes, bytes.
pub(super) const LEAST: u64 = 1024;

/// A file system instance.
pub struct Superblock {
    /// `st_dev` of its files.
    pub dev: u64,
    /// Type name, as in /proc/mounts.
    pub fstype: &'static str,
    /// Magic number (statfs(2)).
    pub magic: u64,
    /// Entries come and go by themselves (/proc): names are looked up in the inode every time.
    pub volatile: bool,
    /// Names are the host's: they are asked for every time, and made, removed and renamed there
    /// ([`Through`](super::Through)).
    pub through: bool,
    /// Serialises rename and rmdir, so that ancestry does not change under them.
    pub rename: Lock<()>,
    /// Names that were looked for in vain and are remembered, oldest first; those that are remembered at all, where names are
    /// the host's.
    pub(super) missing: Lock<VecDeque<Miss>>,
    /// Watches on its inodes ([`notify`]).
    watches: AtomicU32,
    read_only: AtomicBool,
    /// How many mounts there are of it, and what its names are left to with the last.
    mounts: AtomicU32,
    ruins: OnceLock<Weak<Ruins>>,
    /// What it was made with, as /proc/mounts shows it: empty, or with a comma in front.
    pub options: Lock<String>,
    /// What it may hold, where that is less than all.
    pub quota: Option<Arc<Quota>>,
    /// The user namespace that it was mounted in, if not the first.
    owner: OnceLock<UserNs>,
}

/// Where a file system has its names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    /// In the tree of dentries.
    Kept,
    /// In directories that are asked every time.
    Volatile,
    /// On the host.
    Through,
}

impl Superblock {
    /// A file system with entries kept in the dentry tree.
    pub fn new(dev: u64, fstype: &'static str, magic: u64) -> Arc<Self> {
        Self::make(dev, fstype, magic, Names::Kept, None)
    }

    /// The same, with limits of its own.
    pub fn limited(dev: u64, fstype: &'static str, magic: u64, quota: Arc<Quota>) -> Arc<Self> {
        Self::make(dev, fstype, magic, Names::Kept, Some(quota))
    }

    /// A file system whose directories are asked every time.
    pub fn volatile(dev: u64, fstype: &'static str, magic: u64) -> Arc<Self> {
        Self::make(dev, fstype, magic, Names::Volatile, None)
    }

    /// A file system of the host's that is written through.
    pub fn through(dev: u64, fstype: &'static str, magic: u64) -> Arc<Self> {
        Self::make(dev, fstype, magic, Names::Through, None)
    }

    fn make(
        dev: u64,
        fstype: &'static str,
        magic: u64,
        names: Names,
        quota: Option<Arc<Quota>>,
    ) -> Arc<Self> {
        let (volatile, through) = (names == Names::Volatile, names == Names::Through);
        let (rename, watches) = (Lock::new(Rank::Rename, ()), AtomicU32::new(0));
        let (missing, read_only, options) = (
            Lock::new(Rank::Missing, VecDeque::new()),
            AtomicBool::new(false),
            Lock::new(Rank::MountOptions, String::new()),
        );
        Arc::new(Superblock {
            dev,
            fstype,
            magic,
            volatile,
            through,
            rename,
            missing,
            watches,
            read_only,
            mounts: AtomicU32::new(0),
            ruins: OnceLock::new(),
            options,
            quota,
            owner: OnceLock::new(),
        })
    }

    /// The user namespace that it belongs to. Devices on one that is not the first's are nobody's, and its programs act as
    /// others only there and below.
    pub fn owner(&self) -> &UserNs {
        self.owner.get().unwrap_or(&UserNs::FIRST)
    }

    /// Says that; to be said once, before anybody has it.
    pub fn set_owner(&self, owner: &UserNs) {
        if !owner.is_first() {
            let _first = self.owner.set(owner.clone());
        }
    }

    /// Whether files of these ids can be made on it.
    ///
    /// # Errors
    /// EOVERFLOW for ids that have no names where it was mounted.
    #[inline]
    pub fn can_hold(&self, uid: u32, gid: u32) -> Result<()> {
        if self.owner().knows(uid, gid) { Ok(()) } else { Err(Errno::EOVERFLOW) }
    }

    /// Whether nothing on it may change, whatever the mount.
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    /// Sets that.
    pub fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Ordering::Relaxed);
    }

    /// What is on it is to go with its last mount: nobody has its root beside those who mounted it.
    pub fn end_with_mounts(&self, ruins: &Arc<Ruins>) {
        let _first = self.ruins.set(Arc::downgrade(ruins));
    }

    /// Counts one more mount.
    pub(super) fn mounted(&self) {
        self.mounts.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one mount less; some: what is on it goes with that.
    pub(super) fn unmounted(&self) -> Option<Arc<Ruins>> {
        if self.mounts.fetch_sub(1, Ordering::AcqRel) == 1 { self.ruins.get()?.upgrade() } else { None }
    }

    /// Whether anything on it is watched.
    #[inline]
    pub(super) fn is_watched(&self) -> bool {
        self.watches.load(Ordering::Relaxed) != 0
    }

    /// Counts one more watch.
    pub(super) fn watch(&self) {
        self.watches.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts one watch less.
    pub(super) fn unwatch(&self) {
        self.watches.fetch_sub(1, Ordering::AcqRel);
    }

    /// What statfs(2) shows.
    pub fn statfs(&self) -> StatFs {
        let mut stat = StatFs { magic: self.magic, bsize: 4096, ..StatFs::default() };
        if !self.volatile {
            // All of them share what there is. A file of nothing takes about a kilobyte.
            (stat.blocks, stat.bfree) = (ledger::files_limit() / 4096, ledger::files_left() / 4096);
            (stat.files, stat.ffree) = (ledger::files_limit() / LEAST, ledger::files_left() / LEAST);
        }
        if let Some(quota) = &self.quota {
            let own = |count: &Count, of: &mut u64, free: &mut u64| {
                if let Some((limit, left)) = count.left() {
                    (*of, *free) = (limit, left.min(*free));
                }
            };
            own(&quota.blocks, &mut stat.blocks, &mut stat.bfree);
            own(&quota.inodes, &mut stat.files, &mut stat.ffree);
        }
        stat
    }
}
