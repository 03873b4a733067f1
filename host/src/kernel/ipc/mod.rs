//! System V IPC and POSIX message queues of one namespace.
//!
//! | module | what |
//! |---|---|
//! | [`ids`] | identifiers and keys |
//! | [`perm`] | who may do what |
//! | [`limits`] | `/proc/sys/kernel/{shm*,sem,msg*}`, and a bound on what all objects take |
//! | [`shm`], [`sem`], [`undo`], [`msg`] | the objects of System V |
//! | `operation` | what semop(2) does to a set |
//! | [`mqueue`], [`mqnames`] | POSIX message queues, their names and calls |
//!
//! An [`IpcNamespace`] is a value that the kernel hands to a task; tasks share it by reference. System V objects belong to
//! nobody: they live until they are removed or their namespace goes.
//!
//! # Lock order
//! A kind's table of ids > an object > wait queues; those of shared memory are taken with an address space's state locked.
//! An object is never locked while user memory is copied.

pub mod ids;
pub mod limits;
pub mod mqnames;
pub mod mqueue;
pub mod msg;
mod operation;
pub mod perm;
pub mod sem;
pub mod shm;
pub mod undo;

use crate::cred::userns::UserNs;
use crate::sync::{Lock, Rank};
use ids::Ids;
use limits::{Budget, Limits};
use std::sync::Arc;

/// The objects that tasks of one IPC namespace see.
pub struct IpcNamespace {
    /// The user namespace that it belongs to.
    pub owner: UserNs,
    /// What may be changed below `/proc/sys/kernel`.
    pub limits: Lock<Limits>,
    pub(super) budget: Arc<Budget>,
    shm: Arc<shm::Segments>,
    sem: Lock<Ids<sem::SemSet>>,
    msg: Lock<Ids<msg::Queue>>,
    mqueues: Arc<mqnames::Names>,
}

impl IpcNamespace {
    /// One without objects, with Linux's limits.
    pub fn new() -> Arc<Self> {
        Self::make(UserNs::FIRST, Arc::default())
    }

    /// Another, which belongs to the user namespace `owner`. What its objects take counts here.
    pub fn beside(&self, owner: &UserNs) -> Arc<Self> {
        Self::make(owner.clone(), self.budget.clone())
    }

    fn make(owner: UserNs, budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(IpcNamespace {
            owner,
            limits: Lock::new(Rank::IpcLimits, Limits::default()),
            budget,
            shm: Arc::default(),
            sem: Lock::new(Rank::SemIds, Ids::default()),
            msg: Lock::new(Rank::MsgIds, Ids::default()),
            mqueues: mqnames::Names::new(),
        })
    }
}

/// Seconds since the epoch, as objects note times.
fn now() -> i64 {
    (crate::time::realtime_ns() / crate::time::NSEC_PER_SEC) as i64
}

/// The flags of the three `*get` calls beside the permissions.
pub mod flags {
    /// Make the object if there is none.
    pub const CREAT: u32 = 0o1000;
    /// Fail if there is one.
    pub const EXCL: u32 = 0o2000;
    /// Do not wait.
    pub const NOWAIT: u32 = 0o4000;
}
