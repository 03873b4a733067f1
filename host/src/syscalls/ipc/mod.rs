//! System V IPC: shared memory, semaphores, message queues; POSIX message queues.
//!
//! What the three of System V have in common: commands, `struct ipc64_perm`, and the text of the parameters.

pub(super) mod mqueue;
pub(super) mod msg;
pub(super) mod sem;
pub(super) mod shm;

use super::Args;
use crate::abi::ipc::RawPerm;
use crate::cred::{Cred, NO_ID};
use crate::kernel::ipc::perm::Perm;

/// Commands of `*ctl` (uapi/linux/ipc.h).
const IPC_RMID: i32 = 0;
const IPC_SET: i32 = 1;
const IPC_STAT: i32 = 2;
const IPC_INFO: i32 = 3;

/// What the structures begin with.
fn raw_perm(perm: &Perm, cred: &Cred) -> RawPerm {
    let Perm { key, id, mode, .. } = *perm;
    let ((uid, gid), (cuid, cgid)) =
        (cred.user_ns.show((perm.uid, perm.gid)), cred.user_ns.show((perm.cuid, perm.cgid)));
    RawPerm { key, uid, gid, cuid, cgid, mode, seq: (id >> 15) as u16, pad: [0; 3], unused: [0; 2] }
}

/// The owner that IPC_SET takes of one: nobody where the caller knows none by that name.
fn owner(raw: &RawPerm, cred: &Cred) -> (u32, u32) {
    (cred.user_ns.uid(raw.uid).unwrap_or(NO_ID), cred.user_ns.gid(raw.gid).unwrap_or(NO_ID))
}

/// How a status command names its object, whether its permissions are asked about, and what it returns.
#[derive(Clone, Copy)]
struct StatusOf {
    by_index: bool,
    checked: bool,
}

impl StatusOf {
    /// `IPC_STAT`, or a kind's `*_STAT` and `*_STAT_ANY`.
    fn command(command: i32, stat: i32, any: i32) -> Option<Self> {
        let by_index = command == stat || command == any;
        (by_index || command == IPC_STAT).then_some(StatusOf { by_index, checked: command != any })
    }

    fn who<'a>(&self, cred: &'a Cred) -> Option<&'a Cred> {
        self.checked.then_some(cred)
    }

    /// The `*_STAT` commands return the id.
    fn result(&self, perm: &Perm) -> u64 {
        if self.by_index { perm.id as u64 } else { 0 }
    }
}
