//! The namespaces that a task is in (namespaces(7)), but for its mounts, which come with its root and working directory
//! ([`FsContext`](crate::vfs::FsContext)).

use super::ipc::IpcNamespace;
use super::{CloneFlags, Current, Uts};
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::net::Namespace as Network;
use crate::sync::{Lock, Rank};
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Those of which a task can have its own.
pub const OWN: CloneFlags =
    CloneFlags::NEWNS.union(CloneFlags::NEWUTS).union(CloneFlags::NEWIPC).union(CloneFlags::NEWNET);

/// The numbers of the first ones (linux/proc_ns.h); that of the first network is what it usually is.
const FIRST_UTS: u64 = 0xeffffffe;
const FIRST_IPC: u64 = 0xefffffff;
const FIRST_NETWORK: u64 = 0xf0000000;
/// Those of later ones begin here.
const LATER: u64 = 0xf0001000;

/// One namespace, and the number that /proc/PID/ns tells it by.
pub struct Numbered<T: ?Sized> {
    /// The number.
    pub number: u64,
    /// What is in it.
    pub of: Arc<T>,
}

impl<T: ?Sized> Clone for Numbered<T> {
    fn clone(&self) -> Self {
        Numbered { number: self.number, of: self.of.clone() }
    }
}

/// A task's namespaces.
#[derive(Clone)]
pub struct Namespaces {
    /// The host's names.
    pub uts: Numbered<Lock<Uts>>,
    /// System V objects and message queues.
    pub ipc: Numbered<IpcNamespace>,
    /// The network that its new sockets are in.
    pub network: Numbered<Network>,
    /// Where the numbers come from.
    next: Arc<AtomicU64>,
}

impl Namespaces {
    /// Those of the first task.
    pub(super) fn new(uts: &Arc<Lock<Uts>>, network: Arc<Network>) -> Namespaces {
        Namespaces {
            uts: Numbered { number: FIRST_UTS, of: uts.clone() },
            ipc: Numbered { number: FIRST_IPC, of: IpcNamespace::new() },
            network: Numbered { number: FIRST_NETWORK, of: network },
            next: Arc::new(AtomicU64::new(LATER)),
        }
    }

    fn number<T: ?Sized>(&self, of: Arc<T>) -> Numbered<T> {
        Numbered { number: self.next.fetch_add(1, Ordering::Relaxed), of }
    }

    /// The same, but for new ones of the kinds in `flags`. A new network reaches nothing but itself.
    #[must_use]
    pub(super) fn with_new(&self, flags: CloneFlags) -> Namespaces {
        let mut new = self.clone();
        if flags.contains(CloneFlags::NEWUTS) {
            let names = self.uts.of.lock().clone();
            new.uts = self.number(Arc::new(Lock::new(Rank::Uts, names)));
        }
        if flags.contains(CloneFlags::NEWIPC) {
            new.ipc = self.number(IpcNamespace::new());
        }
        if flags.contains(CloneFlags::NEWNET) {
            new.network = self.number(Network::new(None));
        }
        new
    }
}

impl Current {
    /// Whether the caller may have namespaces of its own of the kinds in `flags`.
    ///
    /// # Errors
    /// EINVAL for kinds that there is one of; EPERM without CAP_SYS_ADMIN.
    pub(super) fn may_have(&self, flags: CloneFlags) -> Result<()> {
        let wanted = flags.intersection(super::NAMESPACES);
        if !OWN.contains(wanted) {
            return Err(Errno::EINVAL);
        }
        if !wanted.is_empty() && !self.cred().has(Caps::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// Enters new namespaces of the kinds in `flags` (unshare(2)).
    ///
    /// # Errors
    /// As [`may_have`](Self::may_have); ENOSPC where there would be too many mounts.
    pub fn unshare_namespaces(&mut self, flags: CloneFlags) -> Result<()> {
        self.may_have(flags)?;
        if flags.contains(CloneFlags::NEWNS) {
            let fs = self.fs().in_own_namespace()?;
            self.set_fs(fs);
        }
        if flags.contains(CloneFlags::NEWIPC) {
            // What the task undoes at its end is of the namespace that it leaves.
            self.task.leave_undo_list();
        }
        let new = self.task.namespaces().with_new(flags);
        let old = core::mem::replace(&mut self.task.resources.lock().namespaces, new);
        // What goes with them may take long.
        drop(old);
        Ok(())
    }
}
