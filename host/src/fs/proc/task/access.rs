//! Who may look into a process: what Linux decides in `ptrace_may_access` for reading.

use super::Subject;
use crate::abi::{Errno, Result};
use crate::cred::{Caps, Cred};
use crate::vfs::Caller;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Subject {
    /// The credentials of whoever opens or reads a file.
    fn cred_of(&self, caller: Caller) -> Option<Arc<Cred>> {
        self.kernel.tree.lock().task(caller.tid).map(|task| task.cred())
    }

    /// Whether the caller has a capability.
    pub(super) fn caller_has(&self, caller: Caller, capability: Caps) -> bool {
        self.cred_of(caller).is_some_and(|cred| cred.has(capability))
    }

    /// Whether its user may look at what it holds (prctl(PR_SET_DUMPABLE)).
    pub(super) fn is_dumpable(&self) -> bool {
        self.group.dumpable.load(Ordering::Relaxed) == 1
    }

    /// Whether the caller may see what is in its memory.
    pub(super) fn may_look(&self, caller: Caller) -> bool {
        if caller.pid == self.group.tgid {
            return true;
        }
        let Some(own) = self.cred_of(caller) else { return false };
        if own.has(Caps::SYS_PTRACE) {
            return true;
        }
        let (uid, gid) = self.ids();
        let permitted = self.task.as_ref().map_or(Caps::empty(), |task| task.cred().permitted);
        [uid.real, uid.effective, uid.saved].iter().all(|id| *id == own.uid.fs)
            && [gid.real, gid.effective, gid.saved].iter().all(|id| *id == own.gid.fs)
            && self.is_dumpable()
            && own.effective.contains(permitted)
    }

    /// # Errors
    /// EACCES unless the caller may look.
    pub(super) fn look(&self, caller: Caller) -> Result<()> {
        if self.may_look(caller) { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// The same for a file.
    pub(super) fn gate(self) -> impl Fn(Caller) -> Result<()> + Send + Sync + 'static {
        move |caller| self.look(caller)
    }
}
