//! A task's view of the tree: root, working directory, umask.

use super::{Namespace, Path};
use crate::abi::Result;
use crate::cred::Cred;
use crate::sync::{Lock, Rank};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Root, working directory and umask; shared between tasks by CLONE_FS.
pub struct FsContext {
    ns: Arc<Namespace>,
    places: Lock<Places>,
    umask: AtomicU32,
}

#[derive(Clone)]
struct Places {
    root: Path,
    cwd: Path,
}

impl FsContext {
    /// The context of a first program: at the root of `ns`.
    pub fn new(ns: Arc<Namespace>) -> Arc<FsContext> {
        let root = ns.root().cross();
        let places = Lock::new(Rank::FsPlaces, Places { root: root.clone(), cwd: root });
        Arc::new(FsContext { ns, places, umask: AtomicU32::new(0o022) })
    }

    /// The same at other places, of another namespace perhaps.
    pub fn at(&self, ns: Arc<Namespace>, root: Path, cwd: Path) -> Arc<FsContext> {
        let places = Lock::new(Rank::FsPlaces, Places { root, cwd });
        Arc::new(FsContext { ns, places, umask: AtomicU32::new(self.umask()) })
    }

    /// The same in a copy of the mounts (CLONE_NEWNS), which is `maker`'s and belongs to his user namespace.
    ///
    /// # Errors
    /// ENOSPC where there would be too many mounts.
    pub fn in_own_namespace(&self, maker: &Cred) -> Result<Arc<FsContext>> {
        let (ns, [root, cwd]) = self.ns.copy([self.root(), self.cwd()], maker)?;
        Ok(self.at(ns, root, cwd))
    }

    /// Goes where `new` is with what was at `old` (pivot_root(2)).
    pub fn pivot(&self, old: &Path, new: &Path) {
        let mut places = self.places.lock();
        let Places { root, cwd } = &mut *places;
        for place in [root, cwd] {
            if place.same(old) {
                *place = new.clone();
            }
        }
    }

    /// A copy that is changed independently (fork).
    pub fn fork(&self) -> Arc<FsContext> {
        let places = Lock::new(Rank::FsPlaces, self.places.lock().clone());
        Arc::new(FsContext { ns: self.ns.clone(), places, umask: AtomicU32::new(self.umask()) })
    }

    /// The mounts it sees.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.ns
    }

    /// The root directory.
    pub fn root(&self) -> Path {
        self.places.lock().root.clone()
    }

    /// The working directory.
    pub fn cwd(&self) -> Path {
        self.places.lock().cwd.clone()
    }

    /// Changes the root directory (chroot).
    pub fn set_root(&self, root: Path) {
        self.places.lock().root = root;
    }

    /// Changes the working directory.
    pub fn set_cwd(&self, cwd: Path) {
        self.places.lock().cwd = cwd;
    }

    /// Permission bits that new files do not get.
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }

    /// Sets the umask and returns the old one.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Ordering::Relaxed)
    }
}
