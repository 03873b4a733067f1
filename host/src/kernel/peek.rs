//! Looking into another process: who may (ptrace(2), "Ptrace access mode checking") and what is seen then.
//!
//! What a task holds and who it is are under one lock, and execve(2) changes all of it in one step. An access decides and
//! takes what it looks at under that lock, so it never gets what belongs to the program after the one that it was
//! allowed to look into. PTRACE_MODE_READ and PTRACE_MODE_ATTACH differ in what security modules say; there are none.

use super::Task;
use super::task::Resources;
use crate::abi::{Errno, Result};
use crate::cred::userns::UserNs;
use crate::cred::{Caps, Cred, Ids};
use crate::mm::Mm;
use crate::vfs::{FdTable, File, FsContext, Path};
use std::sync::{Arc, Weak};

/// Which of the observer's ids count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    /// Those for files, and the effective capabilities (PTRACE_MODE_FSCREDS): /proc.
    FileSystem,
    /// The real ones, and the permitted capabilities (PTRACE_MODE_REALCREDS): system calls.
    Real,
}

/// Who looks. Kept by open files, it stays who it was when they were opened.
#[derive(Clone)]
pub struct Observer {
    /// The program that it is: threads, and whoever else shares that memory, have no secrets from each other.
    mm: Weak<Mm>,
    cred: Arc<Cred>,
}

/// What of a task decides who may look.
pub struct Secrets {
    /// Its user ids.
    pub uid: Ids,
    /// Its group ids.
    pub gid: Ids,
    /// Its permitted capabilities.
    pub permitted: Caps,
    /// The user namespace that these count in.
    pub user_ns: UserNs,
    /// Its memory is not for its own user, but for who has power over this user namespace, where its program began.
    pub closed: Option<UserNs>,
}

/// What was there to see.
#[derive(Default)]
pub struct Peek {
    /// Its address space; none once it has exited.
    pub mm: Option<Arc<Mm>>,
    /// Root and working directory, likewise.
    pub fs: Option<Arc<FsContext>>,
    /// The program's file.
    pub exe: Option<Path>,
    /// Its descriptors, for telling them apart: files are had by [`Task::peek_file`].
    pub fds: Option<Arc<FdTable>>,
}

impl Observer {
    /// Who it is.
    pub fn cred(&self) -> &Arc<Cred> {
        &self.cred
    }

    /// Whether it has a capability over the whole system.
    pub fn has(&self, capability: Caps) -> bool {
        self.cred.has(capability)
    }

    /// Whether it is `task`'s program.
    pub fn is(&self, task: &Task) -> bool {
        task.resources.lock().is_of(self)
    }

    /// Whether it may look at what has these `secrets`.
    pub fn may(&self, secrets: &Secrets, ids: As) -> bool {
        let own = &self.cred;
        if secrets.closed.as_ref().is_some_and(|space| !own.has_in(space, Caps::SYS_PTRACE)) {
            return false;
        }
        if own.has_in(&secrets.user_ns, Caps::SYS_PTRACE) {
            return true;
        }
        let (uid, gid, caps) = match ids {
            As::FileSystem => (own.uid.fs, own.gid.fs, own.effective),
            As::Real => (own.uid.real, own.gid.real, own.permitted),
        };
        let all = |of: &Ids, id: u32| of.real == id && of.effective == id && of.saved == id;
        all(&secrets.uid, uid)
            && all(&secrets.gid, gid)
            && own.user_ns == secrets.user_ns
            && caps.contains(secrets.permitted)
    }
}

impl Resources {
    fn is_of(&self, observer: &Observer) -> bool {
        self.mm.as_ref().is_some_and(|mm| Weak::as_ptr(&observer.mm) == Arc::as_ptr(mm))
    }
}

impl Task {
    /// It, as one that looks.
    pub fn observer(&self) -> Observer {
        let resources = self.resources.lock();
        let mm = resources.mm.as_ref().map_or_else(Weak::new, Arc::downgrade);
        Observer { mm, cred: resources.cred.clone() }
    }

    /// What `observer` sees of it.
    ///
    /// # Errors
    /// EPERM if it may not look.
    pub fn peek(&self, observer: &Observer, ids: As) -> Result<Peek> {
        self.peek_at(observer, ids, |held| Peek {
            mm: held.mm.clone(),
            fs: held.fs.clone(),
            exe: held.exe.clone(),
            fds: held.fds.clone(),
        })
    }

    /// The open file that its descriptor `fd` stands for, be it only a handle on a name.
    ///
    /// # Errors
    /// EPERM if `observer` may not look; EBADF.
    pub fn peek_file(&self, observer: &Observer, ids: As, fd: i32) -> Result<Arc<File>> {
        self.peek_at(observer, ids, |held| held.fds.as_ref().ok_or(Errno::EBADF)?.get_path(fd))?
    }

    fn peek_at<T>(&self, observer: &Observer, ids: As, look: impl FnOnce(&Resources) -> T) -> Result<T> {
        let held = self.resources.lock();
        let secrets = Secrets {
            uid: held.cred.uid,
            gid: held.cred.gid,
            permitted: held.cred.permitted,
            user_ns: held.cred.user_ns.clone(),
            closed: held.mm.as_ref().filter(|mm| !mm.is_dumpable()).map(|mm| mm.user_ns().clone()),
        };
        if held.is_of(observer) || observer.may(&secrets, ids) { Ok(look(&held)) } else { Err(Errno::EPERM) }
    }
}

#[cfg(test)]
mod tests {
    use super::{As, Observer, Secrets};
    use crate::cred::userns::UserNs;
    use crate::cred::{Caps, Cred, Ids};
    use std::sync::{Arc, Weak};

    fn observer(cred: Cred) -> Observer {
        Observer { mm: Weak::new(), cred: Arc::new(cred) }
    }

    fn secrets(id: u32) -> Secrets {
        Secrets {
            uid: Ids::all(id),
            gid: Ids::all(id),
            permitted: Caps::empty(),
            user_ns: UserNs::FIRST,
            closed: None,
        }
    }

    #[test]
    fn all_ids_of_the_observed_count() {
        let user = observer(Cred::user(1000, 1000, &[]));
        assert!(user.may(&secrets(1000), As::FileSystem) && user.may(&secrets(1000), As::Real));
        let change: [fn(&mut Secrets); 6] = [
            |s| s.uid.effective = 0,
            |s| s.uid.saved = 0,
            |s| s.gid.real = 0,
            |s| s.gid.saved = 0,
            |s| s.permitted = Caps::CHOWN,
            |s| s.closed = Some(UserNs::FIRST),
        ];
        for change in change {
            let mut secrets = secrets(1000);
            change(&mut secrets);
            assert!(!user.may(&secrets, As::FileSystem) && !user.may(&secrets, As::Real));
            assert!(observer(Cred::root()).may(&secrets, As::Real));
        }
    }

    #[test]
    fn one_kind_of_the_observers_ids_counts() {
        let mut raised = Cred::user(1000, 1000, &[]);
        raised.uid.fs = 2000;
        let raised = observer(raised);
        assert!(raised.may(&secrets(1000), As::Real) && !raised.may(&secrets(1000), As::FileSystem));
    }
}
