//! Who may look into a process, and what an open file keeps of the answer.

use super::Subject;
use crate::abi::{Errno, Result};
use crate::cred::userns::UserNs;
use crate::cred::{Caps, Cred};
use crate::kernel::cgroups::CgroupId;
use crate::kernel::namespaces::time::Shifted;
use crate::kernel::peek::{As, Observer, Peek, Secrets};
use crate::mm::Mm;
use crate::vfs::Caller;
use std::sync::{Arc, Weak};

/// An open file of a process, as whoever opened it may see that.
#[derive(Clone)]
pub(super) struct View {
    pub(super) subject: Subject,
    observer: Observer,
    /// Memory of the program that ran when it was opened, if that is what the file tells of: nothing once that is gone.
    space: Weak<Mm>,
    /// That program's auxiliary vector, which outlives its memory.
    pub(super) auxv: Vec<u8>,
    /// The user namespace that it was in when it was opened.
    pub(super) of_subject: UserNs,
    /// The control group that who opened it sees as the root, and by how much his clock is put forward.
    pub(super) cgroup_root: CgroupId,
    pub(super) shift: i64,
}

impl View {
    pub(super) fn peek(&self) -> Result<Peek> {
        self.subject.peek(&self.observer)
    }

    pub(super) fn space(&self) -> Option<Arc<Mm>> {
        self.space.upgrade()
    }

    /// Who opened it.
    pub(super) fn opener(&self) -> &Arc<Cred> {
        self.observer.cred()
    }

    /// The user namespace of who opened it, which says what ids are called.
    pub(super) fn user_ns(&self) -> &UserNs {
        &self.opener().user_ns
    }

    /// Whether whoever opened it has a capability.
    pub(super) fn has(&self, capability: Caps) -> bool {
        self.observer.has(capability)
    }

    /// Whether it was opened by the process itself, which runs the same program still.
    pub(super) fn is_own(&self) -> bool {
        self.subject.task.as_ref().is_some_and(|task| self.observer.is(task))
    }
}

impl Subject {
    /// Whether its user may look at what it holds (prctl(PR_SET_DUMPABLE)).
    pub(super) fn is_dumpable(&self) -> bool {
        self.mm().is_some_and(|mm| mm.is_dumpable())
    }

    /// # Errors
    /// EACCES for an opener that has gone.
    pub(super) fn observer(&self, caller: Caller) -> Result<Observer> {
        let task = self.kernel.tree.lock().task(caller.tid).cloned();
        task.map(|task| task.observer()).ok_or(Errno::EACCES)
    }

    /// It, seen by who opens a file that says nothing secret, or asks again whenever it does.
    pub(super) fn view(&self, caller: Caller) -> Result<View> {
        let opener = self.kernel.tree.lock().task(caller.tid).cloned().ok_or(Errno::EACCES)?;
        Ok(View {
            subject: self.clone(),
            observer: opener.observer(),
            cgroup_root: *opener.namespaces().cgroup.of,
            shift: opener.group.shifts.of(Shifted::Boottime),
            space: Weak::new(),
            auxv: Vec::new(),
            of_subject: self.task.as_ref().map_or(UserNs::FIRST, |task| task.cred().user_ns.clone()),
        })
    }

    /// It, seen by who opens a file that tells of its memory.
    ///
    /// # Errors
    /// EACCES unless the caller may look.
    pub(super) fn memory_view(&self, caller: Caller) -> Result<View> {
        let mut view = self.view(caller)?;
        // Who has no memory any more has nothing to hide.
        if self.mm().is_some()
            && let Some(mm) = view.peek()?.mm
        {
            (view.space, view.auxv) = (Arc::downgrade(&mm), mm.layout().auxv);
        }
        Ok(view)
    }

    /// What `observer` sees of it.
    ///
    /// # Errors
    /// EACCES unless it may look.
    pub(super) fn peek(&self, observer: &Observer) -> Result<Peek> {
        if let Some(task) = &self.task {
            return task.peek(observer, As::FileSystem).map_err(|_| Errno::EACCES);
        }
        let (uid, gid) = self.ids();
        let secrets = Secrets { uid, gid, permitted: Caps::empty(), user_ns: UserNs::FIRST, closed: None };
        if observer.may(&secrets, As::FileSystem) { Ok(Peek::default()) } else { Err(Errno::EACCES) }
    }
}
